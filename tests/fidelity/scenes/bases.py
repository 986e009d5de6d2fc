"""Databases: character sets, collations, comments, empty ones; what they give to the tables in them."""

from __future__ import annotations

from tests.fidelity.scenes import Kind

DATABASES = ("base latin", "base plain", "base empty", "base utf16", "base other", "base commented", "base changed")


def statements(kind: Kind) -> list[str]:
    other = "utf8mb4_uca1400_swedish_ai_ci" if kind.mariadb else "utf8mb4_sv_0900_ai_ci"
    found = [
        "CREATE DATABASE `base latin` CHARACTER SET latin1 COLLATE latin1_german2_ci", "CREATE DATABASE `base plain`", "CREATE DATABASE `base empty` CHARACTER SET cp1251",
        "CREATE DATABASE `base utf16` CHARACTER SET utf16", f"CREATE DATABASE `base other` COLLATE {other}",
        "CREATE DATABASE `base commented`" + (" COMMENT 'it''s \\\\ \"commented\" \u20ac'" if kind.mariadb else ""),
        "CREATE DATABASE `base changed` CHARACTER SET utf8mb4",
    ]
    for name in ("base latin", "base plain", "base utf16", "base other", "base commented", "base changed"):
        found += [f"CREATE TABLE `{name}`.t (id int PRIMARY KEY, v varchar(20), e enum('\u00e9','b'), t text)",
                  f"INSERT INTO `{name}`.t VALUES (1,'\u00e9','\u00e9','\u00fc'),(2,NULL,NULL,NULL)",
                  f"CREATE VIEW `{name}`.v AS SELECT concat(v, 'x') AS y FROM `{name}`.t",
                  f"USE `{name}`", "CREATE FUNCTION f(x varchar(9)) RETURNS varchar(9) DETERMINISTIC RETURN concat(x, '\u00e9')"]
    found.append("ALTER DATABASE `base changed` CHARACTER SET latin2 COLLATE latin2_bin")
    return found if kind.mariadb else [*found, "ALTER DATABASE `base plain` READ ONLY = 0"]
