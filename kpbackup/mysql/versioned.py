"""The past rows of MariaDB's system-versioned tables: read with the current ones, written back with the times they had.

A versioned table has two more columns, declared or hidden (`row_start`, `row_end`), which say when each row was current. A
dump reads them FOR SYSTEM_TIME ALL, and orders by the end too, which makes the primary key unique over time. A load writes
them: MariaDB lets it since 10.11, with system_versioning_insert_history, unless secure_timestamp forbids it (`findings`).

A row that is still current ends at the last moment a TIMESTAMP knows, which MariaDB 11.5 moved from 2038 to 2106. A chunk
always says 2038; who writes it puts in the server's own last moment (`forever`).

Limits, each named in a warning of the set: history that is precise to the transaction (TRX_ID) refers to the source's
transaction numbers, so only current rows of such a table are kept; which PARTITION BY SYSTEM_TIME LIMIT a past row is in is
not kept (INTERVAL partitions follow from the times).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from kpbackup.model.inventory import Column, Table
from kpbackup.mysql.facts import ServerFacts
from kpbackup.mysql.findings import Finding, grant
from kpbackup.mysql.privileges import Privileges
from kpbackup.mysql.quoting import literal
from kpbackup.mysql.server import Connection

VERSIONED = "SYSTEM VERSIONED"  # information_schema's table_type
WRITABLE_SINCE = (10, 11, 0)
FOREVER = "2038-01-19 03:14:07.999999"  # in a chunk
_LAST_MOMENTS = (FOREVER, "2106-02-07 06:28:15.999999")  # of servers before 11.5, and since
_PERIOD = ("row_start", "row_end")  # the names of hidden ones
_BY_LIMIT = re.compile(r"\bPARTITION BY SYSTEM_TIME\s+LIMIT\b")


def period_columns(declared: Sequence[tuple[str, str]]) -> tuple[Column, ...]:
    """The columns of a versioned table's period, () if they count transactions; `declared` are (name, data type), if any."""
    names = [name for name, _ in declared] or _PERIOD
    if any(kind != "timestamp" for _, kind in declared):
        return ()
    return tuple(Column(name, "timestamp", "timestamp(6)") for name in names)


def keyed(table_key: Sequence[str], history: Sequence[str], *, transactional: bool) -> tuple[str, ...]:
    """What orders the rows of a versioned table. () for an engine without transactions: what an interrupted load left of
    such a table can only be deleted as a whole, so it is one chunk."""
    if not table_key or not transactional:
        return ()
    return (*table_key, *(name for name in history[1:] if name not in table_key))


def end_expression(column: str) -> str:
    """The SQL that reads a row's end; a current row says the same on every server."""
    moments = ", ".join(literal(moment) for moment in _LAST_MOMENTS)
    return f"IF({column} IN ({moments}), TIMESTAMP{literal(FOREVER)}, {column})"


def end_parameter(forever: str) -> str:
    """What stands in an INSERT for a row's end, on a server with this last moment."""
    if forever == FOREVER:
        return "?"
    return f"COALESCE(NULLIF(?, TIMESTAMP{literal(FOREVER)}), TIMESTAMP{literal(forever)})"


def forever(connection: Connection) -> str:
    """The end of current rows on this server, in UTC."""
    later = connection.value("SELECT FROM_UNIXTIME(4294967295)")  # NULL where the range ends in 2038
    return _LAST_MOMENTS[later is not None]


def warnings(name: str, create_sql: str, *, is_kept: bool) -> Iterator[str]:
    """What a backup does not keep of a versioned table, `is_kept`: its past rows are in it."""
    if not is_kept:
        yield f"{name}: its history counts transactions (TRX_ID); current rows are kept, past rows are not"
    elif _BY_LIMIT.search(create_sql):
        yield f"{name}: past rows are kept, but not which of the partitions by LIMIT each is in"


def findings(connection: Connection, facts: ServerFacts, rights: Privileges, tables: Iterable[Table]) -> list[Finding]:
    """Whether past rows can be written into a target; [] for a set without any."""
    with_history = sum(1 for table in tables if table.history)
    if not with_history:
        return []
    why = f"the set holds the past rows of {with_history} system-versioned tables"
    if facts.version < WRITABLE_SINCE:
        what = f"MariaDB {facts.version_string} cannot be given past rows"
        return [Finding("error", what, why, "restore into MariaDB 10.11 or newer")]
    allowed = {"NO": (), "SUPER": ("SUPER", "BINLOG REPLAY"), "REPLICATION": ("BINLOG REPLAY",)}
    setting = str(connection.value("SELECT @@global.secure_timestamp"))
    what = f"secure_timestamp={setting} forbids to write past rows"
    if setting not in allowed:
        return [Finding("error", what, why, "restart the target with secure_timestamp=NO for the restore")]
    if allowed[setting] and not rights.has_any(*allowed[setting]):
        return [Finding("error", what, why, grant(facts, ("BINLOG REPLAY",), rights.account))]
    return []
