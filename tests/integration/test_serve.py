"""Replay by a real server's own appliers, out of an archive taken from another one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpbackup import errors
from kpbackup.model import gtid
from kpbackup.model.coordinates import Coordinates
from kpbackup.mysql import binlog_file, events, facts, follow, grouping, replay, segmenter, server
from kpbackup.mysql.coordinates import read_coordinates
from kpbackup.mysql.events import StreamEvent
from kpbackup.mysql.replica_session import Persona
from kpbackup.mysql.serve import ReplicationSource
from kpbackup.mysql.transactions import TransactionWalker
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.mysql97 import mysql97_server

FIRST = Coordinates("binlog.000001", 4)
SCHEMA = (
    "CREATE DATABASE shop",
    "CREATE TABLE shop.a (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(200), at TIMESTAMP(6) DEFAULT CURRENT_TIMESTAMP(6))",
    "CREATE TABLE shop.b (id INT PRIMARY KEY, a INT, FOREIGN KEY (a) REFERENCES shop.a (id) ON DELETE CASCADE)",
)
WORK = (
    "INSERT INTO shop.a (v) VALUES ('one'), ('two'), ('three')",
    "INSERT INTO shop.b VALUES (1, 1), (2, 2)",
    "SET SESSION binlog_format = 'STATEMENT'", "INSERT INTO shop.a (v) VALUES ('statement')", "SET SESSION binlog_format = 'ROW'",
    "FLUSH BINARY LOGS",
    "BEGIN", "UPDATE shop.a SET v = CONCAT(v, '!')", "DELETE FROM shop.a WHERE id = 1", "COMMIT",
    "ALTER TABLE shop.a ADD COLUMN n INT DEFAULT 7",
    "XA START 'x'", "INSERT INTO shop.a (v) VALUES ('xa')", "XA END 'x'", "XA PREPARE 'x'", "XA COMMIT 'x'",
    "FLUSH BINARY LOGS", "FLUSH BINARY LOGS",
    "INSERT INTO shop.a (v) VALUES ('last')",
)


class Stored:
    """An archive in memory: the segments' plaintext, read back as the recovery will."""

    def __init__(self, source: Server, *, max_bytes: int = 800) -> None:
        flavour = "mariadb" if source.product == "MariaDB" else "mysql"
        self._open = bytearray()
        self.segments: list[tuple[segmenter.SegmentFacts, bytes]] = []
        self.reads: list[tuple[str, int]] = []
        with source.connect() as connection:
            self.end = read_coordinates(connection, facts.read_facts(connection))
        stream = follow.follow(source.endpoint, flavour=flavour, start=FIRST, until=self.end)
        for found in segmenter.segments(
            stream, flavour=flavour, start=FIRST, head=None, max_bytes=max_bytes, open_sink=self._open_sink
        ):
            self.segments.append((found, bytes(self._open)))
        self.transactions = self._transactions()

    def _open_sink(self, file: str, position: int) -> Stored:
        self._open = bytearray()
        return self

    def write(self, data: bytes, /) -> None:
        self._open += data

    def _transactions(self) -> list[Coordinates]:
        """The end of each transaction, with its GTID."""
        walker = TransactionWalker()
        done = [walker.feed(event) for event in self._events("", 0)]
        return [Coordinates(one.file, one.end, one.gtid) for one in done if one]

    def _events(self, file: str, position: int) -> Iterator[StreamEvent]:
        is_before = bool(file)
        for found, text in self.segments:
            is_before = is_before and not (found.file == file and found.end_position > position)
            if not is_before:
                yield from binlog_file.read_file(
                    [text], file=found.file, start_position=found.start_position, prefix_bytes=found.prefix_bytes
                )

    def until(self, cut: Coordinates | None = None):
        def read_from(file: str, position: int) -> Iterator[StreamEvent]:
            self.reads.append((file, position))
            for event in self._events(file, position):
                yield event
                if cut and (event.file, event.end) == (cut.file, cut.position):
                    return

        return read_from


def do_replay(target: Server, read_from, start: Coordinates = FIRST, **options) -> replay.ReplayResult:
    with target.connect() as connection:
        return replay.replay(connection, facts.read_facts(connection), read_from=read_from, start=start, **options)


