"""Small transactions joined: nothing is lost, moved or claimed too early, and a replica may come back anywhere."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from kpbackup.mysql import events, grouping, row_events
from kpbackup.mysql.events import StreamEvent

FILE = "binlog.000001"
TRANSACTIONAL, STANDALONE_DDL, PREPARED_XA, MIXED = 0x04, 0x21, 0x44, 0x00
KINDS = st.sampled_from(["small", "small", "small", "small", "other domain", "large", "many rows", "ddl", "xa", "mixed", "other"])


@dataclass
class Written:
    """A binlog file, and the transactions in it: (GTID, number of the last event that is its own)."""

    stream: list[StreamEvent]
    ends: list[tuple[str, int]]

    def read_from(self, file: str, position: int) -> Iterator[StreamEvent]:
        """As the archive does: from a little before the place."""
        place = next(n for n, event in enumerate(self.stream) if event.end > position or n == len(self.stream) - 1)
        yield self.stream[0]
        yield from self.stream[max(place - 3, 1) :]


def written(kinds: list[str], versioning_at: int, *, checkpoint_every: int = 9) -> Written:
    stream: list[StreamEvent] = []
    ends: list[tuple[str, int]] = []
    position = 4

    def add(kind: int, body: bytes, server_id: int = 11) -> None:
        nonlocal position
        data = events.seal_event(events.HEADER.pack(1700000000 + len(stream), kind, server_id, 0, 0, 0) + body)
        data = events.seal_event(data[:13] + struct.pack("<I", position + len(data)) + data[17:-4])
        stream.append(StreamEvent(FILE, position, position + len(data), kind, data))
        position += len(data)

    def query(text: bytes) -> None:
        add(events.QUERY, struct.pack("<IIBHH", 1, 0, 1, 0, 0) + b"d\0" + text)

    add(events.FORMAT_DESCRIPTION, struct.pack("<H50sIB", 4, b"10.11.19-MariaDB", 0, 19) + bytes(30) + b"\x01")
    for number, kind in enumerate(kinds, 1):
        domain = 7 if kind == "other domain" else 1
        flags = {"ddl": STANDALONE_DDL, "xa": PREPARED_XA, "mixed": MIXED}.get(kind, TRANSACTIONAL)
        if number == versioning_at:
            kind, flags = "versioning", STANDALONE_DDL
        add(events.MARIADB_GTID, struct.pack("<QIB", number, domain, flags) + bytes(6))
        if kind in ("ddl", "versioning"):
            query(b"ALTER TABLE t ADD SYSTEM VERSIONING" if kind == "versioning" else b"CREATE TABLE t (i INT)")
        else:
            size = {"large": grouping.GROUP_BYTES + 1, "many rows": grouping.GROUP_BYTES // 3}.get(kind, 20)
            add(row_events.ANNOTATE_ROWS, b"INSERT ...")
            for _ in range(2):
                add(row_events.TABLE_MAP, b"m" * 10)
                add(23, number.to_bytes(4, "little") * (size // 8))
            if kind == "other":
                query(b"SAVEPOINT s")
            if kind == "xa":
                add(events.XA_PREPARE, b"x" * 10)
            else:
                add(events.XID, number.to_bytes(8, "little"))
        ends.append((f"{domain}-11-{number}", len(stream)))
        if number % checkpoint_every == 0:
            add(161, b"checkpoint")
    return Written(stream, ends)


def groups_of(found: list[StreamEvent]) -> list[list[StreamEvent]]:
    made: list[list[StreamEvent]] = []
    for event in found:
        if event.type == events.MARIADB_GTID:
            made.append([])
        if made and event.type not in (161, events.FORMAT_DESCRIPTION):
            made[-1].append(event)
    return made


def changes(found: list[StreamEvent]) -> list[bytes]:
    return [event.data for event in found if event.type not in (events.MARIADB_GTID, events.XID, 161)]


@given(st.lists(KINDS, max_size=70), st.integers(0, 90))
def test_groups(kinds: list[str], versioning_at: int) -> None:
    binlog = written(kinds, versioning_at)
    joined = grouping.Grouped(binlog.read_from)
    found = list(joined(FILE, 4))
    assert changes(found) == changes(binlog.stream)
    assert all(one.end == other.start for one, other in zip(found, found[1:], strict=False))
    assert found[-1].end == binlog.stream[-1].end and all(events.has_valid_crc(event.data) for event in found)
    done = 0
    for group in groups_of(found):
        count = joined.transactions(group[-1].file, group[-1].end)
        names = [gtid for gtid, _ in binlog.ends[done : done + count]]
        # what a group claims is what it holds, in one domain, and it commits once
        assert events.mariadb_gtid(group[0].data).gtid == names[-1]
        assert len({name.partition("-")[0] for name in names}) == 1
        assert sum(event.type == events.XID for event in group) <= 1
        first = binlog.ends[done - 1][1] if done else 0
        own = [e for e in binlog.stream[first : binlog.ends[done + count - 1][1]] if e.type != events.FORMAT_DESCRIPTION]
        assert changes(group) == changes(own)
        assert count == 1 or (count <= grouping.GROUP and not 0 < versioning_at <= done)
        done += count
    assert done == len(kinds)


@given(st.lists(KINDS, min_size=1, max_size=70), st.integers(0, 90), st.data())
def test_a_replica_that_comes_back_gets_the_rest_of_the_same(kinds: list[str], versioning_at: int, data: st.DataObject) -> None:
    """Behind any event it has received, as often as it likes; the archive begins a little before the place."""
    binlog = written(kinds, versioning_at)
    joined = grouping.Grouped(binlog.read_from)
    found = list(joined(FILE, 4))
    for place in data.draw(st.lists(st.sampled_from(range(1, len(found))), max_size=6)):
        at = found[place - 1].end
        again = [event for event in joined(FILE, at) if event.end > at]
        assert again == found[place:]


def test_ordinary_transactions_are_joined() -> None:
    found = list(grouping.Grouped(written(["small"] * 45, 0, checkpoint_every=99).read_from)(FILE, 4))
    assert [len([e for e in group if e.type == 23]) for group in groups_of(found)] == [40, 40, 10]
