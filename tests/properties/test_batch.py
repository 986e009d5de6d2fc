"""The bitmap arithmetic and the batching of rows against models that do it the slow, obvious way."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpbackup import errors
from kpbackup.mysql import batch, frame, rows, wire


def result_bitmap(nulls: list[bool]) -> bytes:
    """The NULL bitmap of a result row: bit i+2 for column i."""
    found = bytearray((len(nulls) + 9) // 8)
    for column, is_null in enumerate(nulls):
        if is_null:
            found[(column + 2) // 8] |= 1 << (column + 2) % 8
    return bytes(found)


def parameter_bitmap(nulls: list[bool]) -> bytes:
    """The NULL bitmap of an execution: bit i for parameter i."""
    found = bytearray((len(nulls) + 7) // 8)
    for parameter, is_null in enumerate(nulls):
        if is_null:
            found[parameter // 8] |= 1 << parameter % 8
    return bytes(found)


@st.composite
def null_grids(draw: st.DrawFn) -> list[list[bool]]:
    columns = draw(st.integers(1, 70))
    rows = 1 << draw(st.integers(0, 6))
    density = draw(st.sampled_from([0, 1, 50, 99, 100]))
    cells = draw(st.lists(st.integers(0, 99), min_size=columns * rows, max_size=columns * rows))
    return [[cell < density for cell in cells[row * columns : (row + 1) * columns]] for row in range(rows)]


@settings(deadline=None)
@given(null_grids())
def test_shifted_bitmaps_equal_the_bit_by_bit_model(grid: list[list[bool]]) -> None:
    joined = b"".join(result_bitmap(row) for row in grid)
    found = batch.shift_bitmaps(joined, columns=len(grid[0]), rows=len(grid))
    assert found == parameter_bitmap([cell for row in grid for cell in row])


@settings(deadline=None)
@given(null_grids(), st.binary(min_size=1, max_size=1))
def test_reserved_and_padding_bits_never_leak_into_parameters(grid: list[list[bool]], junk: bytes) -> None:
    columns = len(grid[0])
    bitmaps = []
    for row in grid:
        bitmap = bytearray(result_bitmap(row))
        bitmap[0] |= junk[0] & 3
        used = (columns + 2) % 8
        if used:
            bitmap[-1] |= junk[0] << used & 0xFF
        bitmaps.append(bytes(bitmap))
    found = batch.shift_bitmaps(b"".join(bitmaps), columns=columns, rows=len(grid))
    assert found == parameter_bitmap([cell for row in grid for cell in row])


def packet(payload: bytes) -> bytes:
    """A payload as the packets that carry it, the last one shorter than 0xFFFFFF bytes."""
    return b"".join(bytes(piece) for piece in wire.frame_payload([payload]))


def value_of(size: int) -> bytes:
    return bytes(range(1, 252)) * (size // 251) + bytes(range(size % 251))


@st.composite
def row_streams(draw: st.DrawFn) -> tuple[list[tuple[list[bool], bytes]], int]:
    """Rows (their NULLs, their values) of 1 to 20 columns, some large, and a piece size to cut them at."""
    columns = draw(st.integers(1, 20))
    nulls = st.lists(st.booleans(), min_size=columns, max_size=columns)
    values = st.one_of(st.integers(0, 40), st.sampled_from([300, 5000])).map(value_of)
    rows = draw(st.lists(st.tuples(nulls, values), max_size=60))
    if draw(st.booleans()):
        rows.insert(draw(st.integers(0, len(rows))), (draw(nulls), value_of(frame.LARGE_ROW_BYTES + 5)))
    return rows, draw(st.sampled_from([1, 7, 100, 4096, 1 << 20]) if sum(len(v) for _, v in rows) < 50_000 else st.just(70_000))


def raw_frame(columns: int, packets: list[bytes]) -> bytes:
    """A chunk frame built by hand from the format's description."""
    names = [f"c{i}" for i in range(columns)]
    described = ",".join(
        f'{{"charset":null,"column_type":"int(11)","data_type":"int","name":"{name}"}}' for name in names
    )
    plain = ",".join(['"plain"'] * columns)
    header = (
        f'{{"columns":[{described}],"expressions":[{plain}],"schema":"s","table":"t","time_zone":"+00:00"}}'
    ).encode()
    definitions = b"".join(
        packet(b"\x03def\x01s\x01t\x01t" + bytes([len(n)]) + n.encode() + bytes([len(n)]) + n.encode()
               + b"\x0c" + struct.pack("<HIBHBxx", 63, 11, 3, 0, 0))
        for n in names
    )
    return rows.MAGIC + struct.pack("<I", len(header)) + header + definitions + b"".join(packets) + rows.EOF_PACKET


