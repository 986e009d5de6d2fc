"""Row events: which table they change, how many rows, and nothing of what is in them.

A TABLE_MAP names a table and the types of its columns; the row events after it refer to it by number. Rows have no
lengths of their own, so counting them means walking over their values; `RowCounter` does that with one compiled walk
per table. MariaDB's compressed kinds (166-171) are looked into; their table number stands outside the compressed part.

Pure. Limits: rows with JSON diffs (PARTIAL_UPDATE_ROWS) and of column types that this version does not know are not
counted: the number is then None, never a guess.

Sources: MySQL internals manual, 'TABLE_MAP_EVENT' and 'ROWS_EVENT'; MariaDB knowledge base, 'Rows_event_v1/v2'.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from kpbackup import errors
from kpbackup.mysql import events
from kpbackup.mysql.packets import read_lenenc_int
from kpbackup.mysql.query_event import decimal_bytes, decompressed

TABLE_MAP, PARTIAL_UPDATE_ROWS, ROWS_QUERY, ANNOTATE_ROWS = 19, 39, 29, 160

STATEMENT_ENDS, NO_FOREIGN_KEY_CHECKS = 0x01, 0x02  # flags of a row event


class Change(StrEnum):
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


# kind of event -> (what it does, whether its header is of version 2, whether MariaDB compressed it)
_KINDS = {
    20: (Change.INSERT, False, False), 21: (Change.UPDATE, False, False), 22: (Change.DELETE, False, False),
    23: (Change.INSERT, False, False), 24: (Change.UPDATE, False, False), 25: (Change.DELETE, False, False),
    30: (Change.INSERT, True, False), 31: (Change.UPDATE, True, False), 32: (Change.DELETE, True, False),
    PARTIAL_UPDATE_ROWS: (Change.UPDATE, True, False),
    166: (Change.INSERT, False, True), 167: (Change.UPDATE, False, True), 168: (Change.DELETE, False, True),
    169: (Change.INSERT, True, True), 170: (Change.UPDATE, True, True), 171: (Change.DELETE, True, True),
}
ROW_EVENTS = frozenset(_KINDS)

_PLAIN_KINDS = {166: 23, 167: 24, 168: 25, 169: 30, 170: 31, 171: 32}

_LARGEST_DEFLATE_RATIO = 1032
_NEXT_LENGTH = struct.Struct("<H")


@dataclass(frozen=True)
class TableMap:
    """`types` has one byte a column; `metadata` what belongs to each (lengths, precision), None with an unknown type."""

    table_id: int
    schema: str
    table: str
    types: bytes
    metadata: tuple[int, ...] | None

    @property
    def name(self) -> tuple[str, str]:
        return self.schema, self.table


def change(kind: int) -> Change:
    """What a row event of this kind does."""
    return _KINDS[kind][0]


def table_id(data: bytes) -> int:
    """The table's number in a TABLE_MAP or row event."""
    return int.from_bytes(data[events.HEADER_BYTES : events.HEADER_BYTES + 6], "little")


def rows_flags(data: bytes) -> int:
    """The flags of a row event."""
    return int.from_bytes(data[events.HEADER_BYTES + 6 : events.HEADER_BYTES + 8], "little")


def table_name(data: bytes) -> tuple[str, str]:
    """(schema, table) of a TABLE_MAP event, without the rest of it."""
    at = events.HEADER_BYTES + 8
    schema_end = at + 1 + data[at]
    table_end = schema_end + 2 + data[schema_end + 1]
    return (
        data[at + 1 : schema_end].decode("utf-8", "surrogateescape"),
        data[schema_end + 2 : table_end].decode("utf-8", "surrogateescape"),
    )


def in_database(data: bytes, name: str) -> bytes:
    """A TABLE_MAP as that of the table of the same name in another database; with a CRC32."""
    at = events.HEADER_BYTES + 8
    new = name.encode("utf-8", "surrogateescape")
    end = len(data) - events.CRC_BYTES if events.has_valid_crc(data) else len(data)
    return events.seal_event(data[:at] + bytes([len(new)]) + new + data[at + 1 + data[at] : end])


