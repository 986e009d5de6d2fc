"""Second copies as a user meets them: `kpbackup copy`, `--copy NAME`, status and metrics, a restore with the origin gone."""

from __future__ import annotations

import re
import shutil
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration import scenario
from tests.integration.deployment import until
from tests.integration.scenario import Scene
from tests.servers import ports
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server

Pair = tuple[Server, Server]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("copies")
    with (
        mariadb_server(directory / "source", server_id=231) as source,
        mariadb_server(directory / "target", server_id=232) as target,
    ):
        source.execute("CREATE DATABASE shop", "CREATE TABLE shop.notes (id INT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(100))")
        yield source, target


@pytest.fixture
def scene(tmp_path: Path, pair: Pair) -> Scene:
    """A repository with a set and a segment, and a copy in the settings."""
    scenario.wipe(pair[1])
    made = Scene(tmp_path / "scene", source=pair[0], target=pair[1])
    made.settings["copies"] = [{"name": "offsite", "url": (tmp_path / "offsite").as_uri()}]
    made.ok("init", "--keys", str(made.keys))
    made.ok("backup", "full")
    pair[0].execute("INSERT INTO shop.notes (note) VALUES ('archived')")
    made.ok("backup", "incremental")
    return made


def status(scene: Scene) -> Any:
    """Whatever its level is."""
    return scene.run("--json", "status").document


def test_with_the_origin_gone_everything_is_restored_from_the_copy(scene: Scene, pair: Pair) -> None:
    assert status(scene)["copies"][0]["problem"].startswith("there is no kpbackup repository")
    (row,) = scene.ok("copy")["copies"]
    assert row["copy"] == "offsite" and row["manifests"] >= 3 and row["bytes"] > 1000 and not row["error"]
    shown = status(scene)
    (of_copy,) = shown["copies"]
    assert of_copy.pop("copied_at") > shown["recovery_point"]
    assert of_copy == {
        "copy": "offsite", "recovery_point": shown["recovery_point"], "max_age_seconds": 86400.0, "problem": "",
    }  # fmt: skip
    shutil.rmtree(scene.repository)
    restorer = scene.for_restore()
    assert restorer.ok("--copy", "offsite", "check", "--all")["intact"] is True
    restorer.restore_from("offsite", "--to", "latest")
    assert scenario.truth(pair[1]) == scenario.truth(pair[0])
    assert restorer.ok("--copy", "offsite", "recoveries")["recoveries"]


def test_a_copy_is_written_by_copying_alone(scene: Scene) -> None:
    scene.ok("copy", "offsite")
    for words in (("backup", "full"), ("pin", "0001-1"), ("keys", "rewrap"), ("keys", "canary"), ("copy",)):
        assert "`kpbackup copy` alone writes" in scene.refused(10, "--copy", "offsite", *words)
    assert "copies in the settings: offsite" in scene.refused(11, "--copy", "elsewhere", "list")
    assert "copies in the settings: offsite" in scene.refused(11, "copy", "elsewhere")
    assert scene.ok("--copy", "offsite", "prune")["deleted_objects"] == 0


def test_a_late_copy_is_a_warning(scene: Scene, pair: Pair) -> None:
    scene.ok("copy")
    scene.settings["copies"][0]["max_age"] = "1ms"
    assert "run `kpbackup copy`" in scene.run("status").out


def test_the_daemon_copies_and_makes_canaries_and_shows_the_copys_own_recovery_point(scene: Scene, pair: Pair) -> None:
    port = ports.free_port()
    scene.settings["service"] = {"listen": f"127.0.0.1:{port}"}
    scene.settings["schedule"] = {"canary": "0 3 1 1 *"}
    daemon = scene.start("daemon")
    try:
        def recovery_point(name: str) -> float | None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                    text = answer.read().decode()
            except OSError:
                return None
            found = re.search(rf"^{name}\{{[^}}]*\}} (\S+)$", text, re.MULTILINE)
            return float(found[1]) if found else None

        of_copy = until(
            lambda: recovery_point("kpbackup_copy_recovery_point_timestamp_seconds"), what="the copy's metric", timeout_s=300
        )
        origin = recovery_point("kpbackup_recovery_point_timestamp_seconds")
        assert origin is not None and of_copy <= origin
        last = "kpbackup_copy_last_success_timestamp_seconds"
        assert until(lambda: recovery_point(last), what="the copy's report", timeout_s=300) > of_copy
        until(lambda: scene.ok("keys", "list")["recipients"][0]["canary_at"], what="the first canary", timeout_s=300)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.communicate(timeout=120)
    assert daemon.returncode == 0
