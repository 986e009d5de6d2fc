"""An Inventory as plain SQL scripts: what remains readable, and loadable, when kpbackup itself is gone.

The scripts are for the database's own client, run with `--comments --binary-mode` (without the first it strips comments
out of routines). Limit: an object whose text is not plain ASCII is made with character_set_client utf8mb4 instead of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kpbackup.model.inventory import Definition, Inventory
from kpbackup.mysql.definitions import BASE_SESSION, UTF8, definition_of
from kpbackup.mysql.quoting import identifier, literal

BEFORE_ROWS = "1-before-rows.sql"
AFTER_ROWS = "2-after-rows.sql"
ACCOUNTS = "3-accounts.sql"
DELIMITERS = (";;", "$$", "//", "~~", "%%")


def definitions_text(inventory: Inventory) -> dict[str, str]:
    """Script name -> text, in the order in which to run them; rows are loaded between the first and the second."""
    collations = {d.name: d.session.get("collation_database", "") for d in inventory.databases}
    filled = {(chunk.schema, chunk.table) for chunk in inventory.chunks if chunk.rows}
    tables = (definition_of(table, has_rows=(table.schema, table.name) in filled) for table in inventory.tables)
    before = (*inventory.databases, *inventory.tablespaces, *inventory.sequences, *tables)
    return {
        BEFORE_ROWS: _script("databases, sequences and tables", _plain(before)),
        AFTER_ROWS: _script("routines, views, triggers and events", _in_own_session(inventory.after_rows, collations)),
        ACCOUNTS: _script("users, roles and grants", _accounts(inventory.accounts)),
    }


def _script(content: str, lines: Iterable[str]) -> str:
    head = [
        f"-- kpbackup definitions: {content}",
        "SET NAMES utf8mb4;",
        "SET SESSION " + ", ".join(f"{name} = {value}" for name, value in BASE_SESSION.items()) + ";",
        "",
    ]
    return "\n".join([*head, *lines, ""])


def _plain(definitions: Iterable[Definition]) -> Iterator[str]:
    schema = ""
    for definition in definitions:
        if definition.kind != "database" and definition.schema != schema:
            schema = definition.schema
            yield f"USE {identifier(schema)};"
        own_mode = definition.session.get("sql_mode", "")
        if own_mode:
            yield f"SET SESSION sql_mode = {literal(own_mode)};"
        for statement in definition.statements:
            yield f"{statement};\n"
        if own_mode:
            yield f"SET SESSION sql_mode = {BASE_SESSION['sql_mode']};"


def _in_own_session(definitions: Iterable[Definition], collations: dict[str, str]) -> Iterator[str]:
    for definition in definitions:
        if not definition.statements:
            yield f"-- {definition.kind} {_comment(definition)}: broken on the source, its text could not be read"
            continue
        if definition.optional:
            why = "broken on the source, or in need of what is left out: expect an error"
            yield f"-- {definition.kind} {_comment(definition)}: {why}"
        usual, own = collations.get(definition.schema, ""), definition.session.get("collation_database", "")
        yield f"USE {identifier(definition.schema)};"
        if own not in ("", usual):
            yield f"ALTER DATABASE {identifier(definition.schema)} COLLATE {own};"
        yield f"SET SESSION {_session(definition)};"
        yield from _delimited(definition.statements)
        yield "SET NAMES utf8mb4;"
        if own not in ("", usual):
            yield f"ALTER DATABASE {identifier(definition.schema)} COLLATE {usual};"
        yield ""


def _comment(definition: Definition) -> str:
    return f"{definition.schema}.{definition.name}".replace("\n", " ")


def _session(definition: Definition) -> str:
    given = definition.session
    own = given.get("character_set_client", "utf8mb4")
    client = own if own in UTF8 or all(s.isascii() for s in definition.statements) else "utf8mb4"
    parts = [
        f"sql_mode = {literal(given['sql_mode']) if 'sql_mode' in given else BASE_SESSION['sql_mode']}",
        f"time_zone = {literal(given.get('time_zone', '+00:00'))}",
        f"character_set_client = {client}",
    ]
    if "collation_connection" in given:
        parts.append(f"collation_connection = {given['collation_connection']}")
    return ", ".join(parts)


def _delimited(statements: Iterable[str]) -> Iterator[str]:
    for statement in statements:
        mark = next((one for one in DELIMITERS if one not in statement), "")
        number = 0
        while not mark:
            mark = f"end{number}" if f"end{number}" not in statement else ""
            number += 1
        yield f"DELIMITER {mark}\n{statement}{mark}\nDELIMITER ;"


def _accounts(definitions: Iterable[Definition]) -> Iterator[str]:
    for definition in definitions:
        for statement in definition.statements:
            again = statement
            for verb in ("CREATE USER ", "CREATE ROLE "):
                if statement.startswith(verb):
                    again = f"{verb}IF NOT EXISTS {statement[len(verb) :]}"
            yield f"{again};"
