"""The head of a repository as it is now, and comparing it with one that was kept outside.

Only entries that verify count: a number that somebody squatted must not end up in a head file, or it would be trusted later.
Pages and compacted objects are in a head so that a retired signing key is trusted for them; they are not missed, because prune
replaces them.

Limits: an entry is missed only if its log is named in the kept head; what was never known outside cannot be missed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kpbackup import errors
from kpbackup.model import heads
from kpbackup.model.catalog import Catalog, History
from kpbackup.model.manifest import BinlogSegment
from kpbackup.repository import catalog as catalogs
from kpbackup.repository import layout, objects
from kpbackup.repository.binding import Repository

_SMALL_LOGS = (layout.RECOVERIES, layout.CANARIES, layout.REPORTS)
_DERIVED = ("pages/", "compacted/")


@dataclass(frozen=True)
class Missing:
    """Entries of a log that were there once: `first` to `last` are gone, or the newest is not the one that was known."""

    log: str
    first: int
    last: int
    what: str


def of_catalog(catalog: Catalog) -> heads.Heads:
    """The head of everything the catalog holds."""
    found = heads.Heads(catalog.repository.head.repository)
    for history in catalog.histories:
        links = {history.id: history.units[-1].link} if history.units else {}
        found = found.advanced(_places(history), links)
    return found


def of_repository(repository: Repository, catalog: Catalog) -> heads.Heads:
    """The head of the whole repository: pages, compacted objects, journals, canaries and reports included.

    Raises:
        StorageError.
    """
    found = of_catalog(catalog)
    derived = [layout.timeline_prefix(history.id) + name for history in catalog.histories for name in _DERIVED]
    for prefix in (*_SMALL_LOGS, *derived):
        logs: dict[str, list[str]] = {}
        for info in repository.backend.list(prefix):
            place = layout.place(info.key)
            if place is not None and place[1]:
                logs.setdefault(place[0], []).append(info.key)
        for keys in logs.values():
            newest = next((key for key in reversed(keys) if _verifies(repository, key)), None)
            place = layout.place(newest) if newest else None
            found = found.advanced([place] if place else [])
    return found


def compare(repository: Repository, catalog: Catalog, known: heads.Heads) -> list[Missing]:
    """What the store does not show of a head known from outside: removed newest entries, an older state, another history.

    Where a page lists the known segment, its rows are read.

    Raises:
        RepositoryError: the head is another repository's. StorageError.
    """
    own = catalog.repository.head.repository
    if known.repository != own:
        raise errors.RepositoryError(
            f"the head file is of repository {known.repository or '?'}, this is {own}",
            hint="name this repository's own head file",
        )
    now = of_catalog(catalog)
    found = [
        Missing(log, now.logs.get(log, 0) + 1, seq, "entries that were there are gone")
        for log, seq in sorted(known.logs.items())
        if log.startswith(layout.TIMELINES.rstrip("/")) and not _is_derived(log) and now.logs.get(log, 0) < seq
    ]
    for history in catalog.histories:
        log = heads.segments_log(history.id)
        seq, link = known.logs.get(log, 0), known.links.get(history.id)
        if link is not None and (what := _difference(repository, history, seq, link)):
            found.append(Missing(log, seq, seq, what))
    return found


def _is_derived(log: str) -> bool:
    return any(f"/{name}" in log for name in _DERIVED)


def _difference(repository: Repository, history: History, seq: int, link: str) -> str:
    """How segment `seq` differs from the one that was known by its link; '' when it does not, or was released since."""
    unit = next((one for one in history.units if one.first_seq <= seq <= one.last_seq), None)
    if unit is not None and unit.last_seq != seq:
        try:
            known = catalogs.detailed(repository, history, (unit,)).units
        except errors.IntegrityError as exc:
            return f"it cannot be compared with what was known: {exc.message}"
        unit = next((one for one in known if isinstance(one, BinlogSegment) and one.head.seq == seq), None)
    if unit is None or unit.link == link:
        return ""
    return "it is another one than was known: the archive has another history"


def _places(history: History) -> Iterator[tuple[str, int]]:
    yield "timelines", int(history.id)
    newest = {
        "sets": [one.head for one in history.sets],
        "tombstones": [one.head for one in history.tombstones],
        "pins": [one.head for one in history.pins],
        "observations": [history.observation.head] if history.observation else [],
        "anchors": [history.anchor.head] if history.anchor else [],
    }
    if history.units:
        yield layout.log_prefix(history.id, "segments").rstrip("/"), history.units[-1].last_seq
    for log, found in newest.items():
        for one in found:
            yield layout.log_prefix(history.id, log).rstrip("/"), one.seq
    for tombstone in history.tombstones:  # a set that was released was there
        yield layout.log_prefix(history.id, "sets").rstrip("/"), tombstone.set_seq


def _verifies(repository: Repository, key: str) -> bool:
    try:
        objects.parse(repository.backend.read(key), key=key, public_keys=repository.public_keys)
    except (errors.IntegrityError, errors.KeyProblem, errors.ObjectMissing):
        return False
    return True
