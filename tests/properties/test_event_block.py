"""Events that are taken many at once are the same, and cut into the same segments, as taken one by one; whatever the reads."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kpbackup import errors
from kpbackup.model.coordinates import Coordinates
from kpbackup.mysql import event_block, events, follow, segmenter, server, wire
from kpbackup.mysql.event_block import EventBlock
from kpbackup.mysql.events import Heartbeat, StreamEvent
from kpbackup.mysql.segmenter import SegmentFacts
from kpbackup.mysql.transactions import Transaction, TransactionWalker
from tests.unit import test_events as vectors

FILE = "binlog.000001"
START = Coordinates(FILE, 0, "")
ROW, VARIABLE = vectors.plain(23, b"row" * 9), vectors.plain(5, bytes(9))
TRANSACTIONS = {
    "mariadb": (
        [vectors.MARIADB_GTID_ROWS, ROW, ROW, vectors.XID],
        [vectors.MARIADB_GTID_DDL, vectors.MARIADB_CREATE],
        [vectors.MARIADB_GTID_ROWS, ROW, vectors.query(b"COMMIT")],
        [VARIABLE, vectors.query(b"INSERT INTO t VALUES (1)")],  # no GTID: an old file's
        [vectors.plain(events.BINLOG_CHECKPOINT, b"x")],
        [vectors.MARIADB_GTID_ROWS, vectors.plain(23, bytes(700)), vectors.XID],
    ),
    "mysql": (
        [vectors.MYSQL_GTID, vectors.MYSQL_BEGIN, ROW, vectors.XID],
        [vectors.MYSQL_GTID_TAGGED, vectors.plain(events.TRANSACTION_PAYLOAD, b"payload")],
        [vectors.MYSQL_ANONYMOUS, vectors.query(b"XA START 'x'"), ROW, vectors.plain(events.XA_PREPARE, b"x")],
        [vectors.MYSQL_ANONYMOUS, vectors.MYSQL_BEGIN, ROW, vectors.XID],
    ),
}
DESCRIPTION = {
    "mariadb": events.without_in_use(vectors.MARIADB_DESCRIPTION), "mysql": events.without_in_use(vectors.MYSQL_DESCRIPTION)
}
HEARTBEAT = events.artificial_event(events.HEARTBEAT, FILE.encode(), server_id=7)


class GivenReads:
    """A socket that gives what a server sent in reads of at most these sizes, over and over."""

    def __init__(self, sent: bytes, sizes: list[int]) -> None:
        self._sent, self._sizes, self._reads = sent, sizes, 0

    def settimeout(self, _: float) -> None:
        pass

    def recv_into(self, into: memoryview) -> int:
        size = min(self._sizes[self._reads % len(self._sizes)], len(into), len(self._sent))
        into[:size], self._sent, self._reads = self._sent[:size], self._sent[size:], self._reads + 1
        return size


class Sinks:
    """Segments as they are finished, with their plaintext."""

    def __init__(self) -> None:
        self.segments: list[tuple[SegmentFacts, bytes]] = []

    def open(self, file: str, position: int) -> segmenter.Sink:
        self._text = bytearray()
        return SimpleNamespace(write=self._text.extend)

    def take_all(self, found: Iterable[SegmentFacts]) -> None:
        self.segments += ((facts, bytes(self._text)) for facts in found)


def placed(data: Iterable[bytes], *, has_positions: bool) -> list[StreamEvent]:
    """The events behind one another in the file."""
    found, at = list[StreamEvent](), events.FIRST_POSITION
    for one in data:
        end = at + len(one)
        body = bytearray(one[: -events.CRC_BYTES])
        struct.pack_into("<I", body, 13, end if has_positions or one[4] == events.FORMAT_DESCRIPTION else 0)
        found.append(StreamEvent(FILE, at, end, one[4], events.seal_event(bytes(body))))
        at = end
    return found


def sent(data: Iterable[bytes]) -> bytes:
    end = wire.packet_header(5, 9) + b"\xfe\0\0\0\0"
    return b"".join(wire.packet_header(len(one) + 1, 9) + b"\0" + one for one in data) + end


def received(stream_bytes: bytes, *, sizes: list[int], buffer_bytes: int) -> Iterable[EventBlock | StreamEvent | Heartbeat]:
    connection = server.Connection(
        server.Endpoint(host="test"), SimpleNamespace(client_flag=0, _sock=GivenReads(stream_bytes, sizes))
    )
    link = wire.WireSocket(connection, buffer_bytes=buffer_bytes)
    return follow.items(link, follow.Stream("test", START), None)


def cutter(flavour: str, found: Sinks, max_bytes: int) -> segmenter.Segmenter:
    return segmenter.Segmenter(flavour=flavour, start=START, head=None, max_bytes=max_bytes, open_sink=found.open)


READS = {"sizes": st.lists(st.integers(1, 400), min_size=1, max_size=5), "buffer_bytes": st.integers(64, 1500)}


@pytest.mark.parametrize("flavour", ["mariadb", "mysql"])
@given(data=st.data(), has_positions=st.booleans(), max_bytes=st.integers(1, 2000), **READS)
def test_blocks_are_the_events_and_the_segments(
    flavour: str, data: st.DataObject, has_positions: bool, max_bytes: int, sizes: list[int], buffer_bytes: int
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(TRANSACTIONS[flavour]), max_size=12))
    whole = placed([DESCRIPTION[flavour], *(one for several in chosen for one in several)], has_positions=has_positions)
    by_one, by_block = Sinks(), Sinks()
    one, block = cutter(flavour, by_one, max_bytes), cutter(flavour, by_block, max_bytes)
    for event in whole:
        by_one.take_all(one.feed(event))
    seen, walker, transactions = list[StreamEvent](), TransactionWalker(), list[Transaction | None]()
    for item in received(sent(event.data for event in whole), sizes=sizes, buffer_bytes=buffer_bytes):
        if isinstance(item, EventBlock):
            seen += item.singly()
            transactions += (done for done, _ in walker.feed_block(item))
            by_block.take_all(block.feed_block(item))
        elif isinstance(item, StreamEvent):
            seen.append(item)
            transactions.append(walker.feed(item))
            by_block.take_all(block.feed(item))
    assert seen == whole
    reference = TransactionWalker()
    assert list(filter(None, transactions)) == list(filter(None, map(reference.feed, whole)))
    assert (block.position, block.is_inside_transaction) == (one.position, one.is_inside_transaction)
    for end, sinks in ((one, by_one), (block, by_block)):
        sinks.take_all([last] if (last := end.finish()) else [])
    assert by_block.segments == by_one.segments


@st.composite
def mariadb_gtids(draw: st.DrawFn) -> bytes:
    body = bytearray(vectors.MARIADB_GTID_ROWS)
    several = (0, 1, 12), (0, 1, 12), (0, 1, 12 | events.GTID_STANDALONE), (1, 1, 12), (0, 2, 12)
    domain, server_id, flags = draw(st.sampled_from(several))
    struct.pack_into("<I10xQIB", body, 5, server_id, draw(st.integers(1, 99)), domain, flags)
    return bytes(body)


XIDS = st.integers(0, 0xFFFFFFFF).map(lambda stamp: struct.pack("<I", stamp) + vectors.XID[4:])
OTHERS = st.sampled_from((ROW, vectors.query(b"COMMIT"), vectors.MARIADB_CREATE, vectors.MYSQL_GTID))
PARTS = st.tuples(mariadb_gtids(), st.just(ROW), XIDS) | st.tuples(st.one_of(mariadb_gtids(), XIDS, OTHERS))


@example(parts=3 * [(vectors.MARIADB_GTID_ROWS, ROW, vectors.XID)] + [(ROW,)], sizes=[20])
@settings(max_examples=400)
@given(parts=st.lists(PARTS, min_size=1, max_size=10), sizes=st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_a_tally_is_the_transactions_added_up(parts: list[tuple[bytes, ...]], sizes: list[int]) -> None:
    whole = placed([one for several in parts for one in several], has_positions=True)
    one_by_one, added_up, begin = TransactionWalker(), TransactionWalker(), 0
    for number in range(len(whole)):
        if begin >= len(whole):
            break
        block = _block(whole[begin : begin + sizes[number % len(sizes)]])
        begin += len(block.events)
        done, tally = [one for one, _ in one_by_one.feed_block(block)], added_up.tally(block)
        assert tally.commits_at_us == [one.commit_at_us for one in done]
        assert _ends(tally.gtids) == _ends([one.gtid for one in done])
        assert vars(added_up) == vars(one_by_one)


def _block(several: list[StreamEvent]) -> EventBlock:
    marks = [
        (number, one.type, one.end, one.data) for number, one in enumerate(several) if one.type in event_block.MARKED
    ]
    return EventBlock(FILE, several[0].start, several[-1].end, [one.data for one in several], marks)


def _ends(gtids: list[str]) -> tuple[list[str], list[str], dict[str, str]]:
    """The first, the last, and the last of each domain: what a segment says of MariaDB's."""
    gtids = list(filter(None, gtids))
    return gtids[:1], gtids[-1:], {one.partition("-")[0]: one for one in gtids}


