"""How far a backup and a restore are: a bar on a real terminal, log lines elsewhere."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from tests import terminal
from tests.integration.scenario import Scene
from tests.integration.test_connections import SHOP
from tests.servers.database import Server


def on_a_terminal(scene: Scene, *words: str) -> str:
    """What kpbackup draws on the terminal its standard error is."""
    code, text = terminal.drawn(scene.argv(*words), env={**os.environ, "COLUMNS": "200"}, answers=False)
    assert code == 0, text
    return text


def test_bars_and_lines(mariadb_pair: tuple[Server, Server], tmp_path: Path) -> None:
    source, target = mariadb_pair
    source.execute(*SHOP)
    scene = Scene(tmp_path / "scene", source=source, target=target)
    scene.settings["source"]["bandwidth_limit"] = "6MiB"
    scene.settings["log"] = {"progress_interval": "1s"}
    scene.ok("init", "--keys", str(scene.keys))

    ended = scene.run("--log-format", "json", "backup", "full")
    assert ended.code == 0, ended.err
    lines = [json.loads(line) for line in ended.err.splitlines()]
    told = [line for line in lines if line["event"] == "progress_reported"]
    assert told and all(line["work"] == "full backup" and line["level"] == "info" for line in told)
    done = [line["done_rows"] for line in told]
    assert done == sorted(done) and 0 < done[0] <= told[0]["total_rows"] and told[-1]["rows_per_second"] > 0

    bar = r"full backup  \[[#-]{24}\]  +\d+%  [\d,]+ rows of [\d,]+ rows  [\d,]+ rows/s  ETA \d+s"
    assert re.search(bar, on_a_terminal(scene, "backup", "full"))
    drawn = on_a_terminal(scene, "restore", "database", "--to", "latest", "--yes")
    for phase in ("load", "read back"):
        assert re.search(rf"restore: {phase}  \[[#-]{{24}}\]  +\d+%  [\d,]+ rows of 13,824 rows", drawn), drawn
    assert drawn.endswith("\r\x1b[K") or "\r\x1b[K" in drawn.rsplit("restore: ", 1)[1]
