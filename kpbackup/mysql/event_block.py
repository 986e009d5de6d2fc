"""Many events at once: those that came together from a source, checked one by one in the loop that archiving spends its time in.

Each event passes here only if it is an ordinary one in its place: whole, one packet, its length, position and CRC32 right. What
is anything else, or wrong in anything, ends the block and is for whoever looks at single events, who judges and names it.

The CRC32 of all of them are checked at once, because most of what it costs is the call: behind an event whose CRC32 is right the
sum is always the same, and the four bytes `BETWEEN` bring it from there to where it begins. So the sum of the events with these
between them is that of one event, and an event that is wrong makes it another; then they are checked one by one. Two wrong ones
cancel each other out as seldom as one has the right CRC32 by chance.

Of the events that pass only those are marked which a transaction can begin or end with; the others are never looked at again.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from kpbackup.mysql import events
from kpbackup.mysql.events import StreamEvent
from kpbackup.mysql.packets import HEADER_BYTES, MAX_PAYLOAD

# What says where a transaction begins or ends: a block holds it, marked.
MARKED = frozenset({
    events.MYSQL_GTID, events.MYSQL_ANONYMOUS_GTID, events.MYSQL_GTID_TAGGED, events.MARIADB_GTID, events.QUERY,
    events.QUERY_COMPRESSED, events.XID, events.XA_PREPARE, events.TRANSACTION_PAYLOAD,
})
# What is about the file, the stream or its faults: never in a block.
ALONE = frozenset({
    events.FORMAT_DESCRIPTION, events.INCIDENT, events.START_ENCRYPTION, events.STOP, events.ROTATE, events.PREVIOUS_GTIDS,
    events.MARIADB_GTID_LIST, events.BINLOG_CHECKPOINT, events.HEARTBEAT, events.HEARTBEAT_V2,
})

NO_END = 1 << 63

# An event that transactions begin or end with: the how manieth of the block, its type, where it ends in the file, its bytes.
Mark = tuple[int, int, int, bytes]

_SPECIAL = MARKED | ALONE

# the packet's header, the byte that says 'event'; of the event's header type, length, next position, flags
_PACKET = struct.Struct("<IB4xB4xIIH")
_BEFORE_EVENT_BYTES = HEADER_BYTES + 1

BETWEEN = b"\x81\xd5\x9d\x4c"  # crc32(BETWEEN, CRC_RESIDUE) == 0


class EventBlock(NamedTuple):
    """Following events of one file, at file[start:end)."""

    file: str
    start: int
    end: int
    events: list[bytes]
    marks: list[Mark]

    def singly(self) -> Iterator[StreamEvent]:
        """The same events one by one."""
        start = self.start
        for data in self.events:
            end = start + len(data)
            yield StreamEvent(self.file, start, end, data[4], data)
            start = end


def take(view: memoryview, place: int, end: int, *, file: str, at: int, until: int = NO_END, crc: bool = True) -> EventBlock:
    """The ordinary events in the packets at view[place:end), the first of which lies at `at` in its file, up to `until` there.

    They lie behind one another, each with `HEADER_BYTES + 1` bytes before it.
    """
    found = _ordinary(bytes(view[place : min(end, place + MAX_PAYLOAD)]), file, at, until)
    if not crc or not found.events or zlib.crc32(BETWEEN.join(found.events)) == events.CRC_RESIDUE:
        return found
    right = list(itertools.takewhile(lambda event: zlib.crc32(event) == events.CRC_RESIDUE, found.events))
    marks = [mark for mark in found.marks if mark[0] < len(right)]
    return EventBlock(file, at, at + sum(map(len, right)), right, marks)


def _ordinary(data: bytes, file: str, at: int, until: int) -> EventBlock:
    """What of the packets in `data` is so but for its CRC32: the tight loop.

    Bytes are cut and joined faster than views. They are so few that no packet of the largest size fits, which another continues.
    """
    unpack, special, before = _PACKET.unpack_from, _SPECIAL, _BEFORE_EVENT_BYTES
    shortest, artificial, payload = events.HEADER_BYTES, events.FLAG_ARTIFICIAL, MAX_PAYLOAD
    found: list[bytes] = []
    marks: list[Mark] = []
    add, mark = found.append, marks.append
    first_at, place, end = at, 0, len(data)
    last = end - _PACKET.size
    while place <= last and at < until:
        head, is_other, kind, length, next_position, flags = unpack(data, place)
        start = place + before
        place = start + length
        after = at + length
        if (
            (next_position != after and next_position) or head & payload != length + 1 or place > end or is_other
            or flags & artificial or length < shortest
        ):
            break
        event = data[start:place]
        if kind in special:
            if kind in ALONE:
                break
            mark((len(found), kind, after, event))
        add(event)
        at = after
    return EventBlock(file, first_at, at, found, marks)
