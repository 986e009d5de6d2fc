"""One kind of job of the daemon: its thread, what came of it, and what follows from that.

A job ends in one of five ways. Only *failed* and *broken* count as failures. *Held*: another process has the role, so it is
looked at again later. *Stopped*: the daemon is ending. *Died*: a defect; the supervising loop ends the process with an error.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Any

from kpbackup import errors, logs, quantities
from kpbackup.plan import schedule
from kpbackup.service.stopping import Stopped

LOOK_AGAIN = timedelta(seconds=30)  # a lease's time to live: by then a dead holder's lease can be taken

logger = logging.getLogger(__name__)

Facts = dict[str, Any]
Work = Callable[[schedule.Due], Facts]


class Ending(Enum):
    DONE = auto()
    FAILED = auto()
    BROKEN = auto()  # ChainBroken: the archive cannot go on, a full backup must start a new timeline
    HELD = auto()
    STOPPED = auto()
    DIED = auto()


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `facts` are for the log."""

    ending: Ending
    due: schedule.Due
    started: datetime
    ended: datetime
    error: BaseException | None = None
    facts: Facts | None = None


class Job:
    """A kind of job. `start` and `take` are called by the supervising thread alone."""

    def __init__(self, kind: str, timing: schedule.Timing, work: Work) -> None:
        self.kind, self.timing = kind, timing
        self.attempts = schedule.Attempts()
        self.failures = 0  # since the process started, for the counter
        self._work = work
        self._thread: threading.Thread | None = None
        self._outcome: Outcome | None = None

    @property
    def is_running(self) -> bool:
        return self._thread is not None

    def due(self, now: datetime, last_success: datetime | None) -> schedule.Due | None:
        return schedule.due_now(self.kind, self.timing, self.attempts, now=now, last_success=last_success)

    def start(self, due: schedule.Due) -> None:
        """Starts the work in a thread of its own."""
        logs.event(logger, "job_started", kind=self.kind, reason=due.reason)
        self._outcome = None
        self._thread = threading.Thread(target=self._run, args=(due, datetime.now(UTC)), name=f"job-{self.kind}", daemon=True)
        self._thread.start()

    def take(self) -> Outcome | None:
        """The outcome of a run that has ended since, once; counted and logged."""
        if self._thread is None or self._thread.is_alive():
            return None
        self._thread = None
        outcome = self._outcome
        if outcome is None:
            raise errors.InternalError(f"the thread of the {self.kind} job ended without a word")
        self.attempts = self._after(outcome)
        self._tell(outcome)
        return outcome

    def join(self, timeout_s: float) -> bool:
        """Waits for a run to end; False when it did not in time."""
        if self._thread is not None:
            self._thread.join(max(timeout_s, 0))
            return not self._thread.is_alive()
        return True

    def run_soon(self) -> None:
        """Forgets earlier attempts: the schedule alone decides, so what is due runs at once."""
        self.attempts = schedule.Attempts()

    def works_again(self) -> None:
        """A job that does not end does its work: the failures before this run are over."""
        self.attempts = replace(self.attempts, failures=0)

    def _run(self, due: schedule.Due, started: datetime) -> None:
        def outcome(ending: Ending, error: BaseException | None = None, facts: Facts | None = None) -> None:
            self._outcome = Outcome(ending, due, started, datetime.now(UTC), error, facts)

        try:
            outcome(Ending.DONE, facts=self._work(due))
        except errors.LeaseHeld as exc:
            outcome(Ending.HELD, exc)
        except errors.ChainBroken as exc:
            outcome(Ending.BROKEN, exc)
        except (errors.KpbackupError, OSError) as exc:
            outcome(Ending.FAILED, exc)
        except Stopped as exc:
            outcome(Ending.STOPPED, exc)
        except Exception as exc:  # the task guard: handed to the supervising loop
            outcome(Ending.DIED, exc)

    def _after(self, outcome: Outcome) -> schedule.Attempts:
        if outcome.ending is Ending.HELD:
            return replace(self.attempts, look_again=outcome.ended + LOOK_AGAIN)
        failures = 0
        if outcome.ending in (Ending.FAILED, Ending.BROKEN):
            self.failures += 1
            failures = self.attempts.failures + 1
        return schedule.Attempts(last_started=outcome.started, last_ended=outcome.ended, failures=failures)

    def _tell(self, outcome: Outcome) -> None:
        took = quantities.format_duration(outcome.ended - outcome.started)
        if outcome.ending is Ending.DONE:
            logs.event(logger, "job_finished", kind=self.kind, took=took, **(outcome.facts or {}))
        elif outcome.ending is Ending.HELD:
            logs.event(logger, "job_postponed", kind=self.kind, reason=str(outcome.error))
        elif outcome.ending is Ending.STOPPED:
            logs.event(logger, "job_stopped", kind=self.kind, took=took)
        else:
            hint = outcome.error.hint if isinstance(outcome.error, errors.KpbackupError) else ""
            retry = schedule.retry_delay(self.attempts.failures, self.timing.period(outcome.ended))
            logs.event(
                logger,
                "job_failed",
                level=logging.ERROR,
                kind=self.kind,
                error=outcome.error,
                hint=hint,
                failures=self.attempts.failures,
                retry_in=quantities.format_duration(retry),
            )
