"""A target's GTID state, set to what a source had at some coordinates, as if the target had executed it all.

For servers that are the restore's own: the target's binlog and GTID history are thrown away, and replicas
of the target must be seeded anew. Not atomic; after a crash in between, run it again.
"""

from __future__ import annotations

from kpbackup import errors
from kpbackup.mysql.facts import ServerFacts
from kpbackup.mysql.server import Connection

_NEW_RESET_SINCE = (8, 2)  # MySQL; RESET MASTER is gone in 8.4


def set_state(target: Connection, facts: ServerFacts, gtid: str) -> None:
    """Makes `gtid` (executed set or position, '' for none) the target's state. No replica thread may run.

    Raises:
        TargetRefused: the target has GTIDs switched off and `gtid` is not empty.
        PrivilegeMissing, DatabaseError.
    """
    if facts.mariadb:
        if facts.log_bin:
            target.execute("RESET MASTER")
            target.execute("SET GLOBAL gtid_binlog_state=%s", (gtid,))
        target.execute("SET GLOBAL gtid_slave_pos=%s", (gtid,))
        return
    if facts.gtid_mode == "OFF":
        if gtid:
            raise errors.TargetRefused(
                f"{target.endpoint.name} has gtid_mode=OFF, the backed-up source has GTIDs",
                hint="set gtid_mode=ON and enforce_gtid_consistency=ON on the target",
            )
        return
    target.execute("RESET BINARY LOGS AND GTIDS" if facts.version >= _NEW_RESET_SINCE else "RESET MASTER")
    if gtid:
        target.execute("SET GLOBAL gtid_purged=%s", (gtid,))


def read_state(target: Connection, facts: ServerFacts) -> str:
    """The executed set (MySQL) or the replicated position (MariaDB), on one line."""
    variable = "gtid_slave_pos" if facts.mariadb else "gtid_executed"
    return "".join(str(target.value(f"SELECT @@GLOBAL.{variable}") or "").split())
