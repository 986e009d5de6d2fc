"""What a server holds, in small comparable facts, read by SQL that shares no code with kpbackup.

Idea: a truth is a flat mapping from a name such as `kubepolaris.users.email hash` to text, so that a comparison is a loop and
every difference names itself. For each table: the number of rows, CHECKSUM TABLE, next AUTO_INCREMENT, for each column the sum of
CRC-32 over its exact values, and the sum of SHA-2 over whole rows, which also notices values that changed places. Sums do not
depend on the order of rows. Beside them the text of every definition and the grants.

Limits: the server must be quiet while it is read. Times at which an object was made are no part of the truth. Accounts are
those named by the caller. CHECKSUM TABLE is left out where a column is generated. Row-format details that no query can see
are not compared.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pymysql

Truth = dict[str, str]

_SYSTEM = "('mysql', 'information_schema', 'performance_schema', 'sys')"
_BYTES = {
    "char", "varchar", "tinytext", "text", "mediumtext", "longtext",
    "binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob",
}
_GENERATED = (
    "SELECT 1 FROM information_schema.columns WHERE table_schema = %s AND table_name = %s AND generation_expression IS NOT NULL"
)
_TIMES_OF_MAKING = {"Created", "Last_altered"}
_COUNTER = re.compile(r" AUTO_INCREMENT=(\d+)")
_COLUMN_LIST = re.compile(r"\((`[^()]*`)\)")  # of a grant; the server gives the columns in any order
_SHOWN = {"TRIGGER": ("triggers", "trigger"), "EVENT": ("events", "event")}


def connect(port: int, *, user: str = "root", password: str = "") -> pymysql.Connection[Any]:
    """The demo's own session with a server on this machine."""
    return pymysql.connect(host="127.0.0.1", port=port, user=user, password=password, charset="utf8mb4", autocommit=True)


def read(connection: pymysql.Connection[Any], *, accounts: Sequence[str]) -> Truth:
    """Everything in all databases but the system's own, and the definitions and grants of the named accounts."""
    facts: Truth = {}
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION time_zone = '+00:00', sql_mode = '', sql_quote_show_create = 1, NAMES utf8mb4")
        for schema in _column(cursor, f"SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN {_SYSTEM}"):
            facts[f"{schema} definition"] = _shown(cursor, f"SHOW CREATE DATABASE {_quoted(schema)}")
            facts.update(_tables(cursor, schema))
            facts.update(_definitions(cursor, schema))
        for account in accounts:
            if account.count("@"):
                facts[f"account {account}"] = _shown(cursor, f"SHOW CREATE USER {account}")
            grants = _column(cursor, f"SHOW GRANTS FOR {account}")
            facts[f"grants of {account}"] = "\n".join(sorted(_COLUMN_LIST.sub(_in_order, line) for line in grants))
    return facts


def differences(truth: Truth, found: Truth) -> list[str]:
    """One line for each fact that is missing, too many or other; none when all agree."""
    lines = []
    for name in sorted(truth.keys() | found.keys()):
        expected, actual = truth.get(name), found.get(name)
        if expected != actual:
            lines.append(f"{name}: expected {_short(expected)}, found {_short(actual)}")
    return lines


def rows_in(truth: Truth) -> int:
    """All rows of all tables."""
    return sum(int(value) for name, value in truth.items() if name.endswith(" rows"))


def dump(program: str, socket: Path, database: str, target: Path) -> None:
    """Writes what `mariadb-dump` says of a database, for a comparison of text; without the time of day."""
    with target.open("wb") as output:
        subprocess.run(
            [
                program, "--no-defaults", f"--socket={socket}", "--user=root", "--skip-dump-date", "--routines", "--events",
                "--triggers", "--hex-blob", "--order-by-primary", "--skip-extended-insert", "--databases", database,
            ],
            stdin=subprocess.DEVNULL, stdout=output, check=True,
        )


def first_difference(left: Path, right: Path) -> str | None:
    """The first line in which two dumps differ, or None."""
    with left.open("rb") as one, right.open("rb") as other:
        for number, first in enumerate(one, start=1):
            second = other.readline()
            if first != second:
                expected, actual = (_short(line.decode(errors="replace")) for line in (first, second))
                return f"line {number} of the dump: expected {expected}, found {actual}"
        return "the dump is longer than expected" if other.readline() else None


