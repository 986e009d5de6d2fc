"""Both paths of a replay: served with TLS at an address of its own, direct over an ordinary connection; proven, or refused
before anything is loaded."""

from __future__ import annotations

import re
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kpbackup import errors
from kpbackup.model import gtid as gtids
from kpbackup.model.coordinates import Coordinates
from kpbackup.mysql import direct, follow, gtid_state, row_events
from kpbackup.mysql import events as binlog_events
from kpbackup.mysql import facts as server_facts
from kpbackup.mysql.events import StreamEvent
from tests.integration import scenario
from tests.integration.scenario import Scene
from tests.servers import plugins, ports
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


def maker(flavour: str) -> Any:
    return mariadb_server if flavour == "mariadb" else mysql97_server


@pytest.fixture(scope="module", params=["mariadb", "mysql"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    directory = tmp_path_factory.mktemp("paths")
    if request.param == "mysql":
        request.getfixturevalue("mysql97_programs")
    make = maker(request.param)
    options = ("--log-bin-compress", "--log-bin-compress-min-len=10") if request.param == "mariadb" else ()
    with (
        make(directory / "source", server_id=71, options=options) as source,
        make(directory / "target", server_id=71) as target,
    ):
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
    shop.scene.settings["recovery"]["target"] = scenario.target_login(shop.target)
    shop.scene.settings["recovery"]["replay"] = {}
    return shop.target


def newest_gtid(of: Server) -> str:
    if of.product == "MariaDB":
        return scenario.gtid(of)
    executed = gtids.MysqlGtidSet.parse(str(scenario.rows(of, "SELECT @@GLOBAL.gtid_executed")[0][0]))
    (((uuid, _), intervals),) = executed.sources
    return f"{uuid}:{intervals[-1][1]}"


def state_of(of: Server) -> list[Any]:
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
    assert state_of(target) == state_of(shop.source)
    assert_clean(target)


def test_direct_keeps_the_sources_gtids(shop: Shop, target: Server) -> None:
    shop.scene.settings["recovery"]["replay"] = {"path": "direct"}
    done = shop.scene.restore("--to", "latest")
    assert done["details"]["replay_path"] == "direct"
    assert_same(shop, target)
    assert state_of(target) == state_of(shop.source)
    if shop.flavour == "mariadb":
        assert scenario.rows(target, "SELECT @@gtid_slave_pos") == state_of(shop.source)
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
    shop.scene.settings["recovery"]["target"] = scenario.target_login(target, user="weak")
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
    before = state_of(target)
    done = shop.scene.restore("--to", "latest")
    assert done["details"]["replay_path"] == "direct, grouped"
    assert done["details"]["reached"] == scenario.position(shop.source)
    assert_same(shop, target)
    assert state_of(target) != state_of(shop.source) and state_of(target) != before
    assert_clean(target)


def test_an_account_that_may_do_neither_is_refused_before_loading(shop: Shop, target: Server, no_weak: None) -> None:
    weak_login(shop, target, *REPLICATION[shop.flavour], *BINLOG[shop.flavour])
    before = state_of(target)
    said = shop.scene.refused(13, "restore", "database", "--yes", "--to", "latest")
    assert BINLOG[shop.flavour][0] in said and REPLICATION[shop.flavour][1] in said
    assert "mysql.rds_set_external_source" in said
    assert scenario.databases(target) == []
    assert state_of(target) == before


def test_a_target_that_cannot_reach_us_is_found_before_loading(shop: Shop, target: Server) -> None:
    shop.scene.settings["recovery"]["replay"] = {"host": "no-such-host.invalid"}
    if shop.flavour == "mysql":
        assert shop.scene.restore("--to", "latest")["details"]["replay_path"] == "direct"
        return
    shop.scene.settings["recovery"]["replay"]["path"] = "served"
    said = shop.scene.refused(26, "restore", "database", "--yes", "--to", "latest")
    assert "nothing was loaded" in said and "recovery.replay.host" in said
    assert scenario.databases(target) == []


def await_at_work(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Polls while the process is at work."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


def barrier(target: Server) -> list[tuple[Any, ...]]:
    """The rows of shop.barrier, [] while it is not there."""
    return scenario.rows(target, "SELECT n FROM shop.barrier") if scenario.is_there(target, "shop", "barrier") else []


def replayed(target: Server) -> int:
    """Rows of shop.keyless, 0 while it is not there."""
    there = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'shop' AND table_name = 'keyless'"
    return int(scenario.rows(target, "SELECT COUNT(*) FROM shop.keyless")[0][0]) if scenario.rows(target, there)[0][0] else 0


@pytest.mark.parametrize(("shop", "manner"), [("mariadb", "kept"), ("mariadb", "grouped"), ("mysql", "kept")], indirect=["shop"])
def test_a_killed_direct_replay_goes_on(shop: Shop, target: Server, tmp_path: Path, no_weak: None, manner: str) -> None:
    """Killed in the middle: nothing is lost, nothing is doubled in a table without a key."""
    with maker(shop.flavour)(tmp_path / "busy", server_id=72) as source:
        scene = Scene(tmp_path / "scene", source=source, target=target)
        source.execute("CREATE DATABASE shop", "CREATE TABLE shop.keyless (n INT, v VARCHAR(500))",
                       "CREATE TABLE shop.barrier (n INT PRIMARY KEY)", "INSERT INTO shop.barrier VALUES (0)")  # fmt: skip
        scene.ok("init", "--keys", str(scene.keys))
        scene.ok("backup", "full")
        with source.connect(database="shop") as connection:
            for number in range(1500):
                connection.execute(f"INSERT INTO keyless VALUES ({number}, REPEAT('v', 400))")
                if number == 750:
                    connection.execute("UPDATE barrier SET n = 1")
        scene.ok("backup", "incremental")
        weak_login(shop, target, *(REPLICATION[shop.flavour] if manner == "grouped" else ("SHOW DATABASES",)))
        shop.scene.settings["recovery"]["replay"] = {"path": "direct"}
        scene.settings["recovery"], scene.environ = shop.scene.settings["recovery"], shop.scene.environ
        with scene.start("restore", "database", "--yes", "--to", "latest") as process:
            await_at_work(process, lambda: barrier(target) == [(0,)])
            with target.connect() as holder:  # nothing gets past it: the replay cannot end before the kill
                holder.execute("START TRANSACTION")
                assert holder.rows("SELECT n FROM shop.barrier FOR UPDATE") == [(0,)]
                await_at_work(process, lambda: replayed(target) > 100)
                process.send_signal(signal.SIGKILL)
                process.wait()
        scene.release_leases()
        assert replayed(target) < 1500
        run = scene.ok("recoveries")["recoveries"][0]["run"]
        done = scene.ok("restore", "database", "--resume", run)
        assert scenario.truth(target) == scenario.truth(source)
        assert done["details"]["replay_path"] == ("direct" if manner == "kept" else "direct, grouped")
        assert done["details"]["reached"] == scenario.position(source)


def test_filters_of_the_target_hide_nothing(shop: Shop, target: Server, tmp_path: Path) -> None:
    """Its own appliers would leave the database out; BINLOG statements are not filtered."""
    with maker(shop.flavour)(tmp_path / "filtering", server_id=73, options=("--replicate-ignore-db=shop",)) as filtering:
        filtering.execute("SET GLOBAL event_scheduler = OFF")
        shop.scene.settings["recovery"] = {**shop.scene.settings["recovery"], "target": scenario.target_login(filtering)}
        shop.scene.settings["recovery"]["replay"] = {"path": "served"}
        said = shop.scene.refused(26, "restore", "database", "--yes", "--to", "latest")
        assert "filters replication" in said and "nothing was loaded" in said
        assert scenario.databases(filtering) == []
        shop.scene.settings["recovery"]["replay"] = {}
        assert shop.scene.restore("--to", "latest")["details"]["replay_path"] == "direct"
        assert_same(shop, filtering)


def encrypted(directory: Path) -> tuple[str, ...]:
    keys = directory / "keys.txt"
    keys.write_text("1;" + "a7" * 32 + "\n")
    keys.chmod(0o644)
    loaded = plugins.options(plugins.installed_mariadb(), ["file_key_management"])
    return (*loaded, "--encrypt-binlog", f"--file-key-management-filename={keys}")


@pytest.mark.parametrize("what", ["binlog_ignore_db=hidden", "encrypted"])
def test_a_source_whose_binlog_is_not_all_to_be_read_is_refused(tmp_path: Path, what: str) -> None:
    options = encrypted(tmp_path) if what == "encrypted" else (f"--{what}",)
    with mariadb_server(tmp_path / "source", server_id=74, options=options) as source:
        scene = Scene(tmp_path / "scene", source=source)
        source.execute("CREATE DATABASE hidden")
        scene.ok("init", "--keys", str(scene.keys))
        assert what in scene.refused(14, "backup", "full")


def test_a_gtid_never_seen(shop: Shop, target: Server) -> None:
    unseen = "1-71-999999" if shop.flavour == "mariadb" else f"{shop.gone.partition(':')[0]}:999999"
    for option in ("--to-gtid", "--before-gtid"):
        assert unseen in shop.scene.refused(22, "restore", "database", "--yes", option, unseen)
    assert scenario.databases(target) == []


def test_an_event_larger_than_a_packet_of_the_target(shop: Shop, target: Server) -> None:
    """Refused by its size; of its own transaction nothing is there, of those before it no hole."""
    large = "INSERT INTO wide.t VALUES (2, REPEAT('x', 15000000))"
    before = scenario.rows(target, "SELECT @@GLOBAL.max_allowed_packet")[0][0]
    with shop.source.connect() as connection:
        connection.execute("SET GLOBAL max_allowed_packet = 67108864")
    start = new_file(shop.source)
    shop.source.execute("CREATE DATABASE wide", "CREATE TABLE wide.t (i INT PRIMARY KEY, v LONGBLOB)",
                        "INSERT INTO wide.t VALUES (1, 'x')", large)
    end = coordinates_of(shop.source)
    target.execute("SET GLOBAL max_allowed_packet = 16777216")
    try:
        with target.connect() as connection:
            facts = server_facts.read_facts(connection)
            gtid_state.set_state(connection, facts, "")
        stream = follow.follow(shop.source.endpoint, flavour=shop.flavour, start=start, until=end)
        events = (event for event in stream if isinstance(event, StreamEvent))
        scenario.wipe(target)
        with (
            direct.opened(target.endpoint, facts, direct.Manner(keeps_gtids=True)) as applier,
            pytest.raises(errors.StepFailed, match="does not fit into the max_allowed_packet"),
        ):
            applier.run(events)
        assert scenario.rows(target, "SELECT i FROM wide.t") in ([], [(1,)])
    finally:
        target.execute(f"SET GLOBAL max_allowed_packet = {before}")
        shop.source.execute("DROP DATABASE wide")


@pytest.mark.parametrize("shop", ["mariadb"], indirect=True)
def test_small_transactions_are_joined_unless_a_table_keeps_its_history(shop: Shop, target: Server, tmp_path: Path) -> None:
    """The same rows and GTID state; how many commits it took stands in the target's binlog."""
    scene = Scene(tmp_path / "scene", source=shop.source, target=target)
    scene.ok("init", "--keys", str(scene.keys))
    shop.source.execute("CREATE DATABASE many", "CREATE TABLE many.t (i INT PRIMARY KEY)")
    scene.ok("backup", "full")
    shop.source.execute(*(f"INSERT INTO many.t VALUES ({number})" for number in range(50)))
    shop.source.execute("CREATE TABLE many.kept (i INT PRIMARY KEY) WITH SYSTEM VERSIONING")
    shop.source.execute(*(f"INSERT INTO many.kept VALUES ({number})" for number in range(50)))
    scene.ok("backup", "incremental")
    scene.settings["recovery"]["replay"] = {"path": "direct"}
    done = scene.restore("--to", "latest")
    assert done["details"]["transactions"] == "101"
    assert scenario.truth(target)["many.t"] == scenario.truth(shop.source)["many.t"]
    assert state_of(target) == state_of(shop.source)
    assert 51 < gtids_in_binlog(target) < 60  # three commits for the first fifty, then one for each
    scenario.wipe(target, users=("late@'%'",))
    scene.ok("backup", "full")
    shop.source.execute(*(f"INSERT INTO many.t VALUES ({number})" for number in range(50, 80)))
    scene.ok("backup", "incremental")
    scene.settings["recovery"]["replay"] = {"path": "served"}
    scene.restore("--to", "latest")  # the table is in the set
    assert gtids_in_binlog(target) >= 30
    shop.source.execute("DROP DATABASE many")


def gtids_in_binlog(server: Server) -> int:
    files = [str(row[0]) for row in scenario.rows(server, "SHOW BINARY LOGS")]
    return sum(row[2] == "Gtid" for file in files for row in scenario.rows(server, f"SHOW BINLOG EVENTS IN '{file}'"))


def test_an_event_of_twenty_mebibytes(shop: Shop, target: Server, tmp_path: Path) -> None:
    """More than a packet of the protocol holds (16 MiB), through the archive and into the target: not a byte is cut."""
    scene = Scene(tmp_path / "scene", source=shop.source, target=target)
    scene.ok("init", "--keys", str(scene.keys))
    before = {each: scenario.rows(each, "SELECT @@GLOBAL.max_allowed_packet")[0][0] for each in (shop.source, target)}
    for each in before:
        each.execute("SET GLOBAL max_allowed_packet = 134217728")
    try:
        scene.ok("backup", "full")
        with shop.source.connect() as connection:
            connection.execute("CREATE DATABASE wide")
            connection.execute("CREATE TABLE wide.t (i INT PRIMARY KEY, v LONGBLOB)")
            connection.execute("INSERT INTO wide.t VALUES (1, %s)", (secrets.token_bytes(20 << 20),))  # nothing makes it smaller
        scene.ok("backup", "incremental")
        scene.settings["recovery"]["replay"] = {"path": "direct" if shop.flavour == "mariadb" else "served"}
        assert int(scene.restore("--to", "latest")["details"]["replayed_bytes"]) > 20 << 20
        found = [scenario.rows(each, "SELECT i, LENGTH(v), SHA2(v, 256) FROM wide.t") for each in (target, shop.source)]
        assert found[0] == found[1] and found[0][0][1] == 20 << 20
    finally:
        for each, value in before.items():
            each.execute(f"SET GLOBAL max_allowed_packet = {value}")
        shop.source.execute("DROP DATABASE wide")


@pytest.mark.parametrize("keeps_gtids", [True, False])
def test_every_answer_counts(shop: Shop, target: Server, keeps_gtids: bool) -> None:
    """When nothing fails everything is there at once. A failure of the last transaction is one, and behind a failure in the
    middle nothing was executed."""
    start = new_file(shop.source)
    with shop.source.connect() as connection:
        connection.execute("CREATE DATABASE many")
        connection.execute("CREATE TABLE many.t (i INT PRIMARY KEY)")
        for number in range(150):
            connection.execute(f"INSERT INTO many.t VALUES ({number})")
    end = coordinates_of(shop.source)
    try:
        for in_the_way in (None, 149, 30):
            target.execute("DROP DATABASE IF EXISTS many", "DROP DATABASE IF EXISTS kpbackup_restore",
                           "CREATE DATABASE kpbackup_restore")
            with target.connect() as connection:
                facts = server_facts.read_facts(connection)
                gtid_state.set_state(connection, facts, "")
            before = new_file(target)
            stream = follow.follow(shop.source.endpoint, flavour=shop.flavour, start=start, until=end)
            with direct.opened(target.endpoint, facts, direct.Manner(keeps_gtids)) as applier:
                applier.begin(start)
                if in_the_way is None:
                    assert applier.run(event for event in stream if isinstance(event, StreamEvent)).transactions == 152
                    assert scenario.rows(target, "SELECT COUNT(*) FROM many.t") == [(150,)]
                    assert binlog_bytes(target, before) < 2 * end.position  # not annotated with our own long statements
                    continue
                with pytest.raises(errors.StepFailed, match=f"Duplicate entry '{in_the_way}'"):
                    applier.run(_with_a_row_in_the_way(stream, target, in_the_way))
            there = [number for (number,) in scenario.rows(target, "SELECT i FROM many.t ORDER BY i")]
            assert there == list(range(len(there) - 1)) + [in_the_way]
            assert len(there) == in_the_way + 1 or not keeps_gtids
    finally:
        shop.source.execute("DROP DATABASE many")
        target.execute("DROP DATABASE kpbackup_restore")


def _with_a_row_in_the_way(stream: Any, target: Server, number: int) -> Iterator[StreamEvent]:
    """The events; when the table has been made, the row of one of the transactions is put there."""
    is_made = False
    for event in stream:
        if isinstance(event, StreamEvent):
            if not is_made and event.type == row_events.TABLE_MAP:
                target.execute("SET sql_log_bin = 0", f"INSERT INTO many.t VALUES ({number})")
                is_made = True
            yield event


@pytest.mark.parametrize("shop", ["mariadb"], indirect=True)
def test_domains_that_take_turns(shop: Shop, target: Server) -> None:
    """Each with sequence numbers of its own: what is not set again for every transaction is set when it changes."""
    start = new_file(shop.source)
    with shop.source.connect() as connection:
        connection.execute("CREATE DATABASE turns")
        connection.execute("CREATE TABLE turns.t (i INT PRIMARY KEY)")
        for number in range(6):
            connection.execute(f"SET gtid_domain_id = {2 - number % 2}")
            connection.execute(f"INSERT INTO turns.t VALUES ({number})")
    try:
        with target.connect() as connection:
            facts = server_facts.read_facts(connection)
            gtid_state.set_state(connection, facts, "")
        end = coordinates_of(shop.source)
        stream = follow.follow(shop.source.endpoint, flavour="mariadb", start=start, until=end)
        with direct.opened(target.endpoint, facts, direct.Manner(keeps_gtids=True)) as applier:
            applier.run(event for event in stream if isinstance(event, StreamEvent))
        assert scenario.rows(target, "SELECT COUNT(*) FROM turns.t") == [(6,)]
        states = [set(str(state_of(one)[0][0]).split(",")) for one in (shop.source, target)]
        assert states[0] == states[1] and len(states[0]) == 2
    finally:
        shop.source.execute("SET gtid_domain_id = 1", "DROP DATABASE turns")


def binlog_bytes(of: Server, since: Coordinates) -> int:
    with of.connect() as connection, connection.raw.cursor() as cursor:
        cursor.execute("SHOW BINARY LOGS")
        return sum(int(row[1]) for row in cursor if row[0] >= since.file)


def new_file(source: Server) -> Coordinates:
    """The beginning of a new binlog file."""
    source.execute("FLUSH BINARY LOGS")
    return Coordinates(coordinates_of(source).file, binlog_events.FIRST_POSITION)


def coordinates_of(source: Server) -> Coordinates:
    file, _, position = scenario.position(source).rpartition(":")
    return Coordinates(file, int(position))
