"""Which small segments to join into larger objects, by time levels: those of an hour when it is over, those of a day likewise.

Pure. The joins of a period follow from its segments alone, so whoever decides later, or twice, decides the same. Not joined is
what is large already: then a copy would cost more than the requests it saves.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kpbackup.model.catalog import CompactedRange
from kpbackup.model.manifest import BinlogSegment

SETTLE = timedelta(minutes=5)  # clocks of writers may disagree by so much about when a period was over
MOST_MEMBERS = 4096  # of one object: its manifest stays below a megabyte
MOST_BYTES = 256 << 20
LARGE_SEGMENT_BYTES = 8 << 20  # larger payloads stay as they are
LARGE_JOIN_BYTES = 64 << 20  # joins of an hour that are as large are not joined again

HOUR, DAY = 1, 2


@dataclass(frozen=True)
class Join:
    """The segments first to last become one object of this level."""

    level: int
    segments: tuple[BinlogSegment, ...]

    @property
    def first_seq(self) -> int:
        return self.segments[0].head.seq

    @property
    def last_seq(self) -> int:
        return self.segments[-1].head.seq

    @property
    def payload_bytes(self) -> int:
        return sum(segment.payload.bytes for segment in self.segments)


def day_of(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def due(segments: Sequence[BinlogSegment], known: Iterable[CompactedRange], now: datetime) -> tuple[Join, ...]:
    """The joins of `segments` (whole days, in order) that are due and not among `known`: day by day, hours before their day."""
    there = list(known)
    found: list[Join] = []
    for day, of_day in itertools.groupby(segments, key=lambda one: day_of(one.head.created_at)):
        members = list(of_day)
        hours = [
            join
            for hour, of_hour in itertools.groupby(members, key=lambda one: hour_of(one.head.created_at))
            if hour + timedelta(hours=1) + SETTLE <= now
            for join in _joins(HOUR, list(of_hour))
        ]
        found += [join for join in hours if not _is_known(join, there)]
        if day + timedelta(days=1) + SETTLE <= now:
            large = {one.head.seq for join in hours if join.payload_bytes >= LARGE_JOIN_BYTES for one in join.segments}
            days = _joins(DAY, [one for one in members if one.head.seq not in large])
            found += [join for join in days if not _is_known(join, there) and _saves(join, hours)]
    return tuple(found)


def _joins(level: int, segments: Sequence[BinlogSegment]) -> Iterator[Join]:
    group: list[BinlogSegment] = []
    size = 0
    for segment in segments:
        is_large = segment.payload.key is not None or segment.payload.bytes >= LARGE_SEGMENT_BYTES
        is_next = not group or segment.head.seq == group[-1].head.seq + 1
        if group and (is_large or not is_next or len(group) == MOST_MEMBERS or size + segment.payload.bytes > MOST_BYTES):
            if len(group) > 1:
                yield Join(level, tuple(group))
            group, size = [], 0
        if not is_large:
            group.append(segment)
            size += segment.payload.bytes
    if len(group) > 1:
        yield Join(level, tuple(group))


def _is_known(join: Join, there: Sequence[CompactedRange]) -> bool:
    return any(
        one.level >= join.level and one.first_seq <= join.first_seq and join.last_seq <= one.last_seq for one in there
    )


def _saves(join: Join, hours: Sequence[Join]) -> bool:
    """Whether a join of a day is more than one of its hours again."""
    return all((one.first_seq, one.last_seq) != (join.first_seq, join.last_seq) for one in hours)
