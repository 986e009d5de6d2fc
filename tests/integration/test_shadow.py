"""Chosen tables of a past moment beside the living ones: exact, resumable, and nothing else on the server is touched."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration import scenario
from tests.integration.scenario import Scene
from tests.servers.database import Server

PLATFORM = (
    "CREATE DATABASE platform CHARACTER SET utf8mb4", "CREATE DATABASE other", "USE platform",
    "CREATE TABLE users (id INT PRIMARY KEY, name VARCHAR(20))",
    "CREATE TABLE clusters (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(40), seen INT NOT NULL DEFAULT 0, KEY (name))",
    "CREATE TABLE permissions (id INT PRIMARY KEY, cluster_id INT NOT NULL, user_id INT, FOREIGN KEY (cluster_id)"
    " REFERENCES clusters (id) ON DELETE CASCADE, CONSTRAINT who FOREIGN KEY (user_id) REFERENCES users (id))",
    "CREATE TABLE logs (id INT PRIMARY KEY AUTO_INCREMENT, cluster_id INT, text VARCHAR(40))",
    "CREATE TABLE other.clusters (id INT PRIMARY KEY)",
    "INSERT INTO users VALUES (1, 'ann'), (2, 'bob')", "INSERT INTO clusters (name) VALUES ('一号集群'), ('two'), ('three')",
    "INSERT INTO permissions VALUES (1, 1, 1), (2, 2, 1), (3, 2, 2), (4, 3, NULL)", "INSERT INTO logs VALUES (1, 2, 'a')",
    "CREATE VIEW names AS SELECT name FROM clusters",
    "CREATE TRIGGER seen AFTER INSERT ON clusters FOR EACH ROW INSERT INTO logs (text) VALUES ('made')",
)  # fmt: skip
SINCE = (
    "USE platform", "START TRANSACTION", "UPDATE clusters SET seen = 1 WHERE id = 2", "INSERT INTO logs (text) VALUES ('b')",
    "INSERT INTO other.clusters VALUES (7)", "SAVEPOINT s", "INSERT INTO permissions VALUES (9, 1, NULL)", "ROLLBACK TO s",
    "COMMIT",
    # of several tables in one statement the last, then the first is left out
    "UPDATE clusters c JOIN logs l ON l.cluster_id = c.id SET c.seen = 2, l.text = 'c'",
    "UPDATE logs l JOIN clusters c ON l.cluster_id = c.id SET l.text = 'd', c.name = 'second'",
    "ALTER TABLE clusters ADD COLUMN more VARCHAR(9) DEFAULT 'x', ADD INDEX (more)", "USE other",
    "ALTER TABLE platform.`permissions` ADD note TEXT", "ALTER TABLE clusters ADD COLUMN own INT",
    "INSERT INTO platform.clusters (name) VALUES ('four')", "DELETE FROM platform.clusters WHERE id = 3",  # and a permission
    "CREATE TABLE platform.more (id INT PRIMARY KEY)", "CREATE VIEW platform.second AS SELECT id FROM platform.clusters",
    "DROP VIEW platform.second", "CREATE USER somebody@localhost", "DROP TABLE platform.more", "DROP TRIGGER platform.seen",
    "CREATE TABLE clusters2 LIKE platform.clusters", "RENAME TABLE clusters2 TO clusters3",
)  # fmt: skip
ACCIDENT = ("USE platform", "START TRANSACTION", "INSERT INTO logs (text) VALUES ('deleting')",
            "DELETE FROM permissions WHERE cluster_id = 2", "DELETE FROM clusters WHERE id = 2", "COMMIT")  # fmt: skip
CHOSEN = ("--only", "platform.clusters", "--only", "platform.permissions", "--into", "platform_before")


@pytest.fixture(params=["mariadb", "mysql97"])
def live(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The source, which is the target too."""
    found: Server = request.getfixturevalue(request.param)
    yield found


def in_one_session(server: Server, *statements: str) -> None:
    with server.connect() as connection:
        for sql in statements:
            connection.execute(sql)


