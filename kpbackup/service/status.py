"""How well the promises are kept, decided from what the repository says: one frozen value for `status`, metrics and pages.

Pure: catalog, recoveries, promises and the time are passed in. Three words are kept apart: a set is *stored* when its manifest
was read back, *proven* when a finished recovery restored it and read it back; *checked* is what the newest report of
`kpbackup check` says, of the whole repository (`trust.last_check`).

All moments of the recovery point are the source's clock (D11). `clock_skew` (source minus ours) makes the achieved RPO exact;
without it the two clocks are taken to agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import IntEnum

from kpbackup import quantities
from kpbackup.model.catalog import Catalog, History
from kpbackup.model.manifest import BackupSet
from kpbackup.plan import chain, schedule, timeline
from kpbackup.plan import forecast as forecasts
from kpbackup.service import trust as trusts
from kpbackup.service.runs import Run

FUTURE = timedelta(minutes=1)  # a recovery point further ahead of our clock than this means that the clocks disagree


class Level(IntEnum):
    """The exit codes of `kpbackup status`."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


SEVERITY = {Level.OK: 0, Level.UNKNOWN: 1, Level.WARNING: 2, Level.CRITICAL: 3}


@dataclass(frozen=True)
class Objectives:
    """What was promised."""

    rpo: timedelta
    rto: timedelta
    drill: timedelta  # since one last passed


@dataclass(frozen=True)
class Recovery:
    """A finished recovery. `recovered`: all five steps were done; else it ended after the database, which was still read back.
    `essential_rto_s`: of a restore in two phases, when the essential tables were ready; `measured_rto_s` is when all was back."""

    run: str
    backup_set: str
    finished_at: datetime
    recovered: bool
    measured_rto_s: float
    is_drill: bool = False
    essential_rto_s: float | None = None

    @property
    def kind(self) -> str:
        """`restore`: to the end; `database`: the database alone; `drill`: on a scratch server."""
        return "drill" if self.is_drill else "restore" if self.recovered else "database"


@dataclass(frozen=True)
class Drill:
    """A drill that ended. What was measured is None for one that failed."""

    run: str
    ended_at: datetime
    passed: bool
    measured_rto_s: float | None = None
    achieved_rpo_s: float | None = None


@dataclass(frozen=True)
class Reason:
    """One judgement, and why."""

    level: Level
    text: str


@dataclass(frozen=True)
class SetFacts:
    """One stored set. `proven_by` is the newest recovery that restored it, None when none did yet."""

    backup_set: BackupSet
    stored_bytes: int
    row_bytes: int
    duration: timedelta
    proven_by: str | None


@dataclass(frozen=True)
class TimelineGap:
    timeline: str
    gap: chain.Gap


@dataclass(frozen=True)
class Continuity:
    """What the chains of a catalog say at any time. Every link is computed for it, so it is kept with what was read and not
    found anew for each scrape."""

    recovery_point: datetime | None
    windows: tuple[timeline.Window, ...]
    gaps: tuple[TimelineGap, ...]


def continuity(catalog: Catalog) -> Continuity:
    """Recovery point, windows and gaps of a catalog."""
    return Continuity(timeline.newest_recovery_point(catalog), timeline.windows(catalog), tuple(_gaps(catalog)))


