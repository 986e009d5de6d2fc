"""The daemon as a process on real servers: catching up, showing the state, sharing work, mending a chain, ending in order."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kpbackup.repository import lease
from tests.integration.deployment import Deployment, deploy, order, until
from tests.servers import ports
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.s3 import S3Server, s3_server

STOP_LIMIT_S = 60.0  # the daemon's own bound is 20 s; the rest is for a busy machine
NEVER = "0 0 29 2 *"  # a schedule that is never due during a test once something was stored
ONCE = {"full": NEVER, "incremental": NEVER}  # not even in a test that runs when an hour strikes


@dataclass
class Running:
    """A daemon or exporter under test."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def get(self, path: str) -> tuple[int, str]:
        """(status, body); status 0 while nobody listens."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()
        except OSError:
            assert self.process.poll() is None, self.log.read_text()
            return 0, ""

    def metric(self, name: str, **labels: str) -> float | None:
        """The value of one sample, None when it is not shown."""
        for line in self.get("/metrics")[1].splitlines():
            head, _, value = line.rpartition(" ")
            if head.split("{")[0] == name and all(f'{key}="{text}"' in head for key, text in labels.items()):
                return float(value)
        return None

    @property
    def is_busy(self) -> bool:
        return any(self.metric("kpbackup_job_running", kind=kind) for kind in ("full", "incremental"))

    def last_success(self, kind: str) -> float | None:
        return self.metric("kpbackup_last_success_timestamp_seconds", kind=kind)

    def events(self, name: str) -> list[dict[str, Any]]:
        written = self.log.read_text().splitlines(keepends=True)
        lines = [json.loads(line) for line in written if line.startswith("{") and line.endswith("\n")]  # the last may be half
        return [line for line in lines if line["event"] == name]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Signals it; seconds until it ended, with exit code 0."""
        began = time.monotonic()
        self.process.send_signal(number)
        assert self.process.wait(STOP_LIMIT_S) == 0, self.log.read_text()
        return time.monotonic() - began


@contextmanager
def running(
    made: Deployment,
    *,
    verb: str = "daemon",
    name: str = "one",
    options: Sequence[str] = (),
    required_files: Sequence[dict[str, str]] = (),
    **settings: Any,
) -> Iterator[Running]:
    """A daemon (or exporter) whose web server answers; killed at the end."""
    port = ports.free_port()
    own = Deployment(made.directory / name, {**made.settings, **settings}, made.environ)
    own.directory.mkdir()
    own.settings["service"] = {"instance": name, "listen": f"127.0.0.1:{port}", "required_files": list(required_files)}
    own.settings["log"] = {"format": "json"}
    own.write()
    process = own.start(verb, *options, log=own.directory / "log")
    found = Running(process, port, own.directory / "log")
    try:
        until(lambda: found.get("/api/health")[0], what="the web server")
        yield found
    finally:
        process.kill()
        process.wait()


def sets(made: Deployment) -> list[str]:
    return [one["set"] for one in made.json("list")["sets"]]


def segments(made: Deployment) -> int:
    return sum(int(one["segments"]) for one in made.json("list")["archive"])


@pytest.mark.slow
def test_it_catches_up_shows_the_state_and_ends_in_order(tmp_path: Path, mariadb: Server, s3: S3Server, s3_bucket: str) -> None:
    made = deploy(
        tmp_path / "deployment", mariadb, url=f"s3://{s3_bucket}/shop", endpoint_url=s3.endpoint_url, environ=s3.environ()
    )
    order(mariadb, "before the daemon")
    with running(made, schedule=ONCE) as daemon:
        until(lambda: daemon.last_success("incremental"), what="the missed full and incremental")
        # a reading of the store may show what a job has committed before it has ended
        finished = until(lambda: found if len(found := daemon.events("job_finished")) > 1 else None, what="the ends of both")
        assert [one["kind"] for one in finished] == ["full", "incremental"]
        label = {"source": "shop-db"}
        assert daemon.metric("kpbackup_backup_sets", **label) == 1
        assert daemon.metric("kpbackup_chain_intact", **label) == 1
        assert daemon.metric("kpbackup_source_up", **label) == 1 and daemon.metric("kpbackup_store_up", **label) == 1
        assert daemon.metric("kpbackup_job_failures_total", kind="full", **label) == 0
        assert abs(daemon.metric("kpbackup_source_clock_skew_seconds", **label) or 9) < 5
        assert (daemon.metric("kpbackup_achieved_rpo_seconds", **label) or 9999) < 120
        status, body = daemon.get("/api/health")
        assert status == 200 and json.loads(body).keys() == {"status", "database", "uptime"}
        assert json.loads(body)["status"] == "healthy" and json.loads(body)["database"] == "connected"
        assert daemon.get("/api/health/ready") == (200, '{"ready": true}\n')
        assert daemon.get("/nowhere")[0] == 404 and json.loads(daemon.get("/nowhere")[1])["error"] == "not found"
        assert "Recovery point" in daemon.get("/")[1]

        mariadb.kill()
        until(lambda: daemon.get("/api/health")[0] == 503, what="the source to be missed")
        assert json.loads(daemon.get("/api/health")[1])["database"] == "disconnected"
        assert daemon.metric("kpbackup_source_up", **label) == 0
        assert daemon.metric("kpbackup_recovery_point_timestamp_seconds", **label)  # the last truth stays
        assert daemon.get("/api/health/ready")[0] == 200
        mariadb.start()
        until(lambda: daemon.get("/api/health")[0] == 200, what="the source to be found again")
        assert daemon.stop() < STOP_LIMIT_S
        assert daemon.events("daemon_stopped") and not daemon.events("job_failed")
    assert sets(made) == ["0001-1"]


