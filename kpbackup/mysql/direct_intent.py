"""A statement that commits by itself, written down before it is executed: what a run that was killed in it does.

MySQL and MariaDB (10.6 and newer) execute DDL as a whole or not at all, also when they crash in it. So the marks of what a
statement is about (`direct_marks`), as they were before, say afterwards whether it was executed: another mark, it was; the same
one, it was not, or it left no trace. In the second case it is executed (again) only where that cannot do harm: what makes or
drops an object would have left a trace, and TRUNCATE, GRANT or a rebuild may be done twice. Several tables that are dropped go
one by one on MariaDB: the rest of them is dropped. The rows of a CREATE TABLE ... SELECT are committed at once, behind the table
or with it: a table with rows has all of them.

Where neither is certain it is not decided, and the replay is refused: clauses of an ALTER TABLE that undo each other (columns
that swap their names) when the definition is as before, tables that swap their names or partitions that are exchanged where
InnoDB's numbers are not to be had, several accounts of which some have changed, and on MariaDB account statements that cannot be
done twice, when the server was restarted since. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from kpbackup.mysql import account_statements, query_event, statements
from kpbackup.mysql.quoting import qualified
from kpbackup.mysql.statements import Kind

SHOWN = frozenset({"TABLE", "VIEW", "SEQUENCE", "INDEX"})
OF_SCHEMAS = frozenset({"TRIGGER", "PROCEDURE", "FUNCTION", "EVENT", "PACKAGE"})
ACCOUNTS = frozenset({
    "CREATE USER", "ALTER USER", "DROP USER", "RENAME USER", "CREATE ROLE", "DROP ROLE", "REVOKE", "SET",
})
EMPTY, ROWS = "empty", "rows"  # what is in the table of a CREATE TABLE ... SELECT

_ONE_BY_ONE = frozenset({"CHANGE", "RENAME", "ADD", "DROP"})  # clauses of an ALTER TABLE that may undo each other
_WITHOUT_TRACE = frozenset({"EXCHANGE", "IMPORT", "DISCARD"})
_EVERYTHING = "REVOKE ALL"  # from accounts, not on an object: may be done twice


class Decision(StrEnum):
    AGAIN = "again"  # it was not executed, or may be executed twice
    DONE = "done"  # it was executed; rows that follow it were not
    WHOLE = "whole"  # it was executed, and so were the rows that follow it
    PARTLY = "partly"  # some of what it drops is gone: `rest` is still to be executed
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Intent:
    """A statement about to be executed behind `place`. `words` are its clauses in their order, and IF where it says IF [NOT]
    EXISTS or OR REPLACE; `before` are the marks of what it is about, made `at` a second of the server's clock; `digest` is its
    text's; `has_rows`: rows follow it."""

    place: str
    digest: str
    verb: str
    words: tuple[str, ...]
    before: Mapping[str, str]
    has_rows: bool = False
    at: int = 0

    @property
    def is_of_rows(self) -> bool:
        """Whether everything may be defined as before and yet hold other rows."""
        return self.verb == "RENAME TABLE" or "EXCHANGE" in self.words or (self.verb == "ALTER TABLE" and not self.is_alike)

    @property
    def is_alike(self) -> bool:
        """Whether no clause can undo another."""
        clauses = [word for word in self.words if word in _ONE_BY_ONE]
        return len(clauses) <= 1 or set(clauses) in ({"ADD"}, {"DROP"})

    def encode(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def decode(text: str) -> Intent | None:
    """None when it is not one."""
    try:
        found = json.loads(text)
        return Intent(**{**found, "words": tuple(found["words"])})
    except (ValueError, TypeError, KeyError):
        return None


def read(
    query: query_event.QueryEvent, *, place: str, has_rows: bool, mariadb: bool
) -> tuple[Intent, tuple[statements.Name, ...]]:
    """The intent of a statement, with no marks yet, and the names to mark; of an account the spellings it may have."""
    mode = int.from_bytes(query.variables.get(1, b"\0"), "little")
    text = statements.decoded(query.text, _collation(query))
    found = statements.read(text, database=query.database, sql_mode=mode)
    words = [token.upper for token in statements.tokens(text, mode)]
    noun = found.verb.partition(" ")[2]
    at = words.index(noun) if noun in words else 0
    is_repeatable = words[1:3] == ["OR", "REPLACE"] or words[at + 1 : at + 2] == ["IF"]
    told = [word for word in words[1:] if word in _ONE_BY_ONE | _WITHOUT_TRACE]
    if words[:2] == ["REVOKE", "ALL"] and "ON" not in words:
        told.append(_EVERYTHING)
    verb = found.verb if found.kind in (Kind.DDL, Kind.ACCOUNT) or found.verb in statements.HARMLESS else ""
    names = found.targets
    if found.kind is Kind.ACCOUNT:
        named = [sorted(spellings) for spellings in account_statements.named_accounts(text, mode, mariadb=mariadb)]
        names = tuple((spelled[0], spelled[1] if len(spelled) > 1 else "") for spelled in named)
    return Intent(place, digest(query), verb, (*told, *(("IF",) if is_repeatable else ())), {}, has_rows), names


def digest(query: query_event.QueryEvent) -> str:
    return hashlib.sha256(query.text).hexdigest()


def rest(intent: Intent, names: tuple[statements.Name, ...], query: query_event.QueryEvent) -> bytes:
    """What drops those of the statement's objects that are still there, in the statement's own character set."""
    listed = ", ".join(qualified(*name) for name in names)
    return statements.encoded(f"{intent.verb} IF EXISTS {listed}", _collation(query))


def _collation(query: query_event.QueryEvent) -> int:
    return int.from_bytes(query.variables.get(4, b"\xff\0")[:2], "little")


def decide(intent: Intent, now: Mapping[str, str]) -> Decision:
    """Whether the statement was executed, by what its objects are now."""
    verb, _, noun = intent.verb.partition(" ")
    if verb in ("TRUNCATE", "GRANT") or intent.verb in statements.HARMLESS - {""} or _EVERYTHING in intent.words:
        return Decision.AGAIN
    if intent.has_rows:
        return _of_rows(intent, now)
    if verb in ("CREATE", "DROP") and "IF" in intent.words:
        return Decision.AGAIN
    if not intent.before or now.keys() != intent.before.keys():
        return Decision.UNKNOWN
    changed = [now[name] != before for name, before in intent.before.items()]
    if intent.verb in ACCOUNTS:
        return _of_accounts(intent, now, changed)
    if noun not in SHOWN | OF_SCHEMAS | {"DATABASE"}:
        return Decision.UNKNOWN
    if noun == "DATABASE" and verb == "DROP":  # made of many: what is left of one is dropped again
        return Decision.AGAIN if all(now.values()) else Decision.DONE
    if verb == "DROP" and noun in SHOWN - {"INDEX"}:
        are_gone = [not mark for mark in now.values()]
        return Decision.DONE if all(are_gone) else Decision.PARTLY if any(are_gone) else Decision.AGAIN
    if any(":" in mark for mark in intent.before.values()) and not _is_numbered(now):
        return Decision.UNKNOWN
    if any(changed):
        return Decision.DONE
    return Decision.AGAIN if _leaves_a_trace_or_no_harm(intent, verb, noun) else Decision.UNKNOWN


def _of_rows(intent: Intent, now: Mapping[str, str]) -> Decision:
    """Of a CREATE TABLE ... SELECT."""
    if not intent.before or now.keys() != intent.before.keys():
        return Decision.UNKNOWN
    if not any(now.values()):
        return Decision.AGAIN
    found = {EMPTY: Decision.DONE, ROWS: Decision.WHOLE}.get("".join(now.values()), Decision.UNKNOWN)
    return Decision.UNKNOWN if any(intent.before.values()) else found


def _of_accounts(intent: Intent, now: Mapping[str, str], changed: list[bool]) -> Decision:
    """Of a statement that leaves a trace, or does no harm when it is executed again."""
    verb = intent.verb.partition(" ")[0]
    if verb != "CREATE" and not (any(intent.before.values()) if verb == "RENAME" else all(intent.before.values())):
        return Decision.UNKNOWN  # of what was not there, nothing can be told
    if not any(changed):
        return Decision.AGAIN
    is_whole = {
        "CREATE": all(now.values()),
        "DROP": not any(now.values()),
        "RENAME": sorted(map(bool, now.values())) == sorted(map(bool, intent.before.values())),
    }.get(verb, True)
    return Decision.DONE if all(changed) and is_whole else Decision.UNKNOWN


def _leaves_a_trace_or_no_harm(intent: Intent, verb: str, noun: str) -> bool:
    """Of a statement after which everything is defined as before."""
    if verb in ("CREATE", "DROP"):
        return True
    if verb == "RENAME":
        return len(intent.before) == 2 or _is_numbered(intent.before)
    if verb != "ALTER" or noun in OF_SCHEMAS | {"DATABASE"}:
        return verb == "ALTER"
    if intent.words == ("EXCHANGE",):
        return _is_numbered(intent.before)
    return intent.is_alike and not _WITHOUT_TRACE & set(intent.words)


def _is_numbered(marks: Mapping[str, str]) -> bool:
    """Whether each that is there has InnoDB's numbers."""
    return all(":" in mark for mark in marks.values() if mark)
