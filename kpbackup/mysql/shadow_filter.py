"""The steps of a replay into a shadow: rows of the chosen tables under its name, statements about them alone, nothing else.

Rows are told apart by the TABLE_MAP before them, so a transaction that changes chosen and other tables is taken apart
exactly. A statement is executed in the shadow when it is surely about chosen tables alone, left out when it surely has nothing
to do with any, and otherwise refused: nothing may ever be executed that names a table outside the shadow. What a statement did
to rows cannot be told from its words, so where it may have changed a chosen table it is refused.

Pure, and the same when the plan is made and when it is carried out. Give it the stream from the set's coordinates on: it learns
from it which databases and tables there are.

Limits: statements that rename tables into or out of what is chosen, exchange partitions, or make a table from another one are
refused; so is a chosen table in a statement that names several databases. XA transactions anywhere in the stream are refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from kpbackup import errors
from kpbackup.mysql import direct_rows, direct_steps, query_event, renaming, row_events, statements
from kpbackup.mysql.direct_steps import Begin, End, Passed, Rows, Step
from kpbackup.mysql.events import StreamEvent
from kpbackup.mysql.query_event import QueryEvent
from kpbackup.mysql.shadowing import Name, Shadow
from kpbackup.mysql.statements import Kind, Statement

PASSED_EVERY = 1000  # transactions left out before the place is written down: so many a run that goes on reads again
REFUSALS_LISTED = 10

_OF_TABLES = frozenset({"TABLE", "INDEX", "DATABASE"})
_BESIDE_TABLES = frozenset({
    "VIEW", "TRIGGER", "PROCEDURE", "FUNCTION", "EVENT", "PACKAGE", "LIBRARY", "SERVER", "TABLESPACE", "LOGFILE", "UNDO",
    "RESOURCE", "INSTANCE",
})  # fmt: skip
_NAME_OTHERS = frozenset({
    "references", "like", "select", "exchange", "union", "tablespace", "foreign", "constraint",
    "federated", "connect", "spider", "merge", "mrg_myisam",  # engines whose rows are elsewhere
})  # fmt: skip
_TAKE_OTHERS = frozenset({"exchange", "union", "rename"})
_RENAMED_INSIDE = frozenset({"COLUMN", "INDEX", "KEY"})


class ShadowFilter:
    """`refusals` are the statements that cannot be judged, with their places; with `lists` off the first one is an error.

    `inserted` counts, with `lists` on, the rows inserted into each table, or an upper bound of them.
    """

    def __init__(self, shadow: Shadow, *, skipped: frozenset[str] = frozenset(), lists: bool = False) -> None:
        self.refusals: list[str] = []
        self.left_out = 0
        self.inserted: Counter[str] = Counter()
        self._shadow, self._skipped, self._lists = shadow, skipped, lists
        self._fold = shadow.fold
        self._databases = {self._folded(one) for one in shadow.databases}
        self._sequences = {(self._folded(a), self._folded(b)) for a, b in shadow.sequences}
        self._tables = {self._folded(name): (self._folded(schema), self._folded(name)) for schema, name in shadow.names}
        self._rewriter = renaming.Rewriter(shadow.renamed, fold=shadow.fold)
        self._is_reached = shadow.is_reached
        self._skips = False

    def steps(self, stream: Iterable[StreamEvent]) -> Iterator[Step]:
        """What of the stream is executed in the shadow.

        Raises:
            StepFailed: something cannot be done over an ordinary connection; a statement is refused and `lists` is off.
            IntegrityError, ServerUnfit: an event cannot be read.
        """
        begin: Begin | None = None
        has_content, passed = False, 0
        last: End | None = None
        rows = ChosenRows(self, self.inserted if self._lists else None)
        for step in direct_steps.steps(stream, choose=self.choose):
            if isinstance(step, Begin):
                begin, has_content = step, False
                self._skips = step.gtid in self._skipped and bool(step.gtid)
            elif isinstance(step, End):
                last, passed = (None, 0) if has_content else (step, passed + 1)
                self.left_out += not has_content
                if has_content:
                    yield step
                elif passed >= PASSED_EVERY:
                    yield Passed(step)
                    last, passed = None, 0
            elif isinstance(step, Rows | direct_steps.Statement):
                for one in rows.of(step) if isinstance(step, Rows) else (step,):
                    if self._skips:
                        continue
                    if begin is not None:
                        yield begin
                        begin = None
                    has_content = True
                    yield one
            else:
                yield step
        if last is not None:
            yield Passed(last)

    def renamed(self, schema: str, name: str) -> str | None:
        """The shadow's name where this table is in it."""
        return self._shadow.name if self._takes((schema, name)) else None

    def choose(self, query: QueryEvent, place: str) -> QueryEvent | None:
        """What is executed in the statement's stead, None: nothing."""
        if self._skips:
            return None
        collation = int.from_bytes(query.variables.get(4, b"\xff\0")[:2], "little")
        mode = int.from_bytes(query.variables.get(1, b"\0"), "little")
        text = statements.decoded(query.text, collation)
        statement = statements.read(text, database=query.database, sql_mode=mode)
        if statement.kind is Kind.CONTROL:
            return replace(query, database="")  # a savepoint: what is rolled back to it is in the binlog too
        try:
            if not self._is_about(statement, query.database, text, mode):
                return None
            return self._rewritten(query, text, mode, collation)
        except _Unsure as exc:
            self._refuse(f"{statement.verb} at {place}: {exc}")
            return None

    def _refuse(self, what: str) -> None:
        if not self._lists:
            raise errors.StepFailed(f"cannot replay into {self._shadow.name} exactly: {what}", hint="restore again")
        self.refusals.append(what)

    def _is_about(self, statement: Statement, database: str, text: str, mode: int) -> bool:
        """Whether the statement is about chosen tables alone (True) or has surely nothing to do with any. Raises _Unsure."""
        if statement.kind is Kind.ACCOUNT:
            return False
        if statement.kind is Kind.OTHER:  # MariaDB's SET STATEMENT ... FOR ALTER TABLE too, and what is not known
            if statement.verb not in statements.HARMLESS and self._mentioned(statement):
                raise _Unsure("it is not known what it does")
            return False
        if statement.kind is Kind.CHANGE:
            return self._is_change_about(statement, database)
        noun = statement.verb.split()[-1]
        if noun == "SEQUENCE":
            self._sequences |= {(self._folded(a), self._folded(b)) for a, b in statement.targets}
        if noun in _BESIDE_TABLES or noun == "SEQUENCE":
            self._is_reached = self._is_reached or self._mentioned(statement)
            return False
        if noun not in _OF_TABLES or not statement.targets:
            if self._mentioned(statement):
                raise _Unsure("it is not known what it is about")
            return False
        if noun == "DATABASE":
            return self._is_database_about(statement)
        return self._is_table_about(statement, text, mode)

    def _is_change_about(self, statement: Statement, database: str) -> bool:
        near = [one for one in self._databases if one in statement.mentions or one.lower() in statement.mentions]
        chosen = any(self._shadow.chosen.may_take_of(one) for one in (*near, self._folded(database)) if one)
        if chosen or self._mentioned(statement) or self._is_reached:
            raise _Unsure("it changes rows by a statement, whose words do not tell which")
        return False

    def _is_database_about(self, statement: Statement) -> bool:
        """CREATE DATABASE of one that is there changes nothing (IF NOT EXISTS)."""
        name = self._folded(statement.targets[0][0])
        if statement.verb == "CREATE DATABASE":
            is_new = name not in self._databases
            self._databases.add(name)
            if not is_new:
                return False
        if self._shadow.chosen.may_take_of(name):
            raise _Unsure("chosen tables are or may be in this database")
        return False

    def _is_table_about(self, statement: Statement, text: str, mode: int) -> bool:
        takes = [self._takes(target) for target in statement.targets]
        renames = _renames(text, mode)
        others = statement.mentions & _NAME_OTHERS or renames
        if all(takes) and not others:
            if statement.verb == "CREATE TABLE":
                self._add_table(statement.targets[0])
            return True
        if any(takes):
            raise _Unsure("it may be about chosen tables and others")
        if self._mentioned(statement) and (statement.mentions & (_TAKE_OTHERS - {"rename"}) or renames):
            raise _Unsure("it may move rows or tables into what is chosen")
        return False

    def _add_table(self, target: Name) -> None:
        schema, name = self._folded(target[0]), self._folded(target[1])
        if self._tables.setdefault(name, (schema, name)) != (schema, name):
            raise _Unsure("another chosen table has the same name")

    def _rewritten(self, query: QueryEvent, text: str, mode: int, collation: int) -> QueryEvent:
        try:
            found = self._rewriter.text(text, what="the statement", sql_mode=mode)
            data = statements.encoded(found, collation) if found != text else query.text
        except (errors.TargetRefused, UnicodeEncodeError) as exc:
            raise _Unsure("its names cannot be rewritten surely") from exc
        if statements.decoded(data, collation) != found or self._names_a_database(found, mode):
            raise _Unsure("it names other databases, or its names cannot be rewritten surely")
        flags = query.flags & ~query_event.FLAG_SUPPRESS_USE
        return replace(query, text=data, database=self._shadow.name, flags=flags)

    def _names_a_database(self, text: str, mode: int) -> bool:
        """Whether a name before a dot is a database's other than the shadow: nothing outside may be touched."""
        words = list(statements.tokens(text, mode))
        return any(
            word.is_name and words[number + 1].value == "." and (number == 0 or words[number - 1].value != ".")
            and word.value != self._shadow.name and self._folded(word.value) in self._databases
            for number, word in enumerate(words[:-1])
        )  # fmt: skip

    def _takes(self, name: Name) -> bool:
        folded = self._folded(name[0]), self._folded(name[1])
        return folded not in self._sequences and self._shadow.chosen.takes(*folded)

    def _mentioned(self, statement: Statement) -> bool:
        return any(name.lower() in statement.mentions for name in self._tables)

    def _folded(self, name: str) -> str:
        return name.lower() if self._fold else name


