"""A run that dies at any of its writes: docs/format.md, 'Ordering', one test per arrow of it.

A process of its own is killed with SIGKILL before its n-th write, or right after it (`points`). Whatever n is, what a reader
finds is complete, the next run goes on, and prune takes away what was left over.
"""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kpbackup import errors
from kpbackup.backup import archiver, continuous, full
from kpbackup.model.catalog import History
from kpbackup.mysql import coordinates, facts
from kpbackup.pipeline import encrypt, sign
from kpbackup.plan import chain, retention
from kpbackup.recovery import cut as cuts
from kpbackup.recovery.binlog import SegmentReader
from kpbackup.repository import binding, catalog, check, prune
from kpbackup.repository.binding import Repository
from kpbackup.storage import open_backend
from tests.crash import points
from tests.cut_off import CutOffBackend
from tests.servers.database import Server

CREATED = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
IDENTITY = encrypt.Identity.generate()
SIGNING_KEY = sign.SigningKey.generate()
Run = Callable[[Repository], object]


def new_repository(directory: Path) -> Repository:
    store = open_backend(directory.as_uri())
    return binding.create_repository(store, signing_key=SIGNING_KEY, source="db", flavour="mariadb", created_at=CREATED)


def copy_of(repository: Repository, directory: Path) -> Repository:
    shutil.copytree(repository.backend.name.removeprefix("file://"), directory)
    return binding.open_repository(open_backend(directory.as_uri()), public_keys=(), signing_key=SIGNING_KEY)


def run_full(source: Server) -> Run:
    request = full.FullRequest(source.endpoint, (IDENTITY.recipient,), "the-same-pod", databases=("shop",), workers=1)
    return lambda repository: full.run_full(repository, request)


def run_incremental(source: Server) -> Run:
    request = archiver.ArchiveRequest(source.endpoint, (IDENTITY.recipient,), "the-same-pod", segment_bytes=600)
    return lambda repository: archiver.run_incremental(repository, request)


def found_after(repository: Repository) -> History:
    """What a reader finds, every byte of it read and opened."""
    report = check.check(repository, read_percent=100, identities=(IDENTITY,))
    assert report.problems == () and report.read_objects == report.objects
    current = catalog.read_catalog(repository).current
    assert current is not None
    return current


def tidied(repository: Repository) -> None:
    """What the dead left over goes with a later prune, and nothing else does."""
    policy, later = retention.Policy(days=300), datetime.now(UTC) + timedelta(days=10)
    before = catalog.read_catalog(repository)
    prune.execute(repository, before, retention.plan_prune(before, policy, later), policy, later)
    named = {one.inventory.key.rpartition("/")[0] for history in before.histories for one in history.sets}
    assert {info.key.rpartition("/")[0] for info in repository.backend.list("data/")} == named
    found_after(repository)


@pytest.fixture
def with_a_set(source: Server, tmp_path: Path) -> Repository:
    """A repository with a set and, on the source, three segments' worth of changes after it."""
    repository = new_repository(tmp_path / "base")
    run_full(source)(repository)
    for number in (2, 3):
        row = f"INSERT INTO shop.orders VALUES ({number}, REPEAT('x', 300))"
        source.execute(row, f"DELETE FROM shop.orders WHERE id = {number}")
    source.execute("FLUSH BINARY LOGS", "INSERT INTO shop.orders VALUES (4, 'after')")
    wait_until_quiet(source)
    return repository


def wait_until_quiet(source: Server) -> None:
    """MariaDB notes some time after a FLUSH, in the binlog itself, that the files before are not needed for its recovery."""
    until = time.monotonic() + 120
    with source.connect() as connection:
        file = coordinates.list_binlogs(connection)[-1][0]
        while ("Binlog_checkpoint", file) not in [(row[2], row[5]) for row in connection.rows(f"SHOW BINLOG EVENTS IN '{file}'")]:
            assert time.monotonic() < until
            time.sleep(0.02)


def test_a_full_backup_writes_in_the_order_of_the_format(source: Server, tmp_path: Path) -> None:
    repository, store = points.noted(new_repository(tmp_path / "r"))
    run_full(source)(repository)
    assert points.kinds(store.writes) == points.FULL


