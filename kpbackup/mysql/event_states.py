"""Scheduled events that a replay created or altered: a replica disables them, a restored server must not keep them so.

An applier stores events as SLAVESIDE_DISABLED (REPLICA_SIDE_DISABLED on newer MySQL), MariaDB's even those the
source created DISABLED. So the statements are watched on their way to the target, to know what each event's state
should be, and after the replay it is set: with the event's definer, in the session it was created in, and
without writing to the binlog. Whether the scheduler runs is not decided here.

The watching reads the head of CREATE EVENT and ALTER EVENT, up to DO, without quoted texts and comments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from kpbackup import errors
from kpbackup.mysql import events, quoting, server
from kpbackup.mysql.events import StreamEvent
from kpbackup.mysql.server import Connection

EventName = tuple[str, str]  # schema, name

_BY_REPLICATION = ("SLAVESIDE_DISABLED", "REPLICA_SIDE_DISABLED")
_ER_EVENT_CANNOT_ALTER_IN_THE_PAST = 1589
_HEAD_BYTES = 65_536  # the body follows; an event's comment has at most 64 characters

_NAME = r"(?:`(?:[^`]|``)+`|\"(?:[^\"]|\"\")+\"|[\w$]+)"
_STATEMENT = re.compile(
    rf"\s*(?P<verb>CREATE|ALTER)\s[^'(]{{0,400}}?\bEVENT\s+(?:IF\s+NOT\s+EXISTS\s+)?(?:(?P<schema>{_NAME})\s*\.\s*)?(?P<name>{_NAME})",
    re.IGNORECASE,
)
_RENAME = re.compile(rf"\bRENAME\s+TO\s+(?:(?P<schema>{_NAME})\s*\.\s*)?(?P<name>{_NAME})", re.IGNORECASE)
_QUOTED = re.compile(r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"|/\*.*?\*/|--\s[^\n]*|#[^\n]*", re.DOTALL)
_BODY = re.compile(r"\bDO\b", re.IGNORECASE)
_DISABLE = re.compile(r"\bDISABLE\b", re.IGNORECASE)
_ENABLE = re.compile(r"\bENABLE\b", re.IGNORECASE)


class EventWatch:
    """Knows which events should be enabled: from what the target had, and the statements that pass.

    `before` is the text of `states` from before the replay, for a replay that was interrupted and goes on.
    """

    def __init__(self, target: Connection, *, before: str = "") -> None:
        rows = json.loads(before or states(target))
        self._is_enabled = {_key(schema, name): status == "ENABLED" for schema, name, status in rows}
        self._before = frozenset((schema, name) for schema, name, status in rows if status in _BY_REPLICATION)

    def watch(self, stream: Iterator[StreamEvent]) -> Iterator[StreamEvent]:
        """The same events; the statements among them are noted."""
        for event in stream:
            if event.type in (events.QUERY, events.QUERY_COMPRESSED):
                self._note(event.data)
            yield event

    def settle(self, target: Connection) -> tuple[EventName, ...]:
        """Gives the events that the replay touched the state they should have; those it enabled.

        An event whose only time is past stays disabled.

        Raises:
            PrivilegeMissing, DatabaseError, ServerUnreachable.
        """
        touched = sorted(disabled_by_replication(target) - self._before)
        if not touched:
            return ()
        with server.connect(target.endpoint) as connection:  # its session settings change with each event
            connection.execute("SET SESSION sql_log_bin=0")
            wanted = {name: self._is_enabled.get(_key(*name), False) for name in touched}
            done = {name: _set_state(connection, *name, enable=enable) for name, enable in wanted.items()}
        return tuple(name for name in touched if wanted[name] and done[name])

    def _note(self, data: bytes) -> None:
        found = _STATEMENT.match(events.query_text(data, 500).decode("utf-8", "replace"))
        if found is None:
            return
        text = _QUOTED.sub(" ", events.query_text(data, _HEAD_BYTES).decode("utf-8", "replace")[found.end() :])
        head = _BODY.split(text, maxsplit=1)[0]
        database = events.query_database(data)
        key = _key(_plain(found["schema"]) or database, _plain(found["name"]))
        if _DISABLE.search(head):
            self._is_enabled[key] = False
        elif found["verb"].upper() == "CREATE" or _ENABLE.search(head):
            self._is_enabled[key] = True
        if renamed := _RENAME.search(head):
            fresh = _key(_plain(renamed["schema"]) or database, _plain(renamed["name"]))
            self._is_enabled[fresh] = self._is_enabled.pop(key, False)


def states(connection: Connection) -> str:
    """Every event of the server and its state, as text for `EventWatch`."""
    rows = connection.rows("SELECT event_schema, event_name, status FROM information_schema.events")
    return json.dumps([[str(value) for value in row] for row in rows], ensure_ascii=False)


def disabled_by_replication(connection: Connection) -> frozenset[EventName]:
    """The events that an applier disabled."""
    rows = connection.rows(
        "SELECT event_schema, event_name FROM information_schema.events WHERE status IN (%s, %s)", _BY_REPLICATION
    )
    return frozenset((str(schema), str(name)) for schema, name in rows)


def _set_state(connection: Connection, schema: str, name: str, *, enable: bool) -> bool:
    """Whether the event has the state now."""
    found = connection.row(
        "SELECT definer, sql_mode, time_zone, character_set_client, collation_connection FROM information_schema.events"
        " WHERE event_schema=%s AND event_name=%s",
        (schema, name),
    )
    if found is None:
        return False
    definer, *session = (str(value) for value in found)
    names = ("sql_mode", "time_zone", "character_set_client", "collation_connection")  # ALTER EVENT stores the session's
    for variable, value in zip(names, session, strict=True):
        connection.execute(f"SET SESSION {variable}=%s", (value,))
    user, _, host = definer.rpartition("@")
    account = quoting.account(user, host) if user else quoting.identifier(definer)  # a role has no host
    state = "ENABLE" if enable else "DISABLE"
    try:
        connection.execute(f"ALTER DEFINER={account} EVENT {quoting.qualified(schema, name)} {state}")
    except errors.DatabaseError as exc:
        if exc.number != _ER_EVENT_CANNOT_ALTER_IN_THE_PAST:
            raise
        return False
    return True


def _key(schema: str, name: str) -> EventName:
    return schema.lower(), name.lower()


def _plain(name: str | None) -> str:
    if not name:
        return ""
    return name[1:-1].replace(name[0] * 2, name[0]) if name[0] in "`\"" else name
