"""docs/security.md promises nothing that no test backs."""

from __future__ import annotations

import ast
import re
import typing
from pathlib import Path

import pytest

from kpbackup.storage import locks
from tests.servers import s3

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def model() -> list[str]:
    """The lines of the attack model."""
    section = TEXT.split("## The attack model")[1].split("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| enemy")]


@pytest.mark.parametrize("line", model(), ids=lambda line: line.split("|")[1].strip()[:40])
def test_each_line_of_the_attack_model_is_backed_by_a_test(line: str) -> None:
    assert NAMED.search(line.rstrip("|").rpartition("|")[2]), f"no test in the last column of: {line}"


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED.findall(TEXT))))
def test_the_tests_that_are_named_exist(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"{file} has no {name}"


def test_the_policies_are_those_that_are_tested() -> None:
    granted = set(re.findall(r'"(s3:\w+)"', TEXT.split("```json")[1].split("```")[0]))
    assert granted == set(s3._WRITE)
    assert set(s3._PRUNE) - granted == {"s3:DeleteObject"}


def test_every_dependency_is_locked_by_hash_and_names_no_host() -> None:
    for path in ROOT.glob("requirements*.lock"):
        text = path.read_text(encoding="utf-8")
        pinned = [line for line in text.splitlines() if re.match(r"^[A-Za-z0-9]", line)]
        assert pinned and all("==" in line for line in pinned), path.name
        for entry in re.split(r"\n(?=[A-Za-z0-9])", text.strip()):
            assert "--hash=sha256:" in entry, f"{path.name}: {entry.splitlines()[0]} has no hash"
        assert "://" not in text
    assert "--require-hashes" in (ROOT / "scripts" / "setup.sh").read_text(encoding="utf-8")


def test_the_lock_modes_of_the_docs_are_those_there_are() -> None:
    assert set(typing.get_args(locks.Mode)) == {"governance", "compliance"}
    assert "mode: compliance" in TEXT and "governance" in TEXT
