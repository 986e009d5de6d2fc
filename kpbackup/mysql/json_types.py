"""Typed values inside MySQL's JSON: found at the dump, written back with the types they had.

MySQL's binary JSON keeps DECIMAL, DATE, TIME, DATETIME, TIMESTAMP, UNSIGNED INTEGER, BLOB and BIT apart from the strings and
numbers that JSON text has; any way through text loses that in silence. Nor is a number of more than 32 bits an UNSIGNED INTEGER
where SQL made it (`JSON_OBJECT('at', bigint_column)`), as it would be in text (found by trying, on MySQL 9.7). So beside each
JSON column a dump reads a *type list*: NULL for a document without typed values (the usual case), else one item for each, which
says where it is and what. The values themselves are in the document's text. Rows and lists come from one SELECT, so they are of
one snapshot, and the chunk's hash covers both: reading back proves the types as it proves the values.

Where: `.n` is the n-th member of an object, `[n` the n-th element of an array, `$` the document itself, counted from 1 in the
order of the paths `$**.*` and `$**[*]`: containers as their opening brackets come in the text, in each all members (elements)
one after the other, nested or not. What: see `KINDS`.

Limits: a value of a kind that no expression of today's servers makes (OPAQUE: left by MySQL 5.7, or a type number not in
BINARY_KINDS) is left out of the list, and the SELECT ends with a warning for each (`unkept`). Of a DECIMAL the type, digits
and scale are kept, and its storage size where the integer part has no unused words. Free space that partial updates left
in a document is not copied.

Pure: no I/O, nothing is kept between calls.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kpbackup import errors
from kpbackup.mysql.quoting import identifier

# letter -> JSON_TYPE. `d` is followed by the bytes of the integer part (but beyond 65 digits), `b` by the type number.
KINDS = {
    "d": "DECIMAL", "u": "UNSIGNED INTEGER", "a": "DATE", "t": "TIME", "m": "DATETIME", "s": "TIMESTAMP", "b": "BLOB or BIT",
    "i": "INTEGER of more than 32 bits",
}
LARGEST_INTEGER = (1 << 32) - 1  # that JSON text makes an INTEGER of
_TYPED = ("DECIMAL", "UNSIGNED INTEGER", "DATE", "TIME", "DATETIME", "TIMESTAMP", "BLOB", "BIT", "OPAQUE")
BIT, FIXED_BINARY, VARBINARY = 16, 254, 15
BINARY_KINDS = (VARBINARY, BIT, 249, 250, 251, 252, FIXED_BINARY)
MAX_PRECISION, MAX_SCALE = 65, 30

_UNKEPT = "kpbackup json "
_UNKEPT_WARNING = re.compile(rf"'{_UNKEPT}(\d+)'")
TRUNCATED_VALUE = 1292  # the warning an unkept value makes
SESSION_SETTINGS = "group_concat_max_len=18446744073709551615"

_ITEM = re.compile(rb"(?:([.\[])([1-9]\d{0,18})|\$)([a-z])(\d{0,4})")
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]|[^\s\[\]{}",:]+')
_OBJECT, _ARRAY = b"{", b"["
LARGE_BYTES = 1 << 20
_SHORT_BYTES = 1 << 10


@dataclass(frozen=True)
class Kind:
    """One item's letter and number; `number` is -1 where there is none."""

    letter: str
    number: int = -1


@dataclass(frozen=True)
class TypedValue:
    """A typed value of a document: its JSON path, what it is, and its text (strings without quotes and escapes)."""

    path: str
    kind: Kind
    text: str


def list_expression(column: str, number: int) -> str:
    """The SQL that gives the type list of column `r.column`; `number` is what its warnings call it."""
    document = f"r.{identifier(column)}"
    member, element = _kind_expression("l.v", number), _kind_expression("l.w", number)
    # the WHERE first: most values are not typed, and then this costs little more than taking the document apart
    return (
        f"CASE WHEN JSON_TYPE({document}) IN ('OBJECT', 'ARRAY') THEN"
        f" (SELECT GROUP_CONCAT(IF(l.n IS NULL, CONCAT('[', l.m, {element}), CONCAT('.', l.n, {member}))"
        " ORDER BY l.n IS NULL, l.n, l.m SEPARATOR ',')"
        f" FROM JSON_TABLE({document}, '$' COLUMNS (NESTED PATH '$**.*' COLUMNS (n FOR ORDINALITY, v JSON PATH '$'),"
        " NESTED PATH '$**[*]' COLUMNS (m FOR ORDINALITY, w JSON PATH '$'))) AS l"
        f" WHERE IF(l.n IS NULL, {_is_typed('l.w')}, {_is_typed('l.v')}))"
        f" ELSE CONCAT('$', {_kind_expression(document, number)}) END"
    )


