"""No more connections than `source.max_connections`: counted in the process list, and enforced by the server itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration import scenario
from tests.integration.deployment import deploy, order, until
from tests.integration.scenario import Scene
from tests.servers.database import Server

SHOP = (
    "CREATE DATABASE shop", "CREATE TABLE shop.t (id INT PRIMARY KEY AUTO_INCREMENT, v VARBINARY(2000))",
    "INSERT INTO shop.t (v) SELECT REPEAT(CHAR(97 + n), 2000) FROM (SELECT 0 n UNION ALL SELECT 1 UNION ALL SELECT 2) a",
    *("INSERT INTO shop.t (v) SELECT v FROM shop.t" for _ in range(9)),
    *(f"CREATE TABLE shop.t{n} AS SELECT * FROM shop.t" for n in range(8)),
)  # fmt: skip
PASSWORD = "only-for-this-test"
NEVER = "0 0 29 2 *"


@pytest.fixture(params=["mariadb", "mysql97"])
def source(request: pytest.FixtureRequest) -> Iterator[Server]:
    server: Server = request.getfixturevalue(request.param)
    server.execute(*SHOP)
    yield server


class Count:
    """How many connections of the account there were at most, over all samples."""

    def __init__(self) -> None:
        self.most = 0
        self.samples = 0
        self.failure: BaseException | None = None


@contextmanager
def counting(server: Server) -> Iterator[Count]:
    """Counts the account's connections as often as the server answers.

    The server lists a session for some time after its client has closed it, so only those count whose client still has
    its end open, looked at after the list: each that counts was open at the time of the list.
    """
    count, stop = Count(), threading.Event()

    def sample() -> None:
        with server.connect() as connection:
            while not stop.is_set():
                listed = connection.rows("SELECT host FROM information_schema.processlist WHERE user = 'kpb'")
                count.most = max(count.most, len({int(host.rpartition(":")[2]) for (host,) in listed} & open_ends(server.port)))
                count.samples += 1

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield count
    finally:
        stop.set()
        thread.join()


def open_ends(port: int) -> set[int]:
    """The ports of the clients whose connections to `port` are established (proc(5), /proc/net/tcp)."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(local.rpartition(":")[2], 16) for _, local, remote, state, *_ in lines
            if state == "01" and int(remote.rpartition(":")[2], 16) == port}  # fmt: skip


def allow(server: Server, connections: int) -> None:
    """An account that the server itself holds to the limit."""
    server.execute(
        "DROP USER IF EXISTS kpb@'%'",
        f"CREATE USER kpb@'%' IDENTIFIED BY '{PASSWORD}' WITH MAX_USER_CONNECTIONS {connections}", "GRANT ALL ON *.* TO kpb@'%'",
    )


def as_account(settings: dict[str, Any], directory: Path, connections: int, **more: Any) -> dict[str, Any]:
    (directory / "password").write_text(PASSWORD)
    changed = {"user": "kpb", "password_file": str(directory / "password"), "max_connections": connections}
    return {**settings, **changed, **more}


@pytest.mark.parametrize("connections", [3, 6])
def test_a_full_backup_and_incrementals_beside_it(source: Server, tmp_path: Path, connections: int) -> None:
    allow(source, connections)
    scene = Scene(tmp_path / "scene", source=source)
    scene.settings["source"] = as_account(scene.settings["source"], tmp_path, connections, bandwidth_limit="8MiB")
    scene.ok("init", "--keys", str(scene.keys))
    with counting(source) as first:
        scene.ok("backup", "full")
    scene.settings["source"]["bandwidth_limit"] = "4MiB"  # slow enough for many passes beside it
    with counting(source) as both:
        running = scene.start("--json", "backup", "full")
        passes = 0
        while running.poll() is None:
            source.execute("INSERT INTO shop.t (v) VALUES ('more')")
            passes += scene.ok("backup", "incremental")["segments"]
        out, err = running.communicate()
    assert running.returncode == 0, err
    assert json.loads(out)["rows"] >= 1536 * 9
    assert passes >= 2
    assert first.most == connections - 1
    assert first.most <= both.most <= connections  # a pass has its connection for moments, which nobody may have seen
    assert min(first.samples, both.samples) > 50


def test_a_full_backup_beside_a_daemon_that_archives_all_the_time_and_probes(source: Server, tmp_path: Path) -> None:
    source.execute("DROP DATABASE shop")
    deployment = deploy(tmp_path / "d", source)
    allow(source, 4)
    deployment.settings["source"] = as_account(deployment.settings["source"], tmp_path, 4, bandwidth_limit="8MiB")
    deployment.settings["archive"] = {"continuous": True, "interval": "1s", "observe_interval": "1s"}
    deployment.settings["schedule"] = {"full": NEVER}
    deployment.write()
    deployment.json("backup", "full")
    source.execute(*SHOP[1:])
    log = tmp_path / "log"
    with counting(source) as count:
        daemon = deployment.start("--log-format", "json", "daemon", log=log)
        try:

            def segments() -> int:
                assert daemon.poll() is None, log.read_text()
                order(source, "one more")
                return int(deployment.json("list")["archive"][0]["segments"])

            until(lambda: segments() >= 1, what="the stream to be open")
            before, samples = segments(), count.samples
            deployment.json("backup", "full")
            assert count.samples - samples > 50
            until(lambda: segments() > before, what="segments made beside the full backup")
        finally:
            daemon.terminate()
            daemon.wait(120)
        with source.connect() as connection:  # not the stream either; the server ends a session some time after its client
            sessions = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'kpb'"
            until(lambda: connection.value(sessions) == 0, what="the end of its sessions", timeout_s=20)
    for wrong in ("job_failed", "source_lost", "archive_interrupted"):
        assert wrong not in log.read_text(), log.read_text()
    assert 3 <= count.most <= 4  # a probe has its connection for moments, which nobody may have seen


def test_too_few_connections_are_refused(tmp_path: Path, mariadb: Server) -> None:
    scene = Scene(tmp_path / "scene", source=mariadb)
    scene.settings["source"] = {**scenario.login(mariadb), "max_connections": 2}
    said = scene.refused(11, "backup", "full")
    assert "source.max_connections: must be at least 3: one coordinates a full backup" in said


def test_a_continuous_archive_needs_one_more(tmp_path: Path, mariadb: Server) -> None:
    scene = Scene(tmp_path / "scene", source=mariadb)
    scene.settings["source"] = {**scenario.login(mariadb), "max_connections": 3}
    scene.settings["archive"] = {"continuous": True}
    said = scene.refused(11, "backup", "full")
    assert "kpbackup: source.max_connections: must be at least 4 with archive.continuous: one coordinates a full" in said
