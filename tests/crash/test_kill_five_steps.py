"""kill -9 at seeded moments across the five steps: every run resumes to the same verified end, and nothing is done twice.

A moment is "in this step, and a little later", seen in the journal: first in each of the five steps in turn, tried again until
the kill fell into it on a machine of any speed; then anywhere, at a part of the time that the step took before. `make test-kills`
kills 50 times and leaves docs/evidence/kills.json, `make test` eight times.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench import machine
from kpbackup.kubernetes import release
from tests.integration import five_steps, scenario
from tests.integration.five_steps import NAME, Recovered
from tests.integration.scenario import Ended

SEED = int(os.environ.get("KPBACKUP_TEST_SEED", "20261127"))
KILLS = int(os.environ.get("KPBACKUP_TEST_KILLS", "8"))
STEPS = ("prepare", "database", "deploy", "verify", "switch")
PATIENCE_S = 240.0
EVIDENCE = os.environ.get("KPBACKUP_TEST_EVIDENCE", "")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recovered]:
    with five_steps.stage(tmp_path_factory.mktemp("kills")) as made:
        yield made


def journals(stage: Recovered) -> set[Path]:
    """The entries of all runs so far."""
    return {path for path in (stage.made.repository / "recoveries").rglob("*") if path.is_file()}


def place_of(path: Path) -> tuple[str, str]:
    """(event, step) of an entry, '' for none: read here without kpbackup, which is quicker."""
    data = path.read_bytes()
    found = [re.search(rb'"%s":"(\w+)"' % name, data) for name in (b"event", b"step")]
    event, step = (one[1].decode() if one else "" for one in found)
    return event, step


def step_under_way(directory: Path) -> str:
    """The step a run is in, '' between two."""
    for path in sorted(directory.iterdir(), reverse=True):
        event, step = place_of(path)
        if step:
            return step if event == "step_started" else ""
    return ""


def killed(stage: Recovered, aim: str, pause_s: float, *words: str) -> Ended:
    """kpbackup, killed so long after it began the step `aim`; or its end if that came first."""
    before = journals(stage)
    process = stage.scene.start(*words)
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and not any(place_of(path) == ("step_started", aim) for path in journals(stage) - before):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    try:
        out, err = process.communicate(timeout=pause_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        out, err = process.communicate()
    return Ended(process.returncode, out, err)


def judge(stage: Recovered, run: str) -> dict[str, float]:
    """The end is the same whatever was killed: nothing is missing, nothing is there twice. Returns the seconds of each step."""
    entries = stage.scene.ok("recoveries", run)["entries"]
    finished = [one["fields"]["step"] for one in entries if one["event"] == "step_finished"]
    assert finished == list(STEPS)
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
    return {one["fields"]["step"]: float(one["fields"]["seconds"]) for one in entries if one["event"] == "step_finished"}


@pytest.mark.slow
def test_every_run_resumes_to_the_same_verified_end(stage: Recovered) -> None:
    dice, kills, missed = random.Random(SEED), 0, list(STEPS)
    hit: list[str] = []
    started, recoveries = time.monotonic(), 0
    took_s = dict.fromkeys(STEPS, 0.0)  # the first round kills at once
    while kills < KILLS or missed:
        assert kills < 3 * KILLS + 15, f"no kill falls into {missed}"
        stage.clear()
        before = {path.parent for path in journals(stage)}
        words: tuple[str, ...] = ("restore", "--to", "latest", "--yes")
        for aim in missed or sorted(dice.sample(STEPS, min(dice.randint(1, 4), KILLS - kills)), key=STEPS.index):
            ended = killed(stage, aim, 0.0 if missed else dice.random() * took_s[aim], *words)
            assert ended.code in (0, -signal.SIGKILL), ended.err
            if ended.code == 0:
                break
            kills += 1
            (directory,) = {path.parent for path in journals(stage)} - before
            hit.append(step_under_way(directory))
            words = ("restore", "--resume", directory.name)
        else:
            ended = stage.scene.run(*words)
            assert ended.code == 0, ended.err
        missed = [step for step in missed if step not in hit]
        (directory,) = {path.parent for path in journals(stage)} - before
        took_s = judge(stage, directory.name)
        recoveries += 1
    assert set(hit) >= set(STEPS)
    if EVIDENCE:
        where = {step or "between two steps": hit.count(step) for step in (*STEPS, "") if step in hit}
        found = {
            "made_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), **machine.commit(), "seed": SEED,
            "seconds": round(time.monotonic() - started), "recoveries": recoveries, "kills": kills, "killed_in": where,
        }
        Path(EVIDENCE).write_text(json.dumps(found, indent=1) + "\n")
