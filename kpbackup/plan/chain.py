"""Sets and segments to chains: which segments follow which set without a break, and where a break lies.

Pure and keyless: it works on what manifests say and recomputes every link, so a segment that was removed,
swapped or taken from elsewhere is found here. A damaged manifest was left out by the catalog and shows as a gap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from kpbackup.model import canonical, codec
from kpbackup.model.catalog import History
from kpbackup.model.coordinates import Coordinates
from kpbackup.model.manifest import BackupSet, BinlogSegment

_LINK_DOMAIN = b"kpbackup-link-1\n"


@dataclass(frozen=True)
class Gap:
    """A missing stretch of the archive. `before` is None when nothing after the gap is stored."""

    after: Coordinates
    before: Coordinates | None
    reason: str


@dataclass(frozen=True)
class Chain:
    """A set and the unbroken segments that follow its coordinates, first to last; `gap` is what ended it early.

    `released`: retention kept the set alone, the segments after it are gone as they should be.
    """

    backup_set: BackupSet
    segments: tuple[BinlogSegment, ...]
    gap: Gap | None
    released: bool = False

    @property
    def end(self) -> Coordinates:
        """How far the chain reaches: at least the set's own coordinates."""
        return self.segments[-1].end if self.segments else self.backup_set.coordinates


def first_link(repository: str, timeline: str) -> str:
    """The link the first segment of a timeline follows."""
    return hashlib.sha256(_LINK_DOMAIN + f"{repository}\n{timeline}\n".encode()).hexdigest()


def next_link(link_before: str, *, seq: int, payload_sha256: str, start: Coordinates, end: Coordinates) -> str:
    """link_n = SHA-256 over domain, link_{n-1}, number, ciphertext hash and coordinates (docs/format.md, 'Links')."""
    coordinates = canonical.dumps([codec.encode(start), codec.encode(end)])
    fields = f"{link_before}\n{seq}\n{payload_sha256}\n".encode()
    return hashlib.sha256(_LINK_DOMAIN + fields + coordinates + b"\n").hexdigest()


def runs(history: History) -> tuple[tuple[tuple[BinlogSegment, ...], ...], tuple[Gap, ...]]:
    """The kept segments of a timeline as unbroken runs, and the gaps between them."""
    found: list[list[BinlogSegment]] = []
    gaps: list[Gap] = []
    for segment in history.segments:
        if found:
            reason = _break(found[-1][-1], segment)
            if not reason:
                found[-1].append(segment)
                continue
            gaps.append(Gap(found[-1][-1].end, segment.start, reason))
        else:
            reason = _bad_start(history, segment)
            if reason:
                gaps.append(Gap(Coordinates(segment.start.file, 0), segment.start, reason))
        found.append([segment])
    return tuple(tuple(run) for run in found), tuple(gaps)


def chains(history: History) -> tuple[Chain, ...]:
    """One chain per set, in the order of the sets."""
    unbroken, gaps = runs(history)
    places = [_places(run) for run in unbroken]
    return tuple(
        Chain(one, (), None, released=True) if _is_released(history, one, unbroken) else _chain(one, unbroken, places, gaps)
        for one in history.sets
    )


def contains(segment: BinlogSegment, at: Coordinates) -> bool:
    """Whether the stretch after `at` begins inside `segment` (its own end does not count)."""
    return segment.start.file == at.file and segment.start.position <= at.position < segment.end.position


def _places(run: Sequence[BinlogSegment]) -> dict[str, int]:
    """File name -> place of its first segment: a file's segments follow one another."""
    found: dict[str, int] = {}
    for place, segment in enumerate(run):
        found.setdefault(segment.start.file, place)
    return found


def _chain(
    backup_set: BackupSet, unbroken: Sequence[Sequence[BinlogSegment]], places: Sequence[dict[str, int]], gaps: Sequence[Gap]
) -> Chain:
    reached: Chain | None = None
    for run, first_of in zip(unbroken, places, strict=True):
        place = first_of.get(backup_set.coordinates.file)
        if place is not None and (following := _following(backup_set, run, place)) is not None:
            found = Chain(backup_set, tuple(run[following:]), _gap_after(run[-1], gaps))
            if found.segments:
                return found
            reached = reached or found  # this run ends right at the set; a later one may begin there
    return reached or Chain(backup_set, (), _gap_beside(backup_set, unbroken, gaps))


