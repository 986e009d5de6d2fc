"""A backup set in two tiers: essential tables, which the application cannot do without, and a second tier that may come later.

All definitions belong to the first tier, so the application finds every table; those of the second tier are empty at first. The
two are told apart by names alone. Refused is what could not come back exactly and apart: a foreign key from an essential table
to one of the second tier; there, a table whose rows have no number of their own (one AUTO_INCREMENT primary key), has triggers,
keeps its history, or lies in another database than the rest of its tier.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from kpbackup import errors
from kpbackup.model.inventory import Inventory, Table
from kpbackup.model.selection import Narrowed, Selection
from kpbackup.mysql import indexes, schema, selecting, shadowing
from kpbackup.mysql.quoting import identifier
from kpbackup.mysql.shadowing import Name, Shadow

SECOND_SCHEMA = "kpbackup_second"
JUMP = 10  # a source in a cluster takes every n-th number; clusters have not more nodes

_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
_NUMBERED = re.compile(r" AUTO_INCREMENT\b")


@dataclass(frozen=True)
class Tiers:
    """`second` are the patterns of the second tier, `room` the numbers that stay free above those of the backup."""

    second: tuple[str, ...] = ()
    room: int = 1_000_000


@dataclass(frozen=True)
class SecondTier:
    """`essential` is the set's inventory with no rows of the second tier, whose tables are `shadow`'s."""

    essential: Inventory
    shadow: Shadow
    chosen: Narrowed
    tables: tuple[Table, ...]
    room: int

    @property
    def names(self) -> list[str]:
        return [f"{table.schema}.{table.name}" for table in self.tables]

    def starts(self, inserted: Mapping[str, int]) -> dict[str, int]:
        """Table -> the first number that the application may give; `inserted` rows come by the replay.

        Raises:
            TargetRefused: the column has no room for it.
        """
        found = {}
        for table in self.tables:
            start = int(schema.split_auto_increment(table.create_sql)[1] or 1) + JUMP * inserted.get(table.name, 0) + self.room
            kind = next(column.column_type for column in table.columns if column.name == table.key[0])
            if start + self.room > _largest(kind):
                raise errors.TargetRefused(
                    f"table {table.schema}.{table.name} has no room for {self.room} more numbers: its {table.key[0]} is {kind}",
                    hint="lower recovery.tiers.room, take the table out of the second tier, or restore with --one-phase",
                )
            found[table.name] = start
        return found


def split(whole: Inventory, tiers: Tiers) -> SecondTier | None:
    """The set in two tiers; None when it has no table of the second one.

    Raises:
        TargetRefused: the two cannot come back apart.
    """
    second = Selection(tiers.second)
    tables = tuple(table for table in whole.tables if second.takes(table.schema, table.name))
    if not tables:
        return None
    names = {(table.schema, table.name) for table in tables}
    _judge(whole, tables, names)
    tables = _parents_first(tables)
    chosen = Narrowed(whole.selection, second)
    selected = selecting.Selected(
        replace(whole, tables=tables, sequences=(), after_rows=(), accounts=(),
                chunks=tuple(chunk for chunk in whole.chunks if (chunk.schema, chunk.table) in names)), (), (),
    )  # fmt: skip
    first = tuple(chunk for chunk in whole.chunks if (chunk.schema, chunk.table) not in names)
    shadow = shadowing.shadow(whole, selected, chosen, SECOND_SCHEMA)
    return SecondTier(replace(whole, chunks=first), shadow, chosen, tables, tiers.room)


def _judge(whole: Inventory, tables: tuple[Table, ...], names: set[Name]) -> None:
    if not whole.selection.is_everything:
        raise _refused("the backup set is of a part of its source")
    for table in whole.tables:
        pointed = indexes.referenced_tables(table.schema, table.create_sql) & names
        if (table.schema, table.name) not in names and pointed:
            other = ".".join(sorted(pointed)[0])
            raise _refused(f"the essential table {table.schema}.{table.name} has a foreign key to {other}")
    if len({table.schema for table in tables}) > 1:
        raise _refused("its tables are in several databases")
    for table in tables:
        what = f"table {table.schema}.{table.name}"
        if len(table.key) != 1 or _key_kind(table) not in _BITS or not _NUMBERED.search(_line_of(table)):
            raise _refused(f"{what} has no AUTO_INCREMENT primary key by which old and new rows are told apart")
        if table.history or not table.transactional:
            raise _refused(f"{what} keeps its history, or has no transactions")
    for trigger in (one for one in whole.after_rows if one.kind == "trigger"):
        on = selecting.trigger_table(trigger)
        if on in names:
            raise _refused(f"table {on[0]}.{on[1]} has the trigger {trigger.name}")


def _parents_first(tables: tuple[Table, ...]) -> tuple[Table, ...]:
    """In the order in which rows can come without breaking a foreign key between them."""
    names = {(table.schema, table.name) for table in tables}
    waiting = {(one.schema, one.name): indexes.referenced_tables(one.schema, one.create_sql) & names for one in tables}
    order: list[Name] = []
    while ready := sorted(name for name, parents in waiting.items() if parents <= set(order)):
        order += ready
        for name in ready:
            del waiting[name]
    if waiting:
        raise _refused(f"table {'.'.join(sorted(waiting)[0])} has a foreign key that leads back to itself")
    return tuple(sorted(tables, key=lambda table: order.index((table.schema, table.name))))


def _refused(why: str) -> errors.TargetRefused:
    return errors.TargetRefused(
        f"cannot restore in two phases: {why}", hint="change recovery.tiers, or restore everything at once: --one-phase"
    )


def _key_kind(table: Table) -> str:
    return next((column.data_type for column in table.columns if column.name == table.key[0]), "")


def _line_of(table: Table) -> str:
    key = identifier(table.key[0])
    return next((line for line in table.create_sql.split("\n") if line.strip().startswith(f"{key} ")), "")


def _largest(column_type: str) -> int:
    bits = _BITS[re.split(r"\W", column_type, maxsplit=1)[0]]
    return (1 << bits if "unsigned" in column_type else 1 << bits - 1) - 1