@pytest.mark.slow
def test_a_full_backup_killed_at_any_write(source: Server, tmp_path: Path) -> None:
    run = run_full(source)
    committed_at = points.FULL.index("set") + 1
    for number, how in points.deaths(points.FULL):
        repository = new_repository(tmp_path / f"{number}-{how}")
        assert points.killed(run, repository, number, how)
        is_there = number > committed_at or (number, how) == (committed_at, "after")
        sets = [one for history in catalog.read_catalog(repository).histories for one in history.sets]
        assert len(sets) == is_there, f"{how} write {number}"
        assert check.check(repository, read_percent=100, identities=(IDENTITY,)).problems == ()
        run(repository)
        history = found_after(repository)
        assert history.id == "0001" and [one.head.seq for one in history.sets] == [1, 2][: 1 + is_there]
        tidied(repository)


def test_a_pass_writes_in_the_order_of_the_format(source: Server, with_a_set: Repository) -> None:
    repository, store = points.noted(with_a_set)
    run_incremental(source)(repository)
    assert points.kinds(store.writes) == points.INCREMENTAL
    store.writes.clear()
    run_incremental(source)(repository)
    assert points.kinds(store.writes) == points.OBSERVATION


@pytest.mark.slow
def test_a_pass_killed_at_any_write(source: Server, with_a_set: Repository, tmp_path: Path) -> None:
    run = run_incremental(source)
    segments = [number for number, kind in enumerate(points.INCREMENTAL, 1) if kind == "segment"]
    for number, how in points.deaths(points.INCREMENTAL):
        repository = copy_of(with_a_set, tmp_path / f"{number}-{how}")
        assert points.killed(run, repository, number, how)
        stored = sum(at < number or (at == number and how == "after") for at in segments)
        assert len(found_after(repository).segments) == stored, f"{how} write {number}"
        run(repository)
        whole(source, found_after(repository), repository)


@pytest.mark.slow
def test_a_continuous_archive_killed_at_any_write(source: Server, with_a_set: Repository, tmp_path: Path) -> None:
    def run(repository: Repository) -> None:
        to = (IDENTITY.recipient,)
        request = archiver.ArchiveRequest(source.endpoint, to, "the-same-pod", segment_bytes=600, interval_s=0.2)
        continuous.run_continuous(repository, request, stop=threading.Event(), meter=continuous.Meter())

    for number, how in points.deaths(points.CONTINUOUS):
        repository = copy_of(with_a_set, tmp_path / f"{number}-{how}")
        assert points.killed(run, repository, number, how)
        stored = points.CONTINUOUS[: number if how == "after" else number - 1].count("segment")
        assert len(found_after(repository).segments) == stored, f"{how} write {number}"
        run_incremental(source)(repository)
        whole(source, found_after(repository), repository)


def whole(source: Server, history: History, repository: Repository) -> None:
    """The archive is one chain from the set to the source's end, and holds each transaction once."""
    (found,) = chain.chains(history)
    with source.connect() as connection:
        end = coordinates.read_coordinates(connection, facts.read_facts(connection))
    assert found.gap is None and (found.end.file, found.end.position, found.end.gtid) == (end.file, end.position, end.gtid)
    reader = SegmentReader(repository, (IDENTITY,))
    gtids = [one.gtid for segment in found.segments for one in cuts.transactions(reader, segment)]
    first = int(history.sets[0].coordinates.gtid.rpartition("-")[2])
    assert [int(gtid.rpartition("-")[2]) for gtid in gtids] == list(range(first + 1, first + 6))


def test_an_observation_killed_at_any_write(source: Server, with_a_set: Repository, tmp_path: Path) -> None:
    run = run_incremental(source)
    run(with_a_set)
    for number, how in points.deaths(points.OBSERVATION):
        repository = copy_of(with_a_set, tmp_path / f"{number}-{how}")
        assert points.killed(run, repository, number, how)
        seen = found_after(repository).observation
        assert (seen is not None) is (number > 3 or (number, how) == (3, "after"))
        run(repository)
        after = found_after(repository).observation
        assert after is not None and after.head.seq == (1 if seen is None else 2)


def test_a_store_that_gives_back_other_bytes_is_no_success(source: Server, tmp_path: Path) -> None:
    """'Read the manifest back' is an arrow too: the write was confirmed, and still the run must not call it a success."""
    repository = new_repository(tmp_path / "r")
    lying = LyingBackend(repository.backend)
    with pytest.raises(errors.IntegrityError, match="reads back differently"):
        run_full(source)(dataclasses.replace(repository, backend=lying, verified={}))


class LyingBackend(CutOffBackend):
    """Loses the last byte of every set's manifest when it is read."""

    def get(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        data = b"".join(super().get(key, offset=offset, length=length))
        yield data[:-1] if "/sets/" in key else data