def begun(live: Server, tmp_path: Path, *statements: str) -> Scene:
    scene = Scene(tmp_path / "scene", source=live, target=live)
    in_one_session(live, *statements)
    scene.ok("init", "--keys", str(scene.keys))
    scene.ok("backup", "full")
    return scene


def newest_gtid(server: Server) -> str:
    if server.product == "MariaDB":
        return scenario.gtid(server)
    executed = str(scenario.rows(server, "SELECT @@GLOBAL.gtid_executed")[0][0])
    uuid, _, intervals = executed.replace("\n", "").split(",")[-1].partition(":")
    return f"{uuid}:{intervals.rpartition('-')[2].rpartition(':')[2]}"


def tables_of(server: Server, database: str) -> dict[str, Any]:
    return {name.partition(".")[2]: found for name, found in scenario.truth(server).items() if name.startswith(f"{database}.")}


def beside(server: Server, shadow: str) -> tuple[Any, ...]:
    """Everything on the server but the shadow."""
    truth = {name: found for name, found in scenario.truth(server).items() if not name.startswith(f"{shadow}.")}
    accounts = scenario.rows(server, "SELECT user, host FROM mysql.user ORDER BY 1, 2")
    return truth, [one for one in scenario.databases(server) if one != shadow], scenario.definitions(server), accounts


def test_the_rows_of_a_deleted_cluster_are_taken_back(live: Server, tmp_path: Path) -> None:
    scene = begun(live, tmp_path, *PLATFORM)
    in_one_session(live, *SINCE)
    wanted = {name: found for name, found in tables_of(live, "platform").items() if name in ("clusters", "permissions")}
    in_one_session(live, *ACCIDENT)
    accident = newest_gtid(live)
    in_one_session(live, "INSERT INTO platform.clusters (name) VALUES ('later')")
    scene.ok("backup", "incremental")
    before = beside(live, "platform_before")
    live.execute("SET GLOBAL event_scheduler = ON")

    plan = scene.ok("restore", "--dry-run", "--before-gtid", accident, *CHOSEN)
    assert plan["selection"]["shadow"] == "platform_before" and plan["selection"]["tables"] == 2
    assert any("permissions: its foreign key" in warning for warning in plan["warnings"])
    assert beside(live, "platform_before") == before
    done = scene.ok("restore", "--yes", "--before-gtid", accident, *CHOSEN)
    assert not done["recovered"] and done["details"]["replay_path"] == "direct, grouped"
    assert tables_of(live, "platform_before") == wanted
    assert beside(live, "platform_before") == before

    same = "SELECT column_name, column_type, collation_name FROM information_schema.columns WHERE table_schema = '{}' AND" \
           " table_name IN ('clusters', 'permissions') ORDER BY table_name, ordinal_position"  # fmt: skip
    assert scenario.rows(live, same.format("platform_before")) == scenario.rows(live, same.format("platform"))
    in_one_session(
        live, "INSERT INTO platform.clusters SELECT * FROM platform_before.clusters WHERE id = 2",
        "INSERT INTO platform.permissions SELECT * FROM platform_before.permissions WHERE cluster_id = 2",
        "DELETE FROM platform.clusters WHERE name = 'later'",
    )  # fmt: skip
    assert {name: tables_of(live, "platform")[name] for name in wanted} == wanted
    assert scenario.rows(live, "SELECT name, seen FROM platform.clusters WHERE id = 2") == [("second", 2)]

    again = ("restore", "--yes", "--before-gtid", accident, *CHOSEN)
    assert "has a database platform_before already" in scene.refused(23, *again)
    run = scene.ok("recoveries")["recoveries"][0]["run"]
    assert "ends with step database" in scene.refused(10, "restore", "verify", "--resume", run)
    scene.ok("restore", "--yes", "--to", "latest", "--overwrite", "platform_before", *CHOSEN)
    assert tables_of(live, "platform_before")["clusters"][1] == 3  # without the deleted one, with the later one


