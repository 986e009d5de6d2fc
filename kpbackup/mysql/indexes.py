"""Secondary indexes put off until a table's rows are in: a table's definition taken apart, and compared afterwards.

Built in one sort at the end an index costs a fraction of what it costs row by row. That pays only for InnoDB, and is
done only where every line is understood and nothing needs the index meanwhile: no foreign key to the table,
not the key of an AUTO_INCREMENT column, no unique key of a partitioned table or of one without a primary key, no
functional, hash, vector or otherwise unusual key. Everything else stays in place, which is slower and never wrong.
The table's own foreign keys wait for the keys they need: with foreign_key_checks off the server adds them without
looking at the rows, as it would have taken them with the table.

`same_definition` proves the result. Give `defer` the text as the *target* prints it where versions differ; then the
comparison cannot stumble over spelling. After a crash: the table has the reduced definition, some of the statements
may have run; compare, and add what is missing.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kpbackup import errors
from kpbackup.mysql import schema, table_text

_NAME = r"`(?:[^`]|``)+`"
_PART = rf"{_NAME}(?:\(\d+\))?(?: ASC| DESC)?"
_KEY = re.compile(
    rf"(?P<kind>UNIQUE |FULLTEXT |SPATIAL )?KEY {_NAME} \((?P<parts>{_PART}(?:,{_PART})*)\)"
    r"(?P<tail>(?: USING BTREE| KEY_BLOCK_SIZE=\d+| COMMENT '(?:[^'\\]|''|\\.)*'| IGNORED|"
    r" /\*!80000 INVISIBLE \*/| /\*!50100 WITH PARSER `\w+` \*/ ?)*)"
)
_KEY_LINE = re.compile(r"(?:[A-Z]+ )?KEY ")
_PRIMARY = re.compile(rf"PRIMARY KEY \((?P<parts>{_PART}(?:,{_PART})*)\)")
_AUTO_INCREMENT_COLUMN = re.compile(rf"(?P<name>{_NAME}) .* AUTO_INCREMENT\b")
_VIRTUAL = re.compile(rf"(?P<name>{_NAME}) .* GENERATED ALWAYS AS \(.*\) VIRTUAL\b")
_FOREIGN = re.compile(
    rf"CONSTRAINT {_NAME} FOREIGN KEY \((?P<own>.*?)\) REFERENCES (?P<target>(?:{_NAME}\.)?{_NAME}) \((?P<named>.*?)\)"
)
_CREATE = re.compile(rf"CREATE TABLE (?P<name>{_NAME}) \(")


@dataclass(frozen=True)
class Deferral:
    """How to create a table and what to add after its rows; `statements` is empty when all stays in place.

    `statements` are ALTER TABLE with the table's name alone: run them with its schema as the default one.
    `reason` says why keys were left in place, '' when none was.
    """

    create_sql: str
    statements: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True)
class _Key:
    line: str
    kind: str  # '', 'UNIQUE', 'FULLTEXT' or 'SPATIAL'
    columns: tuple[str, ...]

    @property
    def rank(self) -> str:
        """The group within which the server keeps the order in which keys were made."""
        return self.kind if self.kind in ("UNIQUE", "FULLTEXT") else ""


def defer(create_sql: str, *, referenced: bool = False) -> Deferral:
    """The definition without the keys that can wait, and the statements that add them.

    `referenced` says that a foreign key of another table points here (`referenced_tables` finds them).
    """
    begin, lines, end = _take_apart(create_sql)
    reason = _reason_to_keep_all(create_sql, lines, end, referenced=referenced)
    if reason:
        return Deferral(create_sql, (), reason)
    partitioned = "PARTITION BY" in end
    primary = next((_columns(m["parts"]) for line in lines if (m := _PRIMARY.fullmatch(line))), ())
    waiting, kept = _choose(lines, primary, unique_stays=partitioned or not primary)
    if not waiting:
        return Deferral(create_sql, (), kept)
    foreign = [line for line in lines if _FOREIGN.match(line)]
    later = {*foreign, *(key.line for key in waiting)}
    remaining = [line for line in lines if line not in later]
    virtual = {_plain(match["name"]) for line in lines if (match := _VIRTUAL.match(line))}
    return Deferral(_put_together(begin, remaining, end), _statements(begin, waiting, foreign, virtual), kept)


def referenced_tables(database: str, create_sql: str) -> set[tuple[str, str]]:
    """(schema, table) of every table the foreign keys of this definition point to."""
    found = set()
    for line in create_sql.splitlines():
        if match := _FOREIGN.match(line.strip()):
            names = [_plain(name) for name in re.findall(_NAME, match["target"])]
            found.add((names[0], names[1]) if len(names) == 2 else (database, names[0]))
    return found


def to_missing_columns(definitions: Mapping[tuple[str, str], str]) -> set[tuple[str, str]]:
    """(schema, table) of those with a foreign key to columns that their parent does not have: the server takes such a key only
    while the parent is not there. `definitions` has the text of every table."""
    found = set()
    for (schema_name, table), create_sql in definitions.items():
        for line in create_sql.splitlines():
            match = _FOREIGN.match(line.strip())
            for parent in referenced_tables(schema_name, line) if match else ():
                own = _column_names(definitions[parent]) if parent in definitions else None
                named = {_plain(name).lower() for name in re.findall(_NAME, match["named"])} if match else set()
                if own is not None and named - own:
                    found.add((schema_name, table))
    return found


def _column_names(create_sql: str) -> set[str]:
    return {_plain(match[0]).lower() for line in _take_apart(create_sql)[1] if (match := re.match(_NAME, line))}


def without_foreign_keys(
    database: str, create_sql: str, *, to: Callable[[tuple[str, str]], bool]
) -> tuple[str, tuple[str, ...]]:
    """The definition without its foreign keys to the tables that `to` accepts, and the lines that are gone.

    Raises:
        TargetRefused: the definition is not laid out as expected.
    """
    if not any(map(to, referenced_tables(database, create_sql))):
        return create_sql, ()
    begin, lines, end = _take_apart(create_sql)
    gone = tuple(line for line in lines if any(map(to, referenced_tables(database, line))))
    if not gone:
        raise errors.TargetRefused(
            f"cannot take a foreign key out of the definition that begins with {begin}", hint="choose its parent table too"
        )
    return _put_together(begin, [line for line in lines if line not in gone], end), gone


def same_definition(one: str, other: str) -> bool:
    """Whether two texts of SHOW CREATE TABLE say the same; the AUTO_INCREMENT counter does not matter."""
    return schema.comparable(one) == schema.comparable(other)


def first_difference(expected: str, found: str) -> str:
    """The first line in which two texts of SHOW CREATE TABLE part, as a sentence's end; "" when they say the same."""
    pairs = itertools.zip_longest(*(schema.comparable(text).split("\n") for text in (expected, found)), fillvalue="")
    return next((f"`{one.strip()}` was expected, `{other.strip()}` is there" for one, other in pairs if one != other), "")


