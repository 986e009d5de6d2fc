"""What the restored tables hold, in one number each: taken when step 2 ends, compared when step 4 judges.

Between the two the application starts and writes. So what is compared are the rows that were there when the restore ended (by
an integer primary key: those up to its highest value) and the columns the application does not change by itself, which
its profile names. A row that is missing and a byte that changed are both seen.

The sum of CRC-32 over a row's exact values does not depend on the order of rows; it guards against accidents, not against
somebody who forges rows. One pass over each table; the server does the work, in several sessions: sums of a table's parts add up.

The expression is the cheapest that sees every byte: what is joined is binary because its separator is, so no text is cast or
converted, and a NULL is a random text that no value holds instead of a number beside each value (together half of the time).
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from kpbackup.model.inventory import ChunkBounds
from kpbackup.mysql import load, ranges, server
from kpbackup.mysql.quoting import identifier

SESSIONS = 4
PART_ROWS = 100_000  # by the server's estimate: enough parts of the largest table for all sessions

_SYSTEM = "('mysql', 'information_schema', 'performance_schema', 'sys')"
# their values become the same bytes with and without CAST AS BINARY, which costs time
_PLAIN = {
    *ranges.INTEGERS, "decimal", "date", "time", "datetime", "timestamp", "binary", "varbinary", "tinyblob", "blob", "mediumblob",
    "longblob", "char", "varchar", "tinytext", "text", "mediumtext", "longtext",
}
# makes binary what is joined: characters of any collation and character set come into it as they are stored
_SEPARATOR = "CAST('|' AS BINARY)"


@dataclass(frozen=True)
class TableProof:
    """A table's columns, the highest key ('': all rows count), how many rows and their sum.

    `null`: what stands in the sum for NULL; '' where an older version has flagged every value instead.
    """

    columns: tuple[str, ...]
    key: str
    up_to: str
    rows: int
    total: str
    null: str = ""


@dataclass(frozen=True)
class _Table:
    """A base table as it is now: its stored columns with their data types, its one integer primary key or ''."""

    schema: str
    name: str
    kinds: Mapping[str, str]
    key: str
    estimated_rows: int

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class _Wanted:
    """Which rows and columns of a table to sum up, and what NULL counts as."""

    table: _Table
    columns: tuple[str, ...]
    up_to: str
    null: str


def take(
    endpoint: server.Endpoint, volatile_columns: Mapping[str, Sequence[str]], *, sessions: int = SESSIONS
) -> dict[str, TableProof]:
    """`schema.table` -> proof, of every table but the servers' own. `volatile_columns` are left out of the sums."""
    null = secrets.token_hex(8)
    with _session(endpoint) as connection:
        wanted = [
            _Wanted(table, _kept(tuple(table.kinds), volatile_columns.get(table.name, ())), _highest(connection, table), null)
            for table in _tables(connection)
        ]
    return {
        one.table.full_name: TableProof(one.columns, one.table.key, one.up_to, rows, total, null)
        for one, (rows, total) in zip(wanted, _sums(endpoint, wanted, sessions), strict=True)
    }


def differences(
    endpoint: server.Endpoint, before: Mapping[str, TableProof], *, leave_out: Sequence[str], sessions: int = SESSIONS
) -> list[str]:
    """What is not as it was, one sentence a table."""
    with _session(endpoint) as connection:
        there = {table.full_name: table for table in _tables(connection)}
    compared = {name: proof for name, proof in before.items() if name.partition(".")[2] not in leave_out}
    found = {name: _lost(name, proof, there.get(name)) for name, proof in compared.items()}
    whole = [name for name, problem in found.items() if not problem]
    wanted = [_as_before(there[name], before[name]) for name in whole]
    for name, (rows, total) in zip(whole, _sums(endpoint, wanted, sessions), strict=True):
        if rows != before[name].rows:
            found[name] = f"table {name} has {rows} of its {before[name].rows} restored rows"
        elif total != before[name].total:
            found[name] = f"table {name}: restored rows have changed"
    return [problem for problem in found.values() if problem]


def _lost(name: str, proof: TableProof, table: _Table | None) -> str:
    if table is None:
        return f"table {name} is gone"
    missing = {*proof.columns, *filter(None, [proof.key])} - table.kinds.keys()
    return f"table {name} has lost the column {sorted(missing)[0]}" if missing else ""


def _as_before(table: _Table, proof: TableProof) -> _Wanted:
    """What was proven of the table: the application may have given it another key since."""
    return _Wanted(replace(table, key=proof.key), proof.columns, proof.up_to, proof.null)


def _session(endpoint: server.Endpoint) -> server.Connection:
    """A session that reads what is there: under the server's own sql_mode MySQL cannot read a zero date of a CSV table."""
    connection = server.connect(endpoint)
    connection.execute("SET SESSION sql_mode = ''")
    return connection


def _highest(connection: server.Connection, table: _Table) -> str:
    if not table.key:
        return ""
    highest = connection.value(f"SELECT MAX({identifier(table.key)}) FROM {_from(table)}")
    return "" if highest is None else str(int(highest))


