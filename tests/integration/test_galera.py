"""A cluster of two Galera nodes: what is written through either is in the backup of the one that kpbackup names."""

from __future__ import annotations

from pathlib import Path

from tests.integration.scenario import Scene, login
from tests.servers import ports
from tests.servers.galera import galera_node
from tests.servers.mariadb import mariadb_server

ROWS = "SELECT * FROM shop.orders ORDER BY id"
GTIDS = ("--wsrep-gtid-mode=ON", "--wsrep-gtid-domain-id=1")


def test_writes_of_all_nodes_come_back(tmp_path: Path) -> None:
    listen, other = ports.free_port(), ports.free_port()
    with (
        galera_node(tmp_path / "a", server_id=71, listen=listen, options=GTIDS) as first,
        galera_node(tmp_path / "b", server_id=71, listen=other, first=(first, listen), options=GTIDS) as node,
        mariadb_server(tmp_path / "target", server_id=79) as target,
    ):
        (tmp_path / "scene").mkdir()
        scene = Scene(tmp_path / "scene", source=node, target=target)
        first.execute(
            "CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(50))",
            "INSERT INTO shop.orders (note) VALUES ('before'), ('the backup')",
        )  # fmt: skip
        node.execute("SET SESSION wsrep_sync_wait=7", "SELECT 1 FROM shop.orders")  # it has applied them
        scene.ok("init", "--keys", str(scene.keys))
        scene.ok("backup", "full")
        first.execute("INSERT INTO shop.orders (note) VALUES ('through the first')", "ALTER TABLE shop.orders ADD kind INT")
        node.execute("INSERT INTO shop.orders (note, kind) VALUES ('through the second', 2)")
        first.execute("SET SESSION wsrep_sync_wait=7", "UPDATE shop.orders SET kind = 1 WHERE kind IS NULL")
        node.execute("SET SESSION wsrep_sync_wait=7", "SELECT 1 FROM shop.orders")
        scene.ok("backup", "incremental")
        scene.ok("restore", "database", "--to", "latest", "--yes")
        with node.connect() as there, target.connect() as here:
            wanted = there.rows(ROWS)
            assert len(wanted) == 4 and all(row[2] for row in wanted)
            assert here.rows(ROWS) == wanted
            assert here.value("SELECT @@gtid_binlog_pos") == there.value("SELECT @@gtid_binlog_pos")
        # another node has the same GTIDs, and the same server_id too: it could be this one, put back from an older copy
        scene.settings["source"] |= login(first)
        scene.refused(24, "backup", "incremental")
        assert scene.ok("backup", "full")["set"] == "0002-1"


def test_a_node_that_does_not_log_the_others_is_refused(tmp_path: Path) -> None:
    with galera_node(tmp_path / "a", server_id=71, listen=ports.free_port(), options=("--skip-log-slave-updates",)) as node:
        (tmp_path / "scene").mkdir()
        scene = Scene(tmp_path / "scene", source=node)
        scene.ok("init", "--keys", str(scene.keys))
        refused = scene.run("backup", "full")
        assert refused.code == 14
        assert "a node of Galera without log_replica_updates" in refused.err and "log_slave_updates=ON" in refused.err
