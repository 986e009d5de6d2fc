"""The target is held read-only until the switch, and let go whatever happens there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import scenario
from tests.integration.scenario import Scene
from tests.servers.database import Server

PROGRAM = """
import os, sys, pymysql
with pymysql.connect(host=os.environ["KPBACKUP_STEP_TARGET_HOST"], port=int(os.environ["KPBACKUP_STEP_TARGET_PORT"]),
                     user="application", password="application", autocommit=True) as connection, connection.cursor() as cursor:
    try:
        cursor.execute("INSERT INTO shop.t VALUES (%s)", (sys.argv[2],))
        may_write = True
    except pymysql.err.MySQLError as exc:
        assert exc.args[0] in (1290, 1836), exc
        may_write = False
sys.exit(may_write != (sys.argv[1] == "writable"))
"""


@pytest.fixture(params=["mariadb", "mysql97"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Server]]:
    found: tuple[Server, Server] = request.getfixturevalue(f"{request.param}_pair")
    yield found


def held(server: Server) -> tuple[int, ...]:
    more = "0" if server.product == "MariaDB" else "@@GLOBAL.super_read_only"
    return tuple(int(one) for one in scenario.rows(server, f"SELECT @@GLOBAL.read_only, {more}")[0])


def test_nobody_writes_before_the_switch(pair: tuple[Server, Server], tmp_path: Path) -> None:
    source, target = pair
    scene = Scene(tmp_path / "scene", source=source, target=target)
    target.execute("SET GLOBAL event_scheduler = OFF")
    source.execute("CREATE DATABASE shop", "CREATE TABLE shop.t (id INT PRIMARY KEY)", "INSERT INTO shop.t VALUES (1)",
                   "CREATE USER application IDENTIFIED BY 'application'", "GRANT ALL ON shop.* TO application")  # fmt: skip
    scene.ok("init", "--keys", str(scene.keys))
    scene.ok("backup", "full")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def command(*words: str) -> dict[str, object]:
        return {"driver": "command", "command": [sys.executable, str(program), *words]}

    scene.settings["recovery"] |= {
        "read_only": True, "deploy": command("read-only", "2"), "verify": command("read-only", "3"),
        "switch": {"driver": "command", "command": ["false"]},
    }  # fmt: skip
    scene.ok("restore", "prepare", "--yes", "--to", "latest")
    early = scene.ok("recoveries")["recoveries"][0]["run"]
    scene.refused(26, "restore", "deploy", "--resume", early)  # it could not be restored any more
    assert held(target) == (0, 0)
    scene.refused(26, "restore", "--yes", "--to", "latest")
    is_mariadb = target.product == "MariaDB"
    assert held(target) == ((1, 0) if is_mariadb else (1, 1))  # the switch failed, so it is held again
    run = scene.ok("recoveries")["recoveries"][1]["run"]
    scene.settings["recovery"] |= {"read_only": False, "switch": command("writable", "4")}
    assert scene.ok("restore", "--resume", run)["recovered"]
    assert held(target) == (0, 0)
    assert scenario.rows(target, "SELECT id FROM shop.t ORDER BY id") == [(1,), (4,)]
    seen = [entry["event"] for entry in scene.ok("recoveries", run)["entries"]]
    assert seen.count("held_read_only") == seen.count("released_read_only") == 2
