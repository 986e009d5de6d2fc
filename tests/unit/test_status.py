"""The status of small histories: levels with their reasons, and the numbers behind them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpbackup.model.catalog import Catalog, Damaged
from kpbackup.plan.schedule import Timing
from kpbackup.service import metrics, trust
from kpbackup.service.status import Drill, Level, Objectives, Recovery, Status, assess
from tests.unit.plain_histories import Source, catalog, when

OBJECTIVES = Objectives(rpo=timedelta(hours=4), rto=timedelta(minutes=30), drill=timedelta(days=35))
TIMINGS = {"full": Timing(UTC, "0 2 * * *"), "incremental": Timing(UTC, "0 * * * *")}


def nightly(days: int = 2) -> Source:
    """A full each night at two, the archive up to two o'clock of the day after the last."""
    source = Source()
    for day in range(days):
        source.full(day * 24 + 2)
        source.archive(day * 24 + 26)
    return source


def judged(found: Catalog, now: datetime, recoveries: tuple[Recovery, ...] = (), **more: Any) -> Status:
    return assess(found, recoveries, timings=TIMINGS, now=now, **{"objectives": OBJECTIVES, **more})


def texts(status: Status, level: Level) -> str:
    return "; ".join(one.text for one in status.reasons if one.level is level)


def test_everything_as_promised() -> None:
    status = judged(catalog(nightly().history()), when(51))
    assert status.level is Level.OK and status.chain_intact
    assert (status.recovery_point, status.achieved_rpo) == (when(50), timedelta(hours=1))
    assert status.last_success == {
        "full": when(26) + timedelta(minutes=10),
        "incremental": when(50) + timedelta(minutes=1),
        "restore": None,
        "check": None,
    }
    assert status.next_runs == {"full": when(74), "incremental": when(52)}
    assert status.newest_set is not None and status.newest_set.duration == timedelta(minutes=10)
    assert (status.segments, status.archive_bytes, status.total_bytes) == (4, 200, 400)
    assert [one.proven_by for one in status.sets] == [None, None]


@pytest.mark.parametrize(
    ("hours", "level"), [(1, Level.OK), (2, Level.OK), (3, Level.WARNING), (4, Level.WARNING), (5, Level.CRITICAL)]
)
def test_rpo_against_the_objective(hours: int, level: Level) -> None:
    status = judged(catalog(nightly().history()), when(50 + hours))
    assert status.level is level
    assert f"achieved RPO {hours}h, promised 4h" in texts(status, level)


def test_an_observation_moves_the_recovery_point() -> None:
    source = nightly()
    source.observe(60)
    status = judged(catalog(source.history()), when(61))
    assert status.recovery_point == when(60) and status.level is Level.OK
    assert status.last_success["incremental"] == when(60)


def test_no_set_is_critical() -> None:
    empty = Source().history()
    for found in (catalog(), catalog(empty)):
        status = judged(found, when(1))
        assert status.level is Level.CRITICAL and "no backup set" in texts(status, Level.CRITICAL)
        assert (status.recovery_point, status.achieved_rpo, status.chain_intact) == (None, None, False)


def test_a_gap_is_critical() -> None:
    status = judged(catalog(nightly().history(without_segments=[2])), when(51))
    assert status.level is Level.CRITICAL and not status.chain_intact
    assert "segments 2 to 2 are missing" in texts(status, Level.CRITICAL)
    assert [(window.start, window.sets) for window in status.windows] == [(when(2), ("0001-1",)), (when(26), ("0001-2",))]


def test_a_damaged_manifest_is_critical() -> None:
    history = nightly().history(damaged=[Damaged("somewhere", "flipped")])
    status = judged(catalog(history), when(51))
    assert status.level is Level.CRITICAL and "1 manifests are damaged" in texts(status, Level.CRITICAL)


def test_a_set_the_archive_has_not_reached_is_no_gap() -> None:
    source = nightly()
    source.full(52)
    status = judged(catalog(source.history()), when(53))
    assert status.chain_intact and status.recovery_point == when(52)


