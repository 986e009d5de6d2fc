"""The daemon's jobs beside backups: canaries. Each runs by its own schedule, off unless that is set.

What was done last is read from the repository, so a restarted daemon does not do it again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from kpbackup import config
from kpbackup.repository import canary
from kpbackup.service import opening, reading
from kpbackup.service.jobs import Job

if TYPE_CHECKING:
    from kpbackup.plan import schedule
    from kpbackup.repository.binding import Repository

CANARY_APART = timedelta(hours=1)  # two daemons that are due at once make one canary

Open = Callable[[], "Repository"]


class SideJobs:
    """`repository` gives the repository to work on, stoppable at safe points."""

    def __init__(self, settings: config.Settings, repository: Open) -> None:
        self._settings, self._repository = settings, repository
        timings = reading.timings(settings)
        self._canary = Job("canary", timings["canary"], self._make_canaries)
        self.jobs = (self._canary,)

    def start_due(self, state: reading.State, now: datetime) -> None:
        """Starts what is due and does not run yet."""
        last = {"canary": max((one.newest_at for one in state.canaries), default=None)}
        for job in self.jobs:
            if not job.is_running and (due := job.due(now, last[job.kind])) is not None:
                job.start(due)

    def _make_canaries(self, due: schedule.Due) -> dict[str, Any]:
        made = canary.renew(
            self._repository(), opening.recipients(self._settings), now=datetime.now(UTC), older_than=CANARY_APART
        )
        return {"canaries": len(made)}
