"""The metrics of `/metrics`: everything but the failure counters is read from the repository, so a restart falsifies nothing.

The names are a contract (docs/metrics.md): more may be added, none renamed or removed. A value that is not known is left out,
never shown as 0. Rates and ages move between two readings of the repository because they are computed when they are scraped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from kpbackup import __version__
from kpbackup.plan.forecast import HORIZON, Forecast
from kpbackup.service import trust
from kpbackup.service.http import Latency, Took
from kpbackup.service.notify import Counted
from kpbackup.service.status import Status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
WINDOWS_SHOWN = 20  # each is two series

Samples = list[tuple[tuple[str, ...], float]]


@dataclass(frozen=True)
class Metric:
    """One metric of the contract. `labels` come beside `source`, which all have."""

    help: str
    labels: tuple[str, ...] = ()
    counter: bool = False
    histogram: bool = False

    @property
    def type(self) -> str:
        return "counter" if self.counter else "histogram" if self.histogram else "gauge"


METRICS: dict[str, Metric] = {
    "kpbackup_build_info": Metric("1, labelled with the version that runs", ("version",)),
    "kpbackup_recovery_point_timestamp_seconds": Metric("Newest moment that can be restored, by the source's clock"),
    "kpbackup_achieved_rpo_seconds": Metric("What would be lost now: the source's clock minus the recovery point"),
    "kpbackup_objective_rpo_seconds": Metric("The promised RPO (objectives.rpo)"),
    "kpbackup_objective_rto_seconds": Metric("The promised RTO (objectives.rto)"),
    "kpbackup_last_success_timestamp_seconds": Metric(
        "When a full, an incremental, a restore or a check last ended well", ("kind",)
    ),
    "kpbackup_next_run_timestamp_seconds": Metric("When this kind of job is scheduled next", ("kind",)),
    "kpbackup_job_failures_total": Metric("Jobs of this process that failed since it started", ("kind",), counter=True),
    "kpbackup_archive_following": Metric("1 while the continuous archive of this process is connected to the source, else 0"),
    "kpbackup_archive_stalled_seconds": Metric("How long segments wait because the store takes nothing; 0 when it does"),
    "kpbackup_archive_waiting_segments": Metric("Sealed segments of this process that wait for the store"),
    "kpbackup_archive_waiting_bytes": Metric("Their size, on local disk"),
    "kpbackup_archive_interruptions_total": Metric("How often the continuous archive lost source or store", counter=True),
    "kpbackup_job_consecutive_failures": Metric("Failures since this process last succeeded with this kind of job", ("kind",)),
    "kpbackup_job_running": Metric("1 while this process runs a job of this kind", ("kind",)),
    "kpbackup_status_level": Metric("What `kpbackup status` exits with: 0 ok, 1 warning, 2 critical, 3 unknown"),
    "kpbackup_chain_intact": Metric("1 when sets are stored, no chain has a gap and no manifest is damaged, else 0"),
    "kpbackup_recoverable_windows": Metric("Intervals all of whose moments can be restored; between two of them nothing can"),
    "kpbackup_window_start_timestamp_seconds": Metric(
        "Where each of the newest 20 such windows begins, named by its first set", ("timeline", "set")
    ),
    "kpbackup_window_end_timestamp_seconds": Metric("Where it ends, by the source's clock", ("timeline", "set")),
    "kpbackup_timelines": Metric("Timelines stored, by the reason for which they began", ("reason",)),
    "kpbackup_damaged_manifests": Metric("Manifests that do not verify"),
    "kpbackup_backup_sets": Metric("Backup sets stored"),
    "kpbackup_proven_sets": Metric("Backup sets that a finished recovery restored and read back"),
    "kpbackup_binlog_segments": Metric("Binlog segments stored"),
    "kpbackup_full_backup_duration_seconds": Metric("How long the newest full backup took"),
    "kpbackup_newest_set_stored_bytes": Metric("Size of the newest backup set as stored: compressed and sealed"),
    "kpbackup_newest_set_row_bytes": Metric("Size of the rows of the newest backup set before compression"),
    "kpbackup_archive_stored_bytes": Metric("Size of all binlog segments as stored"),
    "kpbackup_repository_stored_bytes": Metric("Size of all sets and segments as stored"),
    "kpbackup_measured_rto_seconds": Metric(
        "Duration of the newest recovery: restore (all steps), database or drill", ("kind",)
    ),
    "kpbackup_essential_rto_seconds": Metric(
        "Of the newest recovery in two phases: time until its essential tables were ready", ("kind",)
    ),
    "kpbackup_drill_last_success_timestamp_seconds": Metric("When a drill last succeeded; absent until there are drills"),
    "kpbackup_drill_max_age_seconds": Metric("How old the newest drill that passed may be (objectives.drill)"),
    "kpbackup_drill_last_end_timestamp_seconds": Metric("When a drill last ended, well or not"),
    "kpbackup_drill_last_passed": Metric("1 when the newest drill passed, 0 when it failed"),
    "kpbackup_drill_achieved_rpo_seconds": Metric("What would have been lost when the newest drill that passed began"),
    "kpbackup_growth_bytes_per_second": Metric(
        "How database (rows), binlog (as read) and repository (as stored, before prune) grow, by the stored history", ("of",)
    ),
    "kpbackup_forecast_rto_seconds": Metric("How long a recovery takes in 30 days, by growth and the newest measured ones"),
    "kpbackup_forecast_rto_exceeded_timestamp_seconds": Metric("When a recovery begins to take longer than the promised RTO"),
    "kpbackup_forecast_repository_bytes": Metric("Size of the repository in 30 days"),
    "kpbackup_cost_per_month": Metric("What the repository costs a month, by the prices of the settings"),
    "kpbackup_check_last_end_timestamp_seconds": Metric("When a check last ended, well or not"),
    "kpbackup_check_max_age_seconds": Metric("How old the newest check that found nothing wrong may be (objectives.check)"),
    "kpbackup_check_last_passed": Metric("1 when the newest check found nothing wrong, 0 when it did"),
    "kpbackup_check_problems": Metric("Problems that the newest check found"),
    "kpbackup_check_read_bytes": Metric("How much the newest check read and hashed"),
    "kpbackup_prune_last_end_timestamp_seconds": Metric("When a prune last ended, well or not"),
    "kpbackup_prune_last_passed": Metric("1 when the newest prune ended well, 0 when it could not"),
    "kpbackup_prune_deleted_objects": Metric("Objects that the newest prune deleted"),
    "kpbackup_prune_kept_by_lock_objects": Metric("Objects that were due, and that the store still held by Object Lock"),
    "kpbackup_prune_renewed_locks": Metric("Kept objects whose Object Lock the newest prune made longer"),
    "kpbackup_canary_last_success_timestamp_seconds": Metric(
        "When the newest canary was made that this recipient's key has opened", ("recipient",)
    ),
    "kpbackup_copy_recovery_point_timestamp_seconds": Metric(
        "Newest moment that can be restored from this copy, read from the copy", ("repository",)
    ),
    "kpbackup_copy_max_age_seconds": Metric("How far this copy may be behind (copies.max_age)", ("repository",)),
    "kpbackup_copy_last_success_timestamp_seconds": Metric(
        "When everything was last carried over to this copy, by the report left in it", ("repository",)
    ),
    "kpbackup_copy_up": Metric("1 when this copy was read at the last try, else 0", ("repository",)),
    "kpbackup_head_sequence": Metric("Number of the newest entry of a log: a head kept outside the store", ("timeline", "log")),
    "kpbackup_head_regressed": Metric("1 when the store shows less than the head file or this process knows, else 0"),
    "kpbackup_certificate_expiry_timestamp_seconds": Metric("When an endpoint's certificate expires, where known", ("endpoint",)),
    "kpbackup_source_up": Metric("1 when the source answered its last probe, else 0"),
    "kpbackup_source_clock_skew_seconds": Metric("The source's clock minus this machine's"),
    "kpbackup_store_up": Metric("1 when the repository was read at the last try, else 0: what is shown is older then"),
    "kpbackup_state_timestamp_seconds": Metric("When the repository was last read"),
    "kpbackup_notifications_total": Metric(
        "Messages of this process that arrived (outcome sent) or were given up (lost)", ("channel", "outcome"), counter=True
    ),
    "kpbackup_notification_delivered": Metric("1 when the last message of this channel arrived, else 0", ("channel",)),
    "kpbackup_http_request_duration_seconds": Metric("How long answers of this process took", ("path",), histogram=True),
}


@dataclass(frozen=True)
class ContinuousArchive:
    """How the continuous archive of this process stands."""

    following: bool
    stalled_s: float
    waiting_segments: int
    waiting_bytes: int
    interruptions: int


@dataclass(frozen=True)
class Observed:
    """What is known at a scrape. `source_up` is None where no source is configured, `status` None before the first reading."""

    source: str
    now: datetime
    status: Status | None = None
    store_up: bool = False
    source_up: bool | None = None
    clock_skew: timedelta | None = None
    read_at: datetime | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    running: Mapping[str, bool] = field(default_factory=dict)
    archive: ContinuousArchive | None = None
    in_a_row: Mapping[str, int] = field(default_factory=dict)
    latency: Mapping[str, Took] = field(default_factory=dict)
    notified: Mapping[str, Counted] = field(default_factory=dict)


def exposition(observed: Observed) -> bytes:
    """The metrics in the Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(observed))
    ProcessCollector(registry=registry)  # process_cpu_seconds_total, process_resident_memory_bytes and so on
    return generate_latest(registry)


