"""The recoverable windows laid out on one line of time, for the status page and the terminal: fractions from 0 to 1.

Pure. The line runs from the first recoverable moment to now. What lies between two windows, and between the last one and now,
cannot be restored to; the newest stretch before now is what would be lost at the moment, not a gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from kpbackup.plan.timeline import Window


@dataclass(frozen=True)
class Span:
    """A window and where it lies."""

    window: Window
    start: float
    end: float


@dataclass(frozen=True)
class Hole:
    """A stretch between two windows that no window covers. `reason` is empty when nothing is missing: a newer set is stored, and
    the archive has not come to it yet."""

    start: float
    end: float
    reason: str


@dataclass(frozen=True)
class Mark:
    """Something that happened at one moment, such as a backup set; `told` is for people."""

    at: datetime
    place: float
    told: str
    kind: str


@dataclass(frozen=True)
class Line:
    """The line from `begin` to `end`; `asked` is where an asked moment lies, if it lies on the line."""

    begin: datetime
    end: datetime
    spans: tuple[Span, ...]
    marks: tuple[Mark, ...]

    @property
    def holes(self) -> tuple[Hole, ...]:
        """What cannot be restored to between the first window and the last."""
        found, last = [], self.spans[0]
        for span in self.spans[1:]:
            if span.start > last.end:
                found.append(Hole(last.end, span.start, _why(last.window, span.window)))
            last = max(last, span, key=lambda one: one.end)
        return tuple(found)

    def place(self, moment: datetime) -> float:
        """Where a moment lies, cut to the line."""
        return _place(moment, self.begin, self.end)

    def holding(self, moment: datetime) -> Window | None:
        """The window that a moment can be restored from."""
        return next((one.window for one in reversed(self.spans) if one.window.start <= moment <= one.window.end), None)

    def nearest(self, moment: datetime) -> list[datetime]:
        """The last recoverable moment before, and the first one after a moment that cannot be restored to."""
        before = max((one.window.end for one in self.spans if one.window.end < moment), default=None)
        after = min((one.window.start for one in self.spans if one.window.start > moment), default=None)
        return [one for one in (before, after) if one is not None]


def lay_out(windows: Sequence[Window], events: Iterable[tuple[datetime, str, str]], *, now: datetime) -> Line | None:
    """The line of these windows; `events` are (moment, kind, text). None when nothing can be restored."""
    if not windows:
        return None
    ordered = sorted(windows, key=lambda one: (one.start, one.end))
    begin, end = ordered[0].start, max(now, *(one.end for one in ordered))
    spans = tuple(Span(one, _place(one.start, begin, end), _place(one.end, begin, end)) for one in ordered)
    marks = tuple(Mark(at, _place(at, begin, end), told, kind) for at, kind, told in sorted(events))
    return Line(begin, end, spans, marks)


def drawn(line: Line, width: int) -> str:
    """One row of characters: `=` can be restored to, `|` is a set, `*` a recovery or drill, blank cannot be restored to.

    Every window gets at least one character. A gap too short for a blank of its own is an `x`, whatever else lies there.
    """
    cells = [" "] * width
    for span in line.spans:
        for cell in range(_cell(span.start, width), _cell(span.end, width) + 1):
            cells[cell] = "="
    for mark in line.marks:
        cell = _cell(mark.place, width)
        if cells[cell] != "*":
            cells[cell] = "|" if mark.kind == "set" else "*"
    for hole in line.holes:
        if hole.reason and _cell(hole.end, width) - _cell(hole.start, width) < 2:
            cells[_cell(hole.start, width)] = "x"
    return "".join(cells).rstrip()


def _why(before: Window, after: Window) -> str:
    if before.gap is not None:
        return before.gap.reason
    return "another timeline begins" if before.timeline != after.timeline else ""


def _cell(place: float, width: int) -> int:
    return min(int(place * width), width - 1)


def _place(moment: datetime, begin: datetime, end: datetime) -> float:
    whole = (end - begin).total_seconds()
    return min(max((moment - begin).total_seconds() / whole, 0.0), 1.0) if whole else 0.0
