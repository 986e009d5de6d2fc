"""Stored events as the steps of a replay over an ordinary connection: begin, rows, statement, end.

What an ordinary session can do again is told apart from what only a replica can: the latter is refused, with the place
and the way out. Compressed transactions of MySQL are opened. Pure.

Refused: XA transactions (a session cannot hold one prepared and go on on MariaDB), temporary tables (they end with the
session), LOAD DATA events, statements that failed on the source, and kinds of event this version does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from kpbackup import errors
from kpbackup.mysql import events, payload, query_event, row_events
from kpbackup.mysql.events import StreamEvent
from kpbackup.mysql.transactions import TransactionWalker


@dataclass(frozen=True)
class Description:
    """A format description that differs from the one before; `data` as BINLOG takes it."""

    data: bytes


class Begin(NamedTuple):
    """A transaction begins. `gtid` is '' without one; `commit_at_us` is MySQL's original commit time."""

    gtid: str
    timestamp_s: int
    commit_at_us: int | None


class Rows(NamedTuple):
    """TABLE_MAP or row event. `ends_statement`: what came so far is a whole statement."""

    data: bytes
    ends_statement: bool


@dataclass(frozen=True)
class Statement:
    """A statement and the INTVAR, RAND and USER_VAR events before it.

    `alone`: it commits by itself. With `in_block` too it is a CREATE TABLE ... SELECT, whose rows follow.
    """

    query: query_event.QueryEvent
    context: tuple[bytes, ...]
    alone: bool
    in_block: bool


class End(NamedTuple):
    """The transaction is whole; it ends at file:position."""

    file: str
    position: int
    gtid: str


Step = Description | Begin | Rows | Statement | End

_ROWS = row_events.ROW_EVENTS | {row_events.TABLE_MAP}
_GTIDS = frozenset({events.MYSQL_GTID, events.MYSQL_ANONYMOUS_GTID, events.MYSQL_GTID_TAGGED, events.MARIADB_GTID})
_QUERIES = frozenset({events.QUERY, events.QUERY_COMPRESSED})
_NOTHING = frozenset({
    events.ROTATE, events.STOP, events.PREVIOUS_GTIDS, events.MARIADB_GTID_LIST, events.HEARTBEAT, events.HEARTBEAT_V2,
    row_events.ROWS_QUERY, row_events.ANNOTATE_ROWS, 161, events.XID,
})
_FRAME = re.compile(rb"\s*(?:BEGIN|COMMIT|ROLLBACK)\s*;?\s*\Z", re.IGNORECASE)
_XA = re.compile(rb"\s*XA\b", re.IGNORECASE)
_TEMPORARY = re.compile(rb"\s*(?:/\*.*?\*/\s*)*(?:CREATE\s+(?:OR\s+REPLACE\s+)?|DROP\s+|ALTER\s+)(?:/\*!\d+\s*)?TEMPORARY\b",
                        re.IGNORECASE | re.DOTALL)
_CREATES = re.compile(rb"\s*(?:/\*.*?\*/\s*)*CREATE\b", re.IGNORECASE | re.DOTALL)
_STORED = re.compile(rb"\s*CREATE\s+(?:OR\s+REPLACE\s+)?(?P<definer>.*?)\b(?:VIEW|PROCEDURE|FUNCTION|TRIGGER|EVENT|PACKAGE)\b",
                     re.IGNORECASE | re.DOTALL)


def steps(stream: Iterable[StreamEvent]) -> Iterator[Step]:
    """The steps of whole transactions.

    Raises:
        StepFailed: something that cannot be done over an ordinary connection.
        IntegrityError, ServerUnfit: an event cannot be read.
    """
    walker = TransactionWalker()
    described, has_crc = b"", True
    context: list[bytes] = []
    is_begun = in_block = False
    for event in payload.unpacked(stream):
        kind = event.type
        if kind == events.FORMAT_DESCRIPTION:
            found, has_crc = _description(event.data)
            if found != described:
                yield Description(found)
            described = found
            walker.feed(event)
            continue
        done = walker.feed(event)
        if not is_begun and (walker.is_open or done is not None):
            is_begun = True
            in_block = kind == events.MARIADB_GTID and not events.mariadb_gtid(event.data).standalone
            yield _begin(event)
        if kind in _ROWS:
            data = row_events.uncompressed(event.data)
            data = data if has_crc or events.has_valid_crc(data) else events.seal_event(data)
            ends = kind != row_events.TABLE_MAP and bool(row_events.rows_flags(event.data) & row_events.STATEMENT_ENDS)
            yield Rows(data, ends)
        elif kind in query_event.CONTEXT_EVENTS:
            context.append(event.data)
        elif kind in _QUERIES:
            if _FRAME.match(events.query_text(event.data)):
                in_block = True
            else:
                yield _statement(event, tuple(context), in_block=in_block)
            context.clear()
        elif kind not in _GTIDS and kind not in _NOTHING:
            raise _refusal(event, f"an event of kind {kind}")
        if done is not None:
            is_begun = False
            yield End(done.file, done.end, done.gtid)


def _description(data: bytes) -> tuple[bytes, bool]:
    """The description with no place and no time of its own, saying CRC32; and whether the events after it carry one."""
    plain = events.as_repeated(data)
    has_crc = events.checksum_algorithm(plain) == events.CHECKSUM_CRC32
    if has_crc:
        return plain, True
    body = bytearray(plain[: -events.CRC_BYTES])
    body[-1] = events.CHECKSUM_CRC32
    return events.seal_event(bytes(body)), False


def _begin(event: StreamEvent) -> Begin:
    stamp = events.header(event.data).timestamp_s
    if event.type == events.MARIADB_GTID:
        return Begin(events.mariadb_gtid(event.data).gtid, stamp, None)
    if event.type in _GTIDS:
        found = events.mysql_gtid(event.data)
        return Begin(found.gtid, stamp, found.commit_at_us)
    return Begin("", stamp, None)


def _statement(event: StreamEvent, context: tuple[bytes, ...], *, in_block: bool) -> Statement:
    query = query_event.parse(event.data)
    if _XA.match(query.text):
        raise _refusal(event, "an XA transaction")
    if _TEMPORARY.match(query.text):
        raise _refusal(event, "a statement about a temporary table")
    if query.error:
        raise _refusal(event, f"a statement that failed on the source (error {query.error})")
    if query.alter_phase == query_event.ALTER_STARTS:
        raise _refusal(event, "a two-phase ALTER TABLE")
    stored = _STORED.match(query.text)
    if query.invoker is not None and stored is not None and b"DEFINER" not in stored["definer"].upper():
        raise _refusal(event, "a stored object whose definer is not written in the statement")
    return Statement(query, context, not in_block or bool(_CREATES.match(query.text)), in_block)


def _refusal(event: StreamEvent, what: str) -> errors.StepFailed:
    return errors.StepFailed(
        f"{what} at {event.file}:{event.start} cannot be replayed by the direct path",
        hint="set recovery.replay.path to served, or leave it out with --skip-gtid (`kpbackup find` prints the GTID)",
    )
