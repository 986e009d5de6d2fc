"""What of the daemon's jobs is worth telling: the first failure of a row, that it works again, and successes for the switch.

A job that fails is tried again and again; only the first failure is told, and then its end. A continuous archive never ends
well by itself: that it works is seen from a newer success in the repository than at its failure.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from kpbackup import errors
from kpbackup.service.jobs import Ending, Job, Outcome

FAILED = (Ending.FAILED, Ending.BROKEN, Ending.DIED)


class Told(Protocol):
    """What is needed of a Notifier."""

    def tell(self, occasion: str, *, kind: str, level: str, title: str, text: str) -> None: ...

    def succeeded(self, kind: str) -> None: ...


class JobNews:
    """`archived` is called by the supervising loop again and again, `ended` for each run that ended."""

    def __init__(self, notifier: Told) -> None:
        self._notifier = notifier
        self._failing: dict[str, datetime | None] = {}  # kind -> the newest success in the archive when it failed
        self._newest: datetime | None = None

    def ended(self, job: Job, outcome: Outcome) -> None:
        if outcome.ending in FAILED:
            if job.kind not in self._failing:
                self._failing[job.kind] = self._newest
                is_broken = outcome.ending is Ending.BROKEN
                title = "the archive is broken, a full backup starts" if is_broken else f"{job.kind} failed"
                self._notifier.tell("failure", kind=job.kind, level="error", title=title, text=told(outcome.error))
        elif outcome.ending is Ending.DONE:
            self._notifier.succeeded(job.kind)
            self._works_again(job.kind)

    def archived(self, newest: datetime | None, *, follows: bool) -> bool:
        """`newest` is the last success of an incremental in the repository, `follows` whether this process's continuous archive
        made it. True when the continuous archive works again after a failure."""
        if newest is None or newest == self._newest:
            return False
        is_first, self._newest = self._newest is None, newest
        if not follows or is_first:
            return False
        self._notifier.succeeded("incremental")
        before = self._failing.get("incremental", newest)
        return (before is None or newest > before) and self._works_again("incremental")

    def _works_again(self, kind: str) -> bool:
        if kind not in self._failing:
            return False
        del self._failing[kind]
        self._notifier.tell("recovered", kind=kind, level="info", title=f"{kind} works again", text="The last run ended well.")
        return True


def told(error: BaseException | None) -> str:
    """Message and hint of an error, for people."""
    if isinstance(error, errors.KpbackupError) and error.hint:
        return f"{error.message}\nhint: {error.hint}"
    return str(error)
