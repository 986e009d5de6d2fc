"""Where a server's binlog stands now, and which files of it are left."""

from __future__ import annotations

from kpbackup import errors
from kpbackup.model.coordinates import Coordinates
from kpbackup.mysql.facts import ServerFacts
from kpbackup.mysql.server import Connection

BINARY_LOG_STATUS_SINCE = (8, 2)  # MySQL; SHOW MASTER STATUS is gone in 8.4


def read_coordinates(connection: Connection, facts: ServerFacts) -> Coordinates:
    """End of the binlog. MySQL's row holds file, position and executed set of one moment only under a lock.

    On MariaDB `gtid` is @@gtid_binlog_pos, read apart: it belongs to the position only while nothing commits.

    Raises:
        ServerUnfit: the binlog is off, or leaves databases out. PrivilegeMissing: REPLICATION CLIENT (BINLOG MONITOR) is missing.
    """
    modern = not facts.mariadb and facts.version >= BINARY_LOG_STATUS_SINCE
    found = connection.row("SHOW BINARY LOG STATUS" if modern else "SHOW MASTER STATUS")
    if found is None:
        raise errors.ServerUnfit(
            f"cannot read the binlog position of {connection.endpoint.name}: the binlog is off",
            hint="set log_bin=binlog and a server_id in the server's configuration and restart it",
        )
    _refuse_filters(connection, str(found[2] or ""), str(found[3] or ""))
    if facts.mariadb:
        gtid = str(connection.value("SELECT @@global.gtid_binlog_pos") or "")
    else:
        gtid = str(found[4] or "") if len(found) > 4 else ""
    return Coordinates(str(found[0]), int(found[1]), "".join(gtid.split()))


def _refuse_filters(connection: Connection, only: str, ignored: str) -> None:
    """What such a filter hides depends on each session's default database, so no list of databases would be the truth."""
    hidden = set(filter(None, ignored.split(","))) - {"information_schema", "performance_schema"}
    if only or hidden:
        setting = f"binlog_do_db={only}" if only else f"binlog_ignore_db={','.join(sorted(hidden))}"
        raise errors.ServerUnfit(
            f"{connection.endpoint.name} leaves databases out of its binlog ({setting}): their changes could not be recovered",
            hint="remove the filter from the server's configuration, restart it and take a full backup",
        )


def read_binlog_state(connection: Connection, facts: ServerFacts) -> str:
    """MariaDB's last GTID of each pair of domain and server; '' on MySQL, whose executed set says more."""
    return str(connection.value("SELECT @@global.gtid_binlog_state") or "") if facts.mariadb else ""


def list_binlogs(connection: Connection) -> list[tuple[str, int]]:
    """(file name, size in bytes), oldest first.

    Raises:
        ServerUnfit: the binlog is off. PrivilegeMissing: REPLICATION CLIENT (BINLOG MONITOR) is missing.
    """
    try:
        return [(str(row[0]), int(row[1])) for row in connection.rows("SHOW BINARY LOGS")]
    except errors.DatabaseError as exc:
        if exc.number == 1381:  # ER_NO_BINARY_LOGGING
            raise errors.ServerUnfit(
                f"cannot list the binlogs of {connection.endpoint.name}: the binlog is off",
                hint="set log_bin=binlog and a server_id in the server's configuration and restart it",
            ) from exc
        raise
