"""The replication channel 'kpbackup' on a target: configured, watched, removed. MariaDB and MySQL under one set of names.

A channel of that name belongs to kpbackup: one that a killed run left is removed before the next is made.
Its login is a one-time account that lives only as long as the process that made it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pymysql

from kpbackup import errors
from kpbackup.model.coordinates import Coordinates
from kpbackup.mysql import events, server
from kpbackup.mysql.facts import ServerFacts
from kpbackup.mysql.serve import Progress, ReplicationSource, announced, file_announced

CHANNEL = "kpbackup"
HEARTBEAT_S = 5


def configure(
    target: server.Connection, facts: ServerFacts, source: ReplicationSource, start: Coordinates, *, assign_gtids: bool,
    host: str,
) -> None:
    """Makes the channel, not started. `host` is where the target reaches the source; `assign_gtids`: anonymous
    transactions get GTIDs of the target's own."""
    tls = int(source.is_tls)
    values: tuple[object, ...] = (
        host, source.port, source.account.user, source.account.password,
        announced(start.file), max(start.position, events.FIRST_POSITION),
    )
    if facts.mariadb:
        target.execute(
            f"CHANGE MASTER '{CHANNEL}' TO MASTER_HOST=%s, MASTER_PORT=%s, MASTER_USER=%s, MASTER_PASSWORD=%s,"
            " MASTER_LOG_FILE=%s, MASTER_LOG_POS=%s, MASTER_USE_GTID=no,"
            f" MASTER_SSL={tls}, MASTER_SSL_VERIFY_SERVER_CERT=0, MASTER_CONNECT_RETRY=1, MASTER_HEARTBEAT_PERIOD={HEARTBEAT_S}",
            values,
        )
        return
    assign = ", ASSIGN_GTIDS_TO_ANONYMOUS_TRANSACTIONS=LOCAL" if assign_gtids else ""
    target.execute(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST=%s, SOURCE_PORT=%s, SOURCE_USER=%s, SOURCE_PASSWORD=%s, SOURCE_LOG_FILE=%s,"
        " SOURCE_LOG_POS=%s, SOURCE_AUTO_POSITION=0, SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=86400,"
        f" SOURCE_SSL={tls}, SOURCE_SSL_VERIFY_SERVER_CERT=0, SOURCE_HEARTBEAT_PERIOD={HEARTBEAT_S}{assign}"
        f" FOR CHANNEL '{CHANNEL}'",
        values,
    )


def start(target: server.Connection, facts: ServerFacts) -> None:
    """Starts the channel's threads; they connect by themselves."""
    target.execute(f"START SLAVE '{CHANNEL}'" if facts.mariadb else f"START REPLICA FOR CHANNEL '{CHANNEL}'")


@dataclass(frozen=True)
class Status:
    """What the target says of the channel, one name for each fact on both flavours."""

    file: str
    position: int
    io_running: str
    sql_running: str
    io_error: str
    sql_error: str

    @classmethod
    def read(cls, target: server.Connection, facts: ServerFacts) -> Status:
        row = _status_row(target, facts)
        source, replica = ("Master", "Slave") if facts.mariadb else ("Source", "Replica")
        return cls(
            file=file_announced(str(row[f"Relay_{source}_Log_File"])), position=int(row[f"Exec_{source}_Log_Pos"]),
            io_running=str(row[f"{replica}_IO_Running"]), sql_running=str(row[f"{replica}_SQL_Running"]),
            io_error=str(row["Last_IO_Error"] or ""), sql_error=str(row["Last_SQL_Error"] or ""),
        )

    def has_executed(self, progress: Progress) -> bool:
        return not progress.file or (self.file == progress.file and self.position >= progress.position)

    def raise_stopped(self, target: server.Connection) -> None:
        """Raises StepFailed when a thread stopped by itself."""
        if self.sql_running == "No":
            text = self.sql_error or "the applier stopped without saying why"
            raise errors.StepFailed(
                f"replay on {target.endpoint.name} stopped at {self.file}:{self.position}: {text}{_worker_errors(target)}",
                hint="does the target hold exactly the backup set's data? restore again into an empty target",
            )
        if self.io_running == "No":
            raise errors.StepFailed(
                f"{target.endpoint.name} stopped reading from kpbackup: {self.io_error or 'it does not say why'}",
                hint="see the target's error log",
            )


