"""The continuous archive on real servers: seconds old, each transaction once, whatever breaks in between."""

from __future__ import annotations

import dataclasses
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
from kpbackup.repository import binding, catalog, check, compact, layout, lease, prune
from kpbackup.repository.binding import Repository
from kpbackup.service import metrics, pages
from kpbackup.storage import open_backend
from tests.cut_off import CutOffBackend
from tests.integration.deployment import until
from tests.servers.database import Server

IDENTITY = encrypt.Identity.generate()
SIGNING_KEY = sign.SigningKey.generate()
ROW = "INSERT INTO shop.orders (note) VALUES (REPEAT('x', 200))"


class Archive:
    """A repository and a continuous archive that runs in a thread of the test."""

    def __init__(self, repository: Repository, source: Server) -> None:
        self.repository, self.source = repository, source
        self.meter = continuous.Meter()
        self.error: BaseException | None = None
        self.request = archiver.ArchiveRequest(
            source.endpoint, (IDENTITY.recipient,), "the-same-pod", interval_s=1.0, observe_interval_s=1.0
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            continuous.run_continuous(self.repository, self.request, stop=self._stop, meter=self.meter)
        except BaseException as exc:  # what the test asks for
            self.error = exc

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(180)
        assert not self._thread.is_alive()

    def ended(self) -> BaseException | None:
        """The error it ended with by itself."""
        self._thread.join(180)
        assert not self._thread.is_alive()
        return self.error

    def history(self) -> History:
        """What a reader finds that knows nothing from before."""
        found = catalog.read_catalog(dataclasses.replace(self.repository, verified={})).current
        assert found is not None
        return found

    def gtids(self) -> list[str]:
        """Every archived transaction after the set, in the order of the archive, read from the sealed payloads."""
        history = self.history()
        (found,) = chain.chains(catalog.detailed(self.repository, history, history.units))
        assert found.gap is None
        reader = SegmentReader(self.repository, (IDENTITY,))
        return [one.gtid for segment in found.segments for one in cuts.transactions(reader, segment)]

    def is_at_end(self) -> bool:
        """Whether everything the source has is restorable."""
        (found,) = chain.chains(self.history())
        with self.source.connect() as connection:
            end = coordinates.read_coordinates(connection, facts.read_facts(connection))
        return (found.end.file, found.end.position) == (end.file, end.position)


def shown(archive: Archive) -> dict[str, float]:
    """What `/metrics` says of the continuous archive at this moment, by the end of the name."""
    observed = metrics.Observed("db", datetime.now(UTC), None, archive=pages.standing(archive.meter))
    lines = (line.partition("{")[::2] for line in metrics.exposition(observed).decode().splitlines() if line[:1] != "#")
    return {
        name.removeprefix("kpbackup_archive_"): float(rest.rpartition("} ")[2])
        for name, rest in lines if name.startswith("kpbackup_archive_")
    }  # fmt: skip


@contextmanager
def running(repository: Repository, source: Server, **request: float) -> Iterator[Archive]:
    made = Archive(repository, source)
    made.request = dataclasses.replace(made.request, **request)  # type: ignore[arg-type]
    made.start()
    try:
        until(lambda: made.meter.following or made.error, what="the archive to follow")
        yield made
    finally:
        made.stop()


def new_repository(directory: Path, source: Server, *, flavour: str = "mariadb") -> Repository:
    source.execute("CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT AUTO_INCREMENT PRIMARY KEY, note LONGTEXT)")
    store = open_backend(directory.as_uri())
    repository = binding.create_repository(
        store, signing_key=SIGNING_KEY, source="db", flavour=flavour, created_at=datetime.now(UTC)
    )
    full.run_full(repository, full.FullRequest(source.endpoint, (IDENTITY.recipient,), "full", workers=1))
    return repository


def numbers(gtids: list[str]) -> list[int]:
    return [int(gtid.replace(":", "-").rpartition("-")[2]) for gtid in gtids]


def each_once(archive: Archive, count: int) -> None:
    """The archive holds `count` transactions, one number after the other, and nothing is damaged."""
    found = numbers(archive.gtids())
    assert len(found) == count and found == list(range(found[0], found[0] + count))
    report = check.check(archive.repository, read_percent=100, identities=(IDENTITY,))
    assert report.problems == () and report.read_objects == report.objects


@pytest.mark.parametrize("flavour", ["mariadb", "mysql"])
def test_what_is_committed_is_in_the_bucket_seconds_later(
    flavour: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source: Server = request.getfixturevalue("mariadb" if flavour == "mariadb" else "mysql97")
    repository, began = new_repository(tmp_path / "r", source, flavour=flavour), time.monotonic()
    with running(repository, source) as archive:
        for round_ in range(2):
            source.execute(*[ROW] * 5)
            until(archive.is_at_end, what=f"round {round_} to be archived")
        source.execute("FLUSH BINARY LOGS", *[ROW] * 5)
        until(archive.is_at_end, what="the next file")
        segments = len(archive.history().segments)
        # time cuts, not one object a transaction: two of a file's own events, and one a second
        assert segments <= 2 + (time.monotonic() - began) / archive.request.interval_s + 1
        until(lambda: archive.meter.transactions == 15, what="the last segment to be counted")  # it is counted once it is stored
    each_once(archive, 15)
    assert archive.error is None
    # joined with others and its small objects gone, the archive is still what it was, down to the CRC of each event
    later = datetime.now(UTC) + timedelta(days=2)
    repository = dataclasses.replace(archive.repository, page_rows=2)
    assert compact.run(repository, "0001", later).objects
    found = catalog.read_catalog(repository)
    prune.execute(repository, found, retention.NOTHING, retention.Policy(), later + timedelta(days=2))
    assert len(list(repository.backend.list(layout.log_prefix("0001", "segments")))) <= 2  # the newest, and one no page lists
    archive.repository = dataclasses.replace(repository, verified={}, stretches={})
    each_once(archive, 15)
    held = lease.observe(archive.repository, "archive")
    assert held is not None and not held.held


def test_a_stop_stores_what_is_at_hand(tmp_path: Path, mariadb: Server) -> None:
    with running(new_repository(tmp_path / "r", mariadb), mariadb, interval_s=3600.0, observe_interval_s=3600.0) as archive:
        mariadb.execute(*[ROW] * 7)
        until(lambda: _has_sent_all(mariadb), what="the source to send them")
        archive.stop()
        (at_hand,) = archive.history().segments  # whole transactions, as many as had come through the connection
        assert 1 <= at_hand.transactions <= 7
    # and the hourly pass goes on where the continuous one ended
    mariadb.execute(*[ROW] * 3)
    rest = archiver.run_incremental(archive.repository, archive.request).segments
    assert at_hand.transactions + sum(s.transactions for s in rest) == 10
    each_once(archive, 10)


def _has_sent_all(source: Server) -> bool:
    with source.connect() as connection:
        states = [str(row[6]) for row in connection.rows("SHOW PROCESSLIST") if str(row[4]) == "Binlog Dump"]
    return any("sent all binlog" in state for state in states)


def test_an_idle_source_costs_an_observation_now_and_then(tmp_path: Path, mariadb: Server) -> None:
    repository = new_repository(tmp_path / "r", mariadb)
    store, began = CutOffBackend(repository.backend), time.monotonic()
    with running(dataclasses.replace(repository, backend=store), mariadb) as archive:
        until(lambda: _observations(store) >= 3, what="observations")
        with mariadb.connect() as connection:
            clock = facts.clock(connection)
        until(lambda: _newest_clock(archive.history()) > clock, what="the recovery point to move with the clock")
    history = archive.history()
    assert len(history.segments) <= 1  # the file's own events after the set, if any
    lasted_s = time.monotonic() - began
    assert _observations(store) <= 3 + lasted_s / archive.request.observe_interval_s
    assert sum("/segments/" in key for key in store.writes) <= 1
    assert sum(key.startswith("leases/") for key in store.writes) <= 4 + lasted_s / continuous.LEASE_TTL_S * 4


def _observations(store: CutOffBackend) -> int:
    return sum("/observations/" in key for key in store.writes)


def _newest_clock(history: History) -> datetime:
    assert history.observation is not None
    return history.observation.observation.clock


@pytest.mark.parametrize("how", ["before", "after"])
def test_a_store_that_is_away_for_a_while(how: str, tmp_path: Path, mariadb: Server) -> None:
    """`after`: what was written is there, but its answer was lost: it must not be stored twice."""
    repository = new_repository(tmp_path / "r", mariadb)
    away = threading.Event()
    store = CutOffBackend(repository.backend, refuse=lambda number, key: how if away.is_set() else "")
    # so small a spool that the source must wait too; its rows do not compress
    with running(
        dataclasses.replace(repository, backend=store), mariadb, spool_bytes=1_000_000, segment_bytes=300_000
    ) as archive:
        mariadb.execute(*[ROW] * 5)
        until(archive.is_at_end, what="the first rows")
        away.set()
        mariadb.execute(*(f"INSERT INTO shop.orders (note) VALUES ('{secrets.token_hex(30_000)}')" for _ in range(90)))
        until(lambda: shown(archive)["stalled_seconds"] > 0.5, what="the stall to be seen in the metrics")
        seen: list[dict[str, float]] = []

        def is_full() -> bool:
            seen.append(shown(archive))
            return seen[-1]["waiting_bytes"] > 500_000

        until(is_full, what="the spool to fill, and the metrics to say so")
        meanwhile = seen[-1]
        assert meanwhile["waiting_bytes"] < 1_700_000 < 90 * 30_000  # bounded: the rest is left on the source
        assert meanwhile["following"] == 1 and meanwhile["waiting_segments"] > 0
        if how == "before":  # it grows as long as the store is away; with the answers alone lost, each second try gets on
            assert shown(archive)["stalled_seconds"] > meanwhile["stalled_seconds"] > 0.5
        away.clear()
        until(archive.is_at_end, what="the archive to catch up")
        until(lambda: {*map(shown(archive).get, ("stalled_seconds", "waiting_segments", "waiting_bytes"))} == {0.0},
              what="the end of the stall in the metrics")
    assert archive.error is None
    each_once(archive, 95)


def test_a_stop_while_the_store_is_away(tmp_path: Path, mariadb: Server) -> None:
    repository = new_repository(tmp_path / "r", mariadb)
    away = threading.Event()
    store = CutOffBackend(repository.backend, refuse=lambda number, key: "before" if away.is_set() else "")
    with running(dataclasses.replace(repository, backend=store), mariadb) as archive:
        away.set()
        mariadb.execute(*[ROW] * 5)
        until(lambda: archive.meter.stalled_s > 0, what="the stall to be seen")
        archive.stop()
        assert isinstance(archive.error, errors.StorageError)
    away.clear()
    archiver.run_incremental(repository, archive.request)
    each_once(archive, 5)


@pytest.mark.parametrize("flavour", ["mariadb", "mysql"])
def test_a_source_that_restarts_and_one_that_crashes(flavour: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    source: Server = request.getfixturevalue("mariadb" if flavour == "mariadb" else "mysql97")
    with running(new_repository(tmp_path / "r", source, flavour=flavour), source) as archive:
        source.execute(*[ROW] * 5)
        source.restart()
        source.execute(*[ROW] * 5)
        until(archive.is_at_end, what="the archive after a restart")
        source.execute(*[ROW] * 5)
        source.kill()
        source.start()
        source.execute(*[ROW] * 5)
        until(archive.is_at_end, what="the archive after a crash")
        assert archive.meter.interruptions >= 2
    assert archive.error is None
    each_once(archive, 20)


def test_what_had_come_when_a_source_dies_is_stored(tmp_path: Path, mariadb: Server) -> None:
    """For it may never come back. The interval is an hour: it was not the clock that ended the segment."""
    with running(new_repository(tmp_path / "r", mariadb), mariadb, interval_s=3600.0, observe_interval_s=3600.0) as archive:
        mariadb.execute(*[ROW] * 7)
        until(lambda: _has_sent_all(mariadb), what="the source to send them")
        mariadb.kill()
        until(lambda: archive.meter.transactions, what="what had come to be stored")
    each_once(archive, 7)


def test_a_source_that_is_reset_meanwhile(tmp_path: Path, mariadb: Server) -> None:
    with running(new_repository(tmp_path / "r", mariadb), mariadb) as archive:
        mariadb.execute(*[ROW] * 5)
        until(archive.is_at_end, what="the rows")
        mariadb.execute("RESET MASTER", ROW)
        assert isinstance(archive.ended(), errors.ChainBroken)
    each_once(archive, 5)


def test_one_archives_at_a_time(tmp_path: Path, mariadb: Server) -> None:
    repository = new_repository(tmp_path / "r", mariadb)
    with running(repository, mariadb) as archive:
        mariadb.execute(ROW)
        other = dataclasses.replace(archive.request, holder="another-pod")
        lost = None
        deadline = time.monotonic() + 240
        while lost is None and time.monotonic() < deadline:
            try:
                continuous.run_continuous(repository, other, stop=threading.Event())
            except errors.LeaseHeld as exc:
                lost = exc
        assert lost is not None and "the-same-pod holds the lease" in lost.message
        until(archive.is_at_end, what="the rows")
    each_once(archive, 1)


def test_a_pass_that_took_the_number_stops_it(tmp_path: Path, mariadb: Server) -> None:
    """The fence under the lease: whoever finds the next number taken stores nothing more."""
    repository = new_repository(tmp_path / "r", mariadb)
    refused: list[str] = []

    def steal(number: int, key: str) -> str:
        if "/segments/" in key and not refused:
            refused.append(key)
            repository.backend.put_if_absent(key, b"somebody else's")
        return ""

    with running(dataclasses.replace(repository, backend=CutOffBackend(repository.backend, refuse=steal)), mariadb) as archive:
        mariadb.execute(ROW)
        error = archive.ended()
        assert isinstance(error, errors.LeaseHeld) and "another archiver" in str(error)
    assert [info.key for info in repository.backend.list(layout.log_prefix("0001", "segments"))] == refused


def test_nothing_of_the_source_lies_on_local_disk(tmp_path: Path, mariadb: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is sealed, and in files that have no name."""
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spool))
    repository = new_repository(tmp_path / "r", mariadb)
    away = threading.Event()
    store = CutOffBackend(repository.backend, refuse=lambda number, key: "before" if away.is_set() else "")
    with running(dataclasses.replace(repository, backend=store), mariadb, segment_bytes=100_000) as archive:
        away.set()
        mariadb.execute(*["INSERT INTO shop.orders (note) VALUES (CONCAT('planted ', REPEAT('secret words ', 9000)))"] * 9)
        until(lambda: archive.meter.waiting_segments > 3, what="segments to wait")
        files = _open_files(spool)
        assert files and all(b"planted" not in data and b"secret words" not in data for data in files)
        assert list(spool.iterdir()) == []
        away.clear()
        until(archive.is_at_end, what="the archive to catch up")
    each_once(archive, 9)


def _open_files(directory: Path) -> list[bytes]:
    """The contents of this process's unlinked files that were made in `directory`."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if str(entry.readlink()).startswith(str(directory)):
                found.append(entry.read_bytes())
        except OSError:
            continue  # closed meanwhile
    return found


