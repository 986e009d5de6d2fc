"""One judged fact about a server, and the GRANT that mends a missing privilege in the words of its flavour."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from kpbackup.mysql.facts import ServerFacts
from kpbackup.mysql.quoting import identifier

Severity = Literal["ok", "unknown", "warning", "error"]
MARIADB_ONLY_NAME = {"REPLICATION CLIENT": "BINLOG MONITOR"}


@dataclass(frozen=True)
class Finding:
    """One judged fact: what was found, why it matters, how to mend it ('' when ok). `unknown`: it could not be seen."""

    severity: Severity
    what: str
    why: str = ""
    mend: str = ""


def grant(facts: ServerFacts, names: Iterable[str], account: str, *, schema: str | None = None) -> str:
    """A GRANT statement with the privileges' names in the server's flavour, without doubles."""
    given = [MARIADB_ONLY_NAME.get(n, n) if facts.mariadb and facts.version >= (10, 5) else n for n in dict.fromkeys(names)]
    return f"GRANT {', '.join(given)} ON {identifier(schema) if schema else '*'}.* TO {account};"