def test_two_daemons_do_the_work_once(tmp_path: Path, mariadb: Server) -> None:
    made = deploy(tmp_path / "deployment", mariadb)
    order(mariadb, "one transaction")
    with running(made, name="one", schedule=ONCE) as one, running(made, name="two", schedule=ONCE) as two:
        until(lambda: one.last_success("incremental") and two.last_success("incremental"), what="an incremental")
        until(lambda: not one.is_busy and not two.is_busy, what="the end of their jobs")
        assert sets(made) == ["0001-1"]
        assert segments(made) <= 1
        assert (
            one.metric("kpbackup_job_failures_total", kind="full") == two.metric("kpbackup_job_failures_total", kind="full") == 0
        )
        one.stop()
        two.stop(signal.SIGINT)


def test_a_reset_source_gets_a_new_timeline_by_itself(tmp_path: Path, mariadb: Server) -> None:
    made = deploy(tmp_path / "deployment", mariadb)
    made.json("backup", "full")
    order(mariadb, "archived")
    made.json("backup", "incremental")
    mariadb.execute("RESET MASTER")
    order(mariadb, "after the reset")
    with running(made, schedule={"full": NEVER, "incremental": NEVER}, archive={"continuous": True, "interval": "1s"}) as daemon:
        until(lambda: daemon.events("chain_broken"), what="the broken chain to be seen")
        until(lambda: sets(made) == ["0001-1", "0002-1"], what="a full backup on a new timeline")
        order(mariadb, "on the new timeline")
        until(lambda: made.json("list")["archive"][1]["segments"], what="the archive to go on")
        assert daemon.metric("kpbackup_job_failures_total", kind="incremental") == 1
        assert daemon.metric("kpbackup_job_failures_total", kind="full") == 0
        daemon.stop()
    listed = made.json("list")
    assert listed["archive"][1]["reason"] == "reset" and listed["archive"][1]["parent"] == "0001"
    assert len(listed["windows"]) == 2


def test_sigterm_in_the_middle_of_a_full_backup(tmp_path: Path) -> None:
    with mariadb_server(tmp_path / "mariadb", server_id=71) as source:
        made = deploy(tmp_path / "deployment", source)
        source.execute(
            "INSERT INTO shop.orders (note) SELECT CONCAT(a.note, b.note) FROM shop.orders a, shop.orders b LIMIT 200000"
        )
        slow = {**made.settings["source"], "bandwidth_limit": "64KiB"}
        with running(made, source=slow, schedule=ONCE) as daemon:
            writing = made.store / ".kpbackup-tmp"  # an object on its way into the store
            until(
                lambda: daemon.metric("kpbackup_job_running", kind="full") and any(writing.glob("?" * 32)),
                what="rows to be written",
            )
            assert daemon.stop() < STOP_LIMIT_S
            assert not daemon.events("job_finished") and not daemon.events("job_failed")
        held = lease.observe(made.open(), "full")
        assert held is not None and not held.held
        assert sets(made) == []
        assert made.json("backup", "full")["set"] == "0001-1"
        assert made.json("check", "--all")["intact"]


@pytest.mark.slow
def test_a_store_that_goes_away(tmp_path: Path, mariadb: Server) -> None:
    with s3_server(tmp_path / "s3") as own:
        own.create_bucket("kpb-away")
        made = deploy(
            tmp_path / "deployment", mariadb, url="s3://kpb-away/shop", endpoint_url=own.endpoint_url, environ=own.environ()
        )
        made.json("backup", "full")
        with running(made, verb="exporter") as exporter:
            until(lambda: exporter.get("/api/health/ready")[0] == 200, what="the first reading")
            assert exporter.metric("kpbackup_backup_sets") == 1
            own.kill()
            until(lambda: exporter.metric("kpbackup_store_up") == 0, what="the store to be missed", timeout_s=240)
            status, body = exporter.get("/api/health/ready")
            assert status == 503 and json.loads(body)["ready"] is False and json.loads(body)["reason"]
            assert exporter.metric("kpbackup_backup_sets") == 1
            exporter.stop()


def test_a_taken_address_is_told(tmp_path: Path, mariadb: Server) -> None:
    made = deploy(tmp_path / "deployment", mariadb)
    with running(made, verb="exporter") as exporter:
        for verb in ("daemon", "exporter"):
            ended = made.run("--set", f"service.listen=127.0.0.1:{exporter.port}", verb)
            assert ended.returncode == 11
            assert f"cannot listen on 127.0.0.1:{exporter.port}" in ended.stderr and "service.listen" in ended.stderr


@pytest.mark.parametrize("missing", ["encryption", "signing", "source", "repository"])
def test_what_is_missing_is_told_at_the_start(tmp_path: Path, stocked_settings: Deployment, missing: str) -> None:
    settings = {key: value for key, value in stocked_settings.settings.items() if key != missing}
    broken = Deployment(tmp_path, settings)
    broken.write()
    ended = broken.run("daemon")
    assert ended.returncode == 11 and missing in ended.stderr


@pytest.fixture(scope="module")
def stocked_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A deployment whose source may be gone: settings are judged before it is asked."""
    directory = tmp_path_factory.mktemp("settings")
    with mariadb_server(directory / "mariadb", server_id=72) as source:
        yield deploy(directory / "deployment", source)
