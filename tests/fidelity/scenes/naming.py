"""Names that break programs: quotes, slashes, spaces, percent signs, reserved words, letters of the world, the longest ones."""

from __future__ import annotations

from tests.fidelity.scenes import Kind

_ODD = (
    "back`tick", "dot.in.name", 'double"quote', "single'quote", "slash/and\\back", "per%cent%s", "semi;colon", "#hash", "--dash", "/*c*/",
    " leading", "new\nline", "tab\there", "select", "\u00dcml\u00e4ut", "\u540d\u524d", "@at", "$dollar", "a b", "1", "1e5", "NULL", "`", "''", "?",
    "{brace}", "CON", "x" * 64, "\u20ac" * 45, "CamelCase", "camelcase", "%", "_", "\\", "\\'", "mysql", "..", ".", "\x7f", "\u00a0",
)
_DATABASES = ("back`tick", "dot.base", "per%cent", "sl/ash\\", "sp ace", "qu'o\"te", "\u540d\u524d", "select", "y" * 64, "_", "CamelBase",
              "camelbase", "#mysql", "-")
DATABASES = ("naming", *_DATABASES)


def q(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def statements(kind: Kind) -> list[str]:
    found = ["CREATE DATABASE naming", "USE naming"]
    for number, name in enumerate(_ODD):
        other = _ODD[(number + 7) % len(_ODD)]
        third = _ODD[(number + 11) % len(_ODD)]
        found += [
            f"CREATE TABLE {q(name)} ({q(name)} int, {q(other)} varchar(20) DEFAULT 'x', {q(third)} int, PRIMARY KEY ({q(name)}), KEY {q(other)} ({q(other)}),"
            f" UNIQUE KEY {q(third)} ({q(third)}))",
            f"INSERT INTO {q(name)} VALUES ({number}, {_text(name)}, NULL), (-{number + 1}, '', 7)",
        ]
    # a name may end in a space on neither server; columns and keys may hold the rest
    for name in _ODD[:30]:
        found.append(f"CREATE VIEW {q(f'v {name}'[:64])} AS SELECT {q(name)} AS {q(f'as {name}'[:64])} FROM {q(name)}")
        found.append(f"CREATE TRIGGER {q(f't {name}'[:64])} BEFORE UPDATE ON {q(name)} FOR EACH ROW SET NEW.{q(name)} = OLD.{q(name)}")
        found.append(f"CREATE PROCEDURE {q(f'p {name}'[:64])}({q(f'in {name}'[:64])} int) SELECT {_text(name)}")
        found.append(f"CREATE FUNCTION {q(f'f {name}'[:64])}() RETURNS varchar(80) DETERMINISTIC RETURN {_text(name)}")
        found.append(f"CREATE EVENT {q(f'e {name}'[:64])} ON SCHEDULE EVERY 1 DAY STARTS '2035-01-01' DISABLE DO SELECT {_text(name)}")
    # no backtick in the names of a foreign key: MariaDB before 10.11.19 prints them unescaped, so no SHOW CREATE gives it back
    found += [
        "CREATE TABLE `child of odd` (id int PRIMARY KEY, a int, b int,"
        f" CONSTRAINT {q('fk %s x')} FOREIGN KEY (a) REFERENCES {q('per%cent%s')} ({q('per%cent%s')}),"
        f" CONSTRAINT {q('ch%ck')} CHECK (b <> 5)) COMMENT='%s `''\\n\\\\ \\0 \u20ac'",
        "CREATE TABLE partitioned (id int) PARTITION BY LIST (id) (PARTITION `p.1/x%` VALUES IN (1) COMMENT = 'it''s', PARTITION `sel``ect` VALUES IN (2),"
        " PARTITION `\u00dc` VALUES IN (3))",
        "INSERT INTO partitioned VALUES (1),(2),(3)",
    ]
    for number, name in enumerate(_DATABASES):
        found += [f"CREATE DATABASE {q(name)}", f"CREATE TABLE {q(name)}.{q(name)} (id int PRIMARY KEY, {q(name)} text)",
                  f"INSERT INTO {q(name)}.{q(name)} VALUES ({number}, {_text(name)})",
                  f"CREATE VIEW {q(name)}.v AS SELECT * FROM {q(name)}.{q(name)}",
                  f"CREATE FUNCTION {q(name)}.f() RETURNS int DETERMINISTIC RETURN {number}"]
    if kind.mariadb:
        found += [f"CREATE SEQUENCE naming.{q(f's {name}'[:64])}" for name in _ODD[:12]]
    return found


def _text(name: str) -> str:
    return "'" + name.replace("\\", "\\\\").replace("'", "''") + "'"