def _sums(endpoint: server.Endpoint, wanted: Sequence[_Wanted], sessions: int) -> list[tuple[int, str]]:
    """(rows, sum over them) of each one wanted."""
    with _session(endpoint) as connection:
        parts = deque(
            (number, f"{_sum_sql(one)}{where}") for number, one in enumerate(wanted) for where in _parts(connection, one)
        )
    found = [(0, 0)] * len(wanted)

    def work() -> list[tuple[int, int, int]]:
        done = []
        with _session(endpoint) as connection:
            while parts:
                try:
                    number, sql = parts.popleft()
                except IndexError:  # another session took the last
                    break
                ((rows, total),) = connection.rows(sql)
                done.append((number, int(rows), int(total)))
        return done

    with ThreadPoolExecutor(sessions, thread_name_prefix="kpbackup-proof") as pool:
        try:
            for future in [pool.submit(work) for _ in range(min(sessions, len(parts)))]:
                for number, rows, total in future.result():
                    found[number] = found[number][0] + rows, found[number][1] + total
        finally:
            parts.clear()  # an error ends the others after their part
    return [(rows, str(total)) for rows, total in found]


def _sum_sql(wanted: _Wanted) -> str:
    kinds = wanted.table.kinds
    values = (
        identifier(name) if kinds[name] in _PLAIN else f"CAST({identifier(name)} AS BINARY)" for name in wanted.columns
    )
    return _select(wanted.columns, values, _from(wanted.table), null=wanted.null)


def _select(columns: Sequence[str], values: Iterable[str], table: str, *, null: str = "") -> str:
    parts = ", ".join(
        f"IFNULL({value}, '{null}')" if null else f"ISNULL({identifier(name)}), {value}"
        for name, value in zip(columns, values, strict=True)
    )
    return f"SELECT COUNT(*), COALESCE(SUM(CRC32(CONCAT_WS({_SEPARATOR}, {parts or '1'}))), 0) FROM {table}"


def _parts(connection: server.Connection, wanted: _Wanted) -> Iterator[str]:
    """The WHERE of each part: together they hold every row once."""
    table = wanted.table
    if not table.key:
        yield ""
        return
    if not wanted.up_to:
        yield " WHERE FALSE"
        return
    key, highest = identifier(table.key), int(wanted.up_to)
    pieces = max(-(-table.estimated_rows // PART_ROWS), 1)
    lowest = connection.value(f"SELECT MIN({key}) FROM {_from(table)}") if pieces > 1 else None
    for bounds in ranges.equal_ranges(int(lowest), highest, pieces) if lowest is not None else [ChunkBounds()]:
        above = f"{key} >= {int(bounds.lower[0])} AND " if bounds.lower else ""
        yield f" WHERE {above}{key} < {int(bounds.upper[0])}" if bounds.upper else f" WHERE {above}{key} <= {highest}"


def row_sum(connection: server.Connection, table: str, columns: Sequence[str], where: str) -> tuple[int, str]:
    """How many rows of `table` (a name in quotes) meet the condition, and their sum."""
    values = (f"CAST({identifier(name)} AS BINARY)" for name in columns)
    ((rows, total),) = connection.rows(f"{_select(columns, values, table)} WHERE {where}")
    return int(rows), str(int(total))


def is_generated(extra: str) -> bool:
    """Whether information_schema's EXTRA is that of a generated column."""
    return "GENERATED" in extra.upper() and "DEFAULT_GENERATED" not in extra.upper()


def _from(table: _Table) -> str:
    return f"{identifier(table.schema)}.{identifier(table.name)}"


def _tables(connection: server.Connection) -> list[_Table]:
    """Every base table but the servers' own."""
    rows = connection.rows(
        "SELECT c.table_schema, c.table_name, c.column_name, c.data_type, c.column_key, c.extra, t.table_rows"
        " FROM information_schema.columns c JOIN information_schema.tables t"
        " ON t.table_schema = c.table_schema AND t.table_name = c.table_name AND t.table_type = 'BASE TABLE'"
        f" WHERE c.table_schema NOT IN {_SYSTEM} AND c.table_schema <> '{load.SCRATCH_SCHEMA}'"
        " ORDER BY c.table_schema, c.table_name, c.ordinal_position"
    )
    tables: dict[tuple[str, str], tuple[dict[str, str], list[str], int]] = {}
    for schema, table, column, kind, key, extra, estimate in rows:
        kinds, keys, _ = tables.setdefault((str(schema), str(table)), ({}, [], int(estimate or 0)))
        if not is_generated(str(extra)):
            kinds[str(column)] = str(kind).lower()
        if key == "PRI":
            keys.append(str(column))
    return [
        _Table(schema, name, kinds, keys[0] if len(keys) == 1 and kinds.get(keys[0]) in ranges.INTEGERS else "", estimate)
        for (schema, name), (kinds, keys, estimate) in tables.items()
    ]


def _kept(columns: Sequence[str], volatile: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in columns if name not in volatile)
