"""MySQL's general tablespaces: files of the server that tables of any database may lie in.

A set keeps those that its tables are in. A restore makes the ones that are not there, in files that the server names; one that is
there is taken as it is, for what it is made of shows nowhere in a table.

Source: MySQL manual, 'CREATE TABLESPACE Statement' and 'The INFORMATION_SCHEMA INNODB_TABLESPACES Table' (needs PROCESS).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from kpbackup import errors
from kpbackup.model.inventory import Definition, Table
from kpbackup.mysql.quoting import identifier, literal
from kpbackup.mysql.server import Connection

_IN = re.compile(r"\n\) /\*!50100 TABLESPACE `((?:[^`]|``)+)` \*/")
_OWN = ("innodb_system", "innodb_file_per_table", "innodb_temporary")
_READ = (
    "SELECT name, zip_page_size, autoextend_size, encryption FROM information_schema.innodb_tablespaces"
    " WHERE space_type = 'General' ORDER BY name"
)
_EXISTS = 1813


def used(tables: Iterable[Table]) -> dict[str, list[str]]:
    """General tablespace -> the tables in it, as schema.name."""
    found: dict[str, list[str]] = {}
    for table in tables:
        match = _IN.search(table.create_sql)
        name = match[1].replace("``", "`") if match else ""
        if name and name not in _OWN:
            found.setdefault(name, []).append(f"{table.schema}.{table.name}")
    return found


def read(connection: Connection, tables: Sequence[Table]) -> tuple[list[Definition], list[str]]:
    """The tablespaces of these tables, and a warning for each that the account may not see."""
    wanted = used(tables)
    if not wanted:
        return [], []
    try:
        rows = connection.rows(_READ)
    except errors.PrivilegeMissing:
        return [], [
            f"tablespace {name}: not kept, because the account lacks PROCESS; make it on the target before {', '.join(inside)}"
            for name, inside in sorted(wanted.items())
        ]
    return [_definition(*map(str, row)) for row in rows if str(row[0]) in wanted], []


def create(connection: Connection, kept: Iterable[Definition], tables: Iterable[Table]) -> None:
    """Makes those of the tablespaces that the tables are in and that are not there.

    Raises:
        DatabaseError, PrivilegeMissing: it cannot be made.
    """
    wanted = used(tables)
    for one in kept:
        for statement in one.statements if one.name in wanted else ():
            try:
                connection.execute(statement)
            except errors.PrivilegeMissing as exc:
                raise errors.PrivilegeMissing(f"cannot create tablespace {one.name}: {exc.message}", hint=exc.hint) from exc
            except errors.DatabaseError as exc:
                if exc.number != _EXISTS:
                    what = f"cannot create tablespace {one.name}, in which {wanted[one.name][0]} is: {exc.message}"
                    raise errors.DatabaseError(what, hint=exc.hint, number=exc.number) from exc


def _definition(name: str, page_bytes: str, step_bytes: str, encrypted: str) -> Definition:
    options = _options(int(page_bytes), int(step_bytes), encrypted)
    return Definition("tablespace", "", name, (" ".join([f"CREATE TABLESPACE {identifier(name)}", *options]),))


def _options(page_bytes: int, step_bytes: int, encrypted: str) -> Iterator[str]:
    if page_bytes:  # of compressed tables
        yield f"FILE_BLOCK_SIZE = {page_bytes}"
    if step_bytes:
        yield f"AUTOEXTEND_SIZE = {step_bytes}"
    if encrypted == "Y":
        yield f"ENCRYPTION = {literal(encrypted)}"