@dataclass(frozen=True)
class Status:
    """The state at `at`. Times that never happened are None; `next_runs` has the scheduled kinds alone. `timelines` counts them
    by the reason for which they began."""

    at: datetime
    source: str
    reasons: tuple[Reason, ...]
    objectives: Objectives
    recovery_point: datetime | None
    clock_skew: timedelta | None
    last_success: dict[str, datetime | None]
    next_runs: dict[str, datetime]
    windows: tuple[timeline.Window, ...]
    gaps: tuple[TimelineGap, ...]
    damaged: int
    sets: tuple[SetFacts, ...]
    segments: int
    archive_bytes: int
    timelines: dict[str, int] = field(default_factory=dict)
    measured_rto: dict[str, Recovery] = field(default_factory=dict)
    last_drill: Drill | None = None
    last_passed_drill: Drill | None = None
    trust: trusts.Trust = field(default_factory=trusts.Trust)
    forecast: forecasts.Forecast | None = None
    runs: tuple[Run, ...] = ()
    continuous: bool = False  # whether the binlog is archived all the time: then `incremental` has no next run

    @property
    def level(self) -> Level:
        return max((reason.level for reason in self.reasons), key=SEVERITY.__getitem__, default=Level.OK)

    @property
    def achieved_rpo(self) -> timedelta | None:
        return self.achieved_rpo_at(self.at)

    def achieved_rpo_at(self, now: datetime) -> timedelta | None:
        """What would be lost if the source were gone at `now`: now, by the source's clock, minus the recovery point."""
        if self.recovery_point is None:
            return None
        return max(now + (self.clock_skew or timedelta()) - self.recovery_point, timedelta())

    @property
    def chain_intact(self) -> bool:
        """Something is stored, without a gap on any timeline and without a damaged manifest."""
        return bool(self.sets) and not self.gaps and not self.damaged

    @property
    def newest_set(self) -> SetFacts | None:
        return self.sets[-1] if self.sets else None

    @property
    def total_bytes(self) -> int:
        return self.archive_bytes + sum(one.stored_bytes for one in self.sets)


def assess(
    catalog: Catalog,
    recoveries: Sequence[Recovery],
    *,
    objectives: Objectives,
    timings: dict[str, schedule.Timing],
    now: datetime,
    clock_skew: timedelta | None = None,
    drills: Sequence[Drill] = (),
    trust: trusts.Trust = trusts.Trust(),  # noqa: B008 - frozen
    forecast: forecasts.Forecast | None = None,
    runs: tuple[Run, ...] = (),
    known: Continuity | None = None,
) -> Status:
    """The status at `now`. `timings` has the schedule of `full` and `incremental`; `recoveries` and `drills` are oldest first;
    `known` is the catalog's continuity, where it was found before."""
    proven = {recovery.backup_set: recovery.run for recovery in recoveries}
    sets = tuple(_set_facts(one, proven) for history in catalog.histories for one in history.sets)
    known = known or continuity(catalog)
    status = Status(
        at=now,
        source=catalog.repository.source,
        reasons=(),
        objectives=objectives,
        recovery_point=known.recovery_point,
        clock_skew=clock_skew,
        last_success=last_success(catalog, recoveries) | _last_check(trust),
        next_runs={kind: moment for kind, timing in timings.items() if (moment := timing.next_run(now)) is not None},
        windows=known.windows,
        gaps=known.gaps,
        damaged=len(catalog.damaged),
        sets=sets,
        segments=sum(history.segment_count for history in catalog.histories),
        archive_bytes=sum(unit.payload_bytes for history in catalog.histories for unit in history.units),
        timelines=dict(Counter(history.timeline.reason for history in catalog.histories)),
        measured_rto={recovery.kind: recovery for recovery in recoveries},
        last_drill=drills[-1] if drills else None,
        last_passed_drill=next((one for one in reversed(drills) if one.passed), None),
        trust=trust,
        forecast=forecast,
        runs=runs,
        continuous=any(timing.every is not None for kind, timing in timings.items() if kind == "incremental"),
    )
    judged = [Reason(Level[level.upper()], text) for level, text in trusts.judge(trust, now, sets=len(sets))]
    return replace(status, reasons=(*_reasons(status, timings), *judged))


def last_success(catalog: Catalog, recoveries: Sequence[Recovery] = ()) -> dict[str, datetime | None]:
    """When each kind of job last ended well, by what is stored. A pass that found nothing new counts: it left an observation."""
    current = catalog.current
    fulls = [one.head.created_at for history in catalog.histories for one in history.sets]
    passes = _passes(current) if current is not None else []
    return {
        "full": max(fulls, default=None),
        "incremental": max(passes, default=None),
        "restore": max((one.finished_at for one in recoveries if not one.is_drill), default=None),
    }


def _last_check(trust: trusts.Trust) -> dict[str, datetime | None]:
    return {"check": trust.last_passed_check.ended_at if trust.last_passed_check is not None else None}


def _passes(history: History) -> list[datetime]:
    found = [history.units[-1].created_at] if history.units else []
    return found + ([history.observation.head.created_at] if history.observation is not None else [])


