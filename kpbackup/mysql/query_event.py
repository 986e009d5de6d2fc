"""A QUERY event in full: the statement, its default database, and the session it ran in.

What a replay by statements needs and a replica does by itself: the status variables of the event as assignments that
give another session the same meaning (sql_mode, character sets, time zone, checks, numbers of AUTO_INCREMENT, clock).
Also what may stand before a statement: INTVAR, RAND and USER_VAR events.

Pure. A status variable this version does not know makes the event unreadable: its length is unknown, and so is what it
would change; that is an error, never a guess.

Sources: MySQL internals manual, 'Query_event status variables'; MariaDB knowledge base, 'QUERY_EVENT'; values seen on
MariaDB 10.11 and MySQL 9.7.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from kpbackup import errors
from kpbackup.mysql import events
from kpbackup.mysql.quoting import identifier, literal

INTVAR, RAND, USER_VAR = 5, 13, 14
CONTEXT_EVENTS = frozenset({INTVAR, RAND, USER_VAR})

FLAG_THREAD_SPECIFIC, FLAG_SUPPRESS_USE = 0x04, 0x08

_HEAD = struct.Struct("<IIBHH")  # thread id, seconds, length of database name, error, length of status variables

# flags2: (bit, variable, value of the variable when the bit is set)
_FLAGS = ((14, "sql_auto_is_null", 1), (26, "foreign_key_checks", 0), (27, "unique_checks", 0))
_MARIADB_FLAGS = (
    (15, "check_constraint_checks", 0), (24, "explicit_defaults_for_timestamp", 1), (28, "sql_if_exists", 1),
    (30, "system_versioning_insert_history", 1),
)

# status variables of fixed length: code -> bytes
_FIXED = {0: 4, 1: 8, 3: 4, 4: 6, 7: 2, 8: 2, 9: 8, 10: 4, 13: 3, 16: 1, 17: 8, 18: 2, 19: 1, 20: 1, 21: 1, 128: 3, 129: 8}
_LENGTH_FIRST = {5, 6}  # one byte of length
_ALTER_ENDS = 0x04 | 0x08  # of MariaDB's two-phase ALTER: commit, roll back
ALTER_STARTS, ALTER_ROLLS_BACK = 0x02, 0x08


@dataclass(frozen=True)
class QueryEvent:
    """`text` is in the session's character_set_client; `variables` are the raw status variables by code."""

    text: bytes
    database: str
    thread_id: int
    timestamp_s: int
    flags: int
    error: int
    variables: dict[int, bytes]

    @property
    def is_use_suppressed(self) -> bool:
        """CREATE and DROP DATABASE: the default database need not exist."""
        return bool(self.flags & FLAG_SUPPRESS_USE)

    @property
    def alter_phase(self) -> int:
        """MariaDB's two-phase ALTER TABLE: ALTER_STARTS, ALTER_ROLLS_BACK, else 0 or the commit's bit."""
        return self.variables.get(130, b"\0")[0]

    @property
    def invoker(self) -> tuple[str, str] | None:
        """(user, host) that CURRENT_USER stands for."""
        found = self.variables.get(11)
        if found is None:
            return None
        user = found[1 : 1 + found[0]]
        return user.decode("utf-8", "replace"), found[2 + found[0] :].decode("utf-8", "replace")


def parse(data: bytes) -> QueryEvent:
    """The content of a QUERY event, MariaDB's compressed kind too.

    Raises:
        IntegrityError: malformed. NotUnderstood: a status variable is unknown.
    """
    try:
        thread_id, _, database_bytes, error, status_bytes = _HEAD.unpack_from(data, events.HEADER_BYTES)
        at = events.HEADER_BYTES + _HEAD.size
        variables = _variables(data[at : at + status_bytes])
        at += status_bytes
        database = data[at : at + database_bytes].decode("utf-8", "surrogateescape")
        text = data[at + database_bytes + 1 : len(data) - events.CRC_BYTES if events.has_valid_crc(data) else len(data)]
        if data[4] == events.QUERY_COMPRESSED:
            text = decompressed(text)
    except (struct.error, IndexError, ValueError, zlib.error) as exc:
        raise errors.IntegrityError(f"query event is malformed: {exc}") from exc
    head = events.header(data)
    return QueryEvent(text, database, thread_id, head.timestamp_s, head.flags, error, variables)


