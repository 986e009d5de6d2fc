"""Cuts a stream of binlog events into segments: bounded, at transaction boundaries, never across two files.

A segment's plaintext is itself a readable binlog file: the file's own bytes when it starts at the file's
beginning, else the magic and the file's format description (the prefix) before file[start:end). Bytes go to a
sink as they come, in pieces of 512 KiB or more, so a transaction of any size passes in bounded memory; a segment
larger than `max_bytes` is one whose last transaction is. Put together without their prefixes, the segments of a
closed file are the file.

A segment in progress when the process dies was never finished: its sink's content is to be thrown away.
A file that ended without ROTATE or STOP (the source crashed) is closed when the next one begins, if need be by a
segment of no bytes; a transaction left unfinished there is kept as bytes and not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from kpbackup import errors
from kpbackup.model import gtid
from kpbackup.model.coordinates import Coordinates
from kpbackup.model.manifest import FileIdentity
from kpbackup.mysql import binlog_file, events
from kpbackup.mysql.binlog_file import FileHead
from kpbackup.mysql.event_block import EventBlock
from kpbackup.mysql.events import Heartbeat, StreamEvent
from kpbackup.mysql.transactions import Tally, TransactionWalker

PIECE_BYTES = 512 << 10  # each wakes the thread that takes it: with smaller ones the two wait for one another

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Sink(Protocol):
    """Takes a segment's plaintext in order."""

    def write(self, data: bytes, /) -> object: ...


OpenSink = Callable[[str, int], Sink]  # (file, start position)


@dataclass(frozen=True)
class SegmentFacts:
    """What a finished segment is. Its plaintext has prefix_bytes + raw_bytes bytes.

    Positions are byte offsets, `start_position` 0 at a file's beginning: raw_bytes == end_position - start_position.
    `gtid_set` is what it contains (MariaDB: the last GTID per domain), `gtid_after` the executed set or position after
    it. Commit times are the earliest and the latest of its transactions, whatever their order; None without any.
    `ends_file`: the source writes nothing more to this file.
    """

    file: str
    start_position: int
    end_position: int
    prefix_bytes: int
    raw_bytes: int
    transactions: int
    first_gtid: str
    last_gtid: str
    gtid_set: str
    gtid_before: str
    gtid_after: str
    first_commit_at: datetime | None
    last_commit_at: datetime | None
    identity: FileIdentity
    ends_file: bool

    @property
    def start(self) -> Coordinates:
        return Coordinates(self.file, self.start_position, self.gtid_before)

    @property
    def end(self) -> Coordinates:
        return Coordinates(self.file, self.end_position, self.gtid_after)


def segments(
    stream: Iterable[EventBlock | StreamEvent | Heartbeat], *, flavour: str, start: Coordinates, head: FileHead | None,
    max_bytes: int, open_sink: OpenSink,
) -> Iterator[SegmentFacts]:
    """The segments of a stream that ends, each given out when its last byte is in its sink. Arguments as `Segmenter`.

    Raises:
        IntegrityError: the stream ends inside a transaction. Also what the stream itself raises.
    """
    cutter = Segmenter(flavour=flavour, start=start, head=head, max_bytes=max_bytes, open_sink=open_sink)
    for item in stream:
        if isinstance(item, EventBlock):
            yield from cutter.feed_block(item)
        elif isinstance(item, StreamEvent):
            yield from cutter.feed(item)
    if cutter.is_inside_transaction:
        raise errors.IntegrityError(f"the binlog of the source ends inside a transaction, at {cutter.position}")
    if last := cutter.finish():
        yield last


