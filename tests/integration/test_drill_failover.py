"""The failover drill: what the bucket says of a change of primary, and a point behind it really restored."""

from __future__ import annotations

from pathlib import Path

from tests.integration import scenario
from tests.integration.deployment import Deployment, deploy, order
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server


def another_server_writes(source: Server) -> None:
    """As after a failover that the archive survives: the next binlog file is of another server id, without a gap."""
    source.execute("SET GLOBAL server_id = 4711", "FLUSH BINARY LOGS")


def newest_run(made: Deployment) -> dict[str, object]:
    found: list[dict[str, object]] = made.json("recoveries")["recoveries"]
    return found[-1]


def test_an_archive_that_went_on_and_one_that_did_not(mariadb: Server, tmp_path: Path) -> None:
    made = deploy(tmp_path / "deployment", mariadb)
    made.json("backup", "full")
    made.settings["encryption"]["identity_file"] = str(made.keys / "identity.txt")
    made.settings["drill"] = {"directory": str(tmp_path)}
    made.write()
    order(mariadb, "by the first")
    made.json("backup", "incremental")
    assert made.json("drill", "failover")["passed"] is None
    assert made.json("recoveries")["recoveries"] == []

    scenario.next_second(mariadb)
    another_server_writes(mariadb)
    order(mariadb, "by the second")
    order(mariadb, "not drilled: behind the point")
    made.json("backup", "incremental")
    done = made.json("drill", "failover", timeout_s=600)
    assert done["passed"] and done["details"]["transactions"] == "2"
    assert (done["details"]["to_server"], done["details"]["drill"]) == ("4711", "failover")
    assert newest_run(made)["state"] == "passed"

    with mariadb_server(tmp_path / "third", server_id=93) as third:
        made.settings["source"]["port"] = third.port
        made.write()
        third.execute("CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(100))")
        assert made.json("backup", "full")["set"] == "0002-1"
        order(third, "by the third")
        made.json("backup", "incremental")
        ended = made.run("drill", "failover")
        assert ended.returncode == 22 and "did not go on across the last change of primary (server 4711 to 93)" in ended.stderr
        newest = newest_run(made)
        assert (newest["state"], newest["kind"]) == ("failed", "drill")
        assert made.json("status", code=1)["last_drill"]["passed"] is False