def value(of: Server, sql: str) -> object:
    with of.connect() as connection:
        return connection.value(sql)


def checksums(of: Server) -> list[tuple[object, ...]]:
    with of.connect() as connection:
        tables = [row[0] for row in connection.rows("SHOW TABLES FROM shop")]
        assert tables
        return [connection.row(f"CHECKSUM TABLE shop.`{table}`") or () for table in sorted(tables)]


def replica_state(of: Server) -> tuple[object, ...]:
    """What a replay must leave as it was: channels, server id, workers."""
    with of.connect() as connection:
        if of.product == "MariaDB":
            channels, workers = "SHOW ALL SLAVES STATUS", "slave_parallel_threads"
        else:
            channels, workers = "SHOW REPLICA STATUS", "replica_parallel_workers"
        settings = connection.row(f"SELECT @@GLOBAL.server_id, @@GLOBAL.{workers}")
        return (connection.rows(channels), settings)


def test_mariadb_replay_gives_the_sources_state(mariadb_pair: tuple[Server, Server]) -> None:
    source, target = mariadb_pair
    source.execute(*SCHEMA, *WORK)
    stored = Stored(source)
    untouched = replica_state(target)
    result = do_replay(target, stored.until())
    assert result.transactions == len(stored.transactions)
    assert (result.end.file, result.end.position) == (stored.transactions[-1].file, stored.transactions[-1].position)
    assert checksums(target) == checksums(source)
    assert result.end.gtid == value(target, "SELECT @@gtid_slave_pos") == value(source, "SELECT @@gtid_binlog_pos")
    assert value(target, "SELECT @@gtid_binlog_pos") == value(source, "SELECT @@gtid_binlog_pos")
    assert replica_state(target) == untouched


def test_mariadb_replay_onto_the_same_server_id(tmp_path: Path, server_id: int) -> None:
    with (
        mariadb_server(tmp_path / "source", server_id=server_id) as source,
        mariadb_server(tmp_path / "target", server_id=server_id, options=("--skip-log-bin",)) as target,
    ):
        source.execute(*SCHEMA, *WORK)
        result = do_replay(target, Stored(source).until())
        assert checksums(target) == checksums(source)
        assert result.end.gtid == value(source, "SELECT @@gtid_binlog_pos")
        assert value(target, "SELECT @@GLOBAL.server_id") == server_id


@pytest.mark.parametrize("count", [3, 5, 8])
def test_a_cut_is_exact(mariadb_pair: tuple[Server, Server], count: int) -> None:
    source, target = mariadb_pair
    source.execute(*SCHEMA, *(f"INSERT INTO shop.a (v) VALUES ('{n}')" for n in range(10)))
    stored = Stored(source, max_bytes=10_000)
    cut = stored.transactions[count - 1]
    result = do_replay(target, stored.until(cut))
    assert result.transactions == count
    assert result.end.gtid == cut.gtid == value(target, "SELECT @@gtid_slave_pos")
    assert value(target, "SELECT COUNT(*) FROM shop.a") == count - len(SCHEMA)


def test_replay_goes_on_from_coordinates_inside_a_file(mariadb_pair: tuple[Server, Server]) -> None:
    source, target = mariadb_pair
    source.execute(*SCHEMA)
    with source.connect() as connection:
        start = read_coordinates(connection, facts.read_facts(connection))
    source.execute(*WORK)
    target.execute(*SCHEMA, "CREATE DATABASE unrelated")  # what a load leaves, with other GTIDs in its binlog
    stored = Stored(source, max_bytes=100_000)
    result = do_replay(target, stored.until(), start)
    assert result.transactions == len(stored.transactions) - len(SCHEMA)
    assert checksums(target) == checksums(source)
    assert value(target, "SELECT @@gtid_binlog_pos") == value(source, "SELECT @@gtid_binlog_pos")


