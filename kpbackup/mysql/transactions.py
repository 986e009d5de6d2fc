"""Where each transaction of a binlog begins and ends: a pure state machine over events.

MySQL: a GTID event (or an anonymous one), then one statement, or BEGIN ... XID/COMMIT/ROLLBACK, or a compressed
payload, or XA START ... XA_PREPARE. MariaDB: a GTID event that is itself the BEGIN unless marked standalone.
Files of MySQL before 5.7.6 have no GTID event; there BEGIN or the statement itself opens.

A source that crashed may leave an unfinished transaction at the end of a file: it is dropped when the
next file begins, as every replica does. Nothing is kept between two walkers.

Commit time: MySQL's original_commit_timestamp (microseconds), else the header of the last event (whole seconds).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from kpbackup import errors
from kpbackup.mysql import event_block, events
from kpbackup.mysql.event_block import EventBlock
from kpbackup.mysql.events import StreamEvent


class Kind(StrEnum):
    ROWS = "rows"  # BEGIN ... COMMIT, whatever is inside
    STATEMENT = "statement"  # one statement by itself: DDL, account statements, XA COMMIT
    XA_PREPARE = "xa_prepare"  # prepared, not committed


class Transaction(NamedTuple):
    """One whole transaction: file[start:end). `gtid` is '' where the source has none."""

    file: str
    start: int
    end: int
    gtid: str
    commit_at_us: int
    kind: Kind


class Tally(NamedTuple):
    """Transactions added up: when each was committed, and their GTIDs in order; '' where the source has none; of a
    run of them on MariaDB, in one domain and of one server, the first and the last."""

    commits_at_us: list[int]
    gtids: list[str]


_ENDS = re.compile(rb"\s*(?:COMMIT|ROLLBACK)\s*;?\s*\Z|\s*XA\s+(?:COMMIT|ROLLBACK)\b", re.IGNORECASE)
_BEGINS = re.compile(rb"\s*BEGIN\b", re.IGNORECASE)
_XA_STARTS = re.compile(rb"\s*XA\s+(?:START|BEGIN)\b", re.IGNORECASE)

_MYSQL_GTIDS = frozenset({events.MYSQL_GTID, events.MYSQL_ANONYMOUS_GTID, events.MYSQL_GTID_TAGGED})
_QUERIES = frozenset({events.QUERY, events.QUERY_COMPRESSED})
_ROW_ENDS = frozenset({events.XID, events.TRANSACTION_PAYLOAD})
_REFUSED = frozenset({events.INCIDENT, events.START_ENCRYPTION})
# What a transaction without a GTID event may start with before its first statement: variables for statement format.
_OUTSIDE = frozenset({
    events.STOP, events.ROTATE, events.PREVIOUS_GTIDS, events.MARIADB_GTID_LIST, events.HEARTBEAT, events.HEARTBEAT_V2,
    events.BINLOG_CHECKPOINT,
})
_CANNOT_ADD = event_block.MARKED | event_block.ALONE


class TransactionWalker:
    """Feed it every event of a stream in order; it says when a transaction is complete."""

    def __init__(self) -> None:
        self._start: int | None = None
        self._in_block = False
        self._gtid = ""
        self._commit_at_us: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether the stream stands inside a transaction."""
        return self._start is not None

    def is_inside(self, event: StreamEvent) -> bool:
        """Whether the stream stands inside a transaction to which `event` can only add: it need not be fed."""
        return self._start is not None and event.type not in _CANNOT_ADD

    def feed(self, event: StreamEvent) -> Transaction | None:
        """The transaction that `event` completes, if it does.

        Raises:
            ChainBroken: an incident event: the source says that it lost changes.
            ServerUnfit: the file is encrypted.
            IntegrityError: a decoded event is malformed.
        """
        kind = event.type
        if kind in event_block.MARKED:
            return self._marked(kind, event.file, event.start, event.end, event.data)
        if kind == events.FORMAT_DESCRIPTION:
            if not event.is_repeated_description:
                self._start = None
        elif kind in _REFUSED:
            self._refuse(event)
        elif self._start is None and kind not in _OUTSIDE:
            self._start = event.start
        return None

    def feed_block(self, block: EventBlock) -> Iterator[tuple[Transaction, int]]:
        """The transactions that the block's events complete, each with the number of its last event. Raises as `feed`."""
        return self._walk(block.file, block.marks, block.start, 0, len(block.events))

    def tally(self, block: EventBlock) -> Tally:
        """What `feed_block` gives, added up. Raises as `feed`.

        Most blocks of MariaDB are the end of a transaction, pairs of a GTID event and an XID, and the beginning of another. No
        transaction is made of the pairs.
        """
        marks, count = block.marks, len(block.events)
        first = int(bool(marks) and marks[0][1] == events.XID)
        last = first + (len(marks) - first) // 2 * 2
        ends = marks[first + 1 : last : 2]
        run = _run(marks[first:last:2], ends)
        if not run:
            return _tallied(self.feed_block(block))
        head = _tallied(self._walk(block.file, marks[:first], block.start, 0, 0))
        self._open(None, "", None, False)
        tail = _tallied(self._walk(block.file, marks[last:], ends[-1][2], ends[-1][0] + 1, count))
        stamps = [int.from_bytes(mark[3][:4], "little") * 1_000_000 for mark in ends]
        return Tally(head.commits_at_us + stamps + tail.commits_at_us, head.gtids + run + tail.gtids)

    def _walk(
        self, file: str, marks: list[event_block.Mark], place: int, following: int, count: int
    ) -> Iterator[tuple[Transaction, int]]:
        """The marks among the events up to the one numbered `count`; `following` is the first one's number, `place` its start."""
        for index, kind, end, data in marks:
            if self._start is None and index > following:
                self._start = place
            done = self._marked(kind, file, end - len(data), end, data)
            if done is not None:
                yield done, index
            place, following = end, index + 1
        if self._start is None and following < count:
            self._start = place

    def _marked(self, kind: int, file: str, start: int, end: int, data: bytes) -> Transaction | None:
        """Takes an event that a transaction can begin or end with."""
        if kind == events.MARIADB_GTID:
            gtid, flags = events.mariadb_gtid_head(data)
            self._open(start, gtid, None, not flags & events.GTID_STANDALONE)
        elif kind in _ROW_ENDS:
            return self._close(file, start, end, data, Kind.ROWS)
        elif kind in _MYSQL_GTIDS:
            found = events.mysql_gtid(data)
            self._open(start, found.gtid, found.commit_at_us, False)
        elif kind in _QUERIES:
            return self._query(file, start, end, data)
        else:
            return self._close(file, start, end, data, Kind.XA_PREPARE)
        return None

    def _query(self, file: str, start: int, end: int, data: bytes) -> Transaction | None:
        text = events.query_text(data)
        if self._in_block and self._start is not None:
            return self._close(file, start, end, data, Kind.ROWS) if _ENDS.match(text) else None
        if self._start is None:
            self._open(start, "", None, False)
        if _BEGINS.match(text) or _XA_STARTS.match(text):
            self._in_block = True
            return None
        return self._close(file, start, end, data, Kind.STATEMENT)

    def _open(self, start: int | None, gtid: str, commit_at_us: int | None, in_block: bool) -> None:
        self._start, self._gtid, self._commit_at_us, self._in_block = start, gtid, commit_at_us, in_block

    def _close(self, file: str, start: int, end: int, data: bytes, kind: Kind) -> Transaction:
        begun = start if self._start is None else self._start
        stamp = self._commit_at_us or int.from_bytes(data[:4], "little") * 1_000_000
        found = Transaction(file, begun, end, self._gtid, stamp, kind)
        self._open(None, "", None, False)
        return found

    def _refuse(self, event: StreamEvent) -> None:
        events.refuse_encrypted(event.data, f"{event.file}:{event.start}")
        raise errors.ChainBroken(
            f"the source reports an incident at {event.file}:{event.start}: changes may be missing from its binlog",
            hint="take a new full backup",
        )


def _run(begins: list[event_block.Mark], ends: list[event_block.Mark]) -> list[str]:
    """The first and the last GTID of transactions that begin and end so; [] where they are not all pairs of MariaDB's GTID event
    and an XID, of one domain and server."""
    if not begins or {mark[1] for mark in begins} != {events.MARIADB_GTID} or {mark[1] for mark in ends} != {events.XID}:
        return []
    numbers = [events.mariadb_gtid_numbers(mark[3]) for mark in begins]
    if len({(server_id, domain) for server_id, _, domain, _ in numbers}) > 1:
        return []
    return [f"{domain}-{server_id}-{seq}" for server_id, seq, domain, _ in (numbers[0], numbers[-1])]


def _tallied(found: Iterator[tuple[Transaction, int]]) -> Tally:
    done = [one for one, _ in found]
    return Tally([one.commit_at_us for one in done], [one.gtid for one in done])
