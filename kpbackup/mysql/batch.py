"""Row packets as parameters of multi-row prepared INSERTs: the arithmetic, without any socket.

A binary result row is `00 · NULL bitmap (two bits reserved in front) · values`; the parameters of an execution are
`NULL bitmap (no reserved bits) · 01 · types · values`, with the same encoding of every value. So values are sliced
and concatenated, never decoded; only the bitmaps move.

Numbers of rows are powers of two: few different statements are prepared, and bitmaps fold in log2(rows) steps over
one big integer instead of a step a row.

Limits: at most 65535 placeholders a statement (the protocol's count is 16 bits); about `BATCH_BYTES` a batch.
Protocol source: "MySQL Client/Server Protocol", binary protocol value, COM_STMT_EXECUTE, COM_STMT_SEND_LONG_DATA.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kpbackup import errors
from kpbackup.mysql import frame, wire

BATCH_BYTES = 131_072  # 32 KB to 256 KB measured alike, from 1 MB on slower
MAX_PLACEHOLDERS = 65_535

LONG, SHORT, BLOB, STRING = 3, 2, 252, 254
_AS_THEMSELVES = {1, 2, 3, 4, 5, 7, 8, 10, 11, 12}  # integers, FLOAT, DOUBLE, TIMESTAMP, DATE, TIME, DATETIME
_INTEGERS = {1, 2, 3, 8, 9}
_TEXT_OR_BYTES = {15, 16, 242, 245, 247, 248, 249, 250, 251, 252, 253, 254, 255}
_UNSIGNED_FLAG = 0x20
# read from their text form: as bytes (BLOB) UUID and INET would be taken for their raw 16 bytes and JSON is refused
_BY_TEXT = {"uuid", "inet4", "inet6", "json"}
_FIXED_SIZES = {1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 8: 8}
_SHORT_LENGTHS = {7, 10, 11, 12}  # one length byte, then the fields of a date or time


def parameter_type(column: frame.FrameColumn) -> int:
    """The two-byte type of the parameter that carries a result column's values back (0x8000: unsigned).

    Raises:
        ServerUnfit: a type this version does not know.
    """
    kind = column.definition.type
    if column.expression == "unsigned":
        return kind | wire.UNSIGNED  # BIGINT, but of short members MariaDB makes an INT
    if column.expression == "char":
        return BLOB
    if column.data_type in _BY_TEXT:
        return STRING
    if kind in (0, 246):  # DECIMAL travels as text
        return STRING
    unsigned = wire.UNSIGNED if kind in _INTEGERS and column.definition.flags & _UNSIGNED_FLAG else 0
    if kind == 9:  # INT24 has four bytes as LONG has; as a parameter type it is refused
        return LONG | unsigned
    if kind == 13:  # YEAR
        return SHORT
    if kind in _AS_THEMSELVES:
        return kind | unsigned
    if kind in _TEXT_OR_BYTES:  # the binary character set: stored as it is in a column of any character set
        return BLOB
    raise errors.ServerUnfit(
        f"cannot load column {column.name!r} ({column.column_type}): its type number {kind} is not known",
        hint="a newer kpbackup may know it; the stored rows are whole",
    )


def encode_types(columns: Sequence[frame.FrameColumn]) -> bytes:
    """The parameter types of one row, as an execution states them. Raises as `parameter_type`."""
    return b"".join(struct.pack("<H", parameter_type(column)) for column in columns)


def shift_bitmaps(joined: bytes, *, columns: int, rows: int) -> bytes:
    """The parameters' NULL bitmap of `rows` result rows (a power of two) whose bitmaps are `joined`."""
    size = (columns * rows + 7) // 8
    bits = int.from_bytes(joined, "little")
    if not bits:
        return bytes(size)
    bits >>= 2
    if rows == 1:
        bits &= (1 << columns) - 1
    for low, high, shift in _folds(columns, rows):
        bits = bits & low | bits >> shift & high
    return bits.to_bytes(size, "little")


