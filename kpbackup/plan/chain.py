"""Sets and segments to chains: which segments follow which set without a break, and where a break lies.

Pure and keyless: it works on what manifests say and recomputes every link, so a segment that was removed,
swapped or taken from elsewhere is found here. A damaged manifest was left out by the catalog and shows as a gap.

Where the catalog read a page of segments and not each of them, the page's stretch is one link of the chain: its inner links
were judged when it was written, and are judged again here when its segments are read.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from kpbackup import errors
from kpbackup.model import canonical, codec
from kpbackup.model.catalog import History
from kpbackup.model.coordinates import Coordinates, order, takeovers
from kpbackup.model.manifest import BackupSet, BinlogSegment, FileSpan, Stretch
from kpbackup.model.stretch import Unit

_LINK_DOMAIN = b"kpbackup-link-1\n"


@dataclass(frozen=True)
class Gap:
    """A missing stretch of the archive. `before` is None when nothing after the gap is stored."""

    after: Coordinates
    before: Coordinates | None
    reason: str


@dataclass(frozen=True)
class Chain:
    """A set and what follows its coordinates without a break, first to last; `gap` is what ended it early.

    The first of `units` may begin before the set. `released`: retention kept the set alone, the segments after it are gone as
    they should be.
    """

    backup_set: BackupSet
    units: tuple[Unit, ...]
    gap: Gap | None
    released: bool = False

    @property
    def segments(self) -> tuple[BinlogSegment, ...]:
        """The units, all of which are single segments.

        Raises:
            InternalError: some of them are known as stretches only.
        """
        if any(isinstance(unit, Stretch) for unit in self.units):
            raise errors.InternalError(f"the segments of set {self.backup_set.name} were not read one by one")
        return cast("tuple[BinlogSegment, ...]", self.units)

    @property
    def end(self) -> Coordinates:
        """How far the chain reaches: at least the set's own coordinates."""
        return self.units[-1].end if self.units else self.backup_set.coordinates


def first_link(repository: str, timeline: str) -> str:
    """The link the first segment of a timeline follows."""
    return hashlib.sha256(_LINK_DOMAIN + f"{repository}\n{timeline}\n".encode()).hexdigest()


def next_link(link_before: str, *, seq: int, payload_sha256: str, start: Coordinates, end: Coordinates) -> str:
    """link_n = SHA-256 over domain, link_{n-1}, number, ciphertext hash and coordinates (docs/format.md, 'Links')."""
    coordinates = canonical.dumps([codec.encode(start), codec.encode(end)])
    fields = f"{link_before}\n{seq}\n{payload_sha256}\n".encode()
    return hashlib.sha256(_LINK_DOMAIN + fields + coordinates + b"\n").hexdigest()


def runs(history: History) -> tuple[tuple[tuple[Unit, ...], ...], tuple[Gap, ...]]:
    """The kept archive of a timeline as unbroken runs, and the gaps between them."""
    found: list[list[Unit]] = []
    gaps: list[Gap] = []
    for unit in history.units:
        if found:
            reason = _break(found[-1][-1], unit)
            if not reason:
                found[-1].append(unit)
                continue
            gaps.append(Gap(found[-1][-1].end, unit.start, reason))
        else:
            reason = _bad_start(history, unit)
            if reason:
                gaps.append(Gap(Coordinates(unit.start.file, 0), unit.start, reason))
        found.append([unit])
    return tuple(tuple(run) for run in found), tuple(gaps)


def chains(history: History) -> tuple[Chain, ...]:
    """One chain per set, in the order of the sets."""
    unbroken, gaps = runs(history)
    places = [_places(run) for run in unbroken]
    return tuple(
        Chain(one, (), None, released=True) if _is_released(history, one, unbroken) else _chain(one, unbroken, places, gaps)
        for one in history.sets
    )


def _places(run: Sequence[Unit]) -> dict[str, int]:
    """File name -> place of the first unit with a part of it: a file's segments follow one another."""
    found: dict[str, int] = {}
    for place, unit in enumerate(run):
        for span in unit.spans:
            found.setdefault(span.file, place)
    return found


def _chain(
    backup_set: BackupSet, unbroken: Sequence[Sequence[Unit]], places: Sequence[dict[str, int]], gaps: Sequence[Gap]
) -> Chain:
    reached: Chain | None = None
    for run, first_of in zip(unbroken, places, strict=True):
        if _takes_over(backup_set.coordinates, run[0].start):  # before anything of the set's own server was archived
            return Chain(backup_set, tuple(run), _gap_after(run[-1], gaps))
        place = first_of.get(backup_set.coordinates.file)
        if place is not None and (following := _following(backup_set, run, place)) is not None:
            found = Chain(backup_set, tuple(run[following:]), _gap_after(run[-1], gaps))
            if found.units:
                return found
            reached = reached or found  # this run ends right at the set; a later one may begin there
    return reached or Chain(backup_set, (), _gap_beside(backup_set, unbroken, gaps))


