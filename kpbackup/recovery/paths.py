"""By which path archived transactions come into the target: served to its own appliers, or sent over a connection (direct).

Decided twice. When the plan is made, by the account's grants: nothing is changed, and a target that can take neither path is
refused. Then in step 1, before anything is loaded, by trying it: one made-up transaction, with the archive's own format
description, goes into a scratch table by the very path the replay will take. So a firewall, a proxy or a managed service is
met here and not after hours of loading.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from kpbackup import errors
from kpbackup.model.coordinates import Coordinates
from kpbackup.model.manifest import BackupSet
from kpbackup.mysql import direct, events, gtid_state, load, replay, replica_channel, server, trial_transaction
from kpbackup.mysql.events import StreamEvent
from kpbackup.mysql.facts import ServerFacts, read_facts
from kpbackup.mysql.privileges import Privileges, read_privileges
from kpbackup.recovery.steps import RecoveryRequest

SERVED, DIRECT = "served", "direct"
TRIAL_CONNECT_S = 10.0  # a replica retries every second

_TABLE = "trial"
_PROVIDERS = (  # their procedures take a real server as the source, so kpbackup cannot use them itself
    "a managed service replicates by its provider's way alone (Amazon RDS and Aurora: CALL mysql.rds_set_external_source, Azure:"
    " CALL mysql.az_replication_change_master, Cloud SQL: replication from an external server): restore into a server of your own"
    " and let the service replicate from there"
)


@dataclass(frozen=True)
class Path:
    """`name` is `served` or `direct`; `keeps_gtids`: transactions keep the source's GTIDs."""

    name: str
    keeps_gtids: bool = True

    def __str__(self) -> str:
        return self.name if self.keeps_gtids else f"{self.name}, grouped"

    @classmethod
    def parse(cls, text: str) -> Path:
        """What `str` gave."""
        name, _, rest = text.partition(", ")
        return cls(name, not rest)


def possible(connection: server.Connection, facts: ServerFacts, request: RecoveryRequest) -> tuple[str, ...]:
    """The paths that the settings allow and the account's grants do, the better one first.

    Raises:
        PrivilegeMissing: none; with what is missing for each.
        TargetRefused: the target replicates from elsewhere.
    """
    wanted = (SERVED, DIRECT) if request.replaying.path == "auto" else (request.replaying.path,)
    if request.into:
        wanted = (DIRECT,)  # the only one that can filter
    rights = read_privileges(connection)
    refusals: dict[str, errors.PrivilegeMissing] = {}
    for path in wanted:
        try:
            if path == SERVED:
                replay.check_privileges(connection, facts)
            else:
                check_direct(connection, facts, rights, makes_routines=not request.into)
        except errors.PrivilegeMissing as exc:
            refusals[path] = exc
    if len(refusals) == len(wanted):
        raise errors.PrivilegeMissing(
            "; ".join(f"{path} replay: {exc.message}" for path, exc in refusals.items()),
            hint=f"{' or '.join(exc.hint for exc in refusals.values())}; {_PROVIDERS}",
        )
    if SERVED not in refusals:
        replica_channel.refuse_other_replication(connection, facts)
    return tuple(path for path in wanted if path not in refusals)


def check_direct(connection: server.Connection, facts: ServerFacts, rights: Privileges, *, makes_routines: bool) -> None:
    """Raises PrivilegeMissing: the account may not replay over an ordinary connection."""
    if facts.mariadb:
        is_super = rights.has("SUPER") and facts.version < replay.MARIADB_SPLIT_SUPER
        missing = [] if is_super else [name for name in ("BINLOG REPLAY", "BINLOG ADMIN") if not rights.has(name)]
    else:
        admins = ("SESSION_VARIABLES_ADMIN", "SYSTEM_VARIABLES_ADMIN")
        missing = [] if rights.has("BINLOG_ADMIN") else ["BINLOG_ADMIN"]
        missing += [] if rights.has_any(*admins) else ["SESSION_VARIABLES_ADMIN"]
    if missing:
        raise errors.PrivilegeMissing(
            f"cannot replay on {connection.endpoint.name}: the account lacks {', '.join(missing)}",
            hint=f"GRANT {', '.join(missing)} ON *.* TO {rights.account}",
        )
    trusts = str(connection.value("SELECT @@GLOBAL.log_bin_trust_function_creators"))
    if makes_routines and facts.log_bin and trusts == "0" and not rights.has("SUPER"):
        raise errors.PrivilegeMissing(
            f"cannot replay on {connection.endpoint.name}: without SUPER its binlog forbids triggers and functions",
            hint="SET GLOBAL log_bin_trust_function_creators = 1",
        )


