"""The documents and the program agree: every setting, verb, option and exit code is written down."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from kpbackup import errors
from kpbackup.cli import main, verbs
from kpbackup.config import keys

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
CLI = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def all_errors(root: type[errors.KpbackupError] = errors.KpbackupError) -> set[type[errors.KpbackupError]]:
    """Those of errors.py; a kind that a room keeps to itself ends with its parent's code, whichever tests imported it."""
    return {root}.union(*(all_errors(child) for child in root.__subclasses__() if child.__module__ == errors.__name__))


def test_the_generated_parts_are_up_to_date() -> None:
    script = ROOT / "scripts" / "generate_docs.py"
    checked = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, timeout=180)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_every_setting_is_documented_with_its_meaning() -> None:
    for key in keys.all_keys():
        row = re.search(rf"^\| `{re.escape(key.path)}` \| (.+?) \| (.+?) \| `{key.variable}` \|$", SETTINGS, re.MULTILINE)
        assert row, key.path
        assert len(row[2]) > 20, f"{key.path}: say meaning, unit and why the default is what it is"


def test_every_verb_and_option_is_documented() -> None:
    root = main.program()
    commands = {path: verbs.build(path, verbs.VERBS) for path in verbs.VERBS}
    for path, command in {"": root, **commands}.items():
        heading = f"### `kpbackup {path}`\n" if path else "### Options before the command\n"
        assert heading in CLI, path
        section = CLI.split(heading)[1].split("\n### ")[0]
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{path}: {parameter.name} has no help"
            for option in parameter.opts if parameter.param_type_name == "option" else ():
                assert re.search(rf"`{re.escape(option)}[ `]", section), f"{path}: {option}"


def test_every_exit_code_is_documented() -> None:
    table = dict(re.findall(r"^\| (\d+) \| (.*?) \|", CLI, re.MULTILINE))
    for error in all_errors() - {errors.KpbackupError}:
        assert f"`{error.__name__}`" in table[str(error.exit_code)], error
    for code in (0, 1, 2, 3, main.EXIT_INTERRUPTED, main.EXIT_OUTPUT_CLOSED, main.EXIT_TERMINATED):
        assert str(code) in table
    assert set(map(int, table)) - {0, 1, 2, 3, 130, 141, 143} == {error.exit_code for error in all_errors()}