@given(data=st.data(), **READS)
def test_no_damaged_event_passes(data: st.DataObject, sizes: list[int], buffer_bytes: int) -> None:
    whole = placed([DESCRIPTION["mariadb"], *3 * TRANSACTIONS["mariadb"][0]], has_positions=True)
    numbers = data.draw(st.sets(st.integers(1, len(whole) - 1), min_size=1, max_size=3))
    number, changed = min(numbers), [event.data for event in whole]
    for each in numbers:
        damaged = bytearray(changed[each])
        # not in the kind of event: what is no file's own is known by its kind and its flags, before its CRC32
        at = data.draw(st.integers(0, len(damaged) - 1).filter(lambda at: at not in (4, 17, 18)))
        damaged[at] ^= 1 << data.draw(st.integers(0, 7))
        changed[each] = bytes(damaged)
    seen: list[StreamEvent] = []
    with pytest.raises(errors.IntegrityError):
        for item in received(sent(changed), sizes=sizes, buffer_bytes=buffer_bytes):
            seen += item.singly() if isinstance(item, EventBlock) else [item] if isinstance(item, StreamEvent) else []
    assert seen == whole[:number]


def test_a_checksum_that_is_wrong_is_not_made_up_for_by_another() -> None:
    rows = [row.data for row in placed([ROW] * 6, has_positions=True)]
    assert zlib.crc32(event_block.BETWEEN, events.CRC_RESIDUE) == 0  # else all are checked one by one, always
    for first in range(6):
        for second in range(first, 6):
            # the same change in two of the same length and content: the likeliest to cancel each other out
            wrong = [one[:-1] + bytes([one[-1] ^ 0x40]) if place in (first, second) else one for place, one in enumerate(rows)]
            packets = sent(wrong)
            found = event_block.take(memoryview(packets), 0, len(packets), file=FILE, at=4)
            assert [event.data for event in found.singly()] == rows[:first]


