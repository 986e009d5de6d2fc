"""What transactions did, told from their events alone, against what the servers say: every column type, compressed or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpbackup.model.coordinates import Coordinates
from kpbackup.mysql import facts, follow, payload, server
from kpbackup.mysql.contents import Content, ContentReader
from kpbackup.mysql.coordinates import read_coordinates
from kpbackup.mysql.events import StreamEvent
from kpbackup.mysql.transactions import TransactionWalker
from tests.integration import edge_tables
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.mysql97 import mysql97_server

COMPRESS = {
    "mariadb": "SET GLOBAL log_bin_compress = {}, GLOBAL log_bin_compress_min_len = 10",
    "mysql": "SET SESSION binlog_transaction_compression = {}",
}


@pytest.fixture(scope="module", params=["mariadb", "mysql"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Server]]:
    directory = tmp_path_factory.mktemp("contents")
    if request.param == "mysql":
        request.getfixturevalue("mysql97_programs")
    make = mariadb_server if request.param == "mariadb" else mysql97_server
    with make(directory / "source", server_id=71) as started:
        yield request.param, started


def end(of: Server) -> Coordinates:
    with of.connect() as connection:
        return read_coordinates(connection, facts.read_facts(connection))


def events_between(flavour: str, of: Server, start: Coordinates, until: Coordinates) -> Iterator[StreamEvent]:
    for item in follow.follow(of.endpoint, flavour=flavour, start=start, until=until):
        if isinstance(item, StreamEvent):
            yield item


def contents(flavour: str, of: Server, start: Coordinates) -> list[Content]:
    walker, reader, found = TransactionWalker(), ContentReader(), []
    for event in events_between(flavour, of, start, end(of)):
        reader.feed(event)
        if walker.feed(event) is not None:
            found.append(reader.take())
    return found


def in_session(of: Server, *sql: str) -> None:
    with of.connect() as connection:
        for statement in sql:
            connection.execute(statement)


def counts(connection: server.Connection) -> dict[str, int]:
    tables = connection.rows(f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{edge_tables.SCHEMA}'")
    return {
        f"{edge_tables.SCHEMA}.{name}": int(connection.value(f"SELECT COUNT(*) FROM {edge_tables._name(name)}") or 0)
        for (name,) in tables
    }


@pytest.mark.parametrize("is_compressed", [False, True])
def test_rows_are_counted_whatever_they_hold(source: tuple[str, Server], is_compressed: bool) -> None:
    flavour, of = source
    compress, plain = COMPRESS[flavour].format("ON" if is_compressed else "OFF"), COMPRESS[flavour].format("OFF")
    start = end(of)
    in_session(of, compress, *edge_tables.statements(flavour))
    filled = contents(flavour, of, start)
    with of.connect() as connection:
        expected = {name: rows for name, rows in counts(connection).items() if rows}
        found: Counter[str] = Counter()
        for content in filled:
            for table in content.tables:
                assert table.inserted is not None, table
                found[table.name] += table.inserted
        assert found == expected
        start = end(of)
        connection.execute(compress)
        connection.execute("SET SESSION foreign_key_checks = 0, sql_mode = 'ALLOW_INVALID_DATES'")
        changes = {}
        for name, rows in expected.items():
            quoted = edge_tables._name(name.partition(".")[2])
            columns = [str(row[0]) for row in connection.rows(f"SHOW COLUMNS FROM {quoted}")]
            column = next(c for c in reversed(columns) if c not in ("kept", "twice", "hidden, col"))
            changed = connection.raw.query(f"UPDATE IGNORE {quoted} SET `{column}` = NULL WHERE `{column}` IS NOT NULL")
            changes[name] = (int(changed), rows)
            connection.execute(f"DELETE FROM {quoted}")
    kinds = {event.type for event in events_between(flavour, of, start, end(of))}
    assert is_compressed == bool(kinds & {40, *range(166, 172)}), kinds
    told: Counter[tuple[str, str]] = Counter()
    for content in contents(flavour, of, start):
        for change in content.tables:
            told[change.name, "updated"] += change.updated or 0
            told[change.name, "deleted"] += change.deleted or 0
    assert sum(updated for updated, _ in changes.values()) > 300
    for name, (updated, rows) in changes.items():
        assert (told[name, "updated"], told[name, "deleted"]) == (updated, rows), name
    in_session(of, plain, f"DROP DATABASE {edge_tables.SCHEMA}")


def test_compressed_transactions_hold_the_same_events(mysql97_programs: Path, source: tuple[str, Server]) -> None:
    flavour, of = source
    if flavour != "mysql":
        pytest.skip("MariaDB compresses single events")
    work = ("BEGIN", "INSERT INTO twin.t VALUES (1, REPEAT('x', 3000)), (2, 'y')", "UPDATE twin.t SET v = 'z'", "COMMIT")
    in_session(of, "CREATE DATABASE twin", "CREATE TABLE twin.t (id INT PRIMARY KEY, v TEXT)")
    kinds = []
    for switch in ("OFF", "ON"):
        start = end(of)
        in_session(of, f"SET SESSION binlog_transaction_compression = {switch}", *work)
        raw = list(events_between(flavour, of, start, end(of)))
        kinds.append([(event.type, event.data[19:-4]) for event in payload.unpacked(iter(raw)) if event.type > 16])
        in_session(of, "DELETE FROM twin.t")
        assert any(event.type == 40 for event in raw) == (switch == "ON")
    (plain_gtid, *plain), (compressed_gtid, *compressed) = kinds
    assert compressed == plain
    assert [kind for kind, _ in plain] == [19, 30, 19, 31]


def test_statements_are_named_and_secrets_are_not(source: tuple[str, Server]) -> None:
    flavour, of = source
    start = end(of)
    in_session(
        of, "CREATE DATABASE told", "USE told", "CREATE TABLE a (id INT PRIMARY KEY)", "INSERT INTO a VALUES (1), (2)",
        "TRUNCATE a", "CREATE USER secretive@'%' IDENTIFIED BY 'Geheimnis-1'", "DROP TABLE a", "DROP DATABASE told",
        "DROP USER secretive@'%'",
    )
    found = contents(flavour, of, start)
    assert [statement.verb for content in found for statement in content.statements] == [
        "CREATE DATABASE", "CREATE TABLE", "TRUNCATE TABLE", "CREATE USER", "DROP TABLE", "DROP DATABASE", "DROP USER",
    ]
    assert [content.tables[0].inserted for content in found if content.tables] == [2]
    targets = [statement.targets for content in found for statement in content.statements if statement.targets]
    assert targets == [(("told", ""),), *[(("told", "a"),)] * 3, (("told", ""),)]
    assert "Geheimnis" not in str(found)
    assert "secretive" not in " ".join(text for content in found for text in content.texts)
