"""The catalog as a value: all manifests of a repository read together, at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from kpbackup.model import manifest


@dataclass(frozen=True)
class Damaged:
    """A manifest that is there but cannot be trusted, and why."""

    key: str
    reason: str


@dataclass(frozen=True)
class History:
    """One timeline with everything on it, each log in order of its numbers.

    `observation` is the newest one. `segments` starts at the newest anchor. `last_key_month_of` gives, for each
    log, the creation time of its newest entry: what the key of the next entry is built from.
    """

    timeline: manifest.Timeline
    sets: tuple[manifest.BackupSet, ...]
    segments: tuple[manifest.BinlogSegment, ...]
    observation: manifest.ObservationManifest | None
    anchor: manifest.Anchor | None
    tombstones: tuple[manifest.Tombstone, ...]
    damaged: tuple[Damaged, ...]
    newest: dict[str, tuple[int, datetime]]
    pins: tuple[manifest.Pin, ...] = ()

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