@settings(deadline=None)  # a shared machine stalls now and then
@given(row_streams())
def test_batches_hold_every_row_once_in_order(stream: tuple[list[tuple[list[bool], bytes]], int]) -> None:
    given_rows, piece_bytes = stream
    columns = len(given_rows[0][0]) if given_rows else 3
    packets = [packet(b"\x00" + result_bitmap(nulls) + values) for nulls, values in given_rows]
    plaintext = raw_frame(columns, packets) * 2
    pieces = [plaintext[at : at + piece_bytes] for at in range(0, len(plaintext), piece_bytes)]
    reader = frame.FrameReader(pieces)
    for _ in range(2):
        assert reader.next_frame() is not None
        batcher = batch.Batcher(columns, limit_bytes=20_000, batch_bytes=1000)
        batches: list[tuple[int, bytes, bytes]] = []
        raw = b""
        for block in reader.blocks():
            raw += block.raw
            batches += [(b.rows, b.nulls, b"".join(b.values)) for b in batcher.add(block)]
        batches += [(b.rows, b.nulls, b"".join(b.values)) for b in batcher.flush()]
        assert raw == b"".join(packets)
        assert all(count & (count - 1) == 0 and count * columns <= batch.MAX_PLACEHOLDERS for count, _, _ in batches)
        at = 0
        for count, nulls, values in batches:
            mine = given_rows[at : at + count]
            assert values == b"".join(value for _, value in mine)
            assert nulls == parameter_bitmap([cell for row, _ in mine for cell in row])
            at += count
        assert at == len(given_rows)
    assert reader.next_frame() is None


def test_a_row_split_over_packets_is_joined() -> None:
    values = bytes(range(256)) * ((2 * wire.MAX_PAYLOAD) // 256)
    row = b"\x00" + result_bitmap([False, True]) + values
    reader = frame.FrameReader([raw_frame(2, [packet(row)])])
    reader.next_frame()
    (block,) = reader.blocks()
    assert bytes(block.raw) == packet(row)
    (only,) = batch.Batcher(2, limit_bytes=1000).add(block)
    assert (only.rows, only.nulls, b"".join(only.values)) == (1, b"\x02", values)


@pytest.mark.parametrize("payload", [b"", b"\x00", b"\x00\x00", b"\x01\x00\x00\x05"])
def test_a_packet_too_short_for_a_row_or_of_another_kind_is_refused(payload: bytes) -> None:
    columns = 9  # a bitmap of two bytes
    whole = packet(b"\x00" + result_bitmap([False] * columns) + b"\x05")
    reader = frame.FrameReader([raw_frame(columns, [whole, whole, packet(payload), whole])])
    reader.next_frame()
    blocks = reader.blocks()
    assert next(blocks).values == [b"\x05", b"\x05"]
    with pytest.raises(errors.IntegrityError, match="no row"):
        next(blocks)


def test_long_values_are_taken_out_of_a_row() -> None:
    long = b"x" * 70_000
    values = struct.pack("<i", -5) + b"\xfd" + len(long).to_bytes(3, "little") + long + b"\x03abc"
    types = struct.pack("<4H", 3, batch.BLOB, batch.BLOB, batch.STRING)
    one = batch.Batch(rows=1, nulls=b"\x04", values=[values], size_bytes=len(values))
    taken, rest = batch.split_long_values(one, types, from_bytes=65_536)
    assert [(value.parameter, bytes(value.data)) for value in taken] == [(1, long)]
    assert b"".join(rest) == struct.pack("<i", -5) + b"\x03abc"


@settings(deadline=None, max_examples=20)
@given(null_grids())
def test_rows_taken_apart_and_sent_one_by_one_are_the_batch(grid: list[list[bool]]) -> None:
    columns = len(grid[0])
    encoded = [[b"" if is_null else bytes([n % 7]) + bytes(n % 7) for n, is_null in enumerate(row)] for row in grid]
    nulls = parameter_bitmap([cell for row in grid for cell in row])
    values = [b"".join(row) for row in encoded]
    full = batch.Batch(rows=len(grid), nulls=nulls, values=values, size_bytes=sum(map(len, values)))
    taken = list(batch.take_apart(full, struct.pack("<H", batch.BLOB) * columns))
    assert [[None if value is None else bytes(value) for value in row] for row in taken] == [
        [None if is_null else value for is_null, value in zip(*pair, strict=True)] for pair in zip(grid, encoded, strict=True)
    ]
    for row, given_row, value in zip(taken, grid, values, strict=True):
        one = batch.of_one_row(row)
        assert (one.rows, one.nulls, b"".join(one.values), one.size_bytes) == (1, parameter_bitmap(given_row), value, len(value))