def parse_table_map(data: bytes) -> TableMap:
    """The content of a TABLE_MAP event.

    Raises:
        IntegrityError: malformed.
    """
    try:
        schema, table = table_name(data)
        at = events.HEADER_BYTES + 8 + len(schema.encode("utf-8", "surrogateescape")) + 2
        at += len(table.encode("utf-8", "surrogateescape")) + 2
        columns, at = read_lenenc_int(data, at)
        types = data[at : at + columns]
        length, at = read_lenenc_int(data, at + columns)
        return TableMap(table_id(data), schema, table, types, _metadata(types, data[at : at + length]))
    except (IndexError, ValueError) as exc:
        raise errors.IntegrityError(f"table map event is malformed: {exc}") from exc


def uncompressed(data: bytes) -> bytes:
    """A row event without MariaDB's compression, which BINLOG statements do not take; any other event as it is.

    Raises:
        IntegrityError: malformed.
    """
    if data[4] not in _PLAIN_KINDS:
        return data
    what, has_extra, _ = _KINDS[data[4]]
    end = len(data) - events.CRC_BYTES if events.has_valid_crc(data) else len(data)
    try:
        at = events.HEADER_BYTES + 8
        at += _NEXT_LENGTH.unpack_from(data, at)[0] if has_extra else 0
        columns, at = read_lenenc_int(data, at)
        at += (columns + 7) // 8 * (2 if what is Change.UPDATE else 1)
        rows = decompressed(data[at:end])
    except (struct.error, IndexError, ValueError, zlib.error) as exc:
        raise errors.IntegrityError(f"compressed row event is malformed: {exc}") from exc
    return events.seal_event(data[:4] + bytes([_PLAIN_KINDS[data[4]]]) + data[5:at] + rows)


class RowCounter:
    """Counts the rows of one table's events."""

    def __init__(self, table: TableMap) -> None:
        found = table.metadata
        self._columns = len(table.types)
        self._walks = None if found is None else [_walk(k, m) for k, m in zip(table.types, found, strict=True)]

    def at_most(self, data: bytes) -> int:
        """An upper bound from the length alone: no row is shorter than its bitmap of NULLs."""
        length = len(data) * (_LARGEST_DEFLATE_RATIO if _KINDS[data[4]][2] else 1)
        return length // max((self._columns + 7) // 8, 1)

    def count(self, data: bytes) -> int | None:
        """Rows in one event; an update's two images are one row. None when they cannot be told."""
        what, has_extra, is_compressed = _KINDS[data[4]]
        if self._walks is None or data[4] == PARTIAL_UPDATE_ROWS:
            return None
        at = events.HEADER_BYTES + 8
        try:
            if has_extra:
                at += _NEXT_LENGTH.unpack_from(data, at)[0]
            body = data[at : len(data) - events.CRC_BYTES if events.has_valid_crc(data) else len(data)]
            columns, at = read_lenenc_int(body, 0)
            if columns != len(self._walks):
                return None
            width = (columns + 7) // 8
            images = [_Image(body[at : at + width], self._walks)]
            at += width
            if what is Change.UPDATE:
                images.append(_Image(body[at : at + width], self._walks))
                at += width
            rest = body[at:]
            if is_compressed:
                rest = decompressed(rest)
            return _count(rest, images)
        except (ValueError, IndexError, struct.error, zlib.error):
            return None  # a storage format of its own (MariaDB's temporal types of before 10.1, say)


Walk = int | Callable[[bytes, int], int]
"""How to get over a value: so many bytes, or a function (data, position) -> position after it."""


