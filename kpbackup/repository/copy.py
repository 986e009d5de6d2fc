"""A second copy of a repository: sealed objects carried over as they are, whole at every moment, nothing deleted.

Only manifests that verify are copied, each after everything it names: key objects first, then its data, compared with the signed
hashes on the way. Within a timeline the order is sets, segments, what joins them, and the marks of retention last; so a reader of
the copy sees at every moment a repository that is merely behind. Everything is written create-only or under a key not yet there.

The copy is no second source: it has no sets, pins or marks of its own, and its own prune alone deletes from it
(`prune.execute` with an empty plan, on marks that were copied). Leases, probes and reports stay behind: they are of the store
they lie in. An origin that shows less than its copy was rolled back or robbed: that is found here.

Limits: what lies in the copy already is compared by size; `check` on the copy reads it. A crash leaves the copy whole and behind,
and data no manifest names yet; the next run goes on from what is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from kpbackup import errors
from kpbackup.model import codec, manifest
from kpbackup.pipeline import stream
from kpbackup.repository import binding, layout, lease, objects, pages
from kpbackup.repository.binding import Repository
from kpbackup.storage.backend import Backend

WORKERS = 4  # data objects of one set at a time
AHEAD = 8  # manifests read while one is written
_MANIFESTS = (layout.TIMELINES, layout.APPLICATIONS, layout.CANARIES, layout.RECOVERIES)
_MARKS = ("anchors", "tombstones")
_ORDER = ("timeline", "sets", "segments", "compacted", "pages", "observations", "pins", *_MARKS)

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Copied:
    """What a run did. `problems` are (key, what) of objects that are not whole at the origin or differ: not copied."""

    manifests: int
    objects: int
    bytes: int
    problems: tuple[tuple[str, str], ...]


def copy(
    origin: Repository, target: Backend, *, holder: str, progress: Progress = lambda done, total, unit: None
) -> Copied:
    """Brings the copy at `target` up to what the origin held when this began; makes it when there is none.

    Raises:
        RepositoryError: another repository lies there.
        LeaseHeld: another copy, or the copy's own prune, is running.
        StorageError.
    """
    made = _open(origin, target)
    with lease.acquire(made, "prune", holder=holder) as held:
        run = _Run(origin, made)
        keys = run.new_manifests()
        run.copy_keys()
        with ThreadPoolExecutor(AHEAD) as readers, ThreadPoolExecutor(WORKERS) as pool:
            for done, (key, data) in enumerate(_ahead(readers, origin, keys), start=1):
                held.check()
                run.copy_manifest(key, data, pool)
                progress(done, len(keys), "manifests")
    return Copied(run.manifests, run.objects, run.size_bytes, tuple(run.problems))


def _open(origin: Repository, target: Backend) -> Repository:
    """The copy, with the reader and the binding in it: what makes it a repository."""
    own = origin.backend.read(layout.BINDING)
    for info in origin.backend.list("reader-"):
        _put_if_absent(target, info.key, origin.backend.read(info.key))
    if not _put_if_absent(target, layout.BINDING, own) and target.read(layout.BINDING) != own:
        raise errors.RepositoryError(
            f"{target.name} holds another repository than {origin.backend.name}: nothing is copied over it",
            hint="give each copy a prefix of its own (copies in the settings)",
        )
    return binding.open_repository(target, public_keys=origin.public_keys)


def _put_if_absent(target: Backend, key: str, data: bytes) -> bool:
    try:
        target.put_if_absent(key, data)
    except errors.ObjectExists:
        return False
    return True


def _ahead(pool: ThreadPoolExecutor, origin: Repository, keys: list[str]) -> Iterator[tuple[str, bytes | None]]:
    """(key, bytes) in order, some read before they are asked for; None for what is gone since it was listed."""
    for start in range(0, len(keys), AHEAD):
        batch = keys[start : start + AHEAD]
        yield from zip(batch, pool.map(lambda key: _read(origin, key), batch), strict=True)


def _read(origin: Repository, key: str) -> bytes | None:
    try:
        return origin.backend.read(key, limit_bytes=objects.MANIFEST_LIMIT_BYTES)
    except errors.ObjectMissing:
        return None  # the origin's prune was faster


@dataclass
class _Run:
    """One run: what lies in the copy, and what was done."""

    origin: Repository
    copied: Repository
    there: dict[str, int] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)
    manifests: int = 0
    objects: int = 0
    size_bytes: int = 0

    def new_manifests(self) -> list[str]:
        """Keys of the manifests that the copy lacks, in the order of copying. Manifests are listed before what they name."""
        for prefix in (*_MANIFESTS, layout.KEYS, layout.IDENTITIES, layout.DATA):
            self.there.update((info.key, info.size_bytes) for info in self.copied.backend.list(prefix))
        listed = {info.key: info.size_bytes for prefix in _MANIFESTS for info in self.origin.backend.list(prefix)}
        self._find_regress(listed)
        self.problems += [
            (key, f"the copy holds {self.there[key]} bytes, the origin {size}")
            for key, size in listed.items()
            if self.there.get(key, size) != size
        ]
        begun = {place[:2] for key in self.there if (place := layout.parse_log_entry(key)) is not None}
        return sorted((key for key in listed if key not in self.there), key=lambda key: _rank(key, begun))

    def _find_regress(self, listed: dict[str, int]) -> None:
        """The newest entry of a log is never deleted: a copy that has newer ones knows what the origin lost."""
        newest: dict[tuple[str, str], int] = {}
        for key in listed:
            if (place := layout.parse_log_entry(key)) is not None:
                newest[place[:2]] = max(place[2], newest.get(place[:2], 0))
        for key in sorted(self.there):
            place = layout.parse_log_entry(key)
            if place is not None and place[2] > newest.get(place[:2], 0):
                self.problems.append((key, "the copy has it, the origin has nothing as new: it lost it, or was rolled back"))

    def copy_keys(self) -> None:
        for prefix in (layout.KEYS, layout.IDENTITIES):
            for info in self.origin.backend.list(prefix):
                if info.key not in self.there and (data := _read(self.origin, info.key)) is not None:
                    self._store(info.key, data)

    def copy_manifest(self, key: str, data: bytes | None, pool: ThreadPoolExecutor) -> None:
        """Copies one manifest after all that it names; what is wrong with them is noted and the manifest left out."""
        if data is None:
            return
        try:
            named = list(self._named(key, data))
            list(pool.map(self._copy_data, named))
        except (errors.IntegrityError, errors.KeyProblem) as exc:
            self.problems.append((key, exc.message))
            return
        except errors.ObjectMissing as exc:
            if _read(self.origin, key) is not None:  # else it was pruned meanwhile, with its data
                self.problems.append((key, exc.message))
            return
        self._store(key, data)
        self.manifests += 1

    def _store(self, key: str, data: bytes) -> None:
        """Create-only, and read back."""
        _put_if_absent(self.copied.backend, key, data)
        if self.copied.backend.read(key, limit_bytes=objects.MANIFEST_LIMIT_BYTES) != data:
            raise errors.IntegrityError(
                f"{key} in {self.copied.backend.name} is not what was copied there",
                hint="do not trust this store; run `kpbackup --copy NAME check --all`",
            )
        self.there[key] = len(data)
        self._count(len(data))

    def _count(self, size: int) -> None:
        self.objects += 1
        self.size_bytes += size

    def _named(self, key: str, data: bytes) -> Iterator[manifest.StoredObject]:
        """The data objects a manifest names; judged on the way: the manifest's signature and place, its payload's hash."""
        if key.endswith(layout.canary_proof("")) or data.startswith(b"{"):
            return  # unsigned by design: answers of canaries, journals of machines without a signing key
        found = objects.parse(data, key=key, public_keys=self.origin.public_keys)
        if found.document["head"].get("repository") != self.origin.id:
            raise errors.IntegrityError(f"manifest {key} belongs to another repository")
        payload = found.document.get("payload") or found.document.get("rows")
        if payload is not None and payload.get("key") is None:
            carried = data[found.payload_offset :]
            if (len(carried), hashlib.sha256(carried).hexdigest()) != (payload.get("bytes"), payload.get("sha256")):
                raise errors.IntegrityError(f"{key}: its payload is not the one that was signed for")
        if "/pages/" in key and found.document.get("level") == 0:
            for segment in pages.read_segments(self.origin, self.origin.judge(data, key, manifest.Page)[0]):
                if segment.payload.key is not None:
                    yield manifest.StoredObject(segment.payload.key, segment.payload.bytes, segment.payload.sha256)
        yield from _stored(found.document)

    def _copy_data(self, named: manifest.StoredObject) -> None:
        """One data object, unless it is there; nothing becomes visible when its bytes are not the signed ones."""
        size = self.there.get(named.key)
        if size == named.bytes:
            return
        if size is not None:
            raise errors.IntegrityError(f"{named.key}: the copy holds {size} bytes, {named.bytes} were signed for")
        self.copied.backend.put(named.key, _checked(self.origin.backend, named), size_hint=named.bytes)
        self.there[named.key] = named.bytes
        self._count(named.bytes)


def _checked(backend: Backend, named: manifest.StoredObject) -> Iterator[bytes]:
    """The object's bytes; at their end IntegrityError when they are not those that were signed for."""
    tally = stream.Tally(backend.get(named.key))
    yield from tally
    if (tally.size_bytes, tally.sha256) != (named.bytes, named.sha256):
        raise errors.IntegrityError(f"{named.key}: its bytes are not those that were signed for")


def _stored(document: Any) -> Iterator[manifest.StoredObject]:
    """Every stored object a manifest's JSON names, wherever in it."""
    if isinstance(document, dict):
        if set(document) == {"key", "bytes", "sha256"}:
            if document["key"] is not None:
                yield codec.decode(manifest.StoredObject, document, what="a manifest")
            return
        for value in document.values():
            yield from _stored(value)
    elif isinstance(document, list):
        for value in document:
            yield from _stored(value)


def _rank(key: str, begun: set[tuple[str, str]]) -> tuple[str, int, str]:
    """Timelines in order, then the rest. Marks come last, so that what they release is replaced before it is hidden; in a copy
    that has nothing of the marked log yet they come first: there they say where it begins."""
    parts = key.split("/")
    if parts[0] != layout.TIMELINES.rstrip("/"):
        return "~", 0, key
    kind = parts[2]
    rank = _ORDER.index(kind) if kind in _ORDER else len(_ORDER)
    marked = {"anchors": "segments", "tombstones": "sets"}.get(kind)
    if marked is not None and (parts[1], marked) not in begun:
        rank = 0
    return parts[1], rank, key