def _status_row(target: server.Connection, facts: ServerFacts) -> dict[str, Any]:
    sql = f"SHOW SLAVE '{CHANNEL}' STATUS" if facts.mariadb else f"SHOW REPLICA STATUS FOR CHANNEL '{CHANNEL}'"
    found = _dicts(target, sql)
    if not found:
        raise errors.StepFailed(f"the replication channel '{CHANNEL}' on {target.endpoint.name} was removed by somebody else")
    return found[0]


def _dicts(target: server.Connection, sql: str) -> list[dict[str, Any]]:
    """Rows by column name: the columns of a status differ between versions."""
    try:
        with target.raw.cursor(pymysql.cursors.DictCursor) as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())
    except pymysql.MySQLError as exc:
        raise server.translate(exc, f"reading the replica status of {target.endpoint.name}") from exc


def _worker_errors(target: server.Connection) -> str:
    """MySQL's coordinator only says that a worker failed; the reason stands here."""
    try:
        rows = target.rows(
            "SELECT DISTINCT last_error_message FROM performance_schema.replication_applier_status_by_worker"
            " WHERE channel_name=%s AND last_error_number <> 0", (CHANNEL,),
        )
    except errors.KpbackupError:
        return ""  # MariaDB, or no right to read it: the status text has to do
    return "".join(f"; {row[0]}" for row in rows)


def _all_channels(target: server.Connection, facts: ServerFacts) -> list[str]:
    rows = _dicts(target, "SHOW ALL SLAVES STATUS" if facts.mariadb else "SHOW REPLICA STATUS")
    return [str(row["Connection_name" if facts.mariadb else "Channel_Name"]) for row in rows]


def refuse_other_replication(target: server.Connection, facts: ServerFacts) -> None:
    """Raises TargetRefused when the target replicates from elsewhere, or skips replication errors."""
    others = [name or "(default)" for name in _all_channels(target, facts) if name != CHANNEL]
    if others:
        raise errors.TargetRefused(
            f"{target.endpoint.name} is a replica itself (channel {', '.join(others)})",
            hint="stop it and remove its replica configuration with RESET SLAVE ALL (MySQL: RESET REPLICA ALL)",
        )
    skipping = "slave_skip_errors" if facts.mariadb else "replica_skip_errors"
    value = str(target.value(f"SELECT @@GLOBAL.{skipping}") or "OFF")
    if value.upper() != "OFF":
        raise errors.TargetRefused(f"{target.endpoint.name} has {skipping}={value}: a replay must not skip errors",
                                   hint=f"remove {skipping} from the target's configuration")


def refuse_filters(target: server.Connection, facts: ServerFacts) -> None:
    """Raises TargetRefused when the configured channel would leave something out."""
    row = _status_row(target, facts)
    found = [f"{name}={row[name]}" for name in row if name.startswith("Replicate_") and row[name] and "Server_Ids" not in name]
    if found:
        raise errors.TargetRefused(f"{target.endpoint.name} filters replication ({'; '.join(found)})",
                                   hint="remove the replicate_* settings from the target's configuration")


def remove(target: server.Connection, facts: ServerFacts) -> None:
    """Removes the channel, if there is one, with its relay logs."""
    if CHANNEL not in _all_channels(target, facts):
        return
    if facts.mariadb:
        target.execute(f"STOP SLAVE '{CHANNEL}'")
        target.execute(f"RESET SLAVE '{CHANNEL}' ALL")
    else:
        target.execute(f"STOP REPLICA FOR CHANNEL '{CHANNEL}'")
        target.execute(f"RESET REPLICA ALL FOR CHANNEL '{CHANNEL}'")


def executed(target: server.Connection, facts: ServerFacts) -> Coordinates | None:
    """How far the channel of an interrupted replay came, after stopping it; None when there is no channel.

    Stopping waits for the workers, so the position is that of whole transactions without gaps.
    """
    if CHANNEL not in _all_channels(target, facts):
        return None
    stop(target, facts)
    status = Status.read(target, facts)
    return Coordinates(status.file, status.position)


def stop(target: server.Connection, facts: ServerFacts) -> None:
    """Stops the channel, which stays as it is; its workers finish the transactions they have begun."""
    target.execute(f"STOP SLAVE '{CHANNEL}'" if facts.mariadb else f"STOP REPLICA FOR CHANNEL '{CHANNEL}'")
