"""The catalog: every manifest read together, at one moment, verified; of what pages list, the pages.

A manifest that does not verify is not an exception here but an entry in `damaged`: one flipped bit must not
hide the windows it does not touch. Whoever plans treats a damaged entry as missing, so it becomes a gap. In the place of a
damaged page the pages below it are read, or its segments one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from kpbackup import errors
from kpbackup.model import manifest
from kpbackup.model.catalog import Catalog, Damaged, History
from kpbackup.model.stretch import Unit
from kpbackup.repository import layout, listing, pages
from kpbackup.repository.binding import Repository

T = TypeVar("T")

_KINDS: dict[str, type[Any]] = {
    "sets": manifest.BackupSet,
    "segments": manifest.BinlogSegment,
    "observations": manifest.ObservationManifest,
    "anchors": manifest.Anchor,
    "tombstones": manifest.Tombstone,
    "pins": manifest.Pin,
}


def next_place(history: History, log: str) -> tuple[int, str]:
    """(seq, key) of the next entry of a log: where the fence stands."""
    seq, month_of = history.newest.get(log, (0, history.timeline.head.created_at))
    return seq + 1, layout.log_entry(history.id, log, month_of=month_of, seq=seq + 1)


def read_catalog(repository: Repository) -> Catalog:
    """Every timeline with its manifests; of the paged part of an archive the pages.

    Raises:
        StorageError: the store failed; nothing partial is returned.
    """
    ids = [prefix.split("/")[1] for prefix in repository.backend.list_prefixes(layout.TIMELINES)]
    histories: list[History] = []
    damaged: list[Damaged] = []
    for number in ids:
        found = _history(repository, number)
        if isinstance(found, Damaged):
            damaged.append(found)
        else:
            histories.append(found)
            damaged.extend(found.damaged)
    return Catalog(repository.binding, tuple(histories), tuple(damaged))


def read_current(repository: Repository) -> History | None:
    """The newest timeline without its older segments: what an archiver needs to go on. None when there is no timeline.

    One whose own manifest does not verify is passed over, as read_catalog does: whoever may put can take a number with rubbish.
    """
    for prefix in reversed(list(repository.backend.list_prefixes(layout.TIMELINES))):
        found = _history(repository, prefix.split("/")[1], tail=True)
        if isinstance(found, History):
            return found
    return None


def read_history(repository: Repository, timeline: str, *, tail: bool = False) -> History:
    """One timeline, read now; `tail` leaves out all segments but the newest.

    Raises:
        IntegrityError: its own manifest is missing or damaged.
    """
    found = _history(repository, timeline, tail=tail)
    if isinstance(found, Damaged):
        raise errors.IntegrityError(f"timeline {timeline}: {found.reason}", hint="run `kpbackup check`")
    return found


def detailed(repository: Repository, history: History, units: Sequence[Unit]) -> History:
    """The same timeline with each segment of `units` by itself: their stretches are replaced by the rows of their pages.

    Raises:
        IntegrityError: a page or its rows are damaged. StorageError.
    """
    wanted = [unit for unit in units if isinstance(unit, manifest.Stretch)]
    if not wanted:
        return history
    with ThreadPoolExecutor(pages.READERS) as pool:
        read = list(pool.map(lambda one: _segments_of(repository, history, one), wanted))
    first_kept = history.anchor.first_seq if history.anchor else 1
    segments = [segment for found in read for segment in found if segment.head.seq >= first_kept]
    return replace(
        history,
        stretches=tuple(one for one in history.stretches if one not in wanted),
        segments=tuple(sorted((*segments, *history.segments), key=lambda one: one.head.seq)),
    )


def _segments_of(repository: Repository, history: History, one: manifest.Stretch) -> tuple[manifest.BinlogSegment, ...]:
    key = layout.page(history.id, 0, (one.first_seq - 1) // repository.page_rows + 1)
    return pages.read_segments(repository, repository.read(key, manifest.Page)[0])


@dataclass(frozen=True)
class _Fetcher:
    """Reads and verifies many manifests at once, keeping their order."""

    repository: Repository
    pool: ThreadPoolExecutor
    etags: dict[str, str]
    used: set[tuple[str, str]] = field(default_factory=set)

    def __call__(self, keys: Iterable[str], kind: type[T]) -> list[tuple[str, T | Damaged]]:
        wanted = list(keys)
        self.used.update((key, self.etags[key]) for key in wanted)
        values = self.pool.map(lambda key: _verified(self.repository, key, kind, self.etags[key]), wanted)
        return list(zip(wanted, values, strict=True))


def _forget(repository: Repository, timeline: str, used: set[tuple[str, str]]) -> None:
    """Drops manifests read before that this reading of the timeline did not need: replaced by a page, released or gone."""
    prefix = layout.timeline_prefix(timeline)
    for known in [one for one in list(repository.verified) if one[0].startswith(prefix) and one not in used]:
        repository.verified.pop(known, None)


def _verified(repository: Repository, key: str, kind: type[T], etag: str) -> T | Damaged:
    known = repository.verified.get((key, etag))
    if isinstance(known, kind):
        return known
    try:
        found = repository.read(key, kind)[0]
        repository.verified[key, etag] = found
        return found
    except (errors.IntegrityError, errors.KeyProblem) as exc:
        return Damaged(key, exc.message)
    except errors.ObjectMissing:
        return Damaged(key, "it was listed but is gone")


def _history(repository: Repository, number: str, *, tail: bool = False) -> History | Damaged:
    listed = listing.read(repository, number)
    key = layout.timeline(number)
    if key not in listed.etags:
        return Damaged(key, "the timeline's own manifest is missing")
    with ThreadPoolExecutor(pages.READERS) as pool:
        fetch = _Fetcher(repository, pool, listed.etags)
        timeline = fetch([key], manifest.Timeline)[0][1]
        if isinstance(timeline, Damaged):
            return timeline
        anchors = fetch(listed.logs["anchors"], manifest.Anchor)
        kept = _good(anchors)
        paged = _paged(fetch, listed, kept[-1].first_seq if kept else 1, tail=tail)
        wanted = {
            "sets": listed.logs["sets"],
            "tombstones": listed.logs["tombstones"],
            "pins": listed.logs["pins"],
            "observations": listed.logs["observations"][-1:],
        }
        found: dict[str, Any] = {log: fetch(entries, _KINDS[log]) for log, entries in wanted.items()}
        found["anchors"] = anchors
        found["segments"] = fetch(paged.segments[-1:] if tail else paged.segments, manifest.BinlogSegment)
    if not tail:
        _forget(repository, number, fetch.used)
    return _without_released(repository, _assemble(timeline, found, paged, listed))


def _without_released(repository: Repository, history: History) -> History:
    """The page in which the kept archive begins, row by row: what lies before the anchor is not there any more."""
    first_kept = history.anchor.first_seq if history.anchor else 1
    first = next((one for one in history.stretches if one.first_seq < first_kept), None)
    if first is None:
        return history
    try:
        return detailed(repository, history, (first,))
    except errors.IntegrityError as exc:
        damaged = Damaged(layout.page(history.id, 0, (first.first_seq - 1) // repository.page_rows + 1), exc.message)
        singles = _small(repository, history.id, first_kept, first.last_seq)
        return replace(
            history, stretches=tuple(one for one in history.stretches if one != first),
            segments=(*_good(singles), *history.segments),
            damaged=(*history.damaged, damaged, *(one for _, one in singles if isinstance(one, Damaged))),
        )


def _small(repository: Repository, timeline: str, first: int, last: int) -> list[tuple[str, manifest.BinlogSegment | Damaged]]:
    """The segments of these numbers that still have an object of their own."""
    found = {info.key: info.etag for info in repository.backend.list(layout.log_prefix(timeline, "segments"))}
    with ThreadPoolExecutor(pages.READERS) as pool:
        fetch = _Fetcher(repository, pool, found)
        return fetch([key for key in found if first <= layout.seq_of(key) <= last], manifest.BinlogSegment)


@dataclass(frozen=True)
class _Paged:
    """The archive as it will be read: stretches of pages, the keys of the segments beside them, pages that are damaged."""

    stretches: tuple[manifest.Stretch, ...]
    segments: list[str]
    damaged: tuple[Damaged, ...]


def _paged(fetch: _Fetcher, listed: listing.Listed, first_kept: int, *, tail: bool) -> _Paged:
    found: dict[str, list[manifest.Stretch]] = {}
    damaged: dict[str, Damaged] = {}
    while True:
        wanted = listing.topmost([page for page in listed.pages if page.last_seq >= first_kept], without=set(damaged))
        wanted = wanted[-1:] if tail else wanted
        fresh = [page.key for page in wanted if page.key not in found]
        if not fresh:
            break
        for key, page in fetch(fresh, manifest.Page):
            stretches = page if isinstance(page, Damaged) else _stretches(fetch.repository, page)
            if isinstance(stretches, Damaged):
                damaged[key] = stretches
            else:
                found[key] = stretches
    stretches = [one for page in wanted for one in found[page.key] if one.last_seq >= first_kept]
    first = stretches[-1].first_seq if tail and stretches else first_kept
    segments = listing.segments(fetch.repository, listed, stretches[-1:] if tail else stretches, first)
    return _Paged(tuple(stretches), segments, tuple(damaged.values()))


def _stretches(repository: Repository, page: manifest.Page) -> list[manifest.Stretch] | Damaged:
    """The stretches of level 0 that a page of any level stands for."""
    known = repository.stretches.get(page.head.key)
    if known is None:
        try:
            known = [lower.stretch for lower in _lowest(repository, page)]
        except errors.IntegrityError as exc:
            return Damaged(page.head.key, exc.message)
        repository.stretches[page.head.key] = known
    return known


def _lowest(repository: Repository, page: manifest.Page) -> list[manifest.Page]:
    if page.level == 0:
        return [page]
    return [one for lower in pages.read_pages(repository, page) for one in _lowest(repository, lower)]


def _assemble(timeline: manifest.Timeline, found: dict[str, Any], paged: _Paged, listed: listing.Listed) -> History:
    observations, anchors = _good(found["observations"]), _good(found["anchors"])
    released = {tombstone.set_seq for tombstone in _good(found["tombstones"])}
    newest = {log: at for log, entries in found.items() if (at := _newest(entries))}
    if paged.stretches and paged.stretches[-1].last_seq > newest.get("segments", (0, None))[0]:
        newest["segments"] = paged.stretches[-1].last_seq, paged.stretches[-1].created_at
    damaged = (value for entries in found.values() for _, value in entries if isinstance(value, Damaged))
    return History(
        timeline=timeline,
        sets=tuple(s for s in _good(found["sets"]) if s.head.seq not in released),
        segments=tuple(_good(found["segments"])),
        observation=observations[-1] if observations else None,
        anchor=anchors[-1] if anchors else None,
        tombstones=tuple(_good(found["tombstones"])),
        damaged=(*damaged, *paged.damaged),
        newest=newest,
        stretches=paged.stretches,
        compacted=tuple(listed.compacted),
        pins=tuple(_good(found["pins"])),
    )


def _good(entries: list[tuple[str, Any]]) -> list[Any]:
    return [value for _, value in entries if not isinstance(value, Damaged)]


def _newest(entries: list[tuple[str, Any]]) -> tuple[int, datetime] | None:
    """(seq, creation time) of the last entry; a damaged last entry leaves no way to name its successor."""
    if not entries:
        return None
    key, value = entries[-1]
    if isinstance(value, Damaged):
        year, month = key.split("/")[-2].split("-")
        # the month of its own key is the best that is left: a later month cannot be known
        return int(key[-layout.SEQ_DIGITS :]), datetime(int(year), int(month), 1, tzinfo=UTC)
    return int(key[-layout.SEQ_DIGITS :]), value.head.created_at
