"""The main job on MySQL 9.7: caching_sha2 logins, GTIDs on and off, the shortest path from a full backup to a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration import scenario
from tests.integration.scenario import Scene
from tests.servers.mysql97 import mysql97_server

GTID_OFF = ("--gtid-mode=OFF", "--enforce-gtid-consistency=OFF")
PASSWORD = "Geheim-9.7 ü"
USER = f"CREATE USER kpb@'%' IDENTIFIED WITH caching_sha2_password BY '{PASSWORD}'"
SHOP = (
    "CREATE DATABASE shop",
    "USE shop",
    "CREATE TABLE item (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(60), price FLOAT, doc JSON, KEY (name))",
    "INSERT INTO item (name, price, doc) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
    " SELECT CONCAT('item ', i), i / 7, JSON_OBJECT('i', i) FROM n",
    "CREATE VIEW dear AS SELECT * FROM item WHERE price > 10",
    "CREATE TRIGGER upper_name BEFORE INSERT ON item FOR EACH ROW SET NEW.name = UPPER(NEW.name)",
    "CREATE USER app@'%' IDENTIFIED WITH caching_sha2_password BY 'app'",
    "GRANT SELECT ON shop.* TO app@'%'",
)


@pytest.mark.parametrize("gtid_mode", ["ON", "OFF"])
def test_to_a_time_and_latest(tmp_path: Path, mysql97_programs: Path, gtid_mode: str) -> None:
    options = GTID_OFF if gtid_mode == "OFF" else ()
    with (
        mysql97_server(tmp_path / "source", server_id=31, options=options) as source,
        mysql97_server(tmp_path / "target", server_id=31) as target,  # GTIDs on: it gives anonymous transactions its own
    ):
        scene = Scene(tmp_path / "scene", source=source, target=target).loading_as_users_do()
        source.execute(USER, "GRANT ALL ON *.* TO kpb@'%'", *SHOP)
        target.execute(USER, "GRANT ALL ON *.* TO kpb@'%' WITH GRANT OPTION", "SET GLOBAL event_scheduler = OFF")
        for login in (scene.settings["source"], scene.settings["recovery"]["target"]):
            login["user"] = "kpb"
        scene.environ |= {"KPBACKUP_SOURCE__PASSWORD": PASSWORD, "KPBACKUP_RECOVERY__TARGET__PASSWORD": PASSWORD}
        scene.ok("init", "--keys", str(scene.keys))
        scene.ok("backup", "full")
        source.execute("USE shop", "UPDATE item SET price = price + 1 WHERE id < 20", "INSERT INTO item (name) VALUES ('kept')")
        moment, held = scenario.next_second(source), scenario.truth(source)
        source.execute("FLUSH BINARY LOGS", "DELETE FROM shop.item WHERE id > 100")
        scene.ok("backup", "incremental")
        scene.restore("--to", scenario.text(moment))
        assert scenario.truth(target) == held
        assert scenario.definitions(target) == scenario.definitions(source)
        assert scenario.rows(target, "SHOW GRANTS FOR app@'%'") == scenario.rows(source, "SHOW GRANTS FOR app@'%'")
        scene.restore("--to", "latest", "--overwrite", "shop")
        assert scenario.truth(target) == scenario.truth(source)
