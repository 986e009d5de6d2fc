"""Views, routines, packages, libraries, triggers and events of one database, as Definitions.

Statements are exactly what SHOW CREATE gives, definer kept; `session` is what the server recorded when the object was
made (sql_mode, character_set_client, collation_connection, collation_database, an event's time_zone). Expects a session
prepared by schema.reading_session with the database in USE.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from pymysql.charset import charset_by_name

from kpbackup import errors
from kpbackup.model.inventory import Definition
from kpbackup.model.selection import EVERYTHING, Selection
from kpbackup.mysql import table_text
from kpbackup.mysql.facts import ServerFacts
from kpbackup.mysql.quoting import identifier
from kpbackup.mysql.schema_tables import as_printed, reading, text
from kpbackup.mysql.server import Connection

INVALID_VIEW = 1356
ROUTINE_KINDS = ("PACKAGE", "PACKAGE BODY", "FUNCTION", "PROCEDURE")  # a body needs its package
LIBRARIES_SINCE = (9, 2)  # MySQL
_NOT_CP1252 = b"\x81\x8d\x8f\x90\x9d"
_NAMED_END = re.compile(r"\bEND(?P<name>\s+(?:\w+|`[^`]+`?))\s*$", re.IGNORECASE)

# the first column is for _of(): the comparison of names in information_schema may ignore case
_VIEWS = """SELECT table_schema, table_name FROM information_schema.tables
  WHERE table_schema = %s AND table_type = 'VIEW' ORDER BY table_name"""
_COLLATION_OF_VIEW = "SELECT collation_connection FROM information_schema.views WHERE table_schema = %s AND table_name = %s"
_ROUTINES = """SELECT routine_schema, routine_name, routine_type, routine_comment FROM information_schema.routines
  WHERE routine_schema = %s ORDER BY routine_name"""
_BODY = """SELECT routine_definition FROM information_schema.routines
  WHERE routine_schema = %s AND routine_name = %s AND routine_type = %s"""
_TRIGGERS = """SELECT trigger_schema, trigger_name, event_object_table FROM information_schema.triggers WHERE trigger_schema = %s
  ORDER BY event_object_table, event_manipulation, action_timing, action_order"""
_EVENTS = """SELECT event_schema, event_name, event_comment FROM information_schema.events
  WHERE event_schema = %s ORDER BY event_name"""
_LIBRARIES = """SELECT library_schema, library_name FROM information_schema.libraries
  WHERE library_schema = %s ORDER BY library_name"""


def read_views_of(
    connection: Connection, schema: str, selection: Selection = EVERYTHING, *, flavour: str
) -> list[Definition]:
    """The views in the order of their names; in_dependency_order() sorts those of all databases. One that `selection` leaves
    out is not there if it cannot be read."""
    found = []
    for (name,) in _of(connection, _VIEWS, schema):
        try:
            row, broken = _view(connection, schema, text(name), flavour)
        except errors.DatabaseError as exc:
            if exc.number != INVALID_VIEW:
                if not selection.takes(schema, text(name)):
                    continue
                with reading("view", schema, text(name)):
                    raise
            row, broken = (name, "", "utf8mb4", "utf8mb4_general_ci"), True
        session = {"character_set_client": text(row[2]), "collation_connection": text(row[3])}
        statements = (table_text.with_bytes_in_hex(text(row[1])),) if text(row[1]) else ()
        found.append(Definition("view", schema, text(name), statements, session, optional=broken))
    return found


def _view(connection: Connection, schema: str, name: str, flavour: str) -> tuple[tuple[Any, ...], bool]:
    """(what SHOW CREATE VIEW says, whether the view is broken).

    Expressions of a view may not agree with the collation of this session: it is read once more in the one it was made in. Where
    that does not help either, the first error says why.
    """
    try:
        return _shown_view(connection, name, flavour)
    except errors.DatabaseError as exc:
        own = connection.value(_COLLATION_OF_VIEW, (schema, name))
        if exc.number == INVALID_VIEW or not own:
            raise
        connection.execute(f"SET SESSION collation_connection = {text(own)}")
        try:
            return _shown_view(connection, name, flavour)
        except errors.DatabaseError:
            raise exc from None
        finally:
            connection.execute("SET NAMES utf8mb4")


def _shown_view(connection: Connection, name: str, flavour: str) -> tuple[tuple[Any, ...], bool]:
    statement = f"SHOW CREATE VIEW {identifier(name)}"
    row = connection.rows(statement)[0]
    is_broken = any(warning[1] == INVALID_VIEW for warning in connection.rows("SHOW WARNINGS"))
    return as_printed(connection, statement, row, flavour=flavour), is_broken


def in_dependency_order(views: Iterable[Definition]) -> list[Definition]:
    """The views with those first whose names occur in the text of others.

    A name that is only a column's costs nothing but a longer order; in the cycles such names can make, the order of
    names decides, and create() tries again.
    """
    listed = list(views)
    by_name: dict[str, list[Definition]] = {}
    for view in listed:
        by_name.setdefault(identifier(view.name), []).append(view)
    done: list[Definition] = []
    state: dict[tuple[str, str], bool] = {}  # False while its own dependencies are being placed

    for root in listed:
        stack = [(root, iter(_used(root, by_name)))]
        if (root.schema, root.name) in state:
            continue
        state[root.schema, root.name] = False
        while stack:
            view, needed = stack[-1]
            following = next((n for n in needed if (n.schema, n.name) not in state), None)
            if following is None:
                done.append(view)
                state[view.schema, view.name] = True
                stack.pop()
            else:
                state[following.schema, following.name] = False
                stack.append((following, iter(_used(following, by_name))))
    return done


def _used(view: Definition, by_name: dict[str, list[Definition]]) -> list[Definition]:
    words = "".join(view.statements)
    return [other for name, others in by_name.items() if name in words for other in others if other is not view]


def read_routines_of(connection: Connection, facts: ServerFacts, schema: str) -> list[Definition]:
    """Libraries, packages, package bodies, functions and procedures, in the order in which they can be created.

    Raises:
        PrivilegeMissing: a routine of another definer whose text the account may not read.
    """
    found = list(_libraries(connection, facts, schema))
    rows = [tuple(map(text, row)) for row in _of(connection, _ROUTINES, schema)]
    for kind in ROUTINE_KINDS:
        of_kind = ((name, comment) for name, its_kind, comment in rows if its_kind == kind)
        found += [_routine(connection, facts, schema, name, kind, comment) for name, comment in of_kind]
    return found


def _routine(connection: Connection, facts: ServerFacts, schema: str, name: str, kind: str, comment: str) -> Definition:
    with reading(kind.lower(), schema, name):
        row = connection.rows(f"SHOW CREATE {kind} {identifier(name)}")[0]
    if row[2] is None:
        grant = "SELECT ON mysql.proc" if facts.mariadb else "SHOW_ROUTINE ON *.*"
        raise errors.PrivilegeMissing(
            f"cannot read {kind.lower()} {schema}.{name}: the server hides its text from {connection.endpoint.name}",
            hint=f"GRANT {grant} TO that account",
        )
    create = _with_its_comment(_with_its_names(text(row[2]), text(row[3]), name), text(row[3]), comment)
    if kind.startswith("PACKAGE") or "ORACLE" in text(row[1]):
        create += _name_behind_end(create, text(connection.value(_BODY, (schema, name, kind))))
    return Definition(kind.lower(), schema, name, (create,), {"sql_mode": text(row[1]), **_charsets(row[3:6])})


def _with_its_names(create: str, charset: str, *names: str) -> str:
    """The text of SHOW CREATE with the names in its head as they are.

    Servers put them there in UTF-8 and then take the whole for text of the object's character_set_client. Limit: where those
    bytes are no text of it, the server prints `?`, and what it prints is left.
    """
    for name in names:
        shown, right = identifier(_misread(name, charset)), identifier(name)
        at, there = create.find(shown), create.find(right)
        if shown != right and at >= 0 and not 0 <= there < at:
            create = create[:at] + right + create[at + len(shown) :]
    return create


def _with_its_comment(create: str, charset: str, comment: str) -> str:
    """As `_with_its_names`, for the comment in the head."""
    printed = _printed(comment)
    shown, right = f" COMMENT '{_misread(printed, charset)}'", f" COMMENT '{printed}'"
    return create.replace(shown, right, 1) if shown != right and right not in create else create


def _printed(comment: str) -> str:
    """As servers print it between quotes."""
    return comment.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("'", "''")


def _misread(name: str, charset: str) -> str:
    """The bytes of the name's UTF-8 read as text of the character set; the name itself where they are none."""
    data = name.encode("utf-8")
    try:
        if charset == "latin1":  # of MySQL: cp1252, and the bytes that are nothing there as they are
            return "".join(bytes([one]).decode("cp1252" if one not in _NOT_CP1252 else "latin1") for one in data)
        known: Any = charset_by_name(charset)  # None where it knows none
        return data.decode(known.encoding) if known else name
    except (LookupError, UnicodeDecodeError):  # LookupError: a character set that Python does not have
        return name


