"""The part of an inventory that a selection means, and what hangs on it: decided from the definitions alone.

Triggers go with their table, routines and events with a database that is chosen as a whole, views and sequences by their own
names; accounts belong to the server and to no table, so they are left out. A chosen object that may need one that is left out
is named in the notes: a foreign key stays in the definition, a view is made if the server can make it.

Limit: whether a view, trigger or routine uses an object is judged by the words of its text, so a note may be about a column of
that name. Texts put together at run time are not looked into.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from kpbackup import errors
from kpbackup.model.inventory import Definition, Inventory, Table
from kpbackup.model.selection import Selection
from kpbackup.mysql import indexes, statements

Name = tuple[str, str]


@dataclass(frozen=True)
class Selected:
    """`inventory` holds what is chosen. `foreign` are the foreign keys of chosen tables that point to tables left out."""

    inventory: Inventory
    foreign: tuple[tuple[Name, Name], ...]
    notes: tuple[str, ...]


def select(inventory: Inventory, selection: Selection) -> Selected:
    """What `selection` means of `inventory`.

    Raises:
        UsageError: nothing is chosen, or a pattern of `only` names nothing there. StepFailed: a trigger's table is not known.
    """
    if selection.is_everything:
        return Selected(inventory, _foreign(inventory.tables), ())
    _refuse_empty(inventory, selection)
    tables = tuple(table for table in inventory.tables if selection.takes(table.schema, table.name))
    chosen = {(table.schema, table.name) for table in tables}
    sequences = tuple(one for one in inventory.sequences if selection.takes(one.schema, one.name))
    foreign = _foreign(tables)
    left_names = {one.name.lower() for one in _named(inventory) if not selection.takes(one.schema, one.name)}
    after, notes = [], [f"table {a}.{b}: its foreign key to {c}.{d} points to a table that is left out"
                        for (a, b), (c, d) in foreign]
    for one in inventory.after_rows:
        if _is_chosen(one, selection, chosen):
            needed = sorted(name for name in mentions(one) & left_names if name != one.name.lower())
            if needed:
                notes.append(f"{one.kind} {one.schema}.{one.name}: its text names {', '.join(needed)}, which is left out")
            after.append(replace(one, optional=one.optional or (one.kind == "view" and bool(needed))))
    used = {one.schema for one in tables} | {one.schema for one in (*sequences, *after)}
    return Selected(
        replace(
            inventory,
            databases=tuple(one for one in inventory.databases if one.name in used or selection.takes_whole(one.name)),
            tables=tables, sequences=sequences, after_rows=tuple(after), accounts=(),
            chunks=tuple(chunk for chunk in inventory.chunks if (chunk.schema, chunk.table) in chosen),
        ),
        foreign, tuple(notes),
    )  # fmt: skip


def _foreign(tables: tuple[Table, ...]) -> tuple[tuple[Name, Name], ...]:
    chosen = {(table.schema, table.name) for table in tables}
    return tuple(sorted(
        ((table.schema, table.name), target)
        for table in tables for target in indexes.referenced_tables(table.schema, table.create_sql) if target not in chosen
    ))  # fmt: skip


def _named(inventory: Inventory) -> Iterator[Table | Definition]:
    """Everything that shares the names of tables."""
    yield from inventory.tables
    yield from inventory.sequences
    yield from (one for one in inventory.after_rows if one.kind == "view")


def _refuse_empty(inventory: Inventory, selection: Selection) -> None:
    there = [(one.schema, one.name) for one in _named(inventory)] + [(one.name, "") for one in inventory.databases]
    for pattern in selection.only:
        if not any(Selection((pattern,)).takes(*name) for name in there):
            raise errors.UsageError(
                f"only {pattern}: there is no such database, table, view or sequence",
                hint="names are case-sensitive; write database or database.table, with * and ?",
            )
    if not any(selection.takes(*name) for name in there if name[1]) and not any(
        selection.takes_whole(one.name) for one in inventory.databases
    ):
        raise errors.UsageError(f"nothing is left to do with {selection}", hint="exclude less")


def _is_chosen(one: Definition, selection: Selection, tables: set[Name]) -> bool:
    if one.kind == "view":
        return selection.takes(one.schema, one.name)
    if one.kind == "trigger":
        return trigger_table(one) in tables
    return selection.takes_whole(one.schema)


def trigger_table(trigger: Definition) -> Name:
    """The table a trigger is on.

    Raises:
        StepFailed: its text does not say so in a way that is understood.
    """
    found = _read(trigger)
    if found is None or not found.targets:
        raise errors.StepFailed(
            f"cannot tell which table trigger {trigger.schema}.{trigger.name} is on",
            hint="choose whole databases, or restore everything",
        )
    return found.targets[0]


def mentions(one: Definition) -> frozenset[str]:
    """Every word of the object's text that may be a name, in lower case."""
    found = _read(one)
    return found.mentions if found is not None else frozenset()


def _read(one: Definition) -> statements.Statement | None:
    mode = statements.mode_of(one.session.get("sql_mode", ""))
    return statements.read(one.statements[0], database=one.schema, sql_mode=mode) if one.statements else None
