"""The supervising process: decides what is due from the repository's own facts, runs it, shows the state, and ends in order.

A full and an incremental backup may run side by side, each in a thread; the leases of their roles keep other processes from
the same work. When an incremental finds that the archive cannot be continued, a full backup starts a new timeline at once.
A failed job is repeated after 1, 2, 4 ... minutes, at most its schedule's period; what was missed while nobody ran is made up
once. With `archive.continuous` the incremental is one job that ends only when the daemon does, or when something stops it.

After a crash nothing has to be mended: what is due is decided anew from the repository, and a restarted daemon of the same
name takes its leases back at once.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kpbackup import config, errors, logs
from kpbackup.backup.archiver import run_incremental
from kpbackup.backup.continuous import Meter, run_continuous
from kpbackup.backup.full import run_full
from kpbackup.model.catalog import Catalog
from kpbackup.model.manifest import BinlogSegment
from kpbackup.plan import schedule
from kpbackup.service import (
    guard,
    head_file,
    http,
    job_news,
    notify,
    opening,
    pages,
    progress,
    reading,
    side_jobs,
    status,
    watching,
)
from kpbackup.service.jobs import Ending, Job, Outcome
from kpbackup.service.stopping import StoppableBackend, Stopped

if TYPE_CHECKING:
    from kpbackup.repository.binding import Repository
    from kpbackup.storage.backend import Backend

TICK_S = 0.25  # how soon a signal, a finished job or a due one is seen
NOTIFY_BOUND_S = 5.0  # what is being told when the daemon ends
STOP_BOUND_S = 20.0  # below the 30 s that Kubernetes and systemd allow

logger = logging.getLogger(__name__)


def run_daemon(settings: config.Settings, stop: threading.Event) -> bool:
    """Runs until `stop` is set. False when a thread did not end within STOP_BOUND_S and is still there.

    Raises:
        SettingsError: a setting is missing, or the address to listen on is taken.
        RepositoryError, KeyProblem, StorageError: the repository cannot be opened at the start.
        InternalError: a task died of a defect; the jobs that ran were stopped first.
    """
    repository = opening.writing_repository(settings)
    endpoint = opening.source_endpoint(settings)
    opening.recipients(settings)  # missing ones are told now, not at two in the morning
    told = notify.notifier(settings, repository.binding.source, os.environ)
    watch = watching.Watch(settings, repository, endpoint)
    supervisor = Supervisor(settings, repository, watch, job_news.JobNews(told))
    shown = pages.Pages(
        watch, failures=supervisor.failures, in_a_row=supervisor.failures_in_a_row, running=supervisor.running,
        meter=supervisor.meter, notified=told.counted,
    )
    with _web_server(settings, shown) as web:
        supervisor.name(f"{settings.service.instance}:{web.port}")
        watch.start()
        web.start()
        logs.event(
            logger,
            "daemon_started",
            repository=repository.backend.name,
            source=endpoint.name,
            holder=supervisor.holder,
            listen=f"{settings.service.address[0]}:{web.port}",
        )
        try:
            supervisor.run(stop, web)
        finally:
            watch.end()
            ended = supervisor.end_jobs()
            told.close(NOTIFY_BOUND_S)
        logs.event(logger, "daemon_stopped")
    return ended and watch.has_ended()


def run_exporter(settings: config.Settings, stop: threading.Event) -> bool:
    """Shows the state of a repository until `stop` is set; runs no job and needs neither recipients nor a signing key.

    False when a reading of the store is still under way at the end.

    Raises: as run_daemon.
    """
    repository = opening.reading_repository(settings)
    endpoint = opening.source_endpoint(settings) if settings.source is not None else None
    watch = watching.Watch(settings, repository, endpoint)
    shown = pages.Pages(watch)
    with _web_server(settings, shown) as web:
        watch.start()
        web.start()
        logs.event(
            logger, "exporter_started", repository=repository.backend.name, listen=f"{settings.service.address[0]}:{web.port}"
        )
        try:
            while not stop.wait(TICK_S):
                watch.check()
                _check_web(web)
        finally:
            watch.end()
        logs.event(logger, "exporter_stopped")
    return watch.has_ended()


class Supervisor:
    """The loop and its jobs."""

    def __init__(
        self, settings: config.Settings, repository: Repository, watch: watching.Watch, news: job_news.JobNews
    ) -> None:
        self.holder, self._news = settings.service.instance, news
        self._settings, self._repository, self._watch = settings, repository, watch
        self._stopping = threading.Event()
        self._head_file = settings.need_repository().head_file
        timings = reading.timings(settings)
        self._full = Job("full", timings["full"], self._run_full)
        self._incremental = Job("incremental", timings["incremental"], self._run_incremental)
        self.meter = Meter() if settings.archive.continuous else None
        self._side = side_jobs.SideJobs(settings, self._stoppable, self._stoppable_backend)
        self._application = Job("application", timings["application"], self._run_application)
        own = (self._application,) if settings.application is not None else ()
        self._jobs = (self._full, self._incremental, *own, *self._side.jobs)
        self._forced: schedule.Due | None = None
        self._is_mending = False  # a forced full backup runs
        self._bundle_with_set = False  # a full backup ended since the last bundle
        self._breaks = 0  # ChainBroken in a row, without an incremental that succeeded between
        self._segments_before = 0  # of the meter, when the continuous archive was last begun

    def name(self, holder: str) -> None:
        """Names this process in leases."""
        self.holder = self._side.holder = holder

    def failures(self) -> dict[str, int]:
        return {job.kind: job.failures for job in self._jobs}

    def failures_in_a_row(self) -> dict[str, int]:
        return {job.kind: job.attempts.failures for job in self._jobs}

    def running(self) -> dict[str, bool]:
        return {job.kind: job.is_running for job in self._jobs}

    def run(self, stop: threading.Event, web: http.WebServer) -> None:
        """Until `stop` is set. Raises InternalError when a task died."""
        while not stop.wait(TICK_S):
            self._watch.check()
            _check_web(web)
            for job in self._jobs:
                if (outcome := job.take()) is not None:
                    self._news.ended(job, outcome)
                    self._follow_up(job, outcome)
            state = self._watch.repository.view.state
            if state is not None and self._watch.repository.view.up and not state.regressed:
                self._start_due(state.catalog, datetime.now(UTC))
                self._side.start_due(state, datetime.now(UTC))

    def end_jobs(self) -> bool:
        """Stops running jobs at a safe point; True when all have ended, and so released their leases."""
        self._stopping.set()
        running = [job for job in self._jobs if job.is_running]
        if running:
            logs.event(logger, "daemon_stopping", running=[job.kind for job in running], bound_s=STOP_BOUND_S)
        deadline = time.monotonic() + STOP_BOUND_S
        ended = [job.join(deadline - time.monotonic()) for job in running]
        for job, has_ended in zip(running, ended, strict=True):
            if has_ended:
                job.take()
            else:
                logs.event(
                    logger,
                    "job_abandoned",
                    level=logging.WARNING,
                    kind=job.kind,
                    bound_s=STOP_BOUND_S,
                    remark="nothing half-written is visible; its lease expires by itself",
                )
        return all(ended)

    def _start_due(self, catalog: Catalog, now: datetime) -> None:
        last = last_success(catalog)
        if self._news.archived(last["incremental"], follows=self.meter is not None and self.meter.following):
            self._incremental.works_again()
        if not self._full.is_running:
            due = self._forced or self._full.due(now, last["full"])
            if due is not None:
                self._is_mending, self._forced = self._forced is not None, None
                self._full.start(due)
        if not self._incremental.is_running and self._can_archive(last):
            due = self._incremental.due(now, last["incremental"])
            if due is not None:
                self._incremental.start(due)
        if self._application in self._jobs and not self._application.is_running:
            due = self._application.due(now, None)
            if due is not None:
                self._application.start(due)

    def _can_archive(self, last: dict[str, datetime | None]) -> bool:
        """Not while a full backup mends a broken chain; nor without a set on the current timeline, if this daemon makes any."""
        if self._forced is not None or self._is_mending:
            return False
        return last["full"] is not None or self._settings.schedule.full is None

    def _follow_up(self, job: Job, outcome: Outcome) -> None:
        self._watch.repository.task.wake()
        if job.kind == "copy":
            self._watch.copies.task.wake()
        if outcome.ending is Ending.DIED:
            raise errors.InternalError(
                f"the {job.kind} job died: {type(outcome.error).__name__}: {outcome.error}",
                hint="this is a defect of kpbackup: please report it",
            ) from outcome.error
        if job is self._full:
            self._is_mending = False
            if outcome.ending is Ending.DONE:
                self._bundle_with_set = True
                self._application.run_soon()
        if job is self._incremental and outcome.ending is Ending.DONE:
            self._breaks = 0
        elif job is self._incremental and outcome.ending is Ending.BROKEN:
            self._breaks = 1 if self._has_archived() else self._breaks + 1
            logs.event(
                logger, "chain_broken", level=logging.ERROR, reason=str(outcome.error), consequence="a full backup starts now"
            )
            self._forced = schedule.Due("full", "the archive cannot be continued", outcome.ended)
        elif job is self._full and outcome.ending is Ending.DONE and self._breaks == 1:
            self._incremental.run_soon()  # once: if that breaks too, the growing delay of a failed job holds

    def _has_archived(self) -> bool:
        """Whether the continuous archive stored something since it was last begun: then what broke it is new."""
        return self.meter is not None and self.meter.segments > self._segments_before

    def _run_full(self, due: schedule.Due) -> dict[str, object]:
        since = due.since or datetime.min.replace(tzinfo=UTC)
        request = replace(opening.full_request(self._settings, holder=self.holder), unless_since=since, check=self._stop_point)
        interval_s = self._settings.log.progress_interval_s
        with progress.show("full backup", stream=sys.stderr, log_interval_s=interval_s) as report:
            made = run_full(self._stoppable(), replace(request, progress=lambda done, total: report(done, total, "rows")))
        head_file.record(self._head_file, [made], now=datetime.now(UTC))
        held = {"snapshot": made.snapshot.rung, "writes_blocked_ms": made.snapshot.locked_ms}
        return {
            "set": made.name, "rows": made.totals.rows, "stored_bytes": made.totals.stored_bytes, "clock": made.clock, **held
        }

    def _run_application(self, due: schedule.Due) -> dict[str, object]:
        from kpbackup.backup.application import run_application  # needs the Kubernetes client, which not everybody has

        asked = opening.application_request(self._settings)
        assert asked is not None
        request = replace(asked, turn=self._watch.source.turn)
        with_set, self._bundle_with_set = self._bundle_with_set, False
        made = run_application(self._stoppable(), request, unless_unchanged=not with_set)
        return {"bundle": made.name, "objects": made.objects} if made is not None else {"bundle": "unchanged"}

    def _stop_point(self) -> None:
        if self._stopping.is_set():
            raise Stopped

    def _run_incremental(self, due: schedule.Due) -> dict[str, object]:
        if self.meter is not None:
            self._segments_before = self.meter.segments
            # not the stoppable store: told to stop, it stores what is at hand and ends by itself
            request = replace(opening.archive_request(self._settings, holder=self.holder), turn=self._watch.source.turn)
            run_continuous(self._repository, request, stop=self._stopping, meter=self.meter, stored=self._record)
            return {"segments": self.meter.segments, "transactions": self.meter.transactions}
        with self._watch.source.turn:
            made = run_incremental(self._stoppable(), opening.archive_request(self._settings, holder=self.holder))
        self._record(*made.segments)
        return {
            "segments": len(made.segments),
            "transactions": sum(segment.transactions for segment in made.segments),
            "recovery_point": made.observed.clock,
        }

    def _record(self, *segments: BinlogSegment) -> None:
        head_file.record(self._head_file, segments, now=datetime.now(UTC))

    def _stoppable(self) -> Repository:
        return replace(self._repository, backend=self._stoppable_backend(self._repository.backend))

    def _stoppable_backend(self, backend: Backend) -> Backend:
        return StoppableBackend(backend, self._stopping)


def last_success(catalog: Catalog) -> dict[str, datetime | None]:
    """What schedules go by: successes on the current timeline. One that has no set yet needs a full backup now, not tonight."""
    current = catalog.current
    found = status.last_success(catalog)
    return {
        "full": max((one.head.created_at for one in current.sets), default=None) if current else None,
        "incremental": found["incremental"],
    }


def _web_server(settings: config.Settings, shown: pages.Pages) -> http.WebServer:
    tls, auth = settings.service.tls, settings.service.auth
    certificate = guard.Certificate(tls.certificate_file, tls.key_file) if tls.certificate_file and tls.key_file else None
    access = guard.Access(auth.user, auth.password_file, auth.token_file) if auth.password_file or auth.token_file else None
    return http.WebServer(
        settings.service.address, shown.routes(), latency=shown.latency, certificate=certificate, access=access
    )


def _check_web(web: http.WebServer) -> None:
    if not web.is_alive:
        raise errors.InternalError("the web server's thread ended", hint="this is a defect of kpbackup: please report it")
