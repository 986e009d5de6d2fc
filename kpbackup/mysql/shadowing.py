"""Chosen tables of an inventory as those of one new database beside the live ones, the shadow: decided from definitions alone.

A shadow is there to take rows back from. So it has tables and nothing else: views, triggers, routines, events, sequences and
accounts stay out of it. A foreign key between two chosen tables stays, for what a cascade changes is in no binlog; one to a
table that is left out is taken out of the definition, or it would point to a table that lives.

Limits: the name of a shadow is of letters, digits, `_`, `$` and `-`. Refused are two chosen tables of one name, databases with
other defaults than one another, tables whose rows lie elsewhere (MERGE, FEDERATED) and defaults taken from a sequence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from kpbackup import errors
from kpbackup.model.inventory import Definition, Inventory, Table
from kpbackup.model.selection import Narrowed
from kpbackup.mysql import indexes, renaming, selecting
from kpbackup.mysql.quoting import identifier
from kpbackup.mysql.schema import SYSTEM_DATABASES

Name = tuple[str, str]

_NAME = re.compile(r"[0-9A-Za-z_$-]{1,64}")
_CHANGES_ROWS = re.compile(r" ON (?:DELETE|UPDATE) (?:CASCADE|SET )")
_NEXT_VALUE = re.compile(r"\bnextval\(|\bNEXT VALUE FOR\b", re.IGNORECASE)


@dataclass(frozen=True)
class Shadow:
    """What is to be known to load and replay it.

    `names` are the chosen tables by the names they have on the source. `databases` and `sequences` are all that the set holds.
    `renamed` says which databases become the shadow. `cascades` are foreign keys, taken out, by which a table that is left out
    changes rows of a chosen one. `is_reached`: a view, trigger or routine names a chosen table. `fold`: names in any case are
    the same.
    """

    name: str
    inventory: Inventory
    chosen: Narrowed
    names: frozenset[Name]
    databases: frozenset[str]
    sequences: frozenset[Name]
    renamed: dict[str, str]
    cascades: tuple[str, ...]
    is_reached: bool
    fold: bool
    notes: tuple[str, ...]


def shadow(whole: Inventory, selected: selecting.Selected, chosen: Narrowed, name: str) -> Shadow:
    """The chosen tables as those of database `name`.

    Raises:
        UsageError: the name cannot be one, no table is chosen, or two have one name.
        TargetRefused: a table cannot be brought into a shadow.
    """
    tables = selected.inventory.tables
    _judge(tables, name)
    old = sorted({table.schema for table in tables})
    fold = whole.settings.get("lower_case_table_names", "0") != "0"
    rewriter = renaming.Rewriter(dict.fromkeys(old, name), fold=fold)
    names = frozenset((table.schema, table.name) for table in tables)
    notes, cascades, made = [], [], []
    for table in tables:
        text, gone = indexes.without_foreign_keys(table.schema, table.create_sql, to=lambda target: target not in names)
        own = f"{table.schema}.{table.name}"
        notes += [f"table {own}: its foreign key to a table that is left out is not in the shadow" for _ in gone]
        cascades += [own for line in gone if _CHANGES_ROWS.search(line)]
        made.append(_beside_its_own(rewriter.table(replace(table, create_sql=text)), name))
    database = _database(selected.inventory, old, name)
    inventory = replace(
        selected.inventory, databases=(database,), tables=tuple(made), sequences=(), after_rows=(), accounts=()
    )
    short = {table.name.lower() for table in tables}
    return Shadow(
        name, inventory, chosen, names, frozenset(one.name for one in whole.databases),
        frozenset((one.schema, one.name) for one in whole.sequences), dict.fromkeys(old, name), tuple(cascades),
        any(selecting.mentions(one) & short for one in whole.after_rows), fold, (*notes, *_left_out(selected)),
    )


def _judge(tables: tuple[Table, ...], name: str) -> None:
    if not _NAME.fullmatch(name) or name.lower() in SYSTEM_DATABASES:
        raise errors.UsageError(
            f"--into {name!r}: that cannot be the name of a new database here",
            hint="letters, digits, _, $ and -; not one that a server has for itself",
        )
    if not tables:
        raise errors.UsageError(f"--into {name}: no table is chosen", hint="name tables with --only DATABASE.TABLE")
    short = [table.name.lower() for table in tables]
    twice = sorted({one for one in short if short.count(one) > 1})
    if twice:
        raise errors.UsageError(
            f"--into {name}: two chosen tables are named {twice[0]}", hint="choose one, and the other into another shadow"
        )
    for table in tables:
        what = f"table {table.schema}.{table.name}"
        if not table.holds_rows:
            raise errors.TargetRefused(f"{what} cannot be brought into a shadow: its rows are elsewhere", hint="leave it out")
        if _NEXT_VALUE.search(table.create_sql):
            raise errors.TargetRefused(
                f"{what} cannot be brought into a shadow: a default of it comes from a sequence",
                hint="leave it out, or restore it into a server of its own",
            )


def _database(inventory: Inventory, old: list[str], name: str) -> Definition:
    there = {one.name: one for one in inventory.databases}
    made = [_renamed(there[one], name) for one in old]
    if any(one.statements != made[0].statements for one in made):
        raise errors.UsageError(
            f"--into {name}: {' and '.join(old)} have other defaults than one another",
            hint="choose tables of one of them, then those of the other into another shadow",
        )
    return made[0]


def _renamed(one: Definition, name: str) -> Definition:
    texts = tuple(text.replace(identifier(one.name), identifier(name), 1) for text in one.statements)
    return replace(one, schema=name, name=name, statements=texts)


def _beside_its_own(table: Table, name: str) -> Table:
    """A foreign key that pointed to another database stays in this one now, and is printed without its name."""
    lines = (
        line.replace(f" REFERENCES {identifier(name)}.", " REFERENCES ", 1) if indexes.referenced_tables(name, line) else line
        for line in table.create_sql.split("\n")
    )
    return replace(table, create_sql="\n".join(lines))


def _left_out(selected: selecting.Selected) -> Iterator[str]:
    kinds = sorted({one.kind for one in (*selected.inventory.after_rows, *selected.inventory.sequences)})
    if kinds:
        yield f"a shadow has tables alone: each chosen {', '.join(kinds)} is left out"
