"""Schedules: cron in a zone with clock changes, catching up once, and trying again after a failure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpbackup.plan.schedule import Attempts, Timing, due_before, due_now, last_due, next_run, retry_delay

BERLIN = ZoneInfo("Europe/Berlin")
EXPRESSIONS = ["0 2 * * *", "30 2 * * *", "0 * * * *", "*/15 * * * *", "0 2 * * 0", "0 3 1 * *", "15 1,13 * * 1-5", "0 0 29 2 *"]
ZONES = [UTC, BERLIN, ZoneInfo("America/New_York"), ZoneInfo("Australia/Lord_Howe")]
NIGHTLY, HOURLY = Timing(UTC, "0 2 * * *"), Timing(UTC, "0 * * * *")
FIRST = datetime(2024, 1, 1, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


moments = st.integers(0, 366 * 86_400).map(lambda seconds: FIRST + timedelta(seconds=seconds))


@given(st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES), moments)
def test_before_and_after_fit_together(expression: str, zone: ZoneInfo, now: datetime) -> None:
    last, following = last_due(expression, zone, now), next_run(expression, zone, now)
    assert last <= now < following
    assert next_run(expression, zone, last) == following
    assert last_due(expression, zone, following) == following
    assert due_before(expression, zone, following) == last


def test_times_are_those_of_the_zone() -> None:
    assert next_run("0 2 * * *", BERLIN, at("2024-01-01T12:00")) == at("2024-01-02T01:00")
    assert next_run("0 2 * * *", BERLIN, at("2024-07-01T12:00")) == at("2024-07-02T00:00")


def test_a_night_whose_two_oclock_is_skipped_still_has_its_backup() -> None:
    runs, now = [], at("2024-03-29T12:00")
    for _ in range(4):
        now = next_run("0 2 * * *", BERLIN, now)
        runs.append(now.astimezone(BERLIN).date().day)
    assert runs == [30, 31, 1, 2]


def test_what_was_missed_is_made_up_once() -> None:
    now = at("2024-05-10T14:30")
    due = due_now("full", NIGHTLY, Attempts(), now=now, last_success=at("2024-05-03T02:10"))
    assert due is not None and due.since == at("2024-05-10T02:00") and "45000 s late" in due.reason
    assert due_now("full", NIGHTLY, Attempts(last_started=now, last_ended=now), now=now, last_success=now) is None
    assert due_now("full", NIGHTLY, Attempts(), now=now, last_success=at("2024-05-10T02:09")) is None


def test_what_never_succeeded_is_due_now() -> None:
    due = due_now("full", NIGHTLY, Attempts(), now=at("2024-05-10T14:30"), last_success=None)
    assert due is not None and due.since is None


def test_a_failure_is_repeated_with_growing_delay_and_at_the_schedule() -> None:
    ended = at("2024-05-10T10:00")
    for failures, minutes in ((1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (60, 60)):
        tried = Attempts(last_started=ended, last_ended=ended, failures=failures)
        assert retry_delay(failures, timedelta(hours=1)) == timedelta(minutes=minutes)
        early = ended + timedelta(minutes=min(minutes, 59), seconds=-1)
        assert due_now("incremental", HOURLY, tried, now=early, last_success=at("2024-05-10T09:00")) is None
        late = ended + timedelta(minutes=minutes)
        assert due_now("incremental", HOURLY, tried, now=late, last_success=at("2024-05-10T09:00")) is not None


def test_a_failure_is_forgotten_when_another_process_succeeds() -> None:
    tried = Attempts(last_started=at("2024-05-10T10:00"), last_ended=at("2024-05-10T10:00"), failures=1)
    assert due_now("incremental", HOURLY, tried, now=at("2024-05-10T10:30"), last_success=at("2024-05-10T10:05")) is None
    assert due_now("incremental", HOURLY, tried, now=at("2024-05-10T11:00"), last_success=at("2024-05-10T10:05")) is not None


def test_a_held_lease_is_looked_at_again() -> None:
    held = Attempts(look_again=at("2024-05-10T10:30"))
    assert due_now("full", NIGHTLY, held, now=at("2024-05-10T10:29"), last_success=None) is None
    assert due_now("full", NIGHTLY, held, now=at("2024-05-10T10:30"), last_success=None) is not None


def test_a_continuous_archive_repeats_after_its_interval() -> None:
    timing = Timing(UTC, None, timedelta(seconds=10))
    ended = at("2024-05-10T10:00")
    tried = Attempts(last_started=ended, last_ended=ended)
    assert due_now("incremental", timing, tried, now=ended + timedelta(seconds=9), last_success=None) is None
    assert due_now("incremental", timing, tried, now=ended + timedelta(seconds=10), last_success=None) is not None
    assert due_now("incremental", timing, Attempts(), now=ended, last_success=None) is not None
    # another process archived a moment ago
    assert (
        due_now("incremental", timing, tried, now=ended + timedelta(seconds=12), last_success=ended + timedelta(seconds=5))
        is None
    )
    failed = Attempts(last_started=ended, last_ended=ended, failures=3)
    assert due_now("incremental", timing, failed, now=ended + timedelta(seconds=39), last_success=None) is None
    assert due_now("incremental", timing, failed, now=ended + timedelta(seconds=40), last_success=None) is not None


def test_a_schedule_that_is_off_is_never_due_but_retried() -> None:
    off = Timing(UTC)
    assert due_now("full", off, Attempts(), now=at("2024-05-10T10:00"), last_success=None) is None
    assert off.next_run(at("2024-05-10T10:00")) is None
    failed = Attempts(last_started=at("2024-05-10T10:00"), last_ended=at("2024-05-10T10:00"), failures=1)
    assert due_now("full", off, failed, now=at("2024-05-10T10:01"), last_success=None) is not None


@pytest.mark.parametrize(
    ("expression", "now", "hours"), [("0 2 * * *", "2024-05-10T10:00", 24), ("0 2 * * 1-5", "2024-05-11T10:00", 72)]
)
def test_the_period_is_the_distance_of_the_runs_around_now(expression: str, now: str, hours: int) -> None:
    assert Timing(UTC, expression).period(at(now)) == timedelta(hours=hours)
