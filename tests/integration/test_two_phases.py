"""Essential tables first, the rest behind an application that serves again: exact, apart, and whole after any kill."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kpbackup import errors
from tests.integration import scenario
from tests.integration.scenario import Scene
from tests.servers.database import Server

ROWS = 12_000
_DIGITS = "(SELECT 0 d UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7" \
          " UNION SELECT 8 UNION SELECT 9)"  # fmt: skip
PLATFORM = (
    "CREATE DATABASE platform CHARACTER SET utf8mb4", "USE platform",
    "CREATE TABLE users (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(20))",
    "CREATE TABLE sessions (id BIGINT UNSIGNED PRIMARY KEY AUTO_INCREMENT, user_id INT, FOREIGN KEY (user_id)"
    " REFERENCES users (id))",
    # by name before its parent
    "CREATE TABLE commands (id BIGINT UNSIGNED PRIMARY KEY AUTO_INCREMENT, session_id BIGINT UNSIGNED, FOREIGN KEY (session_id)"
    " REFERENCES sessions (id))",
    "CREATE TABLE logs (id BIGINT UNSIGNED PRIMARY KEY AUTO_INCREMENT, text VARCHAR(40), at DATETIME(3), d DOUBLE,"
    " twice VARCHAR(80) GENERATED ALWAYS AS (CONCAT(text, text)) VIRTUAL, KEY (text))",
    "INSERT INTO users (name) VALUES ('管理员'), ('bob')", "INSERT INTO sessions (user_id) VALUES (1), (2)",
    "INSERT INTO commands (session_id) VALUES (1), (2), (2)",
    f"INSERT INTO logs (text, at, d) SELECT CONCAT('t', a.d), '2026-05-01 10:00:00.123', a.d / 3 FROM {_DIGITS} a, {_DIGITS} b,"
    f" {_DIGITS} c, {_DIGITS} e, {_DIGITS} f LIMIT {ROWS}",
    "CREATE VIEW texts AS SELECT text FROM logs",
)  # fmt: skip
SINCE = (
    "USE platform", "INSERT INTO users (name) VALUES ('late')", "INSERT INTO sessions (user_id) VALUES (3)",
    "INSERT INTO commands (session_id) VALUES (3)", "ALTER TABLE logs ADD COLUMN more INT DEFAULT 4, ADD KEY (more)",
    "DELETE FROM logs WHERE id <= 3", "UPDATE users SET name = 'bobby' WHERE id = 2", "UPDATE logs SET text = '改' WHERE id = 7",
    "INSERT INTO logs (text) VALUES ('last')",
)  # fmt: skip
TIERS = {"second": ["platform.sessions", "platform.commands", "platform.logs"], "room": 1000}

# what an application does as soon as it is deployed: it works with what is there, and writes
APPLICATION = """
import os, sys, pymysql
with pymysql.connect(host=os.environ["KPBACKUP_STEP_TARGET_HOST"], port=int(os.environ["KPBACKUP_STEP_TARGET_PORT"]),
                     user="root", autocommit=True, ssl_disabled=True) as connection, connection.cursor() as cursor:
    cursor.execute("SELECT COUNT(*) FROM platform.users")
    users = cursor.fetchone()[0]
    cursor.execute("SELECT COUNT(*) FROM platform.logs")
    assert (users, cursor.fetchone()[0]) == (3, 0)
    for number in range(20):
        cursor.execute("INSERT INTO platform.logs (text) VALUES ('meanwhile')")
    cursor.execute("INSERT INTO platform.sessions (user_id) VALUES (3)")
