"""The sealed payloads of segments, wherever they lie: behind their manifest, in a data object of their own, or compacted.

A payload that is in a compacted object may still have its small object too; the compacted one is taken, because following
segments are then one read. Nothing is opened or judged here: whoever unseals compares with the signed hash.
"""

from __future__ import annotations

from collections.abc import Iterator

from kpbackup import errors
from kpbackup.model.catalog import CompactedRange
from kpbackup.model.manifest import BinlogSegment, Compacted, Member
from kpbackup.repository import layout
from kpbackup.repository.binding import Repository

WHOLE_BYTES = 1 << 20  # smaller payloads are fetched together with their manifest


class Payloads:
    """Reads payloads of one repository, one after the other; a reader of its own for each thread."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._ranges: dict[str, list[CompactedRange]] = {}
        self._manifests: dict[str, Compacted | None] = {}
        self._run = _Run(repository)

    def read(self, segment: BinlogSegment) -> Iterator[bytes]:
        """The sealed bytes, in pieces.

        Raises:
            ObjectMissing: neither its own object nor a compacted one holds it. IntegrityError, StorageError.
        """
        backend = self._repository.backend
        if segment.payload.key is not None:
            return backend.get(segment.payload.key)
        found = self._compacted(segment)
        if found is not None:
            return self._run.read(found[0], found[1])
        return read_small(self._repository, segment)

    def is_small(self, segment: BinlogSegment) -> bool:
        """Whether it lies in an object of its own that one request fetches."""
        return segment.payload.key is None and segment.payload.bytes <= WHOLE_BYTES and self._compacted(segment) is None

    def _compacted(self, segment: BinlogSegment) -> tuple[Compacted, Member] | None:
        seq, timeline = segment.head.seq, segment.head.timeline
        if timeline not in self._ranges:
            self._ranges[timeline] = sorted(list_ranges(self._repository, timeline), key=lambda one: -one.level)
        for one in self._ranges[timeline]:
            if one.first_seq <= seq <= one.last_seq and (found := self._manifest(one.key)) is not None:
                member = found.members[seq - found.members[0].seq]
                if (member.seq, member.sha256, member.bytes) == (seq, segment.payload.sha256, segment.payload.bytes):
                    return found, member
        return None

    def _manifest(self, key: str) -> Compacted | None:
        """None for one that is gone or damaged: another object may hold the payload, and `check` reports it."""
        if key not in self._manifests:
            try:
                self._manifests[key] = self._repository.read(key, Compacted)[0]
            except (errors.ObjectMissing, errors.IntegrityError, errors.KeyProblem):
                self._manifests[key] = None
        return self._manifests[key]


def list_ranges(repository: Repository, timeline: str) -> list[CompactedRange]:
    """The compacted objects of a timeline, by their keys."""
    prefix = layout.timeline_prefix(timeline) + "compacted/"
    found = ((info.key, layout.parse_compacted(info.key)) for info in repository.backend.list(prefix))
    return [CompactedRange(key, *span) for key, span in found if span is not None]


def read_small(repository: Repository, segment: BinlogSegment) -> Iterator[bytes]:
    """The payload behind the segment's own manifest, which is judged first. Raises as Payloads.read."""
    key, size = segment.head.key, segment.payload.bytes
    if size > WHOLE_BYTES:
        _, offset = repository.read(key, BinlogSegment)
        yield from repository.backend.get(key, offset=offset, length=size)
        return
    data = repository.backend.read(key)
    _, offset = repository.judge(data, key, BinlogSegment)
    yield data[offset : offset + size]


class _Run:
    """Following members of a compacted object as one read of the store."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._open: tuple[str, int, Iterator[bytes], bytes] | None = None  # key, place, what comes there, what came already

    def read(self, compacted: Compacted, member: Member) -> Iterator[bytes]:
        key, opened = compacted.object.key, self._open
        self._open = None  # it is this reader's now; who stops in the middle leaves a place that nobody knows
        if opened is not None and opened[:2] == (key, member.offset):
            pieces, rest = opened[2:]
        else:
            pieces, rest = self._repository.backend.get(key, offset=member.offset), b""
        wanted = member.bytes
        while wanted:
            piece = rest or next(pieces, b"")
            if not piece:
                return  # cut: the hash tells
            yield piece[:wanted]
            rest = piece[wanted:]
            wanted -= min(wanted, len(piece))
        self._open = key, member.offset + member.bytes, pieces, rest