@pytest.mark.parametrize("options", [(), ("--gtid-mode=OFF", "--enforce-gtid-consistency=OFF")], ids=["gtid", "anonymous"])
@pytest.mark.parametrize("is_same_id", [True, False])
def test_mysql_replay(
    tmp_path: Path, mysql97_programs: Path, server_id: int, options: tuple[str, ...], is_same_id: bool
) -> None:
    target_id = server_id if is_same_id else server_id + 5000
    with (
        mysql97_server(tmp_path / "source", server_id=server_id, options=options) as source,
        mysql97_server(tmp_path / "target", server_id=target_id, options=options) as target,
    ):
        source.execute(*SCHEMA, "SET SESSION binlog_transaction_compression = ON", *WORK)
        stored = Stored(source)
        target.execute("CREATE DATABASE unrelated")
        untouched = replica_state(target)
        cut = stored.transactions[-2]
        result = do_replay(target, stored.until(cut))
        assert result.transactions == len(stored.transactions) - 1
        assert value(target, "SELECT COUNT(*) FROM shop.a") == value(source, "SELECT COUNT(*) - 1 FROM shop.a")
        rest = do_replay(target, stored.until(), result.end, set_gtid_state=False)
        assert rest.transactions == 1
        assert checksums(target) == checksums(source)
        if not options:
            executed = gtid.MysqlGtidSet.parse(str(value(source, "SELECT @@GLOBAL.gtid_executed")))
            assert gtid.MysqlGtidSet.parse(rest.end.gtid) == executed
        assert replica_state(target) == untouched


def test_anonymous_transactions_onto_a_gtid_target_and_not_the_other_way(
    tmp_path: Path, mysql97_programs: Path, server_id: int
) -> None:
    off = ("--gtid-mode=OFF", "--enforce-gtid-consistency=OFF")
    with (
        mysql97_server(tmp_path / "anonymous", server_id=server_id, options=off) as anonymous,
        mysql97_server(tmp_path / "gtid", server_id=server_id + 5000) as with_gtid,
    ):
        anonymous.execute(*SCHEMA, *WORK)
        do_replay(with_gtid, Stored(anonymous).until())
        assert checksums(with_gtid) == checksums(anonymous)
        with_gtid.execute("CREATE DATABASE more")
        stored = Stored(with_gtid)
        before = replica_state(anonymous)
        with pytest.raises(errors.TargetRefused, match="gtid_mode"):
            do_replay(anonymous, stored.until())
        assert replica_state(anonymous) == before


@pytest.mark.parametrize("fixture", ["mariadb_pair", "mysql97_pair"])
def test_a_broken_connection_is_taken_up_again(fixture: str, request: pytest.FixtureRequest) -> None:
    source, target = request.getfixturevalue(fixture)
    source.execute(*SCHEMA, *(f"INSERT INTO shop.a (v) VALUES (REPEAT('{n % 10}', 200))" for n in range(60)))
    stored = Stored(source, max_bytes=100_000)
    broken = []

    def read_from(file: str, position: int) -> Iterator[StreamEvent]:
        stream = stored.until()(file, position)
        for number, event in enumerate(stream):
            # the third reading (the first one only looks) is the one after the break
            if number == 150 and len(stored.reads) == 2:
                broken.append(event)
                raise OSError("the network breaks here")
            yield event

    result = do_replay(target, read_from)
    assert broken
    assert len(stored.reads) == 3
    assert result.transactions == len(stored.transactions)
    assert checksums(target) == checksums(source)
    assert replica_state(target)[0] == []


