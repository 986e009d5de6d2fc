"""The text of SHOW CREATE TABLE, changed where executing it as printed would give another table.

Pure. Known cases: MariaDB prints defaults and members of binary columns as raw bytes, which are no text; MySQL prints
a collation that a column merely took over from its table, and would remember it as spelled out; Aria prints its page checksum
whether it was asked for or not; a nullable column may have no default at all, not even NULL, and MySQL's another character set
than its table without its having been spelled out (`after_creation`); MariaDB does not print the NULL without which an
AUTO_INCREMENT column is NOT NULL.
The result says the same on every server, so that a restored table's text equals its source's.

Limit: the parts are found by their layout; a text that is laid out otherwise is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

from kpbackup import errors

_STRING = re.compile(r"`(?:[^`]|``)+`|'((?:[^'\\]|''|\\.)*)'", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)|''", re.DOTALL)
_ESCAPES = {"0": "\0", "n": "\n", "r": "\r", "t": "\t", "Z": "\x1a", "b": "\b"}
_QUOTED = r"'(?:[^'\\]|''|\\.)*'"
_TAKEN_OVER = re.compile(rf"(?P<head>  `(?:[^`]|``)+` \w+(?:\((?:[^()']|{_QUOTED})*\))?) COLLATE (?P<collation>\w+)", re.DOTALL)
_NOT_NULL = re.compile(rf"({_QUOTED}|`(?:[^`]|``)+`)| NOT NULL", re.DOTALL)
_NAME = re.compile(r"`(?:[^`]|``)+`")
_TABLE = re.compile(r"CREATE TABLE (?P<name>`(?:[^`]|``)+`) \(")
# MySQL prints no collation where a column took its character set over from its table, which has another one now
_OF_BEFORE = re.compile(
    rf"^(?P<head>  `(?:[^`]|``)+` \w+(?:\((?:[^()']|{_QUOTED})*\))?) CHARACTER SET (?P<charset>\w+)(?! COLLATE)"
    rf"(?P<rest>(?: (?:[^'`\n]|{_QUOTED}|`(?:[^`]|``)+`)*)?,?)$", re.MULTILINE | re.DOTALL,
)
_TABLE_CHARSET = re.compile(r" DEFAULT (CHARSET=\w+(?: COLLATE=\w+)?)")
_OF_TABLE = re.compile(r" COLLATE=(\w+)")
_BINARY_DEFAULT = re.compile(
    rf"(?P<head>  `(?:[^`]|``)+` (?:var)?binary\(\d+\)[^']* DEFAULT )'(?P<text>{_QUOTED[1:-1]})'", re.DOTALL
)
_INVISIBLE = " INVISIBLE"
_COLUMN = re.compile(r"  (?P<name>`(?:[^`]|``)+`) (?P<type>\w+)(?P<rest>.*)", re.DOTALL)
_HAS_OR_NEEDS_NONE = re.compile(r" (?:NOT NULL|DEFAULT |GENERATED ALWAYS|AS \(|AUTO_INCREMENT)")
_NEVER_PRINTED = re.compile(r"(?:tiny|medium|long)?(?:text|blob)")  # by MySQL
_BEHIND_DEFAULT = re.compile(r" (?:ON UPDATE|COMMENT|CHECK|REF_SYSTEM_ID)\b|,?$")
_NULL_COUNTER = re.compile(
    r"^(  `(?:[^`]|``)+` \w+(?:\([\d,]+\))?(?: unsigned)?(?: zerofill)?(?: INVISIBLE)? AUTO_INCREMENT)(?= |,|$)", re.MULTILINE
)
# MariaDB puts the conversion into the text of an expression once a session of another character set has used the table
_CONVERTED = re.compile(r"convert\(((?:dayname|monthname|date_format)\((?:[^()']|'(?:[^'\\]|''|\\.)*')*\)) using \w+\)")
# MariaDB prints options that a table keeps although its engine does not know them inside a comment
_UNKNOWN_OPTIONS = re.compile(
    rf"({_QUOTED}|`(?:[^`]|``)+`)| /\*((?: `(?:[^`]|``)+`=(?:{_QUOTED}|[^\s'`*]+)| TRANSACTIONAL=[01])+) \*/", re.DOTALL
)
_PAGE_CHECKSUM = re.compile(r" PAGE_CHECKSUM=1\b")


def creatable(printed: str, *, flavour: str) -> str:
    """The text to store, to execute and to compare; bytes that are no UTF-8 are in `printed` as lone surrogates."""
    text = with_bytes_in_hex(printed)
    return _without_taken_over(text) if flavour == "mysql" else _with_default_null(_NULL_COUNTER.sub(r"\1 NULL", text))


def with_bytes_in_hex(printed: str) -> str:
    """The text with hexadecimal constants in the place of those that are no UTF-8."""
    return printed if printed.isascii() else _STRING.sub(_as_hex, printed)


def after_creation(create_sql: str) -> tuple[str, ...]:
    """Statements that make what executing the text alone would not; they may be repeated.

    Columns that may be NULL and have no default: MySQL has them after ALTER COLUMN ... DROP DEFAULT; a text without a default
    means DEFAULT NULL to every server. Columns that have their character set from the table as it was before its own was
    changed: MySQL remembers of every other one that it was spelled out.
    """
    begin = _TABLE.match(create_sql)
    if begin is None:
        return ()
    names = [name for name, data_type in _without_default(create_sql) if not _NEVER_PRINTED.fullmatch(data_type)]
    dropped = ", ".join(f"ALTER {name} DROP DEFAULT" for name in names)
    changes = [*_taking_charsets_over(create_sql), *([dropped] if dropped else [])]
    return tuple(f"ALTER TABLE {begin['name']} {change}" for change in changes)


def _taking_charsets_over(create_sql: str) -> list[str]:
    """What gives columns the character set of the table, which has each of theirs for a moment."""
    own = _TABLE_CHARSET.search(create_sql[create_sql.rfind("\n) ") :].split("'")[0])
    columns: dict[str, list[str]] = {}
    for found in _OF_BEFORE.finditer(create_sql) if own else ():
        line = f"{found['head']}{found['rest'].removesuffix(',')}".strip()
        columns.setdefault(found["charset"], []).append(f"MODIFY {line}")
    if own is None or not columns:
        return []
    taken = [", ".join([f"DEFAULT CHARSET={charset}", *lines]) for charset, lines in columns.items()]
    return [*taken, f"DEFAULT {own[1].replace(' COLLATE', ', DEFAULT COLLATE')}"]


def keeping_order(create_sql: str) -> str:
    """The text to execute so that unique keys come in the order in which it lists them.

    Servers list a unique key that may hold NULL behind those that may not. What counts is whether they knew it when they read
    the key: a primary key that came later made its columns NOT NULL without changing the order. So it comes later here too.
    """
    begin, _, rest = create_sql.partition("\n")
    body, mark, end = rest.partition("\n) ")
    lines = [line.removesuffix(",") for line in body.split("\n")]
    primary = next((line for line in lines if line.startswith("  PRIMARY KEY (")), "")
    columns = {found["name"]: line for line in lines if (found := _COLUMN.match(line))}
    nullable = {name for name, line in columns.items() if " NOT NULL" not in re.sub(_QUOTED, "''", line)}
    unique = [line for line in lines if line.startswith("  UNIQUE KEY ")]
    first = next((nth for nth, line in enumerate(unique) if _parts(line) & nullable), len(unique))
    late = [line for line in unique[first:] if not _parts(line) & nullable]
    if not late or not mark or not all(_parts(line) & _parts(primary) for line in late):
        return create_sql
    lines.remove(primary)
    lines.insert(lines.index(unique[-1]) + 1, primary)
    open_ones = {columns[name] for name in _parts(primary) if name in columns}
    shown = (_NOT_NULL.sub(lambda one: one[1] or "", line) if line in open_ones else line for line in lines)
    return begin + "\n" + ",\n".join(shown) + mark + end


def with_unknown_options(create_sql: str) -> tuple[str, bool]:
    """The text to execute so that the table keeps the options its engine does not know, and whether it has any.

    They come out of their comment, and the session must then take what it does not know (IGNORE_BAD_TABLE_OPTIONS).
    """
    if " /* " not in create_sql:
        return create_sql, False
    text = _UNKNOWN_OPTIONS.sub(lambda one: one[1] or one[2], create_sql)
    return text, text != create_sql


def _parts(key_line: str) -> set[str]:
    """The quoted names of a key's columns."""
    return set(_NAME.findall(key_line.partition(" (")[2].partition(" COMMENT ")[0]))


