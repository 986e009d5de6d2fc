"""Loading chunks into real servers: every type comes back exactly, and nothing half stays behind."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kpbackup import errors
from kpbackup.model import codec
from kpbackup.model.inventory import ChunkBounds, ChunkRecord, Table
from kpbackup.mysql import facts, indexes, rows, schema, wire
from kpbackup.pipeline import age_keys, process, stream
from tests.integration import edge_tables
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server

MODULE = "kpbackup.recovery.load_worker"
IDENTITY = age_keys.Identity.generate()
WHOLE = ChunkBounds()
Chunk = tuple[Table, ChunkBounds]


def tables_of(server: Server, *databases: str) -> dict[str, Table]:
    with server.connect() as connection:
        found = schema.read_tables(connection, facts.read_facts(connection), databases=databases)
    return {table.name: table for table in found}


def dump(server: Server, chunks: Sequence[Chunk], *, object_key: str = "object-1") -> tuple[bytes, list[ChunkRecord]]:
    """(plaintext of one object, its records), by the product's own reading path."""
    plain = bytearray()
    records = []
    with server.connect() as connection:
        flavour = facts.read_facts(connection).flavour
        rows.open_session(connection, flavour)
        socket = wire.WireSocket(connection)
        for ordinal, (table, bounds) in enumerate(chunks):
            totals = rows.stream_chunk(socket, table, bounds, flavour, plain.extend)
            records.append(ChunkRecord(
                schema=table.schema, table=table.name, bounds=bounds, object_key=object_key, ordinal=ordinal,
                rows=totals.rows, row_bytes=totals.row_bytes, sha256=totals.sha256,
            ))
    return bytes(plain), records


def sealed(plain: bytes) -> bytes:
    return b"".join(stream.seal([plain], [IDENTITY.recipient]))


@contextmanager
def load_worker(server: Server, **session: bool) -> Iterator[process.WorkerProcess]:
    with process.WorkerProcess(MODULE) as worker:
        worker.send({"endpoint": codec.encode(server.endpoint), "identity": IDENTITY.reveal(), "session": session})
        assert worker.receive() == {"ready": True}
        yield worker


def start_load(worker: process.WorkerProcess, tables: Sequence[Table], records: Sequence[ChunkRecord]) -> None:
    worker.send({"load": {"tables": [codec.encode(t) for t in tables], "chunks": [codec.encode(r) for r in records]}})


def load(worker: process.WorkerProcess, tables: Sequence[Table], records: Sequence[ChunkRecord], data: bytes) -> Any:
    """The worker's answer to a whole sealed object."""
    start_load(worker, tables, records)
    for start in range(0, len(data), 100_000):
        worker.send_bytes(data[start : start + 100_000])
    worker.send({"end": True})
    return worker.receive()


def create(server: Server, tables: Sequence[Table]) -> None:
    with server.connect() as connection:
        connection.execute("SET foreign_key_checks = 0, sql_mode = ''")
        for table in tables:
            connection.execute(f"CREATE DATABASE IF NOT EXISTS `{table.schema}` CHARACTER SET utf8mb4")
            connection.execute(f"USE `{table.schema}`")
            connection.execute(table.create_sql)


def copy(source: Server, target: Server, names: Sequence[str], *, database: str = "s") -> list[ChunkRecord]:
    """Whole tables from one server to the other in one object."""
    tables = [tables_of(source, database)[name] for name in names]
    plain, records = dump(source, [(table, WHOLE) for table in tables])
    create(target, tables)
    with load_worker(target) as worker:
        load(worker, tables, records, sealed(plain))
    return records


def read_back(worker: process.WorkerProcess, table: Table, record: ChunkRecord) -> Any:
    worker.send({"read_back": {"table": codec.encode(table), "chunk": codec.encode(record)}})
    return worker.receive()


def count(server: Server, table: str) -> int:
    with server.connect() as connection:
        return int(connection.value(f"SELECT COUNT(*) FROM {table}"))


def eventually(condition: Callable[[], bool], *, what: str) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline, f"not within 180 s: {what}"
        time.sleep(0.01)


@pytest.fixture(params=["mariadb_pair", "mysql97_pair"])
def pair(request: pytest.FixtureRequest) -> tuple[Server, Server]:
    """(source, target) of either product."""
    found: tuple[Server, Server] = request.getfixturevalue(request.param)
    return found


def is_mariadb(server: Server) -> bool:
    return server.product == "MariaDB"


