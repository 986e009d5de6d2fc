"""System-versioned tables of MariaDB: past rows come back with the times they had, and the replay goes on writing history."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration import scenario, test_by_hand
from tests.integration.scenario import Scene
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server

PERIOD = (
    "s TIMESTAMP(6) GENERATED ALWAYS AS ROW START{0}, e TIMESTAMP(6) GENERATED ALWAYS AS ROW END{0},"
    " PERIOD FOR SYSTEM_TIME (s, e)"
)
TABLES = {
    "hidden": "id INT PRIMARY KEY, v INT, w INT WITHOUT SYSTEM VERSIONING, KEY (v)",
    "declared": f"id INT AUTO_INCREMENT PRIMARY KEY, v INT, {PERIOD.format('')}",
    "invisible": f"id INT, b CHAR(3), v INT, {PERIOD.format(' INVISIBLE')}, PRIMARY KEY (b, id), UNIQUE (v)",
    "keyless": "id INT, v INT",
    "computed": "id INT PRIMARY KEY, v INT, kept INT AS (v * 2) STORED, seen INT AS (v + 1) VIRTUAL, KEY (kept)",
    "child": "id INT PRIMARY KEY, v INT, parent INT, FOREIGN KEY (parent) REFERENCES hidden (id) ON DELETE CASCADE",
    "booked": "id INT, v INT, d1 DATE, d2 DATE, PERIOD FOR p (d1, d2), PRIMARY KEY (id, p WITHOUT OVERLAPS)",
}
OTHERS = {  # what follows WITH SYSTEM VERSIONING
    "aria": ("id INT PRIMARY KEY, v INT", "ENGINE=Aria"),
    "myisam": ("id INT, v INT", "ENGINE=MyISAM"),
    "hourly": (
        "id INT PRIMARY KEY, v INT",
        "PARTITION BY SYSTEM_TIME INTERVAL 1 HOUR STARTS '2020-01-01 00:00:00'"
        " (PARTITION p0 HISTORY, PARTITION p1 HISTORY, PARTITION pc CURRENT)",
    ),
    "automatic": ("id INT PRIMARY KEY, v INT", "PARTITION BY SYSTEM_TIME INTERVAL 1 SECOND AUTO"),
    "limited": (
        "id INT PRIMARY KEY, v INT",
        "PARTITION BY SYSTEM_TIME LIMIT 4 (PARTITION p0 HISTORY, PARTITION p1 HISTORY, PARTITION pc CURRENT)",
    ),
}
COUNTING = (
    "CREATE TABLE past.counting (id INT PRIMARY KEY, v INT, s BIGINT UNSIGNED GENERATED ALWAYS AS ROW START,"
    " e BIGINT UNSIGNED GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING"
)
NAMES = (*TABLES, *OTHERS)
IS_DECLARED = ("declared", "invisible")


def create(source: Server) -> None:
    source.execute(
        "CREATE DATABASE past", "USE past",
        *(f"CREATE TABLE {name} ({columns}) WITH SYSTEM VERSIONING" for name, columns in TABLES.items()),
        *(f"CREATE TABLE {name} ({columns}) {tail.partition('PARTITION')[0]} WITH SYSTEM VERSIONING"
          f" {' '.join(tail.partition('PARTITION')[1:])}" for name, (columns, tail) in OTHERS.items()),
    )
    source.execute(
        "USE past", "INSERT INTO hidden (id, v) VALUES (1, 1), (2, 2), (3, 3)",
        "INSERT INTO child VALUES (1, 1, 1), (2, 2, 2), (3, 3, 3)",
        *(f"INSERT INTO {name} (id, v) VALUES (1, 1), (2, 2), (3, 3)"
          for name in NAMES if name not in ("hidden", "child", "booked", "invisible")),
        "INSERT INTO invisible VALUES (1, 'x', 1), (2, 'X', 2), (1, 'a', 3)",
        "INSERT INTO booked VALUES (1, 1, '2020-01-01', '2020-02-01'), (1, 2, '2020-02-01', '2020-03-01')",
    )
    change(source)


def change(source: Server) -> None:
    """Makes history in every table: single changes, several in one transaction, a cascade."""
    source.execute(
        "USE past",
        *(f"UPDATE {name} SET v = v + 10" for name in NAMES), "UPDATE hidden SET w = 7",
        "BEGIN", *(f"UPDATE {name} SET v = v + 10 WHERE v % 2" for name in NAMES), "UPDATE keyless SET v = v + 10",
        "UPDATE hidden SET v = v + 10 WHERE id = 1", "UPDATE hidden SET v = v + 10 WHERE id = 1", "COMMIT",
        *(f"DELETE FROM {name} WHERE id = 2" for name in NAMES),
        *(f"INSERT INTO {name} (id, v) VALUES (2, -2)" for name in NAMES if name not in ("booked", "invisible", "child")),
    )


def history(server: Server) -> dict[str, list[Any]]:
    """Every row that ever was, with its times, and each table's definition, by SQL of the test's own."""
    found = {}
    with server.connect(database="past") as connection:
        connection.execute("SET time_zone = '+00:00'")
        for name in NAMES:
            columns = "*, s, e" if name == "invisible" else "*" if name in IS_DECLARED else "*, row_start, row_end"
            rows = connection.rows(f"SELECT {columns} FROM {name} FOR SYSTEM_TIME ALL")
            found[name] = [connection.rows(f"SHOW CREATE TABLE {name}")[0][1], *sorted(rows, key=str)]
    return found


def without_ends_of(found: dict[str, list[Any]], table: str) -> dict[str, list[Any]]:
    """When a row of `table` ended left out, not whether it did: a cascade's own time is not in the binlog (docs/recovery.md)."""
    ended = [[*row[:-1], row[-1].year < 2038] for row in found[table][1:]]
    return {**found, table: [found[table][0], *sorted(ended, key=str)]}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    top = tmp_path_factory.mktemp("versioned")
    with mariadb_server(top / "source", server_id=41) as source, mariadb_server(top / "target", server_id=42) as target:
        create(source)
        yield source, target


