"""How database, archive and repository grow, and until when a recovery stays within its objective: from what is stored alone.

Pure: the catalog, the newest measured recoveries, prices and the time are passed in. Growth of the database is the median of the
slopes between any two sets (Theil-Sen), so that one odd set changes nothing, over the last ninety days; what lies ahead is that
line drawn on. A recovery is taken to take as much longer as there are more rows than in the set that it restored.

Limits: what is not known is None and `unknown` says why; nothing is drawn on from one point. The trend is a line: a table that
doubles is seen late. What prune has released is no longer seen, so history is as long as retention. Weekly, monthly and yearly
sets are not told apart from the others.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kpbackup import quantities
from kpbackup.model.catalog import Catalog, History
from kpbackup.model.manifest import BackupSet

LEAST_SETS = 3
LEAST_SPAN = timedelta(days=7)  # below a whole week the week's own rhythm would be taken for growth
LEAST_ARCHIVED = timedelta(days=1)  # a day has its rhythm too
LOOK_BACK = timedelta(days=90)
MOST_SETS = 60  # evenly picked: slopes are drawn between any two
HORIZON = timedelta(days=30)  # of the warning: time to act in
FARTHEST = timedelta(days=3650)  # beyond ten years a date means nothing
MONTH = timedelta(days=365.25 / 12)
GB = 10**9
PART_BYTES = 5 << 20  # what a large object is uploaded in (storage/parts.py)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Prices:
    """What the store takes; None is not known, and then neither is the cost."""

    per_gb_month: float | None = None
    per_1000_puts: float | None = None


@dataclass(frozen=True)
class Measured:
    """A recovery that ended, with the set that it restored."""

    run: str
    kind: str
    seconds: float
    backup_set: str


@dataclass(frozen=True)
class Growing:
    """A size now and how it grows; `per_day` is None where that is not known."""

    now: float
    per_day: float | None

    def at(self, ahead: timedelta) -> float | None:
        """The size so far ahead, on the line."""
        if not ahead:
            return self.now
        return max(self.now + self.per_day * (ahead / DAY), 0.0) if self.per_day is not None else None


@dataclass(frozen=True)
class Binlog:
    """What the source wrote in a day, as it was read and as it is stored, over `days` archived days."""

    raw_per_day: float
    stored_per_day: float
    days: float


@dataclass(frozen=True)
class Stored:
    """Size of the repository: it fills by what is stored in a day until retention releases as much (`filling_days`, None while
    nothing is released), and then grows as the sets do, of which it keeps `kept`."""

    now: int
    stored_per_day: float | None
    filling_days: float | None
    set_growth_per_day: float | None
    kept: int

    def at(self, ahead: timedelta) -> float | None:
        """The size so far ahead."""
        if not ahead:
            return float(self.now)
        if self.stored_per_day is None or self.set_growth_per_day is None:
            return None
        days = ahead / DAY
        filled = self.stored_per_day * (days if self.filling_days is None else min(days, self.filling_days))
        return max(self.now + filled + self.set_growth_per_day * days * self.kept, 0.0)


@dataclass(frozen=True)
class Rto:
    """The recovery the prediction is made from, and what one takes now. `exceeded_at`: the first moment at which it takes longer
    than promised, in the past when it already does; None when that is not known, or not within ten years."""

    measured: Measured
    time: Growing
    objective: float
    exceeded_at: datetime | None


@dataclass(frozen=True)
class Forecast:
    """What can be said at `at`, from `sets` backup sets over `span`; `unknown` is what cannot be said, and why."""

    at: datetime
    sets: int
    span: timedelta
    database: Growing | None
    binlog: Binlog | None
    repository: Stored
    rto: Rto | None
    puts_per_month: float | None
    prices: Prices
    unknown: tuple[str, ...] = ()

    def cost_per_month(self, ahead: timedelta) -> float | None:
        """What a month costs so far ahead: storage, and the requests that store. None without a price, or without a size."""
        size = self.repository.at(ahead)
        per_gb, per_puts = self.prices.per_gb_month, self.prices.per_1000_puts
        if per_gb is None or size is None or (per_puts is not None and self.puts_per_month is None):
            return None
        return size / GB * per_gb + (self.puts_per_month or 0.0) / 1000 * (per_puts or 0.0)

    @property
    def warns(self) -> bool:
        """Whether a recovery is going to take longer than promised within thirty days."""
        exceeded = self.rto.exceeded_at if self.rto is not None else None
        return exceeded is not None and exceeded <= self.at + HORIZON


def predict(
    catalog: Catalog,
    measured: Sequence[Measured],
    *,
    objective_rto: timedelta,
    retention: timedelta,
    now: datetime,
    prices: Prices = Prices(),  # noqa: B008 - frozen
) -> Forecast:
    """The forecast at `now`. `measured` are the newest recoveries, one of each kind: the slowest by today's rows counts."""
    sets = sorted((one for history in catalog.histories for one in history.sets), key=lambda one: one.clock)
    recent = [one for one in sets if one.clock > now - LOOK_BACK]
    span = recent[-1].clock - recent[0].clock if recent else timedelta()
    rows = growth([(one.clock, one.totals.row_bytes) for one in recent])
    stored = growth([(one.clock, one.totals.stored_bytes) for one in recent])
    database = Growing(float(sets[-1].totals.row_bytes), rows) if sets else None
    binlog, archived = _binlog(catalog)
    rto = _rto(sets, measured, database, objective_rto.total_seconds(), now)
    per_day = _sets_per_day(recent, span, rows)
    total = sum(one.totals.stored_bytes for one in sets) + sum(u.payload_bytes for h in catalog.histories for u in h.units)
    inflow = per_day * recent[-1].totals.stored_bytes + binlog.stored_per_day if per_day is not None and binlog else None
    begun = min((*_begins(catalog),) or [one.clock for one in sets], default=now)  # sets of months may be far older
    return Forecast(
        now, len(recent), span, database, binlog,
        Stored(total, inflow, _filling(begun, retention, now), stored, len(sets)),
        rto, _puts_per_month(catalog, recent, per_day, binlog), prices,
        tuple(_unknown(recent, span, rows, archived, binlog, rto, measured)),
    )  # fmt: skip


