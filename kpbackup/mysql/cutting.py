"""Where large tables are cut into chunks of about 250,000 rows or 64 MB.

Two ways, both exact whatever the server's estimates say (a wrong guess costs balance, never a row):

- *equal widths*: the only key column is an integer and its values lie close together. Two reads of the index's ends.
- *a walk*: everything else that `ranges` can write a bound for. `next_bound` reads the index from the last bound on and
  gives the key that lies so many rows behind it, so composite keys, text in any collation and a lone outlier at 2**63-1
  all give even chunks. The walk is bounded: every index entry is passed once, shortly before a worker reads its row.

Tables whose key neither way can cut (none, or one that begins with a column `ranges` leaves out) are one chunk, as are
those of engines that do not keep the key in order, or take rows in its order alone.

Nothing is kept between calls. Bounds found on one session's snapshot are good on every other: they need not be rows there.
"""

from __future__ import annotations

from dataclasses import dataclass

from kpbackup.model.inventory import Bound, ChunkBounds, Table
from kpbackup.mysql import quoting, ranges, server

WIDEST = 4  # values per row up to which equal widths are taken: no chunk then holds more than so many times its share
CANDIDATES = 20  # keys looked at for one bound: those that cannot be stated exactly are passed over

_OPEN = ChunkBounds()
_ORDERED_ENGINES = {"INNODB", "MYISAM", "ARIA"}
_ASCENDING_ENGINES = {"ARCHIVE"}  # no row is taken whose counter is below one that is there: no chunks side by side


@dataclass(frozen=True)
class Size:
    """How much a chunk should hold, whichever is reached first."""

    rows: int = 250_000
    bytes: int = 64 << 20


def pieces_wanted(table: Table, size: Size = Size()) -> int:
    """Into how many chunks the server's estimates cut a table, at least 1."""
    return max(-(-table.estimated_rows // size.rows), -(-table.estimated_bytes // size.bytes), 1)


def rows_wanted(table: Table, nth: int, size: Size = Size()) -> int:
    """How many rows the chunk number `nth` (from 0) of a walk should hold.

    Estimates that are far too low must not end in a million chunks: each time twice as many as estimated were cut, the next
    ones are twice as large.
    """
    pieces = pieces_wanted(table, size)
    return max(1, min(size.rows, -(-table.estimated_rows // pieces))) << nth // (2 * pieces)


def planned(connection: server.Connection, table: Table, size: Size = Size()) -> list[ChunkBounds] | None:
    """The chunks of a table in key order, which cover every possible key exactly once; None when it is to be walked.

    Raises:
        PrivilegeMissing, DatabaseError, ServerUnreachable.
    """
    wanted = pieces_wanted(table, size)
    if wanted < 2 or not table.key or table.engine.upper() in _ASCENDING_ENGINES:
        return [_OPEN]
    is_walkable = table.engine.upper() in _ORDERED_ENGINES and bool(ranges.bound_columns(table))
    first = next((column for column in table.columns if column.name == table.key[0]), None)
    if first is None or first.data_type not in ranges.INTEGERS:
        return None if is_walkable else [_OPEN]
    key = quoting.identifier(first.name)
    found = connection.row(f"SELECT MIN({key}), MAX({key}) FROM {quoting.qualified(table.schema, table.name)}")
    if found is None or found[0] is None:
        return [_OPEN]
    lowest, highest = int(found[0]), int(found[1])
    is_close = len(table.key) == 1 and highest - lowest < WIDEST * table.estimated_rows
    return ranges.equal_ranges(lowest, highest, wanted) if is_close or not is_walkable else None


def next_bound(connection: server.Connection, table: Table, lower: Bound | None, *, rows: int) -> Bound | None:
    """The key `rows` rows behind the first one after `lower` (None: from the first row on); None when there is none.

    It is greater than `lower` by the server's own comparison, and the server finds it again when it is stated as a bound.
    When none of the keys there can be stated exactly (text that is not valid in its character set), the answer is None too:
    the rest of the table is then one chunk.

    Raises:
        PrivilegeMissing, DatabaseError, ServerUnreachable.
    """
    columns = ranges.bound_columns(table)
    behind = f" WHERE {ranges.after(table, lower, alias='r.')}" if lower is not None else ""
    texts = ", ".join(ranges.exact_text(column, alias="r.") for column in columns)
    order = ", ".join(f"r.{quoting.identifier(name)}" for name in table.key)
    found = connection.rows(
        f"SELECT {texts} FROM {_indexed(table)}{behind} ORDER BY {order} LIMIT {CANDIDATES} OFFSET {rows:d}"
    )
    bounds = (tuple(_text(value) for value in row) for row in found)
    return next((bound for bound in bounds if _is_exact(connection, table, lower, bound)), None)


def _is_exact(connection: server.Connection, table: Table, lower: Bound | None, bound: Bound) -> bool:
    """Whether the server finds a row that is equal to the bound and behind the one before."""
    condition = ranges.equal_to(table, bound, alias="r.")
    if lower is not None:
        condition += f" AND {ranges.after(table, lower, alias='r.')}"
    return connection.row(f"SELECT 1 FROM {_indexed(table)} WHERE {condition} LIMIT 1") is not None


def _indexed(table: Table) -> str:
    return f"{quoting.qualified(table.schema, table.name)} AS r FORCE INDEX (PRIMARY)"


def _text(value: object) -> str:
    """A value as the session gives it: with character_set_results=binary the driver hands out bytes."""
    return value.decode("ascii") if isinstance(value, bytes) else str(value)