class _Once(Collector):
    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    def collect(self) -> Iterable[Family]:
        yield from self._histogram()
        values = samples(self._observed)
        for name, metric in METRICS.items():
            found = values.get(name)
            if not found:
                continue
            kind = CounterMetricFamily if metric.counter else GaugeMetricFamily
            family = kind(name, metric.help, labels=("source", *metric.labels))
            for labels, value in found:
                family.add_metric((self._observed.source, *labels), value)
            yield family

    def _histogram(self) -> Iterator[Family]:
        name = "kpbackup_http_request_duration_seconds"
        family = HistogramMetricFamily(name, METRICS[name].help, labels=("source", *METRICS[name].labels))
        bounds = [f"{bound:g}" for bound in Latency.BOUNDS_S] + ["+Inf"]
        for path, took in sorted(self._observed.latency.items()):
            family.add_metric((self._observed.source, path), list(zip(bounds, took.counts, strict=True)), took.sum_s)
        if self._observed.latency:
            yield family


def samples(observed: Observed) -> dict[str, Samples]:
    """Name -> (labels beside `source`, value) of everything that is known."""
    found = dict(_process(observed))
    if observed.archive is not None:
        found.update(_archive(observed.archive))
    if observed.status is not None:
        found.update(_promises(observed.status, observed.now))
        found.update(_windows(observed.status))
        found.update(_stored(observed.status))
        found.update(_drills(observed.status))
        found.update(trust.samples(observed.status.trust))
        if observed.status.forecast is not None:
            found.update(_forecast(observed.status.forecast))
    return found


