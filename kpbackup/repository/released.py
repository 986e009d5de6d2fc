"""What of an archive may be deleted: segments below the anchors, and small objects whose bytes a compacted object holds too.

Released segments go when the grace period of an anchor above them is over. A small object goes when a compacted object has held
its payload for a grace period, a page lists its manifest, and the compacted object was read back and every member's hash compared
now; the newest segment always stays. Objects of an hour go in the same way when those of days hold all they hold.

The steps of `due` are in the order of deletion: what names other things goes last, so a crash leaves names and not orphans.
"""

from __future__ import annotations

import bisect
import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from kpbackup import errors
from kpbackup.model.catalog import History
from kpbackup.model.manifest import Anchor, BinlogSegment, Compacted, Page, Stretch
from kpbackup.model.stretch import Unit, data_keys, key_ids
from kpbackup.repository import layout, pages
from kpbackup.repository.binding import Repository

_DIGEST_BYTES = 32
_PAGES_KEPT = 4


@dataclass(frozen=True)
class Joined:
    """A compacted object as a prune remembers it: the numbers and payload hashes of its members, not their places and links.

    A year of minutes has half a million members: 40 bytes each here, 500 in a manifest that was read.
    """

    key: str
    level: int
    created_at: datetime
    object_key: str
    seqs: array[int]
    hashes: bytes

    @property
    def first_seq(self) -> int:
        return self.seqs[0]

    @property
    def last_seq(self) -> int:
        return self.seqs[-1]

    def holds(self, part: Joined) -> bool:
        """Whether all payloads of `part` are in this one."""
        if not self.first_seq <= part.first_seq <= part.last_seq <= self.last_seq:
            return False
        own = dict(self._members())
        return all(own.get(seq) == digest for seq, digest in part._members())

    def _members(self) -> Iterator[tuple[int, bytes]]:
        return ((seq, self.hashes[at * _DIGEST_BYTES : (at + 1) * _DIGEST_BYTES]) for at, seq in enumerate(self.seqs))


@dataclass(frozen=True)
class Archive:
    """Everything stored of one timeline's archive. `over` is the first segment whose anchor's grace period is not over.

    `small` are the keys of all segments' own objects, in the order of their numbers. `below` are the units below the newest
    anchor, known by pages where they can be; a page on whose segments both sides of `over` lie is known segment by segment.
    """

    history: History
    over: int
    small: tuple[str, ...]
    below: tuple[Unit, ...]
    page_keys: tuple[str, ...]
    compacted: tuple[Joined, ...]

    def data_keys(self) -> Iterator[str]:
        """Every data object the archive names."""
        yield from (key for unit in (*self.history.units, *self.below) for key in data_keys(unit))
        yield from (one.object_key for one in self.compacted)


def read(repository: Repository, history: History, before: datetime) -> Archive:
    """Reads what a prune must know; anchors made up to `before` have had their grace period."""
    anchors = [repository.read(key, Anchor)[0] for key in _keys(repository, layout.log_prefix(history.id, "anchors"))]
    over = max((one.first_seq for one in anchors if one.head.created_at <= before), default=0)
    small = tuple(sorted(_keys(repository, layout.log_prefix(history.id, "segments")), key=layout.seq_of))
    page_keys = tuple(_keys(repository, layout.timeline_prefix(history.id) + "pages/"))
    with ThreadPoolExecutor(pages.READERS) as pool:
        compacted = tuple(pool.map(lambda one: _joined(repository, one.key), history.compacted))
    first_kept = history.anchor.first_seq if history.anchor is not None else 0
    below = tuple(_below(repository, history, small, page_keys, first_kept, over)) if first_kept else ()
    return Archive(history, over, small, below, page_keys, compacted)


def _joined(repository: Repository, key: str) -> Joined:
    found, _ = repository.read(key, Compacted)
    seqs = array("Q", (member.seq for member in found.members))
    hashes = b"".join(bytes.fromhex(member.sha256) for member in found.members)
    return Joined(key, found.level, found.head.created_at, found.object.key, seqs, hashes)


def due(repository: Repository, archive: Archive, before: datetime, check: Callable[[], None]) -> Iterator[Sequence[str]]:
    """The keys to delete, in steps.

    Raises:
        IntegrityError: a compacted object that would take the place of small ones is damaged.
    """
    over = archive.over
    gone = [unit for unit in archive.below if unit.last_seq < over]
    kept = [unit for unit in archive.below if unit.last_seq >= over]
    in_use = {key for unit in (*archive.history.units, *kept) for key in key_ids(unit)}
    lost = {key for unit in gone for key in key_ids(unit)} - in_use
    yield [key for key_id in sorted(lost) for key in _keys(repository, layout.key_objects(key_id))]
    yield [key for unit in gone for key in data_keys(unit)]
    old = [one for one in archive.compacted if one.last_seq < over]
    replaced = list(_replaced(repository, archive, before, check))
    joined = [*old, *(one for one in replaced if isinstance(one, Joined))]
    yield [one.object_key for one in joined]
    yield [one.key for one in joined]
    yield [key for key in archive.small if layout.seq_of(key) < over and key != archive.small[-1]]
    yield [one for one in replaced if isinstance(one, str)]
    yield [key for key in archive.page_keys if covered(repository, key)[1] < over]


