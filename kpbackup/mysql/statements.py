"""What a statement of the binlog is and which objects it names: read from its words, without a grammar.

Good for telling DDL, account statements and changes of rows apart, for searching, and for deciding whether a statement
has to do with some tables. `targets` are the tables a statement is about (DROP TABLE a, b: both); `mentions` is every
name that could be an object's, so that 'not mentioned' is certain while 'mentioned' may be a column of that name.

Pure. Limits: texts in EXECUTE IMMEDIATE and in routines are seen as the strings they are. Executable comments (/*!...*/)
count as text, as the server takes them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

SQL_MODE_ANSI_QUOTES, SQL_MODE_NO_BACKSLASH_ESCAPES = 1 << 2, 1 << 20

Name = tuple[str, str]  # schema, object


class Kind(StrEnum):
    DDL = "ddl"  # tables, views, routines, databases: anything that is defined
    ACCOUNT = "account"  # users, roles, grants, passwords
    CHANGE = "change"  # rows, by a statement
    CONTROL = "control"  # BEGIN, COMMIT, SAVEPOINT, XA
    OTHER = "other"  # FLUSH, ANALYZE and what is not known


class Token(NamedTuple):
    """`kind`: word, quoted (an identifier in quotes), string, symbol. `value` is the identifier without its quotes."""

    kind: str
    value: str
    start: int
    end: int

    @property
    def is_name(self) -> bool:
        return self.kind in ("word", "quoted")

    @property
    def upper(self) -> str:
        return self.value.upper() if self.kind == "word" else ""


HARMLESS = frozenset({"", "ANALYZE", "OPTIMIZE", "CHECK", "CHECKSUM", "FLUSH"})  # of kind OTHER: they change no row


@dataclass(frozen=True)
class Statement:
    """`verb` is spelled in capitals with its object (`DROP TABLE`); `kind` and names are as the module says."""

    kind: Kind
    verb: str
    targets: tuple[Name, ...] = ()
    mentions: frozenset[str] = field(default_factory=frozenset, repr=False)


def mode_of(sql_mode: str) -> int:
    """The number for `tokens` and `read` of a sql_mode given by names, as sessions and definitions have it."""
    names = sql_mode.split(",")
    ansi = SQL_MODE_ANSI_QUOTES if "ANSI_QUOTES" in names else 0
    return ansi | (SQL_MODE_NO_BACKSLASH_ESCAPES if "NO_BACKSLASH_ESCAPES" in names else 0)


_TOKEN = r"""
    (?P<space>\s+|\#[^\n]*|--(?=\s|$)[^\n]*|/\*(?![!M]).*?(?:\*/|$)|/\*M?!\d*|\*/)
  | (?P<quoted>`(?:[^`]|``)*`{more})
  | (?P<string>{strings})
  | (?P<word>(?:[\w$\x80-\U0010ffff]|[\udc80-\udcff])+)
  | (?P<symbol>.)
"""
_ESCAPED, _PLAIN = r"{q}(?:[^{q}\\]|\\.|{q}{q})*{q}", r"{q}(?:[^{q}]|{q}{q})*{q}"


@functools.cache  # when it is wanted: to compile all four takes a tenth of a restore's start
def _pattern(sql_mode: int) -> re.Pattern[str]:
    text = _PLAIN if sql_mode & SQL_MODE_NO_BACKSLASH_ESCAPES else _ESCAPED
    ansi = bool(sql_mode & SQL_MODE_ANSI_QUOTES)
    strings = text.format(q="'") if ansi else text.format(q="'") + "|" + text.format(q='"')
    return re.compile(
        _TOKEN.replace("{more}", '|"(?:[^"]|"")*"' if ansi else "").replace("{strings}", strings), re.VERBOSE | re.DOTALL
    )


def tokens(text: str, sql_mode: int = 0) -> Iterator[Token]:
    """The words and signs of a statement, comments left out."""
    pattern = _pattern(sql_mode & (SQL_MODE_ANSI_QUOTES | SQL_MODE_NO_BACKSLASH_ESCAPES))
    for found in pattern.finditer(text):
        kind = found.lastgroup or ""
        if kind == "space":
            continue
        value = found[0]
        if kind == "quoted":
            value = value[1:-1].replace(value[0] * 2, value[0])
        yield Token(kind, value, found.start(), found.end())


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OBJECTS = _words(
    "TABLE TABLES VIEW INDEX TRIGGER PROCEDURE FUNCTION EVENT DATABASE SCHEMA USER ROLE SEQUENCE SERVER PACKAGE"
    " TABLESPACE LOGFILE UNDO RESOURCE INSTANCE PASSWORD KEY LIBRARY"
)
_ACCOUNT_VERBS = frozenset({"GRANT", "REVOKE"})
_CHANGES = _words("INSERT UPDATE DELETE REPLACE LOAD CALL DO WITH SELECT VALUES HANDLER EXECUTE")
_CONTROL = _words("BEGIN START COMMIT ROLLBACK SAVEPOINT RELEASE XA")
_MAINTENANCE = _words("ANALYZE OPTIMIZE REPAIR CHECK CHECKSUM")
_NOISE = _words("IF NOT EXISTS ONLY LOCAL NO_WRITE_TO_BINLOG")
_HEAD_TOKENS = 60  # DEFINER, ALGORITHM and SQL SECURITY come before the object


def read(text: str, *, database: str = "", sql_mode: int = 0) -> Statement:
    """What the statement is; unqualified names are in `database`."""
    words = list(tokens(text, sql_mode))
    if not words:
        return Statement(Kind.OTHER, "")
    verb = words[0].upper
    mentions = frozenset(token.value.lower() for token in words if token.is_name)
    if verb in ("CREATE", "ALTER", "DROP", "RENAME", "TRUNCATE"):
        return _definition(words, verb, database, mentions)
    if verb in _ACCOUNT_VERBS:
        return Statement(Kind.ACCOUNT, verb, (), mentions)
    if verb == "SET":
        is_account = any(word.upper in ("PASSWORD", "ROLE") for word in words[1:3])
        return Statement(Kind.ACCOUNT if is_account else Kind.OTHER, "SET", (), mentions)
    if verb in _CHANGES:
        return Statement(Kind.CHANGE, verb, (), mentions)
    if verb in _CONTROL:
        return Statement(Kind.CONTROL, verb, (), mentions)
    if verb in _MAINTENANCE:
        at = next((number + 1 for number, word in enumerate(words[:4]) if word.upper in ("TABLE", "TABLES")), 0)
        return Statement(Kind.OTHER, verb, tuple(_names(words[at:], database)) if at else (), mentions)
    return Statement(Kind.OTHER, verb, (), mentions)


def _definition(words: list[Token], verb: str, database: str, mentions: frozenset[str]) -> Statement:
    at = 1
    while at < min(len(words), _HEAD_TOKENS) and words[at].upper not in _OBJECTS:
        at += 1
    if verb == "TRUNCATE" and (len(words) < 2 or words[1].upper != "TABLE"):
        return Statement(Kind.DDL, "TRUNCATE TABLE", tuple(_names(words[1:], database)), mentions)
    noun = words[at].upper if at < len(words) else ""
    noun = {"TABLES": "TABLE", "SCHEMA": "DATABASE"}.get(noun, noun)
    rest = words[at + 1 :]
    kind = Kind.ACCOUNT if noun in ("USER", "ROLE") else Kind.DDL
    return Statement(kind, f"{verb} {noun}".strip(), tuple(_targets(verb, noun, rest, database)), mentions)


def _targets(verb: str, noun: str, rest: list[Token], database: str) -> Iterator[Name]:
    if noun in ("TABLE", "VIEW", "SEQUENCE"):
        if verb == "RENAME":
            pairs = _split(rest, ",")
            for pair in pairs:
                for side in _split(pair, "TO"):
                    yield from _names(side, database)
        else:
            yield from _names(rest, database, only_first=verb != "DROP")
    elif noun in ("INDEX", "TRIGGER") and any(word.upper == "ON" for word in rest):
        on = next(number for number, word in enumerate(rest) if word.upper == "ON")
        yield from _names(rest[on + 1 :], database, only_first=True)
    elif noun == "DATABASE":
        yield from ((name, "") for _, name in _names(rest, "", only_first=True))


def _split(words: list[Token], sign: str) -> list[list[Token]]:
    found: list[list[Token]] = [[]]
    for word in words:
        if (word.kind == "symbol" and word.value == sign) or word.upper == sign:
            found.append([])
        else:
            found[-1].append(word)
    return found


def _names(words: list[Token], database: str, *, only_first: bool = False) -> Iterator[Name]:
    """The names at the beginning of `words`: `a.b`, `c`, separated by commas."""
    at = 0
    while at < len(words) and words[at].upper in _NOISE:
        at += 1
    while at < len(words) and words[at].is_name:
        first = words[at].value
        if at + 2 < len(words) and words[at + 1].value == "." and words[at + 2].is_name:
            yield first, words[at + 2].value
            at += 3
        else:
            yield database, first
            at += 1
        if only_first or at >= len(words) or words[at].value != ",":
            return
        at += 1


# collation number -> Python's codec, where the bytes of a character can look like quotes or backslashes, or names differ
_CODECS = {
    **dict.fromkeys((1, 84), "big5"), **dict.fromkeys((13, 88), "shift_jis"), **dict.fromkeys((28, 87), "gbk"),
    **dict.fromkeys((95, 96), "cp932"), **dict.fromkeys((248, 249, 250), "gb18030"),
    **dict.fromkeys((5, 8, 15, 31, 47, 48, 49, 94), "cp1252"),
}


def decoded(text: bytes, collation: int) -> str:
    """A statement's bytes as text, by the number of its character_set_client; what does not fit is kept as it is."""
    codec = _CODECS.get(collation, "utf-8")
    try:
        return text.decode(codec, "surrogateescape")
    except UnicodeDecodeError:
        return text.decode("utf-8", "surrogateescape")


def encoded(text: str, collation: int) -> bytes:
    """The bytes that `decoded` takes for this text.

    Raises:
        UnicodeEncodeError: that character set has not all its signs.
    """
    return text.encode(_CODECS.get(collation, "utf-8"), "surrogateescape")
