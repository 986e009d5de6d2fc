"""The repository read once, for `status`, `list` and the metrics: catalog and finished recoveries, at one moment."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from kpbackup import config, errors
from kpbackup.model.catalog import Catalog
from kpbackup.model.heads import Heads
from kpbackup.plan import forecast as forecasts
from kpbackup.plan import retention, schedule
from kpbackup.recovery import journal
from kpbackup.repository import canary as canaries
from kpbackup.repository import catalog as catalogs
from kpbackup.repository import heads, reports
from kpbackup.service import head_file, runs
from kpbackup.service import status as statuses
from kpbackup.service import trust as trusts

if TYPE_CHECKING:
    from kpbackup.repository.binding import Repository

APPLICATION_EVERY = timedelta(minutes=4)  # a change of a Secret, ConfigMap or release is kept within five


@dataclass(frozen=True)
class State:
    """What the repository says, read at `read_at`."""

    catalog: Catalog
    recoveries: tuple[statuses.Recovery, ...]
    read_at: datetime
    canaries: tuple[canaries.CanaryState, ...] = ()
    heads: Heads = Heads("")
    drills: tuple[statuses.Drill, ...] = ()
    regressed: str = ""  # what the store showed before and shows no more
    reported: Mapping[str, reports.Latest] = field(default_factory=dict)  # the newest of each verb
    runs: tuple[runs.Run, ...] = ()  # the newest few, newest first

    @functools.cached_property
    def continuity(self) -> statuses.Continuity:
        """What its chains say."""
        return statuses.continuity(self.catalog)


class Reader:
    """Reads a repository again and again. Manifests never change, so each journal of a finished run is read once."""

    def __init__(self, repository: Repository, *, known: Heads | None = None) -> None:
        """`known` is a head from outside, of which nothing may be missing; what is read is remembered too."""
        self.repository = repository
        self._known = known
        self._finished: dict[str, statuses.Recovery] = {}
        self._drilled: dict[str, statuses.Drill] = {}
        self._reports: dict[str, reports.Left | None] = {}
        self._runs: dict[str, runs.Run] = {}

    def read(self) -> State:
        """The state now.

        Raises:
            StorageError: the store is away.
        """
        catalog = catalogs.read_catalog(self.repository)
        for run in journal.list_runs(self.repository):
            if run not in self._finished and run not in self._drilled:
                self._remember(run)
        recoveries = sorted(self._finished.values(), key=lambda one: one.finished_at)
        now = heads.of_catalog(catalog)
        missing = heads.compare(self.repository, catalog, self._known) if self._known is not None else []
        self._known = (self._known or Heads(self.repository.id)).advanced(now.logs.items(), now.links)
        proven = canaries.read_states(self.repository)
        drills = tuple(sorted(self._drilled.values(), key=lambda one: one.ended_at))
        shown = tuple(self._runs[name] for name in sorted(self._runs, reverse=True)[: runs.SHOWN])
        self._runs = {run.name: run for run in shown}
        left = reports.read_latest(self.repository, self._reports)
        return State(catalog, tuple(recoveries), datetime.now(UTC), proven, now, drills, head_file.told(missing), left, shown)

    def _remember(self, run: str) -> None:
        """Reads a run's journal. A damaged one proves nothing: `check` reports it."""
        try:
            entries = journal.open_journal(self.repository, run)
        except errors.StorageError:
            raise
        except errors.KpbackupError:
            return
        self._runs[run] = runs.of_journal(entries)
        is_drill = entries.entries[0].fields.get("kind") == "drill"
        drilled = _drill(entries)
        if drilled is not None:
            self._drilled[run] = drilled
        if (found := _recovery(entries)) is not None and (drilled is not None or not is_drill):
            self._finished[run] = found


def reader(settings: config.Settings, repository: Repository) -> Reader:
    """A reader that knows the head file, if the settings name one and it is there.

    Raises:
        IntegrityError, LocalIOError: the head file is damaged or cannot be read.
    """
    path = settings.need_repository().head_file
    return Reader(repository, known=head_file.read(path) if path is not None and Path(path).exists() else None)


def assess(
    settings: config.Settings,
    state: State,
    *,
    now: datetime,
    clock_skew: timedelta | None = None,
    copies: tuple[trusts.Copy, ...] = (),
    certificates: Mapping[str, datetime] | None = None,
) -> statuses.Status:
    """The status of a state by the promises and schedules of the settings; `copies` are what second copies say, `certificates`
    when those of endpoints expire."""
    return statuses.assess(
        state.catalog,
        state.recoveries,
        timings=timings(settings),
        now=now,
        clock_skew=clock_skew,
        objectives=statuses.Objectives(settings.objectives.rpo, settings.objectives.rto, settings.objectives.drill),
        drills=state.drills,
        forecast=forecast(settings, state, now=now),
        runs=state.runs,
        known=state.continuity,
        trust=replace(trust_of(settings, state, copies), certificates=tuple(sorted((certificates or {}).items()))),
    )


