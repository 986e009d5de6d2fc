"""The dump worker as its parent sees it: a real process, a real server, objects that the reader's half opens."""

from __future__ import annotations

import dataclasses
import struct
import time
from pathlib import Path

import pytest

from kpbackup import errors
from kpbackup.model import codec
from kpbackup.model.inventory import ChunkBounds, Table
from kpbackup.mysql import frame, rows
from kpbackup.pipeline import pace, stream
from kpbackup.pipeline.encrypt import Identity
from kpbackup.pipeline.process import WorkerProcess
from tests.integration.dumping import dump_object, dump_worker, tables_of
from tests.servers.database import Server

PASSWORD = "KPTEST-password-1"
MEMORY_LIMIT_KB = 64 << 10  # measured 35 to 40 MiB; a worker that gathered rows would hold far more
IDENTITY = Identity.generate()


def open_object(sealed: bytes) -> list[tuple[frame.Frame, rows.RowTally]]:
    """The frames of a sealed object and what they hold."""
    reader = frame.FrameReader(stream.unseal([sealed], [IDENTITY]))
    found = []
    while (head := reader.next_frame()) is not None:
        tally = rows.RowTally(keyed=True)
        for block in reader.blocks():
            with block.raw as raw:
                tally.update(raw)
        found.append((head, tally))
    return found


def test_an_object_of_several_chunks(mariadb: Server) -> None:
    mariadb.execute(
        "CREATE DATABASE s", "CREATE TABLE s.a (id int PRIMARY KEY)", "CREATE TABLE s.b (id int PRIMARY KEY, t text)",
        "INSERT INTO s.a VALUES (1),(5),(9)", "INSERT INTO s.b VALUES (1,'marker-in-plain')",
    )
    tables = tables_of(mariadb, "s")
    jobs: list[tuple[Table, ChunkBounds]] = [
        (tables["a"], ChunkBounds(upper=("5",))), (tables["b"], rows.OPEN), (tables["a"], ChunkBounds(lower=("5",))),
    ]
    with dump_worker(mariadb.endpoint, IDENTITY.recipient) as worker:
        sealed, done = dump_object(worker, jobs)
        again, done_again = dump_object(worker, jobs)
    assert b"marker-in-plain" not in sealed
    assert sealed != again and done == done_again  # a fresh file key each time, the same rows
    found = open_object(sealed)
    assert [(head.schema, head.table) for head, _ in found] == [("s", "a"), ("s", "b"), ("s", "a")]
    assert [chunk["rows"] for chunk in done["chunks"]] == [1, 1, 2]
    for ordinal, (chunk, (table, bounds), (_, tally)) in enumerate(zip(done["chunks"], jobs, found, strict=True)):
        assert chunk == {
            "schema": "s", "table": table.name, "bounds": codec.encode(bounds), "ordinal": ordinal, "rows": tally.rows,
            "row_bytes": tally.row_bytes, "sha256": tally.sha256, "unkept": {},
        }
    assert done["raw_bytes"] == sum(len(piece) for piece in stream.unseal([sealed], [IDENTITY]))


def test_the_snapshot_holds_against_later_writes(mariadb: Server) -> None:
    mariadb.execute("CREATE DATABASE s", "CREATE TABLE s.a (id int PRIMARY KEY)", "INSERT INTO s.a VALUES (1),(2)")
    table = tables_of(mariadb, "s")["a"]
    with dump_worker(mariadb.endpoint, IDENTITY.recipient) as worker:
        worker.send({"snapshot": True})
        assert worker.receive() == {"snapshot": True}
        mariadb.execute("INSERT INTO s.a VALUES (3)", "DELETE FROM s.a WHERE id = 1")
        _, done = dump_object(worker, [(table, rows.OPEN)])
    assert done["chunks"][0]["rows"] == 2
    with dump_worker(mariadb.endpoint, IDENTITY.recipient) as worker:
        sealed, _ = dump_object(worker, [(table, rows.OPEN)])
    assert open_object(sealed)[0][1].rows == 2  # 2 and 3


