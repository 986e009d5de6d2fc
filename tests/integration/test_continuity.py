"""One daemon and what happens to sources in a year: each time the chain goes on, or the gap is told and a full backup mends it.

The servers are real and so is the daemon; it is never told what happened. The source's address stays the same, as behind a
service name: whoever takes over listens where the one before did.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kpbackup.model.coordinates import archive_name
from kpbackup.mysql import facts
from kpbackup.repository import catalog as catalogs
from tests.conftest import unless_without
from tests.integration import replicas
from tests.integration.deployment import Deployment, deploy, order, until
from tests.integration.test_daemon import NEVER, Running, running
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.mysql97 import mysql97_server

CONTINUOUS = {"continuous": True, "interval": "1s", "observe_interval": "1s"}
MYSQL_BY_POSITION = ("--gtid-mode=OFF", "--enforce-gtid-consistency=OFF")


@dataclass
class Site:
    """A source, the machine that makes its backups, how many timelines there are by now, and how many servers took over on the
    newest one."""

    source: Server
    made: Deployment
    daemon: Running
    orders: int = 1000
    timelines: int = 1
    takeovers: int = 0
    reasons: Counter[str] = field(default_factory=lambda: Counter(first=1))

    def write(self, server: Server | None = None, *, count: int = 5) -> None:
        server = server or self.source
        for _ in range(count):
            order(server, "an order")
        self.orders += count if server is self.source else 0

    def catch_up(self) -> None:
        """Until everything that the source has is in the archive or in a set of the newest timeline."""
        repository = self.made.open()
        end = archive_name(_end(self.source), self.takeovers)

        def is_there() -> bool:
            newest = catalogs.read_current(repository)
            if newest is None or newest.id != f"{self.timelines:04d}" or not newest.sets:
                return False
            return str(newest.units[-1].end if newest.units else newest.sets[0].coordinates) == end

        until(is_there, what=f"timeline {self.timelines} to reach the source's end")

    def expect_one_chain(self, transactions: int) -> None:
        """Everything is archived, and the newest timeline has one window without a gap."""
        self.catch_up()
        listed = self.made.json("list")
        assert [one["timeline"] for one in listed["windows"]] == [f"{n:04d}" for n in range(1, self.timelines + 1)]
        assert listed["windows"][-1]["gap"] is None
        assert listed["archive"][-1]["transactions"] == transactions
        assert len(self.daemon.events("chain_broken")) == self.timelines - 1
        self.expect_metrics()

    def expect_metrics(self) -> None:
        """What `/metrics` says now: as many windows as timelines, each timeline's reason, nothing open."""
        metric = self.daemon.metric
        until(lambda: metric("kpbackup_recoverable_windows") == self.timelines, what="the metrics to show the windows")
        until(lambda: metric("kpbackup_archive_following") == 1, what="the metrics to show that it follows")
        assert {reason: metric("kpbackup_timelines", reason=reason) for reason in self.reasons} == self.reasons
        assert metric("kpbackup_chain_intact") == 1
        assert (metric("kpbackup_job_failures_total", kind="incremental") or 0) == self.timelines - 1
        assert (metric("kpbackup_job_consecutive_failures", kind="incremental") or 0) == 0
        names = [f"{number:04d}" for number in range(1, self.timelines + 1)]
        starts, ends = (
            [metric(f"kpbackup_window_{which}_timestamp_seconds", timeline=name) or 0 for name in names]
            for which in ("start", "end")
        )
        assert all(end < start for end, start in zip(ends, starts[1:], strict=False))  # nothing between two of them
        assert (metric("kpbackup_recovery_point_timestamp_seconds") or 0) >= starts[-1] > 0
        assert 0 <= (metric("kpbackup_achieved_rpo_seconds") or -1) < 300
        assert metric("kpbackup_head_sequence", timeline=names[-1], log="sets") == 1

    def expect_new_timeline(self, reason: str) -> None:
        """The break is told by log, `list`, `status` and metrics, and a full backup of its own accord mends it."""
        self.timelines, self.takeovers = self.timelines + 1, 0
        until(lambda: len(self.daemon.events("chain_broken")) == self.timelines - 1, what="the break to be seen")
        self.catch_up()
        listed = self.made.json("list")
        assert [one["reason"] for one in listed["archive"]][-1] == reason
        assert listed["archive"][-1]["parent"] == f"{self.timelines - 1:04d}"
        # each timeline its own window: nobody can take the time between two of them for recoverable
        assert [one["timeline"] for one in listed["windows"]] == [f"{n:04d}" for n in range(1, self.timelines + 1)]
        ends = [(one["start"], one["end"]) for one in listed["windows"]]
        assert all(before[1] < after[0] for before, after in zip(ends, ends[1:], strict=False))
        self.reasons[reason] += 1
        self.expect_metrics()
        self.write()
        self.catch_up()  # and the archive goes on