def _take_apart(create_sql: str) -> tuple[str, list[str], str]:
    """(first line, column and key lines without indent and comma, options and partitions); no lines if it is odd."""
    begin, _, rest = create_sql.partition("\n")
    body, mark, end = rest.partition("\n) ")
    lines = [line[2:].removesuffix(",") for line in body.split("\n")]
    if not mark or _put_together(begin, lines, end) != create_sql:
        return begin, [], ""
    return begin, lines, end


def _put_together(begin: str, lines: list[str], end: str) -> str:
    return begin + "\n" + ",\n".join("  " + line for line in lines) + "\n) " + end


def _reason_to_keep_all(create_sql: str, lines: list[str], end: str, *, referenced: bool) -> str:
    if not lines or not _CREATE.fullmatch(create_sql.partition("\n")[0]):
        return "the definition is not laid out as expected"
    if not re.match(r"ENGINE=InnoDB\b", end):
        return "only InnoDB gains from it"
    if referenced:
        return "a foreign key needs the indexes"
    if any("FOREIGN KEY" in line and not _FOREIGN.match(line) for line in lines if line.startswith("CONSTRAINT ")):
        return "a foreign key of an unusual form"
    if "WITH SYSTEM VERSIONING" in end:
        return "the table keeps its history"
    if table_text.keeping_order(create_sql) != create_sql:
        return "its unique keys are in an order that only one statement gives"
    if "`FTS_DOC_ID" in create_sql.upper():
        return "InnoDB takes its FULLTEXT document ids, and the index of that name, only with the table"
    return ""


def _choose(lines: list[str], primary: tuple[str, ...], *, unique_stays: bool) -> tuple[list[_Key], str]:
    """(keys that wait, why others stay).

    Within a rank only the last keys may wait: the server lists keys in the order they were made, and the definition
    must come out the same.
    """
    counter = next((_plain(m["name"]) for line in lines if (m := _AUTO_INCREMENT_COLUMN.match(line))), None)
    if counter is not None and primary[:1] == (counter,):
        counter = None
    waiting: list[_Key] = []
    reasons: list[str] = []
    closed: set[str] = set()
    for line in reversed([line for line in lines if _KEY_LINE.match(line) and not line.startswith("PRIMARY ")]):
        match = _KEY.fullmatch(line)
        if not match:
            closed.update(("UNIQUE", "FULLTEXT", ""))
            reasons.append("a key of an unusual form")
            continue
        key = _Key(line, (match["kind"] or "").strip(), _columns(match["parts"]))
        if counter in key.columns:
            reasons.append("the key of the AUTO_INCREMENT column")
        elif key.kind == "UNIQUE" and unique_stays:
            reasons.append("unique keys of a partitioned table or one without primary key")
        elif key.rank not in closed:
            waiting.insert(0, key)
            continue
        closed.add(key.rank)
    return waiting, "; ".join(dict.fromkeys(reasons))


def _statements(begin: str, waiting: Iterable[_Key], foreign: Sequence[str], virtual: set[str]) -> tuple[str, ...]:
    """One ALTER for each FULLTEXT key (the first rebuilds the table: while it is small), one for all others and foreign keys.

    Foreign keys of virtual columns come behind it: MariaDB (1821) does not see the index that the same ALTER adds for them.
    """
    match = _CREATE.fullmatch(begin)
    assert match is not None
    table = match["name"]
    full = [key.line for key in waiting if key.kind == "FULLTEXT"]
    plain = [key.line for key in waiting if key.kind != "FULLTEXT"]
    last = [line for line in foreign if virtual.intersection(_columns(_own_columns(line)))]
    groups = [*([line] for line in full), [*plain, *(line for line in foreign if line not in last)], last]
    return tuple(f"ALTER TABLE {table} " + ", ".join(f"ADD {line}" for line in group) for group in groups if group)


def _own_columns(foreign: str) -> str:
    match = _FOREIGN.match(foreign)
    return match["own"] if match else ""


def _columns(parts: str) -> tuple[str, ...]:
    return tuple(_plain(name) for name in re.findall(_NAME, parts))


def _plain(name: str) -> str:
    return name[1:-1].replace("``", "`")
