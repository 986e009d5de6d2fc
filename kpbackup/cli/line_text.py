"""The line of recoverable windows as text, for `status` and `list`."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING

from kpbackup.cli import render
from kpbackup.model import times

if TYPE_CHECKING:
    from kpbackup.plan.timeline import Window

WIDEST = 100
LEGEND = "= can be restored to   | backup set   * recovery   x short gap   blank: cannot"

Events = Iterable[tuple[datetime, str, str]]


COLOURS = {"=": "ok", "*": "hint", "x": "critical"}


def lines(windows: Sequence[Window], events: Events, zone: tzinfo, *, now: datetime) -> Iterator[render.Part]:
    """Two ends, the line, what its characters mean, and a blank line; nothing when nothing can be restored."""
    from kpbackup.plan.line import drawn, lay_out

    line = lay_out(windows, events, now=now)
    if line is None:
        return
    width = min(shutil.get_terminal_size().columns, WIDEST)
    begin, end = (times.format_moment(moment.replace(microsecond=0), zone) for moment in (line.begin, line.end))
    yield begin + end.rjust(max(width - len(begin), len(end) + 2))
    yield render.Line(drawn(line, width), COLOURS)
    yield LEGEND
    yield ""
