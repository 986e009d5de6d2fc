"""The keys of a timeline, with as few LIST requests as its size allows: what pages list is skipped, not walked over.

Keys come in order (anchors, compacted, observations, pages, segments, sets, ...), so when the first segment comes it is known
whether there are pages. Without any the listing runs on; with some it is ended, begun again behind the segments, and those that
no page lists are asked for by where the pages end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kpbackup.model.catalog import CompactedRange
from kpbackup.model.manifest import Stretch
from kpbackup.repository import layout
from kpbackup.repository.binding import Repository


@dataclass(frozen=True)
class PageKey:
    """A stored page, and the first and last segment it stands for."""

    key: str
    level: int
    first_seq: int
    last_seq: int


@dataclass
class Listed:
    """What is stored of a timeline. `segments` are all their keys; None when they were left out because there are pages."""

    timeline: str
    etags: dict[str, str] = field(default_factory=dict)
    logs: dict[str, list[str]] = field(default_factory=lambda: {log: [] for log in layout.LOGS})
    pages: list[PageKey] = field(default_factory=list)
    compacted: list[CompactedRange] = field(default_factory=list)
    segments: list[str] | None = field(default_factory=list)


def read(repository: Repository, timeline: str) -> Listed:
    """Lists a timeline."""
    found = Listed(timeline)
    prefix, segments = layout.timeline_prefix(timeline), layout.log_prefix(timeline, "segments")
    for info in repository.backend.list(prefix):
        if info.key.startswith(segments) and found.pages:
            found.segments = None
            break
        found.etags[info.key] = info.etag
        _sort_in(repository, found, info.key)
    if found.segments is None:
        for info in repository.backend.list(prefix, after=segments[:-1] + "0"):  # "0" comes after "/"
            found.etags[info.key] = info.etag
            _sort_in(repository, found, info.key)
    else:
        found.segments = found.logs["segments"]
    return found


def _sort_in(repository: Repository, found: Listed, key: str) -> None:
    if (place := layout.parse_log_entry(key)) is not None:
        found.logs[place[1]].append(key)
    elif (page := layout.parse_page(key)) is not None:
        count = repository.page_rows ** (page[0] + 1)
        found.pages.append(PageKey(key, page[0], (page[1] - 1) * count + 1, page[1] * count))
    elif (span := layout.parse_compacted(key)) is not None:
        found.compacted.append(CompactedRange(key, *span))


def topmost(pages: Sequence[PageKey], *, without: set[str]) -> list[PageKey]:
    """The pages that stand for everything paged: those that no higher one lists, in order; `without` those keys."""
    found: list[PageKey] = []
    for page in sorted((one for one in pages if one.key not in without), key=lambda one: (one.first_seq, -one.level)):
        if not found or page.first_seq > found[-1].last_seq:
            found.append(page)
    return found


def segments(repository: Repository, listed: Listed, stretches: Sequence[Stretch], first_kept: int) -> list[str]:
    """Keys of the kept segments that lie beside the stretches, in order."""
    if listed.segments is not None:
        paged = [(one.first_seq, one.last_seq) for one in stretches]
        return [key for key in listed.segments if layout.seq_of(key) >= first_kept and not _is_in(layout.seq_of(key), paged)]
    found: list[str] = []
    behind, after = first_kept - 1, ""
    for one in stretches:
        if one.first_seq > behind + 1:
            found += _between(repository, listed, after, one.first_seq)
        behind, after = one.last_seq, one.last_key
    found += _between(repository, listed, after, None)
    return [key for key in found if layout.seq_of(key) >= first_kept]


def _between(repository: Repository, listed: Listed, after: str, end: int | None) -> Iterator[str]:
    for info in repository.backend.list(layout.log_prefix(listed.timeline, "segments"), after=after):
        if end is not None and layout.seq_of(info.key) >= end:
            return
        listed.etags[info.key] = info.etag
        yield info.key


def _is_in(seq: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(first <= seq <= last for first, last in spans)
