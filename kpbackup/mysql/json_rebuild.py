"""How a typed JSON value is written again: for each kind and text the SQL expression whose JSON value is the one it was.

Most expressions stand in the INSERT itself and take the value as a parameter. A few values need another
time zone, a laxer SQL mode, or must not pass a subquery: those are *staged*, made beforehand as JSON in a scratch table.
JSON documents are changed by JSON_SET along paths, never put together anew, so that all else in them stays as it was loaded.

Found by trying, on MySQL 9.7: JSON_VALUE ... RETURNING DECIMAL takes as many digits as the text has, CAST whole groups of
nine, a column as many as it was declared with, but no group of zeros. A column of JSON_TABLE takes a VARBINARY's bytes as they
are, any other BLOB as its base64 text. A scalar subquery turns the BLOB kinds into 252; a table's column named directly keeps
its own.

Pure: nothing here talks to a server.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, date, datetime

from kpbackup import errors
from kpbackup.mysql import json_types, quoting
from kpbackup.mysql.json_types import TypedValue

_FIRST_TIMESTAMP = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
_LAST_TIMESTAMP = datetime(2038, 1, 19, 3, 14, 7, 999999, tzinfo=UTC)
_WIDEST_OFFSET = "13:59"  # the server accepts up to +14:00 and -13:59
_INLINE_COLUMNS = {252: "BLOB", json_types.FIXED_BINARY: "BINARY({})"}
_STAGED_COLUMNS = {249: "tiny", 250: "medium", 251: "large"}


@dataclass(frozen=True)
class Inline:
    """`sql` has one placeholder, for `parameter`: text, or an unsigned number."""

    sql: str
    parameter: str | int


@dataclass(frozen=True)
class Staged:
    """`value` makes it, in a session with `time_zone` and a lax SQL mode.

    With a `column` ('tiny', 'medium', 'large') `value` makes the content of that column, and the column is the value.
    """

    value: str
    column: str = ""
    time_zone: str = "+00:00"


def rebuild(value: TypedValue) -> Inline | Staged:
    """How to make the value.

    Raises:
        IntegrityError: its text is not one of its kind.
    """
    try:
        return _BY_KIND[value.kind.letter](value)
    except ValueError as exc:
        raise errors.IntegrityError(f"a JSON value of kind {value.kind.letter} reads {value.text[:40]!r}") from exc


def _decimal(value: TypedValue) -> Inline | Staged:
    sign, digits = ("-", value.text[1:]) if value.text.startswith("-") else ("", value.text)
    whole, _, fraction = digits.partition(".")
    if not (whole + fraction).isdecimal() or not whole:
        raise ValueError(value.text)
    scale, size = len(fraction), value.kind.number
    if scale > json_types.MAX_SCALE or len(whole) + scale > json_types.MAX_PRECISION:
        return Staged(value.text)  # a literal has no such limits; it is digits alone
    kind = f"DECIMAL({json_types.MAX_PRECISION},{scale})"
    if whole == "0" and size == 0:
        return Inline(_column(f"DECIMAL({max(scale, 1)},{scale})"), value.text)
    if size in (-1, _size_of(len(whole))):
        return Inline(f"JSON_VALUE(JSON_ARRAY(?), '$[0]' RETURNING {kind})", value.text)
    if size == 4 * -(-len(whole) // 9):
        return Inline(f"CAST(? AS {kind})", value.text)
    groups, rest = divmod(size, 4)
    return Inline(_column(f"DECIMAL({9 * groups + 2 * rest - 1 + scale},{scale})"), value.text)


def _size_of(digits: int) -> int:
    """Bytes of an integer part of so many digits."""
    return digits // 9 * 4 + (digits % 9 + 1) // 2


def _column(column_type: str, value: str = "?") -> str:
    """The value as a column of that type has it."""
    return f"(SELECT c FROM JSON_TABLE(JSON_ARRAY({value}), '$[0]' COLUMNS (c {column_type} PATH '$')) AS k)"


def _staged_column(column_type: str, text: str, *, time_zone: str = "+00:00") -> Staged:
    return Staged(_column(column_type, quoting.literal(text)), time_zone=time_zone)


def _integer(value: TypedValue) -> Inline:
    if not value.text.isdecimal():
        raise ValueError(value.text)
    # as a number: of a text the server takes the digits beyond a signed one for an error
    return Inline(f"CAST(? AS {'SIGNED' if value.kind.letter == 'i' else 'UNSIGNED'})", int(value.text))


def _date(value: TypedValue) -> Inline | Staged:
    if _is_calendar_date(value.text):
        return Inline("CAST(? AS DATE)", value.text)
    return _staged_column("DATE", value.text)


def _time(value: TypedValue) -> Inline:
    return Inline("CAST(? AS TIME(6))", value.text)


def _datetime(value: TypedValue) -> Inline | Staged:
    if _is_calendar_date(value.text[:10]):
        return Inline("CAST(? AS DATETIME(6))", value.text)
    return _staged_column("DATETIME(6)", value.text)


def _timestamp(value: TypedValue) -> Inline | Staged:
    """JSON keeps what the clock of the session showed that made the value, up to 14 hours from UTC."""
    if not _is_calendar_date(value.text[:10]):
        return _staged_column("TIMESTAMP(6)", value.text)
    at = datetime.fromisoformat(value.text).replace(tzinfo=UTC)
    if _FIRST_TIMESTAMP <= at <= _LAST_TIMESTAMP:
        return Inline(_column("TIMESTAMP(6)"), value.text)
    sign = "-" if at < _FIRST_TIMESTAMP else "+"
    return _staged_column("TIMESTAMP(6)", value.text, time_zone=sign + _WIDEST_OFFSET)


def _is_calendar_date(text: str) -> bool:
    """Whether every SQL mode accepts it: no zeros, no 31st of February."""
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _binary(value: TypedValue) -> Inline | Staged:
    number = value.kind.number
    head, _, encoded = value.text.partition(f"base64:type{number}:")
    if head:
        raise ValueError(value.text)
    encoded = "".join(encoded.split())  # the server breaks the lines of long ones
    try:
        size = len(base64.b64decode(encoded, validate=True))
    except binascii.Error as exc:
        raise ValueError(value.text) from exc
    if number == json_types.VARBINARY:
        return Inline("FROM_BASE64(?)", encoded)
    if number == json_types.BIT:
        bits = int.from_bytes(base64.b64decode(encoded), "big")
        return Inline(_column(f"BIT({8 * size})", "CAST(? AS UNSIGNED)"), bits)
    if number in _INLINE_COLUMNS:
        return Inline(_column(_INLINE_COLUMNS[number].format(size), "FROM_BASE64(?)"), encoded)
    return Staged(f"FROM_BASE64('{encoded}')", column=_STAGED_COLUMNS[number])


_BY_KIND = {
    "d": _decimal, "u": _integer, "i": _integer, "a": _date, "t": _time, "m": _datetime, "s": _timestamp, "b": _binary,
}
