"""A drill's point: always in a window, in whole seconds, and every part of every window can be drawn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpbackup import errors
from kpbackup.plan.timeline import Target, Window
from kpbackup.recovery import drill

START = datetime(2026, 3, 1, tzinfo=UTC)
PLACES = st.floats(0, 1, exclude_max=True)


@st.composite
def windows(draw: st.DrawFn) -> list[Window]:
    """Some windows after one another, some of them a single moment."""
    found, at = [], START
    for pause_ms, length_ms in draw(st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 10**6)), min_size=1, max_size=5)):
        start = at + timedelta(milliseconds=pause_ms)
        at = start + timedelta(milliseconds=length_ms)
        found.append(Window("0001", start, at, ("0001-1",), None))
    return found


@given(windows(), PLACES)
def test_it_lies_in_a_window(found: list[Window], place: float) -> None:
    target = drill.choose_point(found, place)
    if target.time is None:
        assert target == Target(latest=True)
    else:
        assert target.time.microsecond == 0
        assert any(one.start <= target.time <= one.end for one in found)


@given(st.integers(2, 1000), PLACES)
def test_later_places_are_later_points(seconds: int, place: float) -> None:
    window = Window("0001", START, START + timedelta(seconds=seconds), ("0001-1",), None)
    first, last = (drill.choose_point([window], at).time for at in (0.0, 1 - 1e-9))
    assert first == window.start and last == window.end
    middle = drill.choose_point([window], place).time
    assert middle is not None and abs((middle - START).total_seconds() - place * seconds) <= 1


def test_without_a_window_there_is_nothing_to_drill() -> None:
    with pytest.raises(errors.UnreachableTarget):
        drill.choose_point([], 0.5)
