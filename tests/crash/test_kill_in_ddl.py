"""kill -9 inside a statement that commits by itself, on the direct path: whether it was executed is found out.

The replay is held still before it begins (by its own lock), then at the statement (by a metadata lock), so that the kill falls
into it on a machine of any speed.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpbackup.mysql import server as mysql
from tests.integration import scenario
from tests.integration.scenario import Scene
from tests.servers.database import Server

PATIENCE_S = 120.0
SHOP = (
    "CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, note VARCHAR(40))",
    "CREATE TABLE shop.kept (id INT PRIMARY KEY)", "INSERT INTO shop.orders (note) VALUES ('one'), ('two')",
)  # fmt: skip
SINCE = (
    "INSERT INTO shop.orders (note) VALUES ('three')", "ALTER TABLE shop.orders ADD COLUMN more INT NOT NULL DEFAULT 4",
    "INSERT INTO shop.orders (note, more) VALUES ('four', 5)", "ALTER TABLE shop.kept ADD INDEX by_id (id)",
    "DELETE FROM shop.orders WHERE id = 1", "TRUNCATE TABLE shop.kept", "INSERT INTO shop.kept VALUES (7)",
)  # fmt: skip
FIRST, SECOND = ("orders", "ADD COLUMN more"), ("kept", "ADD INDEX by_id")
SHADOW = "shop_before"
WORDS = ("restore", "database", "--yes", "--to", "latest", "--only", "shop.*", "--into", SHADOW)


@pytest.fixture(params=["mariadb", "mysql97"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """A shadow beside the living tables: its replay is grouped on both flavours."""
    server: Server = request.getfixturevalue(request.param)
    server.execute(*SHOP)
    made = Scene(tmp_path / "scene", source=server, target=server)
    made.ok("init", "--keys", str(made.keys))
    made.ok("backup", "full")
    server.execute(*SINCE)
    made.ok("backup", "incremental")
    made.server = server  # type: ignore[attr-defined]
    yield made


def waiting(connection: mysql.Connection, state: str, text: str) -> int:
    """The session that waits so, at such a statement; 0 for none."""
    sql = "SELECT id FROM information_schema.processlist WHERE state LIKE %s AND info LIKE %s"
    found = connection.row(sql, (f"%{state}%", f"%{text}%"))
    return int(found[0]) if found else 0


def killed_at(scene: Scene, server: Server, words: tuple[str, ...], at: tuple[str, str]) -> None:
    """kpbackup killed while its server waits to execute a statement about that table, which it then does not."""
    table, text = at
    with server.connect() as gate, server.connect() as holder, server.connect() as looking:
        assert gate.value("SELECT GET_LOCK('kpbackup_replay', 60)") == 1
        process = scene.start(*words)
        try:
            scenario.until(process, lambda: waiting(looking, "User lock", "GET_LOCK"))
            if SHADOW not in scenario.databases(server):  # step 1 tries the path: it passes, and the gate is closed behind it
                gate.rows("SELECT RELEASE_LOCK('kpbackup_replay'), GET_LOCK('kpbackup_replay', 60)")
                scenario.until(process, lambda: waiting(looking, "User lock", "GET_LOCK"))
            holder.execute("START TRANSACTION")
            holder.rows(f"SELECT * FROM {SHADOW}.{table}")
            gate.value("SELECT RELEASE_LOCK('kpbackup_replay')")
            scenario.until(process, lambda: waiting(looking, "metadata lock", text))
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        if session := waiting(looking, "metadata lock", text):
            looking.execute(f"KILL {session}")
        deadline = time.monotonic() + PATIENCE_S
        while waiting(looking, "metadata lock", text):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        holder.execute("ROLLBACK")
    scene.release_leases()


def columns(server: Server) -> list[str]:
    sql = f"SELECT column_name FROM information_schema.columns WHERE table_schema = '{SHADOW}' AND table_name = 'orders'"
    return sorted(str(row[0]) for row in scenario.rows(server, sql))


@pytest.mark.slow
def test_a_kill_in_a_definition_is_resumed(scene: Scene) -> None:
    """Once the statement was not executed, once the server had executed it; the shadow is what the source is."""
    server: Server = scene.server  # type: ignore[attr-defined]
    killed_at(scene, server, WORDS, FIRST)
    run = scene.ok("recoveries")["recoveries"][0]["run"]
    again = ("restore", "database", "--resume", run)
    assert columns(server) == ["id", "note"]  # not executed

    killed_at(scene, server, again, SECOND)
    assert columns(server) == ["id", "more", "note"]  # once
    server.execute(f"ALTER TABLE {SHADOW}.kept ADD INDEX by_id (id)")  # as if the server had come to it

    scene.ok(*again)
    for table in ("orders", "kept"):
        sql = "SELECT * FROM {}.{} ORDER BY id"
        assert scenario.rows(server, sql.format(SHADOW, table)) == scenario.rows(server, sql.format("shop", table))
        shown = [scenario.rows(server, f"SHOW CREATE TABLE {name}.{table}")[0][1] for name in (SHADOW, "shop")]
        assert shown[0] == shown[1]
