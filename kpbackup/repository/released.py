"""What of an archive may be deleted: segments below the anchors, and small objects whose bytes a compacted object holds too.

Released segments go when the grace period of an anchor above them is over. A small object goes when a compacted object has held
its payload for a grace period, a page lists its manifest, and the compacted object was read back and every member's hash compared
now; the newest segment always stays. Objects of an hour go in the same way when those of days hold all they hold.

The steps of `due` are in the order of deletion: what names other things goes last, so a crash leaves names and not orphans.
"""

from __future__ import annotations

import hashlib
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


@dataclass(frozen=True)
class Archive:
    """Everything stored of one timeline's archive. `over` is the first segment whose anchor's grace period is not over.

    `small` are the keys of all segments' own objects. `below` are the units below the newest anchor, known by pages where they
    can be; a page on whose segments both sides of `over` lie is known segment by segment.
    """

    history: History
    over: int
    small: tuple[str, ...]
    below: tuple[Unit, ...]
    page_keys: tuple[str, ...]
    compacted: tuple[Compacted, ...]

    def data_keys(self) -> Iterator[str]:
        """Every data object the archive names."""
        yield from (key for unit in (*self.history.units, *self.below) for key in data_keys(unit))
        yield from (one.object.key for one in self.compacted)


def read(repository: Repository, history: History, before: datetime) -> Archive:
    """Reads what a prune must know; anchors made up to `before` have had their grace period."""
    anchors = [repository.read(key, Anchor)[0] for key in _keys(repository, layout.log_prefix(history.id, "anchors"))]
    over = max((one.first_seq for one in anchors if one.head.created_at <= before), default=0)
    small = tuple(_keys(repository, layout.log_prefix(history.id, "segments")))
    page_keys = tuple(_keys(repository, layout.timeline_prefix(history.id) + "pages/"))
    with ThreadPoolExecutor(pages.READERS) as pool:
        compacted = tuple(pool.map(lambda one: repository.read(one.key, Compacted)[0], history.compacted))
    first_kept = history.anchor.first_seq if history.anchor is not None else 0
    below = tuple(_below(repository, history, small, page_keys, first_kept, over)) if first_kept else ()
    return Archive(history, over, small, below, page_keys, compacted)


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
    old = [one for one in archive.compacted if one.members[-1].seq < over]
    replaced = list(_replaced(repository, archive, before, check))
    yield [one.object.key for one in (*old, *(one for one in replaced if isinstance(one, Compacted)))]
    yield [one.head.key for one in (*old, *(one for one in replaced if isinstance(one, Compacted)))]
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
) -> Iterator[str | Compacted]:
    """Small objects, and objects of an hour, that others hold too; each of those is read and compared first."""
    newest = archive.history.newest.get("segments", (0, None))[0]
    paged = {page[1] for key in archive.page_keys if (page := layout.parse_page(key)) is not None and page[0] == 0}
    own = {layout.seq_of(key): key for key in archive.small}
    for one in archive.compacted:
        hours = [hour for hour in archive.compacted if hour.level < one.level and holds(one, hour)]
        seqs = [member.seq for member in one.members]
        singles = [seq for seq in seqs if seq in own and seq != newest and _page_number(repository, seq) in paged]
        if one.head.created_at > before or seqs[-1] < archive.over or not (singles or hours):
            continue
        check()
        _compare(repository, archive, one)
        yield from (own.pop(seq) for seq in singles)
        yield from hours


def _compare(repository: Repository, archive: Archive, one: Compacted) -> None:
    """Every member against the signed manifest of its segment, and against the bytes that are stored."""
    signed = _signed(repository, archive, one)
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
        is_signed = member.seq < first_kept or signed.get(member.seq) == (member.sha256, member.link)
        if not (is_stored and is_signed):
            raise errors.IntegrityError(
                f"segment {member.seq} in {one.object.key} is not the one that was archived",
                hint="run `kpbackup check`; nothing that this object was to replace is deleted",
            )


def _signed(repository: Repository, archive: Archive, one: Compacted) -> dict[int, tuple[str, str]]:
    """Number -> (payload hash, link), as the pages list them, or the manifests behind the last page."""
    found: dict[int, tuple[str, str]] = {}
    first, last = one.members[0].seq, one.members[-1].seq
    units: list[Unit] = [unit for unit in archive.history.units if unit.last_seq >= first and unit.first_seq <= last]
    for unit in units:
        key = layout.page(archive.history.id, 0, _page_number(repository, unit.first_seq))
        segments: Iterable[BinlogSegment] = (
            pages.read_segments(repository, repository.read(key, Page)[0]) if isinstance(unit, Stretch) else (unit,)
        )
        found.update((segment.head.seq, (segment.payload.sha256, segment.link)) for segment in segments)
    return found


def holds(whole: Compacted, part: Compacted) -> bool:
    """Whether all payloads of `part` are in `whole`."""
    members = {(one.seq, one.sha256, one.bytes) for one in whole.members}
    return all((one.seq, one.sha256, one.bytes) in members for one in part.members)


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