def _process(observed: Observed) -> Iterator[tuple[str, Samples]]:
    yield "kpbackup_build_info", [((__version__,), 1)]
    yield "kpbackup_store_up", _one(observed.store_up)
    yield "kpbackup_job_failures_total", [((kind,), count) for kind, count in observed.failures.items()]
    yield "kpbackup_job_consecutive_failures", [((kind,), count) for kind, count in observed.in_a_row.items()]
    yield "kpbackup_job_running", [((kind,), running) for kind, running in observed.running.items()]
    yield "kpbackup_notifications_total", [
        ((name, outcome), count)
        for name, one in observed.notified.items()
        for outcome, count in (("sent", one.sent), ("lost", one.lost))
    ]
    yield "kpbackup_notification_delivered", [((name,), one.delivered) for name, one in observed.notified.items()]
    if observed.source_up is not None:
        yield "kpbackup_source_up", _one(observed.source_up)
    if observed.clock_skew is not None:
        yield "kpbackup_source_clock_skew_seconds", _one(observed.clock_skew.total_seconds())
    if observed.read_at is not None:
        yield "kpbackup_state_timestamp_seconds", _one(observed.read_at.timestamp())


def _archive(archive: ContinuousArchive) -> Iterator[tuple[str, Samples]]:
    yield "kpbackup_archive_following", _one(archive.following)
    yield "kpbackup_archive_stalled_seconds", _one(archive.stalled_s)
    yield "kpbackup_archive_waiting_segments", _one(archive.waiting_segments)
    yield "kpbackup_archive_waiting_bytes", _one(archive.waiting_bytes)
    yield "kpbackup_archive_interruptions_total", _one(archive.interruptions)


