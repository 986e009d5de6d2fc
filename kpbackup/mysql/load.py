"""The fast row path into a server: chunk frames become prepared multi-row INSERTs, one transaction a chunk.

A chunk counts as loaded only when its rows and hash equal its record and its row stands in
`kpbackup_restore.progress`, written in the same transaction. What a crash leaves: nothing, in a transactional table;
in another one the rows sent so far, which are deleted by the chunk's range before it is loaded again.

The next batch is on its way before the answer to the last one is read, except into tables with ENUM columns: their
known harmless warnings must be looked at before another statement replaces them.

Limits: a value longer than the target's max_allowed_packet cannot be loaded and is refused with that setting's name.
Checks are off in the session, so a row that breaks a later constraint comes back as it was; MySQL has no such switch
for CHECK constraints, but keeps no row either that breaks an enforced one.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kpbackup import errors
from kpbackup.model import canonical, inventory
from kpbackup.mysql import (
    batch,
    definitions,
    facts,
    frame,
    quoting,
    ranges,
    rows,
    server,
    stage,
    typed_rows,
    versioned,
    wire,
)

SCRATCH_SCHEMA = "kpbackup_restore"
LOCK_WAIT_S = 3600  # a killed worker's rows are rolled back by the server in its own time; the next attempt waits
WIRE_TIMEOUT_S = 2.0 * LOCK_WAIT_S
LEAST_PACKET_BYTES = 1 << 19  # a batch's bitmap and types alone may take 140 KB; servers start with 16 MB and more
LONG_VALUE_BYTES = 65_536  # smaller values of an oversized row stay in its execution
LONG_DATA_PIECE_BYTES = 1 << 18  # half of the smallest packet limit accepted

_CANNOT_DELETE = 1031
_COM_STMT_SEND_LONG_DATA = b"\x18"
_SQL_MODE = "NO_AUTO_VALUE_ON_ZERO"

# Warnings that a faithful load may raise: number -> data type of the columns it may name. All else is an error.
# 1265 "Data truncated": index 0 of an ENUM (what non-strict mode once stored for a wrong value) goes in as ''.
HARMLESS_WARNINGS = {1265: "enum"}


@dataclass(frozen=True)
class Session:
    """What the load must know of its session."""

    flavour: str
    max_allowed_packet: int


def prepare_session(connection: server.Connection, *, write_binlog: bool = True) -> Session:
    """Sets the session up for loading: no checks, exact time zone and modes, patience for locks.

    Raises:
        PrivilegeMissing: `write_binlog` is off and the account may not say so.
        ServerUnfit: max_allowed_packet is too small to work with.
    """
    found = facts.read_facts(connection)
    packet_bytes = int(connection.value("SELECT @@max_allowed_packet"))
    if packet_bytes < LEAST_PACKET_BYTES:
        raise errors.ServerUnfit(
            f"cannot load into {connection.endpoint.name}: its max_allowed_packet is {packet_bytes} bytes",
            hint="set max_allowed_packet on the target to at least 16777216",
        )
    values = {
        "sql_mode": f"'{_SQL_MODE}'", "time_zone": "'+00:00'", "foreign_key_checks": "0",
        "sql_safe_updates": "0", "sql_warnings": "0", "max_error_count": "65535", "lc_messages": "'en_US'",
        "innodb_lock_wait_timeout": str(LOCK_WAIT_S), "lock_wait_timeout": str(LOCK_WAIT_S),
        "wait_timeout": "28800", "net_read_timeout": "3600", "autocommit": "1",
    }
    if found.mariadb:
        values |= {
            "check_constraint_checks": "0", "max_statement_time": "0", "idle_transaction_timeout": "0",
            "idle_write_transaction_timeout": "0",
            # a table made under another rule comes back too; its definition is compared at the end
            "innodb_strict_mode": "0",
        }
        if found.version >= versioned.WRITABLE_SINCE:
            values["system_versioning_insert_history"] = "1"
    else:
        # not on MariaDB: there, with both checks off, the first transaction into an empty table locks it for all others
        # and takes a path that measured twice the processor time
        values["unique_checks"] = "0"
    if not write_binlog:
        values["sql_log_bin"] = "0"
    connection.execute("SET NAMES utf8mb4")
    connection.execute("SET SESSION " + ", SESSION ".join(f"{name} = {value}" for name, value in values.items()))
    return Session(flavour=found.flavour, max_allowed_packet=packet_bytes)


def prepare_progress(connection: server.Connection) -> None:
    """Creates the scratch schema and its table unless they are there; whoever ends the restore drops the schema."""
    connection.execute(f"CREATE DATABASE IF NOT EXISTS {SCRATCH_SCHEMA}")
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {SCRATCH_SCHEMA}.progress (chunk_id CHAR(64) CHARACTER SET ascii NOT NULL PRIMARY KEY,"
        " `rows` BIGINT UNSIGNED NOT NULL, done DATETIME(6) NOT NULL) ENGINE=InnoDB"
    )


def chunk_id(table: inventory.Table, record: inventory.ChunkRecord) -> str:
    """The chunk's name in `progress`: 64 hex digits over what it is and where it goes."""
    identity = [table.schema, table.name, record.object_key, record.ordinal, record.sha256]
    return hashlib.sha256(canonical.dumps(identity)).hexdigest()


