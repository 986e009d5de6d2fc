"""Definitions put to use: created on a target, compared, or printed as scripts for the database's own client.

create() gives every object the session it was made in and puts the session back. A crash between two statements leaves
objects that are whole; one between ALTER DATABASE and its way back leaves the database with the collation of the object
being made, which creating the databases anew mends and compare() shows.
Limit: texts that the object's own character_set_client cannot hold are sent as utf8mb4, and a warning says so.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pymysql
from pymysql.charset import charset_by_name

from kpbackup import errors
from kpbackup.model.inventory import Definition, Inventory, Table
from kpbackup.mysql import server, table_text
from kpbackup.mysql.quoting import identifier, literal, qualified
from kpbackup.mysql.schema import comparable, split_auto_increment

# without NO_ENGINE_SUBSTITUTION a missing engine becomes InnoDB without a word
BASE_SQL_MODE = "NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION"
BASE_SESSION = {
    "foreign_key_checks": "0",
    "unique_checks": "0",
    "sql_mode": literal(BASE_SQL_MODE),
    "time_zone": "'+00:00'",
}
UTF8 = ("utf8", "utf8mb3", "utf8mb4")
MISSING_REFERENCE = (1146, 1305, 1356, 1049, 1321)  # table, routine, view's object, database, column: maybe created later
PARSE_ERROR = 1064
COLUMN_GONE = 1054  # a trigger that names a column its table has lost: as on the source, where it fails every statement
MISSING_GRANTEE = (1133, 1959, 3523)  # a role or proxied account that is not here
EVENT_IN_THE_PAST = (1544, 1588)
# MariaDB takes an expression of a generated column whose value depends on these modes only in a session that has them
NOT_IN_THIS_MODE = 1901
DEPENDED_ON = "PAD_CHAR_TO_FULL_LENGTH,NO_UNSIGNED_SUBTRACTION"
KEEPING_UNKNOWN_OPTIONS = "IGNORE_BAD_TABLE_OPTIONS"  # MariaDB's mode in which a table takes options its engine does not know
NO_SUCH_TIME_ZONE = 1298


def definition_of(table: Table, create_sql: str = "", *, has_rows: bool = False) -> Definition:
    """A base table as a Definition; `create_sql` where it is first made in another form, `has_rows` where rows will follow."""
    text = create_sql or table.create_sql
    if has_rows and table.engine.upper() == "ARCHIVE":
        # it takes no row below its counter, and counts by itself
        before, _, after = split_auto_increment(text)
        text = before + after
    text, has_unknown = table_text.with_unknown_options(text)
    session = {"sql_mode": f"{BASE_SQL_MODE},{KEEPING_UNKNOWN_OPTIONS}"} if has_unknown else {}
    # before the rows: servers keep such keys as they are while rows come in
    disabling = (f"ALTER TABLE {identifier(table.name)} DISABLE KEYS",) if table.keys_disabled else ()
    statements = (table_text.keeping_order(text), *table_text.after_creation(text), *disabling)
    return Definition("table", table.schema, table.name, statements, session)


def create(
    connection: server.Connection, definitions: Iterable[Definition], *, hint: Callable[[Definition], str] = lambda one: "",
    source_version: str = "",
) -> list[str]:
    """Creates the objects in their order; returns warnings (an object left out, a text sent in another character set).

    `hint` says how to go on without an object that cannot be made. A trigger that is no SQL to a server of `source_version`
    is none on the source either, and left out. Objects that name something not there yet are tried again
    after the others, as long as that gets any of them done. The session's variables are put back, the database in USE is not.

    Raises:
        DatabaseError, PrivilegeMissing: kind and name of the object, and the server's reason.
    """
    waiting, warnings = list(definitions), list[str]()
    same_version = bool(source_version) and source_version == str(connection.value("SELECT @@version"))
    with _base_session(connection):
        while waiting:
            later: list[tuple[Definition, errors.DatabaseError]] = []
            for definition in waiting:
                try:
                    warnings += _create_one(connection, definition)
                except errors.DatabaseError as exc:
                    missing = MISSING_REFERENCE + (MISSING_GRANTEE if definition.kind == "grant" else ())
                    exc.hint = "; ".join(filter(None, (exc.hint, hint(definition))))
                    if exc.number not in missing and not _may_be_left_out(definition, exc, same_version=same_version):
                        raise
                    later.append((definition, exc))
            if len(later) == len(waiting):
                return warnings + _give_up(later, same_version=same_version)
            waiting = [definition for definition, _ in later]
    return warnings


def _give_up(stuck: list[tuple[Definition, errors.DatabaseError]], *, same_version: bool) -> list[str]:
    for definition, exc in stuck:
        if definition.kind != "grant" and not _may_be_left_out(definition, exc, same_version=same_version):
            raise exc
    return [exc.message for _, exc in stuck]  # broken on the source, or a grant on an object that is no more


def _may_be_left_out(definition: Definition, exc: errors.DatabaseError, *, same_version: bool) -> bool:
    """Whether no server could make it: then the restore goes on without it, and says so.

    `same_version`: what is no SQL to this server is none to the source either. MariaDB stores a trigger's body without the
    signs of its comments: `INSERT/*!INTO*/t` comes out as one word, and every INSERT into its table fails.
    """
    broken = (COLUMN_GONE, PARSE_ERROR) if same_version else (COLUMN_GONE,)
    return definition.optional or (definition.kind == "trigger" and exc.number in broken)


def _create_one(connection: server.Connection, definition: Definition) -> list[str]:
    what = f"cannot create {definition.kind} {_name(definition)}"
    try:
        if definition.schema and definition.kind != "database":
            connection.execute(f"USE {identifier(definition.schema)}")
        with _object_session(connection, definition) as charset:
            try:
                warnings = _send(connection, definition, charset)
            except errors.DatabaseError as exc:
                if exc.number != NOT_IN_THIS_MODE or definition.kind != "table":
                    raise
                mode = definition.session.get("sql_mode", BASE_SQL_MODE)
                connection.execute(f"SET SESSION sql_mode = {literal(f'{mode},{DEPENDED_ON}')}")
                warnings = _send(connection, definition, charset)
                connection.execute(f"SET SESSION sql_mode = {literal(mode)}")
        return warnings
    except errors.PrivilegeMissing as exc:
        raise errors.PrivilegeMissing(f"{what}: {exc.message}", hint=exc.hint) from exc
    except errors.DatabaseError as exc:
        hint = "load the time zone tables (mysql_tzinfo_to_sql)" if exc.number == NO_SUCH_TIME_ZONE else exc.hint
        raise errors.DatabaseError(f"{what}: {exc.message}", hint=hint, number=exc.number) from exc


def _send(connection: server.Connection, definition: Definition, charset: str) -> list[str]:
    found = []
    for statement in definition.statements:
        data = _encoded(connection, statement, charset)
        if data is None:
            connection.execute("SET SESSION character_set_client = utf8mb4")
            data = statement.encode("utf-8", "surrogateescape")
            found.append(f"text of {definition.kind} {_name(definition)} does not fit its character_set_client, sent as utf8mb4")
        try:
            connection.raw.query(data)
        except pymysql.MySQLError as exc:
            raise server.translate(exc, f"on {connection.endpoint.name}") from exc
        if definition.kind == "event" and any(row[1] in EVENT_IN_THE_PAST for row in connection.rows("SHOW WARNINGS")):
            _send_in_the_past(connection, definition, data)
            found.append(f"event {_name(definition)}: its time is over; it is there as on the source, and ends when events run")
    return found


def _send_in_the_past(connection: server.Connection, definition: Definition, data: bytes) -> None:
    """An event whose time is over, which the server has dropped or disabled at once: made as if that time were to come.

    The source still has it, because its scheduler does not run; the target's does not either (`preflight_target`).
    """
    connection.execute(f"DROP EVENT IF EXISTS {identifier(definition.name)}")
    connection.execute("SET SESSION timestamp = 1")
    try:
        connection.raw.query(data)
    except pymysql.MySQLError as exc:
        raise server.translate(exc, f"on {connection.endpoint.name}") from exc
    finally:
        if connection.raw.open:
            connection.execute("SET SESSION timestamp = DEFAULT")


@contextmanager
def _base_session(connection: server.Connection) -> Iterator[None]:
    names = tuple(BASE_SESSION)
    before = connection.rows("SELECT " + ", ".join(f"@@session.{name}" for name in names))[0]
    connection.execute("SET NAMES utf8mb4")
    connection.execute("SET SESSION " + ", ".join(f"{name} = {value}" for name, value in BASE_SESSION.items()))
    try:
        yield
    finally:
        if connection.raw.open:  # else the error is on its way, and there is no session to put back
            values = (value if isinstance(value, int) else literal(str(value)) for value in before)
            back = ", ".join(f"{name} = {value}" for name, value in zip(names, values, strict=True))
            connection.execute(f"SET SESSION {back}")


@contextmanager
def _object_session(connection: server.Connection, definition: Definition) -> Iterator[str]:
    """Yields the session's character_set_client."""
    session = {} if definition.kind == "database" else dict(definition.session)
    own = session.pop("collation_database", "")
    usual = str(connection.value("SELECT @@collation_database") or "") if own else ""
    if own != usual:
        _collate(connection, definition.schema, own)
    charset = session.get("character_set_client", "utf8mb4")
    if session:
        connection.execute("SET SESSION " + _assignments(session))
    try:
        yield charset
    finally:
        if connection.raw.open:
            if session:
                connection.execute("SET NAMES utf8mb4")
                connection.execute(f"SET SESSION sql_mode = {BASE_SESSION['sql_mode']}, time_zone = '+00:00'")
            if own != usual:
                _collate(connection, definition.schema, usual)


