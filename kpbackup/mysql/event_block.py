"""Many events at once: those that came together from a source, checked one by one in the loop that archiving spends its time in.

Each event passes here only if it is an ordinary one in its place: whole, one packet, its length, position and CRC32 right. What
is anything else, or wrong in anything, ends the block and is for whoever looks at single events, who judges and names it.

Of the events that pass only those are marked which a transaction can begin or end with; the others are never looked at again.

Limits: the events are views of the buffer they were received in, valid until the next bytes are received.
"""

from __future__ import annotations

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
Mark = tuple[int, int, int, memoryview]

_SPECIAL = MARKED | ALONE

# the packet's header, the byte that says 'event'; of the event's header type, length, next position, flags
_PACKET = struct.Struct("<IB4xB4xIIH")
_BEFORE_EVENT_BYTES = HEADER_BYTES + 1


class EventBlock(NamedTuple):
    """Following events of one file, at file[start:end)."""

    file: str
    start: int
    end: int
    events: list[memoryview]
    marks: list[Mark]

    def singly(self) -> Iterator[StreamEvent]:
        """The same events one by one, with bytes of their own."""
        start = self.start
        for view in self.events:
            end = start + len(view)
            yield StreamEvent(self.file, start, end, view[4], bytes(view))
            start = end


def take(view: memoryview, place: int, end: int, *, file: str, at: int, until: int = NO_END, crc: bool = True) -> EventBlock:
    """The ordinary events in the packets at view[place:end), the first of which lies at `at` in its file, up to `until` there.

    They lie behind one another, each with `HEADER_BYTES + 1` bytes before it.
    """
    unpack, crc32, residue, special, before = _PACKET.unpack_from, zlib.crc32, events.CRC_RESIDUE, _SPECIAL, _BEFORE_EVENT_BYTES
    shortest, artificial, payload = events.HEADER_BYTES, events.FLAG_ARTIFICIAL, MAX_PAYLOAD
    found: list[memoryview] = []
    marks: list[Mark] = []
    add, mark = found.append, marks.append
    first_at, end = at, min(end, place + payload)  # so that no packet of the largest size, which another continues, fits
    last = end - _PACKET.size
    while place <= last and at < until:
        head, is_other, kind, length, next_position, flags = unpack(view, place)
        start = place + before
        following = start + length
        after = at + length
        if (
            (next_position != after and next_position) or head & payload != length + 1 or following > end or is_other
            or flags & artificial or length < shortest
        ):
            break
        event = view[start:following]
        if crc and crc32(event) != residue:
            break
        if kind in special:
            if kind in ALONE:
                break
            mark((len(found), kind, after, event))
        add(event)
        at, place = after, following
    return EventBlock(file, first_at, at, found, marks)
