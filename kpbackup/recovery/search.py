"""Which transactions somebody looks for, and the ones among a stream of events that are meant.

Rows are counted only where the answer needs it. Nothing of this reads the store: the same code runs here and in the
worker processes of `find`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from kpbackup.mysql import statements
from kpbackup.mysql.contents import Content, ContentReader, TableChange
from kpbackup.mysql.events import StreamEvent
from kpbackup.mysql.row_events import Change
from kpbackup.mysql.statements import Statement
from kpbackup.mysql.transactions import Transaction, TransactionWalker

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Sought(StrEnum):
    """Kinds of what a transaction did."""

    DDL = "ddl"  # any definition changed, drop and truncate among them
    DROP = "drop"
    TRUNCATE = "truncate"
    ACCOUNT = "account"
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


_CHANGES = {Sought.INSERT: Change.INSERT, Sought.UPDATE: Change.UPDATE, Sought.DELETE: Change.DELETE}


@dataclass(frozen=True)
class Criteria:
    """All that is given must hold. `tables` are `database.table` or `database` with `*` and `?`; `rows` the least number
    of rows changed, in those tables and ways; without `kinds` any kind, with `rows` any change of rows."""

    since: datetime | None = None
    until: datetime | None = None
    gtid: str | None = None
    tables: tuple[str, ...] = ()
    kinds: tuple[Sought, ...] = ()
    rows: int = 0


@dataclass(frozen=True)
class Hit:
    """A transaction that is meant, and what it did, as `Content` has it."""

    transaction: Transaction
    tables: tuple[TableChange, ...]
    texts: tuple[str, ...]

    @property
    def content(self) -> Content:
        return Content(self.tables, (), self.texts)


def search(stream: Iterable[StreamEvent], criteria: Criteria) -> Iterator[Hit]:
    """The hits among the transactions of a stream, in its order.

    Raises:
        IntegrityError: an event is malformed. What `stream` raises.
    """
    walker, reader, matcher = TransactionWalker(), ContentReader(), _Matcher(criteria)
    for event in stream:
        reader.feed(event)
        transaction = walker.feed(event)
        if transaction is None:
            continue
        if matcher.is_possible(transaction, reader):
            content = reader.take()
            if matcher.is_hit(content):
                yield Hit(transaction, content.tables, content.texts)
        else:
            reader.discard()


class _Matcher:
    def __init__(self, criteria: Criteria) -> None:
        self._criteria = criteria
        self._since_us, self._until_us = _microseconds(criteria.since), _microseconds(criteria.until)
        self._changes = {_CHANGES[kind] for kind in criteria.kinds if kind in _CHANGES}
        self._patterns = [pattern if "." in pattern else f"{pattern}.*" for pattern in criteria.tables]
        self._known: dict[tuple[str, str], bool] = {}

    def is_possible(self, transaction: Transaction, reader: ContentReader) -> bool:
        """Before any row is counted."""
        wanted = self._criteria
        if wanted.gtid is not None and transaction.gtid != wanted.gtid:
            return False
        if self._since_us is not None and transaction.commit_at_us < self._since_us:
            return False
        if self._until_us is not None and transaction.commit_at_us >= self._until_us:
            return False
        if any(map(self._is_meant, reader.statements)):
            return True
        if wanted.kinds and not self._changes & reader.changes:
            return False
        if wanted.rows > reader.rows_at_most:
            return False
        return any(map(self._is_table, reader.names)) or not self._patterns

    def is_hit(self, content: Content) -> bool:
        """After counting."""
        if any(map(self._is_meant, content.statements)):
            return True
        rows = 0
        is_met = not self._criteria.kinds and not self._patterns
        for table in content.tables:
            if self._patterns and not self._is_table((table.schema, table.table)):
                continue
            counts = {Change.INSERT: table.inserted, Change.UPDATE: table.updated, Change.DELETE: table.deleted}
            for change, count in counts.items():
                if count != 0 and (not self._criteria.kinds or change in self._changes):
                    is_met = True
                    rows += count or self._criteria.rows  # what could not be counted may be many
        return is_met and rows >= self._criteria.rows

    def _is_meant(self, statement: Statement) -> bool:
        wanted = self._criteria
        if wanted.rows and not wanted.kinds:
            return False
        if wanted.kinds and not any(_is_of_kind(statement, kind) for kind in wanted.kinds):
            return False
        return not self._patterns or any(map(self._is_table, statement.targets)) or self._is_mentioned(statement)

    def _is_mentioned(self, statement: Statement) -> bool:
        """A change of rows by a statement, or a routine: its text names the table somewhere."""
        if statement.targets:
            return False
        tables = [pattern.partition(".")[2] for pattern in self._patterns]
        return any(fnmatch.fnmatchcase(name, table.lower()) for table in tables if table != "*" for name in statement.mentions)

    def _is_table(self, name: tuple[str, str]) -> bool:
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = any(_matches(name, pattern) for pattern in self._patterns)
        return found


def _matches(name: tuple[str, str], pattern: str) -> bool:
    schema, _, table = pattern.lower().partition(".")
    is_schema = fnmatch.fnmatchcase(name[0].lower(), schema)
    return is_schema and (not name[1] or fnmatch.fnmatchcase(name[1].lower(), table))


def _is_of_kind(statement: Statement, kind: Sought) -> bool:
    if kind is Sought.ACCOUNT:
        return statement.kind is statements.Kind.ACCOUNT
    if kind in _CHANGES:
        return statement.kind is statements.Kind.CHANGE and statement.verb in (kind.value.upper(), "REPLACE", "LOAD", "CALL")
    if statement.kind is not statements.Kind.DDL:
        return False
    return kind is Sought.DDL or statement.verb.startswith(kind.value.upper())


def _microseconds(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // timedelta(microseconds=1)
