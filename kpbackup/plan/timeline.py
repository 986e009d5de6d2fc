"""Chains to recoverable windows; a PITR target to a restore plan, or to 'unreachable' with the nearest points.

Every time here is the source's clock (D11). Nothing rounds: a plan either reaches the target or is refused.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from kpbackup import errors
from kpbackup.model import canonical
from kpbackup.model import gtid as gtids
from kpbackup.model.catalog import Catalog, Damaged, History
from kpbackup.model.coordinates import Coordinates
from kpbackup.model.manifest import BackupSet, BinlogSegment, Stretch
from kpbackup.model.stretch import Unit, writers_of
from kpbackup.plan import chain as chains
from kpbackup.plan.reach import newest_stamp, reaches
from kpbackup.plan.reach import recovery_point as recovery_point  # one module to ask for times


@dataclass(frozen=True)
class Window:
    """An interval without a gap, all of whose moments can be restored. `start` is the first set's clock."""

    timeline: str
    start: datetime
    end: datetime
    sets: tuple[str, ...]
    gap: chains.Gap | None


@dataclass(frozen=True)
class Target:
    """The asked point, exactly one of: latest, before a time, up to or before a GTID, up to a position."""

    latest: bool = False
    time: datetime | None = None
    gtid: str | None = None
    before_gtid: str | None = None
    position: Coordinates | None = None

    def __str__(self) -> str:
        if self.time is not None:
            return canonical.time_text(self.time)
        if self.gtid or self.before_gtid:
            return f"GTID {self.gtid}" if self.gtid else f"before GTID {self.before_gtid}"
        return str(self.position) if self.position else "latest"


@dataclass(frozen=True)
class RestorePlan:
    """The exact list: one set, the segments after its coordinates that may be needed, and the target that stops them.

    `segments` may run past the target: where the cut falls is found by reading them (recovery/cut.py).
    `reaches` is the recovery point of the whole chain.
    """

    backup_set: BackupSet
    segments: tuple[BinlogSegment, ...]
    target: Target
    reaches: datetime


def windows(catalog: Catalog) -> tuple[Window, ...]:
    """All recoverable windows, oldest timeline first, merged where one chain runs on past the next set."""
    found: list[Window] = []
    for history in catalog.histories:
        for chain, point in reaches(history):
            window = Window(history.id, chain.backup_set.clock, point, (chain.backup_set.name,), chain.gap)
            if found and _continues(found[-1], window):
                before = found[-1]
                later = window if window.end >= before.end else before  # the gap shown is the one that ends the joined window
                found[-1] = Window(before.timeline, before.start, later.end, before.sets + window.sets, later.gap)
            else:
                found.append(window)
    return tuple(found)


def newest_recovery_point(catalog: Catalog) -> datetime | None:
    """The recovery point of the newest timeline that has a set; None without any set."""
    for history in reversed(catalog.histories):
        if history.sets:
            return max(point for _, point in reaches(history))
    return None


def plan_restore(catalog: Catalog, target: Target) -> RestorePlan:
    """The plan for `target`: the newest set that lies before it and whose chain reaches it.

    Raises:
        UnreachableTarget: no set, or the target lies in no window; the hint names the nearest points.
        IntegrityError: `latest` lies behind a damaged manifest, or damaged ones are all there is.
        UsageError: the target's GTID is none.
    """
    history, chain, target, point = choose(catalog, target)
    if target.latest:
        _refuse_hidden_end(catalog, history, chain, point)
    needed = dataclasses.replace(chain, units=needed_units(chain, target))
    return RestorePlan(chain.backup_set, needed.segments, target, point)


def choose(catalog: Catalog, target: Target) -> tuple[History, chains.Chain, Target, datetime]:
    """The chain that a restore to `target` uses, with its timeline, the target as the archive spells it, and the recovery point.

    Raises: as plan_restore.
    """
    candidates = [(h, c, point) for h in catalog.histories for c, point in reaches(h)]
    target = _canonical(target, catalog.repository.flavour)
    if not candidates:
        _refuse_damaged(catalog.damaged, target, "")
        raise errors.UnreachableTarget(
            f"cannot restore to {target}: there is no backup set in this repository", hint="run `kpbackup backup full` first"
        )
    for history, chain, point in sorted(reversed(candidates), key=lambda found: not _is_of_writer(found[1], target)):
        if _reaches(chain, target, point):
            return history, chain, target, point
    unread = "".join(f"; {one.key} cannot be read: {one.reason}" for one in catalog.damaged[:3])
    raise errors.UnreachableTarget(
        f"cannot restore to {target}: {_why(candidates, target)}{unread}", hint=_nearest(windows(catalog), target)
    )


