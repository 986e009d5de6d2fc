"""Moments, durations and sizes: what is printed is read back as the same value, and nonsense is refused."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta, timezone, tzinfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kpbackup import errors, quantities
from kpbackup.model import times

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
ZONES = st.sampled_from([UTC, BERLIN, *map(zoneinfo.ZoneInfo, ("America/St_Johns", "Asia/Kathmandu", "Pacific/Apia"))])
SINCE = datetime(1971, 1, 1, tzinfo=UTC)
MOMENTS = st.timedeltas(min_value=timedelta(), max_value=timedelta(days=80_000)).map(lambda passed: SINCE + passed)


@given(MOMENTS, ZONES)
def test_utc_text_is_read_back_whatever_the_zone(moment: datetime, zone: tzinfo) -> None:
    assert times.parse_moment(times.utc_text(moment), zone, now=NOW) == moment


@given(MOMENTS, st.integers(-14 * 60, 14 * 60))
def test_any_offset_means_the_same_moment(moment: datetime, minutes: int) -> None:
    shifted = moment.astimezone(timezone(timedelta(minutes=minutes)))
    assert times.parse_moment(shifted.isoformat(), BERLIN, now=NOW) == moment
    assert times.parse_moment(shifted.isoformat(sep=" "), UTC, now=NOW) == moment


@given(MOMENTS, ZONES)
def test_a_wall_clock_time_is_the_moment_or_is_refused(moment: datetime, zone: tzinfo) -> None:
    local = moment.astimezone(zone)
    assume(local.utcoffset() == local.replace(fold=1 - local.fold).utcoffset())
    found = times.parse_moment(local.replace(tzinfo=None).isoformat(sep=" "), zone, now=NOW)
    assert found == moment and found.tzinfo is UTC


@given(MOMENTS, ZONES)
def test_both_ways_are_shown(moment: datetime, zone: tzinfo) -> None:
    shown = times.format_moment(moment, zone)
    assert shown.startswith(times.utc_text(moment))
    local = moment.astimezone(zone)
    assert zone is UTC or (f"{local:%H:%M:%S}" in shown and str(zone) in shown)
    assert (f"{local:%Y-%m-%d}" in shown) or zone is UTC or local.date() == moment.date()


@given(st.text(max_size=40))
def test_any_text_is_a_moment_or_a_usage_error_with_examples(text: str) -> None:
    try:
        found = times.parse_moment(text, BERLIN, now=NOW)
    except errors.UsageError as exc:
        assert exc.hint
    else:
        assert found.tzinfo is UTC


@given(st.timedeltas(min_value=timedelta(), max_value=timedelta(days=36_000)))
def test_spelt_durations_are_read_back(duration: timedelta) -> None:
    assert quantities.parse_duration(quantities.spell_duration(duration)) == duration
    assert len(quantities.format_duration(duration)) < 20


@given(st.integers(0, 1 << 60))
def test_spelt_sizes_are_read_back(size: int) -> None:
    assert quantities.parse_size(quantities.spell_size(size)) == size
    assert len(quantities.format_size(size)) < 20


@given(st.text(max_size=12))
def test_any_text_is_a_quantity_or_a_value_error(text: str) -> None:
    for parse in (quantities.parse_duration, quantities.parse_size):
        try:
            parse(text)
        except ValueError as exc:
            assert str(exc)


@pytest.mark.parametrize(("text", "expected"), [
    ("2024-05-01T10:00", "2024-05-01T08:00:00Z"),
    ("2024-05-01 10:00:30", "2024-05-01T08:00:30Z"),
    ("2024-05-01T10:00:30.25Z", "2024-05-01T10:00:30.25Z"),
    ("2024-05-01t10:00:30,123456789z", "2024-05-01T10:00:30.123456Z"),
    ("2024-05-01T10:00+0530", "2024-05-01T04:30:00Z"),
    (" 2024-05-01 10:00 +02:00 ", "2024-05-01T08:00:00Z"),
    ("-15m", "2024-05-01T11:45:00Z"),
    ("-1d2h", "2024-04-30T10:00:00Z"),
])  # fmt: skip
def test_forms_of_a_moment(text: str, expected: str) -> None:
    assert times.utc_text(times.parse_moment(text, BERLIN, now=NOW)) == expected


@pytest.mark.parametrize("text", [
    "", "yesterday", "2024-05-01", "10:00", "2024-02-30T10:00", "2024-05-01T25:00", "2024-05-01T10:00+99:00", "-", "-x", "--5m",
])  # fmt: skip
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(errors.UsageError) as caught:
        times.parse_moment(text, BERLIN, now=NOW)
    assert "2024-05-01T10:00" in caught.value.hint


@pytest.mark.parametrize(("text", "happens", "example"), [
    ("2024-03-31T02:30", "never happens", "2024-03-31T00:30:00Z"),
    ("2024-10-27T02:30", "happens twice", "2024-10-27T00:30:00Z or 2024-10-27T01:30:00Z"),
])  # fmt: skip
def test_a_clock_change_is_not_guessed_about(text: str, happens: str, example: str) -> None:
    with pytest.raises(errors.UsageError, match=happens) as caught:
        times.parse_moment(text, BERLIN, now=NOW)
    assert example in caught.value.hint


@pytest.mark.parametrize(("text", "seconds"), [
    ("90", 90), ("1.5s", 1.5), ("250ms", 0.25), ("1h30m", 5400), ("2d 12h", 216_000), ("1W", 604_800),
])  # fmt: skip
def test_forms_of_a_duration(text: str, seconds: float) -> None:
    assert quantities.parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "-1s", "1y", "h", "1h 30", "1e3", "nan", "9" * 40, "٣s"])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(ValueError, match="duration|century"):
        quantities.parse_duration(text)


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0s"), (0.0005, "1ms"), (0.25, "250ms"), (4.21, "4.2s"), (59.97, "1m"), (60, "1m"), (3599.7, "1h"), (5400, "1h 30m"),
    (90_061, "1d 1h"), (-5, "-5s"),
])  # fmt: skip
def test_durations_are_shown(seconds: float, text: str) -> None:
    assert quantities.format_duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(("text", "size"), [
    ("0", 0), ("16MiB", 16 << 20), ("1.5k", 1536), ("50 MB", 50_000_000), ("1gib", 1 << 30), ("7B", 7),
])  # fmt: skip
def test_forms_of_a_size(text: str, size: int) -> None:
    assert quantities.parse_size(text) == size


@pytest.mark.parametrize(("size", "text"), [
    (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), ((1 << 20) - 1, "1.0 MiB"), (200 << 20, "200 MiB"), (5 << 50, "5120 TiB"),
])  # fmt: skip
def test_sizes_are_shown(size: int, text: str) -> None:
    assert quantities.format_size(size) == text
