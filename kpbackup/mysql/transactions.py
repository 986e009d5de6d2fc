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
from enum import StrEnum
from typing import NamedTuple

from kpbackup import errors
from kpbackup.mysql import events
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


_ENDS = re.compile(rb"\s*(?:COMMIT|ROLLBACK)\s*;?\s*\Z|\s*XA\s+(?:COMMIT|ROLLBACK)\b", re.IGNORECASE)
_BEGINS = re.compile(rb"\s*BEGIN\b", re.IGNORECASE)
_XA_STARTS = re.compile(rb"\s*XA\s+(?:START|BEGIN)\b", re.IGNORECASE)

_MYSQL_GTIDS = frozenset({events.MYSQL_GTID, events.MYSQL_ANONYMOUS_GTID, events.MYSQL_GTID_TAGGED})
_QUERIES = frozenset({events.QUERY, events.QUERY_COMPRESSED})
_DECODED = _MYSQL_GTIDS | _QUERIES | {
    events.MARIADB_GTID, events.XID, events.XA_PREPARE, events.TRANSACTION_PAYLOAD, events.FORMAT_DESCRIPTION,
    events.INCIDENT, events.START_ENCRYPTION,
}
# What a transaction without a GTID event may start with before its first statement: variables for statement format.
_OUTSIDE = frozenset({
    events.STOP, events.ROTATE, events.PREVIOUS_GTIDS, events.MARIADB_GTID_LIST, events.HEARTBEAT, events.HEARTBEAT_V2, 161,
})
_CANNOT_ADD = _DECODED | _OUTSIDE


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
        if kind in _DECODED:
            return self._decoded(event)
        if self._start is None and kind not in _OUTSIDE:
            self._start = event.start
        return None

    def _decoded(self, event: StreamEvent) -> Transaction | None:
        kind = event.type
        if kind in _MYSQL_GTIDS:
            found = events.mysql_gtid(event.data)
            self._open(event, gtid=found.gtid, commit_at_us=found.commit_at_us, in_block=False)
        elif kind == events.MARIADB_GTID:
            gtid = events.mariadb_gtid(event.data)
            self._open(event, gtid=gtid.gtid, commit_at_us=None, in_block=not gtid.standalone)
        elif kind in _QUERIES:
            return self._query(event)
        elif kind == events.XA_PREPARE:
            return self._close(event, Kind.XA_PREPARE)
        elif kind in (events.XID, events.TRANSACTION_PAYLOAD):
            return self._close(event, Kind.ROWS)
        elif kind == events.FORMAT_DESCRIPTION:
            if not event.is_repeated_description:
                self._start = None
        else:
            self._refuse(event)
        return None

    def _query(self, event: StreamEvent) -> Transaction | None:
        text = events.query_text(event.data)
        if self._in_block and self._start is not None:
            return self._close(event, Kind.ROWS) if _ENDS.match(text) else None
        if self._start is None:
            self._open(event, gtid="", commit_at_us=None, in_block=False)
        if _BEGINS.match(text) or _XA_STARTS.match(text):
            self._in_block = True
            return None
        return self._close(event, Kind.STATEMENT)

    def _open(self, event: StreamEvent, *, gtid: str, commit_at_us: int | None, in_block: bool) -> None:
        self._start, self._gtid, self._commit_at_us, self._in_block = event.start, gtid, commit_at_us, in_block

    def _close(self, event: StreamEvent, kind: Kind) -> Transaction:
        start = event.start if self._start is None else self._start
        stamp = self._commit_at_us
        if not stamp:
            stamp = int.from_bytes(event.data[:4], "little") * 1_000_000
        found = Transaction(event.file, start, event.end, self._gtid, stamp, kind)
        self._start, self._gtid, self._commit_at_us, self._in_block = None, "", None, False
        return found

    def _refuse(self, event: StreamEvent) -> None:
        events.refuse_encrypted(event.data, f"{event.file}:{event.start}")
        raise errors.ChainBroken(
            f"the source reports an incident at {event.file}:{event.start}: changes may be missing from its binlog",
            hint="take a new full backup",
        )
