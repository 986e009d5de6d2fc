"""Upkeep, prune and restore killed at any of their writes; a full disk, a store that loses and hides objects.

Prune and upkeep work on archives made without a server (`tests/archives.py`): there the interesting part is what a dead process
leaves for the next one, and there are hundreds of places to die.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kpbackup import errors
from kpbackup.backup import full
from kpbackup.plan import chain, retention
from kpbackup.plan.timeline import Target
from kpbackup.recovery import journal as journals
from kpbackup.recovery import planning, resuming
from kpbackup.recovery import run as recovery
from kpbackup.recovery.steps import Driver, RecoveryRequest, Step
from kpbackup.repository import binding, catalog, check, choosing, compact, prune
from kpbackup.repository.binding import Repository
from kpbackup.storage import ObjectInfo, open_backend
from tests.archives import Growing
from tests.crash import points
from tests.crash.test_ordering import IDENTITY, SIGNING_KEY, found_after, new_repository, run_full, run_incremental, tidied
from tests.cut_off import CutOffBackend
from tests.integration import bank, scenario
from tests.integration.deployment import until
from tests.servers.database import Server

START = datetime(2025, 11, 29, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
ROWS = 8
Job = Callable[[Repository], object]
POLICY = retention.Policy(days=1, complete_chains=1)
NO_MORE = retention.Policy(days=9, complete_chains=1)  # releases nothing; what was released goes when its grace period is over


def grown(directory: Path) -> Growing:
    """Three days of a segment every two hours and a set a day, in pages of eight."""
    made = binding.create_repository(
        open_backend(directory.as_uri()), signing_key=SIGNING_KEY, source="db", flavour="mariadb", created_at=START
    )
    growing = Growing(replace(made, page_rows=ROWS), START, timedelta(hours=2), per_file=7)
    growing.back_up()
    growing.grow(36, sets_every=DAY)
    return growing


def copied(growing: Growing, directory: Path) -> Repository:
    shutil.copytree(growing.repository.backend.name.removeprefix("file://"), directory)
    return replace(growing.repository, backend=open_backend(directory.as_uri()), verified={}, stretches={})


def keys(repository: Repository) -> set[str]:
    """What is stored; data objects of compaction have random names, so they are counted by what names them."""
    return {info.key for info in repository.backend.list("") if not info.key.startswith("data/")}


def reachable(repository: Repository, growing: Growing) -> list[str]:
    """For moments all over the retention window the set and the number of segments a restore takes."""
    fresh = replace(repository, verified={}, stretches={})
    found = catalog.read_catalog(fresh)
    assert not found.damaged and all(chain.runs(history)[1] == () for history in found.histories)
    plans = [choosing.plan_restore(fresh, Target(time=growing.now - hours * timedelta(hours=1))) for hours in (0.1, 5, 13, 21)]
    return [f"{plan.backup_set.name} {len(plan.segments)}" for plan in plans]


def die_everywhere(
    growing: Growing, tmp_path: Path, run: Job, expected: tuple[str, ...], *, later: Job = lambda repository: None
) -> None:
    """Kills `run` at each of its writes: nothing is lost, and the next run leaves what an undisturbed one does.

    But for manifests of sets that a tombstone has released: those are gone after `later`, a prune when the grace period is over.
    """
    undisturbed, store = points.noted(copied(growing, tmp_path / "undisturbed"))
    run(undisturbed)
    writes = points.kinds(store.writes)
    assert tuple(dict.fromkeys(writes)) == expected, dict.fromkeys(writes)
    wanted, before = keys(undisturbed), reachable(growing.repository, growing)
    assert reachable(undisturbed, growing) == before
    later(undisturbed)
    for number, how in points.at_the_ends_of_runs(writes):
        repository = copied(growing, tmp_path / f"{number}-{how}")
        assert points.killed(run, repository, number, how)
        assert reachable(repository, growing) == before, f"{how} write {number}"
        run(repository)
        found = keys(repository)
        assert found >= wanted and all("/sets/" in key for key in found - wanted), f"{how} write {number}"
        assert reachable(repository, growing) == before
        later(repository)
        assert keys(repository) == keys(undisturbed), f"{how} write {number}"
        shutil.rmtree(tmp_path / f"{number}-{how}")


def run_prune(policy: retention.Policy, now: datetime) -> Job:
    def run(repository: Repository) -> object:
        found = catalog.read_catalog(repository)
        return prune.execute(repository, found, retention.plan_prune(found, policy, now), policy, now)

    return run


@pytest.mark.slow
def test_upkeep_killed_at_any_write(tmp_path: Path) -> None:
    growing = grown(tmp_path / "base")
    die_everywhere(growing, tmp_path, lambda repository: compact.run(repository, "0001", growing.now + DAY), points.UPKEEP)


@pytest.mark.slow
def test_prune_killed_at_any_write(tmp_path: Path) -> None:
    growing = grown(tmp_path / "base")
    compact.run(growing.repository, "0001", growing.now + timedelta(hours=2))
    now = growing.now + timedelta(hours=3)
    later = run_prune(NO_MORE, now + timedelta(days=1, hours=1))
    die_everywhere(growing, tmp_path, run_prune(POLICY, now), points.PRUNE, later=later)
    run_prune(POLICY, now)(growing.repository)
    die_everywhere(growing, tmp_path / "later", later, points.PRUNE_LATER)


# -- restore


@pytest.mark.slow
def test_a_restore_killed_at_every_entry_of_its_journal(mariadb_pair: tuple[Server, Server], tmp_path: Path) -> None:
    source, target = mariadb_pair
    bank.create(source, ballast_rows=500)
    repository = new_repository(tmp_path / "r")
    full.run_full(repository, full.FullRequest(source.endpoint, (IDENTITY.recipient,), "the-same-pod", workers=1))
    with bank.Fire(source, queries=False) as fire:
        until(lambda: fire.transfers >= 30, what="transfers")
    run_incremental(source)(repository)

    def restore(into: Repository) -> None:
        request = RecoveryRequest(
            into, target.endpoint, Target(latest=True), (IDENTITY,), {step: Driver("none") for step in Step}, overwrite=("bank",)
        )
        runs = journals.list_runs(into)
        if runs:
            journal = journals.open_journal(into, runs[0])
            request = resuming.resumed_request(journal, request)
            plan = recovery.resume(journal, request)
        else:
            plan, journal = planning.make_plan(request), journals.new_journal(into, datetime.now(UTC))
            recovery.begin(journal, plan, request, tuple(Step))
        recovery.carry_out(journal, plan, request, tuple(Step))

    deaths = 0
    for number in itertools.count(1):
        if not all(points.killed(restore, repository, number, how) for how in ("before", "after")):
            break
        deaths += 2
    assert deaths >= 8
    assert len(journals.list_runs(repository)) == 1
    assert scenario.truth(target) == scenario.truth(source) and bank.broken_promises(target) == []
    assert scenario.databases(target) == ["bank"]


# -- the source dies, the disk is full


class Striking(CutOffBackend):
    """Calls `strike` once, when a key of the kind `at` is about to be written."""

    def __init__(self, repository: Repository, at: str, strike: Callable[[], None]) -> None:
        super().__init__(repository.backend)
        self.has_struck = False
        self._at, self._strike = at, strike

    def _write(self, key: str, send: Callable[[], ObjectInfo]) -> ObjectInfo:
        if not self.has_struck and points.kind(key) == self._at:
            self.has_struck = True
            self._strike()
        return super()._write(key, send)


@pytest.mark.parametrize(("job", "at"), [("full", "key"), ("full", "rows"), ("incremental", "key"), ("incremental", "segment")])
def test_the_source_crashes_meanwhile(source: Server, tmp_path: Path, job: str, at: str) -> None:
    """kill -9 of the server: a clear error or, where everything had been read, a success; the next run goes on."""
    repository = new_repository(tmp_path / "r")
    run_full(source)(repository)
    source.execute("INSERT INTO shop.orders VALUES (2, 'x')", "FLUSH BINARY LOGS", "INSERT INTO shop.orders VALUES (3, 'x')")
    store = Striking(repository, at, source.kill)
    run = run_full(source) if job == "full" else run_incremental(source)
    sets = len(found_after(repository).sets)
    try:
        run(replace(repository, backend=store, verified={}, stretches={}))
    except errors.ServerUnreachable as exc:
        assert exc.hint
    else:
        assert job == "incremental"
    assert store.has_struck and len(found_after(repository).sets) == sets
    source.restart()
    run_incremental(source)(repository)
    (found,) = chain.chains(found_after(repository))
    assert found.gap is None
    run_full(source)(repository)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount")
def test_a_disk_that_fills_up_under_a_full_backup(source: Server, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    random = "INSERT INTO shop.noise SELECT RANDOM_BYTES(500) FROM shop.seq_1_to_4000"
    source.execute("CREATE TABLE shop.noise (pad VARBINARY(600))", random)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", disk], check=False).returncode:
        pytest.skip("this container may not mount")
    try:
        repository = new_repository(disk)
        with pytest.raises(errors.LocalIOError) as caught:
            full.run_full(repository, full.FullRequest(source.endpoint, (IDENTITY.recipient,), "the-same-pod", workers=1))
        assert "space" in str(caught.value) and caught.value.hint
        assert [one for history in catalog.read_catalog(repository).histories for one in history.sets] == []
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        full.run_full(repository, full.FullRequest(source.endpoint, (IDENTITY.recipient,), "the-same-pod", workers=1))
        assert len(found_after(repository).sets) == 1
        tidied(repository)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


# -- a store that does what none should


class Losing(CutOffBackend):
    """Confirms writes of keys with `part` in them and forgets them."""

    part = ""

    def _write(self, key: str, send: Callable[[], ObjectInfo]) -> ObjectInfo:
        done = super()._write(key, send)
        if self.part and self.part in key:
            self._inner.delete(key)
        return done


class Stale(CutOffBackend):
    """Lists what was there when `freeze` was called."""

    frozen: tuple[ObjectInfo, ...] | None = None

    def freeze(self) -> None:
        self.frozen = tuple(self._inner.list(""))

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        if self.frozen is None:
            yield from self._inner.list(prefix, after=after)
        else:
            yield from (info for info in self.frozen if info.key.startswith(prefix) and info.key > after)


@pytest.mark.parametrize("part", ["/sets/", "inventory", "000000", "1-before-rows", "keys/"])
def test_an_object_lost_as_soon_as_it_was_written(mariadb: Server, tmp_path: Path, part: str) -> None:
    """Lost manifests and key objects end the run with an error; of lost data `check` says so: a run reads no gigabytes twice."""
    bank.create(mariadb, ballast_rows=10)
    repository = new_repository(tmp_path / "r")
    store = Losing(repository.backend)
    store.part = part
    request = full.FullRequest(mariadb.endpoint, (IDENTITY.recipient,), "here", databases=("bank",), workers=1)
    broken = replace(repository, backend=store, verified={})
    try:
        full.run_full(broken, request)
    except errors.KpbackupError as exc:
        assert isinstance(exc, errors.StorageError | errors.IntegrityError) and exc.message
        assert [one for history in catalog.read_catalog(repository).histories for one in history.sets] == []
    else:
        assert part not in ("/sets/", "keys/"), "what everything hangs on is read back"
        report = check.check(repository)
        assert report.problems and any(part in str(problem) for problem in report.problems)
    full.run_full(repository, request)
    newest = catalog.read_catalog(repository).current
    assert newest is not None and newest.sets


def test_a_stale_listing_makes_no_second_truth(source: Server, tmp_path: Path) -> None:
    """A store that lists what was there a while ago: the numbers are taken, so the fence holds and nothing is overwritten."""
    repository = new_repository(tmp_path / "r")
    run_full(source)(repository)
    store = Stale(repository.backend)
    store.freeze()
    source.execute("INSERT INTO shop.orders VALUES (2, 'x')")
    run_incremental(source)(repository)
    before = {info.key: info.etag for info in repository.backend.list("timelines/")}
    source.execute("INSERT INTO shop.orders VALUES (3, 'x')")
    stale = replace(repository, backend=store, verified={}, stretches={})
    run_full(source)(stale)  # its number was free in fact
    with pytest.raises(errors.KpbackupError) as caught:
        run_incremental(source)(stale)
    assert caught.value.hint
    after = {info.key: info.etag for info in repository.backend.list("timelines/")}
    assert {key: etag for key, etag in after.items() if key in before} == before
    run_incremental(source)(repository)
    found = chain.chains(found_after(repository))
    assert len(found) == 2 and all(one.gap is None for one in found)
