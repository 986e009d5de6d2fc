"""What `check` looks at of a timeline's archive: every payload, in its own object, a data object or a compacted one.

A payload that lies in two places is looked at in both. Limits: what pages list is known by their rows; a damaged page is itself a
problem, and the payloads behind it are then judged by the compacted objects' own manifests alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from kpbackup import errors
from kpbackup.model.catalog import History
from kpbackup.model.manifest import BinlogSegment, Compacted, Sealing
from kpbackup.repository import catalog as catalogs
from kpbackup.repository import layout, pages
from kpbackup.repository.binding import Repository


@dataclass(frozen=True)
class Item:
    """A stretch of a stored object to judge: `bytes` from `offset` on must have this hash, and the whole object `whole` bytes.

    `offset` is None for a payload that is nowhere, or behind a manifest that could not be read. `sealing` is None where only the
    hash can be judged.
    """

    key: str
    offset: int | None
    bytes: int
    sha256: str
    costs: str
    sealing: Sealing | None
    whole: int


@dataclass(frozen=True)
class Found:
    """What there is to look at, and (key, what) of what could not even be listed."""

    items: tuple[Item, ...]
    problems: tuple[tuple[str, str], ...]


def look(repository: Repository, history: History, sizes: Mapping[str, int]) -> Found:
    """Everything of the archive of a timeline; `sizes` are the objects that are stored."""
    problems: list[tuple[str, str]] = []
    segments = history.segments
    for unit in history.stretches:
        try:
            segments = catalogs.detailed(repository, replace(history, segments=segments), [unit]).segments
        except errors.IntegrityError as exc:
            page = layout.page(history.id, 0, (unit.first_seq - 1) // repository.page_rows + 1)
            problems.append((page, exc.message))
    known = {segment.head.seq: segment for segment in segments}
    compacted = list(_compacted(repository, history, problems))
    members = {member.seq for one in compacted for member in one.members}
    with ThreadPoolExecutor(pages.READERS) as pool:
        own = [one for one in segments if one.payload.key or one.head.key in sizes or one.head.seq not in members]
        items = list(pool.map(lambda segment: _own(repository, segment), own))
    items += [item for one in compacted for item in _members(one, known)]
    return Found(tuple(items), tuple(problems))


def _own(repository: Repository, segment: BinlogSegment) -> Item:
    payload = segment.payload
    key, offset = payload.key or segment.head.key, 0 if payload.key else _payload_offset(repository, segment)
    whole = (offset or 0) + payload.bytes
    return Item(key, offset, payload.bytes, payload.sha256, cost_of(segment), segment.sealing, whole)


def cost_of(segment: BinlogSegment) -> str:
    """What a segment's loss costs."""
    return f"the recoverable points after {segment.start}"


def _payload_offset(repository: Repository, segment: BinlogSegment) -> int | None:
    """How long the manifest before the payload is: with it a payload cut by one byte is seen without reading it."""
    try:
        return repository.read(segment.head.key, BinlogSegment)[1]
    except (errors.ObjectMissing, errors.IntegrityError, errors.KeyProblem):
        return None  # it was whole when the catalog was read, a moment ago; or a page lists it and nothing holds its payload


def _compacted(repository: Repository, history: History, problems: list[tuple[str, str]]) -> Iterator[Compacted]:
    for one in history.compacted:
        try:
            yield repository.read(one.key, Compacted)[0]
        except (errors.ObjectMissing, errors.IntegrityError, errors.KeyProblem) as exc:
            problems.append((one.key, exc.message))


def _members(compacted: Compacted, known: Mapping[int, BinlogSegment]) -> Iterator[Item]:
    for member in compacted.members:
        segment = known.get(member.seq)
        costs = cost_of(segment) if segment else "nothing that is still kept"
        yield Item(
            compacted.object.key,
            member.offset,
            member.bytes,
            segment.payload.sha256 if segment else member.sha256,
            costs,
            segment.sealing if segment else None,
            compacted.object.bytes,
        )
