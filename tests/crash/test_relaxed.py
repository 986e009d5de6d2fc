"""A target relaxed for the time of a replay: every way out sets it back, and one that crashed meanwhile is not gone on with.

The replay is held still before it begins by its own user lock, then in the middle by the lock of a row, so that each end falls
behind commits that nothing has flushed, on a machine of any speed.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kpbackup import errors
from kpbackup.mysql import server as mysql
from tests.integration import scenario
from tests.integration.scenario import Scene
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.mysql97 import mysql97_server

PATIENCE_S = 120.0
SHOP = (
    "CREATE DATABASE shop", "CREATE TABLE shop.a (id INT PRIMARY KEY AUTO_INCREMENT, v INT)",
    "CREATE TABLE shop.held (id INT PRIMARY KEY, v INT)", "INSERT INTO shop.held VALUES (1, 0)",
)  # fmt: skip
INSERTS = ["INSERT INTO shop.a (v) VALUES (1)"] * 150
HISTORY = (*INSERTS, "CREATE TABLE shop.b (id INT PRIMARY KEY)", *INSERTS, "UPDATE shop.held SET v = 1", *INSERTS)
SETTINGS = "SELECT @@GLOBAL.innodb_flush_log_at_trx_commit, @@GLOBAL.sync_binlog"
OWN = (1, 3)
OPTIONS = ("--innodb-flush-log-at-trx-commit=1", "--sync-binlog=3", "--event-scheduler=OFF")
RESTORE = ("restore", "database", "--to", "latest", "--yes")
LOCK = "kpbackup_replay"
ANEW = (*RESTORE, "--overwrite", "shop")


@dataclass
class Shop:
    """`truth` is the source's."""

    scene: Scene
    target: Server
    truth: dict[str, tuple[int, int]]

    def settings(self) -> tuple[Any, ...]:
        return scenario.rows(self.target, SETTINGS)[0]

    def newest_run(self) -> str:
        return max(str(one["run"]) for one in self.scene.ok("recoveries")["recoveries"])


def made(directory: Path, make: Callable[..., Any]) -> Iterator[Shop]:
    with (
        make(directory / "source", server_id=85) as source,
        make(directory / "target", server_id=86, options=OPTIONS) as target,
    ):
        source.execute(*SHOP)
        scene = Scene(directory / "scene", source=source, target=target)
        scene.settings["recovery"]["replay"] = {"path": "direct", "grouped": False, "relaxed": True}
        scene.ok("init", "--keys", str(scene.keys))
        scene.ok("backup", "full")
        source.execute(*HISTORY)
        scene.ok("backup", "incremental")
        yield Shop(scene, target, scenario.truth(source))


@pytest.fixture
def mariadb_shop(tmp_path: Path) -> Iterator[Shop]:
    """Each transaction commits under its own GTID."""
    yield from made(tmp_path, mariadb_server)


@pytest.fixture
def mysql_shop(tmp_path: Path, mysql97_programs: Path) -> Iterator[Shop]:
    """The same."""
    yield from made(tmp_path, mysql97_server)


def is_in_the_middle(connection: mysql.Connection) -> bool:
    """Not by information_schema.innodb_trx: to whoever asks often it shows the same for ever."""
    waits = int(connection.rows("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")[0][1])
    return bool(waits) and connection.value("SELECT COUNT(*) FROM shop.a") == 2 * len(INSERTS)


def waits_for_gate(connection: mysql.Connection) -> bool:
    return bool(connection.value("SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE '%User lock%'"))


@contextmanager
def held(shop: Shop, words: tuple[str, ...], holder: mysql.Connection) -> Iterator[subprocess.Popen[str]]:
    """kpbackup, begun with these words; `holder` has the lock that it will meet."""
    with shop.target.connect() as gate, shop.target.connect() as looking:
        assert gate.value(f"SELECT GET_LOCK('{LOCK}', 60)") == 1
        with begun(shop, words) as process:
            scenario.until(process, lambda: waits_for_gate(looking))
            gate.rows(f"SELECT RELEASE_LOCK('{LOCK}'), GET_LOCK('{LOCK}', 60)")  # step 1 tries the path: it passes
            scenario.until(process, lambda: waits_for_gate(looking))
            holder.execute("START TRANSACTION")
            holder.rows("SELECT * FROM shop.held FOR UPDATE")
            gate.value(f"SELECT RELEASE_LOCK('{LOCK}')")
            yield process


