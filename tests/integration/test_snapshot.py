"""Consistent points on real servers while another session moves money about."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from kpbackup import errors
from kpbackup.model.inventory import Table
from kpbackup.mysql import schema, server, snapshot
from kpbackup.mysql.coordinates import list_binlogs, read_coordinates
from kpbackup.mysql.facts import ServerFacts, clock, read_facts
from kpbackup.mysql.privileges import Privileges, read_privileges
from kpbackup.mysql.snapshot import Rung
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server

ACCOUNTS = 10
TOTAL = ACCOUNTS * 1000
ALWAYS = ("GRANT SELECT ON bank.* TO kp", "GRANT REPLICATION CLIENT ON *.* TO kp")
GRANTS = {
    Rung.BACKUP_STAGE: ("GRANT RELOAD ON *.* TO kp",),
    Rung.INSTANCE_LOCK_FTWRL: ("GRANT RELOAD, BACKUP_ADMIN ON *.* TO kp",),
    Rung.FLUSH_TABLES: ("GRANT RELOAD ON *.* TO kp",),
    Rung.LOCK_TABLES: ("GRANT LOCK TABLES ON bank.* TO kp",),
    Rung.LOCK_FREE: (),
}


def prepare(at: Server, *grants: str) -> None:
    at.execute(
        "CREATE DATABASE bank",
        "CREATE TABLE bank.account (id int PRIMARY KEY, money int NOT NULL)",
        "CREATE TABLE bank.transfer (id int PRIMARY KEY)",
        "INSERT INTO bank.account VALUES " + ", ".join(f"({n}, 1000)" for n in range(ACCOUNTS)),
        "CREATE USER kp IDENTIFIED BY 'p'",
        *ALWAYS,
        *grants,
    )


@contextmanager
def login(at: Server) -> Iterator[server.Connection]:
    with server.connect(dataclasses.replace(at.endpoint, user="kp", password="p")) as connection:
        yield connection


class Writer:
    """Transfers in a thread until stopped; transaction n writes transfer n. `done` counts those committed."""

    def __init__(self, at: Server, *, pause_s: float) -> None:
        self.done = 0
        self._at, self._pause_s = at, pause_s
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            with self._at.connect(database="bank") as connection:
                while not self._stop.wait(self._pause_s):
                    number = self.done + 1
                    connection.execute("BEGIN")
                    connection.execute("UPDATE account SET money = money - 7 WHERE id = %s", (number % ACCOUNTS,))
                    connection.execute("INSERT INTO transfer VALUES (%s)", (number,))
                    connection.execute("UPDATE account SET money = money + 7 WHERE id = %s", ((number * 3 + 1) % ACCOUNTS,))
                    connection.execute("COMMIT")
                    self.done = number
        except errors.KpbackupError as exc:
            self._failure = exc

    def __enter__(self) -> Writer:
        self._thread.start()
        wait_for(lambda: self.done > 5 or self._failure is not None)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(120)
        assert self._failure is None, self._failure


def wait_for(condition, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def facts_and_tables(connection: server.Connection) -> tuple[ServerFacts, Privileges, tuple[Table, ...]]:
    facts = read_facts(connection)
    return facts, read_privileges(connection), schema.read_tables(connection, facts, databases=("bank",))


def transactions_after(at: Server, file: str, position: int) -> int:
    """Commits in the binlog from a position on, counted by the server's own SHOW BINLOG EVENTS."""
    with at.connect() as connection:
        assert list_binlogs(connection)[-1][0] == file
        events = connection.rows(f"SHOW BINLOG EVENTS IN '{file}' FROM {position}")
    return sum(1 for event in events if event[2] == "Xid")


def last_number(gtid: str) -> int:
    """The highest transaction number in '1-101-57' or 'uuid:1-57'."""
    return int(gtid.replace(":", "-").split("-")[-1])


