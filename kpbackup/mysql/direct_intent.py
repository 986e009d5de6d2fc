"""A statement that commits by itself, written down before it is executed: what a run that was killed in it does.

MySQL and MariaDB (10.6 and newer) execute DDL as a whole or not at all, also when they crash in it. So the definitions of what
a statement is about, as they were before, say afterwards whether it was executed: another definition, it was; the same one, it
was not, or it left no trace. In the second case it is executed (again) only where that cannot do harm: what makes or drops an
object would have left a trace, and TRUNCATE, GRANT or a rebuild may be done twice. Where neither is certain it is not decided,
and the replay is refused: an exchange of partitions, tables that swap their names, columns that do, accounts that are made,
CREATE TABLE ... SELECT whose table is there, several tables of which some are dropped.

Counters (AUTO_INCREMENT) are no part of a definition here: a crash may move them. `marks` asks a server, the rest is pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from kpbackup import errors
from kpbackup.mysql import query_event, schema, server, statements
from kpbackup.mysql.quoting import identifier, qualified
from kpbackup.mysql.statements import Kind

_SYSTEM = "('mysql', 'sys', 'information_schema', 'performance_schema')"
_STORED = (  # what is not shown by SHOW CREATE TABLE, in all databases: name and definition
    "SELECT 'r', routine_schema, routine_name, routine_type, routine_definition, sql_data_access, security_type, routine_comment,"
    " definer, dtd_identifier FROM information_schema.routines WHERE routine_schema NOT IN {system} ORDER BY 2, 3, 4",
    "SELECT 't', trigger_schema, trigger_name, event_object_table, action_statement, action_timing, event_manipulation, definer"
    " FROM information_schema.triggers WHERE trigger_schema NOT IN {system} ORDER BY 2, 3",
    "SELECT 'e', event_schema, event_name, event_definition, execute_at, interval_value, interval_field, starts, ends, status,"
    " on_completion, event_comment, definer FROM information_schema.events WHERE event_schema NOT IN {system} ORDER BY 2, 3",
)
_SHOWN = frozenset({"TABLE", "VIEW", "SEQUENCE", "INDEX"})
_OF_SCHEMAS = frozenset({"TRIGGER", "PROCEDURE", "FUNCTION", "EVENT", "PACKAGE"})
_ONE_BY_ONE = frozenset({"CHANGE", "RENAME", "ADD", "DROP"})  # clauses of an ALTER TABLE that may undo each other
_WITHOUT_TRACE = frozenset({"EXCHANGE", "IMPORT", "DISCARD"})
_NOT_THERE = frozenset({1146, 1049, 1347})  # no such table, database; not a view


class Decision(StrEnum):
    AGAIN = "again"  # it was not executed, or may be executed twice
    DONE = "done"  # it was executed
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Intent:
    """A statement about to be executed behind `place`. `words` are its clauses in their order, and IF where it says IF [NOT]
    EXISTS or OR REPLACE; `before` are the marks of what it is about, `digest` is its text's; `has_rows`: rows follow it."""

    place: str
    digest: str
    verb: str
    words: tuple[str, ...]
    before: Mapping[str, str]
    has_rows: bool = False

    def encode(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def decode(text: str) -> Intent | None:
    """None when it is not one."""
    try:
        found = json.loads(text)
        return Intent(**{**found, "words": tuple(found["words"])})
    except (ValueError, TypeError, KeyError):
        return None


def read(query: query_event.QueryEvent, *, place: str, has_rows: bool) -> tuple[Intent, tuple[statements.Name, ...]]:
    """The intent of a statement, with no marks yet, and the names to mark."""
    text = statements.decoded(query.text, int.from_bytes(query.variables.get(4, b"\xff\0")[:2], "little"))
    mode = int.from_bytes(query.variables.get(1, b"\0"), "little")
    found = statements.read(text, database=query.database, sql_mode=mode)
    words = [token.upper for token in statements.tokens(text, mode)]
    noun = found.verb.partition(" ")[2]
    at = words.index(noun) if noun in words else 0
    is_repeatable = words[1:3] == ["OR", "REPLACE"] or words[at + 1 : at + 2] == ["IF"]
    told = [word for word in words[1:] if word in _ONE_BY_ONE | _WITHOUT_TRACE]
    verb = found.verb if found.kind in (Kind.DDL, Kind.ACCOUNT) or found.verb in statements.HARMLESS else ""
    return Intent(place, digest(query), verb, (*told, *(("IF",) if is_repeatable else ())), {}, has_rows), found.targets


def digest(query: query_event.QueryEvent) -> str:
    return hashlib.sha256(query.text).hexdigest()


def marks(connection: server.Connection, intent: Intent, names: tuple[statements.Name, ...]) -> dict[str, str]:
    """What each object is now, '' for one that is not there; JSON of its name -> a hash."""
    noun = intent.verb.partition(" ")[2]
    connection.execute("SET SESSION sql_mode='', sql_quote_show_create=1, NAMES utf8mb4")
    if noun in _OF_SCHEMAS:
        return {"": _hash(str([connection.rows(query.format(system=_SYSTEM)) for query in _STORED]))}
    if noun == "DATABASE":
        return {_key(one): _shown(connection, f"SHOW CREATE DATABASE {identifier(one[0])}") for one in names}
    if noun in _SHOWN:
        return {_key(one): _shown(connection, f"SHOW CREATE TABLE {qualified(*one)}") for one in names}
    return {}


def names_of(before: Mapping[str, str]) -> tuple[statements.Name, ...]:
    """The names that were marked."""
    return tuple((one[0], one[1]) for one in (json.loads(key) for key in before if key))


def _key(name: statements.Name) -> str:
    return json.dumps(list(name))


def _shown(connection: server.Connection, statement: str) -> str:
    try:
        row = connection.row(statement)
    except errors.DatabaseError as exc:
        if exc.number in _NOT_THERE:
            return ""
        raise
    text = str(row[1]) if row is not None else ""
    before, _, after = schema.split_auto_increment(text)
    return _hash(before + after)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def decide(intent: Intent, now: Mapping[str, str]) -> Decision:
    """Whether the statement was executed, by what its objects are now."""
    verb, _, noun = intent.verb.partition(" ")
    if verb in ("TRUNCATE", "GRANT") or intent.verb in statements.HARMLESS - {""}:
        return Decision.AGAIN
    if intent.has_rows:  # CREATE TABLE ... SELECT
        return Decision.AGAIN if intent.before and not any(now.values()) else Decision.UNKNOWN
    if verb in ("CREATE", "DROP") and "IF" in intent.words:
        return Decision.AGAIN
    if noun not in _SHOWN | _OF_SCHEMAS | {"DATABASE"} or not intent.before or now.keys() != intent.before.keys():
        return Decision.UNKNOWN
    changed = [now[name] != before for name, before in intent.before.items()]
    if noun == "DATABASE" and verb == "DROP":  # made of many: what is left of one is dropped again
        return Decision.AGAIN if all(now.values()) else Decision.DONE
    if verb == "DROP" and noun in _SHOWN - {"INDEX"}:
        return Decision.DONE if all(changed) else Decision.UNKNOWN if any(changed) else Decision.AGAIN
    if any(changed):
        return Decision.DONE
    return Decision.AGAIN if _leaves_a_trace_or_no_harm(intent, verb, noun) else Decision.UNKNOWN


def _leaves_a_trace_or_no_harm(intent: Intent, verb: str, noun: str) -> bool:
    """Of a statement after which everything is defined as before."""
    if verb in ("CREATE", "DROP"):
        return True
    if verb == "RENAME":
        return len(intent.before) == 2
    if verb != "ALTER" or noun in _OF_SCHEMAS | {"DATABASE"}:
        return verb == "ALTER"
    clauses = [word for word in intent.words if word in _ONE_BY_ONE]
    alike = len(clauses) <= 1 or set(clauses) in ({"ADD"}, {"DROP"})
    return alike and not _WITHOUT_TRACE & set(intent.words)
