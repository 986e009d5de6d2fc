"""What the restored tables hold, in one number each: taken when step 2 ends, compared when step 4 judges.

Between the two the application starts and writes. So what is compared are the rows that were there when the restore ended (by
an integer primary key: those up to its highest value) and the columns the application does not change by itself, which
its profile names. A row that is missing and a byte that changed are both seen.

The sum of CRC-32 over a row's exact values does not depend on the order of rows; it guards against accidents, not against
somebody who forges rows. One pass over each table; the server does the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kpbackup.mysql import load, server
from kpbackup.mysql.quoting import identifier

_SYSTEM = "('mysql', 'information_schema', 'performance_schema', 'sys')"
_INTEGERS = ("tinyint", "smallint", "mediumint", "int", "bigint")


@dataclass(frozen=True)
class TableProof:
    """A table's columns, the highest key (None: all rows count), how many rows and their sum."""

    columns: tuple[str, ...]
    key: str
    up_to: str
    rows: int
    total: str


def take(endpoint: server.Endpoint, volatile_columns: Mapping[str, Sequence[str]]) -> dict[str, TableProof]:
    """`schema.table` -> proof, of every table but the servers' own. `volatile_columns` are left out of the sums."""
    with _session(endpoint) as connection:
        return {
            f"{schema}.{table}": _prove(connection, schema, table, _kept(columns, volatile_columns.get(table, ())), key)
            for schema, table, columns, key in _tables(connection)
        }


def differences(endpoint: server.Endpoint, before: Mapping[str, TableProof], *, leave_out: Sequence[str]) -> list[str]:
    """What is not as it was, one sentence a table."""
    found: list[str] = []
    with _session(endpoint) as connection:
        there = {f"{schema}.{table}": set(columns) for schema, table, columns, _ in _tables(connection)}
        for name, proof in before.items():
            schema, _, table = name.partition(".")
            if table in leave_out:
                continue
            if name not in there:
                found.append(f"table {name} is gone")
            elif missing := set(proof.columns) - there[name]:
                found.append(f"table {name} has lost the column {sorted(missing)[0]}")
            else:
                rows, total = _sum(connection, schema, table, proof.columns, proof.key, proof.up_to)
                if rows != proof.rows:
                    found.append(f"table {name} has {rows} of its {proof.rows} restored rows")
                elif total != proof.total:
                    found.append(f"table {name}: restored rows have changed")
    return found


def _session(endpoint: server.Endpoint) -> server.Connection:
    """A session that reads what is there: under the server's own sql_mode MySQL cannot read a zero date of a CSV table."""
    connection = server.connect(endpoint)
    connection.execute("SET SESSION sql_mode = ''")
    return connection


def _prove(connection: server.Connection, schema: str, table: str, columns: tuple[str, ...], key: str) -> TableProof:
    highest = connection.value(f"SELECT MAX({identifier(key)}) FROM {identifier(schema)}.{identifier(table)}") if key else None
    up_to = "" if highest is None else str(int(highest))
    rows, total = _sum(connection, schema, table, columns, key, up_to)
    return TableProof(columns, key, up_to, rows, total)


def _sum(
    connection: server.Connection, schema: str, table: str, columns: Sequence[str], key: str, up_to: str
) -> tuple[int, str]:
    where = f"{identifier(key)} <= {int(up_to)}" if up_to else ("FALSE" if key else "TRUE")
    return row_sum(connection, f"{identifier(schema)}.{identifier(table)}", columns, where)


def row_sum(connection: server.Connection, table: str, columns: Sequence[str], where: str) -> tuple[int, str]:
    """How many rows of `table` (a name in quotes) meet the condition, and their sum."""
    parts = ", ".join(f"ISNULL({identifier(name)}), CAST({identifier(name)} AS BINARY)" for name in columns)
    ((rows, total),) = connection.rows(
        f"SELECT COUNT(*), COALESCE(SUM(CRC32(CONCAT_WS('|', {parts or '1'}))), 0) FROM {table} WHERE {where}"
    )
    return int(rows), str(int(total))


def is_generated(extra: str) -> bool:
    """Whether information_schema's EXTRA is that of a generated column."""
    return "GENERATED" in extra.upper() and "DEFAULT_GENERATED" not in extra.upper()


def _tables(connection: server.Connection) -> list[tuple[str, str, tuple[str, ...], str]]:
    """(schema, table, stored columns, its one integer primary key or '') of every base table."""
    rows = connection.rows(
        "SELECT c.table_schema, c.table_name, c.column_name, c.data_type, c.column_key, c.extra"
        " FROM information_schema.columns c JOIN information_schema.tables t"
        " ON t.table_schema = c.table_schema AND t.table_name = c.table_name AND t.table_type = 'BASE TABLE'"
        f" WHERE c.table_schema NOT IN {_SYSTEM} AND c.table_schema <> '{load.SCRATCH_SCHEMA}'"
        " ORDER BY c.table_schema, c.table_name, c.ordinal_position"
    )
    tables: dict[tuple[str, str], tuple[list[str], list[tuple[str, str]]]] = {}
    for schema, table, column, kind, key, extra in rows:
        columns, keys = tables.setdefault((str(schema), str(table)), ([], []))
        if not is_generated(str(extra)):
            columns.append(str(column))
        if key == "PRI":
            keys.append((str(column), str(kind).lower()))
    return [
        (schema, table, tuple(columns), keys[0][0] if len(keys) == 1 and keys[0][1] in _INTEGERS else "")
        for (schema, table), (columns, keys) in tables.items()
    ]


def _kept(columns: Sequence[str], volatile: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in columns if name not in volatile)