def _without_default(create_sql: str) -> Iterator[tuple[str, str]]:
    """(quoted name, data type) of the columns that may be NULL and have no default."""
    for line in create_sql.split("\n"):
        found = _COLUMN.match(line)
        if found and not _HAS_OR_NEEDS_NONE.search(re.sub(_QUOTED, "''", found["rest"])):
            yield found["name"], found["type"]


def _with_default_null(text: str) -> str:
    """MariaDB's text with the default that any statement gives: only some CREATE ... SELECT give none."""
    names = {name for name, _ in _without_default(text)}
    return "\n".join(_line_with_default_null(line, names) for line in text.split("\n")) if names else text


def _line_with_default_null(line: str, names: Container[str]) -> str:
    found = _COLUMN.match(line)
    if not found or found["name"] not in names:
        return line
    begin = found.start("rest")
    unquoted = (one for one in _BEHIND_DEFAULT.finditer(line, begin) if line[begin : one.start()].count("'") % 2 == 0)
    behind = next(unquoted, None)
    if behind is None:
        raise errors.IntegrityError(f"a column's line of a definition has quotes that do not close: {line.strip()!r}")
    return f"{line[: behind.start()]} DEFAULT NULL{line[behind.start() :]}"


def without_page_checksum(text: str) -> str:
    """The text without Aria's PAGE_CHECKSUM=1, for a table that was made without it."""
    begin, mark, options = text.rpartition("\n) ")
    unquoted = options.split("'")[0]
    return begin + mark + _PAGE_CHECKSUM.sub("", unquoted, count=1) + options[len(unquoted) :]


