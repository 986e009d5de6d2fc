"""Both paths of a replay: served with TLS at an address of its own, direct over an ordinary connection; proven, or refused
before anything is loaded."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kpbackup.model import gtid as gtids
from tests.integration import scenario
from tests.integration.scenario import Scene
from tests.servers import ports
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.mysql97 import mysql97_server

SHOP = (
    "CREATE DATABASE shop", "USE shop", "CREATE TABLE a (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(200), d DATETIME(6))",
    "CREATE TABLE keyless (v VARCHAR(40), n INT)", "CREATE TABLE large (id INT PRIMARY KEY, v LONGBLOB)",
    "INSERT INTO a (v) VALUES ('one'), ('two'), ('three')",
)
HISTORY = (
    "INSERT INTO a (v, d) VALUES ('four', NOW(6)), ('fünf', NULL)",
    "BEGIN", "UPDATE a SET v = CONCAT(v, '!')", "INSERT INTO keyless VALUES ('k', 1), ('k', 1)", "COMMIT",
    "SET SESSION binlog_format = 'STATEMENT'", "SET @x = 'ä', timestamp = 1700000000.25",
    "INSERT INTO a (v, d) VALUES (CONCAT(@x, RAND(7)), NOW(6))", "INSERT INTO a (v) VALUES (LAST_INSERT_ID())",
    "SET timestamp = DEFAULT", "SET SESSION binlog_format = 'ROW'", "FLUSH BINARY LOGS",
    "CREATE TABLE copy (PRIMARY KEY (id)) SELECT * FROM a", "SET sql_mode = 'ANSI_QUOTES'",
    'CREATE VIEW "few" AS SELECT "id" FROM "a" WHERE "id" < 4', "SET sql_mode = DEFAULT",
    "CREATE TRIGGER marked BEFORE INSERT ON a FOR EACH ROW SET NEW.v = CONCAT('t', NEW.v)", "INSERT INTO a (v) VALUES ('x')",
    "CREATE EVENT daily ON SCHEDULE EVERY 1 DAY DO DELETE FROM a", "CREATE TABLE plain (n INT) ENGINE = MyISAM",
    "INSERT INTO plain VALUES (1), (2)",
    "INSERT INTO large VALUES (1, REPEAT('x', 900000)), (2, REPEAT('y', 900000)), (3, REPEAT('z', 1500000))",
    "UPDATE large SET v = CONCAT(v, '1')", "DELETE FROM keyless LIMIT 1", "CREATE USER late@'%' IDENTIFIED BY 'late'",
    "INSERT INTO a (v) VALUES ('last')",
)


@dataclass
class Shop:
    """A source, its archive, and a target that is wiped before each test. `gone` is a transaction to leave out."""

    flavour: str
    scene: Scene
    source: Server
    target: Server
    gone: str


@pytest.fixture(scope="module", params=["mariadb", "mysql"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    directory = tmp_path_factory.mktemp("paths")
    if request.param == "mysql":
        request.getfixturevalue("mysql97_programs")
    make = mariadb_server if request.param == "mariadb" else mysql97_server
    with make(directory / "source", server_id=71) as source, make(directory / "target", server_id=71) as target:
        scene = Scene(directory / "scene", source=source, target=target)
        source.execute(*SHOP)
        target.execute("SET GLOBAL event_scheduler = OFF", "SET GLOBAL log_bin_trust_function_creators = 1")
        scene.ok("init", "--keys", str(scene.keys))
        scene.ok("backup", "full")
        compressed = ["SET SESSION binlog_transaction_compression = ON"] if request.param == "mysql" else []
        source.execute("SET GLOBAL event_scheduler = OFF", "USE shop", *compressed, *HISTORY)
        gone = newest_gtid(source)
        source.execute("INSERT INTO shop.keyless VALUES ('after', 2)")
        scene.ok("backup", "incremental")
        yield Shop(request.param, scene, source, target, gone)


@pytest.fixture
def target(shop: Shop) -> Server:
    scenario.wipe(shop.target, users=("late@'%'",))
    shop.scene.settings["recovery"]["target"] = scenario.login(shop.target)
    shop.scene.settings["recovery"]["replay"] = {}
    return shop.target


def newest_gtid(of: Server) -> str:
    if of.product == "MariaDB":
        return scenario.gtid(of)
    executed = gtids.MysqlGtidSet.parse(str(scenario.rows(of, "SELECT @@GLOBAL.gtid_executed")[0][0]))
    (((uuid, _), intervals),) = executed.sources
    return f"{uuid}:{intervals[-1][1]}"


def gtid_state(of: Server) -> list[Any]:
    if of.product == "MariaDB":
        return scenario.rows(of, "SELECT @@GLOBAL.gtid_binlog_pos")
    return scenario.rows(of, "SELECT @@GLOBAL.gtid_executed")


def assert_clean(target: Server) -> None:
    """No replica configuration, no scratch schema, no settings of a replay."""
    assert scenario.rows(target, "SHOW ALL SLAVES STATUS" if target.product == "MariaDB" else "SHOW REPLICA STATUS") == []
    assert scenario.databases(target) == ["shop"]
    assert scenario.rows(target, "SELECT @@GLOBAL.server_id") == [(71,)]


def assert_same(shop: Shop, target: Server) -> None:
    assert scenario.truth(target) == scenario.truth(shop.source)
    assert scenario.definitions(target) == scenario.definitions(shop.source)
    states = "SELECT event_name, status, definer, time_zone, sql_mode FROM information_schema.events"
    assert scenario.rows(target, states) == scenario.rows(shop.source, states)
    assert scenario.rows(target, "SHOW CREATE USER late@'%'") == scenario.rows(shop.source, "SHOW CREATE USER late@'%'")


def channel(target: Server) -> tuple[str, ...]:
    """Host, port and TLS of the replica's channel, () while there is none."""
    with target.connect() as connection, connection.raw.cursor() as cursor:
        cursor.execute("SHOW ALL SLAVES STATUS" if target.product == "MariaDB" else "SHOW REPLICA STATUS")
        names = [column[0] for column in cursor.description]
        wanted = re.compile(r"(Master|Source)_(Host|Port|SSL_Allowed)")
        return tuple(str(value) for row in cursor for name, value in zip(names, row, strict=True) if wanted.fullmatch(name))


