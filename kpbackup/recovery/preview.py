"""What lies around a cut, for people to judge it by: what the last transaction in and the first one out did, what is left
out, which later transactions have earlier stamps, which XA transactions stay prepared.

It opens the segments around the cut with the identity and nothing else. Names of tables and texts are for the terminal
of whoever restores; no plain part of the repository gets them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kpbackup import errors
from kpbackup.model import gtid as gtids
from kpbackup.model.coordinates import Coordinates
from kpbackup.model.manifest import BackupSet, BinlogSegment
from kpbackup.mysql import events, xa
from kpbackup.mysql.contents import Content, ContentReader
from kpbackup.mysql.events import StreamEvent
from kpbackup.mysql.transactions import Kind, Transaction, TransactionWalker
from kpbackup.plan import timeline
from kpbackup.plan.timeline import RestorePlan
from kpbackup.recovery import cut as cuts
from kpbackup.recovery.binlog import SegmentReader

XA_LOOK_BACK_BYTES = 64 << 20  # a prepared transaction is ended soon after, or is a forgotten one


@dataclass(frozen=True)
class Told:
    """A transaction and what it did."""

    transaction: Transaction
    content: Content


@dataclass(frozen=True)
class Preview:
    """`earlier_stamped` are transactions behind the cut with a commit time before the asked one. `left_prepared` are XA
    transactions prepared before the cut and not ended there, as far as the newest `looked_back_bytes` of it tell."""

    last_included: Told | None
    first_excluded: Told | None
    skipped: tuple[Told, ...]
    earlier_stamped: tuple[Transaction, ...]
    left_prepared: tuple[Transaction, ...]
    looked_back_bytes: int


def look(reader: SegmentReader, plan: RestorePlan, cut: cuts.Cut, skipped: Sequence[Transaction]) -> Preview:
    """Reads what is needed and tells it.

    Raises:
        IntegrityError, KeyProblem, StorageError: a segment cannot be opened.
    """

    def told(transaction: Transaction | None) -> Told | None:
        return None if transaction is None else Told(transaction, _content(reader, plan.segments, transaction))

    left, looked_back_bytes = _left_prepared(reader, plan.backup_set, cut)
    return Preview(
        told(cut.last_included), told(cut.first_excluded), tuple(Told(t, _content(reader, plan.segments, t)) for t in skipped),
        _earlier_stamped(reader, plan, cut), left, looked_back_bytes,
    )


def find_skipped(
    reader: SegmentReader, backup_set: BackupSet, cut: cuts.Cut, wanted: Sequence[str]
) -> tuple[Transaction, ...]:
    """The transactions with these GTIDs among those that will be replayed.

    Raises:
        UsageError: one is not a GTID of one transaction.
        UnreachableTarget: one is not among them, or is half of an XA transaction.
    """
    flavour = backup_set.source.flavour
    asked = tuple(timeline.canonical_gtid(text, flavour) for text in wanted)
    found: dict[str, tuple[Transaction, _Half | None]] = {}
    for segment in cut.segments:
        if any(_may_hold(segment, one, flavour) for one in asked if one not in found):
            for transaction, half in _replayed(reader, backup_set, cut, segment):
                if transaction.gtid in asked:
                    found[transaction.gtid] = (transaction, half)
    for gtid in asked:
        if gtid not in found:
            raise errors.UnreachableTarget(
                f"cannot leave out {gtid}: no transaction between set {backup_set.name} and the cut has it",
                hint="`kpbackup find` shows what the archive holds; leave the option out if it lies behind the target anyway",
            )
    if any(half is not None for _, half in found.values()):
        _refuse_halves(reader, backup_set, cut, frozenset(found))
    return tuple(transaction for transaction, _ in found.values())


@dataclass(frozen=True)
class _Half:
    """A transaction that prepares or ends an XA transaction."""

    xid: str
    is_end: bool


def _refuse_halves(reader: SegmentReader, backup_set: BackupSet, cut: cuts.Cut, chosen: frozenset[str]) -> None:
    """The prepare and the end of an XA transaction are left out both or not at all."""
    waiting: dict[str, set[str]] = {}
    for segment in cut.segments:
        for transaction, half in _replayed(reader, backup_set, cut, segment):
            if half is not None:
                waiting.setdefault(half.xid, set()).add(transaction.gtid)
                if half.is_end:
                    _refuse_half(waiting.pop(half.xid), chosen, half.xid)


def _refuse_half(both: set[str], chosen: frozenset[str], xid: str) -> None:
    if both & chosen and not both <= chosen:
        raise errors.UnreachableTarget(
            f"cannot leave out half of the XA transaction {xid}: its prepare and its end are {' and '.join(sorted(both))}",
            hint="give --skip-gtid for both",
        )


def _may_hold(segment: BinlogSegment, gtid: str, flavour: str) -> bool:
    if flavour == "mysql":
        return gtids.contains(flavour, segment.gtids, gtid)
    return gtids.contains(flavour, segment.end.gtid, gtid) and not gtids.contains(flavour, segment.start.gtid, gtid)


def _replayed(
    reader: SegmentReader, backup_set: BackupSet, cut: cuts.Cut, segment: BinlogSegment
) -> Iterator[tuple[Transaction, _Half | None]]:
    """The transactions of a segment that are replayed, and which of them are halves of an XA transaction."""
    order, walker = cuts.FileOrder(cut.segments), TransactionWalker()
    own = backup_set.coordinates
    for event in cuts.segment_events(reader, segment):
        done = walker.feed(event)
        if done is None or (done.file == own.file and done.end <= own.position):
            continue
        if order.is_at_or_after(done.file, done.start, cut.at):
            return
        yield done, _half(done, event)


def _half(done: Transaction, last: StreamEvent) -> _Half | None:
    if done.kind is Kind.XA_PREPARE:
        xid, is_one_phase = xa.prepared(last.data)
        return None if is_one_phase else _Half(xid, is_end=False)
    if done.kind is Kind.STATEMENT:
        ended = xa.ended(events.query_text(last.data, 600))
        return _Half(ended[1], is_end=True) if ended else None
    return None


def _left_prepared(reader: SegmentReader, backup_set: BackupSet, cut: cuts.Cut) -> tuple[tuple[Transaction, ...], int]:
    newest: list[BinlogSegment] = []
    size = 0
    for segment in reversed(cut.segments):
        if newest and size + segment.raw_bytes > XA_LOOK_BACK_BYTES:
            break
        newest.insert(0, segment)
        size += segment.raw_bytes
    waiting: dict[str, Transaction] = {}
    for segment in newest:
        for transaction, half in _replayed(reader, backup_set, cut, segment):
            if half is not None and half.is_end:
                waiting.pop(half.xid, None)
            elif half is not None:
                waiting[half.xid] = transaction
    return tuple(waiting.values()), size


def _earlier_stamped(reader: SegmentReader, plan: RestorePlan, cut: cuts.Cut) -> tuple[Transaction, ...]:
    asked = plan.target.time
    if asked is None or cut.first_excluded is None:
        return ()
    order = cuts.FileOrder(plan.segments)
    behind = Coordinates(cut.first_excluded.file, cut.first_excluded.end)
    found = []
    for segment in plan.segments:
        ends_before = not order.is_at_or_after(segment.end.file, segment.end.position, behind)
        if ends_before or segment.first_commit_at is None or segment.first_commit_at >= asked:
            continue
        for transaction in cuts.transactions(reader, segment):
            if order.is_at_or_after(transaction.file, transaction.start, behind) and cuts.commit_time(transaction) < asked:
                found.append(transaction)
    return tuple(found)


def _content(reader: SegmentReader, segments: Sequence[BinlogSegment], transaction: Transaction) -> Content:
    content = ContentReader()
    for segment in segments:
        if segment.start.file == transaction.file and segment.start.position <= transaction.start < segment.end.position:
            for event in cuts.segment_events(reader, segment):
                if event.start >= transaction.end:
                    break
                if event.start >= transaction.start:
                    content.feed(event)
    return content.take()