def _name_behind_end(create: str, body: str) -> str:
    """Routines of Oracle's mode may be ended by their names; information_schema shows that, SHOW CREATE does not."""
    found = _NAMED_END.search(body)
    if found is None or not create.upper().endswith("END"):
        return ""
    return found["name"] + ("`" if found["name"].count("`") == 1 else "")  # the closing one is not shown


def _libraries(connection: Connection, facts: ServerFacts, schema: str) -> Iterator[Definition]:
    if facts.mariadb or facts.version < LIBRARIES_SINCE:
        return
    for (name,) in _of(connection, _LIBRARIES, schema):
        row = connection.rows(f"SHOW CREATE LIBRARY {identifier(text(name))}")[0]
        yield Definition("library", schema, text(name), (text(row[2]),), {"sql_mode": text(row[1])})


def read_triggers_of(connection: Connection, schema: str) -> list[Definition]:
    """Triggers; those of one table, event and time in the order in which they fire."""
    found = []
    for name, table in _of(connection, _TRIGGERS, schema):
        with reading("trigger", schema, text(name)):
            row = connection.rows(f"SHOW CREATE TRIGGER {identifier(text(name))}")[0]
        create = _with_its_names(text(row[2]), text(row[3]), text(name), text(table))
        found.append(Definition("trigger", schema, text(name), (create,), {"sql_mode": text(row[1]), **_charsets(row[3:6])}))
    return found


def read_events_of(connection: Connection, schema: str) -> list[Definition]:
    """Events with their status (enabled, disabled, disabled on the replica) and time zone."""
    found = []
    for name, comment in _of(connection, _EVENTS, schema):
        with reading("event", schema, text(name)):
            row = connection.rows(f"SHOW CREATE EVENT {identifier(text(name))}")[0]
        session = {"sql_mode": text(row[1]), "time_zone": text(row[2]), **_charsets(row[4:7])}
        create = _with_its_comment(_with_its_names(text(row[3]), text(row[4]), text(name)), text(row[4]), text(comment))
        found.append(Definition("event", schema, text(name), (create,), session))
    return found


def _of(connection: Connection, listing: str, schema: str) -> list[tuple[Any, ...]]:
    """The listed objects of exactly this database, without its name."""
    return [tuple(rest) for found, *rest in connection.rows(listing, (schema,)) if text(found) == schema]


def _charsets(row: tuple[object, ...]) -> dict[str, str]:
    return {"character_set_client": text(row[0]), "collation_connection": text(row[1]), "collation_database": text(row[2])}
