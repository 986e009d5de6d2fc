"""The continuous archive: one replication connection held open, a segment every few seconds, until told to stop.

When the store is away or slow, reading goes on until the backlog is full; the lease is taken again when the store is back, and
what waited is stored: nothing is lost or doubled. When the source is away, or silent for too long, it is asked again after a
growing pause. Every `observe_interval_s` the source is asked where it stands, so that the recovery point of an idle source moves
too: a busy one's answer goes into the next segment and costs nothing, an idle one's is an object of its own.

A source that stands before what is archived, or whose place does not come through the stream, is judged anew from the start.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from kpbackup import errors, logs
from kpbackup.backup import archiver
from kpbackup.backup import source as sources
from kpbackup.backup.backlog import Sealed
from kpbackup.backup.segment_log import SegmentLog
from kpbackup.model import manifest
from kpbackup.model.coordinates import after_takeovers, order, takeovers
from kpbackup.mysql import facts as server_facts
from kpbackup.mysql import server
from kpbackup.repository import lease
from kpbackup.repository.binding import Repository

LEASE_TTL_S = 60.0  # a renewal is a write, and three of them a minute are enough
STALE_AFTER_S = 30.0  # a place the source has reached must come through the stream by then
PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)

T = TypeVar("T")
Stored = Callable[[manifest.BinlogSegment], object]

logger = logging.getLogger(__name__)


@dataclass
class Meter:
    """How the continuous archive stands now, for metrics: written by its thread, read by any.

    `following`: the source sends. `stalled_since` (monotonic): since then the store takes nothing although something waits.
    """

    following: bool = False
    stalled_since: float | None = None
    waiting_segments: int = 0
    waiting_bytes: int = 0
    segments: int = 0
    transactions: int = 0
    interruptions: int = 0
    problem: str = ""

    @property
    def stalled_s(self) -> float:
        since = self.stalled_since
        return 0.0 if since is None else time.monotonic() - since


def run_continuous(
    repository: Repository, request: archiver.ArchiveRequest, *,
    stop: threading.Event, meter: Meter | None = None, stored: Stored = lambda segment: None,
) -> None:
    """Archives until `stop` is set; the segment at hand is finished and stored first. `stored` is told of each one.

    Raises:
        ChainBroken: no full backup yet, or the archive cannot go on (purged, reset, forked).
        LeaseHeld: another process archives. PrivilegeMissing, ServerUnfit, IntegrityError, LocalIOError.
        StorageError: the store was away when `stop` was set, and something was not stored.
    """
    meter = meter or Meter()
    holding = _Holding(repository, request.holder)
    try:
        _run_sessions(lambda: _Session(repository, request, stop, meter, holding, stored))
    finally:
        holding.release()
        meter.following, meter.waiting_segments, meter.waiting_bytes, meter.stalled_since = False, 0, 0, None


def _run_sessions(new_session: Callable[[], _Session]) -> None:
    failures = 0
    while not (session := new_session()).stop.is_set():
        stop, meter = session.stop, session.meter
        try:
            session.run()
        except (errors.ServerUnreachable, errors.StorageError, _Stale) as exc:
            if stop.is_set() and isinstance(exc, errors.StorageError):
                raise
            failures = 0 if session.was_following else failures
            meter.interruptions += 1
            if failures == 0:
                hint = exc.hint if isinstance(exc, errors.KpbackupError) else ""
                logs.event(logger, "archive_interrupted", level=logging.WARNING, error=exc, hint=hint)
            meter.problem = str(exc)
            stop.wait(PAUSES_S[min(failures, len(PAUSES_S) - 1)])
            failures += 1
        finally:
            meter.following = False


class _Stale(Exception):
    """What the source says of itself and what its stream brings do not fit: it must be looked at anew."""


@dataclass
class _Session:
    """One replication connection of the continuous archive, from the judgement of the source to its loss or the stop."""

    repository: Repository
    request: archiver.ArchiveRequest
    stop: threading.Event
    meter: Meter
    holding: _Holding
    stored: Stored
    was_following: bool = False
    _seen: manifest.Observation | None = None
    _seen_at: float = 0.0
    _cleanup: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def run(self) -> None:
        with self._cleanup:
            self.holding.hold()
            with self.request.turn:
                opened = archiver.open_archive(self.repository, self.request)
            self._log = SegmentLog(self.repository, opened.history, opened.head)
            self._facts, self._number = opened.facts, takeovers(opened.start.file)
            self._note(opened.observed)
            self._backlog, self._capture = self._cleanup.enter_context(
                archiver.captured(self.request, opened, until=None, stop=self.stop)
            )
            if self.meter.problem:
                logs.event(logger, "archive_resumed", at=opened.head.at)
            self.meter.problem, self.meter.following, self.was_following = "", True, True
            self._store_all()

    def _store_all(self) -> None:
        while not self._backlog.is_finished:
            due_in_s = self._seen_at + self.request.observe_interval_s - time.monotonic()
            sealed = self._backlog.first(max(min(due_in_s, STALE_AFTER_S), 0.0))
            self.meter.waiting_segments, self.meter.waiting_bytes = self._backlog.waiting
            if sealed is not None:
                self._store(sealed)
            elif self._seen is not None:
                self._observe_or_doubt()
            if time.monotonic() - self._seen_at >= self.request.observe_interval_s and not self.stop.is_set():
                self._look()

    def _store(self, sealed: Sealed) -> None:
        seen = self._seen if self._seen and order(sealed.facts.end) >= order(self._seen.position) else None
        made = self._patiently(lambda: self._log.append(sealed, seen))
        self._backlog.drop_first()
        self.stored(made)
        self.meter.segments += 1
        self.meter.transactions += made.transactions
        self._seen = None if seen else self._seen
        logs.event(
            logger, "segment_archived", level=logging.DEBUG, seq=made.head.seq, transactions=made.transactions, to=made.end
        )

    def _look(self) -> None:
        """Asks the source where it stands, to say that nothing was committed since."""
        before = self._log.end
        try:
            with self.request.turn, server.connect(self.request.endpoint, read_timeout_s=archiver.LOOK_TIMEOUT_S) as connection:
                who = server_facts.identity(connection, self._facts)
                seen = sources.observe(connection, self._facts)
        except errors.ServerUnreachable:
            self._seen_at = time.monotonic()  # the stream tells whether the source is away; this is asked again later
            return
        if who != (self._facts.server_id, self._facts.server_uuid):
            raise _Stale(f"another server (server_id {who[0]}) stands at the source's address")
        seen = replace(seen, position=after_takeovers(seen.position, self._number))
        if order(seen.position) < order(before):
            raise _Stale(f"the source stands at {seen.position}, the archive reaches {before}")
        self._note(seen)
        if self._backlog.waiting[0] == 0:
            self._observe_or_doubt()

    def _note(self, seen: manifest.Observation) -> None:
        self._seen, self._seen_at = seen, time.monotonic()

    def _observe_or_doubt(self) -> None:
        """Nothing waits: either the archive has come as far as the source was seen, or the stream must bring it soon."""
        seen = self._seen
        assert seen is not None
        if order(self._log.end) >= order(seen.position):
            self._patiently(lambda: self._log.observe(seen))
            self._seen = None
        elif self._capture.is_idle and time.monotonic() - self._seen_at >= STALE_AFTER_S:
            raise _Stale(f"the source stands at {seen.position}, and sends nothing behind {self._log.end}")

    def _patiently(self, work: Callable[[], T]) -> T:
        """`work` with the lease held, again and again while the store fails; only a stop ends that with StorageError."""
        while True:
            try:
                self.holding.hold()
                done = work()
            except (errors.StorageError, errors.LocalIOError) as exc:
                if self.stop.is_set():
                    raise
                self._stall(exc)
                self.stop.wait(PAUSES_S[1])
                continue
            if self.meter.stalled_since is not None:
                logs.event(logger, "archive_stall_ended", after_s=round(self.meter.stalled_s, 1))
                self.meter.stalled_since = None
            return done

    def _stall(self, exc: errors.KpbackupError) -> None:
        self.meter.waiting_segments, self.meter.waiting_bytes = self._backlog.waiting
        if self.meter.stalled_since is None:
            self.meter.stalled_since = time.monotonic()
            logs.event(logger, "archive_stalled", level=logging.ERROR, error=exc, hint=exc.hint)


class _Holding:
    """The lease, from the start, or again after the store was away for longer than its time to live."""

    def __init__(self, repository: Repository, holder: str) -> None:
        self._repository, self._holder = repository, holder
        self._held: lease.Lease | None = None

    def hold(self) -> None:
        """Raises LeaseHeld when another process has it now; StorageError."""
        if self._held is not None:
            try:
                self._held.check()
                return
            except errors.LeaseHeld:
                self.release()  # joins its thread; a lost lease is not written to
        self._held = lease.acquire(self._repository, "archive", holder=self._holder, ttl_s=LEASE_TTL_S)

    def release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.release()