def forecast(settings: config.Settings, state: State, *, now: datetime) -> forecasts.Forecast:
    """The forecast of a state, by the promises, the retention and the prices of the settings."""
    newest = {one.kind: one for one in state.recoveries}
    measured = [forecasts.Measured(one.run, kind, one.measured_rto_s, one.backup_set) for kind, one in newest.items()]
    return forecasts.predict(
        state.catalog,
        measured,
        objective_rto=settings.objectives.rto,
        retention=timedelta(days=settings.retention.days) + settings.retention.grace_period,
        now=now,
        prices=forecasts.Prices(settings.forecast.price_per_gb, settings.forecast.price_per_1000_puts),
    )


def trust_of(settings: config.Settings, state: State, copies: tuple[trusts.Copy, ...] = ()) -> trusts.Trust:
    """What the state says of keys and the like, with the limits of the settings."""
    check = state.reported.get("check")
    return trusts.Trust(
        limits=trusts.Limits(canary=settings.objectives.canary, check=settings.objectives.check),
        regressed=state.regressed,
        copies=copies,
        heads=tuple((log.removeprefix("timelines/"), seq) for log, seq in sorted(state.heads.logs.items()) if "/" in log),
        canaries=tuple(trusts.Canary(one.short, one.first_at, one.newest_at, one.proven_at) for one in state.canaries),
        last_check=_check(check.newest if check is not None else None),
        last_passed_check=_check(check.passed if check is not None else None),
        last_prune=_prune(state.reported.get("prune")),
    )


def _prune(left: reports.Latest | None) -> trusts.Prune | None:
    if left is None:
        return None
    report, names = left.newest.report, ("deleted", "kept_by_lock", "renewed_locks")
    return trusts.Prune(report.head.created_at, report.passed, *(report.figures.get(name, 0) for name in names))


def _check(left: reports.Left | None) -> trusts.Check | None:
    if left is None:
        return None
    names = ("read_bytes", "objects", "read_objects", "problems")
    figures = {name: left.report.figures.get(name, 0) for name in names}
    return trusts.Check(left.report.head.created_at, left.report.passed, **figures, signed=left.signed)


def policy(settings: config.Settings) -> retention.Policy:
    kept = settings.retention
    return retention.Policy(
        days=kept.days,
        complete_chains=kept.complete_chains,
        grace_period=kept.grace_period,
        weekly=kept.weekly,
        monthly=kept.monthly,
        yearly=kept.yearly,
        zone=settings.zone,
    )


def timings(settings: config.Settings) -> dict[str, schedule.Timing]:
    """When each kind of job runs."""
    every = settings.archive.interval if settings.archive.continuous else None
    return {
        "full": schedule.Timing(settings.zone, settings.schedule.full),
        "incremental": schedule.Timing(settings.zone, settings.schedule.incremental, every),
        "copy": schedule.Timing(settings.zone, settings.schedule.copies if settings.copies else None),
        "canary": schedule.Timing(settings.zone, settings.schedule.canary),
        "application": schedule.Timing(settings.zone, every=APPLICATION_EVERY if settings.application else None),
    }


def _recovery(entries: journal.Journal) -> statuses.Recovery | None:
    """The finished recovery of this run that restored a database, else None. A restore of a selection proves neither the set nor
    the time that everything takes."""
    planned, finished = entries.last("planned"), entries.last("finished")
    if entries.is_of_selection:
        return None
    if planned is None or finished is None or entries.last("step_finished", step="database") is None:
        return None
    return statuses.Recovery(
        run=entries.run,
        backup_set=planned.fields.get("set", ""),
        finished_at=finished.at,
        recovered=finished.fields.get("recovered") == "yes",
        measured_rto_s=float(finished.fields.get("measured_rto_s", "0")),
        is_drill=planned.fields.get("kind") == "drill",
        essential_rto_s=float(text) if (text := finished.fields.get("essential_rto_s")) else None,
    )


def _drill(entries: journal.Journal) -> statuses.Drill | None:
    """The drill of this run; None when it was none, or has not ended."""
    ended = entries.last("drilled")
    if ended is None:
        return None
    measured = (float(text) if (text := ended.fields.get(name)) else None for name in ("measured_rto_s", "achieved_rpo_s"))
    return statuses.Drill(entries.run, ended.at, ended.fields["result"] == "passed", *measured)
