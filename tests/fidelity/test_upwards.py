"""From MariaDB 10.11 into 11.8: every object is there with every value; what the newer server prints otherwise is not judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fidelity import judge, pairs
from tests.fidelity.scenes import MARIADB_10, MARIADB_11, columns, history, keys, programs, values
from tests.fidelity.test_scenes import BROKEN
from tests.integration.scenario import Scene

SCENES = (values, columns, keys, programs, history)
OF_ROWS = ("rows", "NULLs in", "values of", "whole rows", "past and present", "existence", "next AUTO_INCREMENT", "state")


def of_row_end(one: judge.Difference) -> bool:
    """The end of a row that goes on is the last moment a server knows: 2038 on 10.11, 2106 on 11.8."""
    return one.key[1] == "history" and one.aspect.endswith((" of e", " of row_end", "whole rows from column 0"))


@pytest.mark.usefixtures("mariadb118_programs")
def test_a_newer_server_holds_the_same(tmp_path: Path) -> None:
    with (
        pairs.memory() as top,
        pairs.server(MARIADB_10, top / "source", server_id=33) as source,
        pairs.server(MARIADB_11, top / "target", server_id=34) as target,
    ):
        for scene in SCENES:
            pairs.play(source, scene.statements(MARIADB_10))
        work = Scene(top / "scene", source=source, target=target)
        work.ok("init", "--keys", str(work.keys))
        work.ok("backup", "full")
        work.restore("--to", "latest")
        expected, found = judge.read(source.port, accounts=False), judge.read(target.port, accounts=False)
    assert len(expected) > 150
    for one in BROKEN:
        expected.pop(one, None)
    differing = [one for one in judge.differences(expected, found) if one.aspect.startswith(OF_ROWS) and not of_row_end(one)]
    assert "\n".join(map(str, differing)) == ""