def _below(
    repository: Repository, history: History, small: Sequence[str], page_keys: Sequence[str], first_kept: int, over: int
) -> Iterator[Unit]:
    """Released units: pages where there are some, single manifests beside them."""
    paged: set[int] = set()
    lowest = [key for key in page_keys if (layout.parse_page(key) or (1, 0))[0] == 0]
    for key in lowest:
        first, last = covered(repository, key)
        if first >= first_kept:
            break
        paged.add(_page_number(repository, first))
        page, _ = repository.read(key, Page)
        if last < over or (first >= over and last < first_kept):
            yield page.stretch
        else:
            yield from (one for one in pages.read_segments(repository, page) if one.head.seq < first_kept)
    for key in small:
        seq = layout.seq_of(key)
        if seq < first_kept and _page_number(repository, seq) not in paged:
            yield repository.read(key, BinlogSegment)[0]


def _replaced(
    repository: Repository, archive: Archive, before: datetime, check: Callable[[], None]
) -> Iterator[str | Joined]:
    """Small objects, and objects of an hour, that others hold too; each of those is read and compared first."""
    newest = archive.history.newest.get("segments", (0, None))[0]
    paged = {page[1] for key in archive.page_keys if (page := layout.parse_page(key)) is not None and page[0] == 0}
    signed, is_given = _Signed(repository, archive), bytearray(len(archive.small))
    for one in archive.compacted:
        if one.created_at > before or one.last_seq < archive.over:
            continue
        hours = [hour for hour in archive.compacted if hour.level < one.level and one.holds(hour)]
        singles = [at for at in _own_objects(archive, one) if not is_given[at]]
        singles = [
            at for at in singles
            if (seq := layout.seq_of(archive.small[at])) != newest and _page_number(repository, seq) in paged
        ]
        if not (singles or hours):
            continue
        check()
        _compare(repository, archive, repository.read(one.key, Compacted)[0], signed)
        for at in singles:
            is_given[at] = True
            yield archive.small[at]
        yield from hours


def _own_objects(archive: Archive, one: Joined) -> Iterator[int]:
    """Places in `small` of the members that have an object of their own."""
    first = bisect.bisect_left(archive.small, one.first_seq, key=layout.seq_of)
    last = bisect.bisect_right(archive.small, one.last_seq, key=layout.seq_of)
    members = set(one.seqs)
    return (at for at in range(first, last) if layout.seq_of(archive.small[at]) in members)


def _compare(repository: Repository, archive: Archive, one: Compacted, signed: _Signed) -> None:
    """Every member against the signed manifest of its segment, and against the bytes that are stored."""
    wanted_by_seq = signed.between(one.members[0].seq, one.members[-1].seq)
    first_kept = archive.history.anchor.first_seq if archive.history.anchor is not None else 1
    pieces, rest = repository.backend.get(one.object.key), b""
    for member in one.members:
        digest, wanted = hashlib.sha256(), member.bytes
        while wanted:
            rest = rest or next(pieces, b"")
            if not rest:
                break
            digest.update(rest[:wanted])
            rest, wanted = rest[wanted:], wanted - min(wanted, len(rest))
        is_stored = not wanted and digest.hexdigest() == member.sha256
        is_signed = member.seq < first_kept or wanted_by_seq.get(member.seq) == (member.sha256, member.link)
        if not (is_stored and is_signed):
            raise errors.IntegrityError(
                f"segment {member.seq} in {one.object.key} is not the one that was archived",
                hint="run `kpbackup check`; nothing that this object was to replace is deleted",
            )


class _Signed:
    """Payload hash and link of each kept segment, as the pages list them, or the manifests behind the last page.

    Compacted objects follow one another, and two that do share a page: the last pages are remembered.
    """

    def __init__(self, repository: Repository, archive: Archive) -> None:
        self._repository, self._archive = repository, archive
        self._pages: dict[str, dict[int, tuple[str, str]]] = {}

    def between(self, first: int, last: int) -> dict[int, tuple[str, str]]:
        """Number -> (payload hash, link) of the segments of the units that have a part in these numbers."""
        found: dict[int, tuple[str, str]] = {}
        for unit in self._archive.history.units:
            if unit.last_seq < first or unit.first_seq > last:
                continue
            found.update(self._of_page(unit) if isinstance(unit, Stretch) else _hashes((unit,)))
        return found

    def _of_page(self, unit: Stretch) -> dict[int, tuple[str, str]]:
        key = layout.page(self._archive.history.id, 0, _page_number(self._repository, unit.first_seq))
        if key not in self._pages:
            while len(self._pages) >= _PAGES_KEPT:
                self._pages.pop(next(iter(self._pages)))
            page, _ = self._repository.read(key, Page)
            self._pages[key] = _hashes(pages.read_segments(self._repository, page))
        return self._pages[key]


def _hashes(segments: Iterable[BinlogSegment]) -> dict[int, tuple[str, str]]:
    return {segment.head.seq: (segment.payload.sha256, segment.link) for segment in segments}


def covered(repository: Repository, key: str) -> tuple[int, int]:
    """First and last segment that the page of this key stands for."""
    level, number = layout.parse_page(key) or (0, 0)
    count = repository.page_rows ** (level + 1)
    return (number - 1) * count + 1, number * count


def _page_number(repository: Repository, seq: int) -> int:
    """The page of level 0 that lists a segment, or will."""
    return (seq - 1) // repository.page_rows + 1


def _keys(repository: Repository, prefix: str) -> list[str]:
    return [info.key for info in repository.backend.list(prefix)]
