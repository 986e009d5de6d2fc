"""Drills: a random point really restored on a scratch server, recorded, cleared, shown; and failed ones recorded as failed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kpbackup.mysql import server as mysql
from kpbackup.recovery import scratch, scratch_programs
from tests.integration import scenario
from tests.integration.deployment import Deployment, deploy, order, until
from tests.servers.mariadb import mariadb_server


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    directory = tmp_path_factory.mktemp("drill")
    with mariadb_server(directory / "source", server_id=91) as source:
        made = deploy(directory / "deployment", source)
        made.json("backup", "full")
        for number in range(3):
            scenario.next_second(source)
            order(source, f"after {number}")
        source.execute("CREATE USER app@'10.%'", "CREATE ROLE reading")
        made.json("backup", "incremental")
        made.settings["encryption"]["identity_file"] = str(made.keys / "identity.txt")
        made.settings["drill"] = {"directory": str(directory)}
        made.write()
        yield made


def runs(made: Deployment) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = made.json("recoveries")["recoveries"]
    return found


def scratch_directories(made: Deployment) -> list[Path]:
    return list(Path(made.settings["drill"]["directory"]).glob("kpbackup-drill-*"))


def test_a_drill_on_a_server_started_for_it(made: Deployment) -> None:
    """A random point; then the newest, whose rows are all those of the source."""
    before = len(runs(made))
    assert made.json("drill")["passed"]
    done = made.json("drill", "--to", "latest")
    assert done["details"]["transactions"] == "5" and done["details"]["rows"] == "1000"
    assert int(done["details"]["tables_compared"]) >= 1
    assert scratch_directories(made) == []
    recorded = runs(made)[before:]
    assert [(one["kind"], one["state"], one["signed"]) for one in recorded] == [("drill", "passed", True)] * 2
    status = made.json("status")
    assert status["last_drill"]["run"] == done["run"] and status["last_drill"]["passed"]
    assert status["proven_sets"] == [done["set"]]
    assert status["measured_rto"]["drill"]["run"] == done["run"]
    assert status["last_success"]["restore"] is None  # nobody recovered anything


def test_a_given_server_is_cleared_and_must_be_empty(made: Deployment, tmp_path: Path) -> None:
    with mariadb_server(tmp_path / "scratch", server_id=92) as scratch:
        kept = dict(made.settings)
        made.settings["recovery"] = {"target": scenario.login(scratch)}
        made.write()
        try:
            accounts = scenario.rows(scratch, "SELECT user, host FROM mysql.user ORDER BY 1, 2")
            assert made.json("drill")["passed"]
            assert scenario.databases(scratch) == []
            assert scenario.rows(scratch, "SELECT user, host FROM mysql.user ORDER BY 1, 2") == accounts
            scratch.execute("CREATE DATABASE precious")
            ended = made.run("drill")
            assert ended.returncode == 23 and "is not empty: it has precious" in ended.stderr, ended.stderr
            assert "leave recovery.target out" in ended.stderr and "--overwrite" not in ended.stderr  # which a drill has not
            assert scenario.databases(scratch) == ["precious"]
            assert runs(made)[-1]["state"] == "failed"
            assert made.json("status", code=1)["last_drill"]["passed"] is False
            made.settings["recovery"]["verify"] = {"sql": [{"query": "SELECT COUNT(*) FROM shop.orders", "expect": 7}]}
            made.write()
            scratch.execute("DROP DATABASE precious")
            ended = made.run("drill")
            assert ended.returncode == 26 and "7 expected" in ended.stderr.replace("'", ""), ended.stderr
            assert scenario.databases(scratch) == []
        finally:
            made.settings = kept
            made.write()


def test_a_server_that_cannot_be_started(made: Deployment, tmp_path: Path) -> None:
    kept = dict(made.settings)
    made.settings["drill"] = {**kept["drill"], "programs": str(tmp_path)}
    made.write()
    try:
        ended = made.run("drill")
        assert ended.returncode == 26 and "there is no MariaDB server in" in ended.stderr and "\nhint: " in ended.stderr
        assert [(one["kind"], one["state"]) for one in runs(made)[-1:]] == [("drill", "failed")]
    finally:
        made.settings = kept
        made.write()


def test_a_port_that_is_taken_meanwhile(tmp_path: Path) -> None:
    """It was free when it was drawn: another one is drawn, and what the first attempt left is gone."""
    programs = scratch_programs.find_programs(scratch_programs.Like("mariadb"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = int(other.getsockname()[1])
        drawn = iter((taken, scratch.free_port()))
        with scratch.started(programs, directory=str(tmp_path), draw=lambda: next(drawn)) as endpoint:
            assert endpoint.port != taken and len(list(tmp_path.iterdir())) == 1
            mysql.connect(endpoint).close()
    assert list(tmp_path.iterdir()) == []


def test_kill_minus_nine_leaves_no_server(made: Deployment, tmp_path: Path) -> None:
    drill = made.start("drill", log=tmp_path / "log")
    until(lambda: _written(made), what="a scratch server")
    (home,) = scratch_directories(made)
    server = int(_written(made))
    drill.send_signal(signal.SIGKILL)
    drill.wait()
    until(lambda: not home.exists(), what="the watchdog")
    until(lambda: not _is_running(server), what="the end of the server")


def _written(made: Deployment) -> str:
    """The process number in the file of a scratch server; '' while there is none, or the server has not filled it yet."""
    files = [home / "pid" for home in scratch_directories(made)]
    return files[0].read_text().strip() if files and files[0].exists() else ""


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
