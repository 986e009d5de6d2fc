"""docs/reliability.md says what docs/evidence/soak-faults.json holds, and names tests that exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from soak import __main__ as soak
from soak import pages, rounds

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_made_of_the_evidence() -> None:
    command = [sys.executable, "-m", "soak.pages", "--check"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert (checked.returncode, checked.stderr) == (0, "")
    changed = json.loads(pages.EVIDENCE.read_text())
    changed["rounds"] += 1
    assert pages.renewed(pages.PAGE.read_text(), changed) != pages.PAGE.read_text()


def test_what_was_kept_went_well_and_adds_up() -> None:
    found = json.loads(pages.EVIDENCE.read_text())
    assert found["failures"] == [] and re.fullmatch(r"[0-9a-f]{40}", found["commit"])
    assert sum(found["faults"].values()) == sum(found["jobs"].values()) == found["rounds"] == found["checks"] > 20
    ended = found["successes"] + found["killed_jobs"] + sum(found["clear_errors_by_exit_code"].values())
    assert ended == found["rounds"] and found["restores_compared"] > 0


def test_a_recovery_was_killed_fifty_times() -> None:
    found = json.loads(pages.KILLS.read_text())
    assert found["kills"] >= 50 and sum(found["killed_in"].values()) == found["kills"]
    assert {"prepare", "database", "deploy", "verify", "switch"} <= set(found["killed_in"])
    assert f"{found['kills']} kills" in pages.PAGE.read_text()


def test_the_seed_chooses() -> None:
    first, second, other = (
        [(one.job, one.fault, one.at) for one, _ in zip(rounds.rounds(seed), range(2000), strict=False)] for seed in (1, 1, 2)
    )
    assert first == second != other
    assert {fault for _, fault, _ in first} == set(rounds.FAULTS) and {job for job, _, _ in first} == set(rounds.JOBS)


def test_every_part_is_known_by_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert "faults" in soak.parts()
    assert soak.main(["nothing"]) == 2
    assert "there are" in capsys.readouterr().err


def test_the_tests_that_are_named_exist() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", pages.PAGE.read_text()))
    assert len(named) >= 6 and all((ROOT / name).exists() for name in named)
