"""Chunks of rows out of real servers: whole, the same every time, and never silently short."""

from __future__ import annotations

import dataclasses
import hashlib
import ssl
from collections.abc import Iterator

import pytest

from kpbackup import errors
from kpbackup.model.inventory import ChunkBounds, Table
from kpbackup.mysql import frame, rows, server, wire
from tests.integration import edge_tables
from tests.integration.dumping import flavour_of, payloads, read_chunk, reading_socket, tables_of
from tests.servers.database import Server

LARGEST_UNSPLIT_BLOB = 0xFFFFFF - 11  # beside 00, bitmap, INT and the length's four bytes the payload is one below the limit
_TEN = "(SELECT 0 n UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5" \
       " UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)"


@pytest.fixture(params=["mariadb", "mysql97"])
def source(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A fresh server of either flavour."""
    yield request.getfixturevalue(request.param)


def fill_large_rows(source: Server) -> None:
    """40 rows of 1 MiB: more than any socket buffers."""
    source.execute(
        "CREATE DATABASE IF NOT EXISTS big", "CREATE TABLE big.wide (id int PRIMARY KEY, data longblob) ENGINE=MyISAM",
        f"INSERT INTO big.wide SELECT 10 * a.n + b.n, REPEAT(CHAR(65 + b.n), 1 << 20) FROM {_TEN} a, {_TEN} b WHERE a.n < 4",
    )


def tally_of(data: bytes, table: Table) -> tuple[frame.Frame, rows.RowTally]:
    """What a reader finds in one frame that must be all of `data`."""
    reader = frame.FrameReader([data])
    head = reader.next_frame()
    assert head is not None
    tally = rows.RowTally(keyed=bool(table.key))
    for block in reader.blocks():
        with block.raw as raw:
            tally.update(raw)
    assert reader.next_frame() is None
    return head, tally


def test_every_table_comes_whole_and_twice_the_same(source: Server) -> None:
    source.execute(*edge_tables.statements(flavour_of(source)))
    tables = tables_of(source, "edge")
    assert len(tables) > 12
    with source.connect() as connection:
        for table in tables.values():
            data, totals = read_chunk(source, table)
            head, tally = tally_of(data, table)
            assert [column.name for column in head.columns] == [column.name for column in table.columns]
            assert (tally.rows, tally.row_bytes, tally.sha256) == (totals.rows, totals.row_bytes, totals.sha256)
            quoted = table.name.replace("`", "``")
            assert totals.rows == connection.value(f"SELECT COUNT(*) FROM edge.`{quoted}`"), table.name
            assert read_chunk(source, table) == (data, totals), table.name


@pytest.mark.parametrize("buffer_bytes", [1, 4096, 4 << 20])
def test_the_buffer_does_not_matter(mariadb: Server, buffer_bytes: int) -> None:
    mariadb.execute(*edge_tables.statements("mariadb"))
    tables = tables_of(mariadb, "edge")
    for name in ("mixed", "numbers", "nothing"):
        assert read_chunk(mariadb, tables[name], buffer_bytes=buffer_bytes) == read_chunk(mariadb, tables[name])


def test_rows_beyond_16_mib_come_whole(source: Server) -> None:
    edge = LARGEST_UNSPLIT_BLOB
    sizes = [edge, edge + 1, edge + 2, 0xFFFFFF + 5, 2 * 0xFFFFFF - 15, 7]
    source.execute(
        "SET GLOBAL max_allowed_packet = 1 << 30", "CREATE DATABASE big",
        "CREATE TABLE big.huge (id int PRIMARY KEY, data longblob) ENGINE=MyISAM",
    )
    source.execute(*(f"INSERT INTO big.huge VALUES ({n}, REPEAT(CHAR({n + 65}), {size}))" for n, size in enumerate(sizes)))
    table = tables_of(source, "big")["huge"]
    data, totals = read_chunk(source, table)
    assert totals.rows == len(sizes)
    reader = frame.FrameReader([data])
    assert reader.next_frame() is not None
    found = [payload for block in reader.blocks() for payload in payloads(bytes(block.raw))]
    assert [int.from_bytes(payload[2:6], "little") for payload in found] == list(range(len(sizes)))
    for number, (payload, size) in enumerate(zip(found, sizes, strict=True)):
        assert payload.endswith(bytes([number + 65]) * size)
        assert len(payload) - size in (7, 10, 15)  # 00, bitmap, INT, and a length of 1, 4 or 9 bytes
    keyless = dataclasses.replace(table, key=())
    _, sums = read_chunk(source, keyless)
    assert sums.rows == len(sizes)
    assert int(sums.sha256, 16) == sum(int.from_bytes(hashlib.sha256(one).digest(), "big") for one in found) % (1 << 256)


def test_tls_carries_the_same_rows(mysql97: Server) -> None:
    mysql97.execute(*edge_tables.statements("mysql"))
    fill_large_rows(mysql97)
    for table in (tables_of(mysql97, "edge")["mixed"], tables_of(mysql97, "big")["wide"]):
        found = []
        for required in (True, False):
            endpoint = dataclasses.replace(mysql97.endpoint, tls=server.Tls(required=required, verify="none"))
            digest = hashlib.sha256()
            with server.connect(endpoint) as connection:
                assert isinstance(connection.raw._sock, ssl.SSLSocket) or not required
                rows.open_session(connection, "mysql")
                socket = wire.WireSocket(connection)
                found.append((rows.stream_chunk(socket, table, rows.OPEN, "mysql", digest.update), digest.hexdigest()))
        assert found[0] == found[1]


def test_without_key_the_order_does_not_matter_but_the_rows_do(source: Server) -> None:
    source.execute(
        "CREATE DATABASE s", "CREATE TABLE s.a (n int, t varchar(9))", "CREATE TABLE s.b LIKE s.a", "CREATE TABLE s.c LIKE s.a",
        "INSERT INTO s.a VALUES (1,'x'),(2,NULL),(1,'x'),(NULL,'')", "INSERT INTO s.b VALUES (NULL,''),(1,'x'),(2,NULL),(1,'x')",
        "INSERT INTO s.c VALUES (1,'x'),(2,NULL),(NULL,'')",
    )
    tables = tables_of(source, "s")
    found = {name: read_chunk(source, table)[1] for name, table in tables.items()}
    assert found["a"] == found["b"]
    assert found["a"].sha256 != found["c"].sha256


@pytest.mark.parametrize("how", ["QUERY", "CONNECTION"])
def test_a_kill_in_the_middle_of_rows_is_an_error(source: Server, how: str) -> None:
    fill_large_rows(source)
    table = tables_of(source, "big")["wide"]
    received = bytearray()
    with reading_socket(source) as (connection, socket):
        session = connection.value("SELECT CONNECTION_ID()")

        def kill_at_once(view: bytes | memoryview) -> None:
            if not received:
                source.execute(f"KILL {how} {session}")
            received.extend(view[:1])

        with pytest.raises((errors.DatabaseError, errors.ServerUnreachable)) as caught:
            rows.stream_chunk(socket, table, ChunkBounds(), flavour_of(source), kill_at_once)
    if isinstance(caught.value, errors.DatabaseError):
        assert caught.value.number in (1317, 1927)  # interrupted; connection was killed
    else:
        assert how == "CONNECTION"


def test_a_server_that_dies_is_an_error(mariadb: Server) -> None:
    fill_large_rows(mariadb)
    table = tables_of(mariadb, "big")["wide"]

    def kill_server(view: bytes | memoryview) -> None:
        if mariadb.is_running:
            mariadb.kill()

    with reading_socket(mariadb) as (_, socket), pytest.raises(errors.ServerUnreachable):
        rows.stream_chunk(socket, table, ChunkBounds(), "mariadb", kill_server)


def test_a_table_altered_after_the_snapshot_is_an_error(source: Server) -> None:
    source.execute("CREATE DATABASE s", "CREATE TABLE s.t (id int PRIMARY KEY)", "INSERT INTO s.t VALUES (1)")
    table = tables_of(source, "s")["t"]
    with reading_socket(source) as (connection, socket):
        connection.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        source.execute("ALTER TABLE s.t ADD v int, ALGORITHM=COPY")
        with pytest.raises(errors.DatabaseError) as caught:
            rows.stream_chunk(socket, table, ChunkBounds(), flavour_of(source), lambda view: None)
    assert caught.value.number == 1412


def test_global_settings_neither_cut_nor_pad(source: Server) -> None:
    source.execute(
        "CREATE DATABASE s", "CREATE TABLE s.t (id int PRIMARY KEY, c char(9), ts timestamp NULL)",
        "SET time_zone='+00:00'", "INSERT INTO s.t VALUES (1,'a','2024-05-01 10:00:00'),(2,'b',NULL),(3,NULL,NULL)",
    )
    table = tables_of(source, "s")["t"]
    before = read_chunk(source, table)
    source.execute("SET GLOBAL sql_select_limit=1, sql_mode='PAD_CHAR_TO_FULL_LENGTH', time_zone='+05:00', max_join_size=1")
    assert read_chunk(source, table) == before
    assert before[1].rows == 3


def test_a_table_one_may_not_read(source: Server) -> None:
    source.execute(
        "CREATE DATABASE s", "CREATE TABLE s.t (id int PRIMARY KEY)", "CREATE USER nobody@'%' IDENTIFIED BY 'secret-word'",
    )
    table = tables_of(source, "s")["t"]
    endpoint = dataclasses.replace(source.endpoint, user="nobody", password="secret-word")
    with server.connect(endpoint) as connection:
        rows.open_session(connection, flavour_of(source))
        socket = wire.WireSocket(connection)
        with pytest.raises(errors.PrivilegeMissing) as caught:
            rows.stream_chunk(socket, table, ChunkBounds(), flavour_of(source), lambda view: None)
    assert "secret-word" not in str(caught.value) + caught.value.hint