def check_rung(at: Server, rung: Rung, *, facts_change: dict[str, object] | None = None) -> None:
    prepare(at, *GRANTS[rung])
    with ExitStack() as stack:
        coordinator = stack.enter_context(login(at))
        workers = [stack.enter_context(login(at)) for _ in range(3)]
        facts, privileges, tables = facts_and_tables(coordinator)
        facts = dataclasses.replace(facts, **(facts_change or {}))  # type: ignore[arg-type]
        writer = stack.enter_context(Writer(at, pause_s=0.1 if rung is Rung.LOCK_FREE else 0.0))
        stood_still = []

        def open_snapshots() -> None:
            for worker in workers:
                worker.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
                if rung is not Rung.LOCK_FREE:
                    before = writer.done
                    time.sleep(0.15)
                    stood_still.append(writer.done - before <= 1)  # the one whose COMMIT had been answered but not counted

        before = clock(coordinator)
        with snapshot.hold_consistent_point(coordinator, facts, privileges, tables, max_wait_s=120) as point:
            assert point.rung is rung and not point.has_non_transactional
            point.settle(open_snapshots)
            taken = point.release()
        moved = writer.done
        wait_for(lambda: writer.done > moved + 5)
        assert before <= taken.clock <= clock(coordinator)
        assert all(stood_still)
        assert taken.locked_s == 0 if rung is Rung.LOCK_FREE else taken.locked_s >= 0.45
        seen = {
            tuple(worker.rows("SELECT SUM(money), (SELECT MAX(id) FROM bank.transfer) FROM bank.account")[0])
            for worker in workers
        }
    assert len(seen) == 1
    total, number = seen.pop()
    assert total == TOTAL
    with at.connect() as connection:
        end = read_coordinates(connection, facts)
        written = int(connection.value("SELECT MAX(id) FROM bank.transfer"))
    assert number < written
    assert transactions_after(at, taken.coordinates.file, taken.coordinates.position) == written - number
    if facts.mariadb or facts.gtid_mode == "ON":
        assert last_number(end.gtid) - last_number(taken.coordinates.gtid) == written - number


@pytest.mark.parametrize("rung", [Rung.BACKUP_STAGE, Rung.LOCK_TABLES, Rung.LOCK_FREE])
def test_mariadb_rungs(mariadb: Server, rung: Rung) -> None:
    check_rung(mariadb, rung)


def test_mariadb_flush_tables(mariadb: Server) -> None:
    check_rung(mariadb, Rung.FLUSH_TABLES, facts_change={"version": (10, 3, 39)})  # a server without BACKUP STAGE


@pytest.mark.parametrize("rung", [Rung.INSTANCE_LOCK_FTWRL, Rung.FLUSH_TABLES, Rung.LOCK_TABLES, Rung.LOCK_FREE])
def test_mysql_rungs(mysql97: Server, rung: Rung) -> None:
    check_rung(mysql97, rung)


def test_lock_free_gives_up_under_steady_writes_and_names_the_grant(mariadb: Server) -> None:
    prepare(mariadb)
    with login(mariadb) as coordinator, login(mariadb) as worker:
        facts, privileges, tables = facts_and_tables(coordinator)

        def slow_snapshots() -> None:
            written = writer.done
            worker.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
            wait_for(lambda: writer.done > written + 1)  # the next one may be committed already, only not counted yet

        with (
            Writer(mariadb, pause_s=0.0) as writer,
            pytest.raises(errors.SnapshotError, match="writes came in") as caught,
            snapshot.hold_consistent_point(coordinator, facts, privileges, tables) as point,
        ):
            point.settle(slow_snapshots)
    assert caught.value.hint == "GRANT RELOAD ON *.* TO 'kp'@'%';"
    assert caught.value.exit_code == 28


