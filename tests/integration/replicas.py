"""Real replicas for tests: one follows another, and takes its address over. By GTID, or by file and position."""

from __future__ import annotations

from tests.integration import scenario
from tests.integration.deployment import until
from tests.servers.database import Server


def is_mariadb(server: Server) -> bool:
    return server.product == "MariaDB"


def follow(replica: Server, source: Server, *, by_gtid: bool = True) -> None:
    """Makes a running server the replica of another, from where it stands (by position: from the source's end) and starts it."""
    where = "MASTER_USE_GTID=slave_pos" if is_mariadb(replica) else "SOURCE_AUTO_POSITION=1"
    if not by_gtid:
        file, _, position = scenario.position(source).rpartition(":")
        prefix = "MASTER" if is_mariadb(replica) else "SOURCE"
        where = f"{prefix}_LOG_FILE='{file}', {prefix}_LOG_POS={position}"
    if is_mariadb(replica):
        where += "" if by_gtid else ", MASTER_USE_GTID=no"
        sql = f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={source.port}, MASTER_USER='root', {where}"
        replica.execute(f"{sql}, MASTER_CONNECT_RETRY=1", "START SLAVE")
        return
    sql = f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={source.port}, SOURCE_USER='root', {where}"
    replica.execute(f"{sql}, SOURCE_CONNECT_RETRY=1, GET_SOURCE_PUBLIC_KEY=1", "START REPLICA")


def stop_following(replica: Server) -> None:
    replica.execute(*(("STOP SLAVE", "RESET SLAVE ALL") if is_mariadb(replica) else ("STOP REPLICA", "RESET REPLICA ALL")))


def wait_until_equal(replica: Server, source: Server) -> None:
    """Until the replica has all that the source has, by its rows: there are servers without GTIDs."""
    until(lambda: scenario.truth(replica) == scenario.truth(source), what="the replica to come up")


def take_over(replica: Server, source: Server) -> None:
    """The source dies, the replica stops following and is from now on found at the source's address."""
    source.kill()
    stop_following(replica)
    replica.stop()
    source.port, replica.port = replica.port, source.port
    replica.start()
