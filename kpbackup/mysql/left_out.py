"""Transactions left out of a replay: each becomes an empty transaction with its own GTID.

So the GTID state after the replay is the source's: nothing will ask for the transaction again, and a binlog of the
target shows under its GTID that it held nothing. Left out are the GTIDs that were asked for (--skip-gtid) and statements
about accounts that are not to be touched (`account_statements`).

A stream that was changed says so: behind an empty transaction comes a format description whose start and end are where
the stream goes on (`StreamEvent.is_resumption`), because the bytes before it are fewer than they were.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from kpbackup import errors
from kpbackup.mysql import events, query_event, row_events
from kpbackup.mysql.account_statements import ACCOUNT_TABLES, AccountRule, Verdict
from kpbackup.mysql.events import StreamEvent
from kpbackup.mysql.transactions import TransactionWalker

_MYSQL_GTIDS = frozenset({events.MYSQL_GTID, events.MYSQL_ANONYMOUS_GTID, events.MYSQL_GTID_TAGGED})
_GTIDS = _MYSQL_GTIDS | {events.MARIADB_GTID}
_QUERIES = frozenset({events.QUERY, events.QUERY_COMPRESSED})
_ACCOUNT_WORDS = re.compile(
    rb"\s*(?:/\*.*?\*/\s*)*(?:(?:CREATE|DROP|ALTER|RENAME)\s+(?:OR\s+REPLACE\s+)?(?:USER|ROLE)|GRANT|REVOKE"
    rb"|SET\s+(?:DEFAULT|PASSWORD))\b",
    re.IGNORECASE | re.DOTALL,
)
_MYSQL_SCHEMA = b"\x05mysql\x00"
_MARIADB_GTID_HEAD = struct.Struct("<QIB")
_TRANSACTIONAL = 0x04
_QUERY_HEAD = struct.Struct("<IIBHH")


@dataclass(frozen=True)
class Omission:
    """What to leave out. `drop` removes an account of the target's own that --replace-users gives free."""

    mariadb: bool
    gtids: frozenset[str] = frozenset()
    rule: AccountRule | None = None
    drop: Callable[[str], None] | None = None


@dataclass
class Tally:
    """What was left out so far; a stream that is read again counts again only what lies behind."""

    gtids: set[str] = field(default_factory=set)
    account_statements: set[tuple[str, int]] = field(default_factory=set)


class LeftOut:
    """`apply` may be called for several streams, one after the other."""

    def __init__(self, omission: Omission) -> None:
        self.tally = Tally()
        self._what = omission
        self._dropped: set[str] = set()

    def apply(self, stream: Iterator[StreamEvent]) -> Iterator[StreamEvent]:
        """The events, what is left out replaced.

        Raises:
            StepFailed: a statement about accounts can be neither executed nor left out.
        """
        description: StreamEvent | None = None
        held: StreamEvent | None = None  # a GTID event whose transaction is not judged yet
        for event in stream:
            kind = event.type
            if held is None and kind not in _GTIDS and kind not in _QUERIES:
                if kind == events.FORMAT_DESCRIPTION:
                    description = event
                elif kind == row_events.TABLE_MAP:
                    self._refuse_account_tables(event)
                yield event
                continue
            if kind in _GTIDS:
                gtid = _gtid(event)
                if gtid and gtid in self._what.gtids:
                    self.tally.gtids.add(gtid)
                    yield from self._emptied(stream, event, None, description)
                else:
                    held = event
                continue
            if kind in _QUERIES and self._is_left_out(event, held):
                self.tally.account_statements.add((event.file, event.start))
                yield from self._emptied(stream, held, event, description)
                held = None
                continue
            if held is not None:
                yield held
                held = None
            if kind == row_events.TABLE_MAP:
                self._refuse_account_tables(event)
            yield event
        if held is not None:
            yield held

    def _is_left_out(self, event: StreamEvent, held: StreamEvent | None) -> bool:
        rule = self._what.rule
        if rule is None or not _ACCOUNT_WORDS.match(events.query_text(event.data, 400)):
            return False
        verdict, names = rule.judge(query_event.parse(event.data), mariadb=self._what.mariadb)
        if verdict is Verdict.REFUSE:
            which = _gtid(held) if held is not None else ""
            raise errors.StepFailed(
                f"the statement at {event.file}:{event.start} is about accounts that are not to be touched"
                f" ({', '.join(sorted(names))}) and others together",
                hint=f"leave it out with --skip-gtid {which or 'GTID'} and do by hand what it does to the others",
            )
        for name in names - self._dropped if verdict is Verdict.EXECUTE else ():
            if self._what.drop is not None:
                self._what.drop(name)
            self._dropped.add(name)
        return verdict is Verdict.LEAVE_OUT

    def _refuse_account_tables(self, event: StreamEvent) -> None:
        at = events.HEADER_BYTES + 8
        if self._what.rule is None or event.data[at : at + len(_MYSQL_SCHEMA)] != _MYSQL_SCHEMA:
            return
        _, table = row_events.table_name(event.data)
        if table in ACCOUNT_TABLES:
            raise errors.StepFailed(
                f"the transaction at {event.file}:{event.start} changes rows of mysql.{table} directly: which accounts it"
                " touches cannot be told",
                hint="leave it out with --skip-gtid (`kpbackup find` prints its GTID) and make the accounts by hand",
            )

    def _emptied(
        self, stream: Iterator[StreamEvent], first: StreamEvent | None, second: StreamEvent | None,
        description: StreamEvent | None,
    ) -> Iterator[StreamEvent]:
        """An empty transaction in place of the one that begins with `first`, whose rest is read away."""
        walker = TransactionWalker()
        last = second or first
        assert last is not None
        done = walker.feed(first) if first is not None else None
        if second is not None:
            done = walker.feed(second)
        while done is None:
            event = next(stream, None)
            if event is None:
                raise errors.IntegrityError(f"the stored binlog ends inside the transaction at {last.file}:{last.start}")
            last = event
            done = walker.feed(event)
        if first is not None:
            yield from _empty_transaction(first, last, description)
        if description is not None:
            yield StreamEvent(last.file, last.end, last.end, events.FORMAT_DESCRIPTION, description.data)


def _gtid(event: StreamEvent) -> str:
    if event.type == events.MARIADB_GTID:
        return events.mariadb_gtid(event.data).gtid
    return events.mysql_gtid(event.data).gtid


def _empty_transaction(first: StreamEvent, last: StreamEvent, description: StreamEvent | None) -> Iterator[StreamEvent]:
    crc = description is None or events.checksum_algorithm(events.without_in_use(description.data)) == events.CHECKSUM_CRC32
    head = events.header(first.data)

    def event(kind: int, body: bytes, end: int) -> StreamEvent:
        packed = events.HEADER.pack(head.timestamp_s, kind, head.server_id, 0, end & 0xFFFFFFFF, 0)
        return StreamEvent(first.file, first.end, end, kind, events.seal_event(packed + body, crc=crc))

    if first.type == events.MARIADB_GTID:
        seq, domain, _ = _MARIADB_GTID_HEAD.unpack_from(first.data, events.HEADER_BYTES)
        begins = event(events.MARIADB_GTID, _MARIADB_GTID_HEAD.pack(seq, domain, _TRANSACTIONAL) + bytes(6), first.end)
        yield begins._replace(start=first.start)
    else:
        yield first
        yield event(events.QUERY, _QUERY_HEAD.pack(0, 0, 0, 0, 0) + b"\0BEGIN", first.end)
    yield event(events.XID, bytes(8), last.end)