class _Unsure(Exception):
    """Why a statement cannot be judged or rewritten."""


class ChosenRows:
    """The row events of one statement after the other: those of chosen tables, the last of them marked as the last.

    Table maps are held back until a row of a chosen table comes, all of a statement stand before its rows.
    """

    def __init__(self, of: ShadowFilter, inserted: Counter[str] | None) -> None:
        self._filter, self._inserted = of, inserted
        self._counters: dict[int, tuple[str, row_events.RowCounter]] = {}
        self._maps: list[Rows] = []
        self._chosen: set[int] = set()
        self._held: Rows | None = None

    def of(self, step: Rows) -> Iterator[Rows]:
        if step.data[4] == row_events.TABLE_MAP:
            name = self._filter.renamed(*row_events.table_name(step.data))
            if name is not None:
                self._chosen.add(row_events.table_id(step.data))
                if self._inserted is not None:
                    found = row_events.parse_table_map(step.data)
                    self._counters[found.table_id] = found.table, row_events.RowCounter(found)
                self._maps.append(Rows(row_events.in_database(step.data, name), step.ends_statement))
            return
        if row_events.table_id(step.data) in self._chosen:
            if self._inserted is not None and row_events.change(step.data[4]) is row_events.Change.INSERT:
                table, counter = self._counters[row_events.table_id(step.data)]
                self._inserted[table] += counter.count(step.data) or counter.at_most(step.data)
            if self._held is not None:
                yield self._held
            yield from self._maps
            self._maps, self._held = [], step
        if step.ends_statement:
            if self._held is not None:
                yield self._held if self._held.ends_statement else Rows(direct_rows.ending(self._held.data), ends_statement=True)
            self._maps, self._held = [], None
            self._chosen.clear()


def _renames(text: str, mode: int) -> bool:
    """Whether a table may get another name: RENAME that is not of a column or index inside it."""
    words = list(statements.tokens(text, mode))
    return any(
        word.upper == "RENAME" and (number + 1 >= len(words) or words[number + 1].upper not in _RENAMED_INSIDE)
        for number, word in enumerate(words)
    )
