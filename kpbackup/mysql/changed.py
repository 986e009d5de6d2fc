"""Definitions that changed while a backup ran: found in the binlog, which no reading of definitions can replace.

A backup reads definitions before its point and after its rows. Both readings can be equal and the rows still be another table's:
tables swapped by RENAME and swapped back, one dropped and created again, one emptied by TRUNCATE. The snapshot does not
always see such a change, the binlog does: every statement between the two readings is looked at here.

What is let pass: statements that change no definition, objects of databases that are not backed up, temporary tables, and
whatever happens to tables that the first reading did not show (`young`), unless one of them is there at the point: the
set does not hold those, a replay makes them. Anything else, and anything that is not understood, is a change.

Limits: a change in a session with sql_log_bin=0 is not seen (nor would any replica or archive have it).
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import replace

from kpbackup import errors
from kpbackup.model.coordinates import Coordinates
from kpbackup.model.inventory import Inventory
from kpbackup.mysql import events, follow, payload, query_event, server, statements
from kpbackup.mysql.events import StreamEvent
from kpbackup.mysql.schema import SYSTEM_DATABASES
from kpbackup.mysql.statements import Kind, Name, Statement

# what a worker's statement meets when a definition changed under it
DEFINITION_CHANGED = {
    1049: "database dropped", 1054: "column dropped", 1146: "table dropped or renamed", 1176: "primary key dropped",
    1205: "waited too long for a statement that changes a definition", 1412: "table altered, emptied or made anew",
}
HINT = "nothing was stored as a success; run the backup again when the change is done"
_HARMLESS_VERBS = frozenset({"", "ANALYZE", "OPTIMIZE", "REPAIR", "CHECK", "CHECKSUM", "FLUSH"})
_OF_TABLES = frozenset({
    "ALTER TABLE", "DROP TABLE", "TRUNCATE TABLE", "RENAME TABLE", "CREATE INDEX", "DROP INDEX", "CREATE TABLE",
})
_SHOWN = 3


class Watch:
    """Fed the statements between two readings, in order; `pass_point` where the point lies between them.

    `databases`: those backed up, () for all; `known`: names of tables, views and sequences of the first reading.
    """

    def __init__(self, databases: Collection[str], known: Iterable[Name]) -> None:
        self.young: set[Name] = set()
        self.changes: list[str] = []
        self._present: set[Name] = set()  # of the young
        self._databases = {name.lower() for name in databases}
        self._known = {_lower(name) for name in known}

    def pass_point(self) -> None:
        """What is there now should be in the set, and is not."""
        self.changes += [f"CREATE TABLE {schema}.{table}" for schema, table in sorted(self._present)]

    def feed(self, text: str, *, database: str = "", sql_mode: int = 0) -> None:
        """Looks at one statement."""
        found = statements.read(text, database=database, sql_mode=sql_mode)
        if not self._is_harmless(found, text, sql_mode):
            names = ", ".join(".".join(part for part in name if part) for name in found.targets)
            self.changes.append(f"{found.verb} {names}".strip())

    def _is_harmless(self, found: Statement, text: str, sql_mode: int) -> bool:
        if found.kind in (Kind.CONTROL, Kind.CHANGE) or found.verb in _HARMLESS_VERBS:
            return True
        if found.kind is not Kind.DDL or not found.targets:
            return False
        if all(self._is_outside(schema.lower()) for schema, _ in found.targets):
            return True
        if found.verb not in _OF_TABLES:
            return False
        words = [token.upper for token in itertools.islice(statements.tokens(text, sql_mode), 5)]
        return "TEMPORARY" in words[1:4] or self._is_of_young_tables(found, words)

    def _is_outside(self, schema: str) -> bool:
        return schema in SYSTEM_DATABASES or bool(self._databases and schema not in self._databases)

    def _is_of_young_tables(self, found: Statement, words: list[str]) -> bool:
        if words[:5] == ["CREATE", "TABLE", "IF", "NOT", "EXISTS"] and _lower(found.targets[0]) in self._known:
            return True  # it is there: had it been dropped, that would be a change by itself
        is_renamed = found.verb == "ALTER TABLE" and "rename" in found.mentions  # `targets` does not hold its new name
        if is_renamed or any(_lower(name) in self._known for name in found.targets):
            return False
        names = [_lower(name) for name in found.targets]
        self.young.update(names)
        if found.verb in ("DROP TABLE", "RENAME TABLE"):
            self._present.difference_update(names)
        if found.verb in ("CREATE TABLE", "RENAME TABLE"):
            self._present.update(names[1::2] if found.verb == "RENAME TABLE" else names)
        return True

    def settled(self, inventory: Inventory) -> Inventory:
        """The second reading without the tables made after the point."""
        old = tuple(table for table in inventory.tables if _lower((table.schema, table.name)) not in self.young)
        return replace(inventory, tables=old)


def _lower(name: Name) -> Name:
    return name[0].lower(), name[1].lower()


def names_in(inventory: Inventory) -> Iterator[Name]:
    """Everything whose name a table cannot take."""
    yield from ((table.schema, table.name) for table in inventory.tables)
    yield from ((one.schema, one.name) for one in inventory.sequences)
    yield from ((one.schema, one.name) for one in inventory.after_rows if one.kind == "view")


def watch_between(
    endpoint: server.Endpoint, watch: Watch, *, flavour: str, start: Coordinates, point: Coordinates, until: Coordinates
) -> None:
    """Feeds all statements of the binlog from `start` over the `point` `until` the second reading. Takes one connection.

    Raises: as `follow.follow`.
    """
    _watch(endpoint, watch, flavour=flavour, start=start, until=point)
    watch.pass_point()
    _watch(endpoint, watch, flavour=flavour, start=point, until=until)


def _watch(endpoint: server.Endpoint, watch: Watch, *, flavour: str, start: Coordinates, until: Coordinates) -> None:
    with closing(follow.follow(endpoint, flavour=flavour, start=start, until=until)) as stream:
        for item in stream:
            if isinstance(item, StreamEvent):
                feed_event(watch, item)


def feed_event(watch: Watch, event: StreamEvent) -> None:
    """Feeds the statements of an event, if it has any."""
    if event.type in (events.QUERY, events.QUERY_COMPRESSED):
        if events.query_text(event.data, 16).strip().upper() in (b"BEGIN", b"COMMIT"):
            return
        text, database, mode = _statement(event.data)
        watch.feed(text, database=database, sql_mode=mode)
    elif event.type == events.TRANSACTION_PAYLOAD:
        for inner in payload.contents(event):
            feed_event(watch, inner)


def _statement(data: bytes) -> tuple[str, str, int]:
    """(text, default database, sql_mode) of a statement."""
    try:
        query = query_event.parse(data)
    except errors.ServerUnfit:  # of a newer server: what this version does not know stands before these two, not in them
        text = events.query_text(data, len(data) << 4)
        return text.decode("utf-8", "surrogateescape"), events.query_database(data), 0
    client = query.variables.get(4, b"\xff\0")
    mode = int.from_bytes(query.variables.get(1, b"\0"), "little")
    return statements.decoded(query.text, int.from_bytes(client[:2], "little")), query.database, mode


def refuse(changes: Iterable[str]) -> None:
    """Raises SnapshotError when there are any."""
    found = list(changes)
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise errors.SnapshotError(f"definitions changed while the backup ran: {'; '.join(found[:_SHOWN])}{more}", hint=HINT)


def explained(exc: errors.DatabaseError) -> errors.KpbackupError:
    """The error of a worker: what a changed definition makes of its statement is a SnapshotError."""
    why = DEFINITION_CHANGED.get(exc.number)
    if why is None:
        return exc
    return errors.SnapshotError(f"a definition changed while the backup ran ({why}): {exc.message}", hint=HINT)
