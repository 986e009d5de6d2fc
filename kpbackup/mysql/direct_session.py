"""What a session must be told so that a statement or transaction of the source means on the target what it meant there.

Variables that are set already are not set again: some need a right even when nothing changes.
"""

from __future__ import annotations

from kpbackup.mysql import load_session, query_event, quoting, server
from kpbackup.mysql.direct_steps import Begin, Statement
from kpbackup.mysql.facts import ServerFacts

TIMEOUT_S = 3600.0  # one statement may take long; nothing at all for an hour is a hang
_NEED_RIGHTS = ("default_table_encryption", "sql_require_primary_key", "explicit_defaults_for_timestamp",
                "default_collation_for_utf8mb4")
_PLAIN = {"sql_mode": "''", "foreign_key_checks": "1", "unique_checks": "1", "timestamp": "DEFAULT"}


class Session:
    """The replaying session's variables, as SQL to send."""

    def __init__(self, connection: server.Connection, facts: ServerFacts) -> None:
        self._connection = connection
        self._mariadb, self._version = facts.mariadb, facts.version
        self._now: dict[str, str] = {}
        self._stamp_s: int | None = None  # whole seconds as `identity` set them
        self._database: str | None = None
        self._collations: dict[int, tuple[str, str]] = {}

    def prepare(self) -> None:
        """Once, before the first transaction."""
        values = {
            "sql_mode": "''", "sql_safe_updates": "0", "innodb_lock_wait_timeout": "3600", "lock_wait_timeout": "86400",
            "wait_timeout": "28800", "net_read_timeout": "3600", "autocommit": "0",
        }
        if self._mariadb:
            values |= {"max_statement_time": "0", "idle_transaction_timeout": "0", "idle_write_transaction_timeout": "0"}
            values["binlog_annotate_row_events"] = "0"  # else every change is annotated with the whole BINLOG statement it is in
        self._connection.execute("SET " + ", ".join(f"SESSION {name}={value}" for name, value in values.items()))
        if not self._mariadb:
            load_session.take_all_foreign_keys(self._connection, self._version)
            for name in _NEED_RIGHTS:
                found = self._connection.row("SHOW SESSION VARIABLES LIKE %s", (name,))
                if found is not None:
                    self._now[name] = _as_number(str(found[1]))

    def identity(self, begin: Begin) -> tuple[bytes, ...]:
        """The transaction's own GTID and times."""
        stamp = "" if begin.timestamp_s == self._stamp_s else f",timestamp={begin.timestamp_s}"
        self._stamp_s = begin.timestamp_s
        if self._mariadb:
            domain, server_id, seq = begin.gtid.split("-")
            wanted = {"gtid_domain_id": domain, "server_id": server_id}
            changed = {name: value for name, value in wanted.items() if self._now.get(name) != value}
            self._now |= changed
            values = {**changed, "gtid_seq_no": seq}
            return ((f"SET {','.join(f'SESSION {name}={value}' for name, value in values.items())}" + stamp).encode(),)
        stamp += f",original_commit_timestamp={begin.commit_at_us}" if begin.commit_at_us else ""
        return (f"SET gtid_next='{begin.gtid}'{stamp}".encode(),)

    def context(self, step: Statement) -> list[bytes]:
        """Default database, session variables, and what INTVAR, RAND and USER_VAR events say."""
        query = step.query
        self._stamp_s = None
        found = []
        if query.database and not query.is_use_suppressed and query.database != self._database:
            found.append(b"USE " + quoting.identifier(query.database).encode("utf-8", "surrogateescape"))
            self._database = query.database
        wanted = query_event.assignments(query, mariadb=self._mariadb)
        changed = {name: value for name, value in wanted.items() if name in _PLAIN or self._now.get(name) != value}
        self._now |= wanted
        # the names of the databases were sent as utf8mb4, so what changes the character set comes behind
        found.append(("SET " + ",".join(f"SESSION {name}={value}" for name, value in changed.items())).encode())
        for data in step.context:
            found.append(("SET " + query_event.context_assignment(data, self._collation)).encode("utf-8", "surrogateescape"))
        return found

    def plain(self) -> list[bytes]:
        """Behind a statement: as rows need it, and names in utf8mb4."""
        self._stamp_s = None
        self._now |= {"character_set_client": "45"}
        values = {**_PLAIN, "character_set_client": "utf8mb4"}
        if self._mariadb:
            values["check_constraint_checks"] = "1"
        return [("SET " + ",".join(f"SESSION {name}={value}" for name, value in values.items())).encode()]

    def _collation(self, number: int) -> tuple[str, str]:
        if not self._collations:
            with server.connect(self._connection.endpoint) as other:  # this one has answers under way
                table = "collation_character_set_applicability" if self._mariadb else "collations"
                name = "full_collation_name" if self._mariadb else "collation_name"
                rows = other.rows(f"SELECT id, character_set_name, {name} FROM information_schema.{table}")
            self._collations = {int(row[0]): (str(row[1]), str(row[2])) for row in rows}
        return self._collations[number]


def _as_number(value: str) -> str:
    return {"ON": "1", "OFF": "0"}.get(value.upper(), value)