"""


@pytest.fixture(params=["mariadb", "mysql97"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Server]]:
    found: tuple[Server, Server] = request.getfixturevalue(f"{request.param}_pair")
    yield found


def in_one_session(server: Server, *statements: str) -> None:
    with server.connect() as connection:
        for sql in statements:
            connection.execute(sql)


def begun(pair: tuple[Server, Server], tmp_path: Path, *statements: str) -> Scene:
    source, target = pair
    scene = Scene(tmp_path / "scene", source=source, target=target)
    target.execute("SET GLOBAL event_scheduler = OFF")
    in_one_session(source, *statements)
    scene.ok("init", "--keys", str(scene.keys))
    scene.ok("backup", "full")
    scene.settings["recovery"]["tiers"] = TIERS
    return scene


def events(scene: Scene) -> list[str]:
    (run,) = scene.ok("recoveries")["recoveries"]
    return [entry["event"] for entry in scene.ok("recoveries", run["run"])["entries"]]


def has_event(scene: Scene, event: str) -> bool:
    return any(f'"{event}"'.encode() in one.read_bytes() for one in (scene.repository / "recoveries").glob("*/*"))


def moved(target: Server) -> int:
    try:
        return len(scenario.rows(target, "SELECT 1 FROM kpbackup_restore.moved"))
    except errors.DatabaseError:
        return 0


def killed(scene: Scene, words: tuple[str, ...], seen: Any) -> None:
    """Runs kpbackup until `seen` says so, then kills it."""
    with scene.start(*words) as process:
        while True:
            has_ended = process.poll() is not None  # asked first: what it did last may be seen after its end
            if seen():
                break
            assert not has_ended, process.communicate()
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    scene.release_leases()


def test_essential_tables_serve_first_and_everything_comes_back(pair: tuple[Server, Server], tmp_path: Path) -> None:
    source, target = pair
    scene = begun(pair, tmp_path, *PLATFORM)
    in_one_session(source, *SINCE)
    scene.ok("backup", "incremental")
    program = tmp_path / "application.py"
    program.write_text(APPLICATION)
    scene.settings["recovery"] |= {
        "deploy": {"driver": "command", "command": [sys.executable, str(program)]},
        "switch": {"driver": "command", "command": ["true"]},
        "verify": {"sql": [{"query": "SELECT COUNT(*) FROM platform.users", "expect": 3}]},
    }
    plan = scene.ok("restore", "--dry-run", "--to", "latest")
    assert plan["second_tier"] == ["platform.logs", "platform.sessions", "platform.commands"]
    assert plan["rows"] == 2

    killed(scene, ("restore", "--yes", "--to", "latest"), lambda: has_event(scene, "second_started"))
    run = scene.ok("recoveries")["recoveries"][0]["run"]
    assert scenario.rows(target, "SELECT name FROM platform.users ORDER BY id") == [("管理员",), ("bobby",), ("late",)]
    scene.settings["recovery"]["tiers"] = {}  # a run does what it was planned for
    killed(scene, ("restore", "--resume", run), lambda: has_event(scene, "second_loaded"))
    with target.connect() as application:  # holds the last table up: or all may be moved and tidied up between two looks
        application.execute("START TRANSACTION")
        assert application.rows("SELECT id FROM platform.commands FOR UPDATE") == []
        killed(scene, ("restore", "--resume", run), lambda: moved(target))
    done = scene.ok("restore", "--resume", run)

    assert done["recovered"] and done["details"]["second_tier_rows"] == str(ROWS - 2 + 3 + 4)
    assert 0 < float(done["details"]["essential_rto_s"]) < done["measured_rto_seconds"]
    columns = "id, text, at, d, more"
    assert scenario.rows(target, f"SELECT {columns} FROM platform.logs WHERE text <> 'meanwhile' ORDER BY id") == scenario.rows(
        source, f"SELECT {columns} FROM platform.logs ORDER BY id")  # fmt: skip
    own = scenario.rows(target, "SELECT COUNT(*), MIN(id) FROM platform.logs WHERE text = 'meanwhile'")
    highest = scenario.rows(source, "SELECT MAX(id) FROM platform.logs")[0][0]
    assert own[0][0] == 20 and own[0][1] >= highest + 1000
    for table in ("users", "commands"):
        assert scenario.truth(target)[f"platform.{table}"] == scenario.truth(source)[f"platform.{table}"]
    assert scenario.truth(target)["platform.sessions"][1] == 4  # and the application's own
    assert scenario.databases(target) == ["platform"] and scenario.definitions(target) == scenario.definitions(source)
    seen = events(scene)
    assert seen.count("second_finished") == 1 and seen.index("essential_ready") < seen.index("second_loaded")
    assert seen[-1] == "finished"
    shown = scene.ok("recoveries")["recoveries"][0]
    assert shown["essential_rto_seconds"] < shown["measured_rto_seconds"]


def test_a_person_is_not_waited_for(mariadb_pair: tuple[Server, Server], tmp_path: Path) -> None:
    source, target = mariadb_pair
    scene = begun(mariadb_pair, tmp_path, *PLATFORM)
    scene.settings["recovery"]["deploy"] = {"driver": "manual"}
    scene.refused(21, "restore", "--yes", "--to", "latest")
    for table in ("users", "sessions", "commands", "logs"):  # CHECKSUM TABLE is not to be trusted with a virtual column
        rows = f"SELECT * FROM platform.{table} ORDER BY id"
        assert scenario.rows(target, rows) == scenario.rows(source, rows)
    run = scene.ok("recoveries")["recoveries"][0]["run"]
    scene.ok("restore", "--resume", run, "--confirm", "deploy")
    assert events(scene).count("second_finished") == 1


def test_a_transaction_of_both_tiers_is_refused_before_loading(mariadb_pair: tuple[Server, Server], tmp_path: Path) -> None:
    source, target = mariadb_pair
    scene = begun(mariadb_pair, tmp_path, *PLATFORM[:-2])
    in_one_session(source, "USE platform", "START TRANSACTION", "INSERT INTO users (name) VALUES ('x')",
                   "INSERT INTO logs (text) VALUES ('x')", "COMMIT")  # fmt: skip
    scene.ok("backup", "incremental")
    said = scene.refused(22, "restore", "--yes", "--to", "latest")
    assert "changes rows of both tiers" in said and "--one-phase" in said
    assert scenario.databases(target) == []
    assert scene.ok("restore", "--dry-run", "--one-phase", "--to", "latest")["second_tier"] == []
