"""Where the replay stops: the target of a plan resolved to the end of one transaction.

A cut is always a prefix of the archived stream (D15): everything before it is replayed, nothing after it. With
`--to TIME` it lies before the first transaction stamped at or after TIME. MariaDB stamps whole seconds, so there a
sub-second TIME is floored; `Cut.floored` says so and the plan shows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from kpbackup import errors
from kpbackup.model.coordinates import Coordinates
from kpbackup.model.manifest import BinlogSegment
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
    start = plan.backup_set.coordinates
    last: Transaction | None = None
    taken: list[BinlogSegment] = []
    for segment in plan.segments:
        if _surely_included(segment, target) and segment is not plan.segments[-1] and not _next_may_cut(plan, segment, target):
            taken.append(segment)
            continue
        taken.append(segment)
        for transaction in transactions(reader, segment):
            if segment.start.file == start.file and transaction.end <= start.position and segment is plan.segments[0]:
                continue  # the set holds it already
            if _excluded(transaction, target):
                return _cut(plan, taken, last, transaction, floored)
            last = transaction
            if target.gtid is not None and transaction.gtid == target.gtid:
                return _cut(plan, taken, last, _following(reader, plan, transaction), floored)
    if target.gtid or target.before_gtid:
        raise errors.UnreachableTarget(
            f"cannot restore to {target}: no archived transaction after set {plan.backup_set.name} has it",
            hint="check the GTID; `kpbackup list` shows the recoverable windows",
        )
    return _cut(plan, taken, last, None, floored)


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


def _surely_included(segment: BinlogSegment, target: Target) -> bool:
    """Whether every transaction of the segment comes before the cut, by its manifest alone."""
    if target.latest:
        return True
    if target.time is not None:
        return segment.last_commit_at is None or segment.last_commit_at < target.time
    return False


def _next_may_cut(plan: RestorePlan, segment: BinlogSegment, target: Target) -> bool:
    """Whether the segment after this one may hold the cut: then this one is read for its last transaction."""
    later = plan.segments[plan.segments.index(segment) + 1 :]
    return bool(later) and not _surely_included(later[0], target)


def _excluded(transaction: Transaction, target: Target) -> bool:
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
        return transaction.file == at.file and transaction.start >= at.position
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
    start = plan.backup_set.coordinates
    if last is None:
        return Cut(start, () if first is not None else tuple(taken), None, first, floored)
    if first is None:
        return Cut(taken[-1].end, tuple(taken), last, None, floored)
    return Cut(Coordinates(last.file, last.end), tuple(taken), last, first, floored)