def needed_units(chain: chains.Chain, target: Target) -> tuple[Unit, ...]:
    """What must be known segment by segment to find the cut: up to the unit it lies in, and the next one with a transaction,
    whose first one is the first excluded. Everything of the chain for `latest`; `target` as `choose` gives it."""
    if target.latest or not any(isinstance(unit, Stretch) for unit in chain.units):
        return chain.units
    places = [place for place, unit in enumerate(chain.units) if _may_end_in(unit, target, chain)]
    if not places:
        return chain.units
    last = places[0] if target.time is not None else places[-1]
    behind = next((place for place in range(last + 1, len(chain.units)) if chain.units[place].transactions), last)
    return chain.units[: behind + 1]


def _may_end_in(unit: Unit, target: Target, chain: chains.Chain) -> bool:
    if target.time is not None:
        return unit.last_commit_at is not None and unit.last_commit_at >= target.time
    if target.position is not None:
        at = target.position
        return any(span.file == at.file and span.start <= at.position <= span.end for span in unit.spans)
    return _may_hold(unit, target.gtid or target.before_gtid or "", chain.backup_set.source.flavour)


def _refuse_hidden_end(catalog: Catalog, history: History, chain: chains.Chain, point: datetime) -> None:
    """`latest` must be the end of everything archived, not the last point before something that cannot be read."""
    hint = f"`--to {canonical.time_text(point)}` is the last point that can be reached; run `kpbackup check`"
    newest = chain.units or history.units
    end = newest[-1].last_seq if newest else 0
    after = 0 if chain.gap is not None else end
    hidden = [one for one in history.damaged if _is_behind(one.key, history.id, after)]
    hidden += [one for one in catalog.damaged if one.key.endswith("/timeline") and one.key.split("/")[1] > history.id]
    _refuse_damaged(hidden, Target(latest=True), hint)
    reason = chain.gap.reason if chain.gap is not None else ""
    if chain.released:  # later segments are there, and this set cannot reach them
        reason = f"the binlog after set {chain.backup_set.name} is gone"
    if history.observation is not None and history.observation.head_seq > end:
        reason = reason or f"segments {end + 1} to {history.observation.head_seq} are missing"
    if reason:
        raise errors.UnreachableTarget(f"cannot restore to latest: the archive has a gap before its end ({reason})", hint=hint)


def _is_behind(key: str, timeline: str, seq: int) -> bool:
    """Whether this is the key of a segment behind number `seq`."""
    parts = key.split("/")
    return parts[1:3] == [timeline, "segments"] and int(parts[-1]) > seq


def _refuse_damaged(damaged: Sequence[Damaged], target: Target, hint: str) -> None:
    if damaged:
        told = "; ".join(f"{one.key}: {one.reason}" for one in damaged[:3])
        raise errors.IntegrityError(
            f"cannot restore to {target}: {told}",
            hint=hint or "run `kpbackup check`; another copy of the repository may be whole",
        )


def _reaches(chain: chains.Chain, target: Target, point: datetime) -> bool:
    if target.time is not None:
        reached = target.time <= point or target.time <= newest_stamp(chain)
        return (chain.backup_set.clock < target.time and reached) or target.time == chain.backup_set.clock
    if target.position is not None:
        return _has_position(chain, target.position)
    wanted = target.gtid or target.before_gtid
    return wanted is None or _has_gtid(chain, wanted)


def _has_position(chain: chains.Chain, at: Coordinates) -> bool:
    own = chain.backup_set.coordinates
    if at.file == own.file and at.position < own.position:
        return False
    ends = [(span.file, span.start, span.end) for unit in chain.units for span in unit.spans]
    return any(f == at.file and low <= at.position <= high for f, low, high in ends) or (at.file, at.position) == (
        own.file,
        own.position,
    )


