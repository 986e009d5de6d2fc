"""One consistent point: snapshots of several sessions that all show the same moment, and the coordinates of that moment.

A ladder of ways, the first one the account may climb is taken:

    MariaDB  backup_stage         BACKUP STAGE ... BLOCK_COMMIT: commits wait, reads and open transactions go on  (RELOAD)
    MySQL    instance_lock_ftwrl  LOCK INSTANCE FOR BACKUP, then FLUSH TABLES WITH READ LOCK  (BACKUP_ADMIN, RELOAD)
    both     flush_tables         FLUSH TABLES WITH READ LOCK  (RELOAD, or FLUSH_TABLES on MySQL)
    both     lock_tables          LOCK TABLES ... READ of every table in a session of its own  (LOCK TABLES, SELECT)
    both     lock_free            no lock: proven that nothing was committed meanwhile, else tried again

The workers' START TRANSACTION WITH CONSISTENT SNAPSHOT happens in their own sessions while the coordinator holds the
point (in the coordinator's session it would release LOCK TABLES). Waiting for a lock holds up the application's writes too,
so each wait is short and there is a pause between two. A crash ends the coordinator's session and with it every lock.

lock_free, the proof. MariaDB: a consistent snapshot knows its own binlog position (Binlog_snapshot_*); one taken before
the workers' and one taken after show the same position, so theirs do. MySQL: a transaction owns its GTID from before it is
in the binlog until after it is visible; the position is read, then nobody owns a GTID, then the workers' snapshots, then
the same position again. With gtid_mode off there is no such proof, and the rung is left out.

Prepared XA transactions are invisible to snapshots, and their changes lie before the coordinates: waited for, then refused.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from kpbackup import errors
from kpbackup.model.coordinates import Coordinates
from kpbackup.model.inventory import Table
from kpbackup.mysql.coordinates import read_coordinates
from kpbackup.mysql.facts import ServerFacts, clock
from kpbackup.mysql.findings import grant
from kpbackup.mysql.privileges import Privileges
from kpbackup.mysql.quoting import qualified
from kpbackup.mysql.server import Connection

ATTEMPT_WAIT_S = 5  # one wait for locks; longer would be an outage for the application's writers
PAUSE_S = 1.0  # lets the writers that queued behind us through
SETTLE_READINGS = 50  # a few milliseconds in all
LOCK_FREE_ATTEMPTS = 20
LOCK_FREE_PAUSE_S = 0.25
LOCK_WAIT_TIMEOUT = 1205
ACCESS_DENIED = 1045  # what Amazon RDS answers to FLUSH TABLES WITH READ LOCK
XA_NOT_ALLOWED = 1401
BACKUP_STAGES_SINCE = (10, 4, 1)  # MariaDB


class Rung(enum.StrEnum):
    """How the point was held; the value stands in the manifest."""

    BACKUP_STAGE = "backup_stage"
    INSTANCE_LOCK_FTWRL = "instance_lock_ftwrl"
    FLUSH_TABLES = "flush_tables"
    LOCK_TABLES = "lock_tables"
    LOCK_FREE = "lock_free"


@dataclass(frozen=True)
class PointTaken:
    """The point, after its release. `locked_s`: how long writes were held up, waits for locks and earlier attempts included."""

    rung: Rung
    coordinates: Coordinates
    clock: datetime
    locked_s: float
    warnings: tuple[str, ...] = ()


def ladder(facts: ServerFacts, privileges: Privileges, tables: Sequence[Table]) -> tuple[Rung, ...]:
    """The rungs the account may use on this server, best first; () when there is none.

    Tables without transactions need a lock: lock_free is then left out.
    """
    found = []
    flush = privileges.has("RELOAD") or (not facts.mariadb and privileges.has("FLUSH_TABLES"))
    if facts.mariadb and facts.version >= BACKUP_STAGES_SINCE and privileges.has("RELOAD"):
        found.append(Rung.BACKUP_STAGE)
    if not facts.mariadb and flush and privileges.has("BACKUP_ADMIN"):
        found.append(Rung.INSTANCE_LOCK_FTWRL)
    if flush:
        found.append(Rung.FLUSH_TABLES)
    if all(_may_lock(privileges, table) for table in tables):
        found.append(Rung.LOCK_TABLES)
    if (facts.mariadb or facts.gtid_mode == "ON") and not without_transactions(tables):
        found.append(Rung.LOCK_FREE)
    return tuple(found)


def _may_lock(privileges: Privileges, table: Table) -> bool:
    return all(privileges.has_on(name, table.schema, table.name) for name in ("LOCK TABLES", "SELECT"))


def without_transactions(tables: Sequence[Table]) -> tuple[Table, ...]:
    """The tables with rows that no snapshot covers: copy them before the release."""
    return tuple(table for table in tables if table.holds_rows and not table.transactional)


class ConsistentPoint:
    """A held point: `settle` with the function that opens all snapshots, copy what needs the lock, `release`."""

    def __init__(
        self,
        coordinator: Connection,
        facts: ServerFacts,
        rung: Rung,
        tables: Sequence[Table],
        *,
        since: float,
        blocked_before_s: float = 0.0,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.rung = rung
        self.warnings = warnings
        self.has_non_transactional = bool(without_transactions(tables))
        self._coordinator = coordinator
        self._facts = facts
        self._since, self._blocked_before_s = since, blocked_before_s
        self._settled: tuple[Coordinates, datetime] | None = None
        self._taken: PointTaken | None = None

    def settle(self, open_snapshots: Callable[[], object]) -> None:
        """Opens the workers' snapshots at this point. On the rung lock_free it may call `open_snapshots` several times.

        Raises:
            SnapshotError: the server never stood still on the rung lock_free.
        """
        if self.rung is not Rung.LOCK_FREE:
            coordinates = _locked_position(self._coordinator, self._facts)
            at = clock(self._coordinator)
            open_snapshots()
            self._settled = coordinates, at
            return
        for attempt in range(LOCK_FREE_ATTEMPTS):
            if attempt:
                time.sleep(LOCK_FREE_PAUSE_S)
            before, at = _quiet_position(self._coordinator, self._facts), clock(self._coordinator)
            if before is None:
                continue
            open_snapshots()
            if _snapshot_position(self._coordinator, self._facts) == before:
                self._settled = _with_gtid(self._coordinator, self._facts, before), at
                return
        raise errors.SnapshotError(
            f"no consistent point on {self._coordinator.endpoint.name}: the account may not lock, and writes came in "
            f"during each of {LOCK_FREE_ATTEMPTS} attempts"
        )

    def release(self) -> PointTaken:
        """Lets the writes go on; a second call gives the same answer.

        Raises:
            InternalError: settle() was not called.
        """
        if self._settled is None:
            raise errors.InternalError("a consistent point was released before it was settled")
        if self._taken is None:
            _unlock(self._coordinator, self.rung)
            locked_s = 0.0 if self.rung is Rung.LOCK_FREE else self._blocked_before_s + time.monotonic() - self._since
            self._taken = PointTaken(self.rung, *self._settled, locked_s, self.warnings)
        return self._taken


@contextmanager
def hold_consistent_point(
    coordinator: Connection, facts: ServerFacts, privileges: Privileges, tables: Sequence[Table], *, max_wait_s: float = 60.0
) -> Iterator[ConsistentPoint]:
    """A held point. `coordinator` must do nothing else until release() or the end of the block, which releases too.

    `tables` are all that will be read. `max_wait_s` bounds the waiting for locks and for prepared XA transactions.

    Raises:
        ServerUnfit: the binlog is off. PrivilegeMissing: no rung is open; the hint is the GRANT.
        SnapshotError: a lock could not be had in time, or an XA transaction stayed prepared.
    """
    if not facts.log_bin:
        read_coordinates(coordinator, facts)  # raises the error that says how to mend it
    rungs = ladder(facts, privileges, tables)
    advice = grant(facts, ("RELOAD",) if facts.mariadb else ("RELOAD", "BACKUP_ADMIN"), privileges.account)
    if not rungs:
        names = ", ".join(f"{table.schema}.{table.name}" for table in without_transactions(tables))
        why = f"tables without transactions need a lock: {names}" if names else "it may neither lock nor prove the server still"
        raise errors.PrivilegeMissing(f"no consistent point for {privileges.account}: {why}", hint=advice)
    try:
        point = _first_granted(coordinator, facts, rungs, tables, time.monotonic() + max_wait_s)
        try:
            yield point
        finally:
            if coordinator.raw.open and point._taken is None:
                _unlock(coordinator, point.rung)
    except errors.SnapshotError as exc:
        exc.hint = exc.hint or advice
        raise


def _first_granted(
    coordinator: Connection, facts: ServerFacts, rungs: Sequence[Rung], tables: Sequence[Table], deadline: float
) -> ConsistentPoint:
    """Managed services refuse statements that the grants allow: then the next rung is tried."""
    for rung, following in zip(rungs, [*rungs[1:], None], strict=True):
        try:
            return _held(coordinator, facts, rung, tables, deadline)
        except (errors.PrivilegeMissing, errors.DatabaseError) as exc:
            denied = isinstance(exc, errors.PrivilegeMissing) or exc.number == ACCESS_DENIED
            if following is None or not denied:
                raise
    raise errors.InternalError("a ladder without rungs")


def _held(coordinator: Connection, facts: ServerFacts, rung: Rung, tables: Sequence[Table], deadline: float) -> ConsistentPoint:
    """Locks, within the deadline, at a moment without prepared XA transactions."""
    why, blocked_s = "", 0.0
    while True:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise errors.SnapshotError(
                f"no consistent point on {coordinator.endpoint.name} within the time allowed ({rung}): {why}", hint=_hint(why)
            )
        coordinator.execute(f"SET SESSION lock_wait_timeout = {max(1, min(ATTEMPT_WAIT_S, int(left_s)))}")
        prepared, warning = _prepared_xa(coordinator)  # looked at first: it may hold the very locks that are asked for
        if not prepared:
            began = time.monotonic()
            since = _lock(coordinator, rung, tables)
            prepared = () if since is None else _prepared_xa(coordinator)[0]
            if since is not None and not prepared:
                return ConsistentPoint(
                    coordinator, facts, rung, tables, since=since, blocked_before_s=blocked_s,
                    warnings=(warning,) if warning else (),
                )
            why = "a lock was not granted, time and again"
            if since is not None:
                _unlock(coordinator, rung)
            blocked_s += time.monotonic() - began  # who asks for a lock that is not granted holds up those who come after
        if prepared:
            why = f"XA transactions stay prepared: {', '.join(prepared)}"
        time.sleep(max(0.0, min(PAUSE_S, deadline - time.monotonic())))


def _hint(why: str) -> str:
    if why.startswith("XA"):
        return "commit or roll back the XA transactions (XA RECOVER lists them) and run the backup again"
    return "look for long statements, DDL or LOCK TABLES in SHOW PROCESSLIST, or run the backup at a quieter time"


def _prepared_xa(connection: Connection) -> tuple[tuple[str, ...], str]:
    """(global ids of the prepared transactions, '' or a warning that the account may not see them)."""
    try:
        rows = connection.rows("XA RECOVER")
    except (errors.PrivilegeMissing, errors.DatabaseError) as exc:
        if isinstance(exc, errors.DatabaseError) and exc.number != XA_NOT_ALLOWED:
            raise
        return (), "prepared XA transactions could not be looked for: the account lacks XA_RECOVER_ADMIN"
    ids = (row[3] for row in rows)
    return tuple(one.decode("utf-8", "backslashreplace") if isinstance(one, bytes) else str(one) for one in ids), ""


def _lock(coordinator: Connection, rung: Rung, tables: Sequence[Table]) -> float | None:
    """When (monotonic) the statement that holds up writes was sent, or None if a lock was not had: then none is held."""
    since = time.monotonic()
    done = 0
    try:
        for statement in _lock_statements(rung, tables):
            since = time.monotonic()
            coordinator.execute(statement)
            done += 1
    except errors.KpbackupError as exc:
        if done and coordinator.raw.open:
            _unlock(coordinator, rung)
        if isinstance(exc, errors.DatabaseError) and exc.number == LOCK_WAIT_TIMEOUT:
            return None
        raise
    return since


def _lock_statements(rung: Rung, tables: Sequence[Table]) -> Iterator[str]:
    if rung is Rung.BACKUP_STAGE:
        yield from (f"BACKUP STAGE {stage}" for stage in ("START", "FLUSH", "BLOCK_DDL", "BLOCK_COMMIT"))
    if rung is Rung.INSTANCE_LOCK_FTWRL:
        yield "LOCK INSTANCE FOR BACKUP"
    if rung in (Rung.INSTANCE_LOCK_FTWRL, Rung.FLUSH_TABLES):
        yield "FLUSH TABLES WITH READ LOCK"
    if rung is Rung.LOCK_TABLES and tables:
        # one statement: a second LOCK TABLES would release the first
        yield "LOCK TABLES " + ", ".join(f"{qualified(table.schema, table.name)} READ" for table in tables)


def _unlock(coordinator: Connection, rung: Rung) -> None:
    if rung is Rung.BACKUP_STAGE:
        coordinator.execute("BACKUP STAGE END")
    elif rung is Rung.LOCK_FREE:
        coordinator.execute("ROLLBACK")
    else:
        coordinator.execute("UNLOCK TABLES")
    if rung is Rung.INSTANCE_LOCK_FTWRL:
        coordinator.execute("UNLOCK INSTANCE")


def _locked_position(coordinator: Connection, facts: ServerFacts) -> Coordinates:
    """The position under a lock.

    LOCK TABLES leaves other tables (the server's own) writable, so file position and GTIDs, which are read one after the
    other, should show the same twice with nothing in between. Should, not must: what moves is outside the backup, and a
    replica's applier that waits for our lock owns its GTID all the time.
    """
    for _ in range(SETTLE_READINGS):
        position = read_coordinates(coordinator, facts)
        owned = "" if facts.mariadb else coordinator.value("SELECT @@global.gtid_owned")
        if not owned and read_coordinates(coordinator, facts) == position:
            break
    return position


def _quiet_position(coordinator: Connection, facts: ServerFacts) -> Coordinates | None:
    """The position, if every transaction before it is visible to snapshots opened from now on."""
    position = _snapshot_position(coordinator, facts)
    if not facts.mariadb and coordinator.value("SELECT @@global.gtid_owned"):
        return None
    return position


def _snapshot_position(coordinator: Connection, facts: ServerFacts) -> Coordinates:
    """MySQL: the end of the binlog. MariaDB: the position of a snapshot taken now, without GTID."""
    if not facts.mariadb:
        return read_coordinates(coordinator, facts)
    coordinator.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    status = dict(coordinator.rows("SHOW SESSION STATUS LIKE 'Binlog_snapshot_%'"))
    coordinator.execute("ROLLBACK")
    return Coordinates(str(status["Binlog_snapshot_file"]), int(status["Binlog_snapshot_position"]))


def _with_gtid(coordinator: Connection, facts: ServerFacts, position: Coordinates) -> Coordinates:
    if not facts.mariadb:
        return position
    gtid = coordinator.value("SELECT BINLOG_GTID_POS(%s, %s)", (position.file, position.position))
    return Coordinates(position.file, position.position, str(gtid or ""))
