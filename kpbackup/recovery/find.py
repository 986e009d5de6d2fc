"""The archive searched: which transactions changed a table, dropped it, deleted many rows; when, and how to stop before one.

Segments whose manifests rule a hit out are not opened. The others are opened in worker processes, for looking through
them is what takes time; only this process touches the store. Memory: what is under way, and the hits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from kpbackup.model import codec
from kpbackup.model import gtid as gtids
from kpbackup.model.catalog import Catalog
from kpbackup.model.manifest import BinlogSegment
from kpbackup.model.stretch import Unit
from kpbackup.mysql import binlog_file
from kpbackup.pipeline import stream
from kpbackup.pipeline.pool import Task, WorkerPool
from kpbackup.pipeline.process import WorkerProcess
from kpbackup.recovery.binlog import SegmentReader
from kpbackup.recovery.search import Criteria, Hit, search

FIND_WORKER = "kpbackup.recovery.find_worker"
WORTH_WORKERS_BYTES = 32 << 20  # below that, starting workers takes longer than they save
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Found:
    """`hits` with the timeline each is on, in the order of the archive; `more` when there are more than were asked for.
    `opened` and `segments` are how many segments were looked through, of how many."""

    hits: tuple[tuple[str, Hit], ...]
    more: bool
    opened: int
    segments: int


def find(
    reader: SegmentReader, catalog: Catalog, criteria: Criteria, *, limit: int, workers: int = 2,
    worth_workers_bytes: int = WORTH_WORKERS_BYTES, progress: Progress | None = None,
) -> Found:
    """The first `limit` hits among the segments that `catalog` knows one by one; `workers` are started when there are
    `worth_workers_bytes` to look through.

    Raises:
        IntegrityError, KeyProblem, StorageError: a segment cannot be opened.
    """
    segments = (segment for history in catalog.histories for segment in history.segments)
    chosen = [segment for segment in segments if may_hold(segment, criteria, catalog.repository.flavour)]
    found = _Search(reader, criteria, chosen, limit, progress)
    if workers > 1 and len(chosen) > 1 and sum(s.raw_bytes for s in chosen) >= worth_workers_bytes:
        found.run_in_workers(workers)
    else:
        found.run_here()
    hits = [(segment.head.timeline, hit) for number, segment in enumerate(chosen) for hit in found.hits.get(number, ())]
    archived = sum(history.segment_count for history in catalog.histories)
    return Found(tuple(hits[:limit]), len(hits) > limit, found.opened, archived)


def may_hold(segment: Unit, criteria: Criteria, flavour: str) -> bool:
    """Whether a segment, or the stretch of a page, may hold a hit, by what is plainly written of it."""
    if not segment.transactions or segment.first_commit_at is None or segment.last_commit_at is None:
        return False
    if criteria.since is not None and segment.last_commit_at < criteria.since:
        return False
    if criteria.until is not None and segment.first_commit_at >= criteria.until:
        return False
    if criteria.gtid is None:
        return True
    if flavour == "mysql":
        return gtids.contains(flavour, segment.gtids, criteria.gtid)
    return gtids.contains(flavour, segment.end.gtid, criteria.gtid) and not gtids.contains(
        flavour, segment.start.gtid, criteria.gtid
    )


class _Search:
    def __init__(
        self, reader: SegmentReader, criteria: Criteria, chosen: Sequence[BinlogSegment], limit: int, progress: Progress | None
    ) -> None:
        self.hits: dict[int, tuple[Hit, ...]] = {}
        self._reader, self._criteria, self._chosen = reader, criteria, chosen
        self._most = limit + 1  # one more tells that there are more
        self._whole, self._whole_hits = 0, 0  # segments from the first on that are all looked through, and their hits
        self._progress = progress
        self._lock = threading.Lock()

    @property
    def opened(self) -> int:
        return len(self.hits)

    def run_here(self) -> None:
        for number, segment in enumerate(self._chosen):
            if self._has_enough():
                return
            plain = self._reader.plaintext(segment)
            events = binlog_file.read_file(
                plain, file=segment.start.file, start_position=segment.start.position, prefix_bytes=segment.prefix_bytes
            )
            self._keep(number, tuple(islice(search(events, self._criteria), self._most)))

    def run_in_workers(self, workers: int) -> None:
        start = {"criteria": codec.encode(self._criteria), "limit": self._most}
        with WorkerPool(FIND_WORKER, start, workers=workers) as pool:
            pool.run([partial(self._look_through, number=number) for number in range(len(self._chosen))])

    def _look_through(self, worker: WorkerProcess, *, number: int) -> Sequence[Task]:
        segment = self._chosen[number]
        if self._has_enough():
            return ()
        with self._lock:  # data keys are unwrapped once each
            identity = self._reader.identity(segment)
        job = {
            "file": segment.start.file, "start": segment.start.position, "prefix_bytes": segment.prefix_bytes,
            "identity": identity.reveal(),
        }
        worker.send({"segment": job})
        sealed = stream.Tally(self._reader.sealed(segment))
        for piece in sealed:
            worker.send_bytes(piece)
        worker.send({"end": True})
        answer = worker.receive()
        self._reader.check_payload(segment, sealed)
        assert isinstance(answer, dict)
        self._keep(number, tuple(codec.decode(Hit, one, what="a hit") for one in answer["hits"]))
        return ()

    def _keep(self, number: int, hits: tuple[Hit, ...]) -> None:
        with self._lock:
            self.hits[number] = hits
            while self._whole in self.hits:
                self._whole_hits += len(self.hits[self._whole])
                self._whole += 1
            done = len(self.hits)
        if self._progress is not None:
            self._progress(done, len(self._chosen))

    def _has_enough(self) -> bool:
        with self._lock:
            return self._whole_hits >= self._most
