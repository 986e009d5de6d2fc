"""Which jobs are due: cron times in a time zone, catching up after downtime, and trying again after a failure.

Pure: what the repository says of the last success and what this process tried are passed in, so that two daemons, or one
that was restarted, come to the same decision. The only user of croniter.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from croniter import croniter

FIRST_RETRY = timedelta(minutes=1)  # then 2, 4, ...: long enough not to hammer a server that is restarting


@dataclass(frozen=True)
class Due:
    """A job to run now, and why. `since` is the moment it was due: whoever did it after that has done this job."""

    kind: str
    reason: str
    since: datetime | None = None


@dataclass(frozen=True)
class Timing:
    """When a job runs: at the moments of a cron expression in `zone`, or `every` so long after it last ended."""

    zone: tzinfo
    cron: str | None = None
    every: timedelta | None = None

    def next_run(self, now: datetime) -> datetime | None:
        """The next scheduled moment; None when there is none, or when it runs all the time."""
        return next_run(self.cron, self.zone, now) if self.cron and self.every is None else None

    def period(self, now: datetime) -> timedelta:
        """How far apart the runs are around `now`."""
        if self.every is not None:
            return self.every
        if self.cron is None:
            return timedelta(hours=1)  # only jobs that were forced have none: they are retried hourly at most
        return next_run(self.cron, self.zone, now) - last_due(self.cron, self.zone, now)


@dataclass(frozen=True)
class Attempts:
    """What one process tried of one job. `failures` counts those in a row; before `look_again` another process does the work."""

    last_started: datetime | None = None
    last_ended: datetime | None = None
    failures: int = 0
    look_again: datetime | None = None


def last_due(expression: str, zone: tzinfo, now: datetime) -> datetime:
    """The newest moment at or before `now` that the expression names, as aware UTC."""
    local = now.astimezone(zone)
    if croniter.match(expression, local):
        return local.replace(second=0, microsecond=0).astimezone(UTC)
    return due_before(expression, zone, now)


def due_before(expression: str, zone: tzinfo, moment: datetime) -> datetime:
    """The newest moment before `moment` that the expression names, as aware UTC."""
    found: datetime = croniter(expression, moment.astimezone(zone)).get_prev(datetime)
    return found.astimezone(UTC)


def next_run(expression: str, zone: tzinfo, now: datetime) -> datetime:
    """The first moment after `now` that the expression names, as aware UTC."""
    found: datetime = croniter(expression, now.astimezone(zone)).get_next(datetime)
    return found.astimezone(UTC)


def due(
    kind: str, expression: str, zone: tzinfo, *, now: datetime, last_success: datetime | None, last_attempt: datetime | None
) -> Due | None:
    """The job if a scheduled moment passed since it last succeeded and was not tried since then.

    However many runs were missed while nobody ran, one is made up for. A failed run is not repeated here before the next
    scheduled moment: `due_now` adds the retries.
    """
    moment = last_due(expression, zone, now)
    if last_attempt is not None and last_attempt >= moment:
        return None
    if last_success is not None and last_success >= moment:
        return None
    if last_success is None:
        return Due(kind, "it has never succeeded")
    late_s = int((now - moment).total_seconds())
    return Due(kind, f"scheduled for {moment:%Y-%m-%dT%H:%MZ}" + (f", {late_s} s late" if late_s > 60 else ""), moment)


def due_now(kind: str, timing: Timing, attempts: Attempts, *, now: datetime, last_success: datetime | None) -> Due | None:
    """The job if its schedule or a retry says so, and no other process is known to do it."""
    if attempts.look_again is not None and now < attempts.look_again:
        return None
    retry = _retry(kind, timing, attempts, now=now, last_success=last_success)
    if timing.every is not None:
        waiting = attempts.failures > 0 and not _done_since(attempts, last_success)
        return retry if waiting else _repeated(kind, timing.every, attempts, now=now, last_success=last_success)
    if timing.cron is None:
        return retry
    scheduled = due(kind, timing.cron, timing.zone, now=now, last_success=last_success, last_attempt=attempts.last_started)
    return scheduled or retry


def retry_delay(failures: int, period: timedelta) -> timedelta:
    """How long to wait after so many failures in a row: 1, 2, 4, ... minutes, never longer than the schedule's own period."""
    first = min(FIRST_RETRY, period)
    longest = max(FIRST_RETRY, period)
    doubled: int = 1 << min(failures - 1, 20)
    return min(first * doubled, longest)


def _retry(kind: str, timing: Timing, attempts: Attempts, *, now: datetime, last_success: datetime | None) -> Due | None:
    if not attempts.failures or attempts.last_ended is None or _done_since(attempts, last_success):
        return None
    if now < attempts.last_ended + retry_delay(attempts.failures, timing.period(now)):
        return None
    times = f"{attempts.failures} times in a row" if attempts.failures > 1 else "last time"
    return Due(kind, f"it failed {times}", attempts.last_ended)


def _done_since(attempts: Attempts, last_success: datetime | None) -> bool:
    """Whether somebody succeeded after our last failure: then there is nothing to repeat."""
    return last_success is not None and attempts.last_ended is not None and last_success > attempts.last_ended


def _repeated(kind: str, every: timedelta, attempts: Attempts, *, now: datetime, last_success: datetime | None) -> Due | None:
    known = [moment for moment in (attempts.last_ended, last_success) if moment is not None]
    if known and now < max(known) + every:
        return None
    return Due(kind, "it runs all the time")
