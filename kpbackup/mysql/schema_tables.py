"""Base tables and sequences of one database, as model values.

Expects a session prepared by schema.reading_session with the database in USE. The server lists only what the account
may see: `preflight` warns when that may be less than everything.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kpbackup import errors
from kpbackup.model.inventory import Column, Definition, Table
from kpbackup.model.selection import EVERYTHING, Selection, leaving_out
from kpbackup.mysql import table_text, versioned
from kpbackup.mysql.quoting import identifier, qualified
from kpbackup.mysql.server import Connection

BASE_TYPES = ("BASE TABLE", versioned.VERSIONED)
ROWS_ELSEWHERE = {"MRG_MYISAM", "FEDERATED", "SPIDER", "CONNECT", "S3", "OQGRAPH"}

_COLUMNS = """SELECT table_name, column_name, data_type, column_type, character_set_name, collation_name, generation_expression,
  is_nullable = 'YES' AND column_default IS NULL AND extra NOT LIKE '%%auto_increment%%',
  extra NOT LIKE '%%VIRTUAL%%' OR column_key <> '',
  data_type IN ('enum', 'set') AND character_maximum_length = 0 AND column_type NOT IN ("enum('')", "set('')"),
  data_type IN ('double', 'float') AND column_type NOT LIKE '%%(%%' AND numeric_precision <> IF(data_type = 'double', 22, 12)
  FROM information_schema.columns WHERE table_schema = %s ORDER BY table_name, ordinal_position"""
_KEYS = """SELECT table_name, column_name, index_name = 'PRIMARY' FROM information_schema.statistics
  WHERE table_schema = %s AND (index_name = 'PRIMARY' OR comment = 'disabled') ORDER BY table_name, seq_in_index"""
_TABLES = """SELECT table_name, table_type, engine, table_rows, data_length FROM information_schema.tables
  WHERE table_schema = %s ORDER BY table_name"""
_CREATE_OPTIONS = "SELECT create_options FROM information_schema.tables WHERE table_schema = %s AND table_name = %s"
_DEFAULTLESS = (  # MariaDB
    "table {table}: the columns {columns} may be NULL and have no default, as CREATE ... SELECT from an"
    " outer join or from the server's own tables makes them; they come back with DEFAULT NULL"
)
_UNMEASURED = (
    "table {table}: the columns {columns} show a length of 0 in information_schema, as CREATE ... SELECT may leave ENUM and SET;"
    " they come back with that of their members"
)
_PRECISE = (
    "table {table}: the columns {columns} show another numeric_precision in information_schema than their type has, as CREATE ..."
    " SELECT of a computed DOUBLE leaves it; they come back with that of their type, and the same values"
)
_CONSTANT = re.compile(r"[\d +*()-]+")  # surely, in every session
_FOUR_BYTES = ("utf8mb4", "utf16", "utf16le", "utf32")
_SEQUENCE = (
    "SELECT next_not_cached_value, minimum_value, maximum_value, start_value, increment, cache_size, cycle_option, cycle_count"
    " FROM "
)
_ROW_FORMAT = re.compile(r" ROW_FORMAT=\w+")


def read_tables_of(
    connection: Connection, schema: str, transactional_engines: frozenset[str], *, flavour: str,
    selection: Selection = EVERYTHING, notes: list[str] | None = None,
) -> list[Table]:
    """The base tables of the database, in the order of their names; without those that `selection` leaves out and that cannot
    be opened. What no statement can make again is added to `notes`.

    Raises:
        DatabaseError: a table cannot be opened (crashed, engine missing). PrivilegeMissing.
    """
    known = _Listed(connection, schema, flavour)
    found = []
    for name, kind, engine, rows, size in connection.rows(_TABLES, (schema,)):
        if text(kind) not in BASE_TYPES:
            continue
        table = text(name)
        try:
            with reading("table", schema, table):
                create_sql = table_definition(connection, schema, table, flavour=flavour)
        except errors.DatabaseError:
            if selection.takes(schema, table):
                raise
            continue
        if notes is not None:
            notes += known.notes(f"{schema}.{table}", table)
        period = versioned.period_columns(known.periods[table]) if text(kind) == versioned.VERSIONED else ()
        transactional = text(engine).upper() in transactional_engines
        key, ends = tuple(known.keys[table]), tuple(column.name for column in period)
        columns = known.columns[table] or known.witness(table, flavour)
        found.append(
            Table(
                schema=schema,
                name=table,
                engine=text(engine),
                create_sql=create_sql,
                columns=(*columns, *period),
                key=versioned.keyed(key, ends, transactional=transactional) if ends else key,
                transactional=transactional,
                estimated_rows=int(rows or 0),
                estimated_bytes=int(size or 0),
                holds_rows=text(engine).upper() not in ROWS_ELSEWHERE and bool(columns),
                json_types=tuple(column.name for column in columns if column.data_type == "json"),
                history=ends,
                keys_disabled=table in known.disabled,
                computed=bool(columns) and not known.columns[table],
            )
        )
    return found


class _Listed:
    """Columns and keys of all tables of a database, by table."""

    def __init__(self, connection: Connection, schema: str, flavour: str) -> None:
        self.columns: dict[str, list[Column]] = defaultdict(list)
        self.periods: dict[str, list[tuple[str, str]]] = defaultdict(list)  # (name, data type) of declared row starts and ends
        self.keys: dict[str, list[str]] = defaultdict(list)
        self._defaultless: dict[str, list[str]] = defaultdict(list)
        self._unmeasured: dict[str, list[str]] = defaultdict(list)
        self._precise: dict[str, list[str]] = defaultdict(list)
        self._constant: dict[str, Column] = {}
        self.disabled: set[str] = set()
        for row in connection.rows(_COLUMNS, (schema,)):
            table, name, data_type, column_type, charset, collation, expression, bare, fixed, unmeasured, precise = row
            if not text(expression):  # neither generated, nor the row start or end of system versioning
                self.columns[text(table)].append(_column(name, data_type, column_type, charset, collation))
                if bare and flavour == "mariadb":
                    self._defaultless[text(table)].append(text(name))
                if unmeasured:
                    self._unmeasured[text(table)].append(text(name))
                if precise:
                    self._precise[text(table)].append(text(name))
            elif text(expression) in ("ROW START", "ROW END"):
                self.periods[text(table)].append((text(name), text(data_type).lower()))
            elif fixed or _CONSTANT.fullmatch(text(expression)):
                self._constant.setdefault(text(table), _column(name, data_type, column_type, charset, collation))
        for table, name, is_primary in connection.rows(_KEYS, (schema,)):
            if is_primary:
                self.keys[text(table)].append(text(name))
            else:
                self.disabled.add(text(table))

    def witness(self, table: str, flavour: str) -> list[Column]:
        """One column of a table that has only generated ones: it says how many rows there are. MariaDB takes rows that name it
        and computes it all the same; MySQL does not. None whose value another session may compute otherwise."""
        return [self._constant[table]] if flavour == "mariadb" and table in self._constant else []

    def notes(self, place: str, table: str) -> Iterator[str]:
        """What no statement can make again."""
        if self._defaultless[table]:
            yield _DEFAULTLESS.format(table=place, columns=", ".join(self._defaultless[table]))
        if self._unmeasured[table]:
            yield _UNMEASURED.format(table=place, columns=", ".join(self._unmeasured[table]))
        if self._precise[table]:
            yield _PRECISE.format(table=place, columns=", ".join(self._precise[table]))


@contextmanager
def reading(kind: str, schema: str, name: str) -> Iterator[None]:
    """Errors met meanwhile name the object, and say how to do without it."""
    try:
        yield
    except errors.DatabaseError as exc:
        without = leaving_out(schema, name if kind in ("table", "sequence", "view") else "")
        raise errors.DatabaseError(
            f"cannot read the definition of {kind} {schema}.{name}: {exc.message}",
            hint=f"mend or drop it, or leave it out with {without} (source.exclude)", number=exc.number,
        ) from exc


def _column(name: object, data_type: object, column_type: object, charset: object, collation: object) -> Column:
    # members of a binary ENUM may be bytes that are no text; nothing depends on this spelling of them
    shown = text(column_type).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return Column(text(name), text(data_type).lower(), shown, text(charset) or None, text(collation) or None)


def table_definition(connection: Connection, schema: str, name: str, *, flavour: str) -> str:
    """SHOW CREATE TABLE as the session's settings print it, made fit to give the same table again."""
    statement = f"SHOW CREATE TABLE {qualified(schema, name)}"
    printed = as_printed(connection, statement, connection.rows(statement)[0], flavour=flavour)
    found = table_text.creatable(text(printed[1]), flavour=flavour)
    if " PAGE_CHECKSUM=1" in found and "page_checksum" not in text(connection.value(_CREATE_OPTIONS, (schema, name))):
        return table_text.without_page_checksum(found)
    return found


