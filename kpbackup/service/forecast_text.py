"""A forecast in words and as a table, the same on the page and in the terminal. Pure: what is not known is a question mark."""

from __future__ import annotations

from datetime import timedelta, tzinfo

from kpbackup import quantities
from kpbackup.model import times
from kpbackup.plan.forecast import Forecast

COLUMNS = ("", "now", "in 30 days", "in a year", "grows")
AHEAD = (timedelta(), timedelta(days=30), timedelta(days=365))


def rows(found: Forecast) -> list[tuple[str, ...]]:
    """Lines of the table; a line without anything known is left out."""
    lines: list[tuple[str, ...]] = []
    if (database := found.database) is not None:
        grows = f"{size(database.per_day)} a day" if database.per_day is not None else "?"
        lines.append(("database (rows)", *(size(database.at(ahead)) for ahead in AHEAD), grows))
    if (binlog := found.binlog) is not None:
        lines.append(("binlog a day", size(binlog.raw_per_day), "", "", f"{size(binlog.stored_per_day)} of it as stored"))
    stored = found.repository
    inflow = f"{size(stored.stored_per_day)} a day stored" if stored.stored_per_day is not None else "?"
    lines.append(("repository", *(size(stored.at(ahead)) for ahead in AHEAD), inflow))
    if (rto := found.rto) is not None:
        lines.append(("recovery", *(duration(rto.time.at(ahead)) for ahead in AHEAD), ""))
    if found.prices.per_gb_month is not None:
        costs = (found.cost_per_month(ahead) for ahead in AHEAD)
        lines.append(("cost a month", *(f"{cost:.2f}" if cost is not None else "?" for cost in costs), ""))
    return lines


def basis(found: Forecast) -> str:
    """What it is drawn from."""
    return f"from {quantities.count(found.sets, 'backup set')} over {quantities.format_duration(found.span)}"


def told(found: Forecast, zone: tzinfo) -> str:
    """Until when the promised RTO holds; "" without a measured recovery."""
    if (rto := found.rto) is None:
        return ""
    promised = duration(rto.objective)
    measured = f"(measured: {duration(rto.measured.seconds)}, {rto.measured.kind} {rto.measured.run})"
    if rto.exceeded_at is not None and rto.exceeded_at <= found.at:
        return f"a recovery takes longer than the promised {promised} now {measured}"
    if rto.exceeded_at is not None:
        day = times.format_moment(rto.exceeded_at.replace(microsecond=0), zone)
        return f"a recovery takes longer than the promised {promised} from {day} on {measured}"
    if rto.time.per_day is None:
        return f"until when the promised {promised} holds is not known {measured}"
    return f"the promised {promised} holds for ten years and more {measured}"


def size(bytes_: float | None) -> str:
    return quantities.format_size(round(bytes_)) if bytes_ is not None else "?"


def duration(seconds: float | None) -> str:
    return quantities.format_duration(timedelta(seconds=seconds)) if seconds is not None else "?"
