"""The catalog as a value: all manifests of a repository read together, at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from kpbackup.model import manifest
from kpbackup.model.stretch import Unit


@dataclass(frozen=True)
class Damaged:
    """A manifest that is there but cannot be trusted, and why."""

    key: str
    reason: str


@dataclass(frozen=True)
class CompactedRange:
    """A compacted object and the numbers of its segments, as its key says."""

    key: str
    level: int
    first_seq: int
    last_seq: int


@dataclass(frozen=True)
class History:
    """One timeline with everything on it, each log in order of its numbers.

    `observation` is the newest one. The archive starts at the newest anchor: `stretches` are its paged parts, summed up,
    `segments` those read one by one: the ones behind the last page, and of paged ones those that somebody asked for (then their
    stretch is not among `stretches`). `newest` gives, for each log, number and creation time of its newest entry: what the key
    of the next entry is built from. `compacted` are the compacted objects by their names.
    """

    timeline: manifest.Timeline
    sets: tuple[manifest.BackupSet, ...]
    segments: tuple[manifest.BinlogSegment, ...]
    observation: manifest.ObservationManifest | None
    anchor: manifest.Anchor | None
    tombstones: tuple[manifest.Tombstone, ...]
    damaged: tuple[Damaged, ...]
    newest: dict[str, tuple[int, datetime]]
    stretches: tuple[manifest.Stretch, ...] = ()
    compacted: tuple[CompactedRange, ...] = ()
    pins: tuple[manifest.Pin, ...] = ()

    @property
    def units(self) -> tuple[Unit, ...]:
        """The whole archive in order, as well as it is known."""
        if not self.stretches:
            return self.segments
        return tuple(sorted((*self.stretches, *self.segments), key=lambda unit: unit.first_seq))

    @property
    def segment_count(self) -> int:
        return sum(unit.last_seq - unit.first_seq + 1 for unit in self.units)

    @property
    def pinned(self) -> dict[int, manifest.Pin]:
        """Number of each set that is pinned now -> its pin."""
        latest = {pin.set_seq: pin for pin in self.pins}
        return {seq: pin for seq, pin in latest.items() if pin.pinned}

    @property
    def id(self) -> str:
        return self.timeline.head.timeline


@dataclass(frozen=True)
class Catalog:
    """All timelines, oldest first. `damaged` lists manifests that could not be verified, timelines' own included."""

    repository: manifest.RepositoryBinding
    histories: tuple[History, ...]
    damaged: tuple[Damaged, ...]

    @property
    def current(self) -> History | None:
        """The newest timeline: the only one that grows."""
        return self.histories[-1] if self.histories else None

    @property
    def newest_sealing(self) -> manifest.Sealing | None:
        """What the newest set or segment is sealed to, None while nothing is stored."""
        found: list[manifest.BackupSet | manifest.BinlogSegment] = []
        for history in self.histories:
            found += [*history.sets[-1:], *history.segments[-1:]]
        return max(found, key=lambda one: one.head.created_at).sealing if found else None
