"""A session made fit for loading rows, and the scratch schema that says how far a load has come.

Checks are off in the session, so a row that breaks a later constraint comes back as it was; MySQL has no such switch
for CHECK constraints, but keeps no row either that breaks an enforced one. Only session variables are set: they go with the
session, so nothing of it is left on the server.
"""

from __future__ import annotations

from dataclasses import dataclass

from kpbackup import errors
from kpbackup.model import inventory
from kpbackup.mysql import definitions, facts, server, versioned

SCRATCH_SCHEMA = "kpbackup_restore"
LOCK_WAIT_S = 3600  # a killed worker's rows are rolled back by the server in its own time; the next attempt waits
LEAST_PACKET_BYTES = 1 << 19  # a batch's bitmap and types alone may take 140 KB; servers start with 16 MB and more

STANDARD_KEYS_SINCE = (8, 4)  # MySQL manual, restrict_fk_on_non_standard_key

_SQL_MODE = "NO_AUTO_VALUE_ON_ZERO"


@dataclass(frozen=True)
class Session:
    """What the load must know of its session."""

    flavour: str
    max_allowed_packet: int


def prepare_session(connection: server.Connection, *, write_binlog: bool = True) -> Session:
    """Sets the session up for loading: no checks, exact time zone and modes, patience for locks.

    Raises:
        PrivilegeMissing: `write_binlog` is off and the account may not say so.
        ServerUnfit: max_allowed_packet is too small to work with.
    """
    flavour, version = facts.flavour_and_version(connection)
    packet_bytes = int(connection.value("SELECT @@max_allowed_packet"))
    if packet_bytes < LEAST_PACKET_BYTES:
        raise errors.ServerUnfit(
            f"cannot load into {connection.endpoint.name}: its max_allowed_packet is {packet_bytes} bytes",
            hint="set max_allowed_packet on the target to at least 16777216",
        )
    values = {
        "sql_mode": f"'{_SQL_MODE}'", "time_zone": "'+00:00'", "foreign_key_checks": "0",
        "sql_safe_updates": "0", "sql_warnings": "0", "max_error_count": "65535", "lc_messages": "'en_US'",
        "innodb_lock_wait_timeout": str(LOCK_WAIT_S), "lock_wait_timeout": str(LOCK_WAIT_S),
        "wait_timeout": "28800", "net_read_timeout": "3600", "autocommit": "1",
    }
    if flavour == "mariadb":
        values |= {
            "check_constraint_checks": "0", "max_statement_time": "0", "idle_transaction_timeout": "0",
            "idle_write_transaction_timeout": "0",
            # else the server writes out the text of every INSERT in case it is slow: processor time, and rows in a log
            "slow_query_log": "0",
            # a table made under another rule comes back too; its definition is compared at the end
            "innodb_strict_mode": "0",
        }
        if version >= versioned.WRITABLE_SINCE:
            values["system_versioning_insert_history"] = "1"
    else:
        # not on MariaDB: there, with both checks off, the first transaction into an empty table locks it for all others
        # and takes a path that measured twice the processor time
        values["unique_checks"] = "0"
    if not write_binlog:
        values["sql_log_bin"] = "0"
    connection.execute("SET NAMES utf8mb4")
    if flavour == "mysql":
        take_all_foreign_keys(connection, version)
    connection.execute("SET SESSION " + ", SESSION ".join(f"{name} = {value}" for name, value in values.items()))
    return Session(flavour=flavour, max_allowed_packet=packet_bytes)


def take_all_foreign_keys(connection: server.Connection, version: tuple[int, ...]) -> None:
    """Those to keys that are not unique too, which MySQL took before 8.4. Whoever may load or replay may say so."""
    if version >= STANDARD_KEYS_SINCE:
        connection.execute("SET SESSION restrict_fk_on_non_standard_key = OFF")


def prepare_progress(connection: server.Connection) -> None:
    """Creates the scratch schema and its table unless they are there; whoever ends the restore drops the schema."""
    connection.execute(f"CREATE DATABASE IF NOT EXISTS {SCRATCH_SCHEMA}")
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {SCRATCH_SCHEMA}.progress (chunk_id CHAR(64) CHARACTER SET ascii NOT NULL PRIMARY KEY,"
        " `rows` BIGINT UNSIGNED NOT NULL, done DATETIME(6) NOT NULL) ENGINE=InnoDB"
    )


def computes(table: inventory.Table) -> bool:
    """Whether the table has generated columns, or may have."""
    return "GENERATED ALWAYS AS (" in table.create_sql


def sql_mode(table: inventory.Table, flavour: str) -> str:
    """The mode to load a table in.

    ALLOW_INVALID_DATES keeps a stored 2024-02-31; it is left out where an expression of a generated column, computed
    again during the load, could see the difference. MariaDB has let an expression see the other modes only where the
    table was made under them.
    """
    if not computes(table):
        return f"{_SQL_MODE},ALLOW_INVALID_DATES"
    return f"{_SQL_MODE},{definitions.DEPENDED_ON}" if flavour == "mariadb" else _SQL_MODE
