"""A replica takes over: where GTIDs prove that it holds what is archived and nothing else, the archive goes on in its files."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from kpbackup import config, errors
from kpbackup.model.coordinates import Coordinates, takeovers
from kpbackup.mysql.server import Connection
from kpbackup.plan.timeline import Target
from kpbackup.recovery import cut as cuts
from kpbackup.recovery.binlog import SegmentReader
from kpbackup.repository import choosing
from kpbackup.service import opening
from tests.integration import replicas, scenario
from tests.integration.deployment import until
from tests.integration.scenario import Scene
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.mysql97 import mysql97_server

SHOP = (
    "CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, note VARCHAR(60), d DATETIME(6))",
    "CREATE TABLE shop.gates (id INT PRIMARY KEY, passed INT)", "INSERT INTO shop.gates VALUES (1, 0), (2, 0)",
)  # fmt: skip
ELSEWHERE = {"MariaDB": "SET SESSION gtid_domain_id = 7", "MySQL": "SET SESSION gtid_next = 'AUTOMATIC:elsewhere'"}


@dataclass(frozen=True)
class Seam:
    """The last archived transaction of a server and the first two of the one that took over, as `find` tells them; what was
    there before and after the first of them, and from which moment on it was committed. `orders_at`: rows of shop.orders when
    a transaction opens one of the gates."""

    hits: list[dict[str, Any]]
    takeovers: int
    moment: datetime
    before: dict[str, tuple[int, int]]
    after_first: dict[str, tuple[int, int]]
    orders_at: dict[int, int]


@dataclass
class Site:
    """A primary, its replica, a target, how many transactions were committed since the set, and how many servers took over."""

    scene: Scene
    primary: Server
    replica: Server
    target: Server
    committed: int = 0
    takeovers: int = 0
    seam: Seam | None = None
    notes: Iterator[int] = field(default_factory=lambda: iter(range(10**6)))

    def write(self, count: int = 3) -> None:
        """Transactions of two domains (MariaDB) or with and without tag (MySQL), and a definition."""
        statement = f"INSERT INTO shop.orders (note, d) VALUES ('order {next(self.notes)}', NOW(6))"
        self.primary.execute(*[statement] * count)
        self.primary.execute(ELSEWHERE[self.primary.product], statement)
        self.committed += count + 1

    def fail_over(self) -> None:
        """The replica takes over; the two change their names."""
        replicas.wait_until_equal(self.replica, self.primary)
        replicas.take_over(self.replica, self.primary)
        self.primary, self.replica = self.replica, self.primary
        self.takeovers += 1

    def come_back(self) -> None:
        """The former primary is the new one's replica."""
        self.replica.start()
        if replicas.is_mariadb(self.replica):  # what it wrote as a primary it has executed too
            self.replica.execute("SET GLOBAL gtid_slave_pos = @@gtid_binlog_pos")
        replicas.follow(self.replica, self.primary)

    def open_gate(self, number: int) -> int:
        """A transaction that a lock on one row of a target can hold; how many orders there were before."""
        orders = _orders(self.primary)
        self.primary.execute(f"UPDATE shop.gates SET passed = 1 WHERE id = {number}")
        self.committed += 1
        return orders

    def archive(self) -> dict[str, Any]:
        """What `list` says once everything is archived."""
        self.scene.ok("backup", "incremental")
        listed: dict[str, Any] = self.scene.ok("list")
        return listed