def _set_facts(backup_set: BackupSet, proven: dict[str, str]) -> SetFacts:
    return SetFacts(
        backup_set,
        backup_set.totals.stored_bytes,
        backup_set.totals.row_bytes,
        backup_set.head.created_at - backup_set.started_at,
        proven.get(backup_set.name),
    )


def _gaps(catalog: Catalog) -> Iterator[TimelineGap]:
    """Breaks between stored segments, and sets that no segment continues although newer ones are stored."""
    for history in catalog.histories:
        yield from (TimelineGap(history.id, gap) for gap in chain.runs(history)[1])
        beside = [found.gap for found in chain.chains(history) if found.gap is not None and found.gap.before is None]
        yield from (TimelineGap(history.id, gap) for gap in beside)


def _reasons(status: Status, timings: dict[str, schedule.Timing]) -> Iterator[Reason]:
    if status.damaged:
        yield Reason(Level.CRITICAL, f"{status.damaged} manifests are damaged; `kpbackup check` names them")
    for found in status.gaps:
        where = f"timeline {found.timeline} is broken after {found.gap.after}"
        yield Reason(Level.CRITICAL, f"the chain of {where}: {found.gap.reason}")
    if not status.sets:
        yield Reason(Level.CRITICAL, "there is no backup set: nothing can be restored")
        return
    yield _rpo(status)
    yield from _clock(status)
    yield from _full_age(status, timings.get("full"))
    yield from _drills(status)
    yield from _rto(status)


def _rpo(status: Status) -> Reason:
    achieved, promised = status.achieved_rpo, status.objectives.rpo
    assert achieved is not None
    told = f"achieved RPO {quantities.format_duration(achieved)}, promised {quantities.format_duration(promised)}"
    if achieved > promised:
        return Reason(Level.CRITICAL, told)
    return Reason(Level.WARNING, f"{told}: over half of it is used") if achieved > promised / 2 else Reason(Level.OK, told)


def _clock(status: Status) -> Iterator[Reason]:
    assert status.recovery_point is not None
    ahead = status.recovery_point - status.at - (status.clock_skew or timedelta())
    if ahead > FUTURE:
        yield Reason(
            Level.WARNING,
            f"the recovery point lies {quantities.format_duration(ahead)} ahead of this machine's clock: "
            "the source's clock and this one disagree, so the achieved RPO cannot be told",
        )


def _full_age(status: Status, timing: schedule.Timing | None) -> Iterator[Reason]:
    last = status.last_success["full"]
    if timing is None or timing.cron is None or last is None:
        return
    newest = schedule.last_due(timing.cron, timing.zone, status.at)
    if last < schedule.due_before(timing.cron, timing.zone, newest):
        age = quantities.format_duration(status.at - last)
        yield Reason(Level.WARNING, f"the newest full backup is {age} old: its schedule ({timing.cron}) passed twice since")


def _drills(status: Status) -> Iterator[Reason]:
    """One that failed is said, else how long ago the last good one was; without any nothing: it takes a server to drill on."""
    newest = status.last_drill
    if newest is None:
        return
    age, allowed = status.at - newest.ended_at, status.objectives.drill
    if not newest.passed:
        yield Reason(Level.WARNING, f"the newest drill ({newest.run}) failed")
    elif age > allowed:
        told = f"{quantities.format_duration(age)} old, allowed are {quantities.format_duration(allowed)} (objectives.drill)"
        yield Reason(Level.WARNING, f"the newest drill is {told}: run `kpbackup drill`")


def _rto(status: Status) -> Iterator[Reason]:
    measured = status.measured_rto.get("restore")
    if measured is not None and measured.measured_rto_s > status.objectives.rto.total_seconds():
        took = quantities.format_duration(timedelta(seconds=measured.measured_rto_s))
        yield Reason(
            Level.WARNING,
            f"measured RTO {took} (recovery {measured.run}), promised {quantities.format_duration(status.objectives.rto)}",
        )
    elif status.forecast is not None and status.forecast.warns and status.forecast.rto is not None:
        rto = status.forecast.rto
        assert rto.exceeded_at is not None
        promised = quantities.format_duration(status.objectives.rto)
        yield Reason(
            Level.WARNING,
            f"a recovery takes longer than the promised {promised} from {rto.exceeded_at:%Y-%m-%d} on, by the growth of the last "
            f"{status.forecast.span.days} days: see `kpbackup forecast`",
        )
