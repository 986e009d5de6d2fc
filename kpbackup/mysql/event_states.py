"""Scheduled events that a replay created: a replica disables them, a restored server must not keep them so.

A replica creates an enabled event as SLAVESIDE_DISABLED (REPLICA_SIDE_DISABLED from MySQL 8.4 on); a disabled one stays
DISABLED. So what is found in that state after a replay and was not before is enabled again, with its definer, in
the session it was created in, and without writing to the binlog. Whether the scheduler runs is not decided here.
"""

from __future__ import annotations

from kpbackup import errors
from kpbackup.mysql import quoting, server
from kpbackup.mysql.server import Connection

EventName = tuple[str, str]  # schema, name

_DISABLED = ("SLAVESIDE_DISABLED", "REPLICA_SIDE_DISABLED")
_ER_EVENT_CANNOT_ALTER_IN_THE_PAST = 1589


def disabled_by_replication(connection: Connection) -> frozenset[EventName]:
    """The events a replica's applier disabled."""
    rows = connection.rows(
        "SELECT event_schema, event_name FROM information_schema.events WHERE status IN (%s, %s)", _DISABLED
    )
    return frozenset((str(schema), str(name)) for schema, name in rows)


def enable(endpoint: server.Endpoint, names: frozenset[EventName]) -> tuple[EventName, ...]:
    """Enables the events, in a session of its own; those it enabled. One whose time is past stays as it is.

    Raises:
        PrivilegeMissing, DatabaseError, ServerUnreachable.
    """
    if not names:
        return ()
    enabled = []
    with server.connect(endpoint) as connection:
        connection.execute("SET SESSION sql_log_bin=0")
        for schema, name in sorted(names):
            if _enable_one(connection, schema, name):
                enabled.append((schema, name))
    return tuple(enabled)


def _enable_one(connection: Connection, schema: str, name: str) -> bool:
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
    try:
        connection.execute(f"ALTER DEFINER={account} EVENT {quoting.qualified(schema, name)} ENABLE")
    except errors.DatabaseError as exc:
        if exc.number != _ER_EVENT_CANNOT_ALTER_IN_THE_PAST:
            raise
        return False
    return True
