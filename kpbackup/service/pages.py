"""What each path of the web server answers: health for probes, metrics for Prometheus, the status page at `/`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from kpbackup.service import front, http, metrics
from kpbackup.service.metrics import ContinuousArchive
from kpbackup.service.notify import Counted
from kpbackup.service.watching import Watch

if TYPE_CHECKING:
    from kpbackup.backup.continuous import Meter

Counts = Callable[[], Mapping[str, int]]
Running = Callable[[], Mapping[str, bool]]


class Pages:
    """The pages of one process. `failures`, `in_a_row` (those since the last success) and `running` tell of its jobs, `meter` of
    its continuous archive, if it has one; an exporter has none of them. `latency` is for the web server to fill."""

    def __init__(
        self, watch: Watch, *, failures: Counts = dict, in_a_row: Counts = dict, running: Running = dict,
        meter: Meter | None = None, notified: Callable[[], Mapping[str, Counted]] = dict,
    ) -> None:
        self._watch, self._failures, self._in_a_row, self._running, self._meter = watch, failures, in_a_row, running, meter
        self._notified = notified
        self.latency = http.Latency()
        self._started = datetime.now(UTC)

    def routes(self) -> http.Pages:
        return {
            "/": self.front,
            **front.assets(),
            "/metrics": self.metrics,
            "/api/health": self.health,
            "/api/health/live": http.alive,
            "/api/health/ready": self.ready,
        }

    def health(self, query: http.Query) -> http.Answer:
        """200 while the source answers, 503 when it does not. Where no source is configured, nothing can be away."""
        source = self._watch.source
        healthy = source.view.up or not source.is_configured
        database = {True: "connected", False: "disconnected", None: "unknown"}[source.view.up]
        document = {
            "status": "healthy" if healthy else "unhealthy",
            "database": database,
            "uptime": uptime_text(datetime.now(UTC) - self._started),
        }
        return http.json_answer(200 if healthy else 503, document)

    def ready(self, query: http.Query) -> http.Answer:
        """200 when the repository was read at the last try."""
        view = self._watch.repository.view
        if view.up:
            return http.json_answer(200, {"ready": True})
        return http.json_answer(503, {"ready": False, "reason": view.problem})

    def metrics(self, query: http.Query) -> http.Answer:
        now = datetime.now(UTC)
        store, source = self._watch.repository.view, self._watch.source.view
        observed = metrics.Observed(
            source=self._watch.source_label,
            now=now,
            status=self._watch.status(now),
            store_up=store.up,
            source_up=source.up,
            clock_skew=source.clock_skew,
            read_at=store.state.read_at if store.state else None,
            failures=self._failures(),
            running=self._running(),
            in_a_row=self._in_a_row(),
            latency=self.latency.read(),
            archive=standing(self._meter) if self._meter is not None else None,
            notified=self._notified(),
        )
        return http.Answer(200, metrics.CONTENT_TYPE, metrics.exposition(observed))

    def front(self, query: http.Query) -> http.Answer:
        now = datetime.now(UTC)
        view, status = self._watch.repository.view, self._watch.status(now)
        return front.answer(
            status, label=self._watch.source_label, problem="" if view.up else f"The store cannot be read: {view.problem}",
            zone=self._watch.zone, now=now, query=query,
        )


def standing(meter: Meter) -> ContinuousArchive:
    """How the continuous archive stands at this moment."""
    return ContinuousArchive(meter.following, meter.stalled_s, meter.waiting_segments, meter.waiting_bytes, meter.interruptions)


def uptime_text(uptime: timedelta) -> str:
    """`10h30m`, `30m`, `12s`: hours are not split into days."""
    seconds = int(uptime.total_seconds())
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m" if minutes else f"{seconds}s"
