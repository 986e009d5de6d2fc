"""Definitions made on the target: only what a resumed run has not made yet, and thousands of tables by several sessions.

A server takes 10 to 60 ms for a CREATE or an ALTER TABLE, nearly all of it waiting for its own files, so sessions beside each
other make tables several times as fast. Only InnoDB tables without foreign keys, to or from them, are made so: nothing
lies between them, so their order does not matter. All others are made one after the other, as the backup has them.

In a set of many tables a small one keeps its keys from the start: an ALTER costs more than its few rows do.
What a crash leaves: tables that are whole, each in the form that `planned` says again from the same inventory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from kpbackup.model.inventory import Definition, Table
from kpbackup.mysql import definitions, indexes, server
from kpbackup.recovery import way_out

MANY_TABLES = 100  # up to so many neither saves more than a second or two
FEW_ROWS = 2_000  # up to which rows written into keys take less time than one ALTER
SHARE = 100  # tables that a session makes; after an error no other share is begun

Name = tuple[str, str]

_OBJECT_KINDS = {"table": "table", "sequence": "table", "view": "table"}
_OBJECTS = """
    SELECT 'table', table_schema, table_name FROM information_schema.tables
    UNION ALL SELECT LOWER(routine_type), routine_schema, routine_name FROM information_schema.routines
    UNION ALL SELECT 'trigger', trigger_schema, trigger_name FROM information_schema.triggers
    UNION ALL SELECT 'event', event_schema, event_name FROM information_schema.events
"""


@dataclass(frozen=True)
class PlannedTables:
    """How tables are made before their rows, and the statements that complete each after them.

    `apart` are those that may be made in any order, by any session.
    """

    in_order: tuple[Definition, ...]
    apart: tuple[Definition, ...]
    deferred: Mapping[Name, tuple[str, ...]]


def planned(tables: Sequence[Table], rows: Mapping[Name, int]) -> PlannedTables:
    """`rows` counts those of each table that has chunks."""
    referenced = {name for table in tables for name in indexes.referenced_tables(table.schema, table.create_sql)}
    before_parents = indexes.to_missing_columns({(table.schema, table.name): table.create_sql for table in tables})
    is_many = len(tables) > MANY_TABLES
    in_order, apart, deferred = list[Definition](), list[Definition](), dict[Name, tuple[str, ...]]()
    for table in sorted(tables, key=lambda one: (one.schema, one.name) not in before_parents):
        name = (table.schema, table.name)
        deferral = indexes.defer(table.create_sql, referenced=name in referenced)
        is_small = is_many and rows.get(name, 0) <= FEW_ROWS and not _has_foreign_key(table.create_sql)
        # no chunk, after which they would be built: no rows, or all its columns are generated
        if name not in rows or name in before_parents or is_small:
            deferral = indexes.Deferral(table.create_sql, ())
        deferred[name] = deferral.statements
        made = definitions.definition_of(table, deferral.create_sql, has_rows=bool(rows.get(name)))
        is_apart = is_many and table.engine == "InnoDB" and name not in referenced and not _has_foreign_key(deferral.create_sql)
        (apart if is_apart else in_order).append(made)
    return PlannedTables(tuple(in_order), tuple(apart), deferred)


def _has_foreign_key(create_sql: str) -> bool:
    return " FOREIGN KEY (" in create_sql


def create_tables(
    connection: server.Connection, tables: PlannedTables, *, open_session: Callable[[], server.Connection], sessions: int,
    sources: Mapping[str, str],
) -> list[str]:
    """Creates the tables that are not there; `open_session` opens one more session such as `connection` is.

    Raises:
        DatabaseError, PrivilegeMissing, ServerUnreachable: the first of the sessions that failed.
    """
    warnings = create(connection, tables.in_order, sources)
    apart = missing(connection, tables.apart) if tables.apart else []
    size = min(SHARE, -(-len(apart) // sessions)) or 1
    shares = [apart[begin : begin + size] for begin in range(0, len(apart), size)]

    def create_share(share: Sequence[Definition]) -> list[str]:
        with open_session() as session:
            return _create(session, share, sources)

    with ThreadPoolExecutor(sessions) as threads:  # an error cancels the shares that wait
        return warnings + [warning for found in threads.map(create_share, shares) for warning in found]


def create(
    connection: server.Connection, wanted: Sequence[Definition], sources: Mapping[str, str], *, source_version: str = ""
) -> list[str]:
    """Creates what is not there; warnings. `sources` gives the source's name of a database that is renamed."""
    return _create(connection, missing(connection, wanted), sources, source_version) if wanted else []


def _create(
    connection: server.Connection, wanted: Sequence[Definition], sources: Mapping[str, str], source_version: str = ""
) -> list[str]:
    return definitions.create(
        connection, wanted, hint=lambda one: way_out.of_definition(one, sources), source_version=source_version
    )


def missing(connection: server.Connection, wanted: Sequence[Definition]) -> list[Definition]:
    """Those a resumed run has not created yet, and what may be left to do for those it has: all but their first
    statements, which can be repeated."""
    there = {(kind, schema, name) for kind, schema, name in connection.rows(_OBJECTS)}
    found = []
    for one in wanted:
        if (_OBJECT_KINDS.get(one.kind, one.kind), one.schema, one.name) not in there:
            found.append(one)
        elif one.kind in _OBJECT_KINDS and len(one.statements) > 1:
            found.append(replace(one, statements=one.statements[1:]))
    return found
