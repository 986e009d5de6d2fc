"""A program run on a terminal: what it draws there."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path


def drawn(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None, answers: bool = True
) -> tuple[int, str]:
    """(exit code, text). Standard error is the terminal; standard output too, unless `answers` is off."""
    ours, theirs = os.openpty()
    got: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(ours, 65536):
                got.append(data)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=theirs if answers else subprocess.DEVNULL, stderr=theirs, timeout=300,
            check=False, env=env, cwd=cwd,
        )  # fmt: skip
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)
    return done.returncode, b"".join(got).decode()