def test_no_lock_is_left_after_an_error_in_the_block(mariadb: Server) -> None:
    prepare(mariadb, *GRANTS[Rung.BACKUP_STAGE])
    with login(mariadb) as coordinator:
        facts, privileges, tables = facts_and_tables(coordinator)
        with (
            pytest.raises(errors.StorageError),
            snapshot.hold_consistent_point(coordinator, facts, privileges, tables) as point,
        ):
            point.settle(lambda: None)
            raise errors.StorageError("the store is gone")
        mariadb.execute("SET SESSION lock_wait_timeout = 1", "INSERT INTO bank.transfer VALUES (1)")


def blocked(at: Server, rung: Rung, blocker_sql: str, *, facts_change: dict[str, object] | None = None) -> None:
    prepare(at, *GRANTS[rung])
    with login(at) as coordinator, at.connect() as blocker:
        facts, privileges, tables = facts_and_tables(coordinator)
        facts = dataclasses.replace(facts, **(facts_change or {}))  # type: ignore[arg-type]
        blocker.execute(blocker_sql)
        started = time.monotonic()
        with (
            pytest.raises(errors.SnapshotError, match=r"within the time allowed.*a lock was not granted") as caught,
            snapshot.hold_consistent_point(coordinator, facts, privileges, tables, max_wait_s=2.5),
        ):
            pytest.fail("a point was held that could not be")
        assert 2 <= time.monotonic() - started < 45
        assert "PROCESSLIST" in caught.value.hint
        blocker.execute("BACKUP STAGE END" if "STAGE" in blocker_sql else "UNLOCK TABLES")
        at.execute("SET SESSION lock_wait_timeout = 1", "INSERT INTO bank.transfer VALUES (1)", "DROP TABLE bank.transfer")


def test_mariadb_waiting_for_another_backup_is_bounded(mariadb: Server) -> None:
    blocked(mariadb, Rung.BACKUP_STAGE, "BACKUP STAGE START")


def test_mariadb_waiting_for_table_locks_is_bounded(mariadb: Server) -> None:
    blocked(mariadb, Rung.LOCK_TABLES, "LOCK TABLES bank.account WRITE")


def test_mysql_waiting_for_the_read_lock_is_bounded(mysql97: Server) -> None:
    blocked(mysql97, Rung.INSTANCE_LOCK_FTWRL, "LOCK TABLES bank.account WRITE")


@pytest.mark.parametrize("flavour", ["mariadb", "mysql97"])
def test_a_prepared_xa_transaction_is_refused_until_it_ends(request: pytest.FixtureRequest, flavour: str) -> None:
    at: Server = request.getfixturevalue(flavour)
    prepare(at, *GRANTS[Rung.BACKUP_STAGE], *(("GRANT XA_RECOVER_ADMIN ON *.* TO kp",) if flavour == "mysql97" else ()))
    with login(at) as coordinator, at.connect() as other:
        facts, privileges, tables = facts_and_tables(coordinator)
        for statement in (
            "XA START 'pending'",
            "UPDATE bank.account SET money = 0 WHERE id = 1",
            "XA END 'pending'",
            "XA PREPARE 'pending'",
        ):
            other.execute(statement)
        with (
            pytest.raises(errors.SnapshotError, match="XA transactions stay prepared: pending") as caught,
            snapshot.hold_consistent_point(coordinator, facts, privileges, tables, max_wait_s=1.5),
        ):
            pytest.fail("a prepared transaction was overlooked")
        assert "commit or roll back" in caught.value.hint
        other.execute("XA ROLLBACK 'pending'")
        with snapshot.hold_consistent_point(coordinator, facts, privileges, tables, max_wait_s=5) as point:
            point.settle(lambda: None)
            assert point.release().warnings == ()


def test_xa_that_cannot_be_seen_is_a_warning(mysql97: Server) -> None:
    prepare(mysql97, *GRANTS[Rung.FLUSH_TABLES])
    with login(mysql97) as coordinator:
        facts, privileges, tables = facts_and_tables(coordinator)
        with snapshot.hold_consistent_point(coordinator, facts, privileges, tables) as point:
            point.settle(lambda: None)
            assert "XA_RECOVER_ADMIN" in point.release().warnings[0]