def test_what_is_not_the_files_ends_a_block() -> None:
    rows = placed([DESCRIPTION["mariadb"], ROW, ROW, ROW], has_positions=True)
    stream = sent([rows[0].data, rows[1].data, HEARTBEAT, rows[2].data, rows[3].data])
    kinds = [type(item) for item in received(stream, sizes=[10_000], buffer_bytes=10_000)]
    assert kinds == [StreamEvent, EventBlock, Heartbeat, EventBlock]


def test_a_block_ends_where_it_is_told_to() -> None:
    rows = placed([ROW] * 4, has_positions=True)
    packets = sent(row.data for row in rows)
    for until, count in ((rows[1].end, 2), (rows[1].end + 1, 3), (event_block.NO_END, 4)):
        found = event_block.take(memoryview(packets), 0, len(packets), file=FILE, at=4, until=until)
        assert list(found.singly()) == rows[:count]
        assert found.end == rows[count - 1].end


@given(data=st.binary(max_size=200), crc=st.booleans())
def test_any_bytes_are_looked_at_without_an_error(data: bytes, crc: bool) -> None:
    for start in (b"", wire.packet_header(40, 1) + b"\0"):
        view = memoryview(start + data)
        found = event_block.take(view, 0, len(view), file=FILE, at=4, crc=crc)
        assert not (found.events and crc) and found.end - found.start == sum(map(len, found.events))