def test_small_transactions_in_groups(mariadb_pair: tuple[Server, Server]) -> None:
    """Among them what cannot be joined. The same rows and GTID state, a fraction of the commits; a cut is met exactly."""
    source, target = mariadb_pair
    small = "INSERT INTO shop.a (v) VALUES ('small')"
    source.execute(
        *SCHEMA, *[small] * 45, *WORK, "CREATE TABLE shop.plain (i INT) ENGINE=MyISAM", *[small] * 3,
        "INSERT INTO shop.plain VALUES (1)", *[small] * 3, "SET SESSION gtid_domain_id = 7", *[small] * 5,
        "SET SESSION gtid_domain_id = 1", *[small] * 5,
    )  # fmt: skip
    stored = Stored(source, max_bytes=1 << 20)
    result = do_replay(target, stored.until(), grouped=True)
    assert result.transactions == len(stored.transactions)
    assert checksums(target) == checksums(source)
    assert value(target, "SELECT @@gtid_slave_pos") == value(source, "SELECT @@gtid_binlog_pos")
    with target.connect() as connection:
        files = [str(row[0]) for row in connection.rows("SHOW BINARY LOGS")]
        commits = [row for name in files for row in connection.rows(f"SHOW BINLOG EVENTS IN '{name}'") if row[2] == "Gtid"]
    assert 10 < len(commits) < len(stored.transactions) - 50
    assert replica_state(target)[0] == []
    inside = stored.transactions[30]  # within what would be a group
    target.execute("DROP DATABASE shop")
    reached = do_replay(target, stored.until(inside), grouped=True)
    assert (reached.transactions, reached.end.file, reached.end.position) == (31, inside.file, inside.position)
    assert value(target, "SELECT @@gtid_slave_pos") == inside.gtid


def test_a_connection_that_breaks_within_a_group(mariadb_pair: tuple[Server, Server]) -> None:
    """The target has taken a part of a group, and comes back for the rest of it."""
    source, target = mariadb_pair
    source.execute(*SCHEMA, "CREATE TABLE shop.wide (i INT AUTO_INCREMENT PRIMARY KEY, v LONGBLOB)")
    source.execute(*["INSERT INTO shop.wide (v) VALUES (REPEAT('w', 30000))"] * 120)
    stored = Stored(source, max_bytes=8 << 20)
    groups = grouping.Grouped(stored.until())
    asked: list[int] = []

    def read_from(file: str, position: int) -> Iterator[StreamEvent]:
        asked.append(position)
        for number, event in enumerate(groups(file, position)):
            if number == 210 and len(asked) == 2:  # the first reading only looks; behind a mebibyte that was sent
                raise OSError("the network breaks here")
            yield event

    do_replay(target, read_from, workers=0)
    first, _, again = asked
    assert first < again and again not in [transaction.position for transaction in stored.transactions]
    assert checksums(target) == checksums(source)
    assert value(target, "SELECT @@gtid_slave_pos") == value(source, "SELECT @@gtid_binlog_pos")


@pytest.mark.parametrize(("processors", "workers"), [(1, 2), (3, 3), (64, 4)])
def test_as_many_appliers_as_the_target_has_processors(mariadb: Server, tmp_path: Path, processors: int, workers: int) -> None:
    mariadb.execute(*SCHEMA, *WORK[:2])
    stored = Stored(mariadb)
    found: list[object] = []

    with mariadb_server(tmp_path / "target", server_id=7, options=(f"--thread-pool-size={processors}",)) as target:
        def read_from(file: str, position: int) -> Iterator[StreamEvent]:
            found.append(value(target, "SELECT @@slave_parallel_threads"))
            return stored.until()(file, position)

        do_replay(target, read_from)
        assert found == [0, workers]  # the first reading only looks
        assert value(target, "SELECT @@slave_parallel_threads") == 0
        assert checksums(target) == checksums(mariadb)


def test_rows_that_need_another_one_by_a_key_that_is_not_unique(mysql97_pair: tuple[Server, Server]) -> None:
    """MySQL's appliers would take both side by side."""
    source, target = mysql97_pair
    tables = (
        "SET SESSION restrict_fk_on_non_standard_key = OFF", "CREATE DATABASE shop", "CREATE TABLE shop.p (a INT, KEY (a))",
        "CREATE TABLE shop.c (id INT PRIMARY KEY AUTO_INCREMENT, a INT, FOREIGN KEY (a) REFERENCES shop.p (a))",
    )
    source.execute(*tables)
    target.execute(*tables)
    with source.connect() as connection:
        start = read_coordinates(connection, facts.read_facts(connection))
    source.execute(*(f"INSERT INTO shop.{table} (a) VALUES ({n})" for n in range(300) for table in ("p", "c")))
    assert do_replay(target, Stored(source, max_bytes=8 << 20).until(), start).transactions == 600
    assert checksums(target) == checksums(source)


