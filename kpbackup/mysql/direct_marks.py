"""What the objects of a statement are on a server, as marks that can be compared before and after it: `direct_intent` decides.

A mark is '' for what is not there, else a hash of the definition; of an account, of its definition and grants. Where the
definition alone cannot tell (an exchange of partitions, tables that swap their names) InnoDB's numbers of the tables follow it,
because they go with the rows: `hash:18,19`. Of a CREATE TABLE ... SELECT it is what is in its table: EMPTY or ROWS, or OTHER
where rows are in no transaction.

Counters (AUTO_INCREMENT) are no part of a definition here: a crash may move them. Limits: without the right PROCESS, or for
tables whose names are not of letters, digits and _ alone, there are no numbers. MariaDB changes its account tables one by one:
after a restart of the server nothing is said about accounts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

from kpbackup import errors
from kpbackup.mysql import schema, server, statements
from kpbackup.mysql.direct_intent import ACCOUNTS, EMPTY, OF_SCHEMAS, ROWS, SHOWN, Intent
from kpbackup.mysql.quoting import identifier, qualified

OTHER = "other"  # rows that are in no transaction

_SYSTEM = "('mysql', 'sys', 'information_schema', 'performance_schema')"
_STORED = (  # what is not shown by SHOW CREATE TABLE, in all databases: name and definition
    "SELECT 'r', routine_schema, routine_name, routine_type, routine_definition, sql_data_access, security_type, routine_comment,"
    " definer, dtd_identifier FROM information_schema.routines WHERE routine_schema NOT IN {system} ORDER BY 2, 3, 4",
    "SELECT 't', trigger_schema, trigger_name, event_object_table, action_statement, action_timing, event_manipulation, definer"
    " FROM information_schema.triggers WHERE trigger_schema NOT IN {system} ORDER BY 2, 3",
    "SELECT 'e', event_schema, event_name, event_definition, execute_at, interval_value, interval_field, starts, ends, status,"
    " on_completion, event_comment, definer FROM information_schema.events WHERE event_schema NOT IN {system} ORDER BY 2, 3",
)
_NOT_THERE = frozenset({1146, 1049, 1347})  # no such table, database; not a view
_UNSHOWN = frozenset({1133, 1141})  # an account by host name on a server with skip_name_resolve
_PLAIN = re.compile(r"[A-Za-z0-9_]+")
_NAMED = re.compile(r"`((?:[^`]|``)*)`(?:@`((?:[^`]|``)*)`)?")


def marks(connection: server.Connection, intent: Intent, names: tuple[statements.Name, ...]) -> dict[str, str]:
    """JSON of a name -> its mark; nothing where nothing can be said."""
    noun = intent.verb.partition(" ")[2]
    connection.execute("SET SESSION sql_mode='', sql_quote_show_create=1, NAMES utf8mb4")
    if intent.verb in ACCOUNTS:
        return _accounts(connection, intent, names)
    if noun in OF_SCHEMAS:
        return {"": _hash(str([connection.rows(query.format(system=_SYSTEM)) for query in _STORED]))}
    if noun == "DATABASE":
        return {_key(one): _shown(connection, f"SHOW CREATE DATABASE {identifier(one[0])}") for one in names}
    if intent.has_rows:
        return {_key(one): _filled(connection, one) for one in names}
    if noun in SHOWN:
        found = {_key(one): _shown(connection, f"SHOW CREATE TABLE {qualified(*one)}") for one in names}
        was_numbered = not intent.before or any(":" in mark for mark in intent.before.values())
        return _numbered(connection, found) if intent.is_of_rows and was_numbered else found
    return {}


def names_of(before: Mapping[str, str]) -> tuple[statements.Name, ...]:
    """The names that were marked."""
    return tuple((one[0], one[1]) for one in (json.loads(key) for key in before if key))


def moment(connection: server.Connection) -> int:
    """The server's clock."""
    return int(connection.value("SELECT UNIX_TIMESTAMP()") or 0)


def _key(name: statements.Name) -> str:
    return json.dumps(list(name))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _shown(connection: server.Connection, statement: str) -> str:
    try:
        row = connection.row(statement)
    except errors.DatabaseError as exc:
        if exc.number in _NOT_THERE:
            return ""
        raise
    text = str(row[1]) if row is not None else ""
    before, _, after = schema.split_auto_increment(text)
    return _hash(before + after)


def _numbered(connection: server.Connection, found: dict[str, str]) -> dict[str, str]:
    """The marks with the numbers of what InnoDB has of them."""
    view = "innodb_sys_tables" if _is_mariadb(connection) else "innodb_tables"
    sql = (
        f"SELECT name, table_id FROM information_schema.{view}"
        " WHERE CASE @@lower_case_table_names WHEN 0 THEN %s ELSE LOWER(%s) END = SUBSTRING_INDEX(name, '#', 1) ORDER BY name"
    )
    numbered = {}
    for key, mark in found.items():
        parts = json.loads(key)
        name = "/".join(parts)
        rows: list[tuple[object, ...]] = []
        if mark and all(_PLAIN.fullmatch(part) for part in parts):
            try:
                rows = connection.rows(sql, (name, name))
            except (errors.PrivilegeMissing, errors.DatabaseError):
                rows = []
        numbers = ",".join(str(row[1]) for row in rows)
        numbered[key] = f"{mark}:{numbers}" if numbers else mark
    return numbered


def _filled(connection: server.Connection, name: statements.Name) -> str:
    sql = (
        "SELECT transactions FROM information_schema.tables JOIN information_schema.engines USING (engine)"
        " WHERE table_schema = %s AND table_name = %s"
    )
    keeps = connection.row(sql, name)
    if keeps is None:
        return ""
    if keeps[0] != "YES":
        return OTHER
    return EMPTY if connection.row(f"SELECT 1 FROM {qualified(*name)} LIMIT 1") is None else ROWS


def _accounts(connection: server.Connection, intent: Intent, names: tuple[statements.Name, ...]) -> dict[str, str]:
    mariadb = _is_mariadb(connection)
    if mariadb and intent.at and _started(connection) >= intent.at - 1:
        return {}
    try:
        return {_key(one): "".join(_account(connection, spelled, mariadb=mariadb) for spelled in one if spelled) for one in names}
    except errors.PrivilegeMissing:
        return {}


def _started(connection: server.Connection) -> int:
    """When the server was started, by its own clock."""
    row = connection.row("SHOW GLOBAL STATUS LIKE 'Uptime'")
    return moment(connection) - int(row[1] if row is not None else 0)


def _account(connection: server.Connection, spelled: str, *, mariadb: bool) -> str:
    parts = _NAMED.fullmatch(spelled)
    if parts is None:
        return ""
    user, host = (part.replace("``", "`") for part in (parts[1], parts[2] or ""))
    if connection.row("SELECT 1 FROM mysql.user WHERE user = %s AND host = %s", (user, host)) is None:
        return ""
    is_role = mariadb and parts[2] is None
    shown = [f"SHOW GRANTS FOR {spelled}", *(() if is_role else (f"SHOW CREATE USER {spelled}",))]
    try:
        return _hash(str([connection.rows(statement) for statement in shown]))
    except errors.DatabaseError as exc:
        if exc.number in _UNSHOWN:
            return _hash("there")
        raise


def _is_mariadb(connection: server.Connection) -> bool:
    return "mariadb" in str(connection.value("SELECT VERSION()")).lower()