def as_printed(connection: Connection, statement: str, row: tuple[Any, ...], *, flavour: str) -> tuple[Any, ...]:
    """`row`, which a SHOW CREATE gave, with the bytes that the server printed.

    MySQL prints a constant of an expression as the bytes of its own character set, and takes them for UTF-8 then: those that are
    none come as `?` to a session that wants UTF-8.
    """
    if flavour != "mysql" or "?" not in text(row[1]):
        return row
    before = connection.value("SELECT @@session.character_set_results")
    connection.execute("SET SESSION character_set_results = NULL")
    try:
        row = connection.rows(statement)[0]
    finally:
        connection.execute("SET SESSION character_set_results = %s", (before,))
    return row


def transactional_engines(connection: Connection) -> frozenset[str]:
    """Names, upper case, of the engines whose tables a snapshot covers."""
    rows = connection.rows("SELECT engine FROM information_schema.engines WHERE transactions = 'YES'")
    return frozenset(text(row[0]).upper() for row in rows)


def read_sequences_of(connection: Connection, schema: str) -> list[Definition]:
    """MariaDB's sequences: created as they were, then set to their next value.

    Values already cached in the source's memory count as used, as after a restart of the source.
    """
    names = [text(row[0]) for row in connection.rows(_TABLES, (schema,)) if text(row[1]) == "SEQUENCE"]
    found = []
    for name in names:
        with reading("sequence", schema, name):
            create = _sequence_definition(connection, schema, name)
            state = connection.rows(_SEQUENCE + qualified(schema, name))[0]
        found.append(Definition("sequence", schema, name, (create, *_set_next(name, state))))
    return found


