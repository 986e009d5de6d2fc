"""Reading chunk frames: what a dump wrote, taken apart from a stream of plaintext pieces.

A data object's plaintext is one or more frames, one after the other (`docs/format.md` has the byte table). The reader
finds where packets begin and end, takes a row's NULL bitmap off its values and looks no deeper: whole row packets leave it
as blocks, in the order and with the headers they came with, so that a hash over the blocks is a hash over what the source sent.

Limits: memory is the piece at hand twice, or one row when a row is larger than `LARGE_ROW_BYTES`. Nothing is verified here
but the shape; whoever consumes a frame compares its hash before believing it. Nothing outlives the process.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kpbackup import errors
from kpbackup.model import canonical
from kpbackup.mysql import rows, wire

LARGE_ROW_BYTES = 1 << 20  # larger rows pass alone, so that a block stays about this small

_HEADER_LIMIT_BYTES = 64 << 20  # 4096 columns with an ENUM of 65535 members each would not fit, nothing real comes near
_COLUMN_LIMIT = 4096  # the servers' own
_LENGTH = struct.Struct("<I")
_HEAD_AND_FIRST = struct.Struct("<IB")


@dataclass(frozen=True)
class FrameColumn:
    """A column as the dump selected it. `expression`: plain, char, unsigned or json, see `rows.expression_of`."""

    name: str
    data_type: str
    column_type: str
    charset: str | None
    expression: str
    definition: wire.ColumnDefinition


@dataclass(frozen=True)
class Frame:
    """The head of one chunk: which table's rows follow, and how to read them.

    After the columns each row has one more value for each of `json_types`: the type list of the column of that name.
    """

    schema: str
    table: str
    columns: tuple[FrameColumn, ...]
    json_types: tuple[str, ...] = ()


@dataclass(frozen=True)
class RowBlock:
    """Whole raw row packets, headers included: `data[start:end]`; and each row's NULL bitmap and values.

    `large` marks a single row that may be split over several packets: it is not taken apart, and its `data` is a bytearray
    for the taker to keep.
    """

    data: bytes | bytearray
    start: int
    end: int
    bitmaps: list[bytes]
    values: list[bytes]
    large: bool = False

    @property
    def rows(self) -> int:
        return 1 if self.large else len(self.values)

    @property
    def raw(self) -> memoryview:
        """The packets as sent; release it before `data` is changed."""
        return memoryview(self.data)[self.start : self.end]


class FrameReader:
    """The frames of one object, in order: `next_frame`, then `blocks` to its end, and again."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._stream = _Window(pieces)
        self._walk = _Walk(0)

    def next_frame(self) -> Frame | None:
        """The head of the next frame, None at the clean end of the object.

        Raises:
            IntegrityError: something else than a frame, or a cut one. What the pieces' source raises passes through.
        """
        if self._stream.at_end():
            return None
        if self._stream.take(len(rows.MAGIC)) != rows.MAGIC:
            raise errors.IntegrityError("a chunk does not begin with its magic bytes")
        (size,) = _LENGTH.unpack(self._stream.take(_LENGTH.size))
        if size > _HEADER_LIMIT_BYTES:
            raise errors.IntegrityError(f"a chunk claims a header of {size} bytes")
        header = _header(self._stream.take(size))
        definitions = [self._definition() for _ in (*header["columns"], *header["json_types"])]
        self._walk = _Walk(len(definitions))
        return _frame(header, definitions)

    def blocks(self) -> Iterator[RowBlock]:
        """The rows of the frame whose head was read last, up to and without its EOF packet. Raises as `next_frame`."""
        stream = self._stream
        while True:
            block = self._walk.block(stream.data, stream.position)
            if block.values:
                yield block
                stream.position = block.end
            del block
            stream.fill(_HEAD_AND_FIRST.size)
            head, first = _HEAD_AND_FIRST.unpack_from(stream.data, stream.position)
            length = head & wire.MAX_PAYLOAD
            if first == 0xFE and 0 < length < wire.EOF_LIMIT:
                stream.take(wire.HEADER_BYTES + length)
                return
            if first or length < self._walk.least_bytes:
                raise errors.IntegrityError(f"a chunk holds a packet that is no row (first byte {first:#04x})")
            if length < LARGE_ROW_BYTES:
                stream.fill(wire.HEADER_BYTES + length)
            else:
                raw = self._large_row()
                yield RowBlock(raw, 0, len(raw), [], [], large=True)
                del raw  # its taker alone keeps a row of up to 1 GiB

    def _large_row(self) -> bytearray:
        raw = bytearray()
        length = wire.MAX_PAYLOAD
        while length == wire.MAX_PAYLOAD:
            header = self._stream.take(wire.HEADER_BYTES)
            (head,) = _LENGTH.unpack(header)
            length = head & wire.MAX_PAYLOAD
            raw += header
            self._stream.take_into(raw, length)
        return raw

    def _definition(self) -> wire.ColumnDefinition:
        (head,) = _LENGTH.unpack(self._stream.take(wire.HEADER_BYTES))
        payload = self._stream.take(head & wire.MAX_PAYLOAD)
        try:
            return wire.parse_column_definition(payload)
        except (ValueError, struct.error) as exc:
            raise errors.IntegrityError(f"a chunk's column definition cannot be read: {exc}") from exc


