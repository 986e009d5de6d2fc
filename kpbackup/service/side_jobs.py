"""The daemon's jobs beside backups: canaries and copying, each by its own schedule, off unless there is something to do;
compaction, when it is due.

What was done last is read from the repository, so a restarted daemon does not do it again; only copying, which costs nothing
when there is nothing new, it does once at its start.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from kpbackup import config, errors
from kpbackup.plan import schedule
from kpbackup.repository import canary
from kpbackup.service import copies, opening, reading, upkeep
from kpbackup.service.jobs import Job

if TYPE_CHECKING:
    from kpbackup.repository.binding import Repository

CANARY_APART = timedelta(hours=1)  # two daemons that are due at once make one canary
UPKEEP_APART = timedelta(minutes=15)  # at a segment every three seconds a page is full after 51 minutes

Open = Callable[[], "Repository"]


class SideJobs:
    """`repository` gives the repository to work on, stoppable at safe points; `wrap` makes another store stoppable."""

    def __init__(self, settings: config.Settings, repository: Open, wrap: copies.Wrap) -> None:
        self._settings, self._repository, self._wrap = settings, repository, wrap
        self.holder = settings.service.instance
        timings = reading.timings(settings)
        self._canary = Job("canary", timings["canary"], self._make_canaries)
        self._copy = Job("copy", timings["copy"], self._bring_up_copies)
        self._compaction = Job("compaction", schedule.Timing(settings.zone, every=UPKEEP_APART), self._compact)
        self._scheduled = (self._canary, *((self._copy,) if settings.copies else ()))
        self.jobs = (*self._scheduled, self._compaction)
        self._judged: reading.State | None = None  # a state is judged once, the loop comes by four times a second
        self._state: reading.State | None = None

    def start_due(self, state: reading.State, now: datetime) -> None:
        """Starts what is due and does not run yet."""
        last = {"canary": max((one.newest_at for one in state.canaries), default=None)}
        for job in self._scheduled:
            if not job.is_running and (due := job.due(now, last.get(job.kind))) is not None:
                job.start(due)
        if state is not self._judged and not self._compaction.is_running and self._compaction.due(now, None) is not None:
            self._judged = self._state = state
            if upkeep.due(state.catalog, now, page_rows=self._repository().page_rows):
                self._compaction.start(schedule.Due("compaction", "small segments have gathered"))

    def _compact(self, due: schedule.Due) -> dict[str, Any]:
        assert self._state is not None
        repository = self._repository()
        timelines = upkeep.due(self._state.catalog, datetime.now(UTC), page_rows=repository.page_rows)
        head_path = self._settings.need_repository().head_file
        done = upkeep.run(repository, timelines, holder=self.holder, head_path=head_path)
        return {"pages": done.pages, "objects": done.objects, "segments": done.segments}

    def _make_canaries(self, due: schedule.Due) -> dict[str, Any]:
        made = canary.renew(
            self._repository(), opening.recipients(self._settings), now=datetime.now(UTC), older_than=CANARY_APART
        )
        return {"canaries": len(made)}

    def _bring_up_copies(self, due: schedule.Due) -> dict[str, Any]:
        """Every copy, each by itself; the first failure ends the job as failed when all were tried."""
        facts: dict[str, Any] = {}
        failed: list[errors.KpbackupError] = []
        for one in self._settings.copies:
            try:
                done = copies.bring_up(self._settings, self._repository(), one.name, holder=self.holder, wrap=self._wrap)
            except errors.KpbackupError as exc:
                failed.append(exc)
                continue
            facts[one.name] = f"{done.manifests} manifests, {done.bytes} bytes"
            if done.problems:
                key, what = done.problems[0]
                failed.append(errors.IntegrityError(f"{len(done.problems)} objects not copied to {one.name}: {key}: {what}"))
        if failed:
            raise failed[0]
        return facts
