"""GTID sets: what a server has executed, as values that can be added, subtracted and compared.

MySQL (also tagged): a set of transaction numbers per (server UUID, tag), kept as sorted intervals, so that
a set of a billion transactions costs as much as a set of one.

MariaDB: a *position*, the last GTID per domain. A domain is one ordered stream, so the position stands for
everything up to it. That makes containment a comparison of sequence numbers per domain, which **answers only
along one timeline**: after a fork two servers give the same numbers to different transactions. The server id
is kept; where both sides end at the same number with another server id, the answer is 'not contained'.

Pure values. Every parse error is a ValueError that quotes the text.
Source of the notation: MySQL manual, 'GTID Format and Storage'; MariaDB manual, 'Global Transaction ID'.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Interval = tuple[int, int]  # first and last, both included
Intervals = tuple[Interval, ...]  # sorted, disjoint, never adjacent

LAST_GNO = (1 << 63) - 2

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TAG = re.compile(r"[a-z_][a-z0-9_]{0,31}")
_INTERVAL = re.compile(r"(\d{1,19})(?:-(\d{1,19}))?", re.ASCII)
_MARIADB = re.compile(r"(\d{1,10})-(\d{1,10})-(\d{1,20})", re.ASCII)


def merge(pairs: Iterable[Interval]) -> Intervals:
    """The same numbers as sorted, disjoint, non-adjacent intervals."""
    found: list[Interval] = []
    for first, last in sorted(pairs):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found)


def without(left: Intervals, right: Intervals) -> Intervals:
    """The numbers of `left` that are not in `right`."""
    found: list[Interval] = []
    at = 0
    for first, last in left:
        while at < len(right) and right[at][1] < first:
            at += 1
        here = at
        while first <= last and here < len(right) and right[here][0] <= last:
            if right[here][0] > first:
                found.append((first, right[here][0] - 1))
            first = right[here][1] + 1
            here += 1
        if first <= last:
            found.append((first, last))
    return tuple(found)


@dataclass(frozen=True)
class MysqlGtidSet:
    """Transaction numbers per (server UUID, tag); the tag is '' for untagged ones. Equal sets compare equal."""

    sources: tuple[tuple[tuple[str, str], Intervals], ...] = ()

    @classmethod
    def of(cls, sources: Mapping[tuple[str, str], Iterable[Interval]]) -> MysqlGtidSet:
        """A set from intervals in any order, overlapping or not."""
        merged = ((source, merge(pairs)) for source, pairs in sources.items())
        return cls(tuple(sorted((source, intervals) for source, intervals in merged if intervals)))

    @classmethod
    def parse(cls, text: str) -> MysqlGtidSet:
        """A set as the server prints it (several lines too) or as people type it; '' is the empty set."""
        found: dict[tuple[str, str], list[Interval]] = {}
        for entry in "".join(text.split()).lower().split(","):
            if entry:
                _parse_entry(entry, found)
        return cls.of(found)

    def __str__(self) -> str:
        """The canonical text: one line, UUIDs and tags sorted, each UUID once."""
        entries: dict[str, str] = {}
        for (uuid, tag), intervals in self.sources:
            numbers = ":".join(str(a) if a == b else f"{a}-{b}" for a, b in intervals)
            entries[uuid] = entries.get(uuid, uuid) + (f":{tag}" if tag else "") + f":{numbers}"
        return ",".join(entries.values())

    def union(self, other: MysqlGtidSet) -> MysqlGtidSet:
        found = dict(self.sources)
        for source, intervals in other.sources:
            found[source] = found.get(source, ()) + intervals
        return MysqlGtidSet.of(found)

    def add(self, gtid: str) -> MysqlGtidSet:
        """The set with one more GTID (`uuid:7`, `uuid:tag:7`)."""
        return self.union(MysqlGtidSet.parse(gtid))

    def subtract(self, other: MysqlGtidSet) -> MysqlGtidSet:
        taken = dict(other.sources)
        return MysqlGtidSet.of({source: without(intervals, taken.get(source, ())) for source, intervals in self.sources})

    def contains(self, other: MysqlGtidSet) -> bool:
        return not other.subtract(self).sources

    def includes(self, gtid: str) -> bool:
        """Whether one GTID is in the set."""
        return self.contains(MysqlGtidSet.parse(gtid))

    @property
    def count(self) -> int:
        return sum(last - first + 1 for _, intervals in self.sources for first, last in intervals)

    def __bool__(self) -> bool:
        return bool(self.sources)


def split_mysql_gtid(gtid: str) -> tuple[tuple[str, str], int]:
    """((uuid, tag), number) of one canonical GTID, without the checks of `parse`: for text this program made itself."""
    uuid, _, rest = gtid.partition(":")
    tag, _, number = rest.rpartition(":")
    return (uuid, tag), int(number)


def _parse_entry(entry: str, found: dict[tuple[str, str], list[Interval]]) -> None:
    uuid, *parts = entry.split(":")
    if not _UUID.fullmatch(uuid) or not parts:
        raise ValueError(f"not a GTID set: {entry!r}")
    tag, numbers = "", 0
    for part in parts:
        interval = _INTERVAL.fullmatch(part)
        if interval is None:
            if not _TAG.fullmatch(part) or (tag and not numbers):
                raise ValueError(f"not a GTID set: {entry!r} ({part!r} is neither a tag nor an interval)")
            tag, numbers = part, 0
            continue
        first = int(interval[1])
        last = int(interval[2] or first)
        if not 1 <= first <= last <= LAST_GNO:
            raise ValueError(f"not a GTID set: {entry!r} (bad interval {part!r})")
        found.setdefault((uuid, tag), []).append((first, last))
        numbers += 1
    if not numbers:
        raise ValueError(f"not a GTID set: {entry!r} (no numbers)")


@dataclass(frozen=True, order=True)
class MariadbGtid:
    """domain-server_id-seq."""

    domain: int
    server_id: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> MariadbGtid:
        found = _MARIADB.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"not a MariaDB GTID (domain-server-number): {text!r}")
        domain, server_id, seq = (int(part) for part in found.groups())
        if domain >= 1 << 32 or server_id >= 1 << 32 or seq >= 1 << 64:
            raise ValueError(f"not a MariaDB GTID (number too large): {text!r}")
        return cls(domain, server_id, seq)

    def __str__(self) -> str:
        return f"{self.domain}-{self.server_id}-{self.seq}"


@dataclass(frozen=True)
class MariadbGtidPosition:
    """The last GTID of each domain, sorted by domain: it stands for everything before it in that domain."""

    last: tuple[MariadbGtid, ...] = ()

    @classmethod
    def of(cls, gtids: Iterable[MariadbGtid]) -> MariadbGtidPosition:
        """The position after the GTIDs in this order: in each domain the one given last counts."""
        return cls(tuple(sorted({gtid.domain: gtid for gtid in gtids}.values())))

    @classmethod
    def parse(cls, text: str) -> MariadbGtidPosition:
        """A position as the server prints it; '' is the empty one. A domain given twice is an error."""
        gtids = [MariadbGtid.parse(part) for part in text.split(",") if part.strip()]
        if len({gtid.domain for gtid in gtids}) != len(gtids):
            raise ValueError(f"not a MariaDB GTID position (a domain twice): {text!r}")
        return cls.of(gtids)

    def __str__(self) -> str:
        return ",".join(str(gtid) for gtid in self.last)

    def get(self, domain: int) -> MariadbGtid | None:
        return next((gtid for gtid in self.last if gtid.domain == domain), None)

    def add(self, gtid: str) -> MariadbGtidPosition:
        """The position after this transaction, which follows in the stream (its number need not be higher)."""
        return MariadbGtidPosition.of((*self.last, MariadbGtid.parse(gtid)))

    def union(self, other: MariadbGtidPosition) -> MariadbGtidPosition:
        """In each domain the position with the higher number; on one timeline, the later of the two."""
        return MariadbGtidPosition.of(sorted(self.last + other.last, key=lambda gtid: gtid.seq))

    def subtract(self, other: MariadbGtidPosition) -> MariadbGtidPosition:
        """The domains in which this position is not contained in `other`."""
        return MariadbGtidPosition(tuple(gtid for gtid in self.last if not other._covers(gtid)))

    def contains(self, other: MariadbGtidPosition) -> bool:
        """Whether everything up to `other` lies before or at this position; only along one timeline."""
        return not other.subtract(self).last

    def includes(self, gtid: str) -> bool:
        """Whether one transaction lies before or at this position; only along one timeline."""
        return self._covers(MariadbGtid.parse(gtid))

    def _covers(self, gtid: MariadbGtid) -> bool:
        mine = self.get(gtid.domain)
        return mine is not None and (mine.seq > gtid.seq or mine == gtid)

    def __bool__(self) -> bool:
        return bool(self.last)


def contains(flavour: str, whole: str, part: str) -> bool:
    """Whether the set or position `whole` contains `part`; both as text of the flavour ('mysql' or 'mariadb')."""
    if flavour == "mysql":
        return MysqlGtidSet.parse(whole).contains(MysqlGtidSet.parse(part))
    return MariadbGtidPosition.parse(whole).contains(MariadbGtidPosition.parse(part))


def add(flavour: str, position: str, gtids: str) -> str:
    """The text of `position` (a set or position) after the stretch of the stream that contains `gtids` (likewise)."""
    if flavour == "mysql":
        return str(MysqlGtidSet.parse(position).union(MysqlGtidSet.parse(gtids)))
    return str(MariadbGtidPosition.of(MariadbGtidPosition.parse(position).last + MariadbGtidPosition.parse(gtids).last))
