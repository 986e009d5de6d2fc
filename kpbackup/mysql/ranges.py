"""Ranges of a primary key: how a bound is written down exactly, and the condition that picks the rows between two bounds.

A bound holds the values of the first one or more key columns of a row, as text that loses nothing. All comparing is the
server's: the condition compares the columns themselves with the bound's values, in the column's own character set and
collation. A row is either before a bound or not, so neighbouring ranges that share a bound hold every row exactly once,
in any collation. The condition is spelt so that both servers read it as one stretch of the primary key's index. Values
stand in it as literals: as a parameter, `k < CAST(? AS TIME(6))` holds for every row of MySQL 9.7.

Which columns can be in a bound: integers, DECIMAL, DATE, DATETIME, TIMESTAMP, TIME, CHAR, VARCHAR, BINARY, VARBINARY, and
MariaDB's UUID, INET4 and INET6. The first other column ends it: an ENUM or SET is compared with numbers only, for which no
index is used; FLOAT, BIT and YEAR are not worth their special cases. So do key parts that are prefixes or descend, by
which the rows cannot be read in the order of the columns.

Format: `docs/format.md`, "Bounds".
"""

from __future__ import annotations

import itertools
import re

from kpbackup import errors
from kpbackup.model.inventory import Bound, ChunkBounds, Column, Table
from kpbackup.mysql import quoting

INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
_TIMES = {"date": "DATE", "datetime": "DATETIME(6)", "timestamp": "DATETIME(6)", "time": "TIME(6)"}
_ADDRESSES = {"uuid": "UUID", "inet4": "INET4", "inet6": "INET6"}
_CHARACTERS = frozenset({"char", "varchar"})
_BYTES = frozenset({"binary", "varbinary"})
_DECIMAL = re.compile(r"decimal\((\d+),(\d+)\)")


def bound_columns(table: Table) -> tuple[Column, ...]:
    """The key columns that a bound of this table can hold, () when it cannot be cut."""
    if table.history or not _is_plain_key(table):  # the end of a row's time, the last part of the key, is stated for each server
        return ()
    columns = {column.name: column for column in table.columns}
    named = (columns.get(name) for name in table.key)
    return tuple(column for column in itertools.takewhile(lambda one: one is not None and _fits(one), named) if column)


def equal_ranges(lowest: int, highest: int, pieces: int) -> list[ChunkBounds]:
    """At most `pieces` ranges of equal width over lowest..highest, the first open below, the last open above."""
    span = highest - lowest + 1
    width = max(-(-span // pieces), 1)
    cuts: list[Bound | None] = [None, *((str(cut),) for cut in range(lowest + width, highest + 1, width)), None]
    return [ChunkBounds(lower=lower, upper=upper) for lower, upper in itertools.pairwise(cuts)]


def within(table: Table, bounds: ChunkBounds, *, alias: str = "") -> str:
    """The condition of the rows lower <= key < upper, '' for all rows.

    Raises:
        IntegrityError: the bounds do not belong to this table.
    """
    ends = ((bounds.lower, ">="), (bounds.upper, "<"))
    return " AND ".join(_compared(table, bound, last, alias=alias) for bound, last in ends if bound is not None)


def after(table: Table, bound: Bound, *, alias: str = "") -> str:
    """The condition of the rows behind all that are equal to the bound. Raises as `within`."""
    return _compared(table, bound, ">", alias=alias)


def equal_to(table: Table, bound: Bound, *, alias: str = "") -> str:
    """The condition of the rows that are equal to the bound. Raises as `within`."""
    return " AND ".join(f"{name} = {value}" for name, value in _parts(table, bound, alias=alias))


def exact_text(column: Column, *, alias: str = "") -> str:
    """The expression that gives a column's value as it is written in a bound (hexadecimal digits in upper case)."""
    name = alias + quoting.identifier(column.name)
    return f"HEX({name})" if column.data_type in _CHARACTERS | _BYTES else f"CAST({name} AS CHAR)"


def shown(table: Table, bounds: ChunkBounds) -> str:
    """The range for a message, '' for all rows; values of characters or bytes are the application's data and not shown."""
    if any(column.data_type in _CHARACTERS | _BYTES for column in bound_columns(table)):
        return ""
    known = bounds.lower or bounds.upper
    if known is None:
        return ""
    lower = f"{_tuple(bounds.lower)} <= " if bounds.lower is not None else ""
    upper = f" < {_tuple(bounds.upper)}" if bounds.upper is not None else ""
    return f" ({lower}{_tuple(table.key[: len(known)])}{upper})"


def _tuple(items: Bound) -> str:
    return items[0] if len(items) == 1 else f"({', '.join(items)})"


def _is_plain_key(table: Table) -> bool:
    """Whether the primary key is made of whole columns in ascending order."""
    names = ",".join(map(quoting.identifier, table.key))
    return bool(table.key) and f"\n  PRIMARY KEY ({names})" in table.create_sql


def _fits(column: Column) -> bool:
    kind = column.data_type
    if kind in _CHARACTERS:
        return column.collation is not None
    return kind in INTEGERS | _BYTES | _TIMES.keys() | _ADDRESSES.keys() or _DECIMAL.match(column.column_type) is not None


def _compared(table: Table, bound: Bound, last: str, *, alias: str) -> str:
    """Rows whose key stands so to the bound: by the first column that differs, else by `last`, the comparison of the last one.

    (a > 1 OR (a = 1 AND b >= 2)), and not `(a, b) >= (1, 2)`, for which neither server uses the index.
    """
    parts = _parts(table, bound, alias=alias)
    name, value = parts[-1]
    condition = f"{name} {last} {value}"
    for name, value in reversed(parts[:-1]):
        condition = f"({name} {last[0]} {value} OR ({name} = {value} AND {condition}))"
    return condition


def _parts(table: Table, bound: Bound, *, alias: str) -> list[tuple[str, str]]:
    """(column, value) as they stand in SQL, for each value of the bound."""
    columns = {column.name: column for column in table.columns}
    try:
        own = [columns[name] for name in table.key[: len(bound)]]
        parts = [
            (alias + quoting.identifier(column.name), _literal(column, text)) for column, text in zip(own, bound, strict=True)
        ]
    except (KeyError, ValueError) as exc:
        raise errors.IntegrityError(f"the bounds of a chunk do not belong to the key of {table.schema}.{table.name}") from exc
    if not parts:
        raise errors.IntegrityError(f"a chunk of {table.schema}.{table.name} has a bound without values")
    return parts


def _literal(column: Column, text: str) -> str:
    """The value as one of the column's own type, so that nothing is converted for the comparison."""
    kind = column.data_type
    if kind in INTEGERS:
        return str(int(text))
    if kind in _CHARACTERS | _BYTES:
        value = f"_binary x'{bytes.fromhex(text).hex()}'"
        return value if kind in _BYTES else f"CONVERT({value} USING {column.charset}) COLLATE {column.collation}"
    if found := _DECIMAL.match(column.column_type):
        return f"CAST({quoting.literal(text)} AS DECIMAL({found[1]},{found[2]}))"
    if kind in _TIMES or kind in _ADDRESSES:
        return f"CAST({quoting.literal(text)} AS {_TIMES.get(kind) or _ADDRESSES[kind]})"
    raise ValueError(f"no bound holds a {kind}")