def _tables(cursor: pymysql.cursors.Cursor, schema: str) -> Iterator[tuple[str, str]]:
    kinds = "SELECT table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE' AND table_schema = %s"
    for table in _column(cursor, kinds, schema):
        name, place = f"{schema}.{table}", f"{_quoted(schema)}.{_quoted(table)}"
        definition = _shown(cursor, f"SHOW CREATE TABLE {place}")
        counter = _COUNTER.search(definition)
        yield f"{name} definition", _COUNTER.sub("", definition)
        yield f"{name} next AUTO_INCREMENT", counter.group(1) if counter else "-"
        if not _rows(cursor, _GENERATED, schema, table):  # with one, the same rows get another checksum after FLUSH TABLES
            yield f"{name} checksum", str(_rows(cursor, f"CHECKSUM TABLE {place}")[0][1])
        yield from _values(cursor, name, place, _columns(cursor, schema, table))


def _columns(cursor: pymysql.cursors.Cursor, schema: str, table: str) -> list[tuple[str, str]]:
    query = (
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = %s AND table_name = %s"
        " ORDER BY ordinal_position"
    )
    return [(str(name), str(kind)) for name, kind in _rows(cursor, query, schema, table)]


def _values(cursor: pymysql.cursors.Cursor, name: str, place: str, columns: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    exact = [_exact(_quoted(column), kind) for column, kind in columns]
    sums = [f"SUM(CRC32({text}))" for text in exact]
    row = f"SUM(CAST(CONV(LEFT(SHA2(CONCAT_WS(',', {', '.join(exact)}), 256), 15), 16, 10) AS UNSIGNED))"
    count, *hashes = _rows(cursor, f"SELECT COUNT(*), {', '.join([*sums, row])} FROM {place}")[0]
    yield f"{name} rows", str(count)
    labels = [*(f"{name}.{column} hash" for column, _ in columns), f"{name} whole-row hash"]
    yield from zip(labels, map(str, hashes), strict=True)


def _exact(column: str, kind: str) -> str:
    """The column's exact value as text; NULL and '' stay apart."""
    if kind in _BYTES:
        text = f"HEX({column})"
    elif kind in ("float", "double"):  # as FLOAT the text would be rounded
        text = f"CONCAT(CAST({column} AS DOUBLE))"
    elif kind in ("enum", "set", "bit"):  # the text of index 0 is that of a member ''
        text = f"CONCAT({column} + 0)"
    else:
        text = f"CONCAT({column})"
    return f"COALESCE(CONCAT('=', {text}), 'NULL')"


def _definitions(cursor: pymysql.cursors.Cursor, schema: str) -> Iterator[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    views = "SELECT table_name FROM information_schema.tables WHERE table_type = 'VIEW' AND table_schema = %s"
    found += [("VIEW", name) for name in _column(cursor, views, schema)]
    for kind, (listing, prefix) in _SHOWN.items():
        query = f"SELECT {prefix}_name FROM information_schema.{listing} WHERE {prefix}_schema = %s"
        found += [(kind, name) for name in _column(cursor, query, schema)]
    routines = "SELECT routine_type, routine_name FROM information_schema.routines WHERE routine_schema = %s"
    found += [(str(kind), str(name)) for kind, name in _rows(cursor, routines, schema)]
    for kind, name in found:
        yield f"{kind.lower()} {schema}.{name}", _shown(cursor, f"SHOW CREATE {kind} {_quoted(schema)}.{_quoted(name)}")


def _shown(cursor: pymysql.cursors.Cursor, statement: str) -> str:
    """The answer of a SHOW CREATE without the times at which the object was made."""
    row = _rows(cursor, statement)[0]
    labels = [column[0] for column in cursor.description or ()]
    return "\n".join(f"{label}: {value}" for label, value in zip(labels, row, strict=True) if label not in _TIMES_OF_MAKING)


def _rows(cursor: pymysql.cursors.Cursor, query: str, *values: str) -> Sequence[tuple[Any, ...]]:
    cursor.execute(query, values or None)
    return cursor.fetchall()


def _column(cursor: pymysql.cursors.Cursor, query: str, *values: str) -> list[str]:
    return [str(row[0]) for row in _rows(cursor, query, *values)]


def _in_order(found: re.Match[str]) -> str:
    return f"({', '.join(sorted(found[1].split(', ')))})"


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _short(text: str | None) -> str:
    if text is None:
        return "nothing"
    return repr(text if len(text) <= 300 else text[:300] + "...")
