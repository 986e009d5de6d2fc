"""Random tables go through kpbackup and come back as they were; each example is a database of twelve."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fidelity import judge, pairs, random_tables
from tests.fidelity.scenes import MARIADB_10, MYSQL_9, WHOLE, Kind
from tests.integration import scenario
from tests.integration.scenario import Scene
from tests.servers.database import Server

EXAMPLES = 40 if WHOLE else 1
TABLES = 12


@pytest.fixture(scope="module", params=[MARIADB_10, MYSQL_9], ids=lambda kind: str(kind.name))
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Kind, Server, Server, Path]]:
    kind: Kind = request.param
    if not kind.mariadb:
        request.getfixturevalue("mysql97_programs")
    with (
        pairs.memory() as top,
        pairs.server(kind, top / "source", server_id=35) as source,
        pairs.server(kind, top / "target", server_id=36) as target,
    ):
        yield kind, source, target, top


@settings(
    max_examples=EXAMPLES, deadline=None, phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if WHOLE else [])],
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_random_tables_come_back(pair: tuple[Kind, Server, Server, Path], data: st.DataObject) -> None:
    kind, source, target, top = pair
    scenario.wipe(source)
    scenario.wipe(target)
    made = data.draw(random_tables.databases(kind, count=TABLES))
    pairs.play(source, ["CREATE DATABASE random CHARACTER SET utf8mb4", "USE random", *(one for table in made for one in table)])
    work = Scene(Path(tempfile.mkdtemp(dir=top)), source=source, target=target)
    work.ok("init", "--keys", str(work.keys))
    work.ok("backup", "full")
    work.restore("--to", "latest")
    expected, found = judge.read(source.port, accounts=False), judge.read(target.port, accounts=False)
    assert len(expected) == TABLES + 1
    assert "\n".join(map(str, judge.differences(expected, found))) == ""