class ChunkLoader:
    """Loads chunks over one session, which it sets up and then owns."""

    def __init__(self, connection: server.Connection, *, write_binlog: bool = True) -> None:
        self._connection = connection
        self.session = prepare_session(connection, write_binlog=write_binlog)
        prepare_progress(connection)
        self._wire = wire.WireSocket(connection, timeout_s=WIRE_TIMEOUT_S)
        self._modes = ""
        self._inserts: _Inserts | None = None
        self._typed: typed_rows.TypedRows | None = None

    def load(self, table: inventory.Table, record: inventory.ChunkRecord, reader: frame.FrameReader) -> int:
        """Loads the reader's next frame into `table` (of the target) and marks it; the number of rows it holds.

        A chunk that is marked already is read and verified but not sent again.

        Raises:
            IntegrityError: the frame is not what `record` says. Nothing of it stays.
            RestoreMismatch: the server warned of something that is not known to be harmless. Nothing of it stays.
            ServerUnfit: a row is larger than the server accepts, or of an unknown type.
            DatabaseError, PrivilegeMissing, ServerUnreachable.
        """
        head = reader.next_frame()
        _check_head(head, table, record)
        assert head is not None
        tally = rows.RowTally(keyed=bool(table.key))
        blocks = _counted(reader.blocks(), tally)
        if self._is_loaded(table, record):
            for _ in blocks:
                pass
            _compare(tally, record)
            return record.rows
        self._begin(table, record)
        try:
            self._insert(table, head, blocks)
            _compare(tally, record)
            self._commit(table, record)
        except errors.KpbackupError as exc:
            self._undo(table, record)
            if isinstance(exc, errors.DatabaseError):
                what = f"loading {table.schema}.{table.name}: {exc.message}"
                raise errors.DatabaseError(what, hint=exc.hint, number=exc.number) from exc
            raise
        return record.rows

    def _is_loaded(self, table: inventory.Table, record: inventory.ChunkRecord) -> bool:
        sql = f"SELECT 1 FROM {SCRATCH_SCHEMA}.progress WHERE chunk_id = %s"
        return self._connection.row(sql, (chunk_id(table, record),)) is not None

    def _begin(self, table: inventory.Table, record: inventory.ChunkRecord) -> None:
        modes = _sql_mode(table, self.session.flavour)
        if modes != self._modes:
            self._connection.execute("SET SESSION sql_mode = %s", (modes,))
            self._modes = modes
        if not table.transactional:
            self._delete(table, record)
        if table.json_types:
            stage.Stage.prepare(self._connection)
        self._connection.execute("START TRANSACTION")

    def _insert(self, table: inventory.Table, head: frame.Frame, blocks: Iterable[frame.RowBlock]) -> None:
        inserts = self._inserts_for(table, head)
        if head.json_types:
            blocks = self._typed_rows(table, head, inserts).separate(blocks)
        batcher = batch.Batcher(len(head.columns), limit_bytes=inserts.limit_bytes)
        for block in blocks:
            for full in batcher.add(block):
                inserts.send(full)
        for last in batcher.flush():
            inserts.send(last)
        inserts.finish()

    def _inserts_for(self, table: inventory.Table, head: frame.Frame) -> _Inserts:
        """The prepared statements of the table at hand; those of the table before are given back."""
        if self._inserts is not None and self._inserts.serves(table, head):
            return self._inserts
        if self._inserts is not None:
            self._inserts.close()
        self._inserts = _Inserts(self._connection, self._wire, self.session, table=table, head=head)
        return self._inserts

    def _typed_rows(self, table: inventory.Table, head: frame.Frame, inserts: _Inserts) -> typed_rows.TypedRows:
        def open_inserts(shape: typed_rows.Shape) -> _Inserts:
            return _Inserts(self._connection, self._wire, self.session, table=table, head=head, shape=shape)

        self._typed = typed_rows.TypedRows(self._connection, head=head, open_inserts=open_inserts, before=inserts.finish)
        return self._typed

    def _commit(self, table: inventory.Table, record: inventory.ChunkRecord) -> None:
        self._connection.execute(
            f"INSERT INTO {SCRATCH_SCHEMA}.progress (chunk_id, `rows`, done) VALUES (%s, %s, UTC_TIMESTAMP(6))",
            (chunk_id(table, record), record.rows),
        )
        self._connection.execute("COMMIT")

    def _undo(self, table: inventory.Table, record: inventory.ChunkRecord) -> None:
        """Takes the chunk's rows away again. A lost connection does so by itself, or the next attempt does."""
        try:
            if self._inserts is not None:
                self._inserts.drain()
            if self._typed is not None:
                self._typed.drain()
            self._connection.execute("ROLLBACK")
            if not table.transactional:
                self._delete(table, record)
        except errors.ServerUnreachable:
            pass  # the first error is the one to report

    def _delete(self, table: inventory.Table, record: inventory.ChunkRecord) -> None:
        # DELETE and not TRUNCATE, which would set AUTO_INCREMENT back; a keyless table is always one chunk
        if table.history:  # the current rows become past ones first
            self._connection.execute(f"DELETE FROM {quoting.qualified(table.schema, table.name)}")
            self._connection.execute(f"DELETE HISTORY FROM {quoting.qualified(table.schema, table.name)}")
            return
        condition = ranges.within(table, record.bounds)
        where = f" WHERE {condition}" if condition else ""
        try:
            self._connection.execute(f"DELETE FROM {quoting.qualified(table.schema, table.name)}{where}")
        except errors.DatabaseError as exc:
            if exc.number != _CANNOT_DELETE:
                raise
            self._refuse_rows(table)

    def _refuse_rows(self, table: inventory.Table) -> None:
        """For an engine without DELETE: there must be nothing to take away."""
        name = f"{table.schema}.{table.name}"
        if self._connection.row(f"SELECT 1 FROM {quoting.qualified(table.schema, table.name)} LIMIT 1") is not None:
            raise errors.RestoreMismatch(
                f"cannot go on loading {name}: engine {table.engine} cannot take back the rows of an interrupted load",
                hint=f"start a new restore with --overwrite {table.schema}",
            )


