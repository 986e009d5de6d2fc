"""Where the replay stops: the target of a plan resolved to the end of one transaction.

A cut is always a prefix of the archived stream (D15): everything before it is replayed, nothing after it. With
`--to TIME` it lies before the first transaction stamped at or after TIME. MariaDB stamps whole seconds, so there a
sub-second TIME is floored; `Cut.floored` says so and the plan shows it.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from kpbackup import errors
from kpbackup.model.coordinates import Coordinates
from kpbackup.model.manifest import BackupSet, BinlogSegment
from kpbackup.mysql import binlog_file, events
from kpbackup.mysql.transactions import Transaction, TransactionWalker
from kpbackup.plan.timeline import RestorePlan, Target
from kpbackup.recovery.binlog import SegmentReader

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Cut:
    """`at` is the end of the last included transaction (the set's coordinates when none is). `segments` are those needed."""

    at: Coordinates
    segments: tuple[BinlogSegment, ...]
    last_included: Transaction | None
    first_excluded: Transaction | None
    floored: bool = False


def find_cut(reader: SegmentReader, plan: RestorePlan) -> Cut:
    """Reads the segments around the target and returns the cut.

    Raises:
        UnreachableTarget: the GTID or position is not in them, or inside a transaction.
        IntegrityError, KeyProblem, StorageError: a segment cannot be opened.
    """
    target, floored = _floored(plan)
    order = FileOrder(plan.segments)
    last: Transaction | None = None
    taken: list[BinlogSegment] = []
    for segment in plan.segments:
        if _surely_included(segment, target, order):
            taken.append(segment)
            last = None if segment.transactions else last  # found again by reading backwards, once it is known where to stop
            continue
        for transaction in new_transactions(reader, plan.backup_set, segment):
            if _excluded(transaction, target, order):
                last = last or _last_transaction(reader, plan, taken)
                return _cut(plan, [*taken, segment], last, transaction, floored)
            last = transaction
            if target.gtid is not None and transaction.gtid == target.gtid:
                return _cut(plan, [*taken, segment], last, _following(reader, plan, transaction), floored)
        taken.append(segment)
    if target.gtid or target.before_gtid:
        raise errors.UnreachableTarget(
            f"cannot restore to {target}: no archived transaction after set {plan.backup_set.name} has it",
            hint="check the GTID; `kpbackup list` shows the recoverable windows",
        )
    return _cut(plan, taken, last or _last_transaction(reader, plan, taken), None, floored)


class FileOrder:
    """Which of two places comes first in a chain: binlog files follow one another as its segments do."""

    def __init__(self, segments: Sequence[BinlogSegment]) -> None:
        self._places = {file: place for place, file in enumerate(dict.fromkeys(segment.start.file for segment in segments))}

    def is_at_or_after(self, file: str, position: int, at: Coordinates) -> bool:
        """Whether file:position lies at or behind `at`. A file without a segment is the set's own, before all others."""
        return (self._place(file), position) >= (self._place(at.file), at.position)

    def _place(self, file: str) -> int:
        return self._places.get(file, -1)


def new_transactions(reader: SegmentReader, backup_set: BackupSet, segment: BinlogSegment) -> Iterator[Transaction]:
    """The transactions of a segment without those that the set holds already."""
    at = backup_set.coordinates
    for transaction in transactions(reader, segment):
        if transaction.file != at.file or transaction.end > at.position:
            yield transaction


def _last_transaction(reader: SegmentReader, plan: RestorePlan, segments: Sequence[BinlogSegment]) -> Transaction | None:
    """The last transaction in `segments`, the newest of which may hold none (a file that was only begun, say)."""
    for segment in reversed(segments):
        if segment.transactions:
            found = collections.deque(new_transactions(reader, plan.backup_set, segment), maxlen=1)
            if found:
                return found[0]
    return None


def transactions(reader: SegmentReader, segment: BinlogSegment) -> Iterator[Transaction]:
    """The transactions of one segment, in order."""
    walker = TransactionWalker()
    for event in segment_events(reader, segment):
        found = walker.feed(event)
        if found is not None:
            yield found


def segment_events(reader: SegmentReader, segment: BinlogSegment) -> Iterator[events.StreamEvent]:
    return binlog_file.read_file(
        reader.plaintext(segment),
        file=segment.start.file,
        start_position=segment.start.position,
        prefix_bytes=segment.prefix_bytes,
    )


def commit_time(transaction: Transaction) -> datetime:
    return _EPOCH + timedelta(microseconds=transaction.commit_at_us)


def _floored(plan: RestorePlan) -> tuple[Target, bool]:
    asked = plan.target.time
    if asked is None or plan.backup_set.source.flavour != "mariadb" or not asked.microsecond:
        return plan.target, False
    return replace(plan.target, time=asked.replace(microsecond=0)), True


def _surely_included(segment: BinlogSegment, target: Target, order: FileOrder) -> bool:
    """Whether every transaction of the segment comes before the cut, by its manifest alone."""
    if target.latest:
        return True
    if target.time is not None:
        return segment.last_commit_at is None or segment.last_commit_at < target.time
    if target.position is not None:
        return order.is_at_or_after(target.position.file, target.position.position, segment.end)
    return False


def _excluded(transaction: Transaction, target: Target, order: FileOrder) -> bool:
    if target.time is not None:
        return commit_time(transaction) >= target.time
    if target.before_gtid is not None:
        return transaction.gtid == target.before_gtid
    if target.position is not None:
        at = target.position
        if transaction.file == at.file and transaction.start < at.position < transaction.end:
            raise errors.UnreachableTarget(
                f"cannot restore to {at}: it lies inside a transaction ({transaction.start} to {transaction.end})",
                hint=f"use {at.file}:{transaction.start} or {at.file}:{transaction.end}",
            )
        return order.is_at_or_after(transaction.file, transaction.start, at)
    return False


def _following(reader: SegmentReader, plan: RestorePlan, last: Transaction) -> Transaction | None:
    """The transaction after `last`, for the plan to show."""
    seen = False
    for segment in plan.segments:
        if not seen and not (segment.start.file == last.file and segment.start.position < last.end <= segment.end.position):
            continue
        for transaction in transactions(reader, segment):
            if seen:
                return transaction
            seen = transaction == last
    return None


def _cut(
    plan: RestorePlan, taken: list[BinlogSegment], last: Transaction | None, first: Transaction | None, floored: bool
) -> Cut:
    if last is None:
        return Cut(plan.backup_set.coordinates, (), None, first, floored)
    return Cut(Coordinates(last.file, last.end), tuple(taken), last, first, floored)
