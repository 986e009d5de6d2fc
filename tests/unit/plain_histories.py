"""Small histories of a source as catalogs, built the way backups build them: for tests of decisions that need no server."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from kpbackup.model import manifest
from kpbackup.model.catalog import Catalog, Damaged, History
from kpbackup.model.coordinates import Coordinates
from kpbackup.plan import chain

REPOSITORY = "11111111-2222-3333-4444-555555555555"
START = datetime(2024, 5, 1, tzinfo=UTC)
_SEALING = manifest.Sealing("00", "age1none")


def identity(file: str) -> manifest.FileIdentity:
    return manifest.FileIdentity(1, START, hashlib.sha256(file.encode()).hexdigest())


def head(kind: str, timeline: str, seq: int, at: datetime) -> manifest.Head:
    return manifest.Head(kind, REPOSITORY, timeline, seq, f"{kind}/{timeline}/{seq}", at, "test")


@dataclass
class Source:
    """Writes one binlog file of 100 bytes an hour, and is backed up when told. `at` is hours since START, on one timeline."""

    timeline: str = "0001"
    sets: list[manifest.BackupSet] = field(default_factory=list)
    segments: list[manifest.BinlogSegment] = field(default_factory=list)
    observation: manifest.ObservationManifest | None = None
    archived: int | None = None

    def full(self, at: int) -> None:
        """A set of the state at hour `at`."""
        if self.archived is None:
            self.archived = at
        moment, seq = when(at), len(self.sets) + 1
        stored = manifest.StoredObject(f"data/{self.timeline}/{seq}/inventory", 10, "0" * 64)
        self.sets.append(manifest.BackupSet(
            head=head("set", self.timeline, seq, moment + timedelta(minutes=10)), started_at=moment, clock=moment,
            coordinates=place(at), file=identity(place(at).file), source=manifest.Source("mariadb", "10.11", 1),
            snapshot=manifest.Snapshot("test", 0), sealing=_SEALING, inventory=stored, definitions=(), objects=(),
            totals=manifest.Totals(1, 1, 1, 1000, 100)))  # fmt: skip

    def archive(self, until: int) -> None:
        """One segment from the head of the archive to hour `until`, cut where files end; the last one has an observation."""
        assert self.archived is not None and until > self.archived
        while self.archived < until:
            end = min(until, (self.archived // HOURS_PER_FILE + 1) * HOURS_PER_FILE)
            self._segment(self.archived, end, last=end == until)
            self.archived = end

    def observe(self, at: int) -> None:
        """Nothing new was written since the archive's head."""
        last = self.segments[-1]
        seen = manifest.Observation(when(at), last.end)
        self.observation = manifest.ObservationManifest(
            head("observation", self.timeline, 1, when(at)), seen, last.head.seq, last.link
        )

    def _segment(self, first: int, end: int, *, last: bool) -> None:
        seq = len(self.segments) + 1
        before = self.segments[-1].link if self.segments else chain.first_link(REPOSITORY, self.timeline)
        ends_file = end % HOURS_PER_FILE == 0
        start_at, end_at = place(first), place(end)
        if ends_file:
            end_at = Coordinates(place(first).file, HOURS_PER_FILE * 100, end_at.gtid)
        payload = manifest.Payload(50, hashlib.sha256(f"{seq}".encode()).hexdigest())
        link = chain.next_link(before, seq=seq, payload_sha256=payload.sha256, start=start_at, end=end_at)
        seen = manifest.Observation(when(end), place(end)) if last and not ends_file else None
        self.segments.append(
            manifest.BinlogSegment(
                head=head("segment", self.timeline, seq, when(end) + timedelta(minutes=1)),
                start=start_at,
                end=end_at,
                file=identity(start_at.file),
                gtids=f"0-1-{end}",
                transactions=end - first,
                first_commit_at=when(first) + timedelta(minutes=1),
                last_commit_at=when(end) - timedelta(minutes=1),
                raw_bytes=(end - first) * 100,
                prefix_bytes=4 if first % HOURS_PER_FILE else 0,
                ends_file=ends_file,
                link_before=before,
                link=link,
                sealing=_SEALING,
                payload=payload,
                observation=seen,
            )
        )

    def history(self, *, without_segments: Iterable[int] = (), damaged: Sequence[Damaged] = ()) -> History:
        gone = set(without_segments)
        own = manifest.Timeline(head("timeline", self.timeline, 0, START), "first", "mariadb", "10.11", "")
        kept = tuple(s for s in self.segments if s.head.seq not in gone)
        return History(own, tuple(self.sets), kept, self.observation, None, (), tuple(damaged), {})


HOURS_PER_FILE = 24


def when(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def place(at: int) -> Coordinates:
    return Coordinates(f"binlog.{at // HOURS_PER_FILE + 1:06d}", at % HOURS_PER_FILE * 100, f"0-1-{at}")


def catalog(*histories: History) -> Catalog:
    binding = manifest.RepositoryBinding(head("repository", "", 0, START), "shop-db", "mariadb")
    return Catalog(binding, histories, tuple(d for history in histories for d in history.damaged))


def pruned(found: Catalog, *, released_sets: set[str], first_kept: dict[str, tuple[int, str]]) -> Catalog:
    """The catalog after a prune: sets gone, segments below the anchor gone."""
    histories = []
    for history in found.histories:
        first, link = first_kept.get(history.id, (0, ""))
        anchor = manifest.Anchor(head("anchor", history.id, 1, START), first, link) if first else history.anchor
        histories.append(replace(
            history, sets=tuple(s for s in history.sets if s.name not in released_sets), anchor=anchor,
            segments=tuple(s for s in history.segments if s.head.seq >= first)))  # fmt: skip
    return replace(found, histories=tuple(histories))