class _Image:
    """The walk over one row image: over the columns that are present, those that are NULL left out."""

    def __init__(self, present: bytes, walks: list[Walk]) -> None:
        bits = int.from_bytes(present, "little")
        self.walks = [walk for number, walk in enumerate(walks) if bits >> number & 1]
        self.width = (len(self.walks) + 7) // 8
        self.mask = (1 << len(self.walks)) - 1  # the bits beyond the columns are set or not, as the server likes
        self.joined: list[Walk] = []  # for rows without NULL: neighbours of fixed length are one step
        for walk in self.walks:
            if isinstance(walk, int) and self.joined and isinstance(self.joined[-1], int):
                self.joined[-1] += walk
            else:
                self.joined.append(walk)

    def skip(self, rows: bytes, at: int) -> int:
        nulls = int.from_bytes(rows[at : at + self.width], "little") & self.mask
        at += self.width
        if not nulls:
            for walk in self.joined:
                at = at + walk if isinstance(walk, int) else walk(rows, at)
            return at
        for walk in self.walks:
            if not nulls & 1:
                at = at + walk if isinstance(walk, int) else walk(rows, at)
            nulls >>= 1
        return at


def _count(rows: bytes, images: list[_Image]) -> int:
    at, end, found = 0, len(rows), 0
    while at < end:
        begin = at
        for image in images:
            at = image.skip(rows, at)
        if at == begin:
            raise ValueError("rows of no length")
        found += 1
    if at != end:
        raise ValueError(f"{found} rows end at {at}, the event at {end}")
    return found


# --- the types of columns: how much metadata they have, and how long their values are

_FIXED_BYTES = {1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 6: 0, 7: 4, 8: 8, 9: 3, 10: 3, 11: 3, 12: 8, 13: 1, 14: 3}
_ONE_BYTE_METADATA = frozenset({4, 5, 17, 18, 19, 140, 242, 245, 249, 250, 251, 252, 255})
_TWO_BYTES_METADATA = frozenset({15, 16, 141, 246, 247, 248, 253, 254})
_LENGTH_BYTES = frozenset({140, 242, 245, 249, 250, 251, 252, 255})  # the metadata is the width of the length


def _metadata(types: bytes, metadata: bytes) -> tuple[int, ...] | None:
    """The metadata of each column as one number, high byte first where it is two bytes of meaning of their own."""
    found = []
    at = 0
    for kind in types:
        if kind in _ONE_BYTE_METADATA:
            found.append(metadata[at])
            at += 1
        elif kind in _TWO_BYTES_METADATA:
            order = "little" if kind in (15, 16, 141, 253) else "big"
            found.append(int.from_bytes(metadata[at : at + 2], order))  # type: ignore[arg-type]
            at += 2
        elif kind in _FIXED_BYTES:
            found.append(0)
        else:
            return None
    if at != len(metadata):
        raise ValueError(f"{at} bytes of metadata expected, {len(metadata)} found")
    return tuple(found)


def _walk(kind: int, metadata: int) -> Walk:
    if kind in _FIXED_BYTES:
        return _FIXED_BYTES[kind]
    if kind in _LENGTH_BYTES:
        return _prefixed(metadata)
    if kind in (15, 141, 253):  # VARCHAR
        return _prefixed(1 if metadata < 256 else 2)
    if kind == 16:  # BIT: bits beyond whole bytes, whole bytes
        return (metadata >> 8) + bool(metadata & 0xFF)
    if kind == 246:
        return decimal_bytes(metadata >> 8, metadata & 0xFF)
    if kind in (17, 18, 19):  # TIMESTAMP, DATETIME, TIME with a fraction
        return {17: 4, 18: 5, 19: 3}[kind] + (metadata + 1) // 2
    return _string(metadata)


def _string(metadata: int) -> Walk:
    """CHAR, ENUM and SET share a type; lengths above 255 hide two bits in the byte of the real type."""
    real, length = metadata >> 8, metadata & 0xFF
    if real in (247, 248):
        return length
    if real & 0x30 != 0x30:
        length |= ((real & 0x30) ^ 0x30) << 4
    return _prefixed(1 if length < 256 else 2)


def _prefixed(width: int) -> Walk:
    if width == 1:
        return lambda data, at: at + 1 + data[at]
    if width == 2:
        return lambda data, at: at + 2 + (data[at] | data[at + 1] << 8)
    return lambda data, at: at + width + int.from_bytes(data[at : at + width], "little")