CROSSING = (
    "RENAME TABLE platform.clusters TO platform.aside", "RENAME TABLE platform.aside TO platform.clusters",
    "ALTER TABLE platform.permissions ADD FOREIGN KEY (user_id) REFERENCES users (id)",
    "CREATE TABLE platform.copy LIKE platform.clusters",  # this one only reads
    "SET SESSION binlog_format = 'STATEMENT'", "UPDATE platform.clusters SET seen = 5",
)  # fmt: skip


def test_what_cannot_be_told_apart_is_listed_and_refused(mariadb: Server, tmp_path: Path) -> None:
    live = mariadb
    scene = begun(live, tmp_path, *PLATFORM)
    in_one_session(live, "USE platform", *CROSSING)
    scene.ok("backup", "incremental")
    before = beside(live, "platform_before")
    said = scene.refused(22, "restore", "--yes", "--to", "latest", *CHOSEN)
    assert said.count("RENAME TABLE at ") == 2 and "ALTER TABLE at " in said and "UPDATE at " in said
    assert "CREATE TABLE" not in said and "--to-position" in said
    alone = ("--only", "platform.permissions", "--into", "s")
    assert "lets a table that is left out change its rows" in scene.refused(22, "restore", "--yes", "--to", "latest", *alone)
    assert beside(live, "platform_before") == before


def test_what_makes_no_sense_is_refused(mariadb: Server, tmp_path: Path) -> None:
    scene = begun(mariadb, tmp_path, *PLATFORM)
    before = beside(mariadb, "s")
    for words in (
        ("--into", "s"), ("--only", "platform.users", "--into", "mysql"), ("--only", "platform.users", "--into", "a b"),
        ("--only", "platform.users", "--into", "s", "--overwrite", "platform"), ("--only", "*.clusters", "--into", "s"),
        ("--only", "platform.names", "--into", "s"), ("--only", "platform.users", "--into", "s", "--rename", "platform=t"),
    ):  # fmt: skip
        scene.refused(10, "restore", "--yes", "--to", "latest", *words)
    assert beside(mariadb, "s") == before


def test_a_killed_one_goes_on(mariadb: Server, tmp_path: Path) -> None:
    """Nothing is lost, nothing is doubled in a table without a key, and the left out between is not read as chosen."""
    live = mariadb
    scene = begun(live, tmp_path, "CREATE DATABASE platform", "CREATE TABLE platform.keyless (n INT, v VARCHAR(500))",
                  "CREATE TABLE platform.logs (n INT)")  # fmt: skip
    with live.connect(database="platform") as connection:
        for number in range(1500):
            connection.execute(f"INSERT INTO {'logs (n)' if number % 3 else 'keyless (v, n)'}"
                               f" VALUES ({'' if number % 3 else 'REPEAT(CHAR(65), 400), '}{number})")  # fmt: skip
    scene.ok("backup", "incremental")
    wanted = tables_of(live, "platform")["keyless"]
    count = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'shadow' AND table_name = 'keyless'"

    def replayed() -> int:
        there = scenario.rows(live, count)[0][0]
        return int(scenario.rows(live, "SELECT COUNT(*) FROM shadow.keyless")[0][0]) if there else 0

    words = ("restore", "--yes", "--to", "latest", "--only", "platform.keyless", "--into", "shadow")
    slow = "SET GLOBAL binlog_commit_wait_count = {}, binlog_commit_wait_usec = 200000"
    live.execute(slow.format(100))  # the replay cannot end before the kill
    with scene.start(*words) as process:
        while replayed() <= 20:
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    scene.release_leases()
    live.execute(slow.format(0))
    assert replayed() < 500
    run = scene.ok("recoveries")["recoveries"][0]["run"]
    scene.refused(10, "restore", "--resume", run, "--into", "shadow")
    done = scene.ok("restore", "--resume", run)
    assert tables_of(live, "shadow") == {"keyless": wanted}
    assert done["details"]["transactions"] == "500"
    assert scenario.databases(live) == ["platform", "shadow"]
