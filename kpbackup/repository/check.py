"""Auditing a repository: manifests, signatures, links and stored objects, from the store alone.

Three depths: what the store says of each object (there, of the right size), the stored bytes of all or a sample of objects
(hash), and with an identity their content (age tags, zstd checksums, the CRC32 of binlog events). Without the private key nothing
is opened and still a flipped bit, a cut, a swapped or a missing object is found. The archive is check_archive.py's.

What cannot be seen: removed newest entries of a log (docs/format.md, 'What cannot be seen'); and without an identity a damaged
key object, because no manifest holds its hash. Nothing is written here (reports.py leaves the answer), so a crash leaves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from kpbackup import errors
from kpbackup.model import canonical
from kpbackup.model.catalog import Catalog, History
from kpbackup.model.heads import Heads
from kpbackup.model.manifest import Sealing
from kpbackup.pipeline import encrypt, sign
from kpbackup.plan import chain, timeline
from kpbackup.repository import applications, canary, check_archive, heads, keys, layout, objects, pages, reports
from kpbackup.repository import catalog as catalogs
from kpbackup.repository.binding import READER_VERSION, Repository
from kpbackup.repository.check_archive import Item, Problem


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
    problems += _surplus(repository, {p.key for p in problems})
    proof = "knowing that this key still opens backups"
    problems += [Problem(key, what, proof) for key, what in canary.problems(repository)]
    problems += [Problem(key, what, "knowing what an earlier check or copy said") for key, what in reports.problems(repository)]
    sizes = {info.key: info.size_bytes for prefix in (layout.DATA, layout.TIMELINES) for info in repository.backend.list(prefix)}
    picked = choose or _evenly
    found = _Found()
    for one in _all(repository, catalog, sizes):
        if isinstance(one, Problem):
            problems.append(one)
            continue
        problem = _size_problem(one, sizes)
        if problem is None and read_percent and picked(found.objects, read_percent):
            problem = found.read(repository, one, identities)
        found.note(one)
        if problem is not None:
            problems.append(problem)
    problems += _key_problems(repository, found.sealings, identities)
    manifests = sum(1 for key in sizes if key.startswith(layout.TIMELINES))
    return Report(
        tuple(problems),
        manifests,
        found.objects,
        found.read_objects,
        found.read_bytes,
        bool(identities),
        timeline.windows(catalog),
        heads.of_repository(repository, catalog),
    )


_HOLE_COSTS = {
    "sets": "the points restored from this set",
    "tombstones": "knowing why a set is gone",
    "pins": "a set that may have been held against retention",
}


@dataclass
class _Found:
    """What was looked at so far: an archive may have more objects than memory has room for. `sealings` -> what they cost."""

    objects: int = 0
    read_objects: int = 0
    read_bytes: int = 0
    sealings: dict[Sealing, str] = field(default_factory=dict)

    def note(self, item: Item) -> None:
        self.objects += 1
        for sealing in item.sealings:
            self.sealings.setdefault(sealing, item.costs)

    def read(self, repository: Repository, item: Item, identities: Sequence[encrypt.AnyIdentity]) -> Problem | None:
        self.read_objects += 1
        self.read_bytes += item.bytes
        try:
            check_archive.content(repository, item, identities)
        except errors.ObjectMissing:
            return Problem(item.key, "it is missing", item.costs)
        except (errors.IntegrityError, errors.KeyProblem) as exc:
            return Problem(item.key, exc.message, item.costs)
        return None


def _all(repository: Repository, catalog: Catalog, sizes: Mapping[str, int]) -> Iterator[Item | Problem]:
    """Every data object and segment payload that a manifest names."""
    for history in catalog.histories:
        for one in history.sets:
            for stored in (*one.objects, *one.definitions, one.inventory):
                yield check_archive.of_set(stored, one.name, one.sealing)
        yield from check_archive.audit(repository, history, sizes)
    packs = {stored.key: (stored, one) for one in applications.readable(repository) if one.files for stored in one.files.objects}
    for stored, bundle in packs.values():
        assert bundle.files is not None
        costs = f"files of application bundle {bundle.name}"
        yield Item(stored.key, 0, stored.bytes, stored.sha256, costs, (bundle.files.sealing,))


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
            "pins": {p.head.seq for p in history.pins},
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
            costs = _HOLE_COSTS[log]
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


def _surplus(repository: Repository, known: set[str]) -> Iterator[Problem]:
    """Manifests that carry no payload, with something behind them all the same: harmless to readers, and not what was written."""
    listed = [info for prefix in (layout.BINDING, layout.TIMELINES) for info in repository.backend.list(prefix)]
    bare = [info for info in listed if info.key not in known and not any(f"/{log}/" in info.key for log in ("segments", "pages"))]
    with ThreadPoolExecutor(pages.READERS) as pool:
        found = pool.map(lambda info: _length(repository, info.key), bare)
        for info, length in zip(bare, found, strict=True):
            if length != info.size_bytes:
                what = f"it has {info.size_bytes} bytes, {length} were signed" if length else "it does not verify"
                yield Problem(info.key, what, "knowing who wrote there")


def _length(repository: Repository, key: str) -> int:
    """Where the manifest of an object ends; 0 when it does not verify."""
    try:
        head = objects.read_head(repository.backend, key)
        return objects.parse(head, key=key, public_keys=repository.public_keys).payload_offset
    except (errors.IntegrityError, errors.KeyProblem, errors.RepositoryError, errors.ObjectMissing):
        return 0


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
                if not data.endswith(b"\n") or data.count(b"\n") not in (1, 5):
                    raise errors.IntegrityError("there is more in it than was signed")
            except (errors.IntegrityError, errors.KeyProblem) as exc:
                yield Problem(key, exc.message, f"the evidence of recovery {run}")


def _size_problem(item: Item, sizes: dict[str, int]) -> Problem | None:
    if item.key not in sizes or item.offset is None:
        return Problem(item.key, "it is missing", item.costs)
    found, written = sizes[item.key], item.offset + item.bytes
    return Problem(item.key, f"it has {found} bytes, {written} were written", item.costs) if found != written else None


def _key_problems(
    repository: Repository, sealings: Mapping[Sealing, str], identities: Sequence[encrypt.AnyIdentity]
) -> Iterator[Problem]:
    """Each data key must have a key object, and with an identity it must open."""
    present = {info.key.split("/")[1] for info in repository.backend.list("keys/")}
    for sealing, costs in sealings.items():
        if sealing.key_id not in present:
            yield Problem(layout.key_objects(sealing.key_id), "the key object is missing", costs)
        elif identities:
            try:
                keys.open_data_key(repository, sealing, identities)
            except (errors.KeyProblem, errors.IntegrityError) as exc:
                yield Problem(layout.key_objects(sealing.key_id), exc.message, costs)