def test_all_rows_are_counted_against_a_bandwidth_limit(mariadb: Server) -> None:
    mariadb.execute(
        "CREATE DATABASE s", "CREATE TABLE s.a (id int PRIMARY KEY)", "INSERT INTO s.a SELECT seq FROM s.seq_1_to_9999",
    )
    table = tables_of(mariadb, "s")["a"]
    with pace.shared() as path, WorkerProcess("kpbackup.backup.dump_worker") as worker:
        far = time.monotonic() + 2  # so that what is counted adds to it
        Path(path).write_bytes(struct.pack("<d", far))
        limit = {"path": path, "bytes_per_second": 1e6}
        worker.send({"endpoint": codec.encode(mariadb.endpoint), "recipients": [str(IDENTITY.recipient)], "pace": limit})
        assert worker.receive() == {"ready": True}
        _, done = dump_object(worker, [(table, rows.OPEN)])
        (filled,) = struct.unpack("<d", Path(path).read_bytes())
    assert filled - far >= done["raw_bytes"] / 1e6 - 1e-6


def test_memory_does_not_grow_with_the_table(mariadb: Server) -> None:
    mariadb.execute(
        "CREATE DATABASE s", "CREATE TABLE s.a (id int PRIMARY KEY AUTO_INCREMENT, t varbinary(2000)) ENGINE=MyISAM",
        "INSERT INTO s.a (t) SELECT RANDOM_BYTES(1000) FROM s.seq_1_to_100000",
    )
    table = tables_of(mariadb, "s")["a"]
    with dump_worker(mariadb.endpoint, IDENTITY.recipient) as worker:
        sealed, done = dump_object(worker, [(table, rows.OPEN)])
        status = Path(f"/proc/{worker.pid}/status").read_text()
    peak_kb = int(status.split("VmHWM:")[1].split()[0])
    assert done["chunks"][0]["rows"] == 100_000 and len(sealed) > 100_000_000
    assert peak_kb < MEMORY_LIMIT_KB


def test_errors_arrive_as_what_they_are_and_without_the_password(mariadb: Server) -> None:
    mariadb.execute(
        "CREATE DATABASE s", "CREATE TABLE s.a (id int PRIMARY KEY)", f"CREATE USER u@'%' IDENTIFIED BY '{PASSWORD}'",
    )
    table = tables_of(mariadb, "s")["a"]
    gone = dataclasses.replace(table, name="gone")
    user = dataclasses.replace(mariadb.endpoint, user="u", password=PASSWORD)
    wrong = dataclasses.replace(user, password=PASSWORD + "x")
    found = []
    for endpoint, asked, kind in (
        (user, table, errors.PrivilegeMissing), (mariadb.endpoint, gone, errors.SnapshotError),
        (wrong, table, errors.ServerUnreachable),
    ):
        with pytest.raises(kind) as caught, dump_worker(endpoint, IDENTITY.recipient) as worker:
            dump_object(worker, [(asked, rows.OPEN)])
        found.append(caught.value)
    assert "table s.gone was dropped or altered" in found[1].message
    assert not any(PASSWORD in error.message + error.hint for error in found)


def test_the_death_of_the_server_ends_the_object(mariadb: Server) -> None:
    mariadb.execute(
        "CREATE DATABASE s", "CREATE TABLE s.a (id int PRIMARY KEY, t varbinary(2000)) ENGINE=MyISAM",
        "INSERT INTO s.a SELECT seq, RANDOM_BYTES(1000) FROM s.seq_1_to_10000",
    )
    table = tables_of(mariadb, "s")["a"]
    with dump_worker(mariadb.endpoint, IDENTITY.recipient) as worker:
        worker.send({"dump": [{"table": codec.encode(table), "bounds": codec.encode(rows.OPEN)}] * 1000})
        assert isinstance(worker.receive(), bytes)
        mariadb.kill()
        with pytest.raises(errors.ServerUnreachable):
            while isinstance(worker.receive(), bytes):
                pass


def test_a_request_out_of_order(mariadb: Server) -> None:
    with WorkerProcess("kpbackup.backup.dump_worker") as worker:
        worker.send({"snapshot": True})
        with pytest.raises(errors.InternalError, match="before it was given an endpoint"):
            worker.receive()
