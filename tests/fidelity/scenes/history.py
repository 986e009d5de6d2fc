"""System-versioned tables: what their rows were before, with the times at which they were."""

from __future__ import annotations

from tests.fidelity.scenes import Kind

DATABASES = ("history",)
_PERIOD = "s timestamp(6) GENERATED ALWAYS AS ROW START{0}, e timestamp(6) GENERATED ALWAYS AS ROW END{0}, PERIOD FOR SYSTEM_TIME (s, e)"


def statements(kind: Kind) -> list[str]:
    if not kind.mariadb:
        return []
    versioned = "WITH SYSTEM VERSIONING"
    tables = {
        "hidden": f"(id int PRIMARY KEY, v int, w varchar(9) WITHOUT SYSTEM VERSIONING, KEY (v)) {versioned}",
        "declared": f"(id int AUTO_INCREMENT PRIMARY KEY, v int, {_PERIOD.format('')}) {versioned} COMMENT='it\'\'s'",
        "declared_invisible": f"(id int PRIMARY KEY, v int, {_PERIOD.format(' INVISIBLE')}) {versioned}",
        "keyless": f"(id int, v int) {versioned}",
        "aria": f"(id int PRIMARY KEY, v int) ENGINE=Aria {versioned}",
        "by_column": "(id int PRIMARY KEY, v int WITH SYSTEM VERSIONING, w int)",
        "parts": f"(id int PRIMARY KEY, v int) {versioned} PARTITION BY SYSTEM_TIME (PARTITION p0 HISTORY, PARTITION pc CURRENT)",
    }
    found = ["CREATE DATABASE history", "USE history"]
    found += [f"CREATE TABLE {name} {text}" for name, text in tables.items()]
    found += [f"INSERT INTO {name} (id, v) VALUES (1,1),(2,2),(3,NULL)" for name in tables]
    found += [f"UPDATE {name} SET v = IFNULL(v, 0) + 10" for name in tables]
    found += [f"DELETE FROM {name} WHERE id = 2" for name in tables]
    found += [f"INSERT INTO {name} (id, v) VALUES (2,-2)" for name in tables]
    return found
