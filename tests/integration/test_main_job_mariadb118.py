"""The main job on MariaDB 11.8, and between the servers: an upgrade is exact or refused, all else is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration import scenario
from tests.integration.scenario import Scene
from tests.servers.database import Server

SHOP = (
    "CREATE DATABASE shop",
    "USE shop",
    "CREATE TABLE item (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(60), price FLOAT, due TIMESTAMP(6) NULL, KEY (name))",
    "INSERT INTO item (name, price, due) SELECT CONCAT('item ', seq), seq / 7, '2024-06-01 12:00:00.5' + INTERVAL seq SECOND"
    " FROM seq_1_to_500",
    "CREATE VIEW dear AS SELECT * FROM item WHERE price > 10",
    "CREATE TRIGGER upper_name BEFORE INSERT ON item FOR EACH ROW SET NEW.name = UPPER(NEW.name)",
    "CREATE SEQUENCE numbers START WITH 40",
    "CREATE USER app@'%' IDENTIFIED BY 'app'",
    "GRANT SELECT ON shop.* TO app@'%'",
)
VECTORS = (
    "CREATE TABLE shop.words (id INT PRIMARY KEY, v VECTOR(3) NOT NULL, VECTOR INDEX (v) DISTANCE=cosine)",
    "INSERT INTO shop.words VALUES (1, x'0000803f0000000000000000'), (2, x'000080bf01000000ffff7f5e')",
    "CREATE TABLE shop.late (id INT PRIMARY KEY, t TIMESTAMP NULL)",
    "INSERT INTO shop.late VALUES (1, '2106-02-07 06:28:15')",
)


def all_definitions(server: Server) -> dict[str, str]:
    """SHOW CREATE of every table and sequence."""
    names = scenario.rows(server, "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema = 'shop'")
    return {name: scenario.rows(server, f"SHOW CREATE TABLE `{schema}`.`{name}`")[0][1] for schema, name in names}


def backed_up(scene: Scene, source: Server, *extra: str) -> None:
    source.execute("SET time_zone = '+00:00'", *SHOP, *extra)
    scene.ok("init", "--keys", str(scene.keys))
    scene.ok("backup", "full")


def test_to_a_time_and_latest(tmp_path: Path, mariadb118_pair: tuple[Server, Server]) -> None:
    source, target = mariadb118_pair
    scene = Scene(tmp_path / "scene", source=source, target=target).loading_as_users_do()
    backed_up(scene, source, *VECTORS)
    source.execute("USE shop", "UPDATE item SET price = price + 1 WHERE id < 20", "INSERT INTO item (name) VALUES ('kept')",
                   "INSERT INTO words VALUES (3, VEC_FromText('[1,2,3]'))", "DO NEXTVAL(numbers)")
    moment, held = scenario.next_second(source), scenario.truth(source)
    source.execute("FLUSH BINARY LOGS", "DELETE FROM shop.item WHERE id > 100", "DROP TABLE shop.words")
    scene.ok("backup", "incremental")
    scene.restore("--to", scenario.text(moment))
    assert scenario.truth(target) == held
    assert scenario.definitions(target) == scenario.definitions(source)
    nearest = "SELECT id FROM shop.words ORDER BY VEC_DISTANCE_COSINE(v, VEC_FromText('[1,0,0]')) LIMIT 1"
    assert scenario.rows(target, nearest) == [(1,)]
    scene.restore("--to", "latest", "--overwrite", "shop")
    assert scenario.truth(target) == scenario.truth(source)
    assert all_definitions(target) == all_definitions(source)
    assert scenario.rows(target, "SHOW GRANTS FOR app@'%'") == scenario.rows(source, "SHOW GRANTS FOR app@'%'")


def test_an_upgrade_from_10_11_is_exact(tmp_path: Path, mariadb: Server, mariadb118: Server) -> None:
    scene = Scene(tmp_path / "scene", source=mariadb, target=mariadb118).loading_as_users_do()
    backed_up(scene, mariadb)
    mariadb.execute("UPDATE shop.item SET price = price + 1 WHERE id < 20")
    scene.ok("backup", "incremental")
    scene.restore("--to", "latest")
    assert scenario.truth(mariadb118) == scenario.truth(mariadb)
    assert scenario.definitions(mariadb118) == scenario.definitions(mariadb)
    assert scenario.rows(mariadb118, "SHOW GRANTS FOR app@'%'") == scenario.rows(mariadb, "SHOW GRANTS FOR app@'%'")


@pytest.mark.parametrize(
    ("source_name", "target_name", "why"),
    [
        ("mariadb118", "mariadb", "older than the source's 11.8"),
        ("mariadb118", "mysql97", "the target is mysql, the backup is of mariadb"),
        ("mysql97", "mariadb118", "the target is mariadb, the backup is of mysql"),
    ],
)
def test_what_cannot_be_exact_is_refused(
    tmp_path: Path, request: pytest.FixtureRequest, source_name: str, target_name: str, why: str
) -> None:
    source, target = request.getfixturevalue(source_name), request.getfixturevalue(target_name)
    scene = Scene(tmp_path / "scene", source=source, target=target).loading_as_users_do()
    source.execute("CREATE DATABASE shop", "CREATE TABLE shop.item (id INT PRIMARY KEY)")
    scene.ok("init", "--keys", str(scene.keys))
    scene.ok("backup", "full")
    assert why in scene.refused(23, "restore", "database", "--to", "latest", "--yes")
    assert scenario.databases(target) == []