@pytest.mark.parametrize("fixture", ["mariadb_pair", "mysql97_pair"])
def test_a_row_larger_than_a_packet(fixture: str, request: pytest.FixtureRequest) -> None:
    source, target = request.getfixturevalue(fixture)
    for each in (source, target):
        each.execute("SET GLOBAL max_allowed_packet = 134217728")
    source.execute(
        *SCHEMA, "CREATE TABLE shop.large (id INT PRIMARY KEY, v LONGBLOB)",
        "INSERT INTO shop.large VALUES (1, REPEAT('abc', 6000000))",
    )
    result = do_replay(target, Stored(source).until())
    assert result.sent_bytes > 18_000_000
    assert checksums(target) == checksums(source)


@pytest.mark.parametrize("fixture", ["mariadb_pair", "mysql97_pair"])
def test_an_applier_error_ends_it_with_the_servers_words(fixture: str, request: pytest.FixtureRequest) -> None:
    source, target = request.getfixturevalue(fixture)
    source.execute(*SCHEMA, *WORK)
    target.execute(*SCHEMA[:2], "INSERT INTO shop.a (id, v) VALUES (2, 'in the way')", "DROP TABLE IF EXISTS shop.b")
    untouched = replica_state(target)
    stored = Stored(source)
    start = stored.transactions[1]
    with pytest.raises(errors.StepFailed, match="Duplicate entry|duplicate|1062"):
        do_replay(target, stored.until(), Coordinates(start.file, start.position))
    assert replica_state(target) == untouched


def test_a_damaged_archive_ends_it(mariadb_pair: tuple[Server, Server]) -> None:
    source, target = mariadb_pair
    source.execute(*SCHEMA, *WORK)
    stored = Stored(source)
    untouched = replica_state(target)

    def read_from(file: str, position: int) -> Iterator[StreamEvent]:
        for number, event in enumerate(stored.until()(file, position)):
            if number == 20:
                raise errors.IntegrityError("object abc is damaged")
            yield event

    with pytest.raises(errors.IntegrityError, match="abc"):
        do_replay(target, read_from)
    assert replica_state(target) == untouched


def test_nothing_to_replay_sets_the_gtid_state(mariadb: Server, mysql97: Server) -> None:
    uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
    assert do_replay(mariadb, lambda f, p: iter(()), Coordinates("b.000001", 4, "0-9-100,5-9-3")).transactions == 0
    assert value(mariadb, "SELECT @@gtid_slave_pos") == value(mariadb, "SELECT @@gtid_binlog_pos") == "0-9-100,5-9-3"
    do_replay(mysql97, lambda f, p: iter(()), Coordinates("b.000001", 4, f"{uuid}:1-100"))
    assert value(mysql97, "SELECT @@GLOBAL.gtid_executed") == f"{uuid}:1-100"


@pytest.mark.parametrize("fixture", ["mariadb_pair", "mysql97_pair"])
def test_events_are_enabled_as_they_were(fixture: str, request: pytest.FixtureRequest) -> None:
    source, target = request.getfixturevalue(fixture)
    off = "SET GLOBAL event_scheduler = OFF"
    target.execute(off)
    source.execute(
        off, *SCHEMA, "CREATE USER someone@'%' IDENTIFIED BY 'pw'", "SET sql_mode = 'ANSI', time_zone = '+03:00'",
        "CREATE DEFINER = someone@'%' EVENT shop.e ON SCHEDULE EVERY 1 DAY DO INSERT INTO \"shop\".a (v) VALUES ('e')",
        "CREATE EVENT shop.off ON SCHEDULE EVERY 1 DAY DISABLE COMMENT 'do not ENABLE' DO SET @x = 1",
        "CREATE EVENT shop.later ON SCHEDULE EVERY 1 DAY DISABLE DO SET @x = 1", "ALTER EVENT shop.later ENABLE",
        "USE shop", "CREATE EVENT IF NOT EXISTS `re``named` ON SCHEDULE EVERY 1 DAY DO SET @x = 'DISABLE'",
        "ALTER EVENT `re``named` RENAME TO shop.`renamed`", "ALTER EVENT renamed COMMENT 'DISABLE'",
    )
    result = do_replay(target, Stored(source).until())
    assert result.enabled_events == (("shop", "e"), ("shop", "later"), ("shop", "renamed"))
    query = (
        "SELECT event_name, definer, status, sql_mode, time_zone, character_set_client, collation_connection"
        " FROM information_schema.events ORDER BY event_name"
    )
    with source.connect() as ours, target.connect() as theirs:
        assert ours.rows(query) == theirs.rows(query)
    executed = "SELECT @@gtid_binlog_pos" if source.product == "MariaDB" else "SELECT @@GLOBAL.gtid_executed"
    assert value(source, executed) == value(target, executed)


