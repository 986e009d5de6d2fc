"""docs/benchmarks.md says what docs/evidence/bench.json holds, and that holds what its runs say."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import archive, paint, published, replay, tables, verdicts, year

ROOT = Path(__file__).resolve().parents[2]
DIRECTIONS = tuple(verdicts.DIRECTIONS)
needs_evidence = pytest.mark.skipif(not tables.EVIDENCE.exists(), reason="no `make bench` on a quiet machine was kept yet")


@pytest.fixture
def evidence() -> dict[str, Any]:
    return json.loads(tables.EVIDENCE.read_text(encoding="utf-8"))


@needs_evidence
def test_the_page_is_made_of_the_evidence() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "bench.tables", "--check"], cwd=ROOT, capture_output=True, text=True, timeout=180
    )
    assert (checked.returncode, checked.stderr) == (0, "")


@needs_evidence
def test_another_figure_makes_another_page(evidence: dict[str, Any]) -> None:
    page = tables.PAGE.read_text(encoding="utf-8")
    changed = copy.deepcopy(evidence)
    changed["backup"]["kpbackup"]["median"]["wall_s"] += 1
    assert tables.renewed(page, evidence) == page != tables.renewed(page, changed)


@needs_evidence
def test_a_page_without_marks_is_refused(evidence: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no marks"):
        tables.renewed("# Performance\n", evidence)


@needs_evidence
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_medians_and_ratios_follow_from_the_runs(evidence: dict[str, Any], direction: str) -> None:
    section = evidence[direction]
    assert {"kpbackup"} < set(section)
    medians = {name: verdicts.summary(found["runs"]) for name, found in section.items()}
    assert {name: found["median"] for name, found in section.items()} == medians
    assert {name: found["ratio"] for name, found in section.items()} == verdicts.ratios(medians)
    assert {len(found["runs"]) for found in section.values()} == {evidence["rounds"]}


@needs_evidence
def test_verdicts_follow_from_the_figures(evidence: dict[str, Any]) -> None:
    assert evidence["goals"] == verdicts.goals(evidence)
    judged = sum(found["goal"] is not None for direction in DIRECTIONS for found in evidence[direction].values())
    assert len(evidence["goals"]) == judged + 3 + 4, "the evidence is of a whole run, not of a part"


@needs_evidence
def test_the_evidence_can_be_made_again(evidence: dict[str, Any]) -> None:
    assert re.fullmatch(r"[0-9a-f]{40}", evidence["commit"])
    assert evidence["size"] == "medium"
    assert evidence["rounds"] >= 5
    assert verdicts.other_share(evidence) <= verdicts.BUSY_SHARE, "made on a machine that others kept busy"
    assert {"mariadb", "mydumper", "kpbackup", "zstd", "age"} <= set(evidence["versions"])


@pytest.mark.parametrize(("name", "table"), [
    ("replay", replay.table), ("archive", archive.table), ("year", year.table), ("paint", paint.table),
])  # fmt: skip
def test_the_other_tables_are_made_of_their_evidence(name: str, table: Callable[[dict[str, Any]], str]) -> None:
    found = json.loads((published.ROOT / "docs" / "evidence" / f"{name}.json").read_text(encoding="utf-8"))
    page = published.PAGE.read_text(encoding="utf-8")
    assert published.renewed(page, name, table(found)) == page
    assert published.renewed(page, name, table({**found, "made_at": "never"})) != page


def test_the_archive_is_judged_at_each_size() -> None:
    kept = published.evidence("archive")
    ours = kept["sizes"][0]["runs"][archive.OURS]
    larger = {**kept["sizes"][0], "transactions": 999_999, "runs": {archive.PROGRAM: ours, archive.OURS: ours}}
    both = archive.table({**kept, "sizes": [kept["sizes"][0], larger]})
    assert "999,999 small transactions" in both and "| 1.00x | met |" in both
    assert both.startswith(archive.table({**kept, "sizes": kept["sizes"][:1]}))


def test_a_replay_of_one_server_keeps_what_was_measured_of_the_other() -> None:
    """And says that it is older, whichever run it was of."""
    first = {"made_at": "t1", "commit": "a" * 40, "runs": {"mariadb": "m1", "mysql": "y1"}}
    second = replay.with_others({"made_at": "t2", "commit": "b" * 40, "runs": {"mariadb": "m2"}}, first)
    third = replay.with_others({"made_at": "t3", "commit": "c" * 40, "runs": {"mariadb": "m3"}}, second)
    assert third["runs"] == {"mariadb": "m3", "mysql": "y1"}
    assert third["made_before"] == second["made_before"] == {"mysql": {"made_at": "t1", "commit": "a" * 40}}


def runs(*walls: float) -> list[dict[str, float]]:
    return [{"wall_s": wall, "peak_rss_bytes": wall * 10} for wall in walls]


def test_the_median_is_compared_and_the_peak_is_the_highest() -> None:
    section = verdicts.section(
        [
            ("kpbackup", "ours", None, runs(9, 2, 1), []),
            ("slow", "", 1.5, runs(4, 4, 8), []),
            ("fast", "", 1.5, runs(3, 3, 3), []),
        ]
    )
    assert section["kpbackup"]["median"] == {"wall_s": 2, "peak_rss_bytes": 90}
    assert (section["slow"]["ratio"], section["fast"]["ratio"]) == (2.0, 1.5)


def test_what_others_took_of_the_machine_is_weighed_by_the_length_of_the_runs() -> None:
    section = {"kpbackup": {"runs": [{"wall_s": 30.0, "other_share": 0.0}, {"wall_s": 10.0, "other_share": 0.4}]}}
    assert verdicts.other_share({"backup": section}) == pytest.approx(0.1)
    assert verdicts.other_share({"goals": []}) == 0


@pytest.mark.parametrize(("ratio", "met"), [(1.5, True), (1.499, False)])
def test_the_speed_goals_are_those_of_the_variants(ratio: float, met: bool) -> None:
    section = {
        "kpbackup": {"goal": None, "ratio": 1.0, "label": ""}, "other": {"goal": None, "ratio": 0.5, "label": ""},
        "peer": {"goal": 1.5, "ratio": ratio, "label": "peer"},
    }
    (goal,) = verdicts.goals({"backup_s3": section})
    assert (goal["what"], goal["found"], goal["met"]) == ("Backup to S3: times as fast as peer", ratio, met)


@pytest.mark.parametrize(
    ("own", "client", "met"), [(2.2, 3.3, [True, True]), (2.21, 3.31, [False, True]), (2.0, 3.1, [True, False])]
)
def test_the_cost_of_a_backup(own: float, client: float, met: list[bool]) -> None:
    section = {
        "kpbackup": {"goal": None, "ratio": 1.0, "median": {"server_cpu_s": own, "client_cpu_s": client}},
        "scan": {"goal": None, "ratio": 1.0, "median": {"server_cpu_s": 2.0, "client_cpu_s": 1.0}},
    }
    assert [goal["met"] for goal in verdicts.goals({"backup": section})] == met


@pytest.mark.parametrize(("share", "met"), [(0.33, True), (0.34, False)])
def test_the_cost_of_reading_back(share: float, met: bool) -> None:
    section = {"kpbackup": {"goal": None, "ratio": 1.0, "median": {"read_back_share": share}}}
    assert [goal["met"] for goal in verdicts.goals({"restore": section})] == [met]


@pytest.mark.parametrize(
    ("once_mib", "twice_mib", "met"), [(200, 230, [True, True]), (200, 250, [True, False]), (290, 300, [False, True])]
)
def test_the_memory_goals(once_mib: int, twice_mib: int, met: list[bool]) -> None:
    peaks = {"once": {"rss_bytes": once_mib << 20}, "twice": {"rss_bytes": twice_mib << 20}}
    assert [goal["met"] for goal in verdicts.goals({"memory": {"restore": peaks}})] == met
