"""A replica as the source: what comes from its primary is backed up and archived by the replica's own coordinates."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration import scenario
from tests.integration.deployment import until
from tests.integration.scenario import Scene
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.mysql97 import mysql97_server

BANK = (
    "CREATE DATABASE bank", "CREATE TABLE bank.account (id INT PRIMARY KEY, amount INT NOT NULL)",
    "INSERT INTO bank.account VALUES (1, 1000), (2, 1000), (3, 1000)",
    "CREATE TABLE bank.big (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(200))",
    "INSERT INTO bank.big (v) VALUES ('a'), ('b'), ('c'), ('d')",
    *("INSERT INTO bank.big (v) SELECT REPEAT(v, 2) FROM bank.big WHERE CHAR_LENGTH(v) < 90" for _ in range(6)),
)  # fmt: skip


@pytest.fixture(params=["mariadb", "mysql97"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Server]]:
    found: tuple[Server, Server] = request.getfixturevalue(f"{request.param}_pair")
    yield found


def follow(replica: Server, primary: Server, *, start: bool = True) -> None:
    if is_mariadb(replica):
        change = (f"CHANGE MASTER TO MASTER_HOST='{primary.host}', MASTER_PORT={primary.port}, MASTER_USER='root',"
                  " MASTER_USE_GTID=slave_pos", "START SLAVE")  # fmt: skip
    else:
        change = (f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='{primary.host}', SOURCE_PORT={primary.port}, SOURCE_USER='root',"
                  " SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1", "START REPLICA")  # fmt: skip
    replica.execute("FLUSH BINARY LOGS", "FLUSH BINARY LOGS", "SET GLOBAL read_only = ON", *(change if start else change[:1]))


def is_mariadb(server: Server) -> bool:
    return "MariaDB" in str(scenario.rows(server, "SELECT VERSION()")[0][0])


def state(server: Server) -> str:
    sql = "SELECT @@gtid_binlog_pos" if is_mariadb(server) else "SELECT @@gtid_executed"
    return str(scenario.rows(server, sql)[0][0])


def place(server: Server) -> str:
    """FILE:POSITION, as the server itself says."""
    row = scenario.rows(server, "SHOW MASTER STATUS" if is_mariadb(server) else "SHOW BINARY LOG STATUS")[0]
    return f"{row[0]}:{row[1]}"


@contextmanager
def transferring(primary: Server) -> Iterator[None]:
    """Transfers that keep the sum, committed as fast as the primary takes them."""
    stop = threading.Event()

    def transfer() -> None:
        with primary.connect() as connection:
            while not stop.is_set():
                for sql in ("START TRANSACTION", "UPDATE bank.account SET amount = amount - 1 WHERE id = 1",
                            "UPDATE bank.account SET amount = amount + 1 WHERE id = 2", "COMMIT"):  # fmt: skip
                    connection.execute(sql)

    thread = threading.Thread(target=transfer)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_replica_is_backed_up_and_restored(pair: tuple[Server, Server], tmp_path: Path) -> None:
    primary, replica = pair
    scene = Scene(tmp_path / "scene", source=replica, target=primary)
    primary.execute(*BANK)
    follow(replica, primary)
    until(lambda: state(replica) == state(primary), what="the replica to have it all")
    scene.ok("init", "--keys", str(scene.keys))
    with transferring(primary):
        backup = scene.ok("backup", "full")
        scene.ok("backup", "incremental")
    primary.execute("CREATE TABLE bank.since (id INT PRIMARY KEY)", "INSERT INTO bank.since VALUES (1)")
    until(lambda: state(replica) == state(primary), what="the replica to have that too")
    scene.ok("backup", "incremental")
    own_file = place(replica).partition(":")[0]
    assert own_file != place(primary).partition(":")[0]
    assert backup["coordinates"].startswith(f"{own_file}:")

    replica.execute("STOP SLAVE" if is_mariadb(replica) else "STOP REPLICA")
    primary.execute("SET GLOBAL event_scheduler = OFF")
    wanted, reached = scenario.truth(replica), state(replica)
    coordinates = backup["coordinates"].split(" ")[0]
    scene.restore("--to-position", coordinates, "--overwrite", "bank")  # the set alone is one consistent point
    assert int(scenario.rows(primary, "SELECT SUM(amount) FROM bank.account")[0][0]) == 3000
    scene.restore("--to", "latest", "--overwrite", "bank")
    assert scenario.truth(primary) == wanted
    assert wanted["bank.since"][1] == 1 and wanted["bank.big"][1] > 50
    if not is_mariadb(primary):
        assert state(primary) == reached


@pytest.mark.parametrize("flavour", ["mariadb", "mysql97"])
def test_a_replica_that_does_not_log_what_it_applies_is_refused(
    request: pytest.FixtureRequest, tmp_path: Path, flavour: str
) -> None:
    primary: Server = request.getfixturevalue(flavour)
    start = {"mariadb": mariadb_server, "mysql97": mysql97_server}[flavour]
    off = {"mariadb": "--skip-log-slave-updates", "mysql97": "--log-replica-updates=OFF"}[flavour]
    with start(tmp_path / "replica", server_id=77, options=(off, "--replicate-ignore-db=hidden")) as replica:
        follow(replica, primary, start=False)
        scene = Scene(tmp_path / "scene", source=replica)
        scene.ok("init", "--keys", str(scene.keys))
        said = scene.refused(14, "backup", "full")
        assert "a replica without log_replica_updates: changes that come from elsewhere are not in its binlog" in said
        assert "restart, or back up the source" in said
        assert not [key for key in scene.manifests() if "/sets/" in key]
        findings = scene.run("--json", "doctor").document["findings"]
        (filtering,) = [one for one in findings if "replicate_ignore_db=hidden" in one["what"]]
        assert filtering["severity"] == "warning" and "no backup of it does" in filtering["why"]