def test_served_at_a_given_address_with_tls(shop: Shop, target: Server) -> None:
    port = ports.free_port()
    shop.scene.settings["recovery"]["replay"] = {"path": "served", "host": "localhost", "port": port}
    seen = set()
    with shop.scene.start("restore", "database", "--yes", "--to", "latest") as process:
        while process.poll() is None:
            seen.add(channel(target))
            time.sleep(0.01)
        assert process.returncode == 0, process.communicate()
    assert ("localhost", str(port), "Yes") in seen
    assert_same(shop, target)
    assert gtid_state(target) == gtid_state(shop.source)
    assert_clean(target)


def test_direct_keeps_the_sources_gtids(shop: Shop, target: Server) -> None:
    shop.scene.settings["recovery"]["replay"] = {"path": "direct"}
    done = shop.scene.restore("--to", "latest")
    assert done["details"]["replay_path"] == "direct"
    assert_same(shop, target)
    assert gtid_state(target) == gtid_state(shop.source)
    if shop.flavour == "mariadb":
        assert scenario.rows(target, "SELECT @@gtid_slave_pos") == gtid_state(shop.source)
    assert_clean(target)


def test_direct_leaves_out_and_stops_like_served(shop: Shop, target: Server) -> None:
    shop.scene.settings["recovery"]["replay"] = {"path": "direct"}
    shop.scene.restore("--to-gtid", shop.gone, "--skip-gtid", shop.gone)
    assert scenario.rows(target, "SELECT COUNT(*) FROM shop.a WHERE v = 'tlast'") == [(0,)]
    assert scenario.rows(target, "SELECT COUNT(*) FROM shop.keyless WHERE v = 'after'") == [(0,)]
    state = str(scenario.rows(target, "SELECT @@gtid_slave_pos" if shop.flavour == "mariadb" else "SELECT @@gtid_executed")[0][0])
    assert gtids.contains(shop.flavour, state, shop.gone)
    assert not gtids.contains(shop.flavour, state, newest_gtid(shop.source))


def weak_login(shop: Shop, target: Server, *refused: str) -> None:
    """An account of the target that has all rights but these."""
    target.execute("DROP USER IF EXISTS weak@'%'", "CREATE USER weak@'%' IDENTIFIED BY 'weak'",
                   "GRANT ALL ON *.* TO weak@'%' WITH GRANT OPTION")
    target.execute(f"REVOKE {', '.join(refused)} ON *.* FROM weak@'%'")
    shop.scene.settings["recovery"]["target"] = scenario.login(target, user="weak")
    shop.scene.environ["KPBACKUP_RECOVERY__TARGET__PASSWORD"] = "weak"