def _has_gtid(chain: chains.Chain, wanted: str) -> bool:
    """Whether a segment after the set may hold the transaction; one that the set holds already is looked for in an older chain.

    MySQL: exact. MariaDB says only how far each domain came, so the segments have the last word when they are read.
    """
    flavour = chain.backup_set.source.flavour
    if gtids.contains(flavour, chain.backup_set.coordinates.gtid, wanted):
        return False
    return any(_may_hold(unit, wanted, flavour) for unit in chain.units)


def _may_hold(unit: Unit, wanted: str, flavour: str) -> bool:
    if flavour == "mysql":
        return _contains(flavour, unit.gtids, wanted)
    return _contains(flavour, unit.end.gtid, wanted) and not _contains(flavour, unit.start.gtid, wanted)


@functools.lru_cache(maxsize=1 << 14)
def _contains(flavour: str, whole: str, part: str) -> bool:
    """Every chain of a year is asked about the same units."""
    return gtids.contains(flavour, whole, part)


def _is_of_writer(chain: chains.Chain, target: Target) -> bool:
    """Whether the GTID's server wrote around the place where this chain has its number; True when no GTID is asked for.

    Two timelines of MariaDB number different transactions alike; this tells them apart in all but contrived cases.
    """
    wanted = target.gtid or target.before_gtid
    if wanted is None or chain.backup_set.source.flavour == "mysql":
        return True
    asked = gtids.MariadbGtid.parse(wanted)
    around = {writer for unit in chain.units if _may_hold(unit, wanted, "mariadb") for writer in writers_of(unit, "mariadb")}
    return f"{asked.domain}-{asked.server_id}" in around


def _canonical(target: Target, flavour: str) -> Target:
    """The target with its GTID as the archive spells it."""
    wanted = target.gtid or target.before_gtid
    if wanted is None:
        return target
    spelt = canonical_gtid(wanted, flavour)
    return replace(target, gtid=spelt) if target.gtid else replace(target, before_gtid=spelt)


def canonical_gtid(text: str, flavour: str) -> str:
    """The GTID of one transaction as the archive spells it.

    Raises:
        UsageError: it is none.
    """
    try:
        return _one_gtid(text, flavour)
    except ValueError as exc:
        form = "0-1-4711" if flavour == "mariadb" else "3e11fa47-71ca-11e1-9e33-c80aa9429562:4711"
        raise errors.UsageError(
            f"{text!r} is not the GTID of one transaction of a {flavour} source: {exc}", hint=f"write it like {form}"
        ) from exc


def _one_gtid(text: str, flavour: str) -> str:
    if flavour == "mariadb":
        return str(gtids.MariadbGtid.parse(text))
    found = gtids.MysqlGtidSet.parse(text)
    if found.count != 1:
        raise ValueError(f"it names {found.count} transactions")
    return str(found)


def _continues(before: Window, window: Window) -> bool:
    return before.timeline == window.timeline and before.end >= window.start


def _why(candidates: Sequence[tuple[History, chains.Chain, datetime]], target: Target) -> str:
    if target.time is None:
        wanted = target.gtid or target.before_gtid
        return "no archived transaction has it" if wanted else "no chain of segments contains it"
    if target.time <= min(c.backup_set.clock for _, c, _ in candidates):
        return "it lies before the first recoverable point"
    if target.time > max(point for _, _, point in candidates):
        return "it lies after the last recoverable point"
    before = [chain for _, chain, point in candidates if point < target.time]
    if before and before[-1].released:
        return f"retention kept set {before[-1].backup_set.name} alone, the binlog after it was released"
    gap = before[-1].gap if before else None
    return f"it lies in a gap ({gap.reason})" if gap else "it lies in a gap between two timelines"


def _nearest(found: Sequence[Window], target: Target) -> str:
    spans = [f"{canonical.time_text(w.start)} to {canonical.time_text(w.end)}" for w in found]
    if target.time is None:
        return "recoverable windows: " + ", ".join(spans[-3:])
    asked = target.time
    before = max((w.end for w in found if w.end < asked), default=None)
    after = min((w.start for w in found if w.start >= asked), default=None)
    nearest = [canonical.time_text(moment) for moment in (before, after) if moment is not None]
    return "nearest recoverable points: " + " and ".join(nearest)
