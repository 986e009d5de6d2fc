"""What must appear nowhere in plain, and names and values that try to be statements."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import scenario
from tests.integration.scenario import Scene
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server

Pair = tuple[Server, Server]
MARK = "m4rk3r"
PASSWORD = f"{MARK}-password-of-the-source"
HOSTILE = (
    "a`; CREATE TABLE shop.pwned (i INT); #",
    "b'; DROP DATABASE shop; --",
    'c" OR 1=1 #',
    "d*/ SELECT 1 /*!50000 x",
    "e\\'; system touch pwned",
    "f\n\\! touch pwned\nDELIMITER ;;",
    "g\x1b]0;title\x07$(touch pwned)",
    "%s {0} ${HOME}",
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A source full of markers and hostile names, read by an account with a password; and a target."""
    directory = tmp_path_factory.mktemp("secrets")
    with (
        mariadb_server(directory / "source", server_id=271) as source,
        mariadb_server(directory / "target", server_id=272) as target,
    ):
        source.execute(
            f"CREATE USER backup@'%' IDENTIFIED BY '{PASSWORD}'", "GRANT ALL ON *.* TO backup@'%' WITH GRANT OPTION",
            "CREATE DATABASE shop", f"CREATE DATABASE `{MARK}_database`",
            f"CREATE TABLE `{MARK}_database`.`{MARK}_table` (`{MARK}_column` VARCHAR(100) PRIMARY KEY COMMENT '{MARK} comment')",
            f"INSERT INTO `{MARK}_database`.`{MARK}_table` VALUES ('{MARK} value')",
            f"CREATE DEFINER='{MARK}_user'@'%' VIEW shop.seen AS SELECT '{MARK} in a view' AS v",
        )  # fmt: skip
        with source.connect() as connection:
            for name in HOSTILE:
                quoted = name.replace("`", "``").replace("%", "%%")
                connection.execute(f"CREATE TABLE shop.`{quoted}` (id INT PRIMARY KEY, `{quoted}` TEXT) COMMENT %s", (name,))
                connection.execute(f"INSERT INTO shop.`{quoted}` VALUES (1, %s)", (name,))
        yield source, target


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, pair: Pair) -> Scene:
    directory = tmp_path_factory.mktemp("scene")
    made = Scene(directory / "scene", source=pair[0], target=pair[1])
    password = directory / "password"
    password.write_text(PASSWORD, encoding="utf-8")
    password.chmod(0o600)
    made.settings["source"] |= {"user": "backup", "password_file": str(password)}
    return made


def test_markers_are_nowhere_but_in_sealed_objects(scene: Scene, pair: Pair) -> None:
    said: list[str] = []

    def run(*words: str) -> None:
        ended = scene.run("--log-level", "debug", *words)
        assert ended.code in (0, 1), ended.err
        said.extend((ended.out, ended.err))

    run("init", "--keys", str(scene.keys))
    started = scene.start("backup", "full")
    processes = _command_lines(started)
    assert started.returncode == 0 and any("kpbackup" in line for line in processes)
    pair[0].execute(f"INSERT INTO `{MARK}_database`.`{MARK}_table` VALUES ('{MARK} archived')")
    for words in (("backup", "incremental"), ("status",), ("list",), ("check", "--all"), ("prune", "--dry-run"), ("doctor",),
                  ("keys", "canary"), ("keys", "list")):  # fmt: skip
        run(*words)
    stored = [path for path in scene.repository.rglob("*") if path.is_file()]
    assert len(stored) > 10
    for path in stored:
        assert MARK.encode() not in path.read_bytes() and MARK not in str(path), path
    identity = (scene.keys / "identity.txt").read_text(encoding="utf-8").splitlines()[-1]
    for text in (*said, *processes):
        assert MARK not in text and identity not in text, text


def _command_lines(process: subprocess.Popen[str]) -> set[str]:
    """Command lines and environments of the process and its children, looked at until it ends."""
    seen: set[str] = set()
    while process.poll() is None:
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                group = os.getpgid(int(pid))
                text = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:
                continue
            if group == process.pid:
                seen.add(text.decode(errors="replace"))
    out, err = process.communicate()
    return seen | {out, err}


def test_hostile_names_and_values_come_back_as_they_are_and_run_nothing(scene: Scene, pair: Pair) -> None:
    if not scene.repository.exists():
        scene.ok("init", "--keys", str(scene.keys))
    scene.ok("backup", "full")
    with pair[0].connect() as connection:  # and through the archive
        for name in HOSTILE:
            quoted = name.replace("`", "``").replace("%", "%%")
            connection.execute(f"INSERT INTO shop.`{quoted}` VALUES (2, %s)", (name * 2,))
    scene.ok("backup", "incremental")
    scenario.wipe(pair[1])
    scene.restore("--to", "latest")
    assert scenario.truth(pair[1]) == scenario.truth(pair[0])
    tables = {str(row[0]) for row in scenario.rows(pair[1], "SELECT table_name FROM information_schema.tables"
                                                            " WHERE table_schema = 'shop'")}  # fmt: skip
    assert tables == {*HOSTILE, "seen"}, "and no table that a name wished for"
    assert not list(Path.cwd().glob("pwned")) and not list(scene.directory.glob("**/pwned"))
    assert "\x1b" not in scene.run("list").out + scene.run("find").out, "no escape sequence reaches a terminal"