def _promises(status: Status, now: datetime) -> Iterator[tuple[str, Samples]]:
    yield "kpbackup_objective_rpo_seconds", _one(status.objectives.rpo.total_seconds())
    yield "kpbackup_objective_rto_seconds", _one(status.objectives.rto.total_seconds())
    yield "kpbackup_status_level", _one(status.level)
    achieved = status.achieved_rpo_at(now)
    if status.recovery_point is not None and achieved is not None:
        yield "kpbackup_recovery_point_timestamp_seconds", _one(status.recovery_point.timestamp())
        yield "kpbackup_achieved_rpo_seconds", _one(achieved.total_seconds())
    yield "kpbackup_last_success_timestamp_seconds", _moments(status.last_success)
    yield "kpbackup_next_run_timestamp_seconds", _moments(status.next_runs)
    yield "kpbackup_measured_rto_seconds", [((kind,), one.measured_rto_s) for kind, one in status.measured_rto.items()]
    ready = {kind: one.essential_rto_s for kind, one in status.measured_rto.items()}
    yield "kpbackup_essential_rto_seconds", [((kind,), seconds) for kind, seconds in ready.items() if seconds is not None]


def _windows(status: Status) -> Iterator[tuple[str, Samples]]:
    shown = {(one.timeline, one.sets[0]): one for one in status.windows[-WINDOWS_SHOWN:]}
    yield "kpbackup_recoverable_windows", _one(len(status.windows))
    yield "kpbackup_window_start_timestamp_seconds", [(name, one.start.timestamp()) for name, one in shown.items()]
    yield "kpbackup_window_end_timestamp_seconds", [(name, one.end.timestamp()) for name, one in shown.items()]
    yield "kpbackup_timelines", [((reason,), float(count)) for reason, count in sorted(status.timelines.items())]


def _stored(status: Status) -> Iterator[tuple[str, Samples]]:
    yield "kpbackup_chain_intact", _one(status.chain_intact)
    yield "kpbackup_damaged_manifests", _one(status.damaged)
    yield "kpbackup_backup_sets", _one(len(status.sets))
    yield "kpbackup_proven_sets", _one(sum(1 for one in status.sets if one.proven_by))
    yield "kpbackup_binlog_segments", _one(status.segments)
    yield "kpbackup_archive_stored_bytes", _one(status.archive_bytes)
    yield "kpbackup_repository_stored_bytes", _one(status.total_bytes)
    if (newest := status.newest_set) is not None:
        yield "kpbackup_newest_set_stored_bytes", _one(newest.stored_bytes)
        yield "kpbackup_newest_set_row_bytes", _one(newest.row_bytes)
        yield "kpbackup_full_backup_duration_seconds", _one(newest.duration.total_seconds())


def _drills(status: Status) -> Iterator[tuple[str, Samples]]:
    yield "kpbackup_drill_max_age_seconds", _one(status.objectives.drill.total_seconds())
    if (newest := status.last_drill) is not None:
        yield "kpbackup_drill_last_end_timestamp_seconds", _one(newest.ended_at.timestamp())
        yield "kpbackup_drill_last_passed", _one(newest.passed)
    if (passed := status.last_passed_drill) is not None:
        yield "kpbackup_drill_last_success_timestamp_seconds", _one(passed.ended_at.timestamp())
        yield "kpbackup_drill_achieved_rpo_seconds", _one(passed.achieved_rpo_s or 0.0)


def _forecast(forecast: Forecast) -> Iterator[tuple[str, Samples]]:
    day = 86_400
    per_day = {
        "database": forecast.database.per_day if forecast.database is not None else None,
        "binlog": forecast.binlog.raw_per_day if forecast.binlog is not None else None,
        "repository": forecast.repository.stored_per_day,
    }
    yield "kpbackup_growth_bytes_per_second", [((of,), value / day) for of, value in per_day.items() if value is not None]
    if (rto := forecast.rto) is not None:
        yield "kpbackup_forecast_rto_seconds", _known(rto.time.at(HORIZON))
        if rto.exceeded_at is not None:
            yield "kpbackup_forecast_rto_exceeded_timestamp_seconds", _one(rto.exceeded_at.timestamp())
    yield "kpbackup_forecast_repository_bytes", _known(forecast.repository.at(HORIZON))
    yield "kpbackup_cost_per_month", _known(forecast.cost_per_month(timedelta()))


def _known(value: float | None) -> Samples:
    return _one(value) if value is not None else []


def _one(value: float) -> Samples:
    return [((), float(value))]


def _moments(moments: Mapping[str, datetime | None]) -> Samples:
    return [((kind,), moment.astimezone(UTC).timestamp()) for kind, moment in moments.items() if moment is not None]
