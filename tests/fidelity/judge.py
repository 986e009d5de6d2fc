"""What a server holds, as facts about each of its objects: the judge of the fidelity suite.

It shares no code with kpbackup and none with what a dump program does: definitions come from SHOW CREATE and from
information_schema, values from hashes that the server computes over exact renderings. Two servers agree when all facts do.

A truth maps an object (kind, database, name) to its aspects and their texts. Sums over rows do not depend on the order of
rows; the sum over whole rows notices values that changed places. A value whose hash the server does not give makes the reading
fail, so that nothing is equal because nothing was seen.

Limits: the server must be quiet. Left out: when an object was made, optimizer statistics, sizes on disk. CHECKSUM TABLE
is not asked of a table with generated columns, where it differs from one time to the next.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pymysql

Key = tuple[str, str, str]
Truth = dict[Key, dict[str, str]]

SYSTEM = ("mysql", "information_schema", "performance_schema", "sys")
_OWN_ACCOUNTS = ("root", "mysql", "mariadb.sys", "mysql.sys", "mysql.session", "mysql.infoschema")
_STRINGS = {"char", "varchar", "tinytext", "text", "mediumtext", "longtext"}
_BYTES = {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"}
_BY_HEX = {
    "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geometrycollection",
    "geomcollection", "vector",
}
_TYPES = (  # hashes of the types of all values of each document, in their order
    "SELECT SUM(CRC32(CONCAT(JSON_TYPE({column}), (SELECT IFNULL(GROUP_CONCAT(n, JSON_TYPE(v) ORDER BY n), '')"
    " FROM JSON_TABLE({column}, '$**.*' COLUMNS (n FOR ORDINALITY, v JSON PATH '$')) a),"
    " (SELECT IFNULL(GROUP_CONCAT(n, JSON_TYPE(v) ORDER BY n), '')"
    " FROM JSON_TABLE({column}, '$**[*]' COLUMNS (n FOR ORDINALITY, v JSON PATH '$')) b)))) FROM {place}"
)
COLUMNS_AT_ONCE = 40  # more expressions in one SELECT overrun a server's stack
_COUNTER = re.compile(r" AUTO_INCREMENT=(\d+)")
_COLUMN_LIST = re.compile(r"\((`[^()]*`)\)")  # of a grant; the server gives the columns in any order
_UNORDERED = re.compile(r"^(GRANT|REVOKE) (?P<what>[A-Z_, ]+) ON \*\.\* ")  # dynamic privileges come in any order

# information_schema's columns that say how and when rather than what
_NOT_FACTS = {
    "columns": {"privileges", "generation_expression_printed"},
    "statistics": {"cardinality"},
    "tables": {
        "table_rows", "avg_row_length", "data_length", "max_data_length", "index_length", "data_free", "create_time",
        "update_time", "check_time", "checksum", "version", "max_index_length",
        "auto_increment",  # MySQL's is of the last time the table was written out; SHOW CREATE TABLE has the true one
    },
    "partitions": {
        "table_rows", "avg_row_length", "data_length", "max_data_length", "index_length", "data_free", "create_time",
        "update_time", "check_time", "checksum",
    },
    "routines": {"created", "last_altered"},
    "triggers": {"created"},
    "events": {"created", "last_altered", "last_executed", "originator"},
    "views": {"view_definition"},  # as it was first written down; SHOW CREATE VIEW prints what the server makes of it
}
_UNFIT_TO_READ = (1033, 1286, 1430, 1431, 1146, 1356, 1429, 1296, 1168, 1194, 1877)  # no rows of its own here: a fact in itself


def _lossless(name: str) -> codecs.CodecInfo | None:
    """UTF-8 that keeps bytes which are none: servers print defaults of binary columns as they are."""
    if name != LOSSLESS:
        return None
    return codecs.CodecInfo(
        lambda text, errors="": (text.encode("utf-8", "surrogateescape"), len(text)),
        lambda data, errors="": (bytes(data).decode("utf-8", "surrogateescape"), len(data)),
        name=name,
    )


LOSSLESS = "utf_8_lossless"
codecs.register(_lossless)


@dataclass(frozen=True)
class Difference:
    """One aspect of one object that is not what it was."""

    key: Key
    aspect: str
    expected: str | None
    found: str | None

    def __str__(self) -> str:
        kind, schema, name = self.key
        one, other = _apart(self.expected, self.found)
        return f"{kind} {schema}.{name} {self.aspect}:\n    expected {one}\n    found    {other}"


class Unreadable(AssertionError):
    """The judge could not see something it must see."""


def connect(port: int) -> pymysql.Connection[Any]:
    """A session of root, in a fixed state."""
    connection = pymysql.connect(
        host="127.0.0.1", port=port, user="root", charset="utf8mb4", autocommit=True, max_allowed_packet=1 << 30
    )
    connection.encoding = LOSSLESS
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION time_zone = '+00:00', sql_mode = '', sql_quote_show_create = 1, sql_big_selects = 1")
        if is_mariadb(cursor):
            cursor.execute("SET SESSION max_statement_time = 0")
        else:
            cursor.execute("SET SESSION information_schema_stats_expiry = 0, print_identified_with_as_hex = 1")
            cursor.execute("SET SESSION show_gipk_in_create_table_and_information_schema = 1")
            cursor.execute("SET SESSION group_concat_max_len = 1073741824")
    return connection


def is_mariadb(cursor: Any) -> bool:
    """Which of the two it is."""
    cursor.execute("SELECT VERSION()")
    return "MariaDB" in cursor.fetchone()[0]


def read(port: int, *, databases: Iterable[str] | None = None, accounts: bool = True) -> Truth:
    """Everything in the named databases (None: all but the system's own) and, unless unwanted, all accounts."""
    truth: Truth = {}
    with connect(port) as connection, connection.cursor() as cursor:
        wanted = _column(cursor, "SELECT schema_name FROM information_schema.schemata")
        for schema in wanted:
            if schema in (SYSTEM if databases is None else set(wanted) - set(databases)):
                continue
            cursor.execute(f"USE {quoted(schema)}")
            truth["database", schema, schema] = {"definition": _shown(cursor, f"SHOW CREATE DATABASE {quoted(schema)}")}
            truth.update(_Tables(cursor, schema).read())
            truth.update(_programs(cursor, schema))
        if accounts:
            truth.update(_accounts(cursor))
    return truth


def differences(expected: Truth, found: Truth) -> list[Difference]:
    """Every aspect that is missing, too many or other; none when all agree."""
    listed = []
    for key in sorted(expected.keys() | found.keys()):
        one, other = expected.get(key), found.get(key)
        if one is None or other is None:
            listed.append(Difference(key, "existence", "there" if one else None, "there" if other else None))
            continue
        listed += [
            Difference(key, aspect, one.get(aspect), other.get(aspect))
            for aspect in sorted(one.keys() | other.keys())
            if one.get(aspect) != other.get(aspect)
        ]
    return listed


def quoted(name: str) -> str:
    """The name in backticks."""
    return "`" + name.replace("`", "``") + "`"


class _Tables:
    """Base tables, sequences and views of one database."""

    def __init__(self, cursor: Any, schema: str) -> None:
        self.cursor, self.schema = cursor, schema
        self.mariadb = is_mariadb(cursor)

    def read(self) -> Truth:
        kinds = "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = %s"
        truth: Truth = {}
        details = self._details()
        for name, kind in _rows(self.cursor, kinds, self.schema):
            label = {"VIEW": "view", "SEQUENCE": "sequence"}.get(str(kind), "table")
            aspects = dict(details.get(str(name), {}))
            aspects.update(self._object(label, str(name)))
            truth[label, self.schema, str(name)] = aspects
        return truth

    def _object(self, label: str, name: str) -> Iterator[tuple[str, str]]:
        place = f"{quoted(self.schema)}.{quoted(name)}"
        if label == "view":
            yield "definition", _shown(self.cursor, f"SHOW CREATE VIEW {place}")
            return
        text = _shown(self.cursor, f"SHOW CREATE TABLE {place}")
        counter = _COUNTER.search(text)
        yield "definition", _COUNTER.sub("", text)
        yield "next AUTO_INCREMENT", counter.group(1) if counter else "-"
        if label == "sequence":
            yield "state", _text(_rows(self.cursor, f"SELECT * FROM {place}")[0])
            return
        try:
            yield from self._values(name, place)
        except pymysql.MySQLError as exc:
            if exc.args[0] not in _UNFIT_TO_READ:
                raise
            yield "rows", f"unreadable: {exc.args[0]}"

    def _values(self, name: str, place: str) -> Iterator[tuple[str, str]]:
        query = (
            "SELECT column_name, data_type, generation_expression, extra FROM information_schema.columns"
            " WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position"
        )
        columns = [(str(n), str(t).lower(), bool(g) or "GENERATED" in str(x)) for n, t, g, x in
                   _rows(self.cursor, query, self.schema, name)]
        if not any(generated for _, _, generated in columns):
            yield "checksum", str(_rows(self.cursor, f"CHECKSUM TABLE {place}")[0][1])
        yield from self._hidden(place, columns)
        first = columns[:1]  # in each group, so that no group's values can change places with another's
        for begin in range(0, len(columns), COLUMNS_AT_ONCE):
            group = columns[begin : begin + COLUMNS_AT_ONCE]
            yield from self._hashed(place, [one[:2] for one in (group if begin == 0 else first + group)], number=begin)

    def _hidden(self, place: str, columns: Sequence[tuple[str, str, bool]]) -> Iterator[tuple[str, str]]:
        """What no text of a row shows: past rows with their times, and the types of values inside JSON documents."""
        text = _shown(self.cursor, f"SHOW CREATE TABLE {place}") if self.mariadb else ""
        if "WITH SYSTEM VERSIONING" in text:
            times = [] if " AS ROW START" in text else [("row_start", "timestamp"), ("row_end", "timestamp")]
            kept = [column[:2] for column in columns]
            for label, found in self._hashed(f"{place} FOR SYSTEM_TIME ALL", [*kept, *times], number=0):
                yield f"past and present {label}", found
        for name in [name for name, kind, _ in columns if kind == "json" and not self.mariadb]:
            yield f"types in {name}", str(_rows(self.cursor, _TYPES.format(column=quoted(name), place=place))[0][0])

    def _hashed(self, place: str, columns: Sequence[tuple[str, str]], *, number: int) -> Iterator[tuple[str, str]]:
        hashes = [exact_hash(quoted(column), kind, mariadb=self.mariadb) for column, kind in columns]
        whole = f"SHA2(CONCAT_WS(',', {', '.join(f'IFNULL({one}, 0)' for one in hashes)}), 256)"
        unseen = " + ".join(
            f"({quoted(column)} IS NOT NULL AND {one} IS NULL)" for (column, _), one in zip(columns, hashes, strict=True)
        )
        wanted = [_sum(one) for one in hashes] + [_sum(whole)]
        nulls = [f"SUM({quoted(column)} IS NULL)" for column, _ in columns]
        select = ", ".join(["COUNT(*)", f"SUM({unseen})", *nulls, *wanted])
        count, blind, *found = _rows(self.cursor, f"SELECT {select} FROM {place}")[0]
        if blind:
            raise Unreadable(f"{blind} values of {place} have no hash")
        yield "rows", str(count)
        names = [column for column, _ in columns]
        whole = f"whole rows from column {number}"
        labels = [*(f"NULLs in {one}" for one in names), *(f"values of {one}" for one in names), whole]
        yield from zip(labels, map(str, found), strict=True)

    def _details(self) -> dict[str, dict[str, str]]:
        """What information_schema says beside the definitions, by table."""
        by_table: dict[str, dict[str, list[str]]] = {}
        sources = [
            ("tables", "table_schema", "table_name", ""),
            ("columns", "table_schema", "table_name", "ordinal_position"),
            ("statistics", "table_schema", "table_name", "index_name, seq_in_index"),
            ("partitions", "table_schema", "table_name", "partition_ordinal_position, subpartition_ordinal_position"),
            ("table_constraints", "table_schema", "table_name", "constraint_type, constraint_name"),
            ("key_column_usage", "table_schema", "table_name", "constraint_name, ordinal_position"),
            ("referential_constraints", "constraint_schema", "table_name", "constraint_name"),
            ("views", "table_schema", "table_name", ""),
        ]
        if self.mariadb:
            sources.append(("check_constraints", "constraint_schema", "table_name", "constraint_name"))
        for source, schema_column, table_column, order in sources:
            for table, text in self._listed(source, schema_column, table_column, order):
                by_table.setdefault(table, {}).setdefault(source, []).append(text)
        return {table: {name: "\n".join(lines) for name, lines in found.items()} for table, found in by_table.items()}

    def _listed(self, source: str, schema_column: str, table_column: str, order: str) -> Iterator[tuple[str, str]]:
        ordering = f" ORDER BY {table_column}{', ' + order if order else ''}"
        rows = _rows(self.cursor, f"SELECT * FROM information_schema.{source} WHERE {schema_column} = %s{ordering}", self.schema)
        labels = [column[0].lower() for column in self.cursor.description]
        skipped = _NOT_FACTS.get(source, set())
        for row in rows:
            named = dict(zip(labels, row, strict=True))
            yield str(named[table_column]), " | ".join(f"{k}={v}" for k, v in named.items() if k not in skipped)


def exact_hash(column: str, kind: str, *, mariadb: bool) -> str:
    """SQL for the SHA-2 of a column's exact value, NULL for NULL."""
    if kind in _STRINGS or kind in _BYTES:
        exact = f"CAST({column} AS BINARY)"
    elif kind in _BY_HEX:
        exact = f"HEX({column})"
    elif kind in ("float", "double"):  # as FLOAT the text would be rounded
        exact = f"CONCAT(CAST({column} AS DOUBLE))"
    elif kind in ("enum", "set", "bit"):  # the text of index 0 is that of a member ''; as + 0 a set of 64 would be rounded
        exact = f"CONCAT(CAST({column} AS UNSIGNED))"
    elif kind == "json" and not mariadb:
        exact = f"CAST({column} AS CHAR)"
    else:
        exact = f"CONCAT({column})"
    return f"SHA2({exact}, 256)"


def _sum(text: str) -> str:
    """A sum of 60 bits of each hash: independent of the order, and doubles count."""
    return f"COALESCE(SUM(CAST(CONV(LEFT({text}, 15), 16, 10) AS UNSIGNED)), 0)"


def _programs(cursor: Any, schema: str) -> Truth:
    """Routines, packages, triggers, events, libraries."""
    truth: Truth = {}
    queries = [
        ("triggers", "trigger_schema", "'TRIGGER'", "trigger_name"),
        ("events", "event_schema", "'EVENT'", "event_name"),
        ("routines", "routine_schema", "routine_type", "routine_name"),
    ]
    if not is_mariadb(cursor):
        queries.append(("libraries", "library_schema", "'LIBRARY'", "library_name"))
    for source, schema_column, kind_column, name_column in queries:
        query = f"SELECT {kind_column}, {name_column}, s.* FROM information_schema.{source} s WHERE {schema_column} = %s"
        rows = _rows(cursor, query, schema)
        labels = [column[0].lower() for column in cursor.description][2:]
        skipped = _NOT_FACTS.get(source, set()) | {"created", "last_altered"}
        for kind, name, *values in rows:
            listing = " | ".join(f"{k}={v}" for k, v in zip(labels, values, strict=True) if k not in skipped)
            shown = _shown(cursor, f"SHOW CREATE {kind} {quoted(schema)}.{quoted(str(name))}")
            truth[str(kind).lower(), schema, str(name)] = {"definition": shown, "listing": listing}
    parameters = _rows(cursor, "SELECT * FROM information_schema.parameters WHERE specific_schema = %s"
                               " ORDER BY specific_name, routine_type, ordinal_position", schema)
    if parameters:
        truth["parameters", schema, "all"] = {"listing": "\n".join(_text(row) for row in parameters)}
    return truth


def _accounts(cursor: Any) -> Truth:
    reader = _mariadb_accounts if is_mariadb(cursor) else _mysql_accounts
    return {("account", "", name): aspects for name, aspects in reader(cursor)}


def _mariadb_accounts(cursor: Any) -> Iterator[tuple[str, dict[str, str]]]:
    listing = "SELECT user, host, JSON_REMOVE(priv, '$.password_last_changed', '$.version_id') FROM mysql.global_priv"
    for user, host, rights in _rows(cursor, listing):
        if user in _OWN_ACCOUNTS:
            continue
        who = f"{quoted(user)}@{quoted(host)}" if host else "PUBLIC" if user == "PUBLIC" else quoted(user)
        aspects = {"rights": str(rights), "grants": _grants(cursor, who)}
        if host:
            aspects["definition"] = _shown(cursor, f"SHOW CREATE USER {who}")
        mapped = _rows(cursor, "SELECT host, user, role, admin_option FROM mysql.roles_mapping WHERE user = %s AND host = %s"
                               " ORDER BY role", user, host)
        aspects["roles"] = "\n".join(map(_text, mapped))
        yield who, aspects


def _mysql_accounts(cursor: Any) -> Iterator[tuple[str, dict[str, str]]]:
    rows = _rows(cursor, "SELECT * FROM mysql.user")
    labels = [column[0].lower() for column in cursor.description]
    for row in rows:
        named = dict(zip(labels, row, strict=True))
        user, host = named["user"], named["host"]
        if user in _OWN_ACCOUNTS:
            continue
        who = f"{quoted(user)}@{quoted(host)}"
        given = " | ".join(f"{k}={v}" for k, v in named.items() if k != "password_last_changed")
        roles = _rows(cursor, "SELECT from_user, from_host, with_admin_option FROM mysql.role_edges WHERE to_user = %s"
                              " AND to_host = %s ORDER BY 1, 2", user, host)
        defaults = _rows(cursor, "SELECT default_role_user, default_role_host FROM mysql.default_roles WHERE user = %s"
                                 " AND host = %s ORDER BY 1, 2", user, host)
        yield who, {
            "rights": given, "definition": _shown(cursor, f"SHOW CREATE USER {who}"), "grants": _grants(cursor, who),
            "roles": "\n".join(map(_text, roles)), "default roles": "\n".join(map(_text, defaults)),
        }


def _grants(cursor: Any, who: str) -> str:
    lines = [_COLUMN_LIST.sub(_sorted_columns, line) for line in _column(cursor, f"SHOW GRANTS FOR {who}")]
    return "\n".join(sorted(_UNORDERED.sub(_sorted_privileges, line) for line in lines))


def _sorted_columns(found: re.Match[str]) -> str:
    return f"({', '.join(sorted(found[1].split(', ')))})"


def _sorted_privileges(found: re.Match[str]) -> str:
    return found[0].replace(found["what"], ",".join(sorted(re.split(", ?", found["what"]))))


def _shown(cursor: Any, statement: str) -> str:
    """The answer of a SHOW CREATE, or the number of the error it ends with: a broken object is broken on both sides."""
    try:
        row = _rows(cursor, statement)[0]
    except pymysql.MySQLError as exc:
        return f"error {exc.args[0]}"
    labels = [column[0] for column in cursor.description or ()]
    return "\n".join(f"{label}: {value}" for label, value in zip(labels, row, strict=True) if label not in ("Created",))


def _rows(cursor: Any, query: str, *values: str) -> Sequence[tuple[Any, ...]]:
    cursor.execute(query, values or None)
    rows: Sequence[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _column(cursor: Any, query: str) -> list[str]:
    return [str(row[0]) for row in _rows(cursor, query)]


def _text(row: Iterable[object]) -> str:
    return " | ".join(map(str, row))


def _apart(one: str | None, other: str | None) -> tuple[str, str]:
    """The two texts from a little before the place where they part."""
    if one is None or other is None:
        return repr(one)[:200], repr(other)[:200]
    pairs = enumerate(zip(one, other, strict=False))
    begin = next((n for n, (left, right) in pairs if left != right), min(len(one), len(other)))
    begin = max(0, begin - 40)
    return repr(one[begin : begin + 160]), repr(other[begin : begin + 160])
