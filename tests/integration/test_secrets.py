"""Names and values that try to be statements."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import scenario
from tests.integration.scenario import Scene
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server

Pair = tuple[Server, Server]
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
    """A source full of hostile names, and a target."""
    directory = tmp_path_factory.mktemp("secrets")
    with (
        mariadb_server(directory / "source", server_id=271) as source,
        mariadb_server(directory / "target", server_id=272) as target,
    ):
        source.execute("CREATE DATABASE shop", "CREATE VIEW shop.seen AS SELECT 'in a view' AS v")
        with source.connect() as connection:
            for name in HOSTILE:
                quoted = name.replace("`", "``").replace("%", "%%")
                connection.execute(f"CREATE TABLE shop.`{quoted}` (id INT PRIMARY KEY, `{quoted}` TEXT) COMMENT %s", (name,))
                connection.execute(f"INSERT INTO shop.`{quoted}` VALUES (1, %s)", (name,))
        yield source, target


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, pair: Pair) -> Scene:
    directory = tmp_path_factory.mktemp("scene")
    return Scene(directory / "scene", source=pair[0], target=pair[1])


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
