"""The KubePolaris database: its schema and the rows of `rows.py`, loaded into a server.

Above `small` the two log tables are multiplied inside the server from the rows generated here, which is as deterministic and a
hundred times faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pymysql

from demo.rows import FIRST_SESSION, SIZES, VICTIM, Generator, Row, Size

__all__ = ["DATABASE", "FIRST_SESSION", "SIZES", "VICTIM", "Generator", "Size", "load"]

DATABASE = "kubepolaris"
SCHEMA = Path(__file__).with_name("schema.sql")
_LOG_INDEXES = ("user_id", "username", "method", "module", "action", "cluster_id", "success", "created_at")


def load(connection: pymysql.Connection[Any], size: Size) -> None:
    """Creates the database and its tables and fills them.

    Not written to the binlog: on a real source the oldest rows are not in it any more either, and whoever relies on it fails.
    """
    with connection.cursor() as cursor:
        cursor.execute("SET sql_log_bin = 0, sql_mode = 'STRICT_TRANS_TABLES,NO_AUTO_VALUE_ON_ZERO', time_zone = '+08:00'")
        for statement in SCHEMA.read_text("utf-8").split(";\n"):
            if statement.strip():
                cursor.execute(statement)
        for table, rows in Generator(size).tables():
            _insert(cursor, table, rows)
        _multiply_commands(cursor, size)
        _multiply_logs(cursor, size)
        cursor.execute("SET SESSION sql_log_bin = 1")


def _insert(cursor: pymysql.cursors.Cursor, table: str, rows: Iterator[Row]) -> None:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == 2000:
            _insert_batch(cursor, table, batch)
            batch.clear()
    if batch:
        _insert_batch(cursor, table, batch)


def _insert_batch(cursor: pymysql.cursors.Cursor, table: str, batch: Sequence[Row]) -> None:
    places = ", ".join(["%s"] * len(batch[0]))
    cursor.executemany(f"INSERT INTO {table} VALUES ({places})", batch)


def _multiply_commands(cursor: pymysql.cursors.Cursor, size: Size) -> None:
    for copy in range(1, size.command_copies):
        session = f"{FIRST_SESSION} + (session_id - {FIRST_SESSION} + {copy * 397}) MOD {size.sessions}"
        cursor.execute(
            f"INSERT INTO terminal_commands SELECT id + {copy * size.commands}, {session}, `timestamp` + INTERVAL {copy} MINUTE,"
            f" raw_input, parsed_cmd, exit_code, created_at + INTERVAL {copy} MINUTE"
            f" FROM terminal_commands WHERE id <= {size.commands} ORDER BY id"
        )


def _multiply_logs(cursor: pymysql.cursors.Cursor, size: Size) -> None:
    if size.log_copies == 1:
        return
    indexes = [(f"idx_operation_logs_{column}", column) for column in _LOG_INDEXES]
    cursor.execute("ALTER TABLE operation_logs " + ", ".join(f"DROP KEY {name}" for name, _ in indexes))  # sorted once is quicker
    last = Generator(size).log_id(size.logs - 1)
    cursor.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = %s AND table_name = 'operation_logs'"
        " AND column_name NOT IN ('id', 'created_at') ORDER BY ordinal_position", (DATABASE,),
    )
    same = ", ".join(f"`{name}`" for (name,) in cursor.fetchall())
    for copy in range(1, size.log_copies):
        cursor.execute(
            f"INSERT INTO operation_logs SELECT id + {copy * (last + 7)}, {same}, created_at + INTERVAL {copy} DAY"
            f" FROM operation_logs WHERE id <= {last} ORDER BY id"
        )
    cursor.execute("ALTER TABLE operation_logs " + ", ".join(f"ADD KEY {name} ({column})" for name, column in indexes))
