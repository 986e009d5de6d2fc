"""Everything a server holds beside rows, read as one Inventory.

Reading takes no locks and is not one moment: a backup reads it before and after its consistent point and compares
(`changed_tables`, `definitions.compare`), and stores the later one, whose sequences and AUTO_INCREMENT values are not
behind the rows. Nothing is kept between calls.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kpbackup import errors
from kpbackup.model.inventory import Definition, Inventory, Table
from kpbackup.model.selection import EVERYTHING, Selection
from kpbackup.mysql import accounts, schema_objects, schema_tables, table_text, tablespaces
from kpbackup.mysql.facts import ServerFacts
from kpbackup.mysql.quoting import identifier, literal
from kpbackup.mysql.schema_tables import text
from kpbackup.mysql.server import Connection

SYSTEM_DATABASES = frozenset(
    {"mysql", "sys", "information_schema", "performance_schema", "ndbinfo", "mysql_innodb_cluster_metadata"}
)
SETTINGS = (
    "version",
    "version_comment",
    "sql_mode",
    "lower_case_table_names",
    "character_set_server",
    "collation_server",
    "time_zone",
    "system_time_zone",
    "default_storage_engine",
    "innodb_page_size",
    "innodb_default_row_format",
    "innodb_strict_mode",
    "explicit_defaults_for_timestamp",
    "max_allowed_packet",
    "event_scheduler",
    "log_bin_trust_function_creators",
    "sql_require_primary_key",
    "default_authentication_plugin",
    "authentication_policy",
    "gtid_mode",
    "gtid_strict_mode",
    "gtid_domain_id",
    "character_set_collations",
    "foreign_key_checks",
    "auto_increment_increment",
    "auto_increment_offset",
    "ft_min_word_len",
    "innodb_ft_min_token_size",
    "partial_revokes",
    "default_table_encryption",
)
GIPK_SINCE = (8, 0, 30)  # MySQL: generated invisible primary keys


def read_inventory(
    connection: Connection,
    facts: ServerFacts,
    *,
    databases: tuple[str, ...] = (),
    exclude_accounts: tuple[str, ...] = (),
    selection: Selection = EVERYTHING,
) -> Inventory:
    """All definitions of the named databases (() means all but the system's) and all accounts; no chunks.

    What `selection` leaves out may be missing, and is where it cannot be read.

    Raises:
        SettingsError: a named database does not exist. PrivilegeMissing, DatabaseError.
    """
    with reading_session(connection, facts):
        names = database_names(connection, databases)
        notes: list[str] = []
        tables = _tables(connection, facts, names, selection, notes)
        sequences: list[Definition] = []
        for schema in names if facts.mariadb else ():
            _use(connection, schema)
            sequences += schema_tables.read_sequences_of(connection, schema)
        after_rows = _after_rows(connection, facts, names, selection)
        spaces, unseen = ([], []) if facts.mariadb else tablespaces.read(connection, tables)
        who, warnings = accounts.read_accounts(connection, facts, exclude=exclude_accounts)
        return Inventory(
            settings=_settings(connection, facts),
            databases=tuple(_database(connection, name) for name in names),
            tables=tuple(tables),
            sequences=tuple(sequences),
            after_rows=tuple(after_rows),
            accounts=tuple(who),
            warnings=(*notes, *unseen, *_warnings(connection, tables, after_rows), *warnings),
            tablespaces=tuple(spaces),
        )


def read_tables(connection: Connection, facts: ServerFacts, *, databases: tuple[str, ...] = ()) -> tuple[Table, ...]:
    """The base tables alone, of all databases unless some are named."""
    with reading_session(connection, facts):
        return tuple(_tables(connection, facts, database_names(connection, databases)))


def changed_tables(before: Sequence[Table], after: Sequence[Table]) -> list[tuple[str, str]]:
    """(schema, table) of those created, dropped or altered between two readings, sorted; AUTO_INCREMENT does not count."""
    old, new = (
        {(t.schema, t.name): (comparable(t.create_sql), t.columns, t.key) for t in side} for side in (before, after)
    )
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def comparable(create_sql: str) -> str:
    """The definition for comparing: without the next AUTO_INCREMENT value, without CHARACTER SET where COLLATE follows, and
    as every version of MariaDB would print it.

    MySQL remembers whether a column's character set was written out; after any reload it was. The collation says it all.
    """
    head, value, tail = split_auto_increment(create_sql)
    shown = head + tail if value else create_sql
    return table_text.in_one_order(re.sub(r" CHARACTER SET \w+( COLLATE \w+)", r"\1", shown))


def split_auto_increment(create_sql: str) -> tuple[str, str, str]:
    """(text before, value or '', text after) of the table option AUTO_INCREMENT=n.

    It stands before any quoted option, so the search ends at the first quote.
    """
    start = create_sql.rfind("\n) ")
    options = create_sql[start:] if start >= 0 else ""
    unquoted = options.split("'")[0]
    at = unquoted.find(" AUTO_INCREMENT=")
    if at < 0:
        return create_sql, "", ""
    value = unquoted[at + len(" AUTO_INCREMENT=") :].split()[0]
    end = at + len(" AUTO_INCREMENT=") + len(value)
    return create_sql[: start + at], value, options[end:]


def database_names(connection: Connection, wanted: tuple[str, ...] = ()) -> list[str]:
    """The databases to read, sorted.

    Raises:
        SettingsError: a wanted one does not exist or cannot be seen.
    """
    present = [
        text(row[0]) for row in connection.rows("SELECT schema_name FROM information_schema.schemata ORDER BY schema_name")
    ]
    if not wanted:
        return [name for name in present if name.lower() not in SYSTEM_DATABASES and not name.startswith("#mysql50#")]
    missing = sorted(set(wanted) - set(present))
    if missing:
        raise errors.SettingsError(
            f"cannot back up {', '.join(missing)} on {connection.endpoint.name}: no such database, or no right to see it",
            hint="check source.databases and the grants of the account",
        )
    return sorted(set(wanted))


@contextmanager
def reading_session(connection: Connection, facts: ServerFacts) -> Iterator[None]:
    """A session in which SHOW CREATE prints in one known way; sql_mode is put back after."""
    before = text(connection.value("SELECT @@session.sql_mode"))
    connection.execute("SET NAMES utf8mb4")
    connection.execute("SET SESSION sql_mode = '', time_zone = '+00:00', sql_quote_show_create = 1")
    if facts.mariadb:
        connection.execute("SET SESSION max_statement_time = 0")
    else:
        connection.execute("SET SESSION max_execution_time = 0, print_identified_with_as_hex = 1")
        if facts.version >= GIPK_SINCE:
            connection.execute("SET SESSION show_gipk_in_create_table_and_information_schema = 1")
    try:
        yield
    finally:
        connection.execute(f"SET SESSION sql_mode = {literal(before)}")


def _tables(
    connection: Connection, facts: ServerFacts, names: list[str], selection: Selection = EVERYTHING,
    notes: list[str] | None = None,
) -> list[Table]:
    engines = schema_tables.transactional_engines(connection)
    found: list[Table] = []
    for schema in names:
        _use(connection, schema)
        found += schema_tables.read_tables_of(
            connection, schema, engines, flavour=facts.flavour, selection=selection, notes=notes
        )
    return found


def _after_rows(
    connection: Connection, facts: ServerFacts, names: list[str], selection: Selection
) -> list[Definition]:
    """Routines first (views may call them; they check nothing when created), then views, triggers, events."""
    routines: list[Definition] = []
    views: list[Definition] = []
    active: list[Definition] = []
    for schema in names:
        _use(connection, schema)
        routines += schema_objects.read_routines_of(connection, facts, schema)
        views += schema_objects.read_views_of(connection, schema, selection, flavour=facts.flavour)
        active += schema_objects.read_triggers_of(connection, schema)
        active += schema_objects.read_events_of(connection, schema)
    return [*routines, *schema_objects.in_dependency_order(views), *active]


def _database(connection: Connection, name: str) -> Definition:
    create = text(connection.rows(f"SHOW CREATE DATABASE IF NOT EXISTS {identifier(name)}")[0][1])
    row = connection.rows(
        "SELECT default_character_set_name, default_collation_name FROM information_schema.schemata WHERE schema_name = %s",
        (name,),
    )[0]
    # the second statement is for a target where an empty database of that name is there already
    again = f"ALTER DATABASE {identifier(name)} CHARACTER SET {text(row[0])} COLLATE {text(row[1])}"
    return Definition("database", name, name, (create, again), {"collation_database": text(row[1])})


def _settings(connection: Connection, facts: ServerFacts) -> dict[str, str]:
    variables = {text(name).lower(): text(value) for name, value in connection.rows("SHOW GLOBAL VARIABLES")}
    found = {"flavour": facts.flavour, **{name: variables[name] for name in SETTINGS if name in variables}}
    plugins = connection.rows(
        "SELECT plugin_name FROM information_schema.plugins WHERE plugin_library IS NOT NULL ORDER BY plugin_name"
    )
    return {**found, "plugins": ",".join(text(row[0]) for row in plugins)}


def _warnings(connection: Connection, tables: list[Table], after_rows: list[Definition]) -> Iterator[str]:
    for table in tables:
        yield from schema_tables.table_warnings(table)
    for view in after_rows:
        if view.optional:
            yield f"view {view.schema}.{view.name}: broken on the source: it names something missing, or its definer lacks rights"
    try:
        loadable = connection.rows("SELECT name, dl FROM mysql.func ORDER BY name")
    except errors.PrivilegeMissing:
        return
    for name, library in loadable:
        yield f"loadable function {text(name)}: needs {text(library)} on the target and CREATE FUNCTION by hand"


def _use(connection: Connection, schema: str) -> None:
    connection.execute(f"USE {identifier(schema)}")
