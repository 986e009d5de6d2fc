"""Parts that several sections of the page are made of: tables, and moments and durations as they are shown. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo
from xml.etree.ElementTree import Element

from kpbackup import quantities
from kpbackup.model import times
from kpbackup.service.html import element

SHOWN = 20  # newest rows of each table; the rest is in `kpbackup list`


def table(
    columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, label: str = "", right: frozenset[str] = frozenset()
) -> Element:
    """A table in a box of its own, which scrolls where it is too wide: the keyboard must reach it, so it has a name. The columns
    in `right` are figures."""
    looks = [{"class": "number"} if name in right else {} for name in columns]
    named = zip(columns, looks, strict=True)
    head = element("thead", element("tr", (element("th", {"scope": "col"}, look, name) for name, look in named)))
    cells = ([element("td", look, cell) for cell, look in zip(row, looks, strict=True)] for row in rows[:SHOWN])
    body = element("tbody", (element("tr", row) for row in cells))
    box = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": label or columns[0]}
    return element("div", box, element("table", head, body))


def section(name: str, title: str, *parts: Element | Sequence[Element]) -> Element:
    """A section with its heading."""
    return element("section", {"aria-labelledby": name}, element("h2", {"id": name}, title), *parts)


def moment(at: datetime, zone: tzinfo) -> str:
    return times.format_moment(at.replace(microsecond=0), zone)


def seconds(seconds_: float) -> str:
    return quantities.format_duration(timedelta(seconds=seconds_))
