"""What an account may do, from its own SHOW GRANTS: privileges of the roles active in the session are in it.

One name for each privilege on both flavours, MySQL's old one: MariaDB's BINLOG MONITOR is read as REPLICATION CLIENT.
Column privileges and grants on single routines are ignored: they are never enough for a backup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from kpbackup.mysql.server import Connection

ALL = "ALL PRIVILEGES"

_SYNONYMS = {
    "BINLOG MONITOR": "REPLICATION CLIENT",
    "REPLICATION REPLICA": "REPLICATION SLAVE",
    "REPLICATION REPLICA ADMIN": "REPLICATION SLAVE ADMIN",
    "REPLICA MONITOR": "SLAVE MONITOR",
    "CREATE TABLES": "CREATE",
    "DELETE VERSIONING ROWS": "DELETE HISTORY",
    "ALL": ALL,
}
_NAME = r"(?:`(?:[^`]|``)*`|\"(?:[^\"]|\"\")*\"|\*)"
_ON = re.compile(rf"^(GRANT|REVOKE) (?P<what>.+?) ON (?:TABLE )?(?P<schema>{_NAME})\.(?P<table>{_NAME}) (?:TO|FROM) ", re.DOTALL)
_PROXY = re.compile(r"^GRANT PROXY ")


@dataclass(frozen=True)
class Privileges:
    """`everywhere` holds on *.*; `schemas` are (pattern, names) on a database, `tables` (schema, table, names);
    `revoked` are MySQL's partial revokes (schema, names). `account` is `user`@`host` as the server matched it."""

    account: str
    everywhere: frozenset[str]
    schemas: tuple[tuple[str, frozenset[str]], ...] = ()
    tables: tuple[tuple[str, str, frozenset[str]], ...] = ()
    revoked: tuple[tuple[str, frozenset[str]], ...] = ()

    def has(self, name: str) -> bool:
        """Whether the privilege is held on *.*."""
        return ALL in self.everywhere or canonical_name(name) in self.everywhere

    def has_any(self, *names: str) -> bool:
        return any(self.has(name) for name in names)

    def has_on(self, name: str, schema: str, table: str | None = None) -> bool:
        """Whether it is held on the whole database, or on the one table if named."""
        wanted = {canonical_name(name), ALL}
        taken = any(schema == revoked and wanted & names for revoked, names in self.revoked)
        if self.has(name) and not taken:
            return True
        if any(_matches(pattern, schema) and wanted & names for pattern, names in self.schemas):
            return True
        return table is not None and any((schema, table) == (s, t) and wanted & names for s, t, names in self.tables)


def canonical_name(name: str) -> str:
    """The one name used here for a privilege, upper case."""
    upper = " ".join(name.upper().split())
    return _SYNONYMS.get(upper, upper)


def read_privileges(connection: Connection) -> Privileges:
    """The privileges of the session's account and active roles."""
    grants = [str(row[0]) for row in connection.rows("SHOW GRANTS")]
    user, _, host = str(connection.value("SELECT CURRENT_USER()")).rpartition("@")
    return parse(grants, account=f"'{user}'@'{host}'")


def parse(grants: Iterable[str], *, account: str) -> Privileges:
    """The privileges in the lines of SHOW GRANTS."""
    everywhere: set[str] = set()
    schemas: list[tuple[str, frozenset[str]]] = []
    tables: list[tuple[str, str, frozenset[str]]] = []
    revoked: list[tuple[str, frozenset[str]]] = []
    for line in grants:
        found = None if _PROXY.match(line) else _ON.match(line)
        if found is None:
            continue  # a role granted, a default role, a proxy, a routine
        names = _names(found["what"])
        schema, table = _unquoted(found["schema"]), _unquoted(found["table"])
        if found[1] == "REVOKE":
            revoked.append((schema, names))
        elif found["schema"] == "*":
            everywhere |= names
        elif found["table"] == "*":
            schemas.append((schema, names))
        else:
            tables.append((schema, table, names))
    return Privileges(account, frozenset(everywhere), tuple(schemas), tuple(tables), tuple(revoked))


def _names(text: str) -> frozenset[str]:
    bare = re.sub(r"`(?:[^`]|``)*`", "x", text)  # column names may hold commas and parentheses
    parts = re.split(r",\s*(?![^(]*\))", bare)
    return frozenset(canonical_name(part) for part in parts if "(" not in part)


def _unquoted(name: str) -> str:
    if name == "*":
        return name
    return name[1:-1].replace(name[0] * 2, name[0])


def _matches(pattern: str, schema: str) -> bool:
    parts = re.findall(r"\\.|%|_|[^\\%_]+|\\$", pattern)
    regex = "".join(
        ".*" if p == "%" else "." if p == "_" else re.escape(p[1:] if p[0] == "\\" and len(p) > 1 else p) for p in parts
    )
    return re.fullmatch(regex, schema, re.DOTALL) is not None
