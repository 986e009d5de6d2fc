"""A part of a backup restored: exact for what is chosen, the rest not there, and refused where it could not be exact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kpbackup import errors as kpbackup_errors
from tests.integration import scenario
from tests.integration.deployment import until
from tests.integration.scenario import Scene
from tests.servers.database import Server

SHOP = (
    "CREATE DATABASE shop", "CREATE DATABASE logs",
    "CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, note VARCHAR(40), KEY (note))",
    "CREATE TABLE shop.items (id INT PRIMARY KEY, order_id INT NOT NULL, FOREIGN KEY (order_id) REFERENCES shop.orders (id)"
    " ON DELETE CASCADE)",
    "CREATE TABLE shop.notes (id INT PRIMARY KEY, text VARCHAR(40))", "CREATE TABLE logs.orders (id INT PRIMARY KEY)",
    "INSERT INTO shop.orders (note) VALUES ('one'), ('two'), ('three')", "INSERT INTO shop.items VALUES (1, 1), (2, 3)",
    "INSERT INTO shop.notes VALUES (1, 'n')", "INSERT INTO logs.orders VALUES (1), (2)",
    "CREATE VIEW shop.v_orders AS SELECT id FROM shop.orders",
    "CREATE VIEW shop.v_both AS SELECT o.id FROM shop.orders o JOIN shop.notes n ON n.id = o.id",
    "CREATE TRIGGER shop.t_orders BEFORE INSERT ON shop.orders FOR EACH ROW SET NEW.note = CONCAT(NEW.note, '!')",
    "CREATE TRIGGER shop.t_notes BEFORE INSERT ON shop.notes FOR EACH ROW SET NEW.text = 'x'",
    "CREATE PROCEDURE shop.p() SELECT 1",
)  # fmt: skip
SINCE = (
    "UPDATE shop.orders SET note = 'changed' WHERE id = 2", "INSERT INTO logs.orders VALUES (3)",
    "ALTER TABLE shop.orders ADD COLUMN more INT DEFAULT 7", "CREATE TABLE logs.more (id INT PRIMARY KEY)",
    "ALTER TABLE logs.more RENAME TO logs.less", "CREATE USER somebody@localhost", "GRANT SELECT ON shop.* TO somebody@localhost",
    "CREATE PROCEDURE shop.q() SELECT 2", "INSERT INTO shop.orders (note) VALUES ('four')", "INSERT INTO logs.less VALUES (1)",
    "DELETE FROM shop.orders WHERE id = 1",  # and, by the cascade that no binlog shows, an item
    "DROP TABLE logs.less",
)  # fmt: skip
CHOSEN = ("--only", "shop.orders", "--only", "shop.items", "--only", "shop.v_*")


@pytest.fixture(params=["mariadb", "mysql97"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Server]]:
    found: tuple[Server, Server] = request.getfixturevalue(f"{request.param}_pair")
    yield found


def together(source: Server, *statements: str) -> None:
    """One transaction."""
    with source.connect() as connection:
        for sql in ("START TRANSACTION", *statements, "COMMIT"):
            connection.execute(sql)


def gtid_state(server: Server) -> str:
    with server.connect() as connection:
        is_mariadb = "MariaDB" in str(connection.value("SELECT VERSION()"))
        state = connection.value("SELECT @@gtid_current_pos" if is_mariadb else "SELECT @@gtid_executed")
    return str(state).replace("\n", "")


def of(found: dict[str, Any], *prefixes: str) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name.startswith(prefixes)}


def shown(found: list[tuple[Any, ...]]) -> set[tuple[str, str]]:
    return {(str(row[0]).lower(), str(row[2])) for row in found}


def test_restores_of_a_selection(pair: tuple[Server, Server], tmp_path: Path) -> None:
    source, target = pair
    scene = Scene(tmp_path / "scene", source=source, target=target)
    target.execute("SET GLOBAL event_scheduler = OFF")  # on by default in MySQL
    source.execute(*SHOP)
    scene.ok("init", "--keys", str(scene.keys))
    backup = scene.ok("backup", "full")
    source.execute(*SINCE)
    scene.ok("backup", "incremental")
    truth, state = scenario.truth(source), gtid_state(source)

    plan = scene.ok("restore", "database", "--dry-run", "--to", "latest", *CHOSEN)
    assert plan["selection"]["tables"] == 2 and plan["selection"]["transactions_left_out"] == 8
    assert any("view shop.v_both: its text names notes" in warning for warning in plan["warnings"])
    done = scene.restore("--to", "latest", *CHOSEN)
    assert not done["recovered"] and any("v_both" in warning for warning in done["warnings"])
    assert scenario.truth(target) == of(truth, "shop.orders", "shop.items")
    assert scenario.databases(target) == ["shop"]
    assert shown(scenario.definitions(target)) == {("view", "v_orders"), ("trigger", "t_orders")}
    assert gtid_state(target) == state
    assert "somebody" not in str(scenario.rows(target, "SELECT user FROM mysql.user"))
    assert [one["state"] for one in scene.ok("list")["sets"]] == ["stored"]  # a part proves nothing of the whole

    # a transaction that changes chosen and other tables cannot be taken apart
    together(source, "UPDATE shop.orders SET note = 'again' WHERE id = 3", "INSERT INTO logs.orders VALUES (9)")
    scene.ok("backup", "incremental")
    before = scenario.truth(target)
    said = scene.refused(22, "restore", "database", "--yes", "--to", "latest", "--overwrite", "shop", *CHOSEN)
    assert "changes shop.orders and also logs.orders, which is left out" in said and "--to-position" in said
    # nor can a table be replayed whose parent is left out; as it was in the set it can be had
    alone = ("--only", "shop.items", "--overwrite", "shop")
    said = scene.refused(22, "restore", "database", "--yes", "--to", "latest", *alone)
    assert "shop.items has a foreign key to shop.orders, which is left out" in said
    assert scenario.truth(target) == before
    file_at = backup["coordinates"].split(" ")[0]
    done = scene.restore("--to-position", file_at, *alone)
    assert any("shop.items: its foreign key to shop.orders" in warning for warning in plan_warnings(scene, file_at, *alone))
    assert scenario.truth(target)["shop.items"][1] == 2 and len(scenario.truth(target)) == 1

    _restore_all_but_one_database(scene, source, target)


def _restore_all_but_one_database(scene: Scene, source: Server, target: Server) -> None:
    together(source, "UPDATE shop.orders SET note = 'last' WHERE id = 3", "INSERT INTO shop.notes VALUES (5, 'y')")
    scene.refused(22, "restore", "database", "--yes", "--to", "latest", "--overwrite", "shop", "--exclude", "logs")
    scene.ok("backup", "full")
    together(source, "UPDATE shop.orders SET note = 'really' WHERE id = 3", "INSERT INTO shop.notes VALUES (6, 'y')")
    source.execute("INSERT INTO logs.orders VALUES (10)", "CREATE PROCEDURE shop.r() SELECT 3")
    scene.ok("backup", "incremental")
    scene.restore("--to", "latest", "--overwrite", "shop", "--exclude", "logs")
    assert scenario.truth(target) == of(scenario.truth(source), "shop.")
    assert scenario.definitions(target) == scenario.definitions(source)
    assert scenario.databases(target) == ["shop"] and gtid_state(target) == gtid_state(source)


def plan_warnings(scene: Scene, position: str, *words: str) -> list[str]:
    found: list[str] = scene.ok("restore", "database", "--dry-run", "--to-position", position, *words)["warnings"]
    return found


@pytest.mark.parametrize("words", [("--only", "nothere"), ("--only", "shop."), ("--exclude", ".x")])
def test_patterns_that_mean_nothing(mariadb_pair: tuple[Server, Server], tmp_path: Path, words: tuple[str, ...]) -> None:
    source, target = mariadb_pair
    scene = Scene(tmp_path / "scene", source=source, target=target)
    source.execute(*SHOP[:3])
    scene.ok("init", "--keys", str(scene.keys))
    scene.ok("backup", "full")
    scene.refused(10, "restore", "database", "--yes", "--to", "latest", *words)
    assert scenario.databases(target) == []


ZOO = (
    "CREATE DATABASE `my``shop`", "CREATE DATABASE crm", "USE `my``shop`",
    "CREATE TABLE people (id INT PRIMARY KEY, name VARCHAR(20) COMMENT 'of `my``shop`.people')",
    "CREATE TABLE crm.calls (id INT PRIMARY KEY, who INT, FOREIGN KEY (who) REFERENCES `my``shop`.people (id))",
    "INSERT INTO people VALUES (1, 'Ann'), (2, 'Bob')", "INSERT INTO crm.calls VALUES (1, 2)",
    "CREATE VIEW both_ AS SELECT p.name, c.id FROM people p JOIN crm.calls c ON c.who = p.id",
    "CREATE VIEW crm.names AS SELECT name FROM `my``shop`.people", "CREATE VIEW own AS SELECT id FROM people",
    "CREATE TABLE log (text VARCHAR(40))", "USE crm",
    "CREATE TRIGGER calls_log AFTER INSERT ON calls FOR EACH ROW INSERT INTO `my``shop`.log VALUES ('`my``shop`.log')",
    "CREATE PROCEDURE `my``shop`.p() SELECT COUNT(*) FROM `my``shop` . people -- of `my``shop`.people\n",
    "CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN (SELECT COUNT(*) FROM `my``shop`.people)",
    "CREATE EVENT `my``shop`.e ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM `my``shop`.log",
)  # fmt: skip


def test_a_database_under_another_name(pair: tuple[Server, Server], tmp_path: Path) -> None:
    source, target = pair
    scene = Scene(tmp_path / "scene", source=source, target=target)
    target.execute("SET GLOBAL event_scheduler = OFF")
    source.execute("SET GLOBAL log_bin_trust_function_creators = ON", *ZOO)
    scene.ok("init", "--keys", str(scene.keys))
    backup = scene.ok("backup", "full")
    words = ("--to-position", backup["coordinates"].split(" ")[0], "--rename", "my`shop=new.shop")
    plan = scene.ok("restore", "database", "--dry-run", *words)
    assert plan["selection"]["rename"] == {"my`shop": "new.shop"}
    scene.restore(*words)
    assert scenario.databases(target) == ["crm", "new.shop"]
    assert scenario.rows(target, "SELECT * FROM `new.shop`.both_") == [("Bob", 1)]
    assert scenario.rows(target, "SELECT crm.f()")[0][0] == 2
    target.execute("INSERT INTO crm.calls VALUES (2, 1)", "CALL `new.shop`.p()")
    assert scenario.rows(target, "SELECT text FROM `new.shop`.log") == [("`my`shop`.log".replace("`my`", "`my``"),)]
    assert scenario.rows(target, "SELECT name FROM crm.names ORDER BY 1") == [("Ann",), ("Bob",)]
    with pytest.raises(kpbackup_errors.DatabaseError):  # its foreign key holds
        target.execute("INSERT INTO crm.calls VALUES (3, 99)")
    shown = {(str(row[0]).lower(), str(row[1]), str(row[2])) for row in scenario.definitions(target)}
    assert shown == {(str(row[0]).lower(), str(row[1]).replace("my`shop", "new.shop"), str(row[2]))
                     for row in scenario.definitions(source)}  # fmt: skip

    unsure = "CREATE VIEW crm.unsure AS SELECT crm.name FROM `my``shop`.people crm"
    source.execute("INSERT INTO crm.calls VALUES (7, 1)", unsure)
    scene.ok("backup", "incremental")
    again = ("restore", "database", "--yes", "--to", "latest", "--overwrite", "crm", "--overwrite", "new.shop")
    assert "--to-position" in scene.refused(22, *again, "--rename", "my`shop=other")
    scene.ok("backup", "full")
    assert "cannot rename in view crm.unsure surely" in scene.refused(23, *again, "--rename", "crm=other")
    assert scenario.databases(target) == ["crm", "new.shop"]


def test_a_resumed_run_restores_what_it_was_begun_for(mariadb_pair: tuple[Server, Server], tmp_path: Path) -> None:
    source, target = mariadb_pair
    scene = Scene(tmp_path / "scene", source=source, target=target)
    source.execute(*SHOP)
    scene.ok("init", "--keys", str(scene.keys))
    backup = scene.ok("backup", "full")
    words = ("--to-position", backup["coordinates"].split(" ")[0], "--only", "shop.orders", "--rename", "shop=found")
    process = scene.start("restore", "database", "--yes", *words)
    journals = scene.repository / "recoveries"
    until(lambda: [one for one in journals.glob("*/*") if b"step_started" in one.read_bytes()], what="the run to begin")
    process.kill()
    process.communicate()
    ((run,),) = [[one["run"]] for one in scene.ok("recoveries")["recoveries"]]
    assert b"orders" not in b"".join(one.read_bytes() for one in journals.glob("*/*"))  # names are sealed
    scene.refused(10, "restore", "--resume", run, "--only", "shop")
    scene.ok("restore", "--resume", run)
    assert scenario.databases(target) == ["found"]
    assert list(scenario.truth(target)) == ["found.orders"] and scenario.truth(target)["found.orders"][1] == 3


def test_a_set_of_a_part(pair: tuple[Server, Server], tmp_path: Path) -> None:
    source, target = pair
    scene = Scene(tmp_path / "scene", source=source, target=target)
    target.execute("SET GLOBAL event_scheduler = OFF")
    source.execute(*SHOP)
    scene.ok("init", "--keys", str(scene.keys))
    part = ("--exclude", "logs", "--exclude", "shop.notes")
    made = scene.ok("backup", "full", *part)
    assert made["is_partial"] and made["tables"] == 2
    source.execute(*SINCE)
    scene.ok("backup", "incremental")
    assert scene.ok("list")["sets"][0]["is_partial"] and scene.run("--json", "status").document["is_partial"]
    said = scene.refused(16, "backup", "full")
    assert "cannot back up everything into" in said and "its set 0001-1 holds a part of the source" in said

    assert scene.ok("restore", "database", "--dry-run", "--to", "latest")["is_partial"]
    done = scene.restore("--to", "latest")
    assert any("v_both" in warning for warning in done["warnings"])
    wanted = scenario.truth(source)
    assert scenario.truth(target) == {name: wanted[name] for name in ("shop.orders", "shop.items")}
    assert scenario.databases(target) == ["shop"] and gtid_state(target) == gtid_state(source)
    assert shown(scenario.definitions(target)) == {
        ("view", "v_orders"), ("trigger", "t_orders"), ("procedure", "p"), ("procedure", "q"),
    }  # fmt: skip
    assert "somebody" in str(scenario.rows(target, "SELECT user FROM mysql.user"))  # accounts come with a set
    together(source, "UPDATE shop.orders SET note = 'n' WHERE id = 3", "INSERT INTO shop.notes VALUES (7, 'n')")
    scene.ok("backup", "incremental")
    said = scene.refused(22, "restore", "database", "--yes", "--to", "latest", "--overwrite", "shop")
    assert "changes shop.orders and also shop.notes" in said


def test_one_table_that_cannot_be_loaded_can_be_left_out(mariadb_pair: tuple[Server, Server], tmp_path: Path) -> None:
    """A NOT NULL geometry that was added later is empty, which no server takes as a value, and MyISAM cannot take the other rows
    of a statement back: all else must still come back."""
    source, target = mariadb_pair
    source.execute(
        "CREATE DATABASE odd", "CREATE TABLE odd.`the map` (id INT PRIMARY KEY) ENGINE=MyISAM",
        "INSERT INTO odd.`the map` VALUES (1)",
        "ALTER TABLE odd.`the map` ADD COLUMN place POINT NOT NULL", "CREATE TABLE odd.t (id INT PRIMARY KEY)",
        "INSERT INTO odd.t VALUES (1), (2)", "CREATE VIEW odd.v AS SELECT id FROM odd.t",
    )
    scene = Scene(tmp_path / "scene", source=source, target=target)
    scene.ok("init", "--keys", str(scene.keys))
    scene.ok("backup", "full")
    said = scene.refused(30, "restore", "database", "--to", "latest", "--yes")
    assert "loading odd.the map" in said and "--exclude 'odd.the map'" in said
    scene.restore("--to", "latest", "--exclude", "odd.the map", "--overwrite", "odd")
    with target.connect() as connection:
        assert connection.rows("SELECT id FROM odd.v ORDER BY id") == [(1,), (2,)]
        assert connection.rows("SHOW TABLES FROM odd LIKE 'the map'") == []


def test_one_table_that_cannot_be_read_can_be_left_out(mariadb_pair: tuple[Server, Server], tmp_path: Path) -> None:
    source, _ = mariadb_pair
    source.execute(
        "CREATE DATABASE odd", "CREATE TABLE odd.t (id INT PRIMARY KEY)", "CREATE TABLE odd.broken (id INT) ENGINE=MyISAM"
    )
    with source.connect() as connection:
        directory = Path(str(connection.value("SELECT @@datadir")))
    (directory / "odd" / "broken.frm").write_bytes(b"no definition")
    source.execute("FLUSH TABLES")
    scene = Scene(tmp_path / "scene", source=source)
    scene.ok("init", "--keys", str(scene.keys))
    said = scene.refused(30, "backup", "full")
    assert "cannot read the definition of table odd.broken" in said and "--exclude odd.broken" in said
    made = scene.ok("backup", "full", "--exclude", "odd.broken")
    assert made["tables"] == 1
