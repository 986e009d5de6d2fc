"""The scenes of the integration tests: tables of every type, objects of every kind."""

from __future__ import annotations

from tests.fidelity.scenes import Kind
from tests.integration import edge_tables, object_zoo

DATABASES = (*object_zoo.DATABASES, edge_tables.SCHEMA)


def statements(kind: Kind) -> list[str]:
    own = object_zoo.MARIADB if kind.mariadb else object_zoo.MYSQL
    zoo = [one for one in own if "SYSTEM VERSIONING" not in one and "app`@`" not in one and "o\\'dd" not in one and "o'dd" not in one]
    return [*object_zoo.COMMON, *zoo, *edge_tables.statements(kind.flavour)]
