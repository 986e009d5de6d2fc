"""Fixtures that give tests real servers, and the line that says which were exercised.

`mariadb`, `mariadb_pair`, `mariadb118`, `mariadb118_pair`, `mysql97`, `mysql97_pair` are fresh servers for each test; `s3` is
one server for the session with a fresh `s3_bucket` per test. A test that needs other options calls
`mariadb_server(tmp_path / "x", server_id=..., options=...)`. MariaDB 11.8 and MySQL are fetched (`servers/fetched.py`): one
that cannot be fetched fails the tests that need it, unless KPBACKUP_TEST_WITHOUT contains mariadb118 or mysql97.
"""

from __future__ import annotations

import itertools
import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import exercised
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.mariadb118 import home as mariadb118_home
from tests.servers.mariadb118 import mariadb118_server
from tests.servers.mysql97 import home as mysql97_home
from tests.servers.mysql97 import mysql97_server
from tests.servers.s3 import S3Server, s3_server

_server_ids = itertools.count(101)


# the files that take a minute or more: begun first, or one of several processes would still be at one when the others have ended
LONGEST = (
    "integration/test_continuity.py", "crash/test_kill.py", "integration/test_selection.py", "fidelity/test_scenes.py",
    "integration/test_five_steps.py", "integration/test_main_job.py", "integration/test_under_fire.py",
    "integration/test_connections.py", "integration/test_load.py", "integration/test_bad_input.py", "crash/test_points.py",
    "integration/test_continuous.py", "integration/test_daemon.py", "crash/test_kill_five_steps.py",
    "integration/test_replay_paths.py", "integration/test_two_phases.py", "crash/test_ordering.py", "integration/test_drill.py",
    "integration/test_verbs.py", "integration/test_notify.py", "integration/test_object_lock.py", "chart/test_rules.py",
)


# what runs real servers and programs: a test of these that fails is run once more
TRIED_TWICE = ("chart", "conformance", "crash", "fidelity", "integration")
TESTS = Path(__file__).parent


def is_tried_twice(path: Path) -> bool:
    return path.is_relative_to(TESTS) and path.relative_to(TESTS).parts[0] in TRIED_TWICE


def pytest_configure() -> None:
    """A run that a shell put into the background ignores Ctrl-C, and so would every program that a test interrupts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; the others, and the tests of each file, in the order they were found in."""
    places = {TESTS / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
    for item in items:
        if is_tried_twice(item.path):
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of a run in several processes tells the first one which servers it started."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["exercised"] = exercised.everything()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    for product, version in getattr(node, "workeroutput", {}).get("exercised", ()):
        exercised.record(product, version)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What stands above pytest's own closing lines: each test that failed and then did not, and the servers."""
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.write_line(f"failed at its first try (a fault to mend, CONTRIBUTING.md): {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)
    terminalreporter.write_line(exercised.line())


@pytest.fixture
def server_id() -> int:
    """A replication id that no other server of this run has."""
    return next(_server_ids)


@pytest.fixture
def mariadb(tmp_path: Path) -> Iterator[Server]:
    """A fresh MariaDB: row binlog, root without password."""
    with mariadb_server(tmp_path / "mariadb", server_id=next(_server_ids)) as server:
        yield server


@pytest.fixture
def mariadb_pair(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """Two fresh MariaDB servers, source and target, with different server ids."""
    with (
        mariadb_server(tmp_path / "source", server_id=next(_server_ids)) as source,
        mariadb_server(tmp_path / "target", server_id=next(_server_ids)) as target,
    ):
        yield source, target


def unless_without(name: str) -> None:
    """Skips when KPBACKUP_TEST_WITHOUT contains the name."""
    if name in os.environ.get("KPBACKUP_TEST_WITHOUT", "").replace(",", " ").split():
        pytest.skip(f"KPBACKUP_TEST_WITHOUT names {name}")


@pytest.fixture(scope="session")
def mariadb118_programs() -> Path:
    """The folder with MariaDB 11.8's own programs in `bin/`."""
    unless_without("mariadb118")
    return mariadb118_home()


@pytest.fixture
def mariadb118(tmp_path: Path, mariadb118_programs: Path) -> Iterator[Server]:
    """A fresh MariaDB 11.8, set up as `mariadb` is."""
    with mariadb118_server(tmp_path / "mariadb118", server_id=next(_server_ids)) as server:
        yield server


@pytest.fixture
def mariadb118_pair(tmp_path: Path, mariadb118_programs: Path) -> Iterator[tuple[Server, Server]]:
    """Two fresh MariaDB 11.8 servers, source and target."""
    with (
        mariadb118_server(tmp_path / "source118", server_id=next(_server_ids)) as source,
        mariadb118_server(tmp_path / "target118", server_id=next(_server_ids)) as target,
    ):
        yield source, target


@pytest.fixture(scope="session")
def mysql97_programs() -> Path:
    """The folder with MySQL's own programs in `bin/`."""
    unless_without("mysql97")
    return mysql97_home()


@pytest.fixture
def mysql97(tmp_path: Path, mysql97_programs: Path) -> Iterator[Server]:
    """A fresh MySQL: row binlog, GTID on, root without password."""
    with mysql97_server(tmp_path / "mysql97", server_id=next(_server_ids)) as server:
        yield server


@pytest.fixture
def mysql97_pair(tmp_path: Path, mysql97_programs: Path) -> Iterator[tuple[Server, Server]]:
    """Two fresh MySQL servers, source and target."""
    with (
        mysql97_server(tmp_path / "source97", server_id=next(_server_ids)) as source,
        mysql97_server(tmp_path / "target97", server_id=next(_server_ids)) as target,
    ):
        yield source, target


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for all tests. A test that kills or fills it starts its own with `s3_server(tmp_path)`."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_bucket(s3: S3Server) -> str:
    """The name of a new, empty bucket."""
    return s3.create_bucket(f"kpb-{secrets.token_hex(6)}")


@pytest.fixture
def aws_environment(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The admin's key in the environment, and nothing of the developer's own AWS settings."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3.environ().items():
        monkeypatch.setenv(name, value)
