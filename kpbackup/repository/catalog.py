"""The catalog: every manifest read together, at one moment, verified.

A manifest that does not verify is not an exception here but an entry in `damaged`: one flipped bit must not
hide the windows it does not touch. Whoever plans treats a damaged entry as missing, so it becomes a gap.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from kpbackup import errors
from kpbackup.model import manifest
from kpbackup.model.catalog import Catalog, Damaged, History
from kpbackup.repository import layout
from kpbackup.repository.binding import Repository

READERS = 8  # parallel GETs of small objects: enough to hide latency, few enough to stay polite

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
    """Lists the timelines once and reads every manifest on them.

    Raises:
        StorageError: the store failed; nothing partial is returned.
    """
    etags = {info.key: info.etag for info in repository.backend.list(layout.TIMELINES)}
    keys = list(etags)
    _forget(repository, etags)
    ids = sorted({key.split("/")[1] for key in keys})
    histories: list[History] = []
    damaged: list[Damaged] = []
    with ThreadPoolExecutor(READERS) as pool:
        fetch = _Fetcher(repository, pool, etags)
        for number in ids:
            found = _history(number, [key for key in keys if key.startswith(layout.timeline_prefix(number))], fetch)
            if isinstance(found, Damaged):
                damaged.append(found)
            else:
                histories.append(found)
                damaged.extend(found.damaged)
    return Catalog(repository.binding, tuple(histories), tuple(damaged))


def read_current(repository: Repository) -> History | None:
    """The newest timeline without its older segments: what an archiver needs to go on. None when there is no timeline.

    Raises:
        IntegrityError: its own manifest is missing or damaged.
    """
    timelines = list(repository.backend.list_prefixes(layout.TIMELINES))
    return read_history(repository, timelines[-1].split("/")[1], tail=True) if timelines else None


def read_history(repository: Repository, timeline: str, *, tail: bool = False) -> History:
    """One timeline, read now; `tail` leaves out all segments but the newest.

    Raises:
        IntegrityError: its own manifest is missing or damaged.
    """
    etags = {info.key: info.etag for info in repository.backend.list(layout.timeline_prefix(timeline))}
    with ThreadPoolExecutor(READERS) as pool:
        found = _history(timeline, list(etags), _Fetcher(repository, pool, etags), tail=tail)
    if isinstance(found, Damaged):
        raise errors.IntegrityError(f"timeline {timeline}: {found.reason}", hint="run `kpbackup check`")
    return found


@dataclass(frozen=True)
class _Fetcher:
    """Reads and verifies many manifests at once, keeping their order."""

    repository: Repository
    pool: ThreadPoolExecutor
    etags: dict[str, str]

    def __call__(self, keys: Iterable[str], kind: type[T]) -> list[tuple[str, T | Damaged]]:
        wanted = list(keys)
        values = self.pool.map(lambda key: _verified(self.repository, key, kind, self.etags[key]), wanted)
        return list(zip(wanted, values, strict=True))


def _forget(repository: Repository, etags: dict[str, str]) -> None:
    """Drops what is no longer stored as it was from the manifests read before."""
    for key, etag in [known for known in repository.verified if etags.get(known[0]) != known[1]]:
        repository.verified.pop((key, etag), None)


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


def _history(number: str, keys: list[str], fetch: _Fetcher, *, tail: bool = False) -> History | Damaged:
    key = layout.timeline(number)
    if key not in keys:
        return Damaged(key, "the timeline's own manifest is missing")
    timeline = fetch([key], manifest.Timeline)[0][1]
    if isinstance(timeline, Damaged):
        return timeline
    logs: dict[str, list[str]] = {log: [] for log in layout.LOGS}
    for entry in keys:
        place = layout.parse_log_entry(entry)
        if place:
            logs[place[1]].append(entry)
    anchors = _good(fetch(logs["anchors"][-1:], manifest.Anchor))
    first_kept = anchors[-1].first_seq if anchors else 1
    segments = [key for key in logs["segments"] if int(key[-layout.SEQ_DIGITS :]) >= first_kept]
    wanted = {
        "sets": logs["sets"],
        "tombstones": logs["tombstones"],
        "pins": logs["pins"],
        "observations": logs["observations"][-1:],
        "segments": segments[-1:] if tail else segments,
    }
    found = {log: fetch(entries, _KINDS[log]) for log, entries in wanted.items()}
    found["anchors"] = fetch(logs["anchors"], manifest.Anchor)
    return _assemble(timeline, found, anchors)


def _assemble(timeline: manifest.Timeline, found: dict[str, Any], anchors: list[manifest.Anchor]) -> History:
    observations = _good(found["observations"])
    released = {tombstone.set_seq for tombstone in _good(found["tombstones"])}
    return History(
        timeline=timeline,
        sets=tuple(s for s in _good(found["sets"]) if s.head.seq not in released),
        segments=tuple(_good(found["segments"])),
        observation=observations[-1] if observations else None,
        anchor=anchors[-1] if anchors else None,
        tombstones=tuple(_good(found["tombstones"])),
        damaged=tuple(value for entries in found.values() for _, value in entries if isinstance(value, Damaged)),
        newest={log: newest for log, entries in found.items() if (newest := _newest(entries))},
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
