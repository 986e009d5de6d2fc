"""kill -9 at seeded moments across the five steps: every run resumes to the same verified end, and nothing is done twice.

A moment is "so many journal entries later, and a little": it falls into every step on a machine of any speed. `make test-kills`
kills 50 times, `make test` eight times.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpbackup.kubernetes import release
from tests.integration import five_steps, scenario
from tests.integration.five_steps import NAME, Recovered
from tests.integration.scenario import Ended

SEED = int(os.environ.get("KPBACKUP_TEST_SEED", "20261127"))
KILLS = int(os.environ.get("KPBACKUP_TEST_KILLS", "8"))
MOST_ENTRIES = 4
PAUSE_S = 1.5
PATIENCE_S = 240.0


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recovered]:
    with five_steps.stage(tmp_path_factory.mktemp("kills")) as made:
        yield made


def journals(stage: Recovered) -> set[Path]:
    """The entries of all runs so far."""
    return {path for path in (stage.made.repository / "recoveries").rglob("*") if path.is_file()}


def last_step(directory: Path) -> str:
    """The step the newest entry of a run is about, '' for none: read here without kpbackup, which is quicker."""
    found = re.search(rb'"step":"(\w+)"', max(directory.iterdir()).read_bytes())
    return found[1].decode() if found else ""


def killed(stage: Recovered, dice: random.Random, *words: str) -> Ended:
    """kpbackup, killed a little after it wrote a few entries; or its end if it was quicker."""
    before, entries, pause_s = len(journals(stage)), dice.randint(1, MOST_ENTRIES), dice.random() * PAUSE_S
    process = stage.scene.start(*words)
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and len(journals(stage)) < before + entries:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    try:
        out, err = process.communicate(timeout=pause_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        out, err = process.communicate()
    return Ended(process.returncode, out, err)


def judge(stage: Recovered, run: str) -> None:
    """The end is the same whatever was killed: nothing is missing, nothing is there twice."""
    entries = stage.scene.ok("recoveries", run)["entries"]
    finished = [one["fields"]["step"] for one in entries if one["event"] == "step_finished"]
    assert finished == ["prepare", "database", "deploy", "verify", "switch"]
    assert [one["event"] for one in entries].count("planned") == 1
    assert entries[-1]["fields"]["recovered"] == "yes"
    truth, there = scenario.truth(stage.source), scenario.truth(stage.target)
    written = {f"{NAME}.users", f"{NAME}.operation_logs"}  # by logins
    assert {name: one for name, one in there.items() if name not in written} == {
        name: one for name, one in truth.items() if name not in written
    }
    assert there[f"{NAME}.users"][1] == truth[f"{NAME}.users"][1]
    logins = "SELECT COUNT(*) FROM kubepolaris.operation_logs WHERE action = 'login' AND username = 'kp-verify'"
    rows = f"SELECT COUNT(*) - ({logins}) FROM {NAME}.operation_logs"
    assert scenario.rows(stage.target, rows) == scenario.rows(stage.source, rows)
    records = [one for one in stage.cluster.list("Secret", NAME) if one.get("type") == release.SECRET_TYPE]
    assert [release.read(one).status for one in records].count("deployed") == 1
    for kind in ("Deployment", "StatefulSet", "Service", "Ingress", "ConfigMap"):
        names = [one["metadata"]["name"] for one in stage.cluster.list(kind, NAME)]
        assert names == [one["metadata"]["name"] for one in stage.origin.list(kind, NAME)]
    for name in ("kubepolaris-mysql", "kubepolaris-secrets", "kubepolaris-tls"):
        assert stage.cluster.get("Secret", NAME, name)["data"] == stage.origin.get("Secret", NAME, name)["data"]
    assert stage.cluster.get("Ingress", NAME, NAME)["spec"] == stage.origin.get("Ingress", NAME, NAME)["spec"]
    assert scenario.databases(stage.target) == [NAME]


@pytest.mark.slow
def test_every_run_resumes_to_the_same_verified_end(stage: Recovered) -> None:
    dice, left = random.Random(SEED), KILLS
    steps: list[str] = []
    while left:
        stage.clear()
        before = {path.parent for path in journals(stage)}
        words: tuple[str, ...] = ("restore", "--to", "latest", "--yes")
        while True:
            ended = killed(stage, dice, *words) if left else stage.scene.run(*words)
            assert ended.code in (0, -signal.SIGKILL), ended.err
            if ended.code == 0:
                break
            left -= 1
            (directory,) = {path.parent for path in journals(stage)} - before
            run = directory.name
            steps.append(last_step(directory))
            words = ("restore", "--resume", run)
        judge(stage, run)
    print(f"killed in {', '.join(steps)}")
