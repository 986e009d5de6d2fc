"""What a transaction of the binlog did: tables and numbers of rows, statements shortened. For plans and for searching.

`ContentReader` is fed the events of one transaction after the other. Rows are counted as late as possible, for walking
over them is what costs; a transaction that is not asked about is not walked. Memory: about a mebibyte of events that
wait for that, and one entry a table.
"""

from __future__ import annotations

from dataclasses import dataclass

from kpbackup.mysql import events, payload, query_event, row_events, statements
from kpbackup.mysql.events import StreamEvent
from kpbackup.mysql.row_events import Change, RowCounter
from kpbackup.mysql.statements import Statement

WAITING_BYTES = 1 << 20
STATEMENT_CHARACTERS = 200
STATEMENTS_SHOWN = 5


@dataclass(frozen=True)
class TableChange:
    """Rows of one table that a transaction changed; None when they could not be counted."""

    schema: str
    table: str
    inserted: int | None = 0
    updated: int | None = 0
    deleted: int | None = 0

    @property
    def name(self) -> str:
        return f"{self.schema}.{self.table}"


@dataclass(frozen=True)
class Content:
    """`tables` in the order of first change; the first few `statements`, and `texts`, which are theirs, shortened."""

    tables: tuple[TableChange, ...] = ()
    statements: tuple[Statement, ...] = ()
    texts: tuple[str, ...] = ()


class ContentReader:
    """Fed every event of a stream; `take` gives what came since the last time."""

    def __init__(self) -> None:
        self._maps: dict[int, tuple[bytes, tuple[str, str]]] = {}
        self._counters: dict[bytes, RowCounter] = {}
        self._reset()

    def _reset(self) -> None:
        self._statements: list[tuple[Statement, str]] = []
        self._counts: dict[tuple[str, str, Change], int | None] = {}
        self._waiting: list[tuple[tuple[str, str, Change], RowCounter, bytes]] = []
        self._waiting_bytes = 0
        self.rows_at_most = 0

    @property
    def names(self) -> set[tuple[str, str]]:
        """(schema, table) of all row changes so far."""
        return {(schema, table) for schema, table, _ in self._counts}

    @property
    def statements(self) -> list[Statement]:
        return [statement for statement, _ in self._statements]

    @property
    def changes(self) -> set[Change]:
        return {change for _, _, change in self._counts}

    def feed(self, event: StreamEvent) -> None:
        kind, data = event.type, event.data
        if kind == row_events.TABLE_MAP:
            self._maps[row_events.table_id(data)] = (data, row_events.table_name(data))
        elif kind in row_events.ROW_EVENTS:
            self._rows(data)
        elif kind in (events.QUERY, events.QUERY_COMPRESSED):
            self._statement(data)
        elif kind == events.TRANSACTION_PAYLOAD:
            for inner in payload.contents(event):
                self.feed(inner)

    def take(self, *, count: bool = True) -> Content:
        """The content so far; without `count` rows may be fewer than they are."""
        if count:
            self._settle()
        found: dict[tuple[str, str], dict[Change, int | None]] = {}
        for (schema, table, change), rows in self._counts.items():
            found.setdefault((schema, table), {})[change] = rows
        tables = tuple(
            TableChange(*name, *(rows.get(change, 0) for change in (Change.INSERT, Change.UPDATE, Change.DELETE)))
            for name, rows in found.items()
        )
        content = Content(tables, tuple(s for s, _ in self._statements), tuple(text for _, text in self._statements))
        self._reset()
        return content

    def discard(self) -> None:
        self._reset()

    def _rows(self, data: bytes) -> None:
        known = self._maps.get(row_events.table_id(data))
        if known is None:
            return  # the dummy table number that only ends a statement
        key = (*known[1], row_events.change(data[4]))
        self._counts.setdefault(key, 0)
        counter = self._counter(known[0])
        self.rows_at_most += counter.at_most(data)
        self._waiting.append((key, counter, data))
        self._waiting_bytes += len(data)
        if self._waiting_bytes > WAITING_BYTES:
            self._settle()

    def _counter(self, table_map: bytes) -> RowCounter:
        body = events.event_body(table_map, events.has_valid_crc(table_map))
        counter = self._counters.get(body)
        if counter is None:
            if len(self._counters) > 1000:
                self._counters.clear()
            counter = self._counters[body] = RowCounter(row_events.parse_table_map(table_map))
        return counter

    def _settle(self) -> None:
        for key, counter, data in self._waiting:
            rows, before = counter.count(data), self._counts[key]
            self._counts[key] = None if rows is None or before is None else before + rows
        self._waiting, self._waiting_bytes = [], 0

    def _statement(self, data: bytes) -> None:
        head = events.query_text(data, 16).strip().upper()
        if head in (b"BEGIN", b"COMMIT", b"ROLLBACK"):
            return
        query = query_event.parse(data)
        client = query.variables.get(4, b"\xff\0")
        text = statements.decoded(query.text, int.from_bytes(client[:2], "little"))
        mode = int.from_bytes(query.variables.get(1, b"\0"), "little")
        found = statements.read(text[: 1 << 16], database=query.database, sql_mode=mode)
        if found.kind is not statements.Kind.CONTROL and len(self._statements) < STATEMENTS_SHOWN:
            self._statements.append((found, shortened(text, found)))


def shortened(text: str, statement: Statement) -> str:
    """A statement for people to recognise: on one line, cut; of account statements the verb alone (they hold secrets)."""
    if statement.kind is statements.Kind.ACCOUNT:
        return f"{statement.verb} ..."
    line = " ".join(text.split()).encode("utf-8", "replace").decode()
    return line if len(line) <= STATEMENT_CHARACTERS else line[: STATEMENT_CHARACTERS - 4] + " ..."
