"""The archiver: the source's binlog from where the archive ends on, as sealed, signed, linked segments.

Two ways, one code. `run_incremental` catches up to now and ends: the hourly job, the CronJob, `kpbackup backup incremental`.
`continuous.run_continuous` holds one replication connection open and makes a segment every few seconds: the daemon. A thread
captures and seals (capture.py), the calling one stores in order (segment_log.py), a bounded backlog lies between (backlog.py).

The resume position comes from the bucket alone, so any process may go on after a crash of another. The number of a segment
is its fence: two archivers at once lose work, never order.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kpbackup import errors, logs
from kpbackup.backup import source as sources
from kpbackup.backup.backlog import Backlog
from kpbackup.backup.capture import Capture, Cutting, Stretch
from kpbackup.backup.segment_log import SegmentLog
from kpbackup.model import manifest
from kpbackup.model.catalog import History
from kpbackup.model.coordinates import Coordinates, archive_name
from kpbackup.mysql import facts as server_facts
from kpbackup.mysql import follow, privileges, server
from kpbackup.mysql.binlog_file import FileHead
from kpbackup.pipeline import encrypt
from kpbackup.plan import chain
from kpbackup.repository import catalog as catalogs
from kpbackup.repository import lease
from kpbackup.repository.binding import Repository

LOOK_TIMEOUT_S = 10.0
KEPT_BYTES = 16 << 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArchiveRequest:
    """What to archive and how. A segment ends with the transaction in which it reaches `segment_bytes` of raw binlog.

    Of the continuous archive alone: it also ends `interval_s` after it began; an observation is made every
    `observe_interval_s`. At most about `spool_bytes` sealed bytes wait for the store. `turn` is held while it uses another
    connection than the stream: whoever shares that one with it holds it too.
    """

    endpoint: server.Endpoint
    recipients: Sequence[encrypt.AnyRecipient]
    holder: str
    segment_bytes: int = 16 << 20
    spool_bytes: int = 256 << 20
    interval_s: float = 3.0
    observe_interval_s: float = 60.0
    turn: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)


@dataclass(frozen=True)
class ArchiveResult:
    """What a pass stored: the segments, or none and one observation. `observed` moves the recovery point."""

    segments: tuple[manifest.BinlogSegment, ...]
    observed: manifest.Observation


def run_incremental(repository: Repository, request: ArchiveRequest) -> ArchiveResult:
    """Archives everything up to now and returns what was stored, each manifest read back.

    Raises:
        ChainBroken: no full backup yet, or the archive cannot go on (purged, reset, forked).
        LeaseHeld, ServerUnreachable, PrivilegeMissing, ServerUnfit, StorageError, IntegrityError, LocalIOError.
    """
    with lease.acquire(repository, "archive", holder=request.holder) as held:
        opened = open_archive(repository, request)
        log, observed = SegmentLog(repository, opened.history, opened.head), opened.observed
        if _is_at(log.end, observed.position):
            held.check()
            log.observe(observed)
            return ArchiveResult((), observed)
        stored = []
        _keep_freed_memory()
        with captured(request, opened, until=observed.position, stop=threading.Event()) as (backlog, _):
            while (sealed := backlog.first()) is not None:
                held.check()
                stored.append(log.append(sealed, observed if _is_at(sealed.facts.end, observed.position) else None))
                backlog.drop_first()
        if not _is_at(log.end, observed.position):
            raise errors.ChainBroken(
                f"the source's binlog ended at {log.end}, before its own position {observed.position}",
                hint="what was archived is kept; run `kpbackup backup incremental` again",
            )
        return ArchiveResult(tuple(stored), observed)


@dataclass(frozen=True)
class Opened:
    """Source and archive, found to fit: where the archive ends and goes on, and what the source was seen at before.

    `is_takeover`: where it goes on is another server's.
    """

    facts: server_facts.ServerFacts
    history: History
    head: sources.ArchiveHead
    start: Coordinates
    file_head: FileHead | None
    observed: manifest.Observation
    server_id: int
    is_takeover: bool = False


def open_archive(repository: Repository, request: ArchiveRequest) -> Opened:
    """Judges source and archive together.

    Raises: as run_incremental.
    """
    with server.connect(request.endpoint) as connection:
        facts = server_facts.read_facts(connection)
        sources.require(facts, privileges.read_privileges(connection))
        history = catalogs.read_current(repository)
        head = sources.archive_head(history, first_link=chain.first_link(repository.id, history.id)) if history else None
        if history is None or head is None:
            raise errors.ChainBroken(
                f"there is no full backup in {repository.backend.name} to continue from", hint="run `kpbackup backup full` first"
            )
        seen = sources.look(connection, facts)
        server_id = follow.free_server_id(connection, facts)
    # one connection at a time: `source.max_connections` counts them
    verdict = sources.judge(request.endpoint, seen, history, head)
    if verdict.reason:
        raise sources.chain_broken(verdict, history, head, request.endpoint.name)
    start, file_head = _start(request, seen, head, verdict)
    if verdict.place:
        logs.event(logger, "source_changed", level=logging.WARNING, ends=head.at, goes_on=start, server_id=facts.server_id)
    return Opened(facts, history, head, start, file_head, seen.after(verdict.number), server_id, bool(verdict.place))


def _start(
    request: ArchiveRequest, seen: sources.Seen, head: sources.ArchiveHead, verdict: sources.Verdict
) -> tuple[Coordinates, FileHead | None]:
    """Where the stream begins: right after the head, at the beginning of the file after one that ended, or where another
    server goes on."""
    at = verdict.place or head.at
    if verdict.place and not at.position:
        return at, None
    if head.ends_file and not verdict.place:
        names = [archive_name(name, verdict.number) for name, _ in seen.binlogs]
        following = names[names.index(at.file) + 1 :]
        if following:
            return Coordinates(following[0], 0, at.gtid), None
    return at, follow.read_head(request.endpoint, flavour=seen.facts.flavour, file=at.file)


@contextlib.contextmanager
def captured(
    request: ArchiveRequest, opened: Opened, *, until: Coordinates | None, stop: threading.Event
) -> Iterator[tuple[Backlog, Capture]]:
    """The backlog that a capture thread fills; leaving ends the thread, and its session on the source."""
    backlog = Backlog(request.spool_bytes)
    stretch = Stretch(opened.facts.flavour, opened.start, opened.file_head, until, opened.is_takeover)
    cutting = Cutting(request.segment_bytes, request.interval_s, request.recipients, opened.server_id)
    capture = Capture(request.endpoint, stretch, cutting, backlog, stop)
    try:
        with capture:
            yield backlog, capture
    finally:
        if capture.left_session is not None:
            _end_stream(request, capture.left_session)


def _end_stream(request: ArchiveRequest, session: int) -> None:
    """A stream that was left counts among the connections until it is ended; where nobody answers, the source does it later."""
    with (
        contextlib.suppress(errors.ServerUnreachable), request.turn,
        server.connect(request.endpoint, read_timeout_s=LOOK_TIMEOUT_S) as connection,
    ):
        follow.end_session(connection, session)


def _keep_freed_memory() -> None:
    """Makes the C library keep twice so much of what is freed: it goes by the largest block it ever took back from us.

    Else it gives the memory of each few blocks of events back to the system and asks for it anew, which was a third of the
    system's time and a twentieth of the whole.
    """
    block = bytes(KEPT_BYTES)  # never touched, so it takes no memory itself
    del block


def _is_at(at: Coordinates, position: Coordinates) -> bool:
    return (at.file, at.position) == (position.file, position.position)