def _is_released(history: History, backup_set: BackupSet, unbroken: Sequence[Sequence[Unit]]) -> bool:
    """Whether the archive goes on from the anchor behind this set. Where the anchor's own segment is missing, nobody can tell."""
    if history.anchor is None or not unbroken:
        return False
    first = unbroken[0][0]
    if _takes_over(backup_set.coordinates, first.start):
        return False
    return first.first_seq == history.anchor.first_seq and order(backup_set.coordinates) < order(first.start)


def _following(backup_set: BackupSet, run: Sequence[Unit], place: int) -> int | None:
    """Place of the first unit that continues from the set, len(run) when it is still to come, None when it is elsewhere."""
    at = backup_set.coordinates
    spans = ((number, span) for number in range(place, len(run)) for span in run[number].spans)
    here = [(number, span) for number, span in itertools.takewhile(lambda one: one[1].file == at.file, _from(spans, at.file))]
    for index, (number, span) in enumerate(here):
        # another identity: a file of the same name from another life of the server
        if span.identity != backup_set.file:
            continue
        if span.start <= at.position < span.end or span.start == at.position:
            return number
        is_last_of_file = span.ends_file or index + 1 == len(here)
        if is_last_of_file and span.end == at.position:
            return number if span.file != run[number].spans[-1].file else number + 1
    return None


def _from(spans: Iterable[tuple[int, FileSpan]], file: str) -> Iterator[tuple[int, FileSpan]]:
    """The spans without those of files before `file`, in the unit where it begins."""
    return itertools.dropwhile(lambda one: one[1].file != file, spans)


def _gap_after(last: Unit, gaps: Sequence[Gap]) -> Gap | None:
    return next((gap for gap in gaps if gap.after == last.end), None)


def _gap_beside(
    backup_set: BackupSet, unbroken: Sequence[Sequence[Unit]], gaps: Sequence[Gap]
) -> Gap | None:
    """None when the archive simply has not come as far as the set yet."""
    if not unbroken:
        return None
    newest, at = unbroken[-1][-1], backup_set.coordinates
    if order(newest.end) <= order(at):
        return None
    known = (gap.reason for gap in gaps if gap.before is not None and order(gap.before) >= order(at))
    return Gap(at, None, next(known, "no stored segment continues from this set"))


def _bad_start(history: History, unit: Unit) -> str:
    seq, link = unit.first_seq, unit.link_before
    if history.anchor is not None:
        if seq > history.anchor.first_seq or unit.last_seq < history.anchor.first_seq:
            return f"segments {history.anchor.first_seq} to {seq - 1} are missing"
        if seq < history.anchor.first_seq:
            return ""  # a page whose first segments are released: its inner links were judged when it was written
        return _own_link(unit) if link == history.anchor.link_before else f"segment {seq} does not follow the anchor"
    if seq != 1:
        return f"segments 1 to {seq - 1} are missing"
    expected = first_link(history.timeline.head.repository, history.id)
    return _own_link(unit) if link == expected else "segment 1 does not start this timeline's links"


def _break(before: Unit, after: Unit) -> str:
    """Why `after` does not continue `before`, '' when it does."""
    if after.first_seq != before.last_seq + 1:
        return f"segments {before.last_seq + 1} to {after.first_seq - 1} are missing or damaged"
    if after.link_before != before.link:
        return f"segment {after.first_seq} is not linked to segment {before.last_seq}"
    if takeovers(after.start.file) != takeovers(before.end.file):
        if not _takes_over(before.end, after.start):
            return f"segment {after.first_seq} is of another server, and its GTIDs do not follow segment {before.last_seq}"
    elif before.ends_file:
        if after.start.file == before.end.file or after.start.position or after.start.gtid != before.end.gtid:
            return f"segment {after.first_seq} does not start the file after {before.end.file}"
    elif after.start != before.end or after.spans[0].identity != before.spans[-1].identity:
        return f"segment {after.first_seq} starts at {after.start}, segment {before.last_seq} ends at {before.end}"
    return _own_link(after)


def _takes_over(before: Coordinates, start: Coordinates) -> bool:
    """Whether another server goes on at `start` with exactly what was executed at `before`."""
    is_next = takeovers(start.file) == takeovers(before.file) + 1
    return is_next and bool(start.gtid) and start.gtid == before.gtid


def _own_link(unit: Unit) -> str:
    if isinstance(unit, Stretch):
        return ""
    link = next_link(unit.link_before, seq=unit.head.seq, payload_sha256=unit.payload.sha256, start=unit.start, end=unit.end)
    return "" if link == unit.link else f"segment {unit.head.seq} names a link that is not its own"
