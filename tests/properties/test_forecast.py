"""The forecast: exact where growth is a line, moved by no odd set, silent where too little is stored."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kpbackup.model import manifest
from kpbackup.model.catalog import Catalog
from kpbackup.plan import forecast
from kpbackup.plan.forecast import DAY, Forecast, Growing, Measured, Prices, growth, predict
from tests.unit.plain_histories import START, Source, catalog, when

OBJECTIVE = timedelta(minutes=30)
RETENTION = timedelta(days=31)
days = st.integers(0, 80)
slopes = st.integers(-1000, 1000)


def line(numbers: list[int], per_day: float, first: float = 1e6) -> list[tuple[datetime, float]]:
    return [(START + timedelta(days=number), first + per_day * number) for number in numbers]


def nightly(sizes: list[int], *, per_hour: int = 100) -> Catalog:
    """A set of so many row bytes each night, and the binlog archived up to the last one."""
    source = Source()
    for day in range(len(sizes)):
        source.full(day * 24)
        if day:
            source.archive(day * 24)
    sets = tuple(
        replace(one, totals=replace(one.totals, row_bytes=size, stored_bytes=size // 10))
        for one, size in zip(source.sets, sizes, strict=True)
    )
    segments = tuple(replace(one, raw_bytes=one.raw_bytes // 100 * per_hour) for one in source.segments)
    return catalog(replace(source.history(), sets=sets, segments=segments))


def told(found: Catalog, *measured: Measured, prices: Prices = Prices(), now: datetime | None = None) -> Forecast:  # noqa: B008
    newest = found.histories[-1].sets[-1].clock if found.histories and found.histories[-1].sets else START
    return predict(found, measured, objective_rto=OBJECTIVE, retention=RETENTION, now=now or newest, prices=prices)


# -- growth


@given(st.lists(days, min_size=3, max_size=100, unique=True), slopes)
def test_the_slope_of_a_line_is_found(numbers: list[int], per_day: int) -> None:
    numbers.sort()
    found = growth(line(numbers, per_day))
    if numbers[-1] - numbers[0] < 7:
        assert found is None
    else:
        assert found == pytest.approx(per_day, abs=1e-6)


@given(st.lists(st.tuples(days, st.integers(0, 10**12)), min_size=1, max_size=80, unique_by=lambda pair: pair[0]))
def test_growth_lies_between_what_was_seen(pairs: list[tuple[int, int]]) -> None:
    points = [(START + timedelta(days=number), float(size)) for number, size in sorted(pairs)]
    found = growth(points)
    if found is not None:
        seen = [(later - one) / ((then - at) / DAY) for at, one in points for then, later in points if then > at]
        assert min(seen) <= found <= max(seen)
    else:
        assert len(points) < 3 or points[-1][0] - points[0][0] < timedelta(days=7)


@given(st.integers(8, 60), slopes, st.integers(0, 59), st.integers(0, 10**12))
def test_one_odd_set_changes_nothing(count: int, per_day: int, odd: int, size: int) -> None:
    points = line(list(range(count)), per_day)
    points[odd % count] = (points[odd % count][0], float(size))
    assert growth(points) == pytest.approx(per_day, abs=1e-6)


@given(st.integers(1, 400))
def test_however_many_there_are_the_work_is_bounded(count: int) -> None:
    picked = forecast._picked(line(list(range(count)), 1.0))
    assert len(picked) == min(count, forecast.MOST_SETS) and len(set(picked)) == len(picked)
    assert (picked[0], picked[-1]) == (line([0], 1.0)[0], line([count - 1], 1.0)[0])


# -- the recovery time


@given(st.floats(0, 1e6), st.floats(-1e5, 1e5), st.floats(1, 1e6))
def test_the_objective_is_met_until_the_moment_that_is_told_and_not_after(now: float, per_day: float, objective: float) -> None:
    time = Growing(now, per_day)
    found = forecast.exceeded_at(time, objective, START)
    if found is None:
        assert now <= objective and (time.at(forecast.FARTHEST) or 0.0) <= objective * (1 + 1e-9)
        return
    assert found >= START
    if found > START:
        assert time.at(found - START) == pytest.approx(objective, rel=1e-6, abs=per_day * 1e-6)
        assert now <= objective
    else:
        assert now >= objective * (1 - 1e-9) or per_day > objective  # so steep that it is the same moment


@settings(max_examples=25, deadline=None)
@given(st.integers(10, 40), st.integers(0, 100_000), st.integers(1, 4000))
def test_a_recovery_takes_longer_as_the_rows_do(count: int, per_day: int, seconds: int) -> None:
    sizes = [1_000_000 + per_day * day for day in range(count)]
    rto = told(nightly(sizes), Measured("r1", "restore", float(seconds), "0001-1")).rto
    assert rto is not None and rto.time.per_day is not None
    assert rto.time.now == pytest.approx(seconds * sizes[-1] / sizes[0])
    assert rto.time.per_day == pytest.approx(seconds * per_day / sizes[0], abs=1e-6)


def test_the_slowest_kind_of_recovery_counts() -> None:
    found = told(
        nightly([1_000_000] * 5 + [2_000_000] * 5),
        Measured("r1", "restore", 600.0, "0001-1"), Measured("d1", "drill", 900.0, "0001-10"),
        Measured("r0", "database", 1.0, "0009-9"),
    )  # fmt: skip
    assert found.rto is not None and (found.rto.measured.run, found.rto.time.now) == ("r1", 1200.0)


@pytest.mark.parametrize(("seconds", "warns", "past"), [(600.0, False, False), (1200.0, True, False), (1700.0, True, True)])
def test_it_warns_a_month_before(seconds: float, warns: bool, past: bool) -> None:
    """Ten thousand bytes more a day on a million: in thirty days nearly a third more."""
    found = told(nightly([1_000_000 + 20_000 * day for day in range(10)]), Measured("r1", "restore", seconds, "0001-1"))
    assert found.warns is warns and found.rto is not None and found.rto.exceeded_at is not None
    assert (found.rto.exceeded_at == found.at) is past


# -- too little


def test_nothing_is_drawn_from_too_little() -> None:
    empty = told(catalog())
    assert (empty.database, empty.binlog, empty.rto, empty.repository.at(DAY)) == (None, None, None, None)
    assert len(empty.unknown) == 3 and "none was measured yet" in empty.unknown[2]
    one = told(nightly([1000]), Measured("r1", "drill", 60.0, "0001-1"), prices=Prices(0.02, 0.005))
    assert one.database is not None and one.database.at(DAY) is None
    assert one.rto is not None and one.rto.time.at(DAY) is None and one.rto.exceeded_at is None and not one.warns
    assert one.cost_per_month(DAY) is None and one.cost_per_month(timedelta()) is None
    assert "1 backup set over 0s" in one.unknown[0] and "3 over 7 days are needed" in one.unknown[0]
    assert "a day is needed" in one.unknown[1]
    week = told(nightly([1000] * 7))
    assert week.database is not None and week.database.per_day is None and "7 backup sets over 6d" in week.unknown[0]
    assert told(nightly([1000] * 8)).unknown == ("recovery time: none was measured yet; run `kpbackup drill`",)
    gone = told(nightly([1000] * 8), Measured("r1", "restore", 60.0, "0001-99"))
    assert gone.rto is None and "no longer stored" in gone.unknown[0]


def test_old_sets_are_no_trend() -> None:
    source = nightly([1_000_000 + 1000 * day for day in range(10)])
    late = told(source, now=when(24 * 300))
    assert late.sets == 0 and late.database is not None and late.database.per_day is None


# -- binlog, repository, cost


@settings(max_examples=25, deadline=None)
@given(st.integers(10, 40), st.integers(1, 10_000))
def test_the_binlog_of_a_day(count: int, per_hour: int) -> None:
    found = told(nightly([1_000_000] * count, per_hour=per_hour))
    assert found.binlog is not None
    assert found.binlog.days == pytest.approx(count - 1, rel=0.01)
    assert found.binlog.raw_per_day == pytest.approx(24 * per_hour, rel=0.01)
    assert found.binlog.stored_per_day == pytest.approx(50, rel=0.01)  # a segment of 50 bytes a day


@settings(max_examples=25, deadline=None)
@given(st.integers(10, 120), st.integers(0, 365))
def test_a_repository_fills_until_retention_releases_as_much(count: int, ahead: int) -> None:
    """A set of 100,000 bytes each night, all of the same size: what is stored levels off after the retention."""
    assume(not 30 <= count <= 32)
    found = told(nightly([1_000_000] * count))
    size = found.repository.at(timedelta(days=ahead))
    assert size is not None and found.repository.stored_per_day == pytest.approx(100_050, rel=0.01)
    more = size - found.repository.now
    if count < 30:
        assert more == pytest.approx(100_050 * min(ahead, 32 - count), rel=0.02, abs=1)
    elif count < 62:
        assert more == 0
    elif count > 64:
        assert more == pytest.approx(100_050 * ahead, rel=0.02, abs=1), "nobody prunes"


def test_the_cost_is_that_of_storage_and_requests() -> None:
    stored = [manifest.StoredObject("a", 5 << 20, ""), manifest.StoredObject("b", (5 << 20) + 1, "")]
    plain = nightly([10**10] * 10)
    (history,) = plain.histories
    with_objects = replace(history, sets=(*history.sets[:-1], replace(history.sets[-1], objects=tuple(stored))))
    found = told(replace(plain, histories=(with_objects,)), prices=Prices(0.02, 0.005))
    # 1 + 4 requests of the two objects, the inventory, manifest and key; a segment a day
    assert found.puts_per_month == pytest.approx((1 + 4 + 1 + 2 + 1) * 365.25 / 12, rel=0.02)
    assert found.repository.now == 10 * 10**9 + 9 * 50
    assert found.cost_per_month(timedelta()) == pytest.approx(0.2 + (found.puts_per_month or 0) / 1000 * 0.005, rel=1e-6)
    assert told(plain, prices=Prices(0.02)).cost_per_month(timedelta()) == pytest.approx(0.2, rel=1e-6)
    assert told(plain, prices=Prices(None, 0.005)).cost_per_month(timedelta()) is None