def test_every_type_comes_back_exactly(pair: tuple[Server, Server]) -> None:
    source, target = pair
    with source.connect() as connection:
        for statement in edge_tables.statements("mariadb" if is_mariadb(source) else "mysql"):
            connection.execute(statement)
    tables = list(tables_of(source, edge_tables.SCHEMA).values())
    assert len(tables) == 13
    plain, records = dump(source, [(table, WHOLE) for table in tables])
    create(target, tables)
    with load_worker(target) as worker:
        answer = load(worker, tables, records, sealed(plain))
        assert answer == {"loaded": {"chunks": len(tables), "rows": sum(record.rows for record in records)}}
        for table, record in zip(tables, records, strict=True):
            assert read_back(worker, table, record) == {"same": True}
    expected, found = edge_tables.fingerprints(source.port), edge_tables.fingerprints(target.port)
    assert {name: value for name, value in found.items() if value != expected[name]} == {}
    assert set(found) == set(expected)


def test_rows_come_into_no_slow_log(mariadb_pair: tuple[Server, Server]) -> None:
    source, target = mariadb_pair
    source.execute("CREATE DATABASE s", "CREATE TABLE s.t (id int PRIMARY KEY, v text)", "INSERT INTO s.t VALUES (1, 'row-of-s')")
    target.execute("SET GLOBAL slow_query_log = 1, GLOBAL long_query_time = 0")
    copy(source, target, ["t"])
    target.execute("SELECT 'another session'")
    with target.connect() as connection:
        log = Path(connection.value("SELECT @@datadir"), connection.value("SELECT @@slow_query_log_file")).read_text()
    assert "another session" in log and "row-of-s" not in log


def test_rows_of_twenty_megabytes(pair: tuple[Server, Server]) -> None:
    source, target = pair
    for server in pair:
        server.execute("SET GLOBAL max_allowed_packet = 67108864")
    source.execute(
        "CREATE DATABASE s", "CREATE TABLE s.big (id int PRIMARY KEY, a longblob, k int, b longblob, c longtext)",
        # 16,777,215 is the longest packet, and a row of exactly that length is followed by an empty one
        "INSERT INTO s.big VALUES (1,REPEAT('x',20971520),NULL,'b',NULL), (2,'',-1,NULL,REPEAT('\u20ac',5000000)),"
        " (3,NULL,3,NULL,'end')",
        f"INSERT INTO s.big SELECT seq.n, REPEAT(CHAR(seq.n), {16_777_215 - 4 - 4 - 2 - 4 - 3} + seq.n), 7, 'bb', 'cc'"
        " FROM (SELECT 10 AS n UNION SELECT 11 UNION SELECT 12 UNION SELECT 13 UNION SELECT 14 UNION SELECT 15) AS seq",
    )
    copy(source, target, ["big"])
    sql = "SELECT id, SHA2(a, 256), k, SHA2(b, 256), SHA2(c, 256) FROM s.big ORDER BY id"
    with source.connect() as left, target.connect() as right:
        assert left.rows(sql) == right.rows(sql)
        assert left.rows("CHECKSUM TABLE s.big") == right.rows("CHECKSUM TABLE s.big")


def small_table(source: Server, *, engine: str = "InnoDB", count_of: int = 3000) -> Table:
    """s.t with `count_of` rows of about 1 KB that do not compress, key 0 up."""
    source.execute(
        "CREATE DATABASE s",
        "CREATE TABLE s.t (id int PRIMARY KEY AUTO_INCREMENT, k int, v varbinary(1000), KEY k (k))"
        f" ENGINE={engine} AUTO_INCREMENT=90000",
    )
    with source.connect() as connection, connection.raw.cursor() as cursor:
        cursor.execute("SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'")
        cursor.executemany("INSERT INTO s.t VALUES (%s,%s,%s)", [(i, i % 10, os.urandom(1000)) for i in range(count_of)])
    return tables_of(source, "s")["t"]