@contextmanager
def held_served(shop: Shop, words: tuple[str, ...], holder: mysql.Connection) -> Iterator[subprocess.Popen[str]]:
    """The same where appliers of the target replay: the row is locked as soon as it is loaded, long before they begin."""

    def locks() -> bool:
        holder.execute("START TRANSACTION")
        with suppress(errors.DatabaseError):  # the table is not made yet
            if holder.rows("SELECT v FROM shop.held FOR UPDATE") == [(0,)]:
                return True
        holder.execute("ROLLBACK")
        return False

    with begun(shop, words) as process:
        scenario.until(process, locks)
        yield process


@contextmanager
def begun(shop: Shop, words: tuple[str, ...]) -> Iterator[subprocess.Popen[str]]:
    process = shop.scene.start(*words)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate(timeout=PATIENCE_S)


def ended_in_the_middle(shop: Shop, words: tuple[str, ...], end: Callable[[subprocess.Popen[str]], None]) -> tuple[int, str]:
    """kpbackup with these words, ended so when a part of the history is committed; exit code and what it said."""
    hold = held_served if shop.scene.settings["recovery"]["replay"]["path"] == "served" else held
    with shop.target.connect() as holder, shop.target.connect() as looking, hold(shop, words, holder) as process:
        scenario.until(process, lambda: is_in_the_middle(looking))
        assert shop.settings() == (0, 0)
        end(process)
        _, err = process.communicate(timeout=PATIENCE_S)
        if shop.target.is_running:
            holder.execute("ROLLBACK")
    shop.scene.release_leases()
    return process.returncode, err


def killed(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(PATIENCE_S)


def terminated(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE_S)


def crash(shop: Shop) -> str:
    """The server killed in the middle of a new restore and started again; the run."""

    def end(process: subprocess.Popen[str]) -> None:
        shop.target.kill()
        process.wait(PATIENCE_S)

    code, err = ended_in_the_middle(shop, ANEW, end)
    assert code in (12, 26), err
    scenario.assert_clear(err)
    shop.target.restart()
    return shop.newest_run()


@pytest.mark.slow
def test_mariadb(mariadb_shop: Shop) -> None:
    shop, scene, target = mariadb_shop, mariadb_shop.scene, mariadb_shop.target
    code, _ = ended_in_the_middle(shop, RESTORE, terminated)
    assert (code, shop.settings()) == (143, OWN)
    ended_in_the_middle(shop, ANEW, killed)
    assert shop.settings() == (0, 0)
    scene.ok("restore", "--resume", shop.newest_run())
    assert (scenario.truth(target), shop.settings()) == (shop.truth, OWN)
    assert scenario.databases(target) == ["shop"]

    assert "was started anew" in scene.refused(26, "restore", "--resume", crash(shop))
    assert shop.settings() == OWN

    target.execute("CREATE USER may_not@'%'", "GRANT ALL ON *.* TO may_not@'%' WITH GRANT OPTION",
                   "REVOKE SUPER ON *.* FROM may_not@'%'", "SET GLOBAL log_bin_trust_function_creators = 1")  # fmt: skip
    scene.settings["recovery"]["target"]["user"] = "may_not"
    again = scene.run(*ANEW)
    assert again.code == 0, again.err
    assert "writes its logs as before" in again.err
    assert (scenario.truth(target), shop.settings()) == (shop.truth, OWN)

    scene.settings["recovery"]["target"]["user"] = "root"
    scene.settings["recovery"]["replay"]["path"] = "served"
    ended_in_the_middle(shop, ANEW, killed)
    assert shop.settings() == (0, 0)
    scene.ok("restore", "--resume", shop.newest_run())
    assert (scenario.truth(target), shop.settings()) == (shop.truth, OWN)
    assert "was started anew" in scene.refused(26, "restore", "--resume", crash(shop))


@pytest.mark.slow
def test_mysql(mysql_shop: Shop) -> None:
    shop, scene, target = mysql_shop, mysql_shop.scene, mysql_shop.target
    ended_in_the_middle(shop, RESTORE, killed)
    assert shop.settings() == (0, 0)
    given_up = shop.newest_run()
    scene.settings["recovery"]["replay"]["path"] = "served"
    done = scene.restore("--to", "latest", "--overwrite", "shop")
    assert (done["details"]["replay_path"], done["details"]["relaxed"]) == ("served", "yes")
    assert (scenario.truth(target), shop.settings()) == (shop.truth, OWN)
    assert "was started anew" in scene.refused(26, "restore", "--resume", given_up)
    assert scenario.truth(target) == shop.truth
    assert "was started anew" in scene.refused(26, "restore", "--resume", crash(shop))
    assert shop.settings() == OWN