def _collate(connection: server.Connection, schema: str, collation: str) -> None:
    connection.execute(f"ALTER DATABASE {identifier(schema)} COLLATE {collation}")


def _assignments(session: dict[str, str]) -> str:
    bare = ("character_set_client", "collation_connection")
    return ", ".join(f"{name} = {value if name in bare else literal(value)}" for name, value in session.items())


def _encoded(connection: server.Connection, statement: str, charset: str) -> bytes | None:
    """The statement as a client of that character set sends it; None: it has not all its signs."""
    if charset in (*UTF8, "binary"):  # of the last one servers convert nothing
        return statement.encode("utf-8", "surrogateescape")
    known: Any = charset_by_name(charset)  # None where it knows none
    try:
        return statement.encode(codecs.lookup(known.encoding).name if known else "", "surrogateescape")
    except UnicodeEncodeError:
        return None
    except LookupError:  # Python does not have every character set of the servers
        return _converted(connection, statement, charset)


def _converted(connection: server.Connection, statement: str, charset: str) -> bytes | None:
    """As `_encoded`, by the server. In SWE7, say, the bytes of ASCII's punctuation are letters, and SHOW CREATE prints those."""
    own = statement.encode("utf-8", "surrogateescape")
    text = f"CONVERT(_utf8mb4 x'{own.hex()}' USING {charset})"
    data, again = connection.rows(f"SELECT HEX({text}), HEX(CONVERT({text} USING utf8mb4))")[0]
    return bytes.fromhex(str(data)) if bytes.fromhex(str(again)) == own else None