def test_two_missed_full_backups_are_a_warning() -> None:
    source = nightly()
    for end in (51, 73, 75, 99):
        source.archive(end)
        level = Level.WARNING if end > 74 else Level.OK  # at 74 the second of two passed
        assert judged(catalog(source.history()), when(end)).level is level, end
    assert "passed twice since" in texts(judged(catalog(source.history()), when(99)), Level.WARNING)


def test_a_failed_check_is_critical_until_one_passes() -> None:
    good, bad = trust.Check(when(40), True, 70, 9, 3, 0), trust.Check(when(45), False, 70, 9, 3, 2)
    history = catalog(nightly().history())
    status = judged(history, when(51), trust=trust.Trust(last_check=bad, last_passed_check=good))
    assert status.level is Level.CRITICAL and "failed: 2 problems" in texts(status, Level.CRITICAL)
    assert status.last_success["check"] == when(40)
    samples = metrics.samples(metrics.Observed("shop", when(51), status))
    assert samples["kpbackup_check_last_passed"] == [((), 0.0)] and samples["kpbackup_check_problems"] == [((), 2)]
    assert (("check",), when(40).timestamp()) in samples["kpbackup_last_success_timestamp_seconds"]
    assert judged(history, when(51), trust=trust.Trust(last_check=good, last_passed_check=good)).level is Level.OK
    limits = trust.Limits(check=timedelta(hours=10))
    old = judged(history, when(51), trust=trust.Trust(limits, last_check=good, last_passed_check=good))
    assert texts(old, Level.WARNING) == "the newest check is 11h old, allowed are 10h (objectives.check): run `kpbackup check`"
    failed = judged(history, when(51), trust=trust.Trust(limits, last_check=bad, last_passed_check=good))
    assert "old" not in texts(failed, Level.WARNING)  # that it failed says more
    unfinished = trust.Trust(last_check=replace(bad, problems=0))
    assert "could not finish" in texts(judged(history, when(51), trust=unfinished), Level.CRITICAL)


def test_an_overdue_drill_is_a_warning_by_the_objective_that_its_alert_has() -> None:
    history = catalog(nightly().history())
    passed = Drill("a", when(40), True)
    promised = replace(OBJECTIVES, drill=timedelta(hours=10))
    old = judged(history, when(51), objectives=promised, drills=[passed])
    assert texts(old, Level.WARNING) == "the newest drill is 11h old, allowed are 10h (objectives.drill): run `kpbackup drill`"
    assert judged(history, when(50), objectives=promised, drills=[passed]).level is Level.OK
    assert judged(history, when(51), objectives=promised).level is Level.OK  # not everybody has a server for it
    failed = judged(history, when(51), objectives=promised, drills=[passed, replace(passed, run="b", passed=False)])
    assert texts(failed, Level.WARNING) == "the newest drill (b) failed"
    samples = metrics.samples(metrics.Observed("shop", when(51), old))
    assert samples["kpbackup_drill_max_age_seconds"] == [((), 36_000.0)]


def test_what_the_newest_prune_did_is_in_the_metrics() -> None:
    history = catalog(nightly().history())
    samples = metrics.samples(metrics.Observed("shop", when(51), judged(history, when(51))))
    assert not [name for name in samples if name.startswith("kpbackup_prune_")]
    pruned = trust.Trust(last_prune=trust.Prune(when(50), True, 7, 3, 2))
    samples = metrics.samples(metrics.Observed("shop", when(51), judged(history, when(51), trust=pruned)))
    assert {name.removeprefix("kpbackup_prune_"): found for name, found in samples.items() if "_prune_" in name} == {
        "last_end_timestamp_seconds": [((), when(50).timestamp())], "last_passed": [((), 1.0)], "deleted_objects": [((), 7)],
        "kept_by_lock_objects": [((), 3)], "renewed_locks": [((), 2)],
    }  # fmt: skip


@pytest.mark.parametrize(("nights", "level"), [(7, Level.OK), (8, Level.WARNING)])
def test_a_week_of_sets_without_any_check_is_told(nights: int, level: Level) -> None:
    status = judged(catalog(nightly(nights).history()), when(nights * 24 + 3))
    assert status.level is level
    assert ("8 sets are stored and nothing was ever checked" in texts(status, Level.WARNING)) == (nights == 8)


