"""Keeping a growing archive small: catalogue pages, and segments joined into larger objects. Nothing is opened, nothing deleted.

A compacted object is whole sealed payloads, one after the other; each is compared with its signed hash while it is copied. The
order is that of everything else: data object, confirmed; manifest, create-only; read back. The small objects are left to prune,
which takes them away a grace period later, when it has read and compared the compacted one. A crash leaves a data object that no
manifest names, which prune removes; the next run joins again.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from kpbackup import errors
from kpbackup.model.catalog import CompactedRange, History
from kpbackup.model.manifest import BinlogSegment, Compacted, Member, Page, StoredObject, Stretch
from kpbackup.model.stretch import Unit
from kpbackup.pipeline import stream
from kpbackup.plan import compaction
from kpbackup.repository import catalog as catalogs
from kpbackup.repository import layout, pages, payloads
from kpbackup.repository.binding import Repository

WINDOW = 64  # small payloads fetched at once, ahead of the copy


@dataclass(frozen=True)
class Upkeep:
    """What was written."""

    written: tuple[Page | Compacted, ...] = ()

    @property
    def pages(self) -> int:
        return sum(isinstance(one, Page) for one in self.written)

    @property
    def objects(self) -> int:
        """Compacted ones."""
        return len(self.written) - self.pages

    @property
    def segments(self) -> int:
        """How many the compacted objects hold."""
        return sum(len(one.members) for one in self.written if isinstance(one, Compacted))

    def __add__(self, other: Upkeep) -> Upkeep:
        return Upkeep(self.written + other.written)


def run(repository: Repository, timeline: str, now: datetime, *, check: Callable[[], None] = lambda: None) -> Upkeep:
    """Writes what is due on a timeline. `check` raises when the lease is lost.

    Raises:
        IntegrityError, ObjectMissing: a stored payload is not the one its manifest was signed for, or gone; all else is joined.
        StorageError.
    """
    history = catalogs.read_history(repository, timeline)
    written: list[Page | Compacted] = list(pages.write_due(repository, history, _topmost(repository, history)))
    if written:
        history = catalogs.read_history(repository, timeline)
    known = list(history.compacted)
    damaged: list[errors.KpbackupError] = []
    for day in _days(repository, history):
        for join in compaction.due(day, known, now):
            check()
            try:
                made = _join(repository, history, join, now)
            except (errors.IntegrityError, errors.ObjectMissing) as exc:
                damaged.append(exc)
                continue
            written.append(made)
            known.append(CompactedRange(made.head.key, made.level, join.first_seq, join.last_seq))
    if damaged:
        raise damaged[0]
    return Upkeep(tuple(written))


def is_due(history: History, now: datetime, *, page_rows: int) -> bool:
    """Whether `run` would find something to do; of what is known by pages, as far as can be said without reading them."""
    if pages.are_due(history, page_rows) or compaction.due(history.segments, history.compacted, now):
        return True
    newest = _newest_compacted(history)
    small = compaction.LARGE_SEGMENT_BYTES
    joinable = [
        one.last_seq - max(one.first_seq, newest + 1) + 1 for one in history.stretches
        if one.last_seq > newest and one.payload_bytes < small * (one.last_seq - one.first_seq + 1)
        and one.created_at < compaction.hour_of(now) - compaction.SETTLE
    ]
    return sum(joinable) > 1


def _topmost(repository: Repository, history: History) -> list[Page]:
    """The pages no higher one lists."""
    keys = [info.key for info in repository.backend.list(layout.timeline_prefix(history.id) + "pages/")]
    found = []
    for key in keys:
        level, number = layout.parse_page(key) or (0, 0)
        if layout.page(history.id, level + 1, (number - 1) // repository.page_rows + 1) not in keys:
            found.append(key)
    with ThreadPoolExecutor(pages.READERS) as pool:
        return list(pool.map(lambda key: repository.read(key, Page)[0], found))


def _newest_compacted(history: History) -> int:
    return max((one.last_seq for one in history.compacted), default=0)


def _days(repository: Repository, history: History) -> Iterator[tuple[BinlogSegment, ...]]:
    """The segments, day by day, from the day before the newest compacted one on: days come in order, so earlier ones are done."""
    newest = _newest_compacted(history)
    after = next((unit.created_at for unit in history.units if unit.last_seq >= newest), None) if newest else None
    start = compaction.day_of(after) - timedelta(days=1) if after is not None else None
    units = [unit for unit in history.units if start is None or unit.created_at >= start]
    gathered: list[BinlogSegment] = []
    for segment in _each(repository, history, units):
        if start is not None and segment.head.created_at < start:
            continue
        if gathered and compaction.day_of(segment.head.created_at) != compaction.day_of(gathered[-1].head.created_at):
            yield tuple(gathered)
            gathered = []
        gathered.append(segment)
    if gathered:
        yield tuple(gathered)


def _each(repository: Repository, history: History, units: Sequence[Unit]) -> Iterator[BinlogSegment]:
    """The segments of units, page by page."""
    for unit in units:
        if isinstance(unit, Stretch):
            yield from catalogs.detailed(repository, replace(history, segments=(), stretches=(unit,)), (unit,)).segments
        else:
            yield unit


def _join(repository: Repository, history: History, join: compaction.Join, now: datetime) -> Compacted:
    prefix = layout.attempt(history.id, now, secrets.token_hex(4))
    name = layout.named_object(prefix, f"{join.first_seq:010d}-{join.last_seq:010d}")
    tally = stream.Tally(_copied(repository, join.segments))
    repository.backend.put(name, tally, size_hint=join.payload_bytes)
    key = layout.compacted(history.id, join.level, join.first_seq, join.last_seq)
    members, offset = [], 0
    for one in join.segments:
        members.append(Member(one.head.seq, offset, one.payload.bytes, one.payload.sha256, one.link))
        offset += one.payload.bytes
    compacted = Compacted(
        head=repository.head("compacted", key=key, created_at=now, timeline=history.id, seq=join.first_seq),
        level=join.level,
        object=StoredObject(name, tally.size_bytes, tally.sha256),
        members=tuple(members),
    )
    try:
        repository.create(compacted)
    except errors.ObjectExists as exc:
        raise errors.LeaseHeld(
            f"another process compacted segments {join.first_seq} to {join.last_seq} of {repository.backend.name} meanwhile",
            hint="nothing is lost",
        ) from exc
    return compacted


def _copied(repository: Repository, segments: Sequence[BinlogSegment]) -> Iterator[bytes]:
    """The payloads one after the other, each compared with its signed hash before the next one begins."""
    reader = payloads.Payloads(repository)
    with ThreadPoolExecutor(pages.READERS) as pool:
        for start in range(0, len(segments), WINDOW):
            window = segments[start : start + WINDOW]
            small = [reader.is_small(segment) for segment in window]
            fetched = {
                segment.head.seq: pool.submit(lambda one: b"".join(payloads.read_small(repository, one)), segment)
                for segment, alone in zip(window, small, strict=True)
                if alone
            }
            for segment in window:
                digest, size = hashlib.sha256(), 0
                future = fetched.get(segment.head.seq)
                for piece in (future.result(),) if future else reader.read(segment):
                    digest.update(piece)
                    size += len(piece)
                    yield piece
                if (size, digest.hexdigest()) != (segment.payload.bytes, segment.payload.sha256):
                    raise errors.IntegrityError(
                        f"the payload of segment {segment.head.key} is not the one it was signed for",
                        hint="run `kpbackup check`; it is not joined with others before that is mended",
                    )
