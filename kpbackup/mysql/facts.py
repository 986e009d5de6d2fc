"""What a server is and how it is set, read once as one value (`flavour_and_version`: these two alone).

Two statements: SHOW GLOBAL VARIABLES (needs no privilege) and the replica status. A value stays true only as long as
nobody changes the server; read it anew for every backup.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from kpbackup import errors
from kpbackup.mysql.server import Connection

DAY_S = 86_400
REPLICA_STATUS_SINCE = (8, 0, 22)  # MySQL; before it SHOW SLAVE STATUS
GALERA = "Galera"
_FILTERS = ("do_db", "ignore_db", "do_table", "ignore_table", "wild_do_table", "wild_ignore_table")
_FIRST_FILTER = 12  # the column of the first of them in MySQL's SHOW REPLICA STATUS


@dataclass(frozen=True)
class ServerFacts:
    """Facts and global settings of one server.

    `flavour` is 'mariadb' or 'mysql'; `version` like (10, 11, 19). `server_uuid` and `gtid_mode` ('ON', 'OFF',
    'ON_PERMISSIVE', ...) are '' on MariaDB. `binlog_expire_s` is 0 when the server never purges by itself.
    `is_replica` is also False when the account may not know. `cluster` is 'Galera', 'Group Replication' or ''.
    `replica_filters` says what of its source a replica leaves out, as far as the account may know ('' is nothing).
    """

    flavour: str
    version: tuple[int, ...]
    version_string: str
    server_id: int
    server_uuid: str
    log_bin: bool
    binlog_format: str
    binlog_row_image: str
    log_replica_updates: bool
    read_only: bool
    gtid_mode: str
    gtid_strict_mode: bool
    lower_case_table_names: int
    time_zone: str
    character_set_server: str
    collation_server: str
    sql_mode: str
    event_scheduler: str
    max_allowed_packet: int
    binlog_expire_s: int
    is_replica: bool
    hostname: str
    system_time_zone: str = "UTC"
    innodb_page_size: int = 16384
    cluster: str = ""
    replica_filters: str = ""

    @property
    def mariadb(self) -> bool:
        return self.flavour == "mariadb"


def read_facts(connection: Connection) -> ServerFacts:
    """The facts of the server behind `connection`.

    Raises:
        DatabaseError, ServerUnreachable.
    """
    variables = {str(name).lower(): str(value) for name, value in connection.rows("SHOW GLOBAL VARIABLES")}
    flavour, version = _flavour_and_version(variables)
    is_replica, filters = _replica(connection, flavour, version)
    if flavour == "mariadb":
        filters = {name: variables.get(f"replicate_{name}", "") for name in _FILTERS}
    told = "; ".join(f"replicate_{name}={value}" for name, value in filters.items() if value)
    return facts_of(variables, flavour=flavour, is_replica=is_replica, replica_filters=told)


def flavour_and_version(connection: Connection) -> tuple[str, tuple[int, ...]]:
    """What `read_facts` says of these two, without the hundreds of variables, which cost a session of a restore 11 ms.

    Raises:
        DatabaseError, ServerUnreachable.
    """
    found = connection.rows("SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'gtid_domain_id')")
    return _flavour_and_version({str(name).lower(): str(value) for name, value in found})


def _flavour_and_version(variables: Mapping[str, str]) -> tuple[str, tuple[int, ...]]:
    return "mariadb" if "gtid_domain_id" in variables else "mysql", version_tuple(variables["version"])


def facts_of(
    variables: Mapping[str, str], *, flavour: str, is_replica: bool, replica_filters: str = ""
) -> ServerFacts:
    """The facts in a server's global variables (names in lower case)."""

    def on(*names: str) -> bool:
        return any(variables.get(name, "OFF").upper() in ("ON", "1") for name in names)

    return ServerFacts(
        flavour=flavour,
        version=version_tuple(variables["version"]),
        version_string=variables["version"],
        server_id=int(variables.get("server_id", "0")),
        server_uuid=variables.get("server_uuid", "") if flavour == "mysql" else "",
        log_bin=on("log_bin"),
        binlog_format=variables.get("binlog_format", "ROW").upper(),  # a server without the variable knows ROW alone
        binlog_row_image=variables.get("binlog_row_image", "FULL").upper(),
        log_replica_updates=on("log_replica_updates", "log_slave_updates"),
        read_only=variables.get("read_only", "OFF").upper() not in ("OFF", "0"),
        gtid_mode=variables.get("gtid_mode", "OFF").upper() if flavour == "mysql" else "",
        gtid_strict_mode=on("gtid_strict_mode"),
        lower_case_table_names=int(variables.get("lower_case_table_names", "0")),
        time_zone=variables.get("time_zone", "SYSTEM"),
        character_set_server=variables.get("character_set_server", ""),
        collation_server=variables.get("collation_server", ""),
        sql_mode=variables.get("sql_mode", ""),
        event_scheduler=variables.get("event_scheduler", "OFF").upper(),
        max_allowed_packet=int(variables.get("max_allowed_packet", "0")),
        binlog_expire_s=_binlog_expire_s(variables),
        is_replica=is_replica,
        hostname=variables.get("hostname", ""),
        system_time_zone=variables.get("system_time_zone", "UTC"),
        innodb_page_size=int(variables.get("innodb_page_size", "16384")),
        cluster=_cluster(variables),
        replica_filters=replica_filters,
    )


