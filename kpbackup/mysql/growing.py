"""A scratch server's tables made larger, by copies of their own rows: what a drill of tomorrow's size is made from.

Only tables that grow by themselves are doubled: those whose one unique key is an AUTO_INCREMENT, or that have none. Copies get
new numbers and keep all other values, so foreign keys hold. Triggers are dropped first, or they would write too. Never run this
on a server that anybody needs.
"""

from __future__ import annotations

from collections.abc import Sequence

from kpbackup.model.inventory import Table
from kpbackup.mysql.quoting import identifier
from kpbackup.mysql.server import Connection


def double(connection: Connection, tables: Sequence[Table]) -> list[str]:
    """Doubles every table that can be; the names of those."""
    connection.execute("SET SESSION sql_log_bin = 0, foreign_key_checks = 0, sql_mode = ''")
    for schema, name in connection.rows(
        "SELECT trigger_schema, trigger_name FROM information_schema.triggers WHERE trigger_schema <> 'sys'"
    ):
        connection.execute(f"DROP TRIGGER {identifier(schema)}.{identifier(name)}")
    doubled = []
    for table in tables:
        columns = _copied_columns(connection, table)
        if columns:
            names, full = ", ".join(map(identifier, columns)), f"{identifier(table.schema)}.{identifier(table.name)}"
            connection.execute(f"INSERT INTO {full} ({names}) SELECT {names} FROM {full}")
            doubled.append(f"{table.schema}.{table.name}")
    return doubled


def _copied_columns(connection: Connection, table: Table) -> list[str]:
    """The columns that a copy of a row takes over; [] where the table cannot be doubled."""
    if not table.holds_rows or table.history or not table.transactional:
        return []
    where, args = "table_schema = %s AND table_name = %s", (table.schema, table.name)
    columns = connection.rows(f"SELECT column_name, extra FROM information_schema.columns WHERE {where}", args)
    unique = connection.rows(
        f"SELECT DISTINCT index_name FROM information_schema.statistics WHERE {where} AND non_unique = 0", args
    )
    numbers = [name for name, extra in columns if "auto_increment" in extra.lower()]
    if [name for (name,) in unique] not in ([], ["PRIMARY"]) or (unique and list(table.key) != numbers):
        return []
    computed = ("VIRTUAL GENERATED", "STORED GENERATED")
    return [name for name, extra in columns if name not in numbers and not any(word in extra.upper() for word in computed)]