class _Walk:
    """Takes the plain rows of a frame apart: one pass, because what is done for each row is most of a load's cost."""

    def __init__(self, columns: int) -> None:
        bitmap_bytes = wire.bitmap_bytes(columns)
        self.least_bytes = 1 + bitmap_bytes  # of a row's payload
        self._lead = struct.Struct(f"<IB{bitmap_bytes}s")

    def block(self, data: bytes, start: int) -> RowBlock:
        """The whole plain rows from `start` on: the tight loop.

        Binary rows start with 00; anything else, a large or a cut row ends the walk.
        """
        values: list[bytes] = []
        bitmaps: list[bytes] = []
        add_values, add_bitmap = values.append, bitmaps.append
        unpack, lead_bytes, least_bytes = self._lead.unpack_from, self._lead.size, self.least_bytes
        position, end = start, len(data)
        limit = end - lead_bytes
        while position <= limit:
            head, first, bitmap = unpack(data, position)
            length = head & 0xFFFFFF
            following = position + 4 + length
            if first or following > end or not least_bytes <= length < LARGE_ROW_BYTES:
                break
            add_values(data[position + lead_bytes : following])
            add_bitmap(bitmap)
            position = following
        return RowBlock(data, start, position, bitmaps, values)


def _header(text: bytes) -> dict[str, Any]:
    header = canonical.loads(text, what="a chunk's header")
    if header.get("time_zone") != "+00:00":
        raise errors.IntegrityError(f"a chunk was read in time zone {header.get('time_zone')!r}, not +00:00")
    columns, expressions, lists = header.get("columns"), header.get("expressions"), header.setdefault("json_types", [])
    if not isinstance(columns, list) or not isinstance(expressions, list) or len(columns) != len(expressions):
        raise errors.IntegrityError("a chunk's header lacks its columns or their expressions")
    if not 0 < len(columns) <= _COLUMN_LIMIT:
        raise errors.IntegrityError(f"a chunk claims {len(columns)} columns")
    if not isinstance(lists, list) or len(lists) > len(columns):
        raise errors.IntegrityError("a chunk's header names more type lists than it has columns")
    return header


def _frame(header: dict[str, Any], definitions: list[wire.ColumnDefinition]) -> Frame:
    try:
        columns = tuple(
            FrameColumn(
                name=column["name"], data_type=column["data_type"], column_type=column["column_type"],
                charset=column["charset"], expression=expression, definition=definition,
            )
            for column, expression, definition in zip(
                header["columns"], header["expressions"], definitions[: len(header["columns"])], strict=True
            )
        )
        lists = tuple(str(name) for name in header["json_types"])
        if not set(lists) <= {column.name for column in columns}:
            raise errors.IntegrityError("a chunk's header names the type list of a column it does not have")
        return Frame(schema=header["schema"], table=header["table"], columns=columns, json_types=lists)
    except (KeyError, TypeError) as exc:
        raise errors.IntegrityError(f"a chunk's header lacks {exc}") from exc


class _Window:
    """A stretch of the stream: `data[position:]` is unread, more is fetched on demand."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self.data = b""
        self.position = 0

    def at_end(self) -> bool:
        """True when the stream ended and everything was read."""
        while self.position == len(self.data):
            piece = next(self._pieces, None)
            if piece is None:
                return True
            self.data, self.position = piece, 0
        return False

    def fill(self, need: int) -> None:
        """Makes `need` unread bytes lie in `data`, joining pieces once."""
        have = len(self.data) - self.position
        if have >= need:
            return
        found = [self.data[self.position :]]
        while have < need:
            piece = next(self._pieces, None)
            if piece is None:
                raise errors.IntegrityError("a chunk is cut: the object ends in the middle of it")
            found.append(piece)
            have += len(piece)
        self.data, self.position = b"".join(found), 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        self.fill(size)
        found = self.data[self.position : self.position + size]
        self.position += size
        return found

    def take_into(self, target: bytearray, size: int) -> None:
        """Appends the next `size` bytes to `target` without holding them twice."""
        while size:
            if self.at_end():
                raise errors.IntegrityError("a chunk is cut: the object ends in the middle of a row")
            with memoryview(self.data) as view:
                target += view[self.position : self.position + size]
            passed = min(size, len(self.data) - self.position)
            self.position += passed
            size -= passed
