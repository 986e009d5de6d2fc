"""What to keep and what to release, each with its reason: by dependency closure, never by age alone (D6).

Kept is whatever restores any moment of the last N days, and at least M complete chains whatever their age; with each kept
set all segments after it on its timeline. A set or segment that was released is marked first and deleted after the grace
period. The newest entry of a log is never deleted: the next entry's key is built from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from kpbackup.model.catalog import Catalog, History
from kpbackup.model.manifest import BackupSet, BinlogSegment
from kpbackup.plan import chain as chains
from kpbackup.plan import timeline


@dataclass(frozen=True)
class Policy:
    """`days` back to which every moment stays restorable; at least `complete_chains` chains; wait before deleting data."""

    days: int = 30
    complete_chains: int = 2
    grace_period: timedelta = timedelta(days=1)


@dataclass(frozen=True)
class Decision:
    """One set or stretch of segments, kept or released, and why."""

    name: str
    keep: bool
    reason: str


@dataclass(frozen=True)
class Release:
    """Segments of a timeline below `first_seq` are no longer needed; `link_before` anchors the first kept one."""

    timeline: str
    first_seq: int
    link_before: str
    count: int


@dataclass(frozen=True)
class PrunePlan:
    """What one prune will do. Made from one reading of the repository, it works once."""

    decisions: tuple[Decision, ...]
    release_sets: tuple[BackupSet, ...]
    release_segments: tuple[Release, ...]


def plan_prune(catalog: Catalog, policy: Policy, now: datetime) -> PrunePlan:
    """The decisions for every set and segment at the moment `now`."""
    horizon = now - timedelta(days=policy.days)
    kept = _kept_sets(catalog, policy, horizon)
    decisions: list[Decision] = []
    released: list[BackupSet] = []
    releases: list[Release] = []
    for history in catalog.histories:
        for backup_set in history.sets:
            reason = kept.get(backup_set.name)
            decisions.append(Decision(f"set {backup_set.name}", reason is not None, reason or _why_released(policy)))
            if reason is None:
                released.append(backup_set)
        release = _segments(history, [s for s in history.sets if s.name in kept])
        decisions += _segment_decisions(history, release)
        if release:
            releases.append(release)
    return PrunePlan(tuple(decisions), tuple(released), tuple(releases))


def _kept_sets(catalog: Catalog, policy: Policy, horizon: datetime) -> dict[str, str]:
    """Name -> reason of each set to keep; the first reason that applies."""
    kept: dict[str, str] = {}
    complete: list[BackupSet] = []
    for history in catalog.histories:
        own = chains.chains(history)
        complete += [c.backup_set for c in own if c.gap is None]
        for index, chain in enumerate(own):
            backup_set = chain.backup_set
            following = own[index + 1].backup_set.clock if index + 1 < len(own) else None
            if backup_set.clock >= horizon:
                kept[backup_set.name] = f"newer than {policy.days} days"
            elif (following is None or following > horizon) and timeline.recovery_point(history, chain) >= horizon:
                kept[backup_set.name] = f"points of the last {policy.days} days are restored from it"
        if history.sets and history is catalog.current:
            kept.setdefault(history.sets[-1].name, "the newest set")
    # 'complete' by unbroken chain; the newest are the last ones, as timelines and sets are in order
    for backup_set in complete[-policy.complete_chains:]:
        kept.setdefault(backup_set.name, f"one of the {policy.complete_chains} newest complete chains")
    for history in catalog.histories:
        if history.sets and history.sets[-1].name not in kept and not _has_later_sets(catalog, history):
            kept[history.sets[-1].name] = "the newest set"
    return kept


def _has_later_sets(catalog: Catalog, history: History) -> bool:
    return any(other.sets for other in catalog.histories[catalog.histories.index(history) + 1:])


def _segments(history: History, kept: Iterable[BackupSet]) -> Release | None:
    """The segments before the first one a kept set needs; on a timeline without kept sets all but the newest."""
    if not history.segments:
        return None
    names = {s.name for s in kept}
    needed = [c.segments[0] for c in chains.chains(history) if c.backup_set.name in names and c.segments]
    waiting = [c for c in chains.chains(history) if c.backup_set.name in names and not c.segments]
    if waiting and not needed:
        return _release(history, history.segments[-1])  # the archive has not come as far as the kept sets yet
    first = min(needed, key=lambda s: s.head.seq, default=history.segments[-1])
    return _release(history, first)


def _release(history: History, first: BinlogSegment) -> Release | None:
    count = sum(1 for s in history.segments if s.head.seq < first.head.seq)
    return Release(history.id, first.head.seq, first.link_before, count) if count else None


def _segment_decisions(history: History, release: Release | None) -> list[Decision]:
    if not history.segments:
        return []
    first, last = history.segments[0].head.seq, history.segments[-1].head.seq
    found = []
    if release:
        found.append(Decision(f"segments {history.id}-{first}..{release.first_seq - 1}", False, "no kept set needs them"))
        first = release.first_seq
    found.append(Decision(f"segments {history.id}-{first}..{last}", True, "kept sets are replayed with them"))
    return found


def _why_released(policy: Policy) -> str:
    return f"older than {policy.days} days, and no kept point is restored from it"
