"""The voice of the demo: numbered chapters, the exact commands with their output indented.

What kpbackup printed is kept for the leak search. A command that ends otherwise than expected ends the demo.
Ctrl-C while one runs reaches it too, being in the same process group; it gets time to end orderly, then it is killed.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

WIDTH = 100
END_TIMEOUT_S = 10.0


class DemoFailed(RuntimeError):
    """Something is not as it must be; the message says what."""


@dataclass(frozen=True)
class Machine:
    """A directory and an environment that stand for a machine of their own; every command runs in there."""

    name: str
    directory: Path
    environ: Mapping[str, str]

    def file(self, name: str) -> Path:
        return self.directory / name


@dataclass(frozen=True)
class Answer:
    """What a command printed, both streams as they came, and how long it took."""

    output: str
    seconds: float


class Narrator:
    """Prints the story. `transcript` is all output of kpbackup so far."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self._chapters = 0
        self.transcript = ""

    def chapter(self, title: str) -> None:
        self._chapters += 1
        self._print(f"\n{self._chapters}. {title}")

    def say(self, text: str) -> None:
        self._print(textwrap.fill(" ".join(text.split()), WIDTH, initial_indent="   ", subsequent_indent="   "))

    def show(self, text: str) -> None:
        """Lines as they are, indented."""
        self._print("\n".join(f"     | {line}".rstrip() for line in text.rstrip().split("\n")))

    def kpbackup(self, machine: Machine, *arguments: str, expect: int = 0) -> Answer:
        """Runs kpbackup on a machine, with the settings file that lies there.

        Raises:
            DemoFailed: it ended with another exit code.
        """
        self._print(f"   {machine.name}$ {shlex.join(['kpbackup', *arguments])}")
        started = time.monotonic()
        output = self._run(machine, arguments, expect)
        return Answer(output, time.monotonic() - started)

    def spawn(self, machine: Machine, *arguments: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Starts kpbackup and leaves it running; its output goes to `log`."""
        self._print(f"   {machine.name}$ {shlex.join(['kpbackup', *arguments])} &")
        return subprocess.Popen(
            [self._program, *arguments], cwd=machine.directory, env=dict(machine.environ), stdin=subprocess.DEVNULL,
            stdout=log, stderr=log,
        )

    def quietly(self, machine: Machine, *arguments: str) -> str:
        """What a reading command answers, whatever its exit code says of the state; the audience does not see it."""
        return subprocess.run(
            [self._program, *arguments], cwd=machine.directory, env=dict(machine.environ), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, text=True, check=False,
        ).stdout

    def verbs(self, machine: Machine) -> str:
        """The text of `kpbackup --help`."""
        return subprocess.run(
            [self._program, "--help"], cwd=machine.directory, env=dict(machine.environ), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=True,
        ).stdout

    def _run(self, machine: Machine, arguments: tuple[str, ...], expect: int) -> str:
        lines = []
        with subprocess.Popen(
            [self._program, *arguments], cwd=machine.directory, env=dict(machine.environ), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
        ) as child:
            try:
                for line in child.stdout or ():
                    lines.append(line)
                    self.show(line)
                code = child.wait()
            except BaseException:
                _end(child)
                raise
            finally:
                self.transcript += "".join(lines)
        if code != expect:
            raise DemoFailed(f"`{shlex.join(['kpbackup', *arguments])}` ended with {code} and not with {expect}")
        return "".join(lines)

    def _print(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def _end(child: subprocess.Popen[str]) -> None:
    child.terminate()
    try:
        child.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
