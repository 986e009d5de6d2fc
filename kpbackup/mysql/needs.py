"""What a backup set needs of a target beside rights and room: engines, collations, login plugins, settings.

`read_offer` asks the target once, `findings` judges the set's inventory against it, purely, before anything is loaded. What would
give another table is an error; an account whose login plugin is missing is left out and named (`without_login`), since the rows
matter more. Limit: texts are searched for names with constants and quoted names cut out; what is found is compared, what is not
found shows when the object is created.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pymysql.charset import charset_by_name

from kpbackup.model.inventory import Definition, Inventory, Table
from kpbackup.model.selection import leaving_out
from kpbackup.mysql.facts import ServerFacts
from kpbackup.mysql.findings import Finding
from kpbackup.mysql.schema_tables import text
from kpbackup.mysql.server import Connection

FULL_COLLATION_NAMES_SINCE = (10, 10, 1)  # MariaDB: uca1400 collations have one name for all character sets
_QUOTED = re.compile(r"'(?:[^'\\]|''|\\.)*'|`(?:[^`]|``)*`|\"(?:[^\"\\]|\"\"|\\.)*\"", re.DOTALL)
_COLLATION = re.compile(r"\bCOLLATE[ =](\w+)")
_CHARSET = re.compile(r"\b(?:CHARACTER SET|CHARSET)[ =](\w+)")
_ENGINE = re.compile(r"\bENGINE=(\w+)")
_PLUGIN_MARIADB = re.compile(r"\b(?:IDENTIFIED VIA|OR) (\w+)")
_PLUGIN_MYSQL = re.compile(r"\bIDENTIFIED WITH '(\w+)'")
_TRUSTED = re.compile(r"^    (?:DETERMINISTIC|NO SQL|READS SQL DATA)$", re.MULTILINE)  # as SHOW CREATE FUNCTION lays them out
_ALWAYS = frozenset({"binary", "filename"})  # every server has them and lists the second nowhere
_LONG_TYPES = (
    "longblob", "longtext", "json", "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
    "geometrycollection", "geomcollection",
)
_LONGEST = {"mediumtext": 1 << 24, "mediumblob": 1 << 24, **dict.fromkeys(_LONG_TYPES, 1 << 32)}  # bytes of a value
_LONGEST_OTHER = 1 << 16
_NAMED = 3  # so many objects are named in a message


@dataclass(frozen=True)
class Offer:
    """What a target has: names of engines in upper case, all else in lower case; its settings by name."""

    engines: frozenset[str]
    charsets: frozenset[str]
    collations: frozenset[str]
    login_plugins: frozenset[str]
    settings: Mapping[str, str] = field(default_factory=dict)

    def is_on(self, name: str) -> bool:
        return self.settings.get(name, "OFF").upper() in ("ON", "1")


def read_offer(connection: Connection, facts: ServerFacts) -> Offer:
    """What the server behind `connection` has."""
    collations = "SELECT collation_name FROM information_schema.collations"
    if facts.mariadb and facts.version >= FULL_COLLATION_NAMES_SINCE:
        collations += " UNION SELECT full_collation_name FROM information_schema.collation_character_set_applicability"
    plugins = (
        "SELECT plugin_name FROM information_schema.plugins WHERE plugin_type = 'AUTHENTICATION' AND plugin_status = 'ACTIVE'"
    )
    engines = "SELECT engine FROM information_schema.engines WHERE support IN ('YES', 'DEFAULT')"

    def names(sql: str) -> frozenset[str]:
        return frozenset(text(row[0]).lower() for row in connection.rows(sql))

    return Offer(
        engines=frozenset(name.upper() for name in names(engines)),
        charsets=names("SELECT character_set_name FROM information_schema.character_sets"),
        collations=names(collations),
        login_plugins=names(plugins),
        settings={text(name).lower(): text(value) for name, value in connection.rows("SHOW GLOBAL VARIABLES")},
    )


def findings(inventory: Inventory, offer: Offer) -> list[Finding]:
    """What speaks against restoring the inventory into a server with this offer; [] when nothing does."""
    return [
        *_engines(inventory, offer), *_characters(inventory, offer), *_routines(inventory, offer), *_keys(inventory, offer),
        *_packets(inventory, offer), *_accounts(inventory, offer),
    ]


def without_login(accounts: Iterable[Definition], offer: Offer) -> dict[str, str]:
    """Account -> the login plugin it needs and the server does not have."""
    missing = {}
    for account in accounts:
        if account.kind == "account":
            statement = " ".join(account.statements)
            found = [*_PLUGIN_MYSQL.findall(statement), *_PLUGIN_MARIADB.findall(_bare(statement))]
            absent = [name for name in found if name.lower() not in offer.login_plugins]
            if absent:
                missing[account.name] = absent[0]
    return missing


def _engines(inventory: Inventory, offer: Offer) -> list[Finding]:
    wanted: dict[str, list[str]] = {}
    for table in inventory.tables:
        wanted.setdefault(table.engine, []).append(f"{table.schema}.{table.name}")
    for sequence in inventory.sequences:
        for engine in _ENGINE.findall(_bare(sequence.statements[0])):
            wanted.setdefault(engine, []).append(f"{sequence.schema}.{sequence.name}")
    return [
        Finding(
            "error",
            f"the target has no storage engine {engine}, which {_some(tables)} need",
            "another engine would give other tables",
            f"install or enable the engine {engine} on the target{_without(tables)}",
        )
        for engine, tables in sorted(wanted.items())
        if engine.upper() not in offer.engines
    ]


def _characters(inventory: Inventory, offer: Offer) -> list[Finding]:
    found: list[Finding] = []
    texts = {(table.schema, table.name): _bare(table.create_sql) for table in inventory.tables}
    for database in inventory.databases:
        texts[database.name, ""] = _bare(" ".join(database.statements))
    views = (one for one in inventory.after_rows if one.kind == "view")
    selectable = {f"{t.schema}.{t.name}" for t in inventory.tables} | {f"{v.schema}.{v.name}" for v in views}
    for one in inventory.after_rows:
        used = [f"COLLATE {value}" for name, value in one.session.items() if name.startswith("collation_")]
        texts[one.schema, one.name] = " ".join([_bare(" ".join(one.statements)), *used])
    for pattern, offered, what in (
        (_CHARSET, offer.charsets | _ALWAYS, "character set"),
        (_COLLATION, offer.collations | _ALWAYS, "collation"),
    ):
        missing: dict[str, list[str]] = {}
        for (schema, name), content in texts.items():
            for word in set(pattern.findall(content)):
                if _full_name(word) not in offered and _is_charset(word.partition("_")[0]):
                    missing.setdefault(word, []).append(f"{schema}.{name}" if name else schema)
        found += [
            Finding(
                "error",
                f"the target has no {what} {word}, which {_some(objects)} need",
                "texts would be stored or compared otherwise",
                "restore into a server built with the source's character sets, of the same version or newer"
                f"{_without([one for one in objects if one in selectable])}",
            )
            for word, objects in sorted(missing.items())
        ]
    return found


def _full_name(word: str) -> str:
    """The name under which servers list a character set or collation; `utf8` is short for utf8mb3 in texts of any age."""
    name = word.lower()
    return name.replace("utf8", "utf8mb3", 1) if name == "utf8" or name.startswith("utf8_") else name


def _is_charset(word: str) -> bool:
    """Whether it is one at all: routines speak of other things too (`SET CHARACTER SET DEFAULT`, comments)."""
    return word.lower() == "uca1400" or charset_by_name(word.lower()) is not None


def _routines(inventory: Inventory, offer: Offer) -> list[Finding]:
    if not offer.is_on("log_bin") or offer.is_on("log_bin_trust_function_creators"):
        return []
    unsafe = [
        f"{one.schema}.{one.name}"
        for one in inventory.after_rows
        if one.kind == "function" and not _TRUSTED.search(one.statements[0])
    ]
    if not unsafe:
        return []
    return [
        Finding(
            "error",
            f"log_bin_trust_function_creators is OFF, and {_some(unsafe)} may change rows",
            "a server with a binlog refuses to create such functions",
            "SET GLOBAL log_bin_trust_function_creators=ON;",
        )
    ]


def _keys(inventory: Inventory, offer: Offer) -> list[Finding]:
    keyless = [f"{table.schema}.{table.name}" for table in inventory.tables if not table.key]
    if not keyless or not offer.is_on("sql_require_primary_key"):
        return []
    return [
        Finding(
            "error",
            f"sql_require_primary_key is ON, and {_some(keyless)} have no primary key",
            "the target would refuse them",
            "SET GLOBAL sql_require_primary_key=OFF;",
        )
    ]


def _packets(inventory: Inventory, offer: Offer) -> list[Finding]:
    """Rows are known by their chunks alone: a chunk below the limit holds no row above it.

    A row above it can be sent all the same where no single value is: its long values go ahead, one by one.
    """
    limit = int(offer.settings.get("max_allowed_packet", "0")) or 1 << 30
    statements = {f"{one.kind} {one.name}": one.statements for one in (*inventory.after_rows, *inventory.accounts)}
    statements |= {f"table {table.schema}.{table.name}": (table.create_sql,) for table in inventory.tables}
    large = [name for name, texts in statements.items() if max((4 * len(one) for one in texts), default=0) > limit]
    chunks = [one for one in inventory.chunks if one.rows and one.row_bytes > limit]
    longest = {(table.schema, table.name): _longest_row(table, limit) for table in inventory.tables}
    too_long = (one for one in chunks if one.row_bytes // one.rows > longest.get((one.schema, one.table), limit))
    tables = sorted({f"{one.schema}.{one.table}" for one in too_long})
    doubtful = sorted({f"{one.schema}.{one.table}" for one in chunks} - set(tables))
    mend = "SET GLOBAL max_allowed_packet=1073741824;"
    if large or tables:
        what = f"max_allowed_packet is {limit}, too small for {_some(large + tables)}"
        return [Finding("error", what, "they could not be sent", mend + _without([] if large else tables))]
    source = int(inventory.settings.get("max_allowed_packet", "0"))
    if doubtful and limit < source:
        why = f"a larger row would stop the restore, and {_some(doubtful)} may hold one"
        return [Finding("warning", f"max_allowed_packet is {limit}, on the source {source}", why, mend)]
    return []


def _longest_row(table: Table, limit: int) -> int:
    """Bytes of a row none of whose values is above the limit, at most."""
    return sum(min(_LONGEST.get(column.data_type, _LONGEST_OTHER), limit) for column in table.columns)


def _accounts(inventory: Inventory, offer: Offer) -> list[Finding]:
    found = [
        Finding("warning", f"account {name} needs the login plugin {plugin}, which the target does not have", "it is left out")
        for name, plugin in without_login(inventory.accounts, offer).items()
    ]
    grants = (one for one in inventory.accounts if one.kind == "grant")
    revoked = [one.name for one in grants if any(text.startswith("REVOKE ") for text in one.statements)]
    if revoked and "partial_revokes" in offer.settings and not offer.is_on("partial_revokes"):
        found.append(
            Finding(
                "error",
                f"partial_revokes is OFF, and rights were taken in part from {_some(revoked)}",
                "they would come back with more rights than they had",
                "SET PERSIST partial_revokes=ON;",
            )
        )
    return found


def _bare(statement: str) -> str:
    """The statement without string constants and quoted names."""
    return _QUOTED.sub("?", statement)


def _without(names: list[str]) -> str:
    """How to restore all else, as the end of a hint; '' for nothing that can be left out."""
    if not names:
        return ""
    listed = " ".join(leaving_out(*name.split(".", 1)) for name in names[:_NAMED])
    return f", or leave out what needs it: {listed}{' ...' if len(names) > _NAMED else ''}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
