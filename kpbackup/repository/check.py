"""Auditing a repository: manifests, signatures, links and stored objects, from the store alone.

Three depths: what the store says of each object (there, of the right size), the stored bytes of all or a sample of objects
(hash), and with an identity their content (age tags and zstd checksums). Without the private key nothing is opened and still
a flipped bit, a cut, a swapped or a missing object is found.

What cannot be seen: removed newest entries of a log (docs/format.md, 'What cannot be seen'); and without an identity a damaged
key object, because no manifest holds its hash. Nothing is written, so a crash leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kpbackup import errors
from kpbackup.model import canonical
from kpbackup.model.catalog import Catalog, History
from kpbackup.model.heads import Heads
from kpbackup.model.manifest import BinlogSegment, Sealing, StoredObject
from kpbackup.pipeline import encrypt, sign, stream
from kpbackup.plan import chain, timeline
from kpbackup.repository import applications, heads, keys, layout, objects, pages
from kpbackup.repository import catalog as catalogs
from kpbackup.repository.binding import READER_VERSION, Repository


@dataclass(frozen=True)
class Problem:
    """One object that is not as it must be, and what it costs."""

    key: str
    what: str
    costs: str


@dataclass(frozen=True)
class Report:
    """`objects` were looked at, `read_objects` of them read (`read_bytes`). Intact when there is no problem.

    `opened` is True when an identity was given: then what was read was also decrypted and decompressed.
    """

    problems: tuple[Problem, ...]
    manifests: int
    objects: int
    read_objects: int
    read_bytes: int
    opened: bool
    windows: tuple[timeline.Window, ...]
    head: Heads


@dataclass(frozen=True)
class _Item:
    """A stored object to judge: where its bytes begin (None: behind a manifest that could not be read) and what they must be."""

    key: str
    offset: int | None
    bytes: int
    sha256: str
    costs: str
    sealing: Sealing


def check(
    repository: Repository,
    *,
    read_percent: int = 0,
    identities: Sequence[encrypt.AnyIdentity] = (),
    choose: Callable[[int, int], bool] | None = None,
    expected: Heads | None = None,
) -> Report:
    """Audits everything the repository's manifests name.

    `read_percent` of the objects are read and hashed; with `identities` also opened. `choose(index, percent)` picks
    them (evenly spread when None). Of the head `expected`, kept outside the store, nothing may be missing.

    Raises:
        StorageError: the store failed, so nothing can be said.
        RepositoryError: the expected head is another repository's.
    """
    catalog = catalogs.read_catalog(repository)
    problems = [Problem(d.key, d.reason, "what only this manifest gives") for d in catalog.damaged]
    problems += [*_missing_manifests(catalog), *_gaps(catalog), *_reader(repository), *_journals(repository)]
    if expected is not None:
        problems += [_missing(catalog, one) for one in heads.compare(repository, catalog, expected)]
    costs = "the application as it was then"
    problems += [Problem(key, what, costs) for key, what in applications.problems(repository, identities)]
    items = _items(repository, catalog)
    sizes = {info.key: info.size_bytes for prefix in (layout.DATA, layout.TIMELINES) for info in repository.backend.list(prefix)}
    picked = choose or _evenly
    read: list[_Item] = []
    for index, item in enumerate(items):
        problem = _size_problem(item, sizes)
        if problem is None and read_percent and picked(index, read_percent):
            problem = _content_problem(repository, item, identities)
            read.append(item)
        if problem is not None:
            problems.append(problem)
    problems += _key_problems(repository, items, identities)
    manifests = sum(1 for key in sizes if key.startswith(layout.TIMELINES))
    return Report(
        tuple(problems),
        manifests,
        len(items),
        len(read),
        sum(item.bytes for item in read),
        bool(identities),
        timeline.windows(catalog),
        heads.of_repository(repository, catalog),
    )


def _missing(catalog: Catalog, missing: heads.Missing) -> Problem:
    """Newest entries that were there once cost everything after what is left."""
    end = max((window.end for window in timeline.windows(catalog)), default=None)
    costs = f"the recoverable points after {canonical.time_text(end)}" if end else "all recoverable points"
    return Problem(missing.log, f"{missing.first} to {missing.last}: {missing.what}", costs)


def _evenly(index: int, percent: int) -> bool:
    return (index * percent) // 100 != ((index + 1) * percent) // 100


def _missing_manifests(catalog: Catalog) -> Iterator[Problem]:
    """Holes in the numbers of logs that have none: timelines, tombstones, anchors, and sets but for those with a tombstone."""
    damaged = {d.key for d in catalog.damaged}
    known = {h.id for h in catalog.histories} | {key.split("/")[1] for key in damaged}
    for number in range(1, max((int(name) for name in known), default=0)):
        if layout.timeline_id(number) not in known:
            key = layout.timeline(layout.timeline_id(number))
            yield Problem(key, "it is missing, with everything on it", "all its recoverable points")
    for history in catalog.histories:
        there = {
            "sets": {s.head.seq for s in history.sets} | {t.set_seq for t in history.tombstones},
            "tombstones": {t.head.seq for t in history.tombstones},
        }
        for log, seqs in there.items():
            yield from _holes(
                history,
                log,
                seqs | {place[2] for key in damaged if (place := layout.parse_log_entry(key)) and place[:2] == (history.id, log)},
            )


def _holes(history: History, log: str, seqs: set[int]) -> Iterator[Problem]:
    for seq in range(1, history.newest.get(log, (0, None))[0]):
        if seq not in seqs:
            costs = "the points restored from this set" if log == "sets" else "knowing why a set is gone"
            yield Problem(layout.log_prefix(history.id, log), f"entry {seq} is missing", costs)


def _gaps(catalog: Catalog) -> Iterator[Problem]:
    for history in catalog.histories:
        segments = layout.log_prefix(history.id, "segments")
        for gap in chain.runs(history)[1]:
            until = f" to {gap.before}" if gap.before else ""
            yield Problem(segments, gap.reason, f"the recoverable points from {gap.after}{until}")
        for found in chain.chains(history):
            if found.gap is not None and found.gap.before is None:
                what = f"{found.gap.reason} ({found.backup_set.name})"
                yield Problem(segments, what, f"the recoverable points from {found.gap.after}")


def _reader(repository: Repository) -> Iterator[Problem]:
    """The stand-alone reader must be there and be the one that was signed."""
    key = layout.reader(READER_VERSION)
    try:
        text, signature = (repository.backend.read(name) for name in (key, layout.signature(key)))
        sign.verify(text, signature.decode(errors="replace"), repository.public_keys)
    except errors.ObjectMissing:
        yield Problem(key, "it or its signature is missing", "restoring without kpbackup")
    except (errors.IntegrityError, errors.KeyProblem) as exc:
        yield Problem(key, exc.message, "restoring without kpbackup: do not run it")


def _journals(repository: Repository) -> Iterator[Problem]:
    """Entries of recoveries: whole, at their own place, numbered without holes. Unsigned ones are allowed."""
    runs: dict[str, list[str]] = {}
    for info in repository.backend.list(layout.RECOVERIES):
        runs.setdefault(info.key.split("/")[1], []).append(info.key)
    for run, entries in runs.items():
        if entries != [layout.recovery_entry(run, seq) for seq in range(1, len(entries) + 1)]:
            yield Problem(layout.recovery(run), "entries are missing or misnamed", f"the evidence of recovery {run}")
        for key in entries:
            try:
                data = repository.backend.read(key)
                found = (
                    canonical.loads(data, what=key)
                    if data.startswith(b"{")
                    else objects.parse(data, key=key, public_keys=repository.public_keys).document
                )
                if found.get("head", {}).get("key") != key:
                    raise errors.IntegrityError("it was moved or copied here")
            except (errors.IntegrityError, errors.KeyProblem) as exc:
                yield Problem(key, exc.message, f"the evidence of recovery {run}")


def _items(repository: Repository, catalog: Catalog) -> list[_Item]:
    """Every data object and segment payload that a manifest names."""
    found: list[_Item] = []
    with ThreadPoolExecutor(pages.READERS) as pool:
        for history in catalog.histories:
            for backup_set in history.sets:
                stored = (*backup_set.objects, *backup_set.definitions, backup_set.inventory)
                found += [_of_set(one, backup_set.name, backup_set.sealing) for one in stored]
            found += pool.map(lambda segment: _of_segment(repository, segment), history.segments)
    return found


def _of_set(stored: StoredObject, name: str, sealing: Sealing) -> _Item:
    return _Item(stored.key, 0, stored.bytes, stored.sha256, f"set {name}", sealing)


def _of_segment(repository: Repository, segment: BinlogSegment) -> _Item:
    payload = segment.payload
    key, offset = payload.key or segment.head.key, 0 if payload.key else _payload_offset(repository, segment)
    return _Item(key, offset, payload.bytes, payload.sha256, f"the recoverable points after {segment.start}", segment.sealing)


def _payload_offset(repository: Repository, segment: BinlogSegment) -> int | None:
    """How long the manifest before the payload is: with it a payload cut by one byte is seen without reading it."""
    try:
        return repository.read(segment.head.key, BinlogSegment)[1]
    except (errors.ObjectMissing, errors.IntegrityError, errors.KeyProblem):
        return None  # it was whole when the catalog was read, a moment ago


def _size_problem(item: _Item, sizes: dict[str, int]) -> Problem | None:
    if item.key not in sizes or item.offset is None:
        return Problem(item.key, "it is missing", item.costs)
    found, written = sizes[item.key], item.offset + item.bytes
    return Problem(item.key, f"it has {found} bytes, {written} were written", item.costs) if found != written else None


def _content_problem(repository: Repository, item: _Item, identities: Sequence[encrypt.AnyIdentity]) -> Problem | None:
    try:
        sealed = stream.Tally(repository.backend.get(item.key, offset=item.offset or 0))
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
