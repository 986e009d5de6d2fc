"""What a restore must bring back, as SQL: one module a topic, each with the databases it fills.

`statements(kind)` runs in one session of root that begins with SET NAMES utf8mb4, time zone UTC and sql_mode ''. What only one
server knows is in a branch on the kind.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

WHOLE = os.environ.get("KPBACKUP_TEST_FIDELITY") == "whole"  # everything everywhere; `make fidelity` asks for it


@dataclass(frozen=True)
class Kind:
    """One of the servers: the fixture's name, flavour, and version."""

    name: str
    flavour: str
    version: tuple[int, int]

    @property
    def mariadb(self) -> bool:
        return self.flavour == "mariadb"

    @property
    def has_vectors(self) -> bool:
        return not self.mariadb or self.version >= (11, 7)


MARIADB_10 = Kind("mariadb", "mariadb", (10, 11))
MARIADB_11 = Kind("mariadb118", "mariadb", (11, 8))
MYSQL_9 = Kind("mysql97", "mysql", (9, 7))
KINDS = (MARIADB_10, MARIADB_11, MYSQL_9)