class _Inserts:
    """The prepared INSERTs of one table: one statement for each number of rows, executions pipelined by one."""

    def __init__(
        self, connection: server.Connection, socket: wire.WireSocket, session: Session, *,
        table: inventory.Table, head: frame.Frame, shape: typed_rows.Shape | None = None,
    ) -> None:
        self._connection = connection
        self._wire = socket
        self._session = session
        self._table = table
        self._columns = head.columns
        self._types = shape.types if shape else batch.encode_types(head.columns)
        names = ",".join(quoting.identifier(column.name) for column in head.columns)
        self._prefix = f"INSERT INTO {quoting.qualified(table.schema, table.name)} ({names}) VALUES "
        self._row = shape.row if shape else "(" + ",".join(_placeholders(connection, table)) + ")"
        self._statements: dict[int, tuple[wire.Statement, bool]] = {}
        self._pending = 0
        harmless = set(HARMLESS_WARNINGS.values())
        self._pipelined = not any(column.data_type in harmless for column in head.columns)
        # no more values in one batch: bitmap and types, at most 140 KB, come on top
        self.limit_bytes = session.max_allowed_packet // 2

    def serves(self, table: inventory.Table, head: frame.Frame) -> bool:
        return (table.schema, table.name) == (self._table.schema, self._table.name) and head.columns == self._columns

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
        self._pending += 1
        self._statements[full.rows] = (statement, True)
        while self._pending > 1:
            self._read_answer()

    def finish(self) -> None:
        """Reads the answers under way."""
        while self._pending:
            self._read_answer()

    def drain(self) -> None:
        """Reads the answers under way and forgets what they say."""
        while self._pending:
            self._pending -= 1
            try:
                self._wire.read_ok()
            except errors.ServerUnreachable:
                raise
            except errors.KpbackupError:
                continue  # the first error is the one that is reported

    def close(self) -> None:
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
        self._pending -= 1
        answer = self._wire.read_ok()
        if answer.warnings:
            self._judge_warnings(answer.warnings)

    def _judge_warnings(self, count: int) -> None:
        """Passes warnings that are all on the list; see HARMLESS_WARNINGS.

        The expressions of generated columns warn of what they meet, here as on the source. Such a table's warnings say nothing
        about what was sent; that it arrived is proven later, when every chunk is read back.
        """
        if _computes(self._table):
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
        kind = HARMLESS_WARNINGS.get(number)
        return any(column.data_type == kind and f"'{column.name}'" in text for column in self._columns)

    def _shown(self) -> str:
        """What the latest batch was warned of: likely the same."""
        found = self._connection.row("SHOW WARNINGS LIMIT 1")
        return f", such as {found[1]}: {found[2]}" if found else ""


