"""docs/fidelity.md says what docs/evidence/fidelity.json holds, and that is a sum of its suites."""

from __future__ import annotations

import copy
import json
from collections import Counter

import pytest

from tests.fidelity import page


@pytest.mark.parametrize("name", ["mariadb", "mysql"])
def test_the_page_is_made_of_the_evidence(name: str) -> None:
    evidence = json.loads(page.evidence(name).read_text(encoding="utf-8"))
    text = page.PAGE.read_text(encoding="utf-8")
    changed = copy.deepcopy(evidence)
    changed["total"]["tables"] += 1
    assert page.renewed(text, name, evidence) == text != page.renewed(text, name, changed)


@pytest.mark.parametrize("name", ["mariadb", "mysql"])
def test_totals_follow_from_the_suites_and_the_wrong_objects(name: str) -> None:
    evidence = json.loads(page.evidence(name).read_text(encoding="utf-8"))
    assert evidence["total"] == dict(sum(map(Counter, evidence["suites"].values()), Counter()))
    for by, wrong in evidence["wrong"].items():
        assert page.tables(wrong) == evidence["total"].get(f"{by} tables", 0)
        assert len(wrong) - page.tables(wrong) == evidence["total"].get(f"{by} others", 0)


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="no markers"):
        page.renewed("# Fidelity\n", "mysql", {})
