"""Servers of other Debian suites, and parts of this one's, unpacked into a cache folder: nothing of them is installed.

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
    """Something could not be brought from the Debian mirror; the message says what apt said."""


def fetched(name: str, *, suite: str = "", packages: Sequence[str] = (), alone: Sequence[str] = ()) -> Path:
    """The cache folder with `root/` and, for servers, `bin/`: `packages` with all they need, `alone` by themselves.

    Without a suite the packages come from the sources of this machine.

    Raises:
        FetchFailed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kpbackup-servers"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / name
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _fetch(folder, [suite, str(folder) + ".unfinished", *packages, *(["--alone", *alone] if alone else [])])
    return folder


def _fetch(folder: Path, arguments: Sequence[str]) -> None:
    unfinished = Path(arguments[1])
    shutil.rmtree(unfinished, ignore_errors=True)
    script = Path(__file__).with_name("fetch-debs.sh")
    try:
        run = subprocess.run(
            ["bash", str(script), *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=_FETCH_TIMEOUT_S, check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise FetchFailed(f"fetching {folder.name} took longer than {_FETCH_TIMEOUT_S} s") from exc
    if run.returncode != 0:
        raise FetchFailed(f"fetching {folder.name} from the Debian mirror ended with {run.returncode}:\n{run.stdout[-3000:]}")
    unfinished.rename(folder)
