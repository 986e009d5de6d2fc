"""What to keep and what to release, each with its reason: by dependency closure, never by age alone (D6).

Two ways to keep a set. *With its chain*: whatever restores any moment of the last N days, and at least M complete chains whatever
their age; all segments after such a set stay. *Alone*: the sets asked for by week, month and year, and pinned ones; they restore
their own moment, and the segments after them go. A set or segment that was released is marked first and deleted after the grace
period. The newest entry of a log is never deleted: the next entry's key is built from it.

Sets that claim to be of the future are kept and take nobody's place: else a stolen signing key could push out all others. Nor
do those it forges of times past: of a week, month or year the set that was there first is kept, by its number and not by the time
it claims, of each timeline one; and a set that opens a period before one that an earlier set opened is kept beside those
asked for, not instead of one. A log's numbers are create-only, so whoever comes later cannot come first.

Limits: the horizon is this machine's clock, sets carry the source's; a skew shifts the horizon by as much. Segments are kept from
one place on, so segments between two kept chains stay too. A set appended to an older timeline counts before those of newer ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from kpbackup.model.catalog import Catalog, History
from kpbackup.model.coordinates import order
from kpbackup.model.manifest import ApplicationManifest, BackupSet
from kpbackup.model.stretch import Unit
from kpbackup.plan import chain as chains
from kpbackup.plan.reach import reaches

AHEAD = timedelta(days=1)  # a source's clock may be wrong by that much


@dataclass(frozen=True)
class Policy:
    """`days` back to which every moment stays restorable; at least `complete_chains` chains; wait before deleting data.

    `weekly`, `monthly`, `yearly`: of so many of the newest weeks, months and years that have a set, the first set of each.
    """

    days: int = 30
    complete_chains: int = 2
    grace_period: timedelta = timedelta(days=1)
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    zone: tzinfo = UTC


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
    """What one prune will do. Made from one reading of the repository, it works once.

    `chained` names the kept sets whose segments are kept too.
    """

    decisions: tuple[Decision, ...]
    release_sets: tuple[BackupSet, ...]
    release_segments: tuple[Release, ...]
    chained: frozenset[str] = frozenset()


_Period = Callable[[datetime], tuple[int, ...]]

NOTHING = PrunePlan((), (), ())


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
    links = {h.id: [_Link(chain, point) for chain, point in reaches(h)] for h in catalog.histories}
    chained = _kept_with_chains(catalog, links, policy, now)
    kept = {**_kept_alone(catalog, policy, now), **chained}
    decisions: list[Decision] = []
    released: list[BackupSet] = []
    releases: list[Release] = []
    for history in catalog.histories:
        for backup_set in history.sets:
            reason = kept.get(backup_set.name)
            decisions.append(Decision(f"set {backup_set.name}", reason is not None, reason or _why_released(policy)))
            if reason is None:
                released.append(backup_set)
        release = _segments(history, [link.chain for link in links[history.id] if link.backup_set.name in chained])
        decisions += _segment_decisions(history, release)
        if release:
            releases.append(release)
    return PrunePlan(tuple(decisions), tuple(released), tuple(releases), frozenset(chained))


def _kept_with_chains(
    catalog: Catalog, links: dict[str, list[_Link]], policy: Policy, now: datetime
) -> dict[str, str]:
    """Name -> reason of each set to keep with its segments; the first reason that applies."""
    horizon = now - timedelta(days=policy.days)
    kept: dict[str, str] = {}
    complete: list[BackupSet] = []
    for history in catalog.histories:
        own = links[history.id]
        whole = [link.backup_set for link in own if link.chain.gap is None and not link.chain.released]
        complete += [one for one in whole if one.clock <= now + AHEAD]
        for link in own:
            if link.backup_set.clock >= horizon:
                kept[link.backup_set.name] = f"newer than {policy.days} days"
        for link in _reaching(own, horizon):
            kept[link.backup_set.name] = f"points of the last {policy.days} days are restored from it"
    # 'complete' by unbroken chain; the newest are the last ones, as timelines and sets are in order
    for backup_set in complete[len(complete) - policy.complete_chains :] if policy.complete_chains < len(complete) else complete:
        kept.setdefault(backup_set.name, f"one of the {policy.complete_chains} newest complete chains")
    in_order = [one for history in catalog.histories for one in history.sets]
    for newest in (in_order[-1:], [one for one in in_order if one.clock <= now + AHEAD][-1:]):
        kept.update({one.name: "the newest set" for one in newest if one.name not in kept})
    return kept


def _kept_alone(catalog: Catalog, policy: Policy, now: datetime) -> dict[str, str]:
    """Name -> reason of each set to keep for its own moment."""
    sets = [s for history in catalog.histories for s in history.sets if s.clock <= now + AHEAD]
    kept: dict[str, str] = {}
    periods: tuple[tuple[str, int, _Period], ...] = (
        ("year", policy.yearly, lambda at: (at.year,)),
        ("month", policy.monthly, lambda at: (at.year, at.month)),
        ("week", policy.weekly, lambda at: at.isocalendar()[:2]),
    )
    for word, count, period in periods:
        for one in _first_of_each([(period(s.clock.astimezone(policy.zone)), s) for s in sets], count) if count else ():
            kept.setdefault(one.name, f"the first set of its {word}, one of {count} {word}s kept")
    kept.update(_pinned(catalog))
    return kept


def _first_of_each(in_order: Sequence[tuple[tuple[int, ...], BackupSet]], count: int) -> list[BackupSet]:
    """Of each timeline the first set of each of the `count` newest periods, and of periods between that were out of order."""
    first: dict[tuple[str, tuple[int, ...]], BackupSet] = {}
    opened: list[tuple[int, ...]] = []
    for period, one in in_order:
        first.setdefault((one.head.timeline, period), one)
        if not opened or period > opened[-1]:
            opened.append(period)
    return [one for (_, period), one in first.items() if count >= len(opened) or period >= opened[-count]]


def _pinned(catalog: Catalog) -> Iterator[tuple[str, str]]:
    for history in catalog.histories:
        for backup_set in history.sets:
            if (pin := history.pinned.get(backup_set.head.seq)) is not None:
                yield backup_set.name, f"pinned on {pin.head.created_at:%Y-%m-%d}" + (f": {pin.reason}" if pin.reason else "")


def _reaching(own: Sequence[_Link], horizon: datetime) -> list[_Link]:
    """Of the sets older than the horizon those that points after it need: the newest one, and any older one that reaches
    further (the newer one's chain may be broken earlier, or not have begun)."""
    found: list[_Link] = []
    for link in reversed(own):
        if link.backup_set.clock < horizon <= link.reaches and all(link.reaches > other.reaches for other in found):
            found.append(link)
    return found


def _segments(history: History, kept: Sequence[chains.Chain]) -> Release | None:
    """The segments before the first one a kept chain needs; without any needed all but the newest, which the next one follows."""
    units = history.units
    if not units:
        return None
    needed = [_first_needed(units, chain) for chain in kept if chain.units]
    first = min(needed, key=lambda unit: unit.first_seq, default=units[-1])
    count = sum(unit.last_seq - unit.first_seq + 1 for unit in units if unit.first_seq < first.first_seq)
    return Release(history.id, first.first_seq, first.link_before, count) if count else None


def _first_needed(units: Sequence[Unit], chain: chains.Chain) -> Unit:
    """The first unit of a chain; the one before it where it begins behind the set: another server took over right there, and what
    ends at the set tells that nothing lies between."""
    first = chain.units[0]
    if order(first.start) <= order(chain.backup_set.coordinates):
        return first
    place = next(number for number, unit in enumerate(units) if unit.first_seq == first.first_seq)
    return units[max(0, place - 1)]


def _segment_decisions(history: History, release: Release | None) -> list[Decision]:
    units = history.units
    if not units:
        return []
    first, last = units[0].first_seq, units[-1].last_seq
    found = []
    if release:
        found.append(Decision(_stretch(history, first, release.first_seq - 1), False, "no kept chain needs them"))
        first = release.first_seq
    found.append(Decision(_stretch(history, first, last), True, "kept sets are replayed with them, or the next segment follows"))
    return found


def _stretch(history: History, first: int, last: int) -> str:
    return f"segments {history.id}-{first}..{last}" if first < last else f"segment {history.id}-{first}"


def _why_released(policy: Policy) -> str:
    return f"older than {policy.days} days, and no kept point is restored from it"
