"""The frame of the program, as a real process: exit codes, the look of errors, JSON, signals, what start-up costs."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import kpbackup
from kpbackup.cli import verbs

ROOT = Path(__file__).resolve().parents[2]
REAL = [sys.executable, "-m", "kpbackup.cli.main"]
TRIAL = [sys.executable, "-m", "tests.unit.frame_program"]
START_UP_LIMIT_S = 0.3
HEAVY = (
    "boto3", "botocore", "pymysql", "prometheus_client", "cryptography", "rich", "pydantic", "yaml", "croniter",
    "kpbackup.config",
)  # fmt: skip


def run(*words: str, program: list[str] = REAL, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*program, *words], cwd=ROOT, env=environment(**environ), capture_output=True, text=True, timeout=300)


def trial(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return run(*words, program=TRIAL, **environ)


def environment(**environ: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KPBACKUP_")}
    return {**kept, "KPBACKUP_CONFIG": "/dev/null", **environ}


def test_help_lists_every_verb() -> None:
    for words in ((), ("--help",), ("-h",)):
        shown = run(*words)
        assert shown.returncode == 0
        for name, verb in verbs.VERBS.items():
            word = name.split()[0]
            assert re.search(rf"^  {word}  +\S", shown.stdout, re.MULTILINE), word
            assert " " in name or verb.help.split()[0] in shown.stdout


def test_every_group_and_verb_has_help_of_its_own() -> None:
    groups = {name.split()[0] for name in verbs.VERBS if " " in name}
    for path in [*verbs.VERBS, *groups]:
        shown = run(*path.split(), "--help")
        assert shown.returncode == 0, shown.stderr
        assert f"Usage: kpbackup {path}" in shown.stdout
        below = [name.split()[1] for name in verbs.VERBS if name.startswith(f"{path} ")]
        assert all(word in shown.stdout for word in below)


def test_version() -> None:
    assert run("version").stdout.startswith(f"kpbackup {kpbackup.__version__} (Python ")
    assert run("--version").stdout == run("version").stdout
    for words in (("version", "--json"), ("--json", "version")):
        assert json.loads(run(*words).stdout)["version"] == kpbackup.__version__


@pytest.mark.parametrize(("words", "message", "hint"), [
    (("versoin",), "no such command: kpbackup versoin; did you mean version?", "kpbackup --help"),
    (("nonsense",), "no such command: kpbackup nonsense; commands here: ", "kpbackup --help"),
    (("version", "--nonsense"), "no such option: --nonsense", "kpbackup version --help"),
    (("version", "extra"), "got unexpected extra argument(s) (extra)", "kpbackup version --help"),
    (("version", "--log-level", "debug"), "no such option: --log-level", "kpbackup --log-level ... version"),
    (("--log-level", "loud", "version"), "'loud' is not one of 'debug', 'info', 'warning', 'error'", "kpbackup --help"),
    (("--config",), "--config", "kpbackup --help"),
    (("--set", "x", "version"), "--set needs KEY=VALUE", "--set retention.days=7"),
    (("restore", "latest"), "a point is given by --to latest", "kpbackup restore --help"),
    (("restore", "--to", "2024-05-01", "10:00"), "without a space or in quotes", "kpbackup restore --help"),
    (("restore", "--resume", "R", "--dry-run"), "--dry-run changes nothing", "kpbackup recoveries R"),
    (("restore", "--resume", "R", "--overwrite", "s"), "planned to drop", "leave --overwrite out"),
    (("restore", "--resume", "R", "--skip-gtid", "1-1-1"), "planned to leave out", "leave --skip-gtid out"),
    (("restore", "database", "--resume", "R", "--one-phase"), "planned in", "leave --one-phase out"),
])  # fmt: skip
def test_usage_errors(words: tuple[str, ...], message: str, hint: str) -> None:
    ended = run(*words)
    assert ended.returncode == 10
    first, second = ended.stderr.splitlines()
    assert first.startswith("kpbackup: ") and message in first
    assert second.startswith("hint: ") and hint in second
    assert ended.stdout == ""


def test_errors_are_one_json_document_too() -> None:
    for words in (("--json", "nonsense"), ("version", "--json", "--nonsense")):
        ended = run(*words)
        told = json.loads(ended.stdout)["error"]
        assert (ended.returncode, told["exit_code"], told["kind"]) == (10, 10, "UsageError")
        assert "nonsense" in told["message"] and told["hint"]
    ended = trial("refused", "--json")
    assert json.loads(ended.stdout)["error"]["kind"] == "UnreachableTarget"
    assert ended.returncode == 22


def test_an_error_after_the_answer_adds_no_second_document() -> None:
    ended = trial("answers", "--json")
    assert json.loads(ended.stdout) == {"faults": 1}
    assert (ended.returncode, ended.stderr) == (17, "kpbackup: object x is flipped\n")


def test_an_error_of_ours_is_a_message_and_a_hint() -> None:
    ended = trial("refused")
    assert ended.returncode == 22
    assert ended.stderr == "kpbackup: cannot restore to 10:00\\x1b[31m: gap\nhint: nearest point is 09:58\n"


def test_a_defect_is_told_without_traceback_unless_debugging() -> None:
    ended = trial("broken")
    assert ended.returncode == 70
    assert ended.stderr.startswith("kpbackup: internal error: RuntimeError: nobody foresaw this\nhint: this is a defect")
    assert "Traceback" not in ended.stderr
    told = trial("--log-level", "debug", "broken")
    assert told.returncode == 70 and "Traceback" in told.stderr and "frame_program.py" in told.stderr
    by_variable = trial("broken", KPBACKUP_LOG__LEVEL="debug")
    assert by_variable.returncode == 70


def test_settings_reach_a_verb_and_its_number_is_the_exit_code() -> None:
    shown = trial("--set", "retention.days=7", "shows", KPBACKUP_SOURCE__HOST="db", KPBACKUP_SOURCE__USER="u")
    assert (shown.returncode, shown.stdout) == (1, "KEY   VALUE\ndays      7\n")
    nothing = trial("shows", "--json")
    assert nothing.returncode == 11 and "/dev/null is empty" in json.loads(nothing.stdout)["error"]["message"]
    missing = trial("--set", "repository.url=file:///srv/backups", "shows", "--json")
    assert missing.returncode == 11
    assert "source.host is not set" in json.loads(missing.stdout)["error"]["message"]
    assert "KPBACKUP_SOURCE__HOST" in missing.stderr
    absent = trial("--config", "/nonexistent/kpbackup.yaml", "shows")
    assert (absent.returncode, absent.stdout) == (11, "")
    assert absent.stderr.startswith("kpbackup: settings file /nonexistent/kpbackup.yaml: No such file")


def test_an_exposed_password_file_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("KPDEMO-SECRET-frame", encoding="utf-8")
    path.chmod(0o644)
    login = {"KPBACKUP_SOURCE__HOST": "db", "KPBACKUP_SOURCE__USER": "u", "KPBACKUP_SOURCE__PASSWORD_FILE": str(path)}
    shown = trial("--log-format", "json", "shows", **login)
    warning = json.loads(shown.stderr)
    assert (warning["event"], warning["path"], warning["level"]) == ("secret_file_exposed", str(path), "warning")
    assert "KPDEMO" not in shown.stderr + shown.stdout


def test_a_group_may_be_a_verb_itself() -> None:
    assert trial("mend", "--to", "10:00").stdout == "all steps to 10:00\n"
    assert trial("mend", "step", "--to", "10:00").stdout == "one step to 10:00\n"
    early = trial("mend", "--to", "10:00", "step")
    assert (early.returncode, early.stdout) == (10, "")
    assert "--to must come after kpbackup mend step" in early.stderr
    assert "did you mean step?" in trial("mend", "stepp").stderr
    assert "step" in trial("mend", "--help").stdout and "--to" in trial("mend", "--help").stdout
    assert trial("backup", "trial").stdout == "one step to None\n"
    alone = trial("backup")
    assert (alone.returncode, alone.stderr.splitlines()[0]) == (10, "kpbackup: missing command")


def test_help_imports_no_verb() -> None:
    shown = trial("--help")
    assert shown.returncode == 0 and "Its module is never imported" in shown.stdout
    assert trial("absent").returncode == 70


@pytest.mark.parametrize(("number", "code", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "SIGTERM")])
def test_signals_unwind_the_stack(tmp_path: Path, number: signal.Signals, code: int, said: str) -> None:
    mark = tmp_path / "mark"
    process = subprocess.Popen([*TRIAL, "waits", str(mark)], cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not mark.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=300)
    finally:
        process.kill()
    assert (process.returncode, mark.read_text(encoding="utf-8")) == (code, "unwound")
    assert stderr.startswith("kpbackup: ") and said in stderr and "Traceback" not in stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    process = subprocess.Popen(
        [*TRIAL, "floods"], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    with process:
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=300) == 141
        assert process.stderr.read() == ""


def test_another_broken_pipe_is_a_defect() -> None:
    assert trial("pipe").returncode == 70


@pytest.mark.parametrize("words", [("version",), ("version", "--json"), ("--version",), ("--help",), ("--json", "nonsense")])
def test_a_full_disk_under_the_output_is_told(words: tuple[str, ...]) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        ended = subprocess.run(
            [*REAL, *words], cwd=ROOT, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, timeout=300
        )
    assert ended.returncode == (10 if "nonsense" in words else 27)
    assert ended.stderr.startswith("kpbackup: ") and "Exception ignored" not in ended.stderr


def test_progress_is_log_lines_off_a_terminal() -> None:
    ended = trial("--log-format", "json", "works")
    first, last = [json.loads(line) for line in ended.stderr.splitlines()]
    assert first["event"] == "progress_reported"
    assert (first["work"], first["done_bytes"], last["done_bytes"], last["total_bytes"]) == ("work", 1 << 20, 2 << 20, 2 << 20)


@pytest.mark.parametrize("words", ["['version']", "['--version']", "['--help']"])
def test_start_up_imports_nothing_heavy(words: str) -> None:
    script = f"import sys; from kpbackup.cli import main; main.main({words}); print(*sys.modules, file=sys.stderr)"
    loaded = set(run(program=[sys.executable, "-c", script]).stderr.split())
    assert "kpbackup.cli.main" in loaded
    assert loaded.isdisjoint(HEAVY), loaded.intersection(HEAVY)


@pytest.mark.parametrize("word", ["--help", "version"])
def test_start_up_is_quick(word: str) -> None:
    """Processor time, the best of five: what other processes do must not decide."""
    spent = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run(word).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < START_UP_LIMIT_S, spent