def _is_typed(value: str) -> str:
    typed = " ".join(f"WHEN '{name}' THEN 1" for name in _TYPED)
    return f"CASE JSON_TYPE({value}) WHEN 'INTEGER' THEN {value} > {LARGEST_INTEGER} {typed} ELSE 0 END"


def _kind_expression(value: str, number: int) -> str:
    """Letter and number of a value, NULL for one that is not typed."""
    kind_number = f"SUBSTRING_INDEX(SUBSTRING_INDEX(LEFT(CAST({value} AS CHAR), 20), ':', 2), ':type', -1)"
    known = ", ".join(f"'{one}'" for one in BINARY_KINDS)
    # the CAST warns once for each such value and gives 0; it names a value of the row, else it would run once a statement
    unkept = f"NULLIF(CAST(CONCAT('{_UNKEPT}{number}', LEFT(JSON_TYPE({value}), 0)) AS SIGNED), 0)"
    cases = {
        "DECIMAL": _decimal_expression(value), "UNSIGNED INTEGER": "'u'", "DATE": "'a'", "TIME": "'t'", "DATETIME": "'m'",
        "TIMESTAMP": "'s'", "OPAQUE": unkept, "INTEGER": f"IF({value} > {LARGEST_INTEGER}, 'i', NULL)",
        **dict.fromkeys(("BLOB", "BIT"), f"IF({kind_number} IN ({known}), CONCAT('b', {kind_number}), {unkept})"),
    }
    return f"CASE JSON_TYPE({value}) " + " ".join(f"WHEN '{name}' THEN {sql}" for name, sql in cases.items()) + " END"


def _decimal_expression(value: str) -> str:
    """`d` and the bytes of the integer part: the fewest it needs where no expression makes a decimal of the size it has.

    Storage: type, opaque type, length, precision and scale take 5 bytes; then 4 bytes for 9 digits, fewer for fewer.
    """
    text = f"CAST({value} AS CHAR)"
    scale = f"IF(LOCATE('.', {text}), LENGTH({text}) - LOCATE('.', {text}), 0)"
    whole = f"TRIM(LEADING '-' FROM SUBSTRING_INDEX({text}, '.', 1))"
    size = f"(JSON_STORAGE_SIZE({value}) - 5 - {scale} DIV 9 * 4 - ({scale} MOD 9 + 1) DIV 2)"
    small = f"{scale} <= {MAX_SCALE} AND LENGTH({whole}) + {scale} <= {MAX_PRECISION}"
    digits = f"({size} + 3) DIV 4 = (LENGTH({whole}) + 8) DIV 9"
    reachable = f"IF({whole} = '0', {size} IN (0, 1, 4), {digits})"
    least = f"LENGTH({whole}) DIV 9 * 4 + (LENGTH({whole}) MOD 9 + 1) DIV 2"
    return f"IF({small}, CONCAT('d', IF({reachable}, {size}, {least})), 'd')"


def unkept(columns: tuple[str, ...], warnings: Iterable[str]) -> Counter[str]:
    """How many values of each column could not be listed, by the texts of the SELECT's warnings."""
    found = (_UNKEPT_WARNING.search(text) for text in warnings)
    return Counter(columns[int(match[1])] for match in found if match)


def warnings(counts: Mapping[tuple[str, str, str], int]) -> Iterator[str]:
    """What a backup does not keep; `counts` are how many values of (schema, table, column) could not be listed."""
    for (schema, table, column), count in sorted(counts.items()):
        yield f"table {schema}.{table}: {count} JSON values in {column} are of a type no statement makes, only their text is kept"


def typed_values(document: bytes, type_list: bytes, *, large_bytes: int = LARGE_BYTES) -> list[TypedValue]:
    """The typed values of a document's text. One above `large_bytes` is walked through, slower and in little memory.

    Raises:
        IntegrityError: document and list do not belong together.
    """
    wanted = _parse(type_list) if len(type_list) > _SHORT_BYTES else _parse_again(type_list)
    try:
        if wanted[b"$"] and document[:1] not in (_OBJECT, _ARRAY):
            found = [TypedValue("$", wanted[b"$"][1], _text(document))]
        else:
            found = list(_walk(document, wanted) if len(document) > large_bytes else _visit(document, wanted))
    except (ValueError, LookupError, RecursionError) as exc:
        raise errors.IntegrityError(f"a JSON document cannot be read: {exc}") from exc
    if len(found) != sum(map(len, wanted.values())):
        raise errors.IntegrityError(f"a JSON document has {len(found)} of the typed values its type list names")
    return found


