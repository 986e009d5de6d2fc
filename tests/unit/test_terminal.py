"""What a person at a terminal meets: examples in every help, completion by the shell, colours that can be refused."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kpbackup.cli import context, main, verbs
from kpbackup.cli.examples import EXAMPLES
from tests import terminal
from tests.unit.test_cli_frame import ROOT, environment, run

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
PROGRAM = str(Path(sys.executable).with_name("kpbackup"))


def test_every_verb_has_an_example_that_parses() -> None:
    assert set(EXAMPLES) == set(verbs.VERBS)
    for path, examples in EXAMPLES.items():
        assert examples
        for example in examples:
            words = shlex.split(example)
            assert words[: 1 + len(path.split())] == ["kpbackup", *path.split()]
            command = verbs.build(path, verbs.VERBS)
            # options that do not exist and arguments that are missing raise here; nothing runs
            with command.make_context(path, words[1 + len(path.split()) :], parent=root()):
                pass


def root() -> object:
    return main.program().make_context("kpbackup", ["version"], obj=context.Context())


@pytest.mark.parametrize("path", ["restore", "keys add", "version"])
def test_help_shows_the_examples(path: str) -> None:
    shown = run(*path.split(), "--help", COLUMNS="40").stdout
    assert all(f"\n  {example}\n" in shown for example in EXAMPLES[path]), shown


def completions(line: str) -> list[str]:
    """What bash is told to offer after this line."""
    words = line.split(" ")
    ended = run(COMP_WORDS=line, COMP_CWORD=str(len(words) - 1), _KPBACKUP_COMPLETE="complete_bash")
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.split()


def test_completion() -> None:
    assert completions("kpbackup re") == ["restore", "recoveries"]
    assert completions("kpbackup backup ") == ["full", "incremental", "application"]
    assert completions("kpbackup --json restore database --ov") == ["--overwrite"]
    assert completions("kpbackup --log-level w") == ["warning"]
    assert completions("kpbackup nonsense re") == ["restore", "recoveries"]  # a wrong word before it is no error here


def test_completion_is_installed_for_the_shell_that_asks(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash
    environ = environment(HOME=str(tmp_path), PATH=f"{Path(PROGRAM).parent}:{os.environ['PATH']}")
    installed = subprocess.run(
        [bash, "-c", "kpbackup --install-completion && true"], env=environ, capture_output=True, text=True, timeout=300,
        check=True,
    )
    assert "completion for bash is in " in installed.stdout
    asked = 'COMP_WORDS=(kpbackup keys re); COMP_CWORD=2; _kpbackup_completion kpbackup; echo "${COMPREPLY[@]}"'
    script = f"source {tmp_path}/.bashrc; complete -p kpbackup; {asked}"
    offered = subprocess.run([bash, "-c", script], env=environ, capture_output=True, text=True, timeout=300, check=True)
    assert offered.stdout.splitlines()[-1] == "remove rewrap"


def drawn(*words: str, **environ: str) -> str:
    """What the program writes to a terminal that is its standard output and error."""
    argv = [sys.executable, "-m", "kpbackup.cli.main", *words]
    return terminal.drawn(argv, env={**environment(TERM="xterm", COLUMNS="200"), **environ}, cwd=ROOT)[1]


def test_colours_are_for_terminals_that_want_them(tmp_path: Path) -> None:
    words = ("--set", f"repository.url=file://{tmp_path}/nothing", "doctor")
    coloured = drawn(*words)
    assert "\x1b[33mwarning\x1b[0m  source: no source" in coloured
    assert "\x1b[31mkpbackup:\x1b[0m " in coloured and "\x1b[36mhint:\x1b[0m " in coloured
    for environ in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        plain = drawn(*words, **environ)
        assert "warning  source: no source" in plain and "kpbackup: " in plain
        assert COLOUR.search(plain) is None, environ
    piped = run(*words)
    assert "warning  source: no source" in piped.stdout and COLOUR.search(piped.stdout + piped.stderr) is None


def test_judged_words_of_a_table_are_coloured(tmp_path: Path) -> None:
    """A table as `status` prints it; NO_COLOR takes even the bold head away."""
    from io import StringIO

    from kpbackup.cli import render

    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    kept = {name: os.environ.pop(name, None) for name in ("NO_COLOR", "TERM")}
    try:
        for name, value, seen in (("TERM", "xterm", True), ("NO_COLOR", "1", False)):
            os.environ[name] = value
            stream = Terminal()
            render.Printer(stream=stream).show({}, render.Table(("level", "why"), [("warning", "late")], judged="level"))
            assert ("\x1b[33m" in stream.getvalue()) is seen
            assert (COLOUR.search(stream.getvalue()) is not None) is seen
            assert "warning" in stream.getvalue()
    finally:
        for name, old in kept.items():
            os.environ.pop(name, None)
            if old is not None:
                os.environ[name] = old