def _is_released(history: History, backup_set: BackupSet, unbroken: Sequence[Sequence[BinlogSegment]]) -> bool:
    """Whether the archive goes on from the anchor behind this set. Where the anchor's own segment is missing, nobody can tell."""
    if history.anchor is None or not unbroken:
        return False
    first = unbroken[0][0]
    return first.head.seq == history.anchor.first_seq and _place(backup_set.coordinates) < _place(first.start)


def _following(backup_set: BackupSet, run: Sequence[BinlogSegment], place: int) -> int | None:
    """Place of the first segment that continues from the set, len(run) when it is still to come, None when it is elsewhere."""
    at = backup_set.coordinates
    while place < len(run) and run[place].start.file == at.file:
        segment = run[place]
        # another identity: a file of the same name from another life of the server
        if segment.file == backup_set.file:
            if contains(segment, at) or segment.start.position == at.position:
                return place
            is_last_of_file = segment.ends_file or place + 1 == len(run)
            if is_last_of_file and segment.end.position == at.position:
                return place + 1
        place += 1
    return None


def _gap_after(segment: BinlogSegment, gaps: Sequence[Gap]) -> Gap | None:
    return next((gap for gap in gaps if gap.after == segment.end), None)


def _gap_beside(
    backup_set: BackupSet, unbroken: Sequence[Sequence[BinlogSegment]], gaps: Sequence[Gap]
) -> Gap | None:
    """None when the archive simply has not come as far as the set yet."""
    if not unbroken:
        return None
    newest, at = unbroken[-1][-1], backup_set.coordinates
    if _place(newest.end) <= _place(at):
        return None
    known = (gap.reason for gap in gaps if gap.before is not None and _place(gap.before) >= _place(at))
    return Gap(at, None, next(known, "no stored segment continues from this set"))


def _place(at: Coordinates) -> tuple[int, int]:
    """Sorts places in the binlogs of one timeline: servers number the files in order."""
    number = at.file.rpartition(".")[2]
    return int(number) if number.isdecimal() else 0, at.position


def _bad_start(history: History, segment: BinlogSegment) -> str:
    seq, link = segment.head.seq, segment.link_before
    if history.anchor is not None:
        if seq != history.anchor.first_seq:
            return f"segments {history.anchor.first_seq} to {seq - 1} are missing"
        return _own_link(segment) if link == history.anchor.link_before else f"segment {seq} does not follow the anchor"
    if seq != 1:
        return f"segments 1 to {seq - 1} are missing"
    expected = first_link(history.timeline.head.repository, history.id)
    return _own_link(segment) if link == expected else "segment 1 does not start this timeline's links"


def _break(before: BinlogSegment, after: BinlogSegment) -> str:
    """Why `after` does not continue `before`, '' when it does."""
    if after.head.seq != before.head.seq + 1:
        return f"segments {before.head.seq + 1} to {after.head.seq - 1} are missing or damaged"
    if after.link_before != before.link:
        return f"segment {after.head.seq} is not linked to segment {before.head.seq}"
    if before.ends_file:
        if after.start.file == before.end.file or after.start.position or after.start.gtid != before.end.gtid:
            return f"segment {after.head.seq} does not start the file after {before.end.file}"
    elif after.start != before.end or after.file != before.file:
        return f"segment {after.head.seq} starts at {after.start}, segment {before.head.seq} ends at {before.end}"
    return _own_link(after)


def _own_link(segment: BinlogSegment) -> str:
    link = next_link(
        segment.link_before, seq=segment.head.seq, payload_sha256=segment.payload.sha256, start=segment.start, end=segment.end
    )
    return "" if link == segment.link else f"segment {segment.head.seq} names a link that is not its own"
