"""The prepared multi-row INSERTs of one table: batches go out, answers come back one behind, every warning is judged.

The next batch is on its way before the answer to the last one is read, except into tables with ENUM columns: their
known harmless warnings must be looked at before another statement replaces them.

Limits: a value longer than the target's max_allowed_packet cannot be loaded and is refused with that setting's name.
Transactions are the caller's: nothing here begins or ends one.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator, Sequence

from kpbackup import errors
from kpbackup.model import inventory
from kpbackup.mysql import batch, frame, load_session, quoting, server, typed_rows, versioned, wire

LONG_VALUE_BYTES = 65_536  # smaller values of an oversized row stay in its execution
LONG_DATA_PIECE_BYTES = 1 << 18  # half of the smallest packet limit accepted

# Warnings that a faithful load may raise: number -> data type of the columns it may name. All else is an error.
# 1265 "Data truncated": index 0 of an ENUM (what non-strict mode once stored for a wrong value) goes in as ''.
HARMLESS_WARNINGS = {1265: "enum"}

# An empty value in a geometry column NOT NULL, as ALTER TABLE ... ADD leaves it in rows that were there (MariaDB): no value
# says it, but a row that does not name the column has it.
REFUSED_GEOMETRY = 1416
NO_DEFAULT = 1364
_GEOMETRY = 255  # the type of a result column
_NOT_NULL_FLAG = 1

_COM_STMT_SEND_LONG_DATA = b"\x18"
_HINT = "a value could not be stored as it was: compare the target's version and the table's definition with the source's"


class Inserts:
    """The prepared INSERTs of one table: one statement for each number of rows, executions pipelined by one."""

    def __init__(
        self, connection: server.Connection, socket: wire.WireSocket, session: load_session.Session, *,
        table: inventory.Table, head: frame.Frame, shape: typed_rows.Shape | None = None, without: frozenset[str] = frozenset(),
    ) -> None:
        """`without`: columns that the rows do not name."""
        self._connection = connection
        self._wire = socket
        self._session = session
        self._table, self._head, self._without = table, head, without
        self._columns = tuple(column for column in head.columns if column.name not in without)
        self._types = shape.types if shape else batch.encode_types(self._columns)
        names = ",".join(quoting.identifier(column.name) for column in self._columns)
        self._prefix = f"INSERT INTO {quoting.qualified(table.schema, table.name)} ({names}) VALUES "
        self._row = shape.row if shape else "(" + ",".join(_placeholders(connection, table, without)) + ")"
        self._statements: dict[int, tuple[wire.Statement, bool]] = {}
        self._pending: deque[batch.Batch | None] = deque()  # None: a large row, whose memory is not to be held
        self._may_be_empty = set() if shape else _may_be_empty(self._columns)
        self._apart: dict[frozenset[str], Inserts] = {}
        harmless = set(HARMLESS_WARNINGS.values())
        self._pipelined = not any(column.data_type in harmless for column in self._columns)
        # no more values in one batch: bitmap and types, at most 140 KB, come on top
        self.limit_bytes = session.max_allowed_packet // 2

    def serves(self, table: inventory.Table, head: frame.Frame) -> bool:
        return (table.schema, table.name) == (self._table.schema, self._table.name) and head.columns == self._head.columns

    def send(self, full: batch.Batch) -> None:
        """Executes the batch; its answer is read when the next one is sent, or by `finish`."""
        statement, typed = self._statement(full.rows)
        # types are stated once a statement, then remembered by the server
        types = b"\x00" if typed else b"\x01" + self._types * full.rows
        head = wire.COM_STMT_EXECUTE + struct.pack("<IBI", statement.id, 0, 1) + full.nulls + types
        values: Sequence[bytes | memoryview] = full.values
        if len(head) + full.size_bytes > self._session.max_allowed_packet:
            values = self._send_long_values(statement, full, overhead_bytes=len(head))
        if not self._pipelined:
            self.finish()
        self._wire.send(head, *values)
        self._pending.append(None if isinstance(full.values[0], memoryview) else full)
        self._statements[full.rows] = (statement, True)
        while len(self._pending) > 1:
            self._read_answer()

    def finish(self) -> None:
        """Reads the answers under way."""
        while self._pending:
            self._read_answer()

    def drain(self) -> None:
        """Reads the answers under way and forgets what they say."""
        while self._pending:
            self._pending.popleft()
            try:
                self._wire.read_ok()
            except errors.ServerUnreachable:
                raise
            except errors.KpbackupError:
                continue  # the first error is the one that is reported

    def close(self) -> None:
        for inserts in self._apart.values():
            inserts.close()
        for statement, _ in self._statements.values():
            self._wire.close_statement(statement)
        self._statements.clear()

    def _statement(self, count: int) -> tuple[wire.Statement, bool]:
        if count not in self._statements:
            self.finish()
            self._statements[count] = (self._wire.prepare(self._prefix + ",".join([self._row] * count)), False)
        return self._statements[count]

    def _send_long_values(
        self, statement: wire.Statement, full: batch.Batch, *, overhead_bytes: int
    ) -> Sequence[bytes | memoryview]:
        """Sends the long values of an oversized row ahead, in pieces; what is left for its execution."""
        limit = self._session.max_allowed_packet
        long, rest = batch.split_long_values(full, self._types, from_bytes=LONG_VALUE_BYTES)
        longest = max((len(value.data) for value in long), default=0)
        if longest >= limit or overhead_bytes + sum(map(len, rest)) > limit:
            raise errors.ServerUnfit(
                f"cannot load a row of {full.size_bytes} bytes into {self._table.schema}.{self._table.name}:"
                f" the target's max_allowed_packet is {limit}",
                hint=f"set max_allowed_packet on the target to more than {full.size_bytes + overhead_bytes} (at most 1 GiB)"
                " and resume",
            )
        self.finish()
        for value in long:
            head = _COM_STMT_SEND_LONG_DATA + struct.pack("<IH", statement.id, value.parameter)
            for begin in range(0, len(value.data), LONG_DATA_PIECE_BYTES):
                self._wire.send(head, value.data[begin : begin + LONG_DATA_PIECE_BYTES])
        return rest

    def _read_answer(self) -> None:
        full = self._pending.popleft()
        try:
            answer = self._wire.read_ok()
        except errors.DatabaseError as exc:
            if exc.number != REFUSED_GEOMETRY or full is None or not self._may_be_empty or not self._table.transactional:
                raise
            self.finish()
            self._send_apart(full, exc)  # the server has taken none of it
            return
        if answer.warnings:
            self._judge_warnings(answer.warnings)

    def _send_apart(self, full: batch.Batch, refused: errors.DatabaseError) -> None:
        """The rows of a batch one by one, without the columns in which they are empty."""
        for row in batch.take_apart(full, self._types):
            empty = {place for place in self._may_be_empty if (value := row[place]) is not None and len(value) == 1}
            if not empty and full.rows == 1:
                raise refused
            inserts = self._inserts_without(frozenset(self._columns[place].name for place in empty))
            inserts.send(batch.of_one_row([value for place, value in enumerate(row) if place not in empty]))
            inserts.finish()

    def _inserts_without(self, names: frozenset[str]) -> Inserts:
        if not names:
            return self
        if names not in self._apart:
            self._apart[names] = Inserts(
                self._connection, self._wire, self._session, table=self._table, head=self._head, without=self._without | names
            )
        return self._apart[names]

    def _judge_warnings(self, count: int) -> None:
        """Passes warnings that are all on the list; see HARMLESS_WARNINGS.

        The expressions of generated columns warn of what they meet, here as on the source. Such a table's warnings say nothing
        about what was sent; that it arrived is proven later, when every chunk is read back.
        """
        if load_session.computes(self._table):
            return
        table = f"{self._table.schema}.{self._table.name}"
        if self._pending:  # the warnings of the batch before are gone, and none is harmless in this table
            self.drain()
            raise errors.RestoreMismatch(f"loading {table}: the server gave {count} warnings{self._shown()}", hint=_HINT)
        shown = self._connection.rows("SHOW WARNINGS")
        for _, number, text in shown:
            if not self._is_harmless(int(number), str(text)):
                raise errors.RestoreMismatch(f"loading {table}: warning {number}: {text}", hint=_HINT)
        if len(shown) < count:
            raise errors.RestoreMismatch(
                f"loading {table}: the server gave {count} warnings and shows only {len(shown)}", hint=_HINT
            )

    def _is_harmless(self, number: int, text: str) -> bool:
        if number == NO_DEFAULT:
            return any(f"'{name}'" in text for name in self._without)
        kind = HARMLESS_WARNINGS.get(number)
        return any(column.data_type == kind and f"'{column.name}'" in text for column in self._columns)

    def _shown(self) -> str:
        """What the latest batch was warned of: likely the same."""
        found = self._connection.row("SHOW WARNINGS LIMIT 1")
        return f", such as {found[1]}: {found[2]}" if found else ""


def _may_be_empty(columns: Sequence[frame.FrameColumn]) -> set[int]:
    """The places of geometry columns that are NOT NULL."""
    found = ((place, column.definition) for place, column in enumerate(columns))
    return {place for place, definition in found if definition.type == _GEOMETRY and definition.flags & _NOT_NULL_FLAG}


def _placeholders(connection: server.Connection, table: inventory.Table, without: frozenset[str]) -> Iterator[str]:
    """What stands for each column in VALUES."""
    forever = versioned.forever(connection) if table.history else ""
    for column in (one for one in table.columns if one.name not in without):
        yield versioned.end_parameter(forever) if column.name in table.history[1:] else "?"