def test_history_comes_back_and_goes_on(tmp_path: Path, pair: tuple[Server, Server]) -> None:
    source, target = pair
    scene = Scene(tmp_path / "scene", source=source, target=target)
    scene.ok("init", "--keys", str(scene.keys))
    made = scene.ok("backup", "full")
    assert made["warnings"] == 3  # two tables without transactions, one with partitions by LIMIT
    then = history(source)
    assert sum(len(rows) for rows in then.values()) > 100
    scenario.next_second(source)  # the partitions of `automatic` end with each second
    change(source)
    source.execute(
        "USE past", "DELETE HISTORY FROM aria",
        "SET system_versioning_alter_history = 1", "ALTER TABLE declared ADD x INT DEFAULT 5",
        "ALTER TABLE keyless ADD COLUMN x INT FIRST", "UPDATE declared SET x = 6 WHERE id = 1", "DELETE FROM hidden WHERE id = 3",
    )
    scene.ok("backup", "incremental")
    scene.restore("--to-position", made["coordinates"])
    assert history(target) == then
    scene.restore("--to", "latest", "--overwrite", "past")
    assert without_ends_of(history(target), "child") == without_ends_of(history(source), "child") != then


def test_by_hand_too(tmp_path: Path, pair: tuple[Server, Server]) -> None:
    source, target = pair
    scenario.wipe(target)
    scene = Scene(tmp_path / "scene", source=source)
    scene.ok("init", "--keys", str(scene.keys))
    scene.ok("backup", "full")
    target.execute("SET GLOBAL gtid_strict_mode = 0")
    done = test_by_hand.by_hand(scene.repository, scene.keys, target)
    assert done.returncode == 0, done.stderr
    assert history(target) == history(source)


@pytest.mark.parametrize("option", ["--secure-timestamp=YES", "--secure-timestamp=REPLICATION"])
def test_a_target_that_cannot_be_given_history_is_refused(tmp_path: Path, pair: tuple[Server, Server], option: str) -> None:
    source, _ = pair
    with mariadb_server(tmp_path / "target", server_id=43, options=[option]) as target:
        scene = Scene(tmp_path / "scene", source=source, target=target)
        scene.ok("init", "--keys", str(scene.keys))
        scene.ok("backup", "full")
        if option.endswith("YES"):
            assert "secure_timestamp=YES forbids" in scene.refused(23, "restore", "database", "--to", "latest", "--yes")
            assert scenario.databases(target) == []
        else:
            scene.restore("--to", "latest")
            assert history(target) == history(source)


def test_history_that_counts_transactions_is_named(tmp_path: Path, mariadb: Server) -> None:
    mariadb.execute(
        "CREATE DATABASE past", COUNTING, "INSERT INTO past.counting (id, v) VALUES (1, 1), (2, 2)",
        "UPDATE past.counting SET v = 3",
    )
    scene = Scene(tmp_path / "scene", source=mariadb, target=mariadb)
    scene.ok("init", "--keys", str(scene.keys))
    made = scene.ok("backup", "full")
    warnings = scene.ok("list", "--warnings", made["set"])
    assert any("past.counting: its history counts transactions" in str(line) for line in warnings["warnings"])
    scene.restore("--to", "latest", "--overwrite", "past")
    assert scenario.rows(mariadb, "SELECT id, v FROM past.counting ORDER BY id") == [(1, 3), (2, 3)]
