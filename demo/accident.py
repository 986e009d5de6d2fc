"""The accident: the application's own hard delete of a cluster, with all that hangs on it, in one transaction.

Servers stamp transactions with whole seconds, so the last good transaction and the accident are kept two seconds apart: then one
second lies strictly between them, and `--to` that second has one right answer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pymysql

from demo import data

CASCADE = (
    "DELETE FROM cluster_permissions WHERE cluster_id = %s",
    "DELETE FROM terminal_commands WHERE session_id IN (SELECT id FROM terminal_sessions WHERE cluster_id = %s)",
    "DELETE FROM terminal_sessions WHERE cluster_id = %s",
    "DELETE FROM argocd_configs WHERE cluster_id = %s",
    "DELETE FROM cluster_metrics WHERE cluster_id = %s",
    "DELETE FROM cluster_capacity WHERE cluster_id = %s",
    "UPDATE operation_logs SET cluster_id = NULL WHERE cluster_id = %s",
    "DELETE FROM clusters WHERE id = %s",
)


@dataclass(frozen=True)
class Accident:
    """What happened: the transaction's GTID, the second before it, and how many rows it deleted or changed."""

    gtid: str
    moment_before: datetime
    rows: int


def delete_cluster(connection: pymysql.Connection[Any], *, name: str) -> Accident:
    """Deletes the cluster. No transaction may have been committed in between when the caller recorded the truth."""
    with connection.cursor() as cursor:
        cursor.execute(f"USE `{data.DATABASE}`")
        moment = _server_second(cursor) + 1  # nothing was written in it and nothing will be
        wait_past(cursor, moment)
        cursor.execute("SELECT id FROM clusters WHERE name = %s", (name,))
        (key,) = cursor.fetchone() or (0,)
        connection.begin()
        rows = sum(cursor.execute(statement, (key,)) for statement in CASCADE)
        connection.commit()
        cursor.execute("SELECT @@last_gtid")
        (gtid,) = cursor.fetchone() or ("",)
        wait_past(cursor, _server_second(cursor))
    return Accident(str(gtid), datetime.fromtimestamp(moment, UTC), rows)


def wait_past(cursor: pymysql.cursors.Cursor, second: int) -> None:
    """Returns when the server's clock shows a later second."""
    while _server_second(cursor) <= second:
        time.sleep(0.02)


def _server_second(cursor: pymysql.cursors.Cursor) -> int:
    cursor.execute("SELECT FLOOR(UNIX_TIMESTAMP(SYSDATE(6)))")
    return int((cursor.fetchone() or (0,))[0])