class Segmenter:
    """For callers that also cut by time: `feed` every event, `finish` when a segment is old enough."""

    def __init__(
        self, *, flavour: str, start: Coordinates, head: FileHead | None, max_bytes: int, open_sink: OpenSink
    ) -> None:
        """`start.gtid` is the executed set or position there; `head` is start.file's, needed when it starts inside a file."""
        is_inside_file = start.position > events.FIRST_POSITION
        if is_inside_file and (head is None or head.file != start.file):
            raise errors.InternalError(f"the head of {start.file} is needed to start at {start}")
        self._flavour = flavour
        self._max_bytes = max_bytes
        self._open_sink = open_sink
        self._head = head if is_inside_file else None
        self._first_events: list[bytes] = []
        self._file, self._at, self._gtid = start.file, start.position if is_inside_file else 0, start.gtid
        self._file_ended = False
        self._walker = TransactionWalker()
        self._open: _OpenSegment | None = None

    @property
    def position(self) -> Coordinates:
        """How far the stream was fed; its GTID part is that of the last finished segment."""
        return Coordinates(self._file, self._at, self._gtid)

    @property
    def is_inside_transaction(self) -> bool:
        return self._walker.is_open

    def feed(self, event: StreamEvent) -> list[SegmentFacts]:
        """The segments that this event finishes: none, one, or two when it begins a file after a source's crash."""
        if self._open is not None and self._walker.is_inside(event) and event.start == self._at and event.file == self._file:
            self._open.add(event.data)  # most events: nothing begins or ends with them
            self._at = event.end
            return []
        if event.is_repeated_description:
            return []
        finished = []
        if event.file != self._file:
            finished += self._close_file()
            self._file, self._at = event.file, 0
            self._head, self._first_events, self._file_ended = None, [], False
        if event.start != (self._at or events.FIRST_POSITION):
            raise errors.IntegrityError(f"binlog stream jumps from {self.position} to {event.file}:{event.start}")
        if self._head is None and len(self._first_events) < 2:
            self._first_events.append(event.data)
        done = self._walker.feed(event)
        segment = self._open or self._segment()
        segment.add(event.data)
        if done is not None:
            segment.count(Tally([done.commit_at_us], [done.gtid]))
        self._at = event.end
        if event.type in (events.ROTATE, events.STOP):
            self._file_ended = True
        if self._file_ended or (segment.raw_bytes >= self._max_bytes and not self._walker.is_open):
            finished.append(self._finish(segment))
        return finished

    def feed_block(self, block: EventBlock) -> Iterator[SegmentFacts]:
        """As `feed` of each of its events; to be exhausted. A segment is given out before the next one's sink is opened."""
        is_next = self._open is not None and block.file == self._file and block.start == self._at
        if not is_next or (self._head is None and len(self._first_events) < 2):
            for event in block.singly():
                yield from self.feed(event)
            return
        segment = self._segment()
        if segment.raw_bytes + block.end - block.start < self._max_bytes:  # it ends no segment
            segment.count(self._walker.tally(block))
            segment.add_all(block.events, block.end - block.start)
            self._at = block.end
            return
        taken = 0
        for done, index in self._walker.feed_block(block):
            segment = self._segment()
            segment.count(Tally([done.commit_at_us], [done.gtid]))
            if segment.raw_bytes + done.end - self._at >= self._max_bytes:
                segment.add_all(block.events[taken : index + 1], done.end - self._at)
                self._at, taken = done.end, index + 1
                yield self._finish(segment)
        if taken < len(block.events):
            self._segment().add_all(block.events[taken:], block.end - self._at)
            self._at = block.end

    def begin(self) -> SegmentFacts:
        """A segment of no bytes where the stream starts: it says that from here on another server's files follow."""
        return self._finish(self._segment())

    def finish(self) -> SegmentFacts | None:
        """The segment so far; None when there is nothing or the stream stands inside a transaction."""
        if self._open is None or self._walker.is_open:
            return None
        return self._finish(self._open)

    def _segment(self) -> _OpenSegment:
        if self._open is None:
            at = self.position
            self._open = _OpenSegment(self._flavour, at, self._open_sink(at.file, at.position))
            if at.position:
                self._open.add_prefix(events.MAGIC + self._known_head().description)
            else:
                self._open.add(events.MAGIC)
        return self._open

    def _close_file(self) -> list[SegmentFacts]:
        """What ends the file before: its open segment, or an empty one, unless a ROTATE or STOP was seen."""
        if self._file_ended or not self._at:
            return []
        self._file_ended = True
        return [self._finish(self._segment())]

    def _finish(self, segment: _OpenSegment) -> SegmentFacts:
        self._open = None
        found = segment.close(self._known_head().identity, ends_file=self._file_ended)
        self._gtid = found.gtid_after
        return found

    def _known_head(self) -> FileHead:
        if self._head is None:
            self._head = binlog_file.file_head(self._file, self._first_events)
        return self._head