def in_one_order(text: str) -> str:
    """The text as MariaDB 11.8 prints it: INVISIBLE after the default, defaults of binary columns in hex. For comparing only."""
    text = _CONVERTED.sub(r"\1", text)
    return "\n".join(_line_in_one_order(line) if line.startswith("  `") else line for line in text.split("\n"))


def _line_in_one_order(line: str) -> str:
    line = _BINARY_DEFAULT.sub(lambda one: f"{one['head']}x'{_bytes_of(one['text']).hex()}'", line, count=1)
    head, mark, tail = line.partition(_INVISIBLE)
    if not mark or "'" in head:  # in a comment
        return line
    comma = "," if tail.endswith(",") else ""
    return head + tail.removesuffix(",") + _INVISIBLE + comma


def _bytes_of(inner: str) -> bytes:
    """The bytes of a string constant, by the text between its quotes."""
    plain = _ESCAPED.sub(lambda one: "'" if one[1] is None else _ESCAPES.get(one[1], one[1]), inner)
    return plain.encode("utf-8", "surrogateescape")


def _as_hex(found: re.Match[str]) -> str:
    """A string constant of bytes that are no text, as a hexadecimal one."""
    inner = found[1]
    if inner is None or not any("\udc80" <= letter <= "\udcff" for letter in inner):
        return found[0]
    before = found.string[found.start() - 1]  # of an introducer, such as _latin1, which would be another word with the x
    return f"{' ' if before.isalnum() else ''}x'{_bytes_of(inner).hex()}'"


def _without_taken_over(text: str) -> str:
    """Without the collation of columns that have their table's and no CHARACTER SET: MySQL prints one that was spelled out."""
    options = text[text.rfind("\n) ") :].split("'")[0]
    own = _OF_TABLE.search(options)
    if own is None:
        return text
    lines = []
    for line in text.split("\n"):
        found = _TAKEN_OVER.match(line)
        lines.append(found["head"] + line[found.end() :] if found and found["collation"] == own[1] else line)
    return "\n".join(lines)