def growth(points: Sequence[tuple[datetime, float]]) -> float | None:
    """Bytes a day: the median slope between any two points; None when there are too few, or in too short a time."""
    picked = _picked(points)
    if len(picked) < LEAST_SETS or picked[-1][0] - picked[0][0] < LEAST_SPAN:
        return None
    slopes = [
        (later - earlier) / ((then - at) / DAY)
        for place, (at, earlier) in enumerate(picked)
        for then, later in picked[place + 1 :]
        if then > at
    ]
    return statistics.median(slopes)


def _picked(points: Sequence[tuple[datetime, float]]) -> list[tuple[datetime, float]]:
    """At most so many, evenly, the first and the last among them."""
    if len(points) <= MOST_SETS:
        return list(points)
    return [points[round(number * (len(points) - 1) / (MOST_SETS - 1))] for number in range(MOST_SETS)]


def _begins(catalog: Catalog) -> Iterator[datetime]:
    for history in catalog.histories:
        if history.units:
            yield history.units[0].first_commit_at or history.units[0].created_at


def _binlog(catalog: Catalog) -> tuple[Binlog | None, timedelta]:
    """What was archived in a day, None below a whole one; and how long the archive is."""
    archived = timedelta()
    raw = stored = 0
    for history in catalog.histories:
        if history.units:
            archived += _archived(history)
            raw += sum(unit.raw_bytes for unit in history.units)
            stored += sum(unit.payload_bytes for unit in history.units)
    if archived < LEAST_ARCHIVED:
        return None, archived
    days = archived / DAY
    return Binlog(raw / days, stored / days, days), archived


def _archived(history: History) -> timedelta:
    first, last = history.units[0], history.units[-1]
    seen = [last.created_at, *([history.observation.head.created_at] if history.observation is not None else [])]
    return max(max(seen) - (first.first_commit_at or first.created_at), timedelta())


def _sets_per_day(recent: Sequence[BackupSet], span: timedelta, rows: float | None) -> float | None:
    return (len(recent) - 1) / (span / DAY) if rows is not None else None


def _filling(begun: datetime, retention: timedelta, now: datetime) -> float | None:
    """Days until retention releases as much as is stored; None when it should and nothing was released: nobody prunes."""
    left = retention - (now - begun)
    if left < -max(retention, LEAST_SPAN):
        return None
    return max(left / DAY, 0.0)


def _rto(
    sets: Sequence[BackupSet], measured: Sequence[Measured], database: Growing | None, objective: float, now: datetime
) -> Rto | None:
    rows = {one.name: one.totals.row_bytes for one in sets}
    known = [(one.seconds / rows[one.backup_set], one) for one in measured if rows.get(one.backup_set)]
    if not known or database is None:
        return None
    per_byte, slowest = max(known, key=lambda pair: pair[0])
    time = Growing(per_byte * database.now, per_byte * database.per_day if database.per_day is not None else None)
    return Rto(slowest, time, objective, exceeded_at(time, objective, now))


def exceeded_at(time: Growing, objective: float, now: datetime) -> datetime | None:
    """When a line crosses the objective: now when it lies above, None when it never does or not within ten years."""
    if time.now > objective:
        return now
    if time.per_day is None or time.per_day <= 0 or objective - time.now > time.per_day * (FARTHEST / DAY):
        return None
    return now + (objective - time.now) / time.per_day * DAY


def _puts_per_month(
    catalog: Catalog, recent: Sequence[BackupSet], per_day: float | None, binlog: Binlog | None
) -> float | None:
    """Requests that store: of sets as the newest one, of segments, of observations. Pages and compacted objects are few."""
    if per_day is None or binlog is None:
        return None
    newest = recent[-1]
    parts = (one.bytes for one in (*newest.objects, *newest.definitions, newest.inventory))
    of_set = sum(_requests(size) for size in parts) + 2  # its manifest and its data key
    segments = sum(history.segment_count for history in catalog.histories) / binlog.days
    current = catalog.histories[-1]
    age = max((newest.clock - current.timeline.head.created_at) / DAY, 1.0)
    observations = current.newest.get("observations", (0, newest.clock))[0] / age
    return (of_set * per_day + segments + observations) * (MONTH / DAY)


def _requests(size: int) -> int:
    """Uploads in parts begin and end with a request each."""
    return 1 if size <= PART_BYTES else -(-size // PART_BYTES) + 2


def _unknown(
    recent: Sequence[BackupSet], span: timedelta, rows: float | None, archived: timedelta, binlog: Binlog | None,
    rto: Rto | None, measured: Sequence[Measured],
) -> Iterator[str]:  # fmt: skip
    if rows is None:
        yield (
            f"growth: {quantities.count(len(recent), 'backup set')} over {quantities.format_duration(span)} "
            f"in the last {LOOK_BACK.days} days; "
            f"{LEAST_SETS} over {LEAST_SPAN.days} days are needed"
        )
    if binlog is None:
        yield f"binlog per day: {quantities.format_duration(archived)} are archived; a day is needed"
    if not measured:
        yield "recovery time: none was measured yet; run `kpbackup drill`"
    elif rto is None:
        yield "recovery time: the sets of the measured recoveries are no longer stored, or empty; run `kpbackup drill`"
