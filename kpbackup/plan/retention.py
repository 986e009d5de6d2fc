"""What to keep and what to release, each with its reason: by dependency closure, never by age alone (D6).

Kept is whatever restores any moment of the last N days, and at least M complete chains whatever their age; with each kept
set all segments after it on its timeline. A set or segment that was released is marked first and deleted after the grace
period. The newest entry of a log is never deleted: the next entry's key is built from it.

Limits: the horizon is this machine's clock, sets carry the source's; a skew shifts the horizon by as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kpbackup.model.catalog import Catalog, History
from kpbackup.model.manifest import ApplicationManifest, BackupSet
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


@dataclass(frozen=True)
class BundlePlan:
    """What one prune will do with application bundles."""

    decisions: tuple[Decision, ...]
    release: tuple[ApplicationManifest, ...]


def plan_bundles(
    bundles: Sequence[ApplicationManifest], catalog: Catalog, plan: PrunePlan, policy: Policy
) -> BundlePlan:
    """Bundles that no kept set's moments need: all before the one in force at the oldest kept set, a grace period ago."""
    released = {one.name for one in plan.release_sets}
    kept = [one.clock for history in catalog.histories for one in history.sets if one.name not in released]
    horizon = min(kept) - policy.grace_period if kept else None
    before = [one for one in bundles if horizon is not None and one.taken_at <= horizon]
    needless = before[:-1]
    decisions = []
    for bundle in bundles:
        keep = bundle not in needless
        reason = "points that are kept are recovered with it" if keep else "a newer one was in force at the oldest kept set"
        decisions.append(Decision(f"application bundle {bundle.name}", keep, reason))
    return BundlePlan(tuple(decisions), tuple(needless))


@dataclass(frozen=True)
class _Link:
    """A chain, and the newest moment it restores."""

    chain: chains.Chain
    reaches: datetime

    @property
    def backup_set(self) -> BackupSet:
        return self.chain.backup_set


def plan_prune(catalog: Catalog, policy: Policy, now: datetime) -> PrunePlan:
    """The decisions for every set and segment at the moment `now`."""
    links = {h.id: [_Link(c, timeline.recovery_point(h, c)) for c in chains.chains(h)] for h in catalog.histories}
    kept = _kept_sets(catalog, links, policy, now - timedelta(days=policy.days))
    decisions: list[Decision] = []
    released: list[BackupSet] = []
    releases: list[Release] = []
    for history in catalog.histories:
        for backup_set in history.sets:
            reason = kept.get(backup_set.name)
            decisions.append(Decision(f"set {backup_set.name}", reason is not None, reason or _why_released(policy)))
            if reason is None:
                released.append(backup_set)
        release = _segments(history, [link.chain for link in links[history.id] if link.backup_set.name in kept])
        decisions += _segment_decisions(history, release)
        if release:
            releases.append(release)
    return PrunePlan(tuple(decisions), tuple(released), tuple(releases))


def _kept_sets(catalog: Catalog, links: dict[str, list[_Link]], policy: Policy, horizon: datetime) -> dict[str, str]:
    """Name -> reason of each set to keep; the first reason that applies."""
    kept: dict[str, str] = {}
    complete: list[BackupSet] = []
    for history in catalog.histories:
        own = links[history.id]
        complete += [link.backup_set for link in own if link.chain.gap is None]
        for link in own:
            if link.backup_set.clock >= horizon:
                kept[link.backup_set.name] = f"newer than {policy.days} days"
        for link in _reaching(own, horizon):
            kept[link.backup_set.name] = f"points of the last {policy.days} days are restored from it"
    # 'complete' by unbroken chain; the newest are the last ones, as timelines and sets are in order
    for backup_set in complete[len(complete) - policy.complete_chains :] if policy.complete_chains < len(complete) else complete:
        kept.setdefault(backup_set.name, f"one of the {policy.complete_chains} newest complete chains")
    with_sets = [history for history in catalog.histories if history.sets]
    if with_sets:
        kept.setdefault(with_sets[-1].sets[-1].name, "the newest set")
    return kept


def _reaching(own: Sequence[_Link], horizon: datetime) -> list[_Link]:
    """Of the sets older than the horizon those that points after it need: the newest one, and any older one that reaches
    further (the newer one's chain may be broken earlier, or not have begun)."""
    found: list[_Link] = []
    for link in reversed(own):
        if link.backup_set.clock < horizon <= link.reaches and all(link.reaches > other.reaches for other in found):
            found.append(link)
    return found


def _segments(history: History, kept: Sequence[chains.Chain]) -> Release | None:
    """The segments before the first one a kept set needs; without any needed all but the newest, which the next one follows."""
    if not history.segments:
        return None
    needed = [chain.segments[0] for chain in kept if chain.segments]
    first = min(needed, key=lambda segment: segment.head.seq, default=history.segments[-1])
    count = sum(1 for s in history.segments if s.head.seq < first.head.seq)
    return Release(history.id, first.head.seq, first.link_before, count) if count else None


def _segment_decisions(history: History, release: Release | None) -> list[Decision]:
    if not history.segments:
        return []
    first, last = history.segments[0].head.seq, history.segments[-1].head.seq
    found = []
    if release:
        found.append(Decision(_stretch(history, first, release.first_seq - 1), False, "no kept set needs them"))
        first = release.first_seq
    found.append(Decision(_stretch(history, first, last), True, "kept sets are replayed with them, or the next segment follows"))
    return found


def _stretch(history: History, first: int, last: int) -> str:
    return f"segments {history.id}-{first}..{last}" if first < last else f"segment {history.id}-{first}"


def _why_released(policy: Policy) -> str:
    return f"older than {policy.days} days, and no kept point is restored from it"