def _parse(type_list: bytes) -> dict[bytes, dict[int, Kind]]:
    """`.`, `[` and `$` -> ordinal -> kind."""
    wanted: dict[bytes, dict[int, Kind]] = {b".": {}, b"[": {}, b"$": {}}
    for item in type_list.split(b","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise errors.IntegrityError(f"a type list of JSON values holds {item[:40]!r}")
        where, ordinal = (match[1], int(match[2])) if match[1] else (b"$", 1)
        letter, number = match[3].decode(), match[4]
        if letter not in KINDS or (letter == "b" and int(number or 0) not in BINARY_KINDS):
            raise errors.IntegrityError(f"a type list of JSON values holds {item[:40]!r}", hint="a newer kpbackup may know it")
        wanted[where][ordinal] = Kind(letter, int(number) if number else -1)
    return wanted


_parse_again = functools.lru_cache(maxsize=256)(_parse)


class _Members(list[tuple[str, object]]):
    """An object of a parsed document."""


def _visit(document: bytes, wanted: dict[bytes, dict[int, Kind]]) -> Iterator[TypedValue]:
    """The quick way: parsed as a whole, in objects many times its size."""
    root = json.loads(document, object_pairs_hook=_Members, parse_int=str, parse_float=str)
    counted: dict[object, int] = {_Members: 0, list: 0}
    kinds: dict[object, dict[int, Kind]] = {_Members: wanted[b"."], list: wanted[b"["]}
    waiting: list[tuple[str, Any]] = [("$", root)]
    while waiting:
        path, container = waiting.pop()
        kind: object = type(container)
        nested = []
        first = counted[kind]
        counted[kind] += len(container)
        named = container if kind is _Members else enumerate(container)
        for place, (name, value) in enumerate(named, first + 1):
            typed = kinds[kind].get(place)
            if typed is not None:
                yield TypedValue(path + _leg(name), typed, str(value))
            elif type(value) in counted:
                nested.append((path + _leg(name), value))
        waiting += reversed(nested)


@functools.lru_cache(maxsize=1024)  # documents of one table have the same few keys
def _leg(name: str | int) -> str:
    return f"[{name}]" if isinstance(name, int) else "." + json.dumps(name, ensure_ascii=False)


@dataclass
class _Container:
    """An object or array that is open. `before` counts the values of those of its kind that were opened earlier; `seen` the
    tokens directly inside it, keys included."""

    is_object: bool
    before: int
    seen: int = 0
    key: bytes = b""

    @property
    def place(self) -> int:
        """Which of its values is at hand, from 1."""
        return self.seen // 2 if self.is_object else self.seen

    @property
    def leg(self) -> str:
        """The leg of a JSON path to the value at hand; a key is quoted and escaped there as it is in the text."""
        return f".{self.key.decode()}" if self.is_object else f"[{self.seen - 1}]"


def _walk(document: bytes, wanted: dict[bytes, dict[int, Kind]]) -> Iterator[TypedValue]:
    """The way for large documents: nothing is held but a number for each container.

    Two passes: a nested container's values are counted after all of its parent's, which end later in the text.
    """
    before = _values_before(document)
    kinds = {True: wanted[b"."], False: wanted[b"["]}
    opened: list[_Container] = []
    for match in _TOKEN.finditer(document):
        token = match[0]
        if token in (b"}", b"]"):
            opened.pop()
            continue
        if opened:
            inner = opened[-1]
            inner.seen += 1
            if inner.is_object and inner.seen % 2:
                inner.key = token
                continue
            kind = kinds[inner.is_object].get(inner.before + inner.place)
            if kind is not None:
                yield TypedValue("$" + "".join(one.leg for one in opened), kind, _text(token))
        if token in before:
            opened.append(_Container(token == _OBJECT, next(before[token])))


def _values_before(document: bytes) -> dict[bytes, Iterator[int]]:
    """For `{` and `[`: how many values the containers of that kind before each one have, in the order they are opened."""
    tokens: dict[bytes, list[int]] = {_OBJECT: [], _ARRAY: []}
    opened: list[tuple[bytes, int]] = []
    for match in _TOKEN.finditer(document):
        token = match[0]
        if token in (b"}", b"]"):
            opened.pop()
            continue
        if opened:
            bracket, place = opened[-1]
            tokens[bracket][place] += 1
        if token in tokens:
            opened.append((token, len(tokens[token])))
            tokens[token].append(0)
    return {
        _OBJECT: itertools.accumulate((count // 2 for count in tokens[_OBJECT]), initial=0),
        _ARRAY: itertools.accumulate(tokens[_ARRAY], initial=0),
    }


def _text(token: bytes) -> str:
    return str(json.loads(token)) if token.startswith(b'"') else token.decode()