def test_a_flipped_byte_of_a_sealed_object_is_refused(mariadb_pair: tuple[Server, Server]) -> None:
    source, target = mariadb_pair
    table = small_table(source)
    plain, records = dump(source, [(table, WHOLE)])
    create(target, [table])
    data = bytearray(sealed(plain))
    data[len(data) * 3 // 4] ^= 1
    with load_worker(target) as worker, pytest.raises(errors.IntegrityError):
        load(worker, [table], records, bytes(data))
    eventually(lambda: count(target, "s.t") == 0, what="nothing of the chunk stays")
    assert count(target, "kpbackup_restore.progress") == 0


@pytest.mark.parametrize("engine", ["InnoDB", "MyISAM"])
@pytest.mark.parametrize("keyless", [False, True])
def test_rows_that_do_not_match_their_record_are_refused(
    mariadb_pair: tuple[Server, Server], engine: str, keyless: bool
) -> None:
    """A whole, well-formed object with one wrong byte inside a value: only the chunk's hash can tell."""
    source, target = mariadb_pair
    table = small_table(source, engine=engine)
    if keyless:
        source.execute("ALTER TABLE s.t MODIFY id int, DROP PRIMARY KEY")
        table = tables_of(source, "s")["t"]
        assert table.key == ()
    plain, records = dump(source, [(table, WHOLE)])
    create(target, [table])
    wrong = bytearray(plain)
    wrong[-100] ^= 1
    with load_worker(target) as worker, pytest.raises(errors.IntegrityError, match=r"s\.t"):
        load(worker, [table], records, sealed(bytes(wrong)))
    assert count(target, "s.t") == 0
    assert count(target, "kpbackup_restore.progress") == 0
    with load_worker(target) as worker:
        load(worker, [table], records, sealed(plain))
    assert count(target, "s.t") == 3000


@pytest.mark.parametrize(
    ("cut", "cause"),
    [
        (lambda plain: plain[: len(plain) // 2], "cut"),
        (lambda plain: plain[:-9], "cut"),
        (lambda plain: plain + plain, "more chunks"),
        (lambda plain: b"", "missing"),
        (lambda plain: b"X" + plain[1:], "magic"),
        (lambda plain: plain.replace(b'"table":"t"', b'"table":"u"'), "holds s.u"),
    ],
)
def test_an_object_of_the_wrong_shape_is_refused(
    mariadb: Server, cut: Callable[[bytes], bytes], cause: str
) -> None:
    table = small_table(mariadb, count_of=300)
    plain, records = dump(mariadb, [(table, WHOLE)])
    mariadb.execute("TRUNCATE s.t")
    with load_worker(mariadb) as worker, pytest.raises(errors.IntegrityError, match=cause):
        load(worker, [table], records, sealed(cut(plain)))
    if cause != "more chunks":  # there the one chunk that has a record was whole, and loaded
        assert count(mariadb, "s.t") == 0


@pytest.mark.parametrize("engine", ["InnoDB", "MyISAM"])
def test_a_worker_killed_in_the_middle_of_a_chunk_leaves_it_loadable(
    mariadb_pair: tuple[Server, Server], engine: str
) -> None:
    source, target = mariadb_pair
    table = small_table(source, engine=engine, count_of=6000)
    chunks = [(table, ChunkBounds(upper=("1000",))), (table, ChunkBounds(lower=("1000",)))]
    plain, records = dump(source, chunks)
    create(target, [table])
    data = sealed(plain)

    def rows_arrive() -> bool:
        with target.connect() as connection:
            connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED")
            return int(connection.value("SELECT COUNT(*) FROM s.t")) > 1500

    with load_worker(target) as worker:
        start_load(worker, [table, table], records)
        worker.send_bytes(data[: len(data) * 3 // 4])
        eventually(rows_arrive, what="rows of the second chunk in the target")
        worker.kill()
    with load_worker(target) as worker:
        assert load(worker, [table, table], records, data) == {"loaded": {"chunks": 2, "rows": 6000}}
        assert read_back(worker, table, records[0]) == read_back(worker, table, records[1]) == {"same": True}
    with source.connect() as left, target.connect() as right:
        assert left.rows("CHECKSUM TABLE s.t") == right.rows("CHECKSUM TABLE s.t")
        auto_increment = "SELECT auto_increment FROM information_schema.tables WHERE table_schema='s' AND table_name='t'"
        assert left.value(auto_increment) == right.value(auto_increment) == 90000


def test_a_loaded_chunk_is_not_loaded_twice(mariadb: Server) -> None:
    table = small_table(mariadb, count_of=300)
    plain, records = dump(mariadb, [(table, WHOLE)])
    mariadb.execute("TRUNCATE s.t")
    for _ in range(2):  # the second time the rows' keys would collide
        with load_worker(mariadb) as worker:
            assert load(worker, [table], records, sealed(plain)) == {"loaded": {"chunks": 1, "rows": 300}}
    assert count(mariadb, "s.t") == 300


def test_a_table_can_go_to_another_schema(mariadb: Server) -> None:
    table = small_table(mariadb, count_of=300)
    plain, records = dump(mariadb, [(table, WHOLE)])
    shadow = dataclasses.replace(table, schema="shadow")
    create(mariadb, [shadow])
    with load_worker(mariadb, write_binlog=False) as worker:
        load(worker, [shadow], records, sealed(plain))
        assert read_back(worker, shadow, records[0]) == {"same": True}
    with mariadb.connect() as connection:
        left, right = connection.rows("CHECKSUM TABLE s.t, shadow.t")
        assert left[1] == right[1]


@pytest.mark.parametrize("write_binlog", [True, False])
def test_loading_writes_the_binlog_only_when_asked(mariadb: Server, write_binlog: bool) -> None:
    table = small_table(mariadb, count_of=300)
    plain, records = dump(mariadb, [(table, WHOLE)])
    mariadb.execute("TRUNCATE s.t")

    def position() -> Any:
        with mariadb.connect() as connection:
            return connection.value("SELECT @@gtid_binlog_pos")

    before = position()
    with load_worker(mariadb, write_binlog=write_binlog) as worker:
        load(worker, [table], records, sealed(plain))
    assert (position() != before) is write_binlog


def test_an_old_row_that_breaks_a_check_comes_back(mariadb_pair: tuple[Server, Server]) -> None:
    source, target = mariadb_pair
    source.execute(
        "CREATE DATABASE s", "CREATE TABLE s.c (id int PRIMARY KEY, v int CHECK (v > 0))", "SET check_constraint_checks = 0",
        "INSERT INTO s.c VALUES (1, -5), (2, 5)",
    )
    copy(source, target, ["c"])
    with target.connect() as connection:
        assert connection.rows("SELECT * FROM s.c ORDER BY id") == [(1, -5), (2, 5)]
        with pytest.raises(errors.DatabaseError):
            connection.execute("INSERT INTO s.c VALUES (3, -1)")


def test_a_child_row_comes_back_before_its_parent(pair: tuple[Server, Server]) -> None:
    source, target = pair
    source.execute(
        "CREATE DATABASE s", "CREATE TABLE s.z_parent (id int PRIMARY KEY)",
        "CREATE TABLE s.a_child (id int PRIMARY KEY, p int, FOREIGN KEY (p) REFERENCES z_parent (id))",
        "INSERT INTO s.z_parent VALUES (1)", "INSERT INTO s.a_child VALUES (1, 1)",
    )
    copy(source, target, ["a_child", "z_parent"])
    assert count(target, "s.a_child") == count(target, "s.z_parent") == 1


def test_a_value_that_does_not_fit_is_never_passed_over(pair: tuple[Server, Server]) -> None:
    source, target = pair
    table = small_table(source, count_of=300)
    plain, records = dump(source, [(table, WHOLE)])
    create(target, [table])
    target.execute("SET sql_mode = ''", "ALTER TABLE s.t MODIFY v varbinary(999)")
    with load_worker(target) as worker, pytest.raises(errors.RestoreMismatch, match=r"s\.t.*1265"):
        load(worker, [table], records, sealed(plain))
    assert count(target, "s.t") == 0


def test_an_enum_member_the_target_lacks_is_caught_by_reading_back(mariadb_pair: tuple[Server, Server]) -> None:
    """Its warning is the one of index 0, which is harmless; the values are not."""
    source, target = mariadb_pair
    source.execute(
        "CREATE DATABASE s", "CREATE TABLE s.e (id int PRIMARY KEY, e enum('a','b'))", "INSERT INTO s.e VALUES (1,'b')"
    )
    table = tables_of(source, "s")["e"]
    plain, records = dump(source, [(table, WHOLE)])
    create(target, [table])
    target.execute("ALTER TABLE s.e MODIFY e enum('a')")
    with load_worker(target) as worker:
        load(worker, [table], records, sealed(plain))
        with pytest.raises(errors.RestoreMismatch, match=r"s\.e"):
            read_back(worker, table, records[0])


def test_a_row_above_the_packet_limit_is_sent_in_pieces_or_refused_by_name(tmp_path: Path) -> None:
    mebibyte = 1 << 20
    with (
        mariadb_server(tmp_path / "s", server_id=901, options=("--max-allowed-packet=16M",)) as source,
        mariadb_server(tmp_path / "t", server_id=902, options=(f"--max-allowed-packet={mebibyte}",)) as target,
    ):
        source.execute(
            "CREATE DATABASE s", "CREATE TABLE s.w (id int PRIMARY KEY, a longblob, n int, b longtext, j json, c longblob)",
            "INSERT INTO s.w VALUES (1,REPEAT('a',700000),NULL,REPEAT('\u20ac',300000),'{}',REPEAT('c',500000)),"
            " (2,'a',5,'b',NULL,'c')",
        )
        copy(source, target, ["w"])
        with source.connect() as left, target.connect() as right:
            assert left.rows("CHECKSUM TABLE s.w") == right.rows("CHECKSUM TABLE s.w")
        source.execute("INSERT INTO s.w VALUES (3,REPEAT('a',1100000),NULL,'','{}','')")
        target.execute("DROP TABLE s.w")
        with pytest.raises(errors.ServerUnfit, match=r"s\.w.*max_allowed_packet") as caught:
            copy(source, target, ["w"])
        assert "max_allowed_packet" in caught.value.hint
        assert count(target, "s.w") == 0


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("UPDATE s.t SET v = CONCAT('x', SUBSTRING(v, 2)) WHERE id = 150", "values differ"),
        ("DELETE FROM s.t WHERE id = 150", "199 rows, 200 expected"),
        ("INSERT INTO s.t (id, k) VALUES (100000, 1)", "201 rows, 200 expected"),
        ("UPDATE s.t SET k = NULL WHERE id = 150", "values differ"),
    ],
)
def test_reading_back_finds_one_wrong_row_and_names_its_range(mariadb: Server, change: str, what: str) -> None:
    table = small_table(mariadb, count_of=300)
    _, records = dump(mariadb, [(table, ChunkBounds(upper=("100",))), (table, ChunkBounds(lower=("100",)))])
    with load_worker(mariadb) as worker:
        assert read_back(worker, table, records[0]) == read_back(worker, table, records[1]) == {"same": True}
        mariadb.execute("SET sql_mode = ''", change)
        assert read_back(worker, table, records[0]) == {"same": True}
        with pytest.raises(errors.RestoreMismatch, match=rf"s\.t \(100 <= id\).*{what}"):
            read_back(worker, table, records[1])


def test_reading_back_a_keyless_table_minds_rows_and_not_their_order(mariadb: Server) -> None:
    mariadb.execute("CREATE DATABASE s", "CREATE TABLE s.k (n int, t text)", "INSERT INTO s.k VALUES (1,'a'),(2,'b'),(1,'a')")
    table = tables_of(mariadb, "s")["k"]
    _, records = dump(mariadb, [(table, WHOLE)])
    mariadb.execute("DELETE FROM s.k", "INSERT INTO s.k VALUES (1,'a'),(1,'a'),(2,'b')")
    with load_worker(mariadb) as worker:
        assert read_back(worker, table, records[0]) == {"same": True}
        mariadb.execute("DELETE FROM s.k", "INSERT INTO s.k VALUES (1,'a'),(2,'b'),(2,'b')")
        with pytest.raises(errors.RestoreMismatch, match=r"s\.k is not"):
            read_back(worker, table, records[0])


DEFERRABLE = """CREATE TABLE s.d (
    id int AUTO_INCREMENT PRIMARY KEY, a varchar(50) NOT NULL, b int DEFAULT 5, p point NOT NULL, t text,
    KEY k_desc (a(10) DESC, b) COMMENT 'it''s', UNIQUE KEY u_null (b, id), UNIQUE KEY u_not (a, id), KEY `odd ``name` (b),
    FULLTEXT KEY words (t), SPATIAL KEY place (p), KEY last (a, b), FULLTEXT KEY more (a, t) {more})"""


def test_deferred_indexes_give_the_same_definition(pair: tuple[Server, Server]) -> None:
    source, target = pair
    more = "" if is_mariadb(source) else ", KEY gone (b) INVISIBLE, FULLTEXT KEY gram (t) WITH PARSER ngram"
    point = "POINT(1, 2)"
    source.execute(
        "CREATE DATABASE s", DEFERRABLE.format(more=more),
        *(f"INSERT INTO s.d (a, b, p, t) VALUES ('name {i}', {i % 7}, {point}, 'some words {i}')" for i in range(50)),
    )
    table = tables_of(source, "s")["d"]
    plain, records = dump(source, [(table, WHOLE)])
    deferral = indexes.defer(table.create_sql)
    assert len(deferral.statements) == (3 if is_mariadb(source) else 4)
    create(target, [dataclasses.replace(table, create_sql=deferral.create_sql)])
    with load_worker(target) as worker:
        load(worker, [table], records, sealed(plain))
        target.execute("USE s", deferral.statements[0])  # as a crash after the first statement leaves it
        for _ in range(2):
            worker.send({"indexes": {"table": codec.encode(table), "statements": list(deferral.statements)}})
            assert worker.receive() == {"indexed": True}
        worker.send({"analyze": codec.encode(table)})
        assert worker.receive() == {"analyzed": True}
        assert read_back(worker, table, records[0]) == {"same": True}
    found = tables_of(target, "s")["d"]
    assert indexes.same_definition(found.create_sql, table.create_sql)
    statistics = (
        "SELECT index_name, seq_in_index, column_name, non_unique, index_type, index_comment"
        " FROM information_schema.statistics WHERE table_schema = 's' AND table_name = 'd' ORDER BY 1, 2"
    )
    with source.connect() as left, target.connect() as right:
        assert left.rows(statistics) == right.rows(statistics)


def test_deferred_foreign_keys_come_back_with_their_keys_whatever_the_rows_say(pair: tuple[Server, Server]) -> None:
    """Their names out of order, two on one column, one to a table that is not there, a row without its parent."""
    source, target = pair
    source.execute(
        "CREATE DATABASE s", "USE s", "SET foreign_key_checks = 0", "CREATE TABLE parent (id INT PRIMARY KEY, up INT UNIQUE)",
        "CREATE TABLE child (id INT AUTO_INCREMENT PRIMARY KEY, a INT, b INT, KEY b_a (b, a), KEY a (a),"
        " CONSTRAINT z FOREIGN KEY (a) REFERENCES parent (id) ON DELETE SET NULL ON UPDATE CASCADE,"
        " CONSTRAINT m FOREIGN KEY (b) REFERENCES nobody (id), CONSTRAINT c FOREIGN KEY (a) REFERENCES parent (up))",
        "INSERT INTO parent VALUES (1, 1), (2, 2)", "INSERT INTO child (a, b) VALUES (1, 1), (NULL, 7), (99, NULL)",
    )
    found = tables_of(source, "s")
    table = found["child"]
    plain, records = dump(source, [(table, WHOLE)])
    deferral = indexes.defer(table.create_sql)
    assert "KEY" not in deferral.create_sql.replace("PRIMARY KEY", "")
    create(target, [dataclasses.replace(table, create_sql=deferral.create_sql), found["parent"]])
    with load_worker(target) as worker:
        load(worker, [table], records, sealed(plain))
        for _ in range(2):
            worker.send({"indexes": {"table": codec.encode(table), "statements": list(deferral.statements)}})
            assert worker.receive() == {"indexed": True}
        assert read_back(worker, table, records[0]) == {"same": True}
    with pytest.raises(errors.DatabaseError):  # they bind from now on
        target.execute("INSERT INTO s.child (a, b) VALUES (99, NULL)")


def test_a_definition_that_comes_out_different_is_refused(mariadb: Server) -> None:
    table = small_table(mariadb, count_of=10)
    mariadb.execute("ALTER TABLE s.t DROP KEY k")
    with load_worker(mariadb) as worker:
        worker.send({"indexes": {"table": codec.encode(table), "statements": ["ALTER TABLE `t` ADD KEY `k` (`k`,`id`)"]}})
        with pytest.raises(errors.RestoreMismatch, match=r"s\.t"):
            worker.receive()


def test_memory_stays_flat_and_imports_light(mariadb_pair: tuple[Server, Server]) -> None:
    source, target = mariadb_pair
    table = small_table(source, count_of=20_000)
    plain, records = dump(source, [(table, WHOLE)])
    create(target, [table])
    with load_worker(target) as worker:
        load(worker, [table], records, sealed(plain))
        read_back(worker, table, records[0])
        status = Path(f"/proc/{worker.pid}/status").read_text()
        peak_kib = int(status.split("VmHWM:")[1].split()[0])
        assert peak_kib < 45 * 1024
        mapped = Path(f"/proc/{worker.pid}/maps").read_text()
        assert "pydantic" not in mapped
