"""A cluster of two Galera nodes: what is written through either is in the backup of the one that kpbackup names."""

from __future__ import annotations

from pathlib import Path

from tests.integration import scenario
from tests.integration.deployment import deploy, order, until
from tests.integration.scenario import Scene, login
from tests.integration.test_continuity import CONTINUOUS
from tests.integration.test_daemon import NEVER, running
from tests.servers import ports
from tests.servers.galera import galera_node, is_synced
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


def test_another_node_takes_over(tmp_path: Path) -> None:
    """The node that is archived dies, another one is found at its address. It has the same GTIDs, but nothing tells it from the
    same node put back from an older copy: the break is told with its reason, and a full backup of its own accord mends it."""
    listen, other = ports.free_port(), ports.free_port()
    with (
        galera_node(tmp_path / "a", server_id=71, listen=listen, options=GTIDS) as first,
        galera_node(tmp_path / "b", server_id=71, listen=other, first=(first, listen), options=GTIDS) as node,
        mariadb_server(tmp_path / "target", server_id=79) as target,
    ):
        made = deploy(tmp_path / "deployment", node)
        with running(made, schedule={"full": NEVER, "incremental": NEVER}, archive=CONTINUOUS) as daemon:
            until(lambda: daemon.metric("kpbackup_archive_following") == 1, what="the archive to follow")
            order(node, "through the archived node")
            order(first, "through the other")
            until(lambda: made.json("list")["archive"][0]["transactions"] == 2, what="both to be archived")
            node.stop()
            first.stop()
            first.port = node.port
            first.start()
            until(lambda: is_synced(first), what="the other node to be a cluster by itself")
            order(first, "after the failover")
            until(lambda: len(made.json("list")["archive"]) == 2, what="a new timeline")
            until(lambda: made.json("list")["sets"][-1]["timeline"] == "0002", what="a full backup by itself")
            (broken,) = daemon.events("chain_broken")
            assert "binlogs were reset or the server was restored" in broken["reason"]
            assert "or another node of the Galera cluster is found at its address" in broken["reason"]
            until(lambda: daemon.metric("kpbackup_timelines", reason="reset") == 1, what="the metrics to tell the reason")
            assert daemon.metric("kpbackup_job_failures_total", kind="incremental") == 1
            assert daemon.metric("kpbackup_recoverable_windows") == 2
            order(first, "on the new timeline")
            until(lambda: made.json("list")["archive"][-1]["transactions"], what="the archive to go on")
        made.settings["encryption"]["identity_file"] = str(made.keys / "identity.txt")
        made.settings["recovery"] = {"target": login(target), "deploy": {"driver": "none"}, "switch": {"driver": "none"}}
        made.write()
        made.json("restore", "database", "--to", "latest", "--yes")
        assert scenario.truth(target) == scenario.truth(first)


def test_a_node_that_does_not_log_the_others_is_refused(tmp_path: Path) -> None:
    with galera_node(tmp_path / "a", server_id=71, listen=ports.free_port(), options=("--skip-log-slave-updates",)) as node:
        (tmp_path / "scene").mkdir()
        scene = Scene(tmp_path / "scene", source=node)
        scene.ok("init", "--keys", str(scene.keys))
        refused = scene.run("backup", "full")
        assert refused.code == 14
        assert "a node of Galera without log_replica_updates" in refused.err and "log_slave_updates=ON" in refused.err
