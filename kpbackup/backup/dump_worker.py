"""A dump worker: one process, one session, one snapshot; turns chunks of rows into sealed objects.

Run as `python -m kpbackup.backup.dump_worker` by `WorkerProcess`, which carries the conversation:

    {"endpoint": {...}, "recipients": ["age1..."], "level": 1}   -> {"ready": true}; with a bandwidth limit also
        "pace": {"path": "...", "bytes_per_second": n}
    {"snapshot": true}                                           -> {"snapshot": true}
    {"cut": {"table": {...}, "lower": [...] or null, "rows": n}} -> {"cut": [...] or null}: where the next chunk ends
    {"dump": [{"table": {...}, "bounds": {...}}, ...]}           -> bytes ..., then {"done": {"chunks": [...], "raw_bytes": n}}

Idea: rows go from the socket through hash, zstd and age to the pipe without being looked at or gathered, so memory is
the same for any table, and the bytes that leave this process are sealed. It knows neither the store nor the
repository: `object_key` is not among what it reports of a chunk.

Limits: a row above 1 MiB is held whole up to 16 MiB. Any error ends the process (and with it session and snapshot):
a half object is never followed by "done". Imports stay few: each worker pays for them in memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kpbackup import errors
from kpbackup.model import codec
from kpbackup.model.inventory import Bound, ChunkBounds, Table
from kpbackup.model.selection import leaving_out
from kpbackup.mysql import cutting, rows, server, wire
from kpbackup.pipeline import age_texts
from kpbackup.pipeline.compress import Compressor
from kpbackup.pipeline.encrypt import Encryptor, Recipient
from kpbackup.pipeline.pace import Pace
from kpbackup.pipeline.process import Message, WorkerChannel

MESSAGE_BYTES = 262_144  # sealed bytes are gathered to about this size: fewer messages, fewer switches between processes

# what a server says of a table that is not what it was: unknown database, unknown column, no such table, definition has changed
_CHANGED = (1049, 1054, 1146, 1412)


@contextlib.contextmanager
def _reading(table: Table) -> Iterator[None]:
    """A table that was dropped or altered since the snapshot is named as such."""
    try:
        yield
    except errors.DatabaseError as exc:
        if exc.number not in _CHANGED:
            raise errors.DatabaseError(
                f"reading table {table.schema}.{table.name}: {exc.message}",
                hint=f"mend or drop it, or leave it out with {leaving_out(table.schema, table.name)} (source.exclude)",
                number=exc.number,
            ) from exc
        raise errors.SnapshotError(
            f"table {table.schema}.{table.name} was dropped or altered while the backup ran: {exc.message}",
            hint="nothing was stored as a success; run the backup again when the change is done",
        ) from exc


class SealedObject:
    """One object on its way out: what is written to it leaves compressed and encrypted through `send`."""

    def __init__(self, recipients: Sequence[Recipient], *, level: int, send: Callable[[bytes], None], pace: Pace | None) -> None:
        self.raw_bytes = 0
        self._pace = pace
        self._compressor = Compressor(level=level)
        self._encryptor = Encryptor(recipients)
        self._send = send
        self._held: list[bytes] = []
        self._held_bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        """Adds plaintext; keeps no reference to it."""
        self.raw_bytes += len(data)
        if self._pace is not None:
            self._pace.count(len(data))
        compressed = self._compressor.compress(data)
        if compressed:
            self._hold(self._encryptor.encrypt(compressed))

    def finish(self) -> None:
        """Sends the rest. Without it no reader accepts the object."""
        self._hold(self._encryptor.encrypt(self._compressor.flush()))
        self._hold(self._encryptor.flush())
        self._release()

    def _hold(self, sealed: bytes) -> None:
        if sealed:
            self._held.append(sealed)
            self._held_bytes += len(sealed)
        if self._held_bytes >= MESSAGE_BYTES:
            self._release()

    def _release(self) -> None:
        if self._held:
            self._send(b"".join(self._held))
        self._held, self._held_bytes = [], 0


class DumpWorker:
    """The worker's side of the conversation; `handle` answers one message."""

    def __init__(self, channel: WorkerChannel) -> None:
        self._channel = channel
        self._connection: server.Connection | None = None
        self._has_snapshot = False

    def handle(self, message: Message) -> None:
        """Raises whatever KpbackupError the request meets; the channel passes it on."""
        if "endpoint" in message:
            self._start(message)
            self._channel.send({"ready": True})
        elif "snapshot" in message:
            self._session().execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            self._session().execute("SAVEPOINT opened")
            self._has_snapshot = True
            self._channel.send({"snapshot": True})
        elif "cut" in message:
            found = self._cut(message["cut"])
            self._let_go()
            self._channel.send({"cut": found})
        elif "dump" in message:
            done = self._dump(message["dump"])
            self._let_go()
            self._channel.send({"done": done})
        else:
            raise errors.InternalError(f"unknown request to a dump worker: {sorted(message)}")

    def _start(self, message: Message) -> None:
        endpoint = codec.decode(server.Endpoint, message["endpoint"], what="endpoint for a dump worker")
        self._recipients = [age_texts.parse_recipient(text) for text in message["recipients"]]
        self._level = int(message.get("level", 1))
        limit = message.get("pace")
        self._pace = Pace(limit["path"], bytes_per_second=limit["bytes_per_second"]) if limit else None
        self._connection = server.connect(endpoint)
        is_mariadb = self._connection.row("SHOW GLOBAL VARIABLES LIKE 'gtid_domain_id'") is not None
        self._flavour = "mariadb" if is_mariadb else "mysql"
        rows.open_session(self._connection, self._flavour)
        if is_mariadb:
            _leave_binlog(self._connection)
        self._socket = wire.WireSocket(self._connection)

    def _let_go(self) -> None:
        """Gives back the metadata locks of the tables just read; the snapshot stays.

        Else the application's ALTER of one would wait for the end of the backup, and every write to that table behind it.
        """
        if self._has_snapshot:
            self._session().execute("ROLLBACK TO SAVEPOINT opened")

    def _session(self) -> server.Connection:
        if self._connection is None:
            raise errors.InternalError("a dump worker was asked for rows before it was given an endpoint")
        return self._connection

    def _cut(self, request: dict[str, Any]) -> Bound | None:
        table = codec.decode(Table, request["table"], what="table for a dump worker")
        lower = tuple(request["lower"]) if request["lower"] is not None else None
        with _reading(table):
            return cutting.next_bound(self._session(), table, lower, rows=request["rows"])

    def _dump(self, requests: list[dict[str, Any]]) -> dict[str, Any]:
        self._session()
        sealed = SealedObject(self._recipients, level=self._level, send=self._channel.send_bytes, pace=self._pace)
        done = []
        for ordinal, request in enumerate(requests):
            table = codec.decode(Table, request["table"], what="table for a dump worker")
            bounds = codec.decode(ChunkBounds, request["bounds"], what="bounds for a dump worker")
            with _reading(table):
                totals = rows.stream_chunk(self._socket, table, bounds, self._flavour, sealed.write)
            done.append(
                {
                    "schema": table.schema,
                    "table": table.name,
                    "bounds": codec.encode(bounds),
                    "ordinal": ordinal,
                    **codec.encode(totals),
                }
            )
        sealed.finish()
        return {"chunks": done, "raw_bytes": sealed.raw_bytes}


def _leave_binlog(connection: server.Connection) -> None:
    """Else MariaDB keeps metadata locks over ROLLBACK TO SAVEPOINT. It takes BINLOG ADMIN: who lacks that keeps the locks."""
    with contextlib.suppress(errors.PrivilegeMissing):
        connection.execute("SET SESSION sql_log_bin = 0")


def main() -> None:
    """Serves the parent until it closes the pipe."""
    channel = WorkerChannel()
    channel.serve(DumpWorker(channel).handle)


if __name__ == "__main__":
    main()