@pytest.fixture
def no_weak(shop: Shop) -> Iterator[None]:
    yield
    shop.target.execute("DROP USER IF EXISTS weak@'%'")
    del shop.scene.environ["KPBACKUP_RECOVERY__TARGET__PASSWORD"]


REPLICATION = {"mariadb": ("SUPER", "REPLICATION SLAVE ADMIN", "REPLICATION MASTER ADMIN"),
               "mysql": ("SUPER", "REPLICATION_SLAVE_ADMIN")}
BINLOG = {"mariadb": ("BINLOG REPLAY",), "mysql": ("BINLOG_ADMIN",)}


def test_an_account_that_may_not_replicate_gets_the_direct_path(shop: Shop, target: Server, no_weak: None) -> None:
    """Grouped under GTIDs of the target's own; the evidence has the source's coordinates."""
    weak_login(shop, target, *REPLICATION[shop.flavour])
    before = gtid_state(target)
    done = shop.scene.restore("--to", "latest")
    assert done["details"]["replay_path"] == "direct, grouped"
    assert done["details"]["reached"] == scenario.position(shop.source)
    assert_same(shop, target)
    assert gtid_state(target) != gtid_state(shop.source) and gtid_state(target) != before
    assert_clean(target)


def test_an_account_that_may_do_neither_is_refused_before_loading(shop: Shop, target: Server, no_weak: None) -> None:
    weak_login(shop, target, *REPLICATION[shop.flavour], *BINLOG[shop.flavour])
    before = gtid_state(target)
    said = shop.scene.refused(13, "restore", "database", "--yes", "--to", "latest")
    assert BINLOG[shop.flavour][0] in said and REPLICATION[shop.flavour][1] in said
    assert "mysql.rds_set_external_source" in said
    assert scenario.databases(target) == []
    assert gtid_state(target) == before


def test_a_target_that_cannot_reach_us_is_found_before_loading(shop: Shop, target: Server) -> None:
    shop.scene.settings["recovery"]["replay"] = {"host": "no-such-host.invalid"}
    if shop.flavour == "mysql":
        assert shop.scene.restore("--to", "latest")["details"]["replay_path"] == "direct"
        return
    shop.scene.settings["recovery"]["replay"]["path"] = "served"
    said = shop.scene.refused(26, "restore", "database", "--yes", "--to", "latest")
    assert "nothing was loaded" in said and "recovery.replay.host" in said
    assert scenario.databases(target) == []


def replayed(target: Server) -> int:
    """Rows of shop.keyless, 0 while it is not there."""
    there = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'shop' AND table_name = 'keyless'"
    return int(scenario.rows(target, "SELECT COUNT(*) FROM shop.keyless")[0][0]) if scenario.rows(target, there)[0][0] else 0


@pytest.mark.parametrize(("shop", "manner"), [("mariadb", "kept"), ("mariadb", "grouped"), ("mysql", "kept")], indirect=["shop"])
def test_a_killed_direct_replay_goes_on(shop: Shop, target: Server, tmp_path: Path, no_weak: None, manner: str) -> None:
    """Killed in the middle: nothing is lost, nothing is doubled in a table without a key."""
    make = mariadb_server if shop.flavour == "mariadb" else mysql97_server
    with make(tmp_path / "busy", server_id=72) as source:
        scene = Scene(tmp_path / "scene", source=source, target=target)
        source.execute("CREATE DATABASE shop", "CREATE TABLE shop.keyless (n INT, v VARCHAR(500))")
        scene.ok("init", "--keys", str(scene.keys))
        scene.ok("backup", "full")
        with source.connect(database="shop") as connection:
            for number in range(1500):
                connection.execute(f"INSERT INTO keyless VALUES ({number}, REPEAT('v', 400))")
        scene.ok("backup", "incremental")
        weak_login(shop, target, *(REPLICATION[shop.flavour] if manner == "grouped" else ("SHOW DATABASES",)))
        shop.scene.settings["recovery"]["replay"] = {"path": "direct"}
        scene.settings["recovery"], scene.environ = shop.scene.settings["recovery"], shop.scene.environ
        with scene.start("restore", "database", "--yes", "--to", "latest") as process:
            while replayed(target) <= 100:
                assert process.poll() is None, process.communicate()
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        scene.release_leases()
        assert replayed(target) < 1500
        run = scene.ok("recoveries")["recoveries"][0]["run"]
        done = scene.ok("restore", "database", "--resume", run)
        assert scenario.truth(target) == scenario.truth(source)
        assert done["details"]["replay_path"] == ("direct" if manner == "kept" else "direct, grouped")
        assert done["details"]["reached"] == scenario.position(source)
