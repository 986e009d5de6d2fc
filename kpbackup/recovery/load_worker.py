"""The load worker: `python -m kpbackup.recovery.load_worker`, started by the restore, one session to the target each.

Messages (framing, errors and the end of a worker: `pipeline.process`); the answer follows the request:

    {"endpoint": {...}, "identity": "AGE-SECRET-KEY-..." or "", "session": {"write_binlog": bool}}  first -> {"ready": true}
    {"load": {"tables": [Table...], "chunks": [ChunkRecord...]}}, bytes of one sealed object, {"end": true}
        `tables[i]` is where `chunks[i]` goes (its schema is the target's), null: it is left out;
        -> {"loaded": {"chunks": n, "rows": n}}
    {"read_back": {"table": Table, "chunk": ChunkRecord}} -> {"same": true}, or RestoreMismatch
    {"indexes": {"table": Table, "statements": [...]}} -> {"indexed": true}
        the table's create_sql is what SHOW CREATE TABLE must say afterwards, else RestoreMismatch
    {"analyze": Table} -> {"analyzed": true}

Any error ends the worker. It knows neither storage nor repository. What a crash leaves: `mysql.load`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kpbackup import errors
from kpbackup.model import codec
from kpbackup.model.inventory import ChunkRecord, Table
from kpbackup.mysql import frame, indexes, load, quoting, ranges, rows, schema_tables, server, wire
from kpbackup.pipeline import age_texts, process, stream
from kpbackup.recovery import way_out

STATEMENT_TIMEOUT_S = 7 * 86_400  # building the indexes of a huge table takes days at most; keepalive finds a dead server
_DUPLICATE_KEY_NAME = 1061


class LoadWorker:
    """Answers the messages of one restore."""

    def __init__(self, channel: process.WorkerChannel, start: dict[str, Any]) -> None:
        self._channel = channel
        self._endpoint = codec.decode(server.Endpoint, start["endpoint"], what="the worker's endpoint")
        self._identities = [age_texts.parse_identity(start["identity"])] if start["identity"] else []
        self._connection = server.connect(self._endpoint, read_timeout_s=STATEMENT_TIMEOUT_S)
        self._loader = load.ChunkLoader(self._connection, write_binlog=start.get("session", {}).get("write_binlog", True))
        self._reader: _Reader | None = None

    def handle(self, message: dict[str, Any]) -> None:
        """Does what one message asks and answers it."""
        if "load" in message:
            self._channel.send({"loaded": self._load(message["load"])})
        elif "read_back" in message:
            self._read_back(message["read_back"])
            self._channel.send({"same": True})
        elif "indexes" in message:
            self._index(_table(message["indexes"]["table"]), message["indexes"]["statements"])
            self._channel.send({"indexed": True})
        elif "analyze" in message:
            self._analyze(_table(message["analyze"]))
            self._channel.send({"analyzed": True})
        else:
            raise errors.InternalError(f"a load worker does not know the message {sorted(message)}")

    def _load(self, job: dict[str, Any]) -> dict[str, int]:
        records = [_record(item) for item in job["chunks"]]
        tables = [_table(item) if item is not None else None for item in job["tables"]]
        if [table.name if table else record.table for table, record in zip(tables, records, strict=True)] != [
            record.table for record in records
        ]:
            raise errors.InternalError("a load job must name the table of each chunk, in the same order")
        reader = frame.FrameReader(stream.unseal(self._sealed_bytes(), self._identities))
        for table, record in zip(tables, records, strict=True):
            if table is not None:
                with way_out.named(record.schema, record.table):
                    self._loader.load(table, record, reader)
            else:
                _skip(reader, record)
        if reader.next_frame() is not None:  # this also reads the end, which alone proves that the object is whole
            raise errors.IntegrityError(f"object {records[-1].object_key} holds more chunks than its records")
        return {"chunks": len(records), "rows": sum(record.rows for record in records)}

    def _sealed_bytes(self) -> Iterator[bytes]:
        while True:
            message = self._channel.receive()
            if isinstance(message, bytes):
                yield message
            elif message.get("end"):
                return
            else:
                raise errors.InternalError(f"unexpected message within an object: {sorted(message)}")

    def _read_back(self, job: dict[str, Any]) -> None:
        if self._reader is None:
            self._reader = _Reader(server.connect(self._endpoint), self._loader.session.flavour)
        record = _record(job["chunk"])
        with way_out.named(record.schema, record.table):
            self._reader.compare(_table(job["table"]), record)

    def _index(self, table: Table, statements: list[str]) -> None:
        if statements and self._is_as_backed_up(table):
            return  # built before a crash
        self._connection.execute(f"USE {quoting.identifier(table.schema)}")
        for statement in statements:
            try:
                self._connection.execute(statement)
            except errors.DatabaseError as exc:
                if exc.number != _DUPLICATE_KEY_NAME:  # it ran before a crash, whole; the comparison judges the rest
                    raise
        if not self._is_as_backed_up(table):
            raise errors.RestoreMismatch(
                f"the definition of {table.schema}.{table.name} differs from the backup's after its indexes were built:"
                f" {indexes.first_difference(table.create_sql, self._shown(table))}",
                hint="does the target run another version or other plugins than the source? it is not to be used as it is",
            )

    def _is_as_backed_up(self, table: Table) -> bool:
        return indexes.same_definition(self._shown(table), table.create_sql)

    def _shown(self, table: Table) -> str:
        """The definition in no sql_mode: under the one in which a table is loaded, MariaDB pads the defaults of CHAR columns."""
        before = self._connection.value("SELECT @@session.sql_mode")
        self._connection.execute("SET SESSION sql_mode = ''")
        flavour = self._loader.session.flavour
        shown = schema_tables.table_definition(self._connection, table.schema, table.name, flavour=flavour)
        self._connection.execute("SET SESSION sql_mode = %s", (before,))
        return shown

    def _analyze(self, table: Table) -> None:
        for _, _, kind, text in self._connection.rows(
            f"ANALYZE NO_WRITE_TO_BINLOG TABLE {quoting.qualified(table.schema, table.name)}"
        ):
            if str(kind).lower() == "error":
                raise errors.DatabaseError(f"analyzing {table.schema}.{table.name}: {text}")


class _Reader:
    """A second session, set up as the dump's was: reads ranges of the target and compares."""

    def __init__(self, connection: server.Connection, flavour: str) -> None:
        rows.open_session(connection, flavour)
        self._flavour = flavour
        self._connection = connection  # held: the socket would be closed with it
        self._socket = wire.WireSocket(connection)

    def compare(self, table: Table, record: ChunkRecord) -> None:
        """Returns if the chunk's range reads as it was backed up; raises RestoreMismatch otherwise."""
        found = rows.stream_chunk(self._socket, table, record.bounds, self._flavour, _discard)
        if found == rows.ChunkTotals(rows=record.rows, row_bytes=record.row_bytes, sha256=record.sha256):
            return
        difference = f"{found.rows} rows, {record.rows} expected" if found.rows != record.rows else "values differ"
        raise errors.RestoreMismatch(
            f"{table.schema}.{table.name}{ranges.shown(table, record.bounds)} is not what was backed up: {difference}",
            hint="was something else writing to the target? restore into an empty one",
        )


def _skip(reader: frame.FrameReader, record: ChunkRecord) -> None:
    """Reads over a chunk that is left out."""
    head = reader.next_frame()
    if head is None or (head.schema, head.table) != (record.schema, record.table):
        raise errors.IntegrityError(f"chunk {record.ordinal} of object {record.object_key} is not that of {record.table}")
    for block in reader.blocks():
        block.raw.release()


def _discard(view: bytes | memoryview) -> None:
    """stream_chunk has hashed the rows; nobody else needs them."""


def _table(data: Any) -> Table:
    return codec.decode(Table, data, what="a table of a load job")


def _record(data: Any) -> ChunkRecord:
    return codec.decode(ChunkRecord, data, what="a chunk record of a load job")


def main() -> None:
    """Serves one parent until it closes the pipe."""
    channel = process.WorkerChannel()
    channel.serve_after_start(lambda start: LoadWorker(channel, start).handle)


if __name__ == "__main__":
    main()
