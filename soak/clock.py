"""Clocks that jump: a small library, made with `cc`, moves the time of day of the processes that are started with it.

Its offset lies in a file that they all map, so a jump hits them in the middle of whatever they do. Clocks that only measure do
not jump.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


def library(directory: Path) -> Path:
    """The library, made in `directory`.

    Raises:
        RuntimeError: there is no C compiler.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError("cc is not installed, which makes the clock that jumps; run: apt-get install gcc")
    made = directory / "clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(made), str(SOURCE)], check=True)
    return made


class Clock:
    """The clock of the processes that get `environ`."""

    def __init__(self, path: Path, made: Path) -> None:
        self._path, self._made = path, made
        self.jump(0)

    def environ(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._made), "SOAK_CLOCK": str(self._path)}

    def jump(self, seconds: int) -> None:
        """So far from the true time, from now on."""
        if not self._path.exists():
            self._path.write_bytes(bytes(8))
        with self._path.open("r+b") as file:
            file.write(struct.pack("=q", seconds))