def test_tables_without_transactions_need_a_lock(mariadb: Server) -> None:
    prepare(mariadb)
    mariadb.execute("CREATE TABLE bank.heap (i int) ENGINE=MyISAM")
    with login(mariadb) as coordinator:
        facts, privileges, tables = facts_and_tables(coordinator)
        with (
            pytest.raises(errors.PrivilegeMissing, match=r"bank\.heap") as caught,
            snapshot.hold_consistent_point(coordinator, facts, privileges, tables),
        ):
            pytest.fail("a table without transactions was accepted without a lock")
        assert caught.value.hint == "GRANT RELOAD ON *.* TO 'kp'@'%';"


@pytest.mark.parametrize("rung", [Rung.BACKUP_STAGE, Rung.LOCK_TABLES])
def test_tables_without_transactions_stand_still_until_the_release(mariadb: Server, rung: Rung) -> None:
    prepare(mariadb, *GRANTS[rung])
    mariadb.execute("CREATE TABLE bank.heap (i int) ENGINE=MyISAM", "INSERT INTO bank.heap VALUES (1)")
    with login(mariadb) as coordinator, mariadb.connect() as reader:
        facts, privileges, tables = facts_and_tables(coordinator)
        insert = threading.Thread(target=mariadb.execute, args=("INSERT INTO bank.heap VALUES (2)",))
        with snapshot.hold_consistent_point(coordinator, facts, privileges, tables) as point:
            assert point.has_non_transactional
            point.settle(lambda: None)
            insert.start()
            wait_for(
                lambda: (
                    reader.value("SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE 'Waiting for%%'", ()) > 0
                )
            )
            assert reader.rows("SELECT i FROM bank.heap") == [(1,)]
            point.release()
        insert.join(120)
        assert reader.value("SELECT COUNT(*) FROM bank.heap") == 2


def test_a_server_that_refuses_what_the_grants_allow_gets_the_next_rung(mariadb: Server) -> None:
    prepare(mariadb, *GRANTS[Rung.LOCK_TABLES])
    with login(mariadb) as coordinator:
        facts, privileges, tables = facts_and_tables(coordinator)
        claimed = dataclasses.replace(privileges, everywhere=privileges.everywhere | {"RELOAD"})
        with snapshot.hold_consistent_point(coordinator, facts, claimed, tables) as point:
            assert point.rung is Rung.LOCK_TABLES


def test_without_binlog_there_is_no_point(tmp_path: Path, server_id: int) -> None:
    with mariadb_server(tmp_path / "off", server_id=server_id, options=["--skip-log-bin"]) as off:
        prepare(off, *GRANTS[Rung.BACKUP_STAGE])
        with login(off) as coordinator:
            facts, privileges, tables = facts_and_tables(coordinator)
            with (
                pytest.raises(errors.ServerUnfit, match="the binlog is off"),
                snapshot.hold_consistent_point(coordinator, facts, privileges, tables),
            ):
                pytest.fail("a point without coordinates")
            with pytest.raises(errors.ServerUnfit):
                list_binlogs(coordinator)


def test_without_replication_client_the_grant_is_named_and_nothing_stays_locked(mariadb: Server) -> None:
    prepare(mariadb, *GRANTS[Rung.BACKUP_STAGE], "REVOKE BINLOG MONITOR ON *.* FROM kp")
    with login(mariadb) as coordinator:
        facts, privileges, tables = facts_and_tables(coordinator)
        with (
            pytest.raises(errors.PrivilegeMissing, match="BINLOG MONITOR"),
            snapshot.hold_consistent_point(coordinator, facts, privileges, tables) as point,
        ):
            point.settle(lambda: None)
        mariadb.execute("SET SESSION lock_wait_timeout = 1", "INSERT INTO bank.transfer VALUES (1)")