def _name(definition: Definition) -> str:
    return f"{definition.schema}.{definition.name}" if definition.schema and definition.kind != "database" else definition.name


def compare(source: Inventory, target: Inventory, *, values: bool = True) -> list[str]:
    """Differences of definitions, one sentence each; [] when all are equal. Rows, settings and estimates do not count.

    `values`: also AUTO_INCREMENT and the positions of sequences, which change as rows are written.
    """
    found = list(_differences(_comparable(source), _comparable(target)))
    if values:
        found += _differences(_values(source), _values(target))
    orders = [[d.name for d in side.after_rows if d.kind == "trigger"] for side in (source, target)]
    if orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]):
        found.append("triggers fire in another order")
    return found


def moved_counters(source: Inventory, target: Inventory) -> list[str]:
    """The statements that set AUTO_INCREMENT of tables where loading the rows left another value; compare() judges the result.

    The counter of a partitioned MEMORY table begins anew when a row takes the last number of BIGINT UNSIGNED.
    """
    wanted = {(table.schema, table.name): split_auto_increment(table.create_sql)[1] for table in source.tables}
    found = []
    for table in target.tables:
        value = wanted.get((table.schema, table.name), "")
        if value and value != split_auto_increment(table.create_sql)[1]:
            found.append(f"ALTER TABLE {qualified(table.schema, table.name)} AUTO_INCREMENT={value}")
    return found


def _differences(source: dict[str, object], target: dict[str, object]) -> Iterator[str]:
    for name in sorted(source.keys() | target.keys()):
        if name not in target:
            yield f"{name} is missing on the target"
        elif name not in source:
            yield f"{name} is on the target only"
        elif source[name] != target[name]:
            yield f"{name} differs"


def _comparable(inventory: Inventory) -> dict[str, object]:
    found: dict[str, object] = {}
    for table in inventory.tables:
        columns = () if table.computed else table.columns
        found[f"table {table.schema}.{table.name}"] = (comparable(table.create_sql), columns, table.key, table.keys_disabled)
    for sequence in inventory.sequences:
        found[f"sequence {_name(sequence)}"] = sequence.statements[:1]
    for one in (*inventory.databases, *inventory.after_rows, *inventory.accounts):
        found[f"{one.kind} {_name(one)}"] = (one.statements, one.session)
    return found


def _values(inventory: Inventory) -> dict[str, object]:
    tables = {f"AUTO_INCREMENT of table {t.schema}.{t.name}": split_auto_increment(t.create_sql)[1] for t in inventory.tables}
    return {**tables, **{f"position of sequence {_name(s)}": s.statements[1:] for s in inventory.sequences}}