def _end(source: Server) -> str:
    with source.connect() as connection:
        modern = not facts.read_facts(connection).mariadb
        row = connection.row("SHOW BINARY LOG STATUS" if modern else "SHOW MASTER STATUS")
    assert row is not None
    return f"{row[0]}:{row[1]}"


def _reset(source: Server) -> None:
    with source.connect() as connection:
        modern = not facts.read_facts(connection).mariadb
        connection.execute("RESET BINARY LOGS AND GTIDS" if modern else "RESET MASTER")


def _orders(server: Server) -> int:
    with server.connect() as connection:
        return int(connection.value("SELECT COUNT(*) FROM shop.orders"))


@contextmanager
def _server(flavour: str, directory: Path, server_id: int, *options: str) -> Iterator[Server]:
    own = MYSQL_BY_POSITION if flavour == "mysql by position" else ()
    start: Callable[..., Any] = mariadb_server if flavour == "mariadb" else mysql97_server
    with start(directory, server_id=server_id, options=(*own, *options)) as started:
        yield started


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["mariadb", "mysql with GTID", "mysql by position"])
def test_a_year_in_the_life_of_a_source(flavour: str, tmp_path: Path) -> None:
    if flavour != "mariadb":
        unless_without("mysql97")
    with ExitStack() as stack:
        source = stack.enter_context(_server(flavour, tmp_path / "source", 61))
        replica = stack.enter_context(_server(flavour, tmp_path / "replica", 62, "--log-bin=other-name"))
        made = deploy(tmp_path / "deployment", source)
        daemon = stack.enter_context(running(made, schedule={"full": NEVER, "incremental": NEVER}, archive=CONTINUOUS))
        site = Site(source, made, daemon)
        until(lambda: daemon.metric("kpbackup_archive_following") == 1, what="the archive to follow", timeout_s=120)

        _goes_on_by_itself(site)
        site.write()
        _reset(source)
        site.expect_new_timeline("reset")
        if flavour != "mysql by position":  # what these do does not ask for GTIDs, and a restart takes MySQL long
            _is_purged_while_the_daemon_stands_still(site)
            _is_cut_by_a_crash(site)
        if flavour == "mariadb":
            _is_restored_from_an_older_copy(site, tmp_path)
        _fails_over(site, replica, flavour)
        status = made.json("status")
        assert status["chain_intact"] and len(status["windows"]) == site.timelines
        assert site.daemon.metric("kpbackup_chain_intact") == 1
        assert site.daemon.stop() < 60
        assert made.json("check", "--all")["intact"]


def _goes_on_by_itself(site: Site) -> None:
    """A new file, an orderly restart, kill -9: the chain goes on."""
    site.write()
    site.source.execute("FLUSH BINARY LOGS")
    site.write()
    site.source.restart()
    site.write()
    site.catch_up()
    site.source.kill()
    site.source.start()
    site.write()
    site.expect_one_chain(transactions=20)


def _is_purged_while_the_daemon_stands_still(site: Site) -> None:
    """It is stopped (its node is paused, say) while the source writes on and purges."""
    os.kill(site.daemon.process.pid, signal.SIGSTOP)
    try:
        site.write()
        site.source.execute("FLUSH BINARY LOGS")
        site.write()
        site.source.kill()  # or the dump thread of the standing daemon would hold the file
        site.source.start()
        site.write()
        site.source.purge_binlogs(before=_end(site.source).rpartition(":")[0])
    finally:
        os.kill(site.daemon.process.pid, signal.SIGCONT)
    site.expect_new_timeline("purged")