def _sequence_definition(connection: Connection, schema: str, name: str) -> str:
    """SHOW CREATE SEQUENCE, which leaves two things out: ROW_FORMAT, and that the columns are without the usual comments where
    the sequence was made by CREATE TABLE."""
    as_table = text(connection.rows(f"SHOW CREATE TABLE {qualified(schema, name)}")[0][1])
    if " COMMENT '" not in as_table.partition("\n) ")[0]:
        return as_table
    create = text(connection.rows(f"SHOW CREATE SEQUENCE {qualified(schema, name)}")[0][1])
    row_format = _ROW_FORMAT.search(as_table.rpartition("\n) ")[2].split("'")[0])
    return create + row_format[0] if row_format else create


def _set_next(name: str, state: tuple[Any, ...]) -> Iterator[str]:
    following, least, greatest, _, increment, *_ = values = tuple(int(value) for value in state)
    last = greatest if increment >= 0 else least
    if least <= following <= greatest:
        yield f"ALTER SEQUENCE {identifier(name)} RESTART WITH {following}"
        if values[-1]:
            yield f"DO SETVAL({identifier(name)}, {following}, 0, {values[-1]})"
    elif following == last + (1 if increment >= 0 else -1):  # used up: the last value counts as taken
        yield f"DO SETVAL({identifier(name)}, {last}, 1, {values[-1]})"
    else:  # used up, and values beyond the last were reserved
        yield f"INSERT INTO {identifier(name)} VALUES ({', '.join(map(str, values))})"


def table_warnings(table: Table) -> Iterator[str]:
    """What a backup of this table does not keep, or keeps with a cost."""
    name, tail = f"table {table.schema}.{table.name}", table.create_sql[table.create_sql.rfind("\n)") :]
    if not table.columns:
        yield f"{name}: all its columns are generated; its rows hold nothing of their own, only the definition is kept"
    elif not table.holds_rows:
        yield f"{name}: its rows lie elsewhere (engine {table.engine}), only the definition is kept"
    elif not table.transactional:
        yield f"{name}: engine {table.engine} has no snapshots, its rows are copied under lock"
    if re.search(r"\bWITH SYSTEM VERSIONING\b", tail):
        yield from versioned.warnings(name, tail, is_kept=bool(table.history))
    for word in ("TABLESPACE", "DATA DIRECTORY", "INDEX DIRECTORY"):
        if re.search(rf"\b{word}[ =]", tail) and "TABLESPACE `innodb_" not in tail:
            yield f"{name}: names a {word}, which must exist on the target"
    yield from _hidden_members(table)


def _hidden_members(table: Table) -> Iterator[str]:
    """Columns whose members the server may not show as they are: it prints those of ENUM and SET in three-byte UTF-8 only."""
    for column in table.columns:
        if column.data_type in ("enum", "set") and column.charset in _FOUR_BYTES and "?" in column.column_type:
            yield (
                f"table {table.schema}.{table.name}: column {column.name}: servers show a character beyond U+FFFF in a member"
                " of ENUM or SET as '?', and so it comes back; rows keep members by number, ALTER TABLE gives the text again"
            )


def text(value: object) -> str:
    """A result value as str: some servers give information_schema's texts as bytes, or NULL."""
    if value is None:
        return ""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes | bytearray) else str(value)