def test_a_recovery_proves_its_set_and_measures_the_rto() -> None:
    runs = (
        Recovery("r1", "0001-1", when(30), True, 600.0),
        Recovery("r2", "0001-2", when(40), False, 60.0),
        Recovery("r3", "0001-1", when(45), True, 2400.0),
    )
    status = judged(catalog(nightly().history()), when(51), runs)
    assert [one.proven_by for one in status.sets] == ["r3", "r2"]
    assert {kind: one.measured_rto_s for kind, one in status.measured_rto.items()} == {"restore": 2400.0, "database": 60.0}
    assert status.last_success["restore"] == when(45)
    assert status.level is Level.WARNING and "measured RTO 40m" in texts(status, Level.WARNING)


def test_clocks_that_disagree_are_told() -> None:
    found = catalog(nightly().history())
    status = judged(found, when(49))
    assert status.level is Level.WARNING and "cannot be told" in texts(status, Level.WARNING)
    known = judged(found, when(49), clock_skew=timedelta(hours=2))
    assert known.level is Level.OK and known.achieved_rpo == timedelta(hours=1)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.sets(st.integers(1, 12)), st.integers(0, 200))
def test_numbers_agree_with_one_another(steps: list[int], lost: set[int], later: int) -> None:
    source, hour = Source(), 1
    source.full(hour)
    for step in steps:
        hour += step
        source.archive(hour)
    status = judged(catalog(source.history(without_segments=lost)), when(hour + later))
    assert status.achieved_rpo is not None and status.recovery_point is not None
    assert status.recovery_point == max(window.end for window in status.windows)
    assert status.achieved_rpo >= timedelta(hours=later)
    assert (status.level is Level.CRITICAL) == (bool(status.gaps) or status.achieved_rpo > OBJECTIVES.rpo)
    assert {one.level for one in status.reasons} & {status.level}


def test_the_metrics_show_what_the_status_says() -> None:
    run = Recovery("r1", "0001-2", when(40), True, 61.5)
    status = judged(catalog(nightly().history()), when(51), (run,))
    observed = metrics.Observed("shop-db", when(52), status, store_up=True, failures={"full": 3}, running={"full": True})
    text = metrics.exposition(observed).decode()
    assert 'kpbackup_achieved_rpo_seconds{source="shop-db"} 7200.0' in text  # an hour later than the reading
    assert 'kpbackup_measured_rto_seconds{kind="restore",source="shop-db"} 61.5' in text
    assert 'kpbackup_job_failures_total{kind="full",source="shop-db"} 3.0' in text
    assert 'kpbackup_proven_sets{source="shop-db"} 1.0' in text
    assert "kpbackup_source_up" not in text and "kpbackup_certificate" not in text  # not known, so not shown
    before = metrics.exposition(metrics.Observed("shop-db", when(52))).decode()
    assert 'kpbackup_store_up{source="shop-db"} 0.0' in before and "achieved_rpo" not in before


def test_the_metrics_show_a_gap_as_two_windows() -> None:
    """A day without a segment in the middle: what is before it, what the next set begins, and that the chain is not whole."""
    source = Source()
    for day in range(3):
        source.full(day * 24 + 2)
        source.archive(day * 24 + 26)
    broken = judged(catalog(source.history(without_segments={3})), when(75))
    found = metrics.samples(metrics.Observed("db", when(75), broken, store_up=True))
    assert found["kpbackup_chain_intact"] == [((), 0.0)]
    assert found["kpbackup_timelines"] == [(("first",), 1.0)]
    ends = found["kpbackup_window_end_timestamp_seconds"]
    starts = found["kpbackup_window_start_timestamp_seconds"]
    assert found["kpbackup_recoverable_windows"] == [((), float(len(broken.windows)))] == [((), 2.0)]
    assert [labels for labels, _ in starts] == [labels for labels, _ in ends] == [("0001", "0001-1"), ("0001", "0001-3")]
    assert ends[0][1] < starts[1][1]
    whole = metrics.samples(metrics.Observed("db", when(75), judged(catalog(source.history()), when(75)), store_up=True))
    assert (whole["kpbackup_chain_intact"], whole["kpbackup_recoverable_windows"]) == ([((), 1.0)], [((), 1.0)])