@pytest.fixture(scope="module", params=["MariaDB", "MySQL"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One for all tests: each takes it as it is, makes the set if there is none, and leaves the replica dead."""
    directory = tmp_path_factory.mktemp("failover")
    make: Any = mariadb_server
    other: tuple[str, ...] = ()  # MariaDB's replica calls its files as the primary does, MySQL's otherwise
    if request.param == "MySQL":
        request.getfixturevalue("mysql97_programs")
        make, other = mysql97_server, ("--log-bin=other-name",)
    with ExitStack() as stack:
        primary, replica, target = (
            stack.enter_context(make(directory / name, server_id=number, options=options))
            for name, number, options in (("primary", 81, ()), ("replica", 82, other), ("target", 83, ("--event-scheduler=OFF",)))
        )
        primary.execute(*SHOP)
        replicas.follow(replica, primary)
        scene = Scene(directory / "scene", source=primary, target=target)
        scene.ok("init", "--keys", str(scene.keys))
        made = Site(scene, primary, replica, target)
        made.write()
        scene.ok("backup", "full")
        made.committed = 0
        yield made


def test_failover_and_back(site: Site) -> None:
    """The archive lags behind when the primary dies, the new one writes on; then all of it the other way round."""
    site.write()
    site.archive()
    site.write()
    site.fail_over()
    site.write()
    site.primary.execute("FLUSH BINARY LOGS")
    site.write()
    listed = site.archive()
    _is_one_window(site, listed)
    site.come_back()
    site.fail_over()
    listed = site.archive()  # nothing was written since: the change itself is recorded
    _is_one_window(site, listed)
    site.write()
    _is_one_window(site, site.archive())
    for path in ("served", "direct"):
        _restores(site, path)
    assert site.scene.ok("backup", "full")["set"] == "0001-2"
    site.write()
    _is_one_window(site, site.archive())
    _restores(site, "served")
    assert site.scene.ok("check", "--all")["intact"]


def test_every_point_around_a_seam(site: Site) -> None:
    """Each target that ends with the last transaction of the old server gives its state, each one behind it the new server's."""
    seam = _seam(site)
    old, first, second = seam.hits
    assert [takeovers(one["file"]) for one in seam.hits] == [seam.takeovers - 1, seam.takeovers, seam.takeovers]
    places = {place: Target(position=Coordinates(*place)) for place in (
        (old["file"], old["end"]), (first["file"], first["start"]), (first["file"], first["end"])
    )}  # fmt: skip
    at_the_seam = (
        Target(time=seam.moment), Target(gtid=old["gtid"]), Target(before_gtid=first["gtid"]),
        places[old["file"], old["end"]], places[first["file"], first["start"]],
    )  # fmt: skip
    behind = (Target(gtid=first["gtid"]), Target(before_gtid=second["gtid"]), places[first["file"], first["end"]])
    settings = config.load(Path(site.scene.argv()[4]), {})
    repository = opening.reading_repository(settings)
    reader = SegmentReader(repository, opening.identities(settings))
    for target, last, excluded in [(one, old, first) for one in at_the_seam] + [(one, first, second) for one in behind]:
        cut = cuts.find_cut(reader, choosing.plan_restore(repository, target))
        assert cut.last_included and cut.first_excluded, target
        assert (cut.last_included.gtid, cut.first_excluded.gtid) == (last["gtid"], excluded["gtid"]), target
    restores = (
        ("served", ("--to-position", f"{first['file']}:{first['start']}"), seam.before),
        ("direct", ("--to-gtid", first["gtid"]), seam.after_first),
    )  # fmt: skip
    for path, words, wanted in restores:
        site.scene.settings["recovery"]["replay"] = {"path": path}
        scenario.wipe(site.target)
        site.scene.restore(*words)
        assert scenario.truth(site.target) == wanted, words


@pytest.mark.parametrize("path", ["served", "direct"])
def test_a_replay_killed_at_a_seam_goes_on(site: Site, path: str) -> None:
    """Held by a lock at the first transaction of the new server, or behind it: nothing is done twice, nothing left out."""
    seam = _seam(site)
    gate = 1 if path == "served" else 2
    site.scene.settings["recovery"]["replay"] = {"path": path}
    scenario.wipe(site.target)
    with site.target.connect() as held, site.scene.start("restore", "database", "--yes", "--to", "latest") as process:
        _hold(held, gate, process)
        until(lambda: _orders(site.target) == seam.orders_at[gate], what="the replay to come to the gate")
        assert scenario.rows(site.target, f"SELECT passed FROM shop.gates WHERE id = {gate}") == [(0,)]
        process.send_signal(signal.SIGKILL)
    site.scene.release_leases()
    run = site.scene.ok("recoveries")["recoveries"][-1]["run"]
    site.scene.ok("restore", "database", "--resume", run)
    assert scenario.truth(site.target) == scenario.truth(site.primary)


def test_a_replica_by_position_and_one_that_went_its_own_way(site: Site) -> None:
    """GTIDs tell, however the replica replicates. Then both write: neither holds all of the other."""
    if not site.replica.is_running:
        site.come_back()
    replicas.wait_until_equal(site.replica, site.primary)
    replicas.stop_following(site.replica)
    replicas.follow(site.replica, site.primary, by_gtid=False)
    site.write()
    site.fail_over()
    _is_one_window(site, site.archive())
    site.come_back()
    replicas.wait_until_equal(site.replica, site.primary)
    replicas.stop_following(site.replica)
    site.write()
    site.archive()
    site.replica.execute("INSERT INTO shop.orders (note) VALUES ('errant')")
    replicas.take_over(site.replica, site.primary)
    told = site.scene.refused(24, "backup", "incremental")
    assert "is another server, or has another history" in told
    # MariaDB's own number lies among the archived ones: what is missing is all that tells
    assert ("it lacks the archived transactions up to" if replicas.is_mariadb(site.primary) else "not archived, before") in told
    assert site.scene.ok("backup", "full")["set"] == "0002-1"
    site.replica.execute("INSERT INTO shop.orders (note) VALUES ('on the new timeline')")
    listed = site.archive()
    assert [(one["reason"], one["transactions"]) for one in listed["archive"]] == [("first", site.committed), ("forked", 1)]
    before, after = listed["windows"]
    assert before["gap"] is None and after["gap"] is None and before["end"] < after["start"]


def _seam(site: Site) -> Seam:
    """One for all tests: the archive is at the old server's end when it dies, and the new one opens both gates."""
    if site.seam is None:
        if not site.replica.is_running:
            site.come_back()
        site.write()
        site.archive()
        site.fail_over()
        before, moment = scenario.truth(site.primary), scenario.next_second(site.primary)
        orders_at = {1: site.open_gate(1)}
        after_first = scenario.truth(site.primary)
        site.write()
        site.archive()
        orders_at[2] = site.open_gate(2)
        site.write()
        site.archive()
        hits = site.scene.ok("find", "--limit", "999")["hits"]
        first = next(place for place, one in enumerate(hits) if one["tables"] and one["tables"][0]["table"] == "shop.gates")
        site.seam = Seam(hits[first - 1 : first + 2], site.takeovers, moment, before, after_first, orders_at)
    return site.seam


def _hold(held: Connection, gate: int, process: subprocess.Popen[str]) -> None:
    """Locks the row of a gate as soon as it is loaded, which is long before the replay begins."""
    while True:
        assert process.poll() is None, process.communicate()
        held.execute("BEGIN")
        with contextlib.suppress(errors.DatabaseError):  # the table is not made yet
            if (found := held.rows(f"SELECT passed FROM shop.gates WHERE id = {gate} FOR UPDATE")) != []:
                assert found == [(0,)]
                return
        held.execute("ROLLBACK")
        time.sleep(0.005)


def _orders(server: Server) -> int:
    return int(scenario.rows(server, "SELECT COUNT(*) FROM shop.orders")[0][0])


def _is_one_window(site: Site, listed: dict[str, Any]) -> None:
    (window,), (archive,) = listed["windows"], listed["archive"]
    assert window["gap"] is None
    assert archive["transactions"] == site.committed
    # MariaDB writes down its checkpoint some time after the last transaction: the file is compared, not the place
    file, _, _ = scenario.position(site.primary).partition(":")
    assert archive["last"].startswith(f"{site.takeovers}/{file}:")


def _restores(site: Site, path: str) -> None:
    site.scene.settings["recovery"]["replay"] = {"path": path}
    scenario.wipe(site.target)
    site.scene.restore("--to", "latest")
    assert scenario.truth(site.target) == scenario.truth(site.primary)
    variable = "@@gtid_slave_pos" if replicas.is_mariadb(site.target) else "@@gtid_executed"
    own = "@@gtid_binlog_pos" if replicas.is_mariadb(site.target) else "@@gtid_executed"
    assert scenario.rows(site.target, f"SELECT {variable}") == scenario.rows(site.primary, f"SELECT {own}")
