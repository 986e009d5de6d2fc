"""The daemon's jobs beside backups: canaries, by their own schedule, off unless that is set; compaction, when it is due.

What was done last is read from the repository, so a restarted daemon does not do it again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from kpbackup import config
from kpbackup.plan import schedule
from kpbackup.repository import canary
from kpbackup.service import opening, reading, upkeep
from kpbackup.service.jobs import Job

if TYPE_CHECKING:
    from kpbackup.repository.binding import Repository

CANARY_APART = timedelta(hours=1)  # two daemons that are due at once make one canary
UPKEEP_APART = timedelta(minutes=15)  # at a segment every three seconds a page is full after 51 minutes

Open = Callable[[], "Repository"]


class SideJobs:
    """`repository` gives the repository to work on, stoppable at safe points."""

    def __init__(self, settings: config.Settings, repository: Open) -> None:
        self._settings, self._repository = settings, repository
        timings = reading.timings(settings)
        self.holder = settings.service.instance
        self._canary = Job("canary", timings["canary"], self._make_canaries)
        self._compaction = Job("compaction", schedule.Timing(settings.zone, every=UPKEEP_APART), self._compact)
        self.jobs = (self._canary, self._compaction)
        self._judged: reading.State | None = None  # a state is judged once, the loop comes by four times a second
        self._state: reading.State | None = None

    def start_due(self, state: reading.State, now: datetime) -> None:
        """Starts what is due and does not run yet."""
        last = max((one.newest_at for one in state.canaries), default=None)
        if not self._canary.is_running and (due := self._canary.due(now, last)) is not None:
            self._canary.start(due)
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