@functools.lru_cache(maxsize=16)
def _folds(columns: int, rows: int) -> list[tuple[int, int, int]]:
    """(mask of the lower field, mask of the upper one in its new place, distance it moves) for each halving.

    At first each row has a field of `width` bits of which `used` matter; a step brings the used bits of two
    neighbours together in a field twice as wide.
    """
    width, used = wire.bitmap_bytes(columns) * 8, columns
    steps = []
    pairs = rows // 2
    while pairs:
        low = int.from_bytes(((1 << used) - 1).to_bytes(width // 4, "little") * pairs, "little")
        steps.append((low, low << used, width - used))
        width, used, pairs = width * 2, used * 2, pairs // 2
    return steps


@dataclass(frozen=True)
class Batch:
    """Parameters for `rows` rows (a power of two): the shifted NULL bitmap, and the values in pieces to concatenate."""

    rows: int
    nulls: bytes
    values: Sequence[bytes | memoryview]
    size_bytes: int


class Batcher:
    """Rows in, batches out: `add` each block, then `flush`. Holds less than one batch between calls."""

    def __init__(self, columns: int, *, limit_bytes: int, batch_bytes: int = BATCH_BYTES) -> None:
        """`limit_bytes` is what no batch of more than one row may exceed."""
        self._columns = columns
        self._bitmap_end = wire.HEADER_BYTES + 1 + wire.bitmap_bytes(columns)
        self._most_rows = MAX_PLACEHOLDERS // columns
        self._batch_bytes = batch_bytes
        self._limit_bytes = min(limit_bytes, 4 * batch_bytes)
        self._values: list[bytes] = []
        self._bitmaps: list[bytes] = []
        self._bytes = 0

    def add(self, block: frame.RowBlock) -> Iterator[Batch]:
        """The batches that are full now. A large row is compacted in place and comes alone."""
        if block.large:
            yield from self.flush()
            yield self._large(block)
            return
        self._values += block.values
        self._bitmaps += block.bitmaps
        self._bytes += sum(map(len, block.values)) + len(block.values) * self._bitmap_end
        average = max(self._bytes // len(self._values), 1)
        rows = _power_below(min(self._most_rows, max(self._batch_bytes // average, 1)))
        whole = len(self._values) // rows * rows
        yield from self._take([rows] * (whole // rows))

    def flush(self) -> Iterator[Batch]:
        """The rows left over, in as few batches as powers of two allow."""
        left = len(self._values)
        yield from self._take([1 << bit for bit in reversed(range(left.bit_length())) if left >> bit & 1])

    def _take(self, sizes: Iterable[int]) -> Iterator[Batch]:
        position = 0
        for rows in sizes:
            yield from self._batches(position, rows)
            position += rows
        del self._values[:position], self._bitmaps[:position]

    def _batches(self, position: int, rows: int) -> Iterator[Batch]:
        """One batch, or its halves when rows of very uneven size make it too large."""
        values = self._values[position : position + rows]
        size = sum(map(len, values))
        if rows > 1 and (size > self._limit_bytes or rows > self._most_rows):
            yield from self._batches(position, rows // 2)
            yield from self._batches(position + rows // 2, rows // 2)
            return
        joined = b"".join(self._bitmaps[position : position + rows])
        nulls = shift_bitmaps(joined, columns=self._columns, rows=rows)
        self._bytes -= size + rows * self._bitmap_end
        yield Batch(rows=rows, nulls=nulls, values=values, size_bytes=size)

    def _large(self, block: frame.RowBlock) -> Batch:
        assert isinstance(block.data, bytearray)
        payload = without_headers(block.data)
        values_start = self._bitmap_end - wire.HEADER_BYTES
        nulls = shift_bitmaps(bytes(payload[1:values_start]), columns=self._columns, rows=1)
        return Batch(rows=1, nulls=nulls, values=[payload[values_start:]], size_bytes=len(payload) - values_start)


def without_headers(raw: bytearray) -> memoryview:
    """The payload of one row in `raw`, whose packets are moved together in place."""
    view = memoryview(raw)
    source = target = 0
    while source < len(raw):
        length = int.from_bytes(raw[source : source + 3], "little")
        source += wire.HEADER_BYTES
        view[target : target + length] = view[source : source + length]
        source, target = source + length, target + length
    return view[:target]


def _power_below(number: int) -> int:
    """The largest power of two up to `number` (at least 1)."""
    return 1 << (number.bit_length() - 1)


@dataclass(frozen=True)
class LongValue:
    """A value of a row to send ahead of its execution: the parameter's place and the bytes without their length."""

    parameter: int
    data: memoryview


def split_long_values(batch: Batch, types: bytes, *, from_bytes: int) -> tuple[list[LongValue], list[memoryview]]:
    """(values of at least `from_bytes`, what remains) of a batch of one row.

    Raises:
        IntegrityError: the values do not fill the row as the types say.
    """
    row = memoryview(b"".join(batch.values) if len(batch.values) != 1 else batch.values[0])
    long: list[LongValue] = []
    rest: list[memoryview] = []
    position = 0
    try:
        for parameter, (kind,) in enumerate(struct.iter_unpack("<H", types)):
            if batch.nulls[parameter // 8] >> parameter % 8 & 1:
                continue
            begin, end = value_bounds(row, position, kind & 0xFF)
            if end - begin >= from_bytes and kind in (BLOB, STRING):
                long.append(LongValue(parameter, row[begin:end]))
            else:
                rest.append(row[position:end])
            position = end
    except (ValueError, IndexError) as exc:
        raise errors.IntegrityError(f"a row of a chunk is malformed: {exc}") from exc
    if position != len(row):
        raise errors.IntegrityError(f"a row of a chunk is malformed: {len(row)} bytes of values, {position} expected")
    return long, rest


def take_apart(batch: Batch, types: bytes) -> Iterator[list[memoryview | None]]:
    """The encoded values of each row of a batch, None for NULL; `types` are those of one row.

    Raises:
        IntegrityError: the values do not fill a row as the types say.
    """
    kinds = [kind & 0xFF for (kind,) in struct.iter_unpack("<H", types)]
    nulls = int.from_bytes(batch.nulls, "little")
    for nth, value in enumerate(batch.values):
        row, position = memoryview(value), 0
        found: list[memoryview | None] = []
        try:
            for place, kind in enumerate(kinds):
                is_null = nulls >> nth * len(kinds) + place & 1
                end = position if is_null else value_bounds(row, position, kind)[1]
                found.append(None if is_null else row[position:end])
                position = end
        except (ValueError, IndexError) as exc:
            raise errors.IntegrityError(f"a row of a chunk is malformed: {exc}") from exc
        if position != len(row):
            raise errors.IntegrityError(f"a row of a chunk is malformed: {len(row)} bytes of values, {position} expected")
        yield found


def of_one_row(values: Sequence[memoryview | None]) -> Batch:
    """The batch of one row with these encoded values."""
    nulls = sum(1 << place for place, value in enumerate(values) if value is None)
    kept = [value for value in values if value is not None]
    return Batch(1, nulls.to_bytes((len(values) + 7) // 8, "little"), [b"".join(kept)], sum(map(len, kept)))


def value_bounds(row: memoryview, position: int, kind: int) -> tuple[int, int]:
    """(where the value itself begins, where it ends) for the value whose encoding starts at `position`."""
    if kind in _FIXED_SIZES:
        return position, position + _FIXED_SIZES[kind]
    if kind in _SHORT_LENGTHS:
        return position, position + 1 + row[position]
    length, begin = wire.read_lenenc_int(row, position)
    return begin, begin + length
