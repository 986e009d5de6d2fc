"""The fast row path into a server: chunk frames become prepared multi-row INSERTs (`inserts`), one transaction a chunk.

A chunk counts as loaded only when its rows and hash equal its record and its row stands in
`kpbackup_restore.progress`, written in the same transaction. What a crash leaves: nothing, in a transactional table;
in another one the rows sent so far, which are deleted by the chunk's range before it is loaded again.

The session and the scratch schema are the matter of `load_session`, whose names can be had from here too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from kpbackup import errors
from kpbackup.model import canonical, inventory
from kpbackup.mysql import batch, frame, inserts, load_session, quoting, ranges, rows, server, stage, typed_rows, wire
from kpbackup.mysql.load_session import LOCK_WAIT_S, SCRATCH_SCHEMA, Session, prepare_progress, prepare_session

__all__ = ["SCRATCH_SCHEMA", "ChunkLoader", "Session", "chunk_id", "prepare_progress", "prepare_session"]

WIRE_TIMEOUT_S = 2.0 * LOCK_WAIT_S

_CANNOT_DELETE = 1031


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
        self._inserts: inserts.Inserts | None = None
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
            self._undo(table, record, exc)
            if isinstance(exc, errors.DatabaseError):
                what = f"loading {table.schema}.{table.name}: {exc.message}"
                raise errors.DatabaseError(what, hint=exc.hint, number=exc.number) from exc
            raise
        return record.rows

    def _is_loaded(self, table: inventory.Table, record: inventory.ChunkRecord) -> bool:
        sql = f"SELECT 1 FROM {SCRATCH_SCHEMA}.progress WHERE chunk_id = %s"
        return self._connection.row(sql, (chunk_id(table, record),)) is not None

    def _begin(self, table: inventory.Table, record: inventory.ChunkRecord) -> None:
        modes = load_session.sql_mode(table, self.session.flavour)
        if modes != self._modes:
            self._connection.execute("SET SESSION sql_mode = %s", (modes,))
            self._modes = modes
        if not table.transactional:
            self._delete(table, record)
        if table.json_types:
            stage.Stage.prepare(self._connection)
        self._connection.execute("START TRANSACTION")

    def _insert(self, table: inventory.Table, head: frame.Frame, blocks: Iterable[frame.RowBlock]) -> None:
        into = self._inserts_for(table, head)
        if head.json_types:
            blocks = self._typed_rows(table, head, into).separate(blocks)
        batcher = batch.Batcher(len(head.columns), limit_bytes=into.limit_bytes)
        for block in blocks:
            for full in batcher.add(block):
                into.send(full)
        for last in batcher.flush():
            into.send(last)
        into.finish()

    def _inserts_for(self, table: inventory.Table, head: frame.Frame) -> inserts.Inserts:
        """The prepared statements of the table at hand; those of the table before are given back."""
        if self._inserts is not None and self._inserts.serves(table, head):
            return self._inserts
        if self._inserts is not None:
            self._inserts.close()
        self._inserts = inserts.Inserts(self._connection, self._wire, self.session, table=table, head=head)
        return self._inserts

    def _typed_rows(self, table: inventory.Table, head: frame.Frame, into: inserts.Inserts) -> typed_rows.TypedRows:
        def open_inserts(shape: typed_rows.Shape) -> inserts.Inserts:
            return inserts.Inserts(self._connection, self._wire, self.session, table=table, head=head, shape=shape)

        self._typed = typed_rows.TypedRows(self._connection, head=head, open_inserts=open_inserts, before=into.finish)
        return self._typed

    def _commit(self, table: inventory.Table, record: inventory.ChunkRecord) -> None:
        self._connection.execute(
            f"INSERT INTO {SCRATCH_SCHEMA}.progress (chunk_id, `rows`, done) VALUES (%s, %s, UTC_TIMESTAMP(6))",
            (chunk_id(table, record), record.rows),
        )
        self._connection.execute("COMMIT")

    def _undo(self, table: inventory.Table, record: inventory.ChunkRecord, first: errors.KpbackupError) -> None:
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
        except errors.RestoreMismatch as left:
            raise errors.RestoreMismatch(f"{left.message} ({first.message})", hint=left.hint) from first

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
            tally.update(raw, rows=block.rows)
        yield block


def _compare(found: rows.RowTally, record: inventory.ChunkRecord) -> None:
    if (found.rows, found.row_bytes, found.sha256) != (record.rows, record.row_bytes, record.sha256):
        raise errors.IntegrityError(
            f"chunk {record.ordinal} of object {record.object_key} ({record.schema}.{record.table}) is not what was written:"
            f" {found.rows} rows, {found.row_bytes} bytes, hash {found.sha256[:16]}..., expected {record.rows} rows,"
            f" {record.row_bytes} bytes, hash {record.sha256[:16]}...",
            hint="run `kpbackup check`; restore from another backup set or copy",
        )
