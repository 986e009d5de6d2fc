"""What becomes of a test that fails: where no server runs it has failed; elsewhere it is run once more, and told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import conftest

TESTS = Path(conftest.__file__).parent
PROGRAM = """
import pathlib
import pytest

@pytest.mark.flaky(reruns=1)
def test_once():
    flag = pathlib.Path(__file__).with_name("flag")
    there = flag.exists()
    flag.touch()
    assert there, "the first try"

@pytest.mark.flaky(reruns=1)
def test_always():
    assert False, "each try"
"""


@pytest.mark.parametrize(("path", "is_tried_twice"), [
    (TESTS / "integration/test_load.py", True), (TESTS / "crash/test_kill.py", True), (TESTS / "unit/test_wire.py", False),
    (TESTS / "properties/test_batch.py", False), (TESTS.parent / "integration/test_load.py", False),
])  # fmt: skip
def test_which_are_tried_twice(path: Path, is_tried_twice: bool) -> None:
    assert conftest.is_tried_twice(path) is is_tried_twice


def test_a_first_failure_is_told_in_full_and_a_second_one_counts(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(PROGRAM)
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_terminal_summary\n")
    alone = ("-p", "no:cacheprovider", "--rootdir", str(tmp_path), "-c", os.devnull)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *alone, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert "1 failed, 1 passed, 2 rerun" in done.stdout
    told = done.stdout.partition("failed at its first try (a fault to mend, CONTRIBUTING.md): ")[2]
    assert told.startswith("test_it.py::test_once") and "the first try" in told
