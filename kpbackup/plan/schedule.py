"""Which jobs are due: cron times in a time zone, and catching up after downtime. The only user of croniter."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from croniter import croniter


@dataclass(frozen=True)
class Due:
    """A job to run now, and why."""

    kind: str
    reason: str


def last_due(expression: str, zone: tzinfo, now: datetime) -> datetime:
    """The newest moment at or before `now` that the expression names, as aware UTC."""
    local = now.astimezone(zone)
    if croniter.match(expression, local):
        return local.replace(second=0, microsecond=0).astimezone(UTC)
    found: datetime = croniter(expression, local).get_prev(datetime)
    return found.astimezone(UTC)


def next_run(expression: str, zone: tzinfo, now: datetime) -> datetime:
    """The first moment after `now` that the expression names, as aware UTC."""
    found: datetime = croniter(expression, now.astimezone(zone)).get_next(datetime)
    return found.astimezone(UTC)


def due(kind: str, expression: str, zone: tzinfo, *, now: datetime, last_success: datetime | None,
        last_attempt: datetime | None) -> Due | None:
    """The job if a scheduled moment passed since it last succeeded and was not tried since then.

    However many runs were missed while nobody ran, one is made up for. A failed run is not repeated before the next
    scheduled moment: that is the caller's retry rule to add.
    """
    moment = last_due(expression, zone, now)
    if last_attempt is not None and last_attempt >= moment:
        return None
    if last_success is not None and last_success >= moment:
        return None
    if last_success is None:
        return Due(kind, "it has never succeeded")
    late_s = int((now - moment).total_seconds())
    return Due(kind, f"scheduled for {moment:%Y-%m-%dT%H:%MZ}" + (f", {late_s} s late" if late_s > 60 else ""))
