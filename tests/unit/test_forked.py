"""A forked kpbackup is what a started one is, to whoever runs it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import forked

ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("KPBACKUP_")}
PATIENCE_S = 120.0


def started(words: list[str], environ: dict[str, str]) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "kpbackup", *words], env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=PATIENCE_S, check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "words",
    [["--version"], [], ["list"], ["restore", "database", "--to", "nonsense"], ["backup", "none"], ["--json", "backup", "none"]],
)
def test_it_says_and_ends_with_the_same(words: list[str], tmp_path: Path) -> None:
    config = tmp_path / "kpbackup.yaml"
    config.write_text(f"repository: {{url: 'file://{tmp_path}/repository'}}\n")
    environ = {**ENVIRON, "KPBACKUP_CONFIG": str(config)}
    assert forked.run(words, environ, timeout_s=PATIENCE_S) == started(words, environ)


def test_environment_and_folder_are_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        found = forked.run(["list"], {**ENVIRON, "KPBACKUP_CONFIG": f"{name}.yaml"}, timeout_s=PATIENCE_S)
        assert f"{name}.yaml" in found[2] and found == started(["list"], {**ENVIRON, "KPBACKUP_CONFIG": f"{name}.yaml"})


def test_new_ones_are_started_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--json", "backup", "none"]
    forked_one = forked.run(words, ENVIRON, timeout_s=PATIENCE_S)
    assert forked.run(words, {**ENVIRON, "PYTHONVERBOSE": "1"}, timeout_s=PATIENCE_S)[2].startswith("import ")
    monkeypatch.setenv("KPBACKUP_TEST_FORK", "no")
    assert forked.run(words, ENVIRON, timeout_s=PATIENCE_S) == forked_one


def test_several_at_once() -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda word: forked.run(["backup", word], ENVIRON, timeout_s=PATIENCE_S), map(str, range(16))))
    assert [f"kpbackup backup {number}; " in err for number, (_, _, err) in enumerate(found)] == [True] * 16


def test_one_that_takes_too_long_is_killed() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        forked.run(["--version"], ENVIRON, timeout_s=0.001)


def test_it_ends_with_the_process_that_runs_it() -> None:
    """Also where that is killed."""
    program = (
        "import os, subprocess; from tests import forked; forked.run(['--version'], os.environ, timeout_s=60);"
        "print(subprocess.check_output(['pgrep', '-P', str(os.getpid()), '-f', 'tests.forked'], text=True), flush=True);"
    )
    for end in ("", "os.kill(os.getpid(), 9)"):
        done = subprocess.run(
            [sys.executable, "-c", program + end], capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        state, deadline = Path(f"/proc/{int(done.stdout.split()[0])}/stat"), time.monotonic() + PATIENCE_S
        while state.exists() and ") Z " not in state.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