def _placeholders(connection: server.Connection, table: inventory.Table) -> Iterator[str]:
    """What stands for each column in VALUES."""
    forever = versioned.forever(connection) if table.history else ""
    for column in table.columns:
        yield versioned.end_parameter(forever) if column.name in table.history[1:] else "?"


_HINT = "a value could not be stored as it was: compare the target's version and the table's definition with the source's"


def _check_head(head: frame.Frame | None, table: inventory.Table, record: inventory.ChunkRecord) -> None:
    where = f"chunk {record.ordinal} of object {record.object_key}"
    if head is None:
        raise errors.IntegrityError(f"{where} is missing: the object holds fewer chunks than its records")
    if (head.schema, head.table) != (record.schema, record.table):
        raise errors.IntegrityError(f"{where} holds {head.schema}.{head.table}, not {record.schema}.{record.table}")
    names = [column.name for column in table.columns]
    if ([column.name for column in head.columns], head.json_types) != (names, table.json_types):
        raise errors.IntegrityError(f"{where} has other columns than the table {table.schema}.{table.name}")


def _counted(blocks: Iterable[frame.RowBlock], tally: rows.RowTally) -> Iterator[frame.RowBlock]:
    """Passes blocks on while `tally` counts and hashes them."""
    for block in blocks:
        with block.raw as raw:
            tally.update(raw, rows=len(block.starts))
        yield block


def _compare(found: rows.RowTally, record: inventory.ChunkRecord) -> None:
    if (found.rows, found.row_bytes, found.sha256) != (record.rows, record.row_bytes, record.sha256):
        raise errors.IntegrityError(
            f"chunk {record.ordinal} of object {record.object_key} ({record.schema}.{record.table}) is not what was written:"
            f" {found.rows} rows, {found.row_bytes} bytes, hash {found.sha256[:16]}..., expected {record.rows} rows,"
            f" {record.row_bytes} bytes, hash {record.sha256[:16]}...",
            hint="run `kpbackup check`; restore from another backup set or copy",
        )


def _computes(table: inventory.Table) -> bool:
    """Whether the table has generated columns, or may have."""
    return "GENERATED ALWAYS AS (" in table.create_sql


def _sql_mode(table: inventory.Table, flavour: str) -> str:
    """The mode to load a table in.

    ALLOW_INVALID_DATES keeps a stored 2024-02-31; it is left out where an expression of a generated column, computed
    again during the load, could see the difference. MariaDB has let an expression see the other modes only where the
    table was made under them.
    """
    if not _computes(table):
        return f"{_SQL_MODE},ALLOW_INVALID_DATES"
    return f"{_SQL_MODE},{definitions.DEPENDED_ON}" if flavour == "mariadb" else _SQL_MODE