def keeps_gtids(connection: server.Connection, facts: ServerFacts, backup_set: BackupSet) -> bool:
    """Whether the direct path can give transactions the source's GTIDs and leave the target in the source's GTID state."""
    try:
        replay.check_privileges(connection, facts)
    except errors.PrivilegeMissing:
        return False
    if facts.mariadb:
        return facts.log_bin and bool(backup_set.coordinates.gtid)
    return facts.gtid_mode == "ON" and bool(backup_set.coordinates.gtid)


def prove(request: RecoveryRequest, backup_set: BackupSet, description: bytes) -> Path:
    """The first possible path by which a made-up transaction really came into the target.

    The target's GTID state is another one afterwards where the path may set it: the replay does.

    Raises:
        PrivilegeMissing, TargetRefused, StepFailed: none works.
    """
    with server.connect(request.endpoint) as connection:
        facts = read_facts(connection)
        paths = possible(connection, facts, request)
        keeps = not request.into and keeps_gtids(connection, facts, backup_set)
        failures: list[errors.KpbackupError] = []
        for name in paths:
            path = Path(name, keeps_gtids=name == SERVED or keeps)
            try:
                _make_scratch(connection, write_binlog=bool(request.into))
                _try(connection, facts, request, path, _trial(facts, description, backup_set))
                if connection.value(f"SELECT a FROM {load.SCRATCH_SCHEMA}.{_TABLE}") != trial_transaction.VALUE:
                    raise errors.StepFailed(f"the row of the trial did not come to {request.endpoint.name}")
                return path
            except errors.KpbackupError as exc:
                failures.append(exc)
            finally:
                _drop_scratch(request.endpoint, write_binlog=bool(request.into))
    raise errors.StepFailed(
        "nothing was loaded: a trial of the replay failed; "
        + "; ".join(f"{name}: {exc.message}" for name, exc in zip(paths, failures, strict=True)),
        hint=" or ".join(filter(None, (exc.hint for exc in failures))),
    )


def _drop_scratch(endpoint: server.Endpoint, *, write_binlog: bool) -> None:
    """By a connection of its own: an interrupt may have cut the other one off in the middle of an answer."""
    with server.connect(endpoint) as connection:
        load.prepare_session(connection, write_binlog=write_binlog)
        connection.execute(f"DROP DATABASE IF EXISTS {load.SCRATCH_SCHEMA}")


def _make_scratch(connection: server.Connection, *, write_binlog: bool) -> None:
    load.prepare_session(connection, write_binlog=write_binlog)
    connection.execute(f"DROP DATABASE IF EXISTS {load.SCRATCH_SCHEMA}")
    connection.execute(f"CREATE DATABASE {load.SCRATCH_SCHEMA}")
    connection.execute(f"CREATE TABLE {load.SCRATCH_SCHEMA}.{_TABLE} ({trial_transaction.COLUMN}) ENGINE=InnoDB")


def _trial(facts: ServerFacts, description: bytes, backup_set: BackupSet) -> list[StreamEvent]:
    return trial_transaction.transaction(
        description, mariadb=facts.mariadb, with_gtid=facts.gtid_mode == "ON" and bool(backup_set.coordinates.gtid),
        number=time.time_ns() // 1000, schema=load.SCRATCH_SCHEMA, table=_TABLE,
    )


def _try(
    connection: server.Connection, facts: ServerFacts, request: RecoveryRequest, path: Path, trial: list[StreamEvent]
) -> None:
    start = Coordinates(trial_transaction.FILE, events.FIRST_POSITION)
    if path.name == DIRECT:
        with direct.opened(request.endpoint, facts, direct.Manner(path.keeps_gtids)) as applier:
            applier.begin(start)
            applier.run(trial)
        return

    def read_from(_: str, __: int) -> Iterator[StreamEvent]:
        return iter(trial)

    replay.replay(
        connection, facts, read_from=read_from, start=start, workers=0 if facts.mariadb else 1, set_gtid_state=False,
        listening=request.replaying.listening, connect_timeout_s=TRIAL_CONNECT_S,
    )


def reset(connection: server.Connection, facts: ServerFacts, start: Coordinates, path: Path) -> None:
    """The target's GTID state before the replay, where the path may set it."""
    if path.name == SERVED:
        replica_channel.remove(connection, facts)
    if path.keeps_gtids:
        gtid_state.set_state(connection, facts, start.gtid)