def decompressed(data: bytes) -> bytes:
    """MariaDB's compressed part of an event: a byte with the length's width, the length, a zlib stream."""
    width = data[0] & 0x07
    length = int.from_bytes(data[1 : 1 + width], "big")
    found = zlib.decompress(data[1 + width :])
    if len(found) != length:
        raise errors.IntegrityError(f"compressed event holds {len(found)} bytes, it says {length}")
    return found


def _variables(status: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(status):
        code = status[at]
        at += 1
        length = _length(code, status, at)
        if at + length > len(status):
            raise IndexError("status variables are cut")
        found[code] = status[at : at + length]
        at += length
    return found


def _length(code: int, status: bytes, at: int) -> int:
    if code in _FIXED:
        return _FIXED[code]
    if code in _LENGTH_FIRST:
        return 1 + status[at]
    if code == 2:  # catalog with a terminator, of MySQL 5.0
        return 2 + status[at]
    if code == 11:  # invoker: user, host
        host_at = at + 1 + status[at]
        return host_at + 1 + status[host_at] - at
    if code == 12:  # names of updated databases, each with a terminator; 254: too many to name
        end = at + 1
        for _ in range(status[at] if status[at] != 254 else 0):
            end = status.index(b"\0", end) + 1
        return end - at
    if code == 130:  # MariaDB: more flags of the GTID, of a two-phase ALTER also its first number
        return 9 if status[at] & _ALTER_ENDS else 1
    if code == 131:  # MariaDB 11: pairs of character set and collation
        return 1 + 4 * status[at]
    raise errors.ServerUnfit(
        f"a statement in the binlog has a status variable ({code}) that this version of kpbackup does not know",
        hint="the source is newer than kpbackup; use a newer kpbackup",
    )


def assignments(query: QueryEvent, *, mariadb: bool) -> dict[str, str]:
    """Session variables and their values as SQL, for the statement to mean what it meant on the source.

    `timestamp` is among them, `default database` and `autocommit` are not. MariaDB 11's character_set_collations is
    left out: see `character_set_collations`.
    """
    found: dict[str, str] = {}
    for code, value in query.variables.items():
        found |= _assignment(code, value, mariadb)
    found.setdefault("lc_time_names", "0")  # events name these three only where they are not the usual ones
    found.setdefault("auto_increment_increment", "1")
    found.setdefault("auto_increment_offset", "1")
    fraction = query.variables.get(128 if mariadb else 13)
    microseconds = int.from_bytes(fraction, "little") if fraction else 0
    found["timestamp"] = f"{query.timestamp_s}.{microseconds:06}"
    if query.flags & FLAG_THREAD_SPECIFIC:
        found["pseudo_thread_id"] = str(query.thread_id)
    return found


def _assignment(code: int, value: bytes, mariadb: bool) -> dict[str, str]:
    number = int.from_bytes(value, "little")
    if code == 0:
        flags = _FLAGS + _MARIADB_FLAGS if mariadb else _FLAGS
        return {name: str(on if number >> bit & 1 else 1 - on) for bit, name, on in flags}
    if code == 3:
        return {"auto_increment_increment": str(number & 0xFFFF), "auto_increment_offset": str(number >> 16)}
    if code == 4:
        client, connection, server = struct.unpack("<HHH", value)
        return {"character_set_client": str(client), "collation_connection": str(connection), "collation_server": str(server)}
    if code == 5:
        return {"time_zone": literal(value[1:].decode("utf-8"))}
    simple = {1: "sql_mode", 7: "lc_time_names", 8: "collation_database"}
    if not mariadb:
        simple |= {
            16: "explicit_defaults_for_timestamp", 18: "default_collation_for_utf8mb4", 19: "sql_require_primary_key",
            20: "default_table_encryption",
        }
    return {simple[code]: str(number)} if code in simple else {}


def character_set_collations(query: QueryEvent) -> tuple[int, ...]:
    """MariaDB 11: ids of the collations that character sets stand for by default in the statement's session."""
    value = query.variables.get(131, b"\0")
    return tuple(struct.unpack_from("<H", value, 1 + 4 * number + 2)[0] for number in range(value[0]))


def context_assignment(data: bytes, collation: Callable[[int], tuple[str, str]]) -> str:
    """What an INTVAR, RAND or USER_VAR event sets, as `name = value` for a SET statement.

    `collation` gives (character set, collation) of a collation's number.

    Raises:
        IntegrityError: malformed.
    """
    body = events.event_body(data, events.has_valid_crc(data))
    try:
        if data[4] == INTVAR:
            kind, value = struct.unpack_from("<BQ", body)
            return f"{ {1: 'last_insert_id', 2: 'insert_id'}[kind]} = {value}"
        if data[4] == RAND:
            first, second = struct.unpack_from("<QQ", body)
            return f"rand_seed1 = {first}, rand_seed2 = {second}"
        return _user_variable(body, collation)
    except (struct.error, IndexError, KeyError) as exc:
        raise errors.IntegrityError(f"event of kind {data[4]} before a statement is malformed") from exc


def _user_variable(body: bytes, collation: Callable[[int], tuple[str, str]]) -> str:
    length = int.from_bytes(body[:4], "little")
    name = "@" + identifier(body[4 : 4 + length].decode("utf-8", "surrogateescape"))
    at = 4 + length
    if body[at]:
        return f"{name} = NULL"
    kind, number, size = struct.unpack_from("<BII", body, at + 1)
    value = body[at + 10 : at + 10 + size]
    is_unsigned = len(body) > at + 10 + size and bool(body[at + 10 + size] & 1)
    if kind == 1:
        return f"{name} = {struct.unpack('<d', value)[0]!r}"
    if kind == 2:
        return f"{name} = {int.from_bytes(value, 'little', signed=not is_unsigned)}"
    if kind == 4:
        return f"{name} = {_decimal(value)}"
    charset, full_name = collation(number)
    return f"{name} = _{charset} X'{value.hex()}' COLLATE {identifier(full_name)}"


def _decimal(value: bytes) -> str:
    """MySQL's packed decimal: precision, scale, then digits in groups of nine, the sign in the first bit."""
    precision, scale = value[0], value[1]
    return decimal_text(value[2:], precision, scale)


_DIGIT_BYTES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)


def decimal_bytes(precision: int, scale: int) -> int:
    """Length of a packed decimal."""
    whole = precision - scale
    return whole // 9 * 4 + _DIGIT_BYTES[whole % 9] + scale // 9 * 4 + _DIGIT_BYTES[scale % 9]


def decimal_text(packed: bytes, precision: int, scale: int) -> str:
    """A packed decimal as text."""
    negative = not packed[0] & 0x80
    data = bytearray(packed)
    data[0] ^= 0x80
    if negative:
        data = bytearray(byte ^ 0xFF for byte in data)
    whole, at = precision - scale, 0
    groups = [whole % 9] + [9] * (whole // 9)
    digits = ""
    for digit_count in groups:
        width = _DIGIT_BYTES[digit_count]
        digits += str(int.from_bytes(data[at : at + width], "big")).zfill(digit_count) if digit_count else ""
        at += width
    fraction = ""
    for digit_count in [9] * (scale // 9) + [scale % 9]:
        width = _DIGIT_BYTES[digit_count]
        fraction += str(int.from_bytes(data[at : at + width], "big")).zfill(digit_count) if digit_count else ""
        at += width
    text = (digits.lstrip("0") or "0") + (f".{fraction}" if scale else "")
    return f"-{text}" if negative else text
