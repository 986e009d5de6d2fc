"""The replay of a selection: whole transactions that have nothing to do with it are left out, the others are replayed whole.

It is exact or it is refused, before anything is changed. Refused are: a transaction that changes chosen and other tables; a
chosen table with a foreign key to one that is left out (a cascade is not in the binlog, and a check would fail); an XA
transaction; a statement that could touch chosen objects and is not surely about them alone; rows changed by a statement.
Account statements are left out where a part of a set is restored, as its accounts are; a set that is a part itself has them.

Limit: the GTID of each transaction left out is held in memory. A source without GTIDs cannot be filtered.
"""

from __future__ import annotations

from kpbackup import errors
from kpbackup.model.coordinates import Coordinates
from kpbackup.model.inventory import Inventory
from kpbackup.model.manifest import BackupSet
from kpbackup.model.selection import Narrowed
from kpbackup.mysql import events, payload, query_event, row_events, statements, xa
from kpbackup.mysql.events import StreamEvent
from kpbackup.mysql.selecting import Selected
from kpbackup.mysql.statements import Kind, Statement
from kpbackup.mysql.transactions import Kind as TransactionKind
from kpbackup.mysql.transactions import Transaction, TransactionWalker
from kpbackup.recovery import cut as cuts
from kpbackup.recovery.binlog import SegmentReader

_QUERIES = (events.QUERY, events.QUERY_COMPRESSED)
_FRAMES = (b"BEGIN", b"COMMIT", b"ROLLBACK")
_WORDS_FOR_OTHERS = frozenset({"references", "rename", "like", "select", "exchange", "union"})  # tables beside the targets
_OF_DATABASES = ("PROCEDURE", "FUNCTION", "EVENT", "PACKAGE", "LIBRARY")


def left_out(
    reader: SegmentReader, backup_set: BackupSet, cut: cuts.Cut, selection: Narrowed, *, whole: Inventory, selected: Selected
) -> frozenset[str]:
    """The GTIDs of the transactions between set and cut that have nothing to do with the selection.

    Raises:
        UnreachableTarget: the selection cannot be replayed exactly; says which transaction, and why.
        IntegrityError, KeyProblem, StorageError: a segment cannot be opened.
    """
    if selection.is_everything or cut.last_included is None:
        return frozenset()
    judge = Judge(backup_set.coordinates, selection, whole, selected)
    if selected.foreign:
        (schema, table), (other, its) = selected.foreign[0]
        raise judge.refused(f"{schema}.{table} has a foreign key to {other}.{its}, which is left out")
    found: set[str] = set()
    order, own = cuts.FileOrder(cut.segments), backup_set.coordinates
    for segment in cut.segments:
        walker, touched = TransactionWalker(), Touched()
        for event in cuts.segment_events(reader, segment):
            touched.feed(event)
            done = walker.feed(event)
            if done is None:
                continue
            if order.is_at_or_after(done.file, done.start, cut.at):
                break
            is_in_set = done.file == own.file and done.end <= own.position
            if not is_in_set and not judge.is_replayed(done, touched):
                found.add(judge.gtid_of(done))
            touched = Touched()
    return frozenset(found)


class Touched:
    """What one transaction has to do with: tables whose rows it changes, and statements, each with its default database."""

    def __init__(self) -> None:
        self.tables: set[tuple[str, str]] = set()
        self.statements: list[tuple[Statement, str]] = []
        self.ends_xa = False

    def feed(self, event: StreamEvent) -> None:
        if event.type == row_events.TABLE_MAP:
            self.tables.add(row_events.table_name(event.data))
        elif event.type == events.TRANSACTION_PAYLOAD:
            for inner in payload.contents(event):
                self.feed(inner)
        elif event.type in _QUERIES and not events.query_text(event.data, 16).strip().upper().startswith(_FRAMES):
            self.ends_xa = self.ends_xa or xa.ended(events.query_text(event.data, 600)) is not None
            query = query_event.parse(event.data)
            text = statements.decoded(query.text, int.from_bytes(query.variables.get(4, b"\xff\0")[:2], "little"))
            mode = int.from_bytes(query.variables.get(1, b"\0"), "little")
            self.statements.append((statements.read(text, database=query.database, sql_mode=mode), query.database))