class _OpenSegment:
    """A segment being written."""

    def __init__(self, flavour: str, start: Coordinates, sink: Sink) -> None:
        self.raw_bytes = 0
        self._prefix_bytes = 0
        self._start = start
        self._sink = sink
        self._pieces: list[bytes] = []
        self._waiting_bytes = 0
        self._gtids = _GtidCollector(flavour)
        self._transactions = 0
        self._first_us: int | None = None
        self._last_us: int | None = None

    def add_prefix(self, data: bytes) -> None:
        self.add(data)
        self._prefix_bytes, self.raw_bytes = len(data), 0

    def add(self, data: bytes) -> None:
        size = len(data)
        self.raw_bytes += size
        self._pieces.append(data)
        self._waiting_bytes += size
        if self._waiting_bytes >= PIECE_BYTES:
            self._flush()

    def add_all(self, several: list[bytes], size: int) -> None:
        """Adds `size` bytes of events."""
        self.raw_bytes += size
        self._pieces += several
        self._waiting_bytes += size
        if self._waiting_bytes >= PIECE_BYTES:
            self._flush()

    def count(self, done: Tally) -> None:
        if not done.commits_at_us:
            return
        self._transactions += len(done.commits_at_us)
        first, last = min(done.commits_at_us), max(done.commits_at_us)
        self._first_us = first if self._first_us is None else min(first, self._first_us)
        self._last_us = last if self._last_us is None else max(last, self._last_us)
        for text in filter(None, done.gtids):
            self._gtids.add(text)

    def close(self, identity: FileIdentity, *, ends_file: bool) -> SegmentFacts:
        self._flush()
        contained = self._gtids.text()
        return SegmentFacts(
            file=self._start.file, start_position=self._start.position, end_position=self._start.position + self.raw_bytes,
            prefix_bytes=self._prefix_bytes, raw_bytes=self.raw_bytes, transactions=self._transactions,
            first_gtid=self._gtids.first, last_gtid=self._gtids.last, gtid_set=contained, gtid_before=self._start.gtid,
            gtid_after=self._gtids.after(self._start.gtid), first_commit_at=_moment(self._first_us),
            last_commit_at=_moment(self._last_us), identity=identity, ends_file=ends_file,
        )

    def _flush(self) -> None:
        if self._pieces:
            self._sink.write(self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces))
            self._pieces.clear()
            self._waiting_bytes = 0


class _GtidCollector:
    """The GTIDs of a segment: cheap to add to one by one, unlike the frozen sets."""

    def __init__(self, flavour: str) -> None:
        self._flavour = flavour
        self._intervals: dict[tuple[str, str], list[gtid.Interval]] = {}
        self._domains: dict[str, str] = {}
        self.first = ""
        self.last = ""

    def add(self, text: str) -> None:
        self.first = self.first or text
        self.last = text
        if self._flavour == "mariadb":
            self._domains[text.partition("-")[0]] = text
            return
        source, number = gtid.split_mysql_gtid(text)
        intervals = self._intervals.setdefault(source, [])
        if intervals and intervals[-1][1] + 1 == number:
            intervals[-1] = (intervals[-1][0], number)
        else:
            intervals.append((number, number))

    def text(self) -> str:
        if self._flavour == "mariadb":
            return str(gtid.MariadbGtidPosition.parse(",".join(self._domains.values())))
        return str(gtid.MysqlGtidSet.of(self._intervals))

    def after(self, before: str) -> str:
        return gtid.add(self._flavour, before, self.text()) if self.first else before


def _moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else _EPOCH + timedelta(microseconds=microseconds)
