"""Capturing: one thread that follows the source's binlog and cuts it into segments; another one seals them into the backlog.

A segment ends at a transaction boundary: when it holds `segment_bytes`, when its file ends, and, in continuous mode, when its
first event came `interval_s` ago. While the store does not keep up (something waits already) segments are not cut by time, so
that a backlog is few large segments and not many small ones.

Told to stop, or when the source is lost, it finishes the segment at hand, for the source may never come back; a transaction that
is half there is left to the next run. A crash leaves nothing: what was not stored is fetched again.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kpbackup import errors
from kpbackup.backup.backlog import Abandoned, Backlog, Spool
from kpbackup.backup.sealing import Sealer
from kpbackup.model.coordinates import Coordinates
from kpbackup.mysql import follow, segmenter, server
from kpbackup.mysql.binlog_file import FileHead
from kpbackup.mysql.event_block import EventBlock
from kpbackup.mysql.events import Heartbeat, StreamEvent
from kpbackup.pipeline import encrypt
from kpbackup.repository import keys

KEY_LIFETIME_S = 86_400.0  # a data key opens a day of the archive at most
LONGEST_HEARTBEAT_S = 5.0
SHORTEST_TIMEOUT_S = 15.0
MOST_WAITING_TO_CUT = 2  # segments: one being stored, one ready; more means that the store does not keep up


@dataclass(frozen=True)
class Stretch:
    """What to capture: from `start` (inside a file its `head` is needed) to `until`, or without end when that is None.

    `is_takeover`: another server goes on here, which a segment must say even when nothing follows yet.
    """

    flavour: str
    start: Coordinates
    head: FileHead | None
    until: Coordinates | None
    is_takeover: bool = False


@dataclass(frozen=True)
class Cutting:
    """When a segment ends, and whom it is sealed to. `interval_s` is for continuous mode."""

    segment_bytes: int
    interval_s: float
    recipients: Sequence[encrypt.AnyRecipient]
    server_id: int | None = None


class Capture:
    """The thread. Use as a context manager: leaving it waits for the thread to end."""

    def __init__(
        self, endpoint: server.Endpoint, stretch: Stretch, cutting: Cutting, backlog: Backlog, stop: threading.Event
    ) -> None:
        self._endpoint, self._stretch, self._cutting, self._backlog, self._stop = endpoint, stretch, cutting, backlog, stop
        self._sealer = Sealer(backlog)
        self._opened: list[Spool] = []
        self._opened_at = 0.0
        self._key: keys.FreshKey | None = None
        self._key_made_at = 0.0
        self._leaving = threading.Event()
        self.heard_at = time.monotonic()  # when the source last sent anything, a heartbeat for one
        self.is_idle = False  # whether that was a heartbeat, and all that came before is sealed
        self.left_session: int | None = None  # the stream's on the source, unless it came to its end
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._leaving.set()
        self._backlog.abandon()
        self._thread.join()

    def _run(self) -> None:
        try:
            with self._sealer:
                self._capture()
        except Abandoned:
            pass
        except BaseException as exc:  # the task guard: raised again in the storing thread
            if isinstance(exc, errors.ServerUnreachable):
                self.left_session = None  # lost, and after a restart of the source the number may be another session's
            self._backlog.end(exc)
        else:
            self._backlog.end()
        finally:
            for spool in self._opened:
                spool.close()

    def _capture(self) -> None:
        stretch, is_endless = self._stretch, self._stretch.until is None
        cutter = segmenter.Segmenter(
            flavour=stretch.flavour, start=stretch.start, head=stretch.head, max_bytes=self._cutting.segment_bytes,
            open_sink=self._open_spool,
        )
        heartbeat_s = max(min(self._cutting.interval_s / 4, LONGEST_HEARTBEAT_S), 0.25)
        events = follow.follow_blocks(
            self._endpoint, flavour=stretch.flavour, start=stretch.start, until=stretch.until,
            server_id=self._cutting.server_id, heartbeat_s=heartbeat_s if is_endless else follow.HEARTBEAT_S,
            read_timeout_s=max(SHORTEST_TIMEOUT_S, 4 * heartbeat_s) if is_endless else follow.READ_TIMEOUT_S,
            opened=self._note_session,
        )
        with contextlib.closing(events):
            if stretch.is_takeover and stretch.head is not None:  # at a file's beginning its first events do it
                self._add(cutter.begin())
            try:
                self._cut(events, cutter, is_endless=is_endless)
            except errors.ServerUnreachable:
                if not cutter.is_inside_transaction:
                    self._end(cutter)
                raise
        self._end(cutter)

    def _cut(
        self, events: Iterator[EventBlock | StreamEvent | Heartbeat], cutter: segmenter.Segmenter, *, is_endless: bool
    ) -> None:
        for item in events:
            self.heard_at, self.is_idle = time.monotonic(), isinstance(item, Heartbeat) and self._sealer.is_idle
            if self._leaving.is_set():
                raise Abandoned
            if isinstance(item, EventBlock) and not (is_endless and self._may_cut()):
                for found in cutter.feed_block(item):
                    self._add(found)
                continue
            for event in item.singly() if isinstance(item, EventBlock) else (item,):
                if isinstance(event, StreamEvent):
                    for found in cutter.feed(event):
                        self._add(found)
                if is_endless and not cutter.is_inside_transaction:
                    if self._stop.is_set():
                        return
                    if self._is_old_enough() and (ready := cutter.finish()):
                        self._add(ready)
        self.left_session = None

    def _may_cut(self) -> bool:
        """Whether the next place between two transactions is one to cut at: then events are looked at one by one."""
        return self._stop.is_set() or self._is_old_enough()

    def _note_session(self, session: int) -> None:
        self.left_session = session

    def _end(self, cutter: segmenter.Segmenter) -> None:
        if cutter.is_inside_transaction:
            raise errors.IntegrityError(f"the binlog of the source ends inside a transaction, at {cutter.position}")
        if last := cutter.finish():
            self._add(last)

    def _is_old_enough(self) -> bool:
        if not self._opened or self.heard_at - self._opened_at < self._cutting.interval_s:
            return False
        return self._backlog.waiting[0] < MOST_WAITING_TO_CUT

    def _open_spool(self, file: str, position: int) -> segmenter.Sink:
        now = time.monotonic()
        if self._key is None or now - self._key_made_at > KEY_LIFETIME_S:
            self._key, self._key_made_at = keys.make_data_key(self._cutting.recipients), now
        self._opened_at = now
        self._opened.append(Spool(self._key, self._backlog))
        return _Sink(self._sealer, self._opened[-1])

    def _add(self, facts: segmenter.SegmentFacts) -> None:
        self._sealer.finish(self._opened[0], facts)
        del self._opened[0]


class _Sink:
    """Where the segmenter writes one segment to."""

    def __init__(self, sealer: Sealer, spool: Spool) -> None:
        self._sealer, self._spool = sealer, spool

    def write(self, data: bytes) -> None:
        self._sealer.write(self._spool, data)
