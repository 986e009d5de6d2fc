"""Dumps of whole schemas as the tests need them: table descriptions, frames in memory, sealed objects from a real worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kpbackup.model import codec
from kpbackup.model.inventory import ChunkBounds, Table
from kpbackup.mysql import facts, frame, rows, schema, schema_tables, server, wire
from kpbackup.pipeline.encrypt import Recipient
from kpbackup.pipeline.process import WorkerProcess
from tests.servers.database import Server


def flavour_of(source: Server) -> str:
    return source.product.lower()


def tables_of(source: Server, name: str) -> dict[str, Table]:
    """The tables of a schema, as a backup would describe them."""
    with source.connect(database=name) as connection:
        found = facts.read_facts(connection)
        with schema.reading_session(connection, found):
            engines = schema_tables.transactional_engines(connection)
            return {table.name: table for table in schema_tables.read_tables_of(connection, name, engines, flavour=found.flavour)}


@contextmanager
def reading_socket(
    source: Server, *, buffer_bytes: int = wire.BUFFER_BYTES
) -> Iterator[tuple[server.Connection, wire.WireSocket]]:
    """A session fit for reading chunks."""
    with source.connect() as connection:
        rows.open_session(connection, flavour_of(source))
        yield connection, wire.WireSocket(connection, buffer_bytes=buffer_bytes, timeout_s=60)


def read_chunk(
    source: Server, table: Table, bounds: ChunkBounds = rows.OPEN, *, buffer_bytes: int = wire.BUFFER_BYTES
) -> tuple[bytes, rows.ChunkTotals]:
    """One chunk frame and its totals."""
    found = bytearray()
    with reading_socket(source, buffer_bytes=buffer_bytes) as (_, socket):
        totals = rows.stream_chunk(socket, table, bounds, flavour_of(source), found.extend)
    return bytes(found), totals


@contextmanager
def dump_worker(endpoint: server.Endpoint, recipient: Recipient) -> Iterator[WorkerProcess]:
    """A worker that is connected."""
    with WorkerProcess("kpbackup.backup.dump_worker") as worker:
        worker.send({"endpoint": codec.encode(endpoint), "recipients": [str(recipient)], "level": 1})
        assert worker.receive() == {"ready": True}
        yield worker


def dump_object(worker: WorkerProcess, chunks: Sequence[tuple[Table, ChunkBounds]]) -> tuple[bytes, dict[str, Any]]:
    """One sealed object and what the worker says of it."""
    worker.send({"dump": [{"table": codec.encode(table), "bounds": codec.encode(bounds)} for table, bounds in chunks]})
    sealed = bytearray()
    while isinstance(message := worker.receive(), bytes):
        sealed += message
    return bytes(sealed), message["done"]


def payloads(raw: bytes) -> Iterator[bytes]:
    """The rows in raw packets, split ones joined; written apart from the program's own loops."""
    row = b""
    while raw:
        length = raw[0] + (raw[1] << 8) + (raw[2] << 16)
        row += raw[4 : 4 + length]
        raw = raw[4 + length :]
        if length < 0xFFFFFF:
            yield row
            row = b""


def row_payloads(data: bytes) -> list[bytes]:
    """The rows of one frame."""
    reader = frame.FrameReader([data])
    reader.next_frame()
    return [payload for block in reader.blocks() for payload in payloads(bytes(block.raw))]