def _is_cut_by_a_crash(site: Site) -> None:
    """Power is lost, and the end of the last file, which was archived, never reached the disk."""
    site.write()
    site.catch_up()
    file, _, position = _end(site.source).rpartition(":")
    site.source.kill()
    os.truncate(site.source.data_directory / file, int(position) - 70)
    site.source.start()
    site.orders = _orders(site.source)
    site.expect_new_timeline("reset")


def _is_restored_from_an_older_copy(site: Site, directory: Path) -> None:
    """The source is put back from a copy of its disk, and writes on with the same file names, server id and GTIDs."""
    data, copy = site.source.data_directory, directory / "copy"
    site.source.stop()
    shutil.copytree(data, copy, symlinks=True)
    site.source.start()
    site.write(count=9)
    site.catch_up()
    site.source.stop()
    shutil.rmtree(data)
    copy.rename(data)
    site.source.start()
    site.orders = _orders(site.source)
    site.expect_new_timeline("reset")


def _fails_over(site: Site, replica: Server, flavour: str) -> None:
    """A replica with other file names takes over: the chain goes on by GTID. Then the old primary comes back without what the
    new one wrote."""
    old = site.source
    old.stop()
    replica.stop()
    shutil.rmtree(replica.data_directory)
    shutil.copytree(old.data_directory, replica.data_directory, symlinks=True)
    (replica.data_directory / "auto.cnf").unlink(missing_ok=True)
    for log in replica.data_directory.glob("binlog.*"):
        log.unlink()
    old.start()
    replica.start()
    by_gtid = flavour != "mysql by position"
    if flavour == "mariadb":
        with old.connect() as connection:
            replica.execute(f"SET GLOBAL gtid_slave_pos = '{connection.value('SELECT @@gtid_binlog_pos')}'")
    replicas.follow(replica, old, by_gtid=by_gtid)
    site.write()
    until(lambda: _orders(replica) == site.orders, what="the replica to follow")
    site.catch_up()
    archived = site.made.json("list")["archive"][-1]["transactions"]
    replicas.take_over(replica, old)
    site.source = replica
    if by_gtid:
        site.takeovers = 1
        site.write()
        site.expect_one_chain(transactions=archived + 5)
        changes = site.daemon.events("source_changed")
        assert [one["server_id"] for one in changes] == [replica.server_id]
    else:
        site.expect_new_timeline("forked")
    replica.stop()
    old.port = replica.port
    old.start()
    site.source = old
    site.orders = _orders(old)
    site.write()
    site.expect_new_timeline("forked")


def test_a_source_put_back_while_nobody_looked(tmp_path: Path, mariadb: Server) -> None:
    """It has a file of the same name again, longer than what is archived, but it is another one."""
    made = deploy(tmp_path / "deployment", mariadb)
    made.json("backup", "full")
    mariadb.stop()
    shutil.copytree(mariadb.data_directory, tmp_path / "copy", symlinks=True)
    mariadb.start()
    for count in range(5):
        order(mariadb, "x" * count)
    made.json("backup", "incremental")
    mariadb.stop()
    shutil.rmtree(mariadb.data_directory)
    (tmp_path / "copy").rename(mariadb.data_directory)
    mariadb.start()
    for count in range(9):
        order(mariadb, "y" * (90 - count))
    ended = made.run("backup", "incremental")
    assert ended.returncode == 24 and "were reset or the server was restored" in ended.stderr, ended.stderr
    assert made.json("backup", "full")["set"] == "0002-1"
    order(mariadb, "on the new timeline")
    made.json("backup", "incremental")
    listed = made.json("list")
    assert [one["reason"] for one in listed["archive"]] == ["first", "reset"]
    before, after = listed["windows"]
    assert before["gap"] is None and after["gap"] is None and before["end"] < after["start"]