@pytest.mark.parametrize("fixture", ["mariadb_pair", "mysql97_pair"])
def test_missing_rights_are_named_before_anything_is_changed(fixture: str, request: pytest.FixtureRequest) -> None:
    source, target = request.getfixturevalue(fixture)
    event = "CREATE EVENT shop.e ON SCHEDULE EVERY 1 DAY DO SET @x = 1"
    source.execute("SET GLOBAL event_scheduler = OFF", *SCHEMA, *WORK, event)
    target.execute("SET GLOBAL event_scheduler = OFF", "CREATE USER weak@'127.0.0.1' IDENTIFIED BY 'pw'")
    target.execute("GRANT SELECT, RELOAD ON *.* TO weak@'127.0.0.1'")
    weak = server.Endpoint(host=target.host, port=target.port, user="weak", password="pw")
    stored = Stored(source)
    before = replica_state(target)
    with server.connect(weak) as connection:
        with pytest.raises(errors.PrivilegeMissing, match="REPLICATION.SLAVE.ADMIN") as caught:
            replay.replay(connection, facts.read_facts(connection), read_from=stored.until(), start=FIRST)
        assert "EVENT" in caught.value.message and "RELOAD" not in caught.value.message
        assert replica_state(target) == before and stored.reads == []
    target.execute(caught.value.hint)  # is a statement, and enough
    with server.connect(weak) as connection:
        result = replay.replay(connection, facts.read_facts(connection), read_from=stored.until(), start=FIRST)
    assert result.enabled_events == (("shop", "e"),)
    assert checksums(target) == checksums(source)
    assert replica_state(target) == before


def test_a_target_that_replicates_is_refused(mariadb: Server) -> None:
    mariadb.execute("CHANGE MASTER 'other' TO MASTER_HOST='127.0.0.1', MASTER_USER='x'")
    with pytest.raises(errors.TargetRefused, match="other"):
        do_replay(mariadb, lambda f, p: iter(()))


def test_only_the_one_time_account_gets_the_stream(mariadb: Server) -> None:
    for flavour, version in (("mariadb", "10.11.19-MariaDB-log"), ("mysql", "9.7.4")):
        persona = Persona(flavour, version, 77, "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "ON")
        with ReplicationSource(
            host="127.0.0.1", family=socket.AF_INET, persona=persona, read_from=lambda f, p: iter(())
        ) as source:
            for password in ("", "wrong", source.account.password[:-1]):
                wrong = server.Endpoint(host="127.0.0.1", port=source.port, user=source.account.user, password=password)
                with pytest.raises(errors.ServerUnreachable, match="Access denied"):
                    server.connect(wrong)
            assert source.account.password not in repr(source.account)
            assert source.failure() is None


def test_heartbeat_and_rotate_are_not_in_the_way_of_a_slow_archive(mariadb_pair: tuple[Server, Server]) -> None:
    """The last file's ROTATE is in the archive and must not move the replica to a file that never comes."""
    source, target = mariadb_pair
    source.execute(*SCHEMA, "INSERT INTO shop.a (v) VALUES ('x')", "FLUSH BINARY LOGS")
    stored = Stored(source)
    stored.segments = [(found, text) for found, text in stored.segments if found.file == FIRST.file]
    assert any(event.type == events.ROTATE for event in stored._events("", 0))
    result = do_replay(target, stored.until())
    assert result.end.file == FIRST.file
    assert checksums(target) == checksums(source)
