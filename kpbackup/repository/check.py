"""Auditing a repository: manifests, signatures, links and stored objects, from the store alone.

Three depths: what the store says of each object (size), the stored bytes of all or a sample of objects (hash), and with
an identity their content (age tags and zstd checksums). Without the private key nothing is opened and still a flipped bit, a
cut, a swapped or a missing object is found. What cannot be seen: removed newest segments (docs/format.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kpbackup import errors
from kpbackup.model.catalog import Catalog
from kpbackup.model.manifest import BinlogSegment, Sealing, StoredObject
from kpbackup.pipeline import encrypt, sign, stream
from kpbackup.plan import chain, timeline
from kpbackup.repository import catalog as catalogs
from kpbackup.repository import keys, layout
from kpbackup.repository.binding import READER_VERSION, Repository


@dataclass(frozen=True)
class Problem:
    """One object that is not as it must be, and what it costs."""

    key: str
    what: str
    costs: str


@dataclass(frozen=True)
class Report:
    """`objects` were looked at, `read_bytes` of them read. Intact when there is no problem."""

    problems: tuple[Problem, ...]
    manifests: int
    objects: int
    read_bytes: int
    windows: tuple[timeline.Window, ...]


@dataclass(frozen=True)
class _Item:
    """A stored object to judge: where its bytes lie and what they must be."""

    key: str
    offset: int
    length: int | None
    bytes: int
    sha256: str
    costs: str
    sealing: Sealing


def check(repository: Repository, *, read_percent: int = 0, identities: Sequence[encrypt.AnyIdentity] = (),
          choose: Callable[[int, int], bool] | None = None) -> Report:
    """Audits everything the repository's manifests name.

    `read_percent` of the objects are read and hashed; with `identities` also opened. `choose(index, percent)` picks
    them (evenly spread when None).

    Raises:
        StorageError: the store failed, so nothing can be said.
    """
    catalog = catalogs.read_catalog(repository)
    problems = [Problem(d.key, d.reason, "what only this manifest gives") for d in catalog.damaged]
    problems += _gaps(catalog)
    problems += _reader(repository)
    items = list(_items(repository, catalog))
    sizes = {info.key: info.size_bytes for prefix in (layout.DATA, layout.TIMELINES) for info in repository.backend.list(prefix)}
    picked = choose or _evenly
    read_bytes = 0
    for index, item in enumerate(items):
        problem = _size_problem(item, sizes)
        if problem is None and read_percent and picked(index, read_percent):
            problem = _content_problem(repository, item, identities)
            read_bytes += item.bytes
        if problem is not None:
            problems.append(problem)
    problems += _key_problems(repository, items, identities)
    return Report(tuple(problems), sum(1 for key in sizes if key.startswith(layout.TIMELINES)), len(items), read_bytes,
                  timeline.windows(catalog))


def _evenly(index: int, percent: int) -> bool:
    return (index * percent) // 100 != ((index + 1) * percent) // 100


def _gaps(catalog: Catalog) -> Iterator[Problem]:
    for history in catalog.histories:
        for gap in chain.runs(history)[1]:
            until = f" to {gap.before}" if gap.before else ""
            yield Problem(layout.log_prefix(history.id, "segments"), gap.reason, f"the recoverable points from {gap.after}{until}")


def _reader(repository: Repository) -> Iterator[Problem]:
    """The stand-alone reader must be there and be the one that was signed."""
    key = layout.reader(READER_VERSION)
    try:
        sign.verify(repository.backend.read(key), repository.backend.read(layout.signature(key)).decode(errors="replace"), repository.public_keys)
    except errors.ObjectMissing:
        yield Problem(key, "it is missing", "restoring without kpbackup")
    except (errors.IntegrityError, errors.KeyProblem) as exc:
        yield Problem(key, exc.message, "restoring without kpbackup: do not run it")


def _items(repository: Repository, catalog: Catalog) -> Iterator[_Item]:
    for history in catalog.histories:
        for backup_set in history.sets:
            for stored in (*backup_set.objects, *backup_set.definitions, backup_set.inventory):
                yield _of_set(stored, backup_set.name, backup_set.sealing)
        for segment in history.segments:
            yield _of_segment(repository, segment)


def _of_set(stored: StoredObject, name: str, sealing: Sealing) -> _Item:
    return _Item(stored.key, 0, None, stored.bytes, stored.sha256, f"set {name}", sealing)


def _of_segment(repository: Repository, segment: BinlogSegment) -> _Item:
    payload = segment.payload
    costs = f"points after {segment.start}"
    if payload.key is not None:
        return _Item(payload.key, 0, None, payload.bytes, payload.sha256, costs, segment.sealing)
    return _Item(segment.head.key, -payload.bytes, payload.bytes, payload.bytes, payload.sha256, costs, segment.sealing)


def _size_problem(item: _Item, sizes: dict[str, int]) -> Problem | None:
    if item.key not in sizes:
        return Problem(item.key, "it is missing", item.costs)
    found = sizes[item.key]
    if item.offset < 0:  # a payload behind its manifest: the manifest's own length is not known here
        return Problem(item.key, f"it has {found} bytes, less than its payload", item.costs) if found <= item.bytes else None
    if found != item.bytes:
        return Problem(item.key, f"it has {found} bytes, {item.bytes} were written", item.costs)
    return None


def _content_problem(repository: Repository, item: _Item, identities: Sequence[encrypt.AnyIdentity]) -> Problem | None:
    try:
        sealed = stream.Tally(_bytes(repository, item))
        if identities:
            opened = keys.open_data_key(repository, item.sealing, identities)
            for _ in stream.unseal(sealed, (opened,)):
                pass
        else:
            for _ in sealed:
                pass
    except errors.ObjectMissing:
        return Problem(item.key, "it is missing", item.costs)
    except (errors.IntegrityError, errors.KeyProblem) as exc:
        return Problem(item.key, exc.message, item.costs)
    if (sealed.size_bytes, sealed.sha256) != (item.bytes, item.sha256):
        return Problem(item.key, "its bytes are not those that were signed for", item.costs)
    return None


def _bytes(repository: Repository, item: _Item) -> Iterator[bytes]:
    if item.offset >= 0:
        return repository.backend.get(item.key)
    _, offset = repository.read(item.key, BinlogSegment)
    return repository.backend.get(item.key, offset=offset)


def _key_problems(repository: Repository, items: Sequence[_Item], identities: Sequence[encrypt.AnyIdentity]) -> Iterator[Problem]:
    """Each data key must have a key object, and with an identity it must open."""
    sealings = {item.sealing.key_id: item for item in items}
    present = {info.key.split("/")[1] for info in repository.backend.list("keys/")}
    for key_id, item in sealings.items():
        if key_id not in present:
            yield Problem(layout.key_objects(key_id), "the key object is missing", item.costs)
        elif identities:
            try:
                keys.open_data_key(repository, item.sealing, identities)
            except (errors.KeyProblem, errors.IntegrityError) as exc:
                yield Problem(layout.key_objects(key_id), exc.message, item.costs)
