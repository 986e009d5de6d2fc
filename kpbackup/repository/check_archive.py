"""Auditing the archive of one timeline, page by page: links, GTIDs, and where each segment's payload lies.

Without any key: every manifest's signature, every link recomputed, each segment's GTIDs added to those before it must give those
after it, each payload is somewhere and where it is compacted it is the one its manifest was signed for. Reading compares hashes;
with an identity it also decrypts, decompresses and checks the CRC32 of each binlog event: those lie under the seal.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from kpbackup import errors
from kpbackup.model import gtid
from kpbackup.model.catalog import History
from kpbackup.model.manifest import BinlogSegment, Compacted, Member, Sealing, StoredObject
from kpbackup.model.stretch import Unit, summed
from kpbackup.mysql import binlog_file
from kpbackup.pipeline import encrypt, stream
from kpbackup.plan import chain
from kpbackup.repository import catalog as catalogs
from kpbackup.repository import keys, layout, pages
from kpbackup.repository.binding import Repository

AT_ONCE = 256  # small objects whose length is asked for together


@dataclass(frozen=True)
class Problem:
    """One object that is not as it must be, and what it costs."""

    key: str
    what: str
    costs: str


@dataclass(frozen=True)
class Item:
    """A stored object to judge: where its bytes begin (None: behind a manifest that could not be read) and what they must be.

    `segment` is what it holds; `members` are the segments of a compacted object, None for those that were released.
    """

    key: str
    offset: int | None
    bytes: int
    sha256: str
    costs: str
    sealings: tuple[Sealing, ...]
    segment: BinlogSegment | None = None
    members: tuple[tuple[Member, BinlogSegment | None], ...] = ()


def audit(repository: Repository, history: History, sizes: Mapping[str, int]) -> Iterator[Item | Problem]:
    """What is to be judged of an archive, and what is wrong already. `sizes` are those of all stored objects.

    Raises:
        StorageError.
    """
    joined = _Joined(repository, history)
    yield from joined.problems
    for segments in _each(repository, history):
        if isinstance(segments, Problem):
            yield segments
            continue
        yield from (_problem(one, what) for one in segments if (what := _gtids(one, history.timeline.flavour)))
        yield from _own_objects(repository, segments, sizes)
        for one in segments:
            covered = joined.take(one)
            if one.payload.key is None and one.head.key not in sizes and not covered:
                yield _problem(one, "its payload is neither here nor in a compacted object")
    yield from joined.items()


def content(repository: Repository, item: Item, identities: Sequence[encrypt.AnyIdentity]) -> int:
    """Reads an item and compares it with its hash; opens it when there are identities. The number of bytes read.

    Raises:
        IntegrityError, KeyProblem, ObjectMissing: it is not as it must be. StorageError.
    """
    sealed = stream.Tally(repository.backend.get(item.key, offset=item.offset or 0))
    if item.members:
        _read_members(repository, item, sealed, identities)
    elif identities:
        opened = stream.unseal(sealed, (keys.open_data_key(repository, item.sealings[0], identities),))
        _read_plain(opened, item.segment)
    for _ in sealed:
        pass
    if (sealed.size_bytes, sealed.sha256) != (item.bytes, item.sha256):
        raise errors.IntegrityError("its bytes are not those that were signed for")
    return sealed.size_bytes


def _read_plain(plain: Iterable[bytes], segment: BinlogSegment | None) -> None:
    """To the end; the events of a segment are framed and their CRC32 checked."""
    if segment is None:
        for _ in plain:
            pass
        return
    at = segment.start
    position = at.position
    for event in binlog_file.read_file(
        plain, file=at.file, start_position=at.position, prefix_bytes=segment.prefix_bytes
    ):
        position = max(position, event.end)
    if position != segment.end.position and segment.raw_bytes:
        raise errors.IntegrityError(f"its events end at {position}, its manifest says {segment.end.position}")


def _read_members(
    repository: Repository, item: Item, sealed: Iterable[bytes], identities: Sequence[encrypt.AnyIdentity]
) -> None:
    for (member, segment), data in zip(item.members, _cut(sealed, [one for one, _ in item.members]), strict=True):
        if (len(data), hashlib.sha256(data).hexdigest()) != (member.bytes, member.sha256):
            raise errors.IntegrityError(f"segment {member.seq} in it is not the one that was archived")
        if identities and segment is not None:
            data_key = keys.open_data_key(repository, segment.sealing, identities)
            _read_plain(stream.unseal((data,), (data_key,)), segment)


def _cut(pieces: Iterable[bytes], members: Sequence[Member]) -> Iterator[bytes]:
    """The bytes of each member, a few megabytes at most."""
    source, rest = iter(pieces), b""
    for member in members:
        gathered = [rest]
        size = len(rest)
        while size < member.bytes and (piece := next(source, None)) is not None:
            gathered.append(piece)
            size += len(piece)
        data = b"".join(gathered)
        rest = data[member.bytes :]
        yield data[: member.bytes]


def _each(repository: Repository, history: History) -> Iterator[tuple[BinlogSegment, ...] | Problem]:
    """The archive in order: a page at a time, or as many single segments."""
    for is_single, group in itertools.groupby(history.units, key=lambda unit: isinstance(unit, BinlogSegment)):
        units: Iterable[Unit] = group
        if is_single:
            singles = [unit for unit in units if isinstance(unit, BinlogSegment)]
            yield from (tuple(singles[at : at + AT_ONCE]) for at in range(0, len(singles), AT_ONCE))
            continue
        for unit in units:
            alone = replace(history, segments=(), stretches=tuple(one for one in history.stretches if one is unit))
            key = layout.page(history.id, 0, (unit.first_seq - 1) // repository.page_rows + 1)
            try:
                segments = catalogs.detailed(repository, alone, alone.units).segments
            except (errors.IntegrityError, errors.KeyProblem, errors.ObjectMissing) as exc:
                yield Problem(key, exc.message, f"the recoverable points after {unit.start}")
                continue
            yield from _inner_gaps(history, segments)
            if summed(segments, flavour=history.timeline.flavour) != unit:
                yield Problem(key, "it does not sum up what it lists", f"knowing what is recoverable after {unit.start}")
            yield segments


def _inner_gaps(history: History, segments: Sequence[BinlogSegment]) -> Iterator[Problem]:
    """Breaks inside a page: those between units are found from the catalog alone."""
    alone = replace(history, segments=tuple(segments), stretches=(), anchor=None)
    for gap in chain.runs(alone)[1]:
        if gap.after.position or gap.after.file != segments[0].start.file:  # not the one before the first segment
            yield Problem(layout.log_prefix(history.id, "segments"), gap.reason, f"the recoverable points from {gap.after}")


def _gtids(segment: BinlogSegment, flavour: str) -> str:
    """Why a segment's GTIDs do not add up, '' when they do."""
    if not segment.gtids and segment.start.gtid == segment.end.gtid:
        return ""
    try:
        reached = gtid.add(flavour, segment.start.gtid, segment.gtids)
        is_same = gtid.contains(flavour, reached, segment.end.gtid) and gtid.contains(flavour, segment.end.gtid, reached)
    except ValueError as exc:
        return f"its GTIDs cannot be read: {exc}"
    return "" if is_same else f"its GTIDs do not add up: {segment.start.gtid} and {segment.gtids} are not {segment.end.gtid}"


