"""docs/recovery.md says what docs/evidence/demo-medium.json holds, and that holds a recovery in two phases that met its goals."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demo import evidence

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def kept() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(evidence.EVIDENCE.read_text())
    return found


def test_the_page_is_made_of_the_evidence(kept: dict[str, Any]) -> None:
    command = [sys.executable, "-m", "demo.evidence", "--check"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (checked.returncode, checked.stderr) == (0, "")
    page = evidence.PAGE.read_text()
    other = {**kept, "essential_rto_s": kept["essential_rto_s"] + 1}
    assert evidence.renewed(page, kept) == page != evidence.renewed(page, other)


def test_what_was_kept_met_the_goals_and_adds_up(kept: dict[str, Any]) -> None:
    assert kept["size"] == "medium" and re.fullmatch(r"[0-9a-f]{40}", kept["commit"])
    assert kept["database_bytes"] > 1e9 and kept["transactions_replayed"] >= kept["hour_of_writes"]
    if evidence.is_quiet(kept):
        assert kept["essential_rto_s"] < evidence.ESSENTIAL_GOAL_S and kept["rto_s"] < evidence.WHOLE_GOAL_S
    else:
        assert "these are upper bounds" in evidence.PAGE.read_text()
    steps = kept["step_seconds"]
    assert list(steps) == list(evidence.STEPS)
    assert kept["essential_rto_s"] <= steps["prepare"] + steps["database"] + 5
    assert kept["rto_s"] >= sum(steps.values()) + kept["second_tier_seconds"] - 5
    assert kept["second_tier_rows"] > 100 * kept["essential_rows"]


def test_the_figures_come_from_the_journal() -> None:
    def finished(step: str, **more: str) -> dict[str, Any]:
        return {"event": "step_finished", "fields": {"step": step, "seconds": "1.5", **more}}

    journal = [
        {"event": "planned", "fields": {}}, finished("prepare"), finished("database", rows="7", transactions="9"),
        finished("deploy"), finished("verify"), finished("switch"),
        {"event": "second_finished", "fields": {"seconds": "4.25", "rows": "70"}},
        {"event": "finished", "fields": {"essential_rto_s": "3.5", "measured_rto_s": "11"}},
    ]
    found = evidence.times(journal)
    assert (found["essential_rto_s"], found["rto_s"], found["second_tier_seconds"]) == (3.5, 11.0, 4.25)
    assert (found["essential_rows"], found["second_tier_rows"], found["transactions_replayed"]) == (7, 70, 9)
    assert found["step_seconds"]["switch"] == 1.5
    with pytest.raises(KeyError):
        evidence.times(journal[:6])