def _cluster(variables: Mapping[str, str]) -> str:
    """By what a node is set to, not by whether it has joined just now."""
    if variables.get("wsrep_on", "OFF").upper() in ("ON", "1") and variables.get("wsrep_provider", "none").lower() != "none":
        return GALERA
    return "Group Replication" if variables.get("group_replication_group_name") else ""


def version_tuple(text: str) -> tuple[int, ...]:
    """(10, 11, 19) of '10.11.19-MariaDB-log'."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    if found is None:
        raise errors.ServerUnfit(f"cannot read the server's version {text!r}")
    return tuple(int(part) for part in found.group().split("."))


def identity(connection: Connection, facts: ServerFacts) -> tuple[int, str]:
    """Server id and UUID ('' on MariaDB) of whoever answers now: another server than `facts` were read of may stand there."""
    uuid = "''" if facts.mariadb else "@@server_uuid"
    found = connection.row(f"SELECT @@global.server_id, {uuid}")
    return (int(found[0]), str(found[1])) if found else (0, "")


def clock(connection: Connection) -> datetime:
    """The server's clock, aware UTC, with microseconds."""
    found = connection.value("SELECT UTC_TIMESTAMP(6)")
    if not isinstance(found, datetime):
        raise errors.DatabaseError(f"the clock of {connection.endpoint.name} reads {found!r}")
    return found.replace(tzinfo=UTC)


def _binlog_expire_s(variables: Mapping[str, str]) -> int:
    if variables.get("binlog_expire_logs_auto_purge", "ON").upper() in ("OFF", "0"):
        return 0
    seconds = int(float(variables.get("binlog_expire_logs_seconds", "0")))
    return seconds or int(float(variables.get("expire_logs_days", "0")) * DAY_S)


def _replica(connection: Connection, flavour: str, version: tuple[int, ...]) -> tuple[bool, dict[str, str]]:
    """Whether it is a replica, and of MySQL the filters of its channels."""
    if flavour == "mariadb":
        sql = "SHOW ALL SLAVES STATUS"
    else:
        sql = "SHOW REPLICA STATUS" if version >= REPLICA_STATUS_SINCE else "SHOW SLAVE STATUS"
    try:
        rows = connection.rows(sql)
    except errors.PrivilegeMissing:
        running = connection.row("SHOW GLOBAL STATUS LIKE 'Slaves_running'")  # MariaDB; needs no privilege
        return running is not None and running[1] != "0", {}
    columns = [str(value or "") for row in rows for value in row[_FIRST_FILTER : _FIRST_FILTER + len(_FILTERS)]]
    found = {name: ",".join(filter(None, columns[place :: len(_FILTERS)])) for place, name in enumerate(_FILTERS)}
    return bool(rows), found