def _own_objects(
    repository: Repository, segments: Sequence[BinlogSegment], sizes: Mapping[str, int]
) -> Iterator[Item]:
    """Data objects of large segments, and small objects as far as they are there."""
    for one in segments:
        if one.payload.key is not None:
            yield _item(one, one.payload.key, 0)
    small = [one for one in segments if one.payload.key is None and one.head.key in sizes]
    with ThreadPoolExecutor(pages.READERS) as pool:
        offsets = pool.map(lambda one: _payload_offset(repository, one), small)
        yield from (_item(one, one.head.key, offset) for one, offset in zip(small, offsets, strict=True))


def _payload_offset(repository: Repository, segment: BinlogSegment) -> int | None:
    """How long the manifest before the payload is: with it a payload cut by one byte is seen without reading it."""
    try:
        return repository.read(segment.head.key, BinlogSegment)[1]
    except (errors.ObjectMissing, errors.IntegrityError, errors.KeyProblem):
        return None  # where the page is whole, and a compacted object holds the payload, this alone is damaged


def _item(segment: BinlogSegment, key: str, offset: int | None) -> Item:
    payload = segment.payload
    costs = f"the recoverable points after {segment.start}"
    return Item(key, offset, payload.bytes, payload.sha256, costs, (segment.sealing,), segment)


def _problem(segment: BinlogSegment, what: str) -> Problem:
    return Problem(segment.head.key, what, f"the recoverable points after {segment.start}")


class _Joined:
    """The compacted objects of a timeline, each with the segments that were met so far."""

    def __init__(self, repository: Repository, history: History) -> None:
        self.problems: list[Problem] = []
        self._found: list[Compacted] = []
        self._met: dict[str, dict[int, BinlogSegment]] = {}
        with ThreadPoolExecutor(pages.READERS) as pool:
            for one in pool.map(lambda span: self._read(repository, span.key), history.compacted):
                if isinstance(one, Problem):
                    self.problems.append(one)
                else:
                    self._found.append(one)

    @staticmethod
    def _read(repository: Repository, key: str) -> Compacted | Problem:
        try:
            return repository.read(key, Compacted)[0]
        except (errors.IntegrityError, errors.KeyProblem, errors.ObjectMissing) as exc:
            return Problem(key, exc.message, "the segments that nothing else holds")

    def take(self, segment: BinlogSegment) -> bool:
        """Whether a compacted object holds the payload; one that holds another in its place is a problem of its own."""
        seq, is_held = segment.head.seq, False
        for one in self._found:
            if one.members[0].seq <= seq <= one.members[-1].seq:
                member = one.members[seq - one.members[0].seq]
                signed = (seq, segment.payload.bytes, segment.payload.sha256, segment.link)
                if (member.seq, member.bytes, member.sha256, member.link) == signed:
                    self._met.setdefault(one.head.key, {})[seq] = segment
                    is_held = True
        return is_held

    def items(self) -> Iterator[Item]:
        for one in self._found:
            met, stored = self._met.get(one.head.key, {}), one.object
            sealings = tuple({segment.sealing: None for segment in met.values()})
            members = tuple((member, met.get(member.seq)) for member in one.members)
            after = f"the recoverable points after {met[min(met)].start}" if met else "nothing that is still kept"
            costs = f"{after}, where nothing else holds segments {one.members[0].seq} to {one.members[-1].seq}"
            yield Item(stored.key, 0, stored.bytes, stored.sha256, costs, sealings, members=members)


def of_set(stored: StoredObject, name: str, sealing: Sealing) -> Item:
    """An object of a backup set."""
    return Item(stored.key, 0, stored.bytes, stored.sha256, f"set {name}", (sealing,))