class Judge:
    """Knows the databases there are, and the chosen tables: those of the set, and those that statements made since."""

    def __init__(self, set_at: Coordinates, selection: Narrowed, whole: Inventory, selected: Selected) -> None:
        self._set_at, self._selection = set_at, selection
        self._databases = {one.name for one in whole.databases}
        self._chosen = {one.name.lower() for one in selected.inventory.tables}

    def is_replayed(self, done: Transaction, touched: Touched) -> bool:
        """Whether the transaction is about the selection alone (True) or has nothing to do with it. Raises UnreachableTarget."""
        if done.kind is TransactionKind.XA_PREPARE or touched.ends_xa:
            raise self.refused(f"transaction {_name(done)} is part of an XA transaction")
        answers = {self._selection.takes(*table) for table in touched.tables}
        for statement, database in touched.statements:
            if (answer := self._is_about(done, statement, database)) is not None:
                answers.add(answer)
        if len(answers) > 1:
            mine = sorted(f"{a}.{b}" for a, b in touched.tables if self._selection.takes(a, b))
            others = sorted(f"{a}.{b}" for a, b in touched.tables if not self._selection.takes(a, b))
            raise self.refused(
                f"transaction {_name(done)} changes {', '.join(mine) or 'chosen objects'} and also"
                f" {', '.join(others) or 'others'}, which is left out"
            )
        return True in answers

    def _is_about(self, done: Transaction, statement: Statement, database: str) -> bool | None:
        """True: about chosen objects alone. False: surely not about any. None: it changes nothing that is backed up."""
        if statement.kind is Kind.OTHER and statement.verb not in statements.HARMLESS and statement.mentions & self._chosen:
            raise self.refused(f"transaction {_name(done)} is a {statement.verb} of which it is not known what it does")
        if statement.kind in (Kind.OTHER, Kind.CONTROL):
            return None
        if statement.kind is Kind.ACCOUNT:  # accounts come with a set, but not with a selection of it
            return self._selection.inner.is_everything
        if statement.kind is Kind.CHANGE:
            raise self.refused(f"transaction {_name(done)} changes rows by a statement, {statement.verb}")
        if statement.verb == "CREATE DATABASE":
            self._databases |= {schema for schema, _ in statement.targets}
        about = self._of_databases(statement, database)
        if about is None:
            about = self._of_targets(statement) if statement.targets else self._of_routine(statement, database)
        if about is None:
            raise self.refused(f"transaction {_name(done)} is a {statement.verb} that may be about chosen objects and others")
        if about:
            self._chosen |= {name.lower() for _, name in statement.targets}
        return about

    def _named(self, statement: Statement, database: str) -> set[str]:
        """The databases in which a name of the statement can lie."""
        named = {one for one in self._databases if one.lower() in statement.mentions}
        return named | {schema for schema, _ in statement.targets if schema} | ({database} if database else set())

    def _of_databases(self, statement: Statement, database: str) -> bool | None:
        """The answer where the databases alone give it."""
        named = self._named(statement, database)
        if not any(self._selection.may_take_of(one) for one in named):
            return False
        return True if all(self._selection.takes_all_of(one) for one in named) else None

    def _of_targets(self, statement: Statement) -> bool | None:
        takes = [
            self._selection.takes(schema, name) if name else self._selection.takes_all_of(schema)
            for schema, name in statement.targets
        ]
        if all(takes):
            return None if statement.mentions & _WORDS_FOR_OTHERS else True
        partly = any(not name and self._selection.may_take_of(schema) for schema, name in statement.targets)
        if any(takes) or partly or "rename" in statement.mentions or statement.mentions & self._chosen:
            return None
        return False

    def _of_routine(self, statement: Statement, database: str) -> bool | None:
        """A routine or event belongs to its database, which is the default one unless another is named."""
        if statement.verb.split()[-1] not in _OF_DATABASES:
            return None
        whole = {self._selection.takes_whole(one) for one in self._named(statement, database)}
        return whole.pop() if len(whole) == 1 else None

    def gtid_of(self, done: Transaction) -> str:
        if not done.gtid:
            raise self.refused(f"the source has no GTIDs, so the transaction at {_name(done)} cannot be left out")
        return done.gtid

    def refused(self, why: str) -> errors.UnreachableTarget:
        at = self._set_at
        return errors.UnreachableTarget(
            f"cannot replay the selection {self._selection} exactly: {why}",
            hint="choose what belongs to it too, or restore everything into a server of its own and copy from there; or give"
            f" --to-position {at.file}:{at.position}, the moment of the set itself, which needs no replay",
        )


def _name(done: Transaction) -> str:
    return done.gtid or f"{done.file}:{done.start}"
