"""Programs from Debian packages, unpacked into a cache folder: nothing is installed, no root is needed.

`fetch-debs.sh` fills `${XDG_CACHE_HOME:-~/.cache}/kpbackup-servers/NAME` once per machine; a fetch that was cut leaves no half
folder, and two test runs at once fetch once.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

_FETCH_TIMEOUT_S = 600


class FetchFailed(RuntimeError):
    """Packages could not be brought from the Debian mirror; the message says what apt said."""


def fetched(name: str, *, suite: str, packages: Sequence[str], alone: bool = False) -> Path:
    """The cache folder with `root/` (and `bin/` for MySQL), filled when it is not there yet. `alone`: without dependencies.

    Raises:
        FetchFailed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kpbackup-servers"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / name
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _fetch(folder, suite, packages, alone=alone)
    return folder


def _fetch(folder: Path, suite: str, packages: Sequence[str], *, alone: bool) -> None:
    script = Path(__file__).with_name("fetch-debs.sh")
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    what = ", ".join(packages)
    try:
        run = subprocess.run(
            ["bash", str(script), *(["--alone"] if alone else []), suite, str(unfinished), *packages],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=_FETCH_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        raise FetchFailed(f"fetching {what} took longer than {_FETCH_TIMEOUT_S} s") from exc
    if run.returncode != 0:
        raise FetchFailed(f"fetching {what} from the Debian mirror ended with {run.returncode}:\n{run.stdout[-3000:]}")
    unfinished.rename(folder)
