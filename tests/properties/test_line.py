"""The line of recoverable windows: order, bounds, and that no window or gap is hidden where there is room."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from kpbackup.plan.line import drawn, lay_out
from kpbackup.plan.timeline import Window

T0 = datetime(2024, 5, 1, tzinfo=UTC)

windows = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 200)), min_size=1, max_size=8).map(
    lambda pairs: [Window("0001", at(start), at(start + length), ("0001-1",), None) for start, length in pairs]
)


def at(minute: int) -> datetime:
    return T0 + timedelta(minutes=minute)


@given(windows, st.integers(0, 1500))
def test_everything_lies_on_the_line(found: list[Window], now: int) -> None:
    line = lay_out(found, [(one.start, "set", "a set") for one in found], now=at(now))
    assert line is not None
    assert line.begin == min(one.start for one in found) and line.end >= max(one.end for one in found)
    for span in line.spans:
        assert 0.0 <= span.start <= span.end <= 1.0
        assert line.holding(span.window.start) is not None and line.holding(span.window.end) is not None
    assert [one.place for one in line.marks] == sorted(one.place for one in line.marks)


@given(windows, st.integers(0, 1500), st.integers(0, 1500))
def test_a_moment_is_held_or_has_a_neighbour(found: list[Window], now: int, asked: int) -> None:
    line = lay_out(found, [], now=at(now))
    assert line is not None
    is_held = any(one.start <= at(asked) <= one.end for one in found)
    assert (line.holding(at(asked)) is not None) == is_held
    if not is_held:
        near = line.nearest(at(asked))
        assert near and all(line.holding(one) is not None for one in near)


@given(windows, st.integers(0, 1500), st.integers(1, 120))
def test_the_drawing_is_as_wide_as_asked_and_shows_every_window(found: list[Window], now: int, width: int) -> None:
    line = lay_out(found, [], now=at(now))
    assert line is not None
    text = drawn(line, width)
    assert 1 <= len(text) <= width and set(text) <= {"=", "x", " "}
    for span in line.spans:
        assert text[min(int(span.start * width), width - 1)] in "=x"
    for hole in line.holes:
        first, last = (min(int(place * width), width - 1) for place in (hole.start, hole.end))
        assert set(text[first : last + 1]) & {"x", " "} or not hole.reason


@given(windows, st.integers(0, 1300))
def test_holes_are_what_no_window_holds(found: list[Window], minute: int) -> None:
    line = lay_out(found, [], now=at(0))
    assert line is not None
    moment = at(minute) + timedelta(seconds=30)
    is_held = any(one.start <= moment <= one.end for one in found)
    is_between = line.begin < moment < max(one.end for one in found)
    place = line.place(moment)
    assert any(hole.start < place < hole.end for hole in line.holes) == (is_between and not is_held)


def test_what_it_looks_like() -> None:
    found = [Window("0001", at(0), at(60), ("0001-1",), None), Window("0002", at(120), at(200), ("0002-1",), None)]
    line = lay_out(found, [(at(0), "set", "a"), (at(120), "set", "b"), (at(180), "drill", "c")], now=at(240))
    assert line is not None
    assert drawn(line, 24) == "|======     |=====*=="
    near = [found[0], Window("0002", at(62), at(200), ("0002-1",), None)]
    line = lay_out(near, [(at(62), "set", "b")], now=at(240))
    assert line is not None and drawn(line, 24) == "======x=============="
    waiting = [found[0], Window("0001", at(62), at(200), ("0001-2",), None)]  # a newer set, which the archive is to reach
    line = lay_out(waiting, [], now=at(240))
    assert line is not None and [one.reason for one in line.holes] == [""] and "x" not in drawn(line, 24)
    assert lay_out([], [], now=at(0)) is None
