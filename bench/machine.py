"""Where and with what the figures were made: machine, versions, commit. No names of hosts or people."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.stage import KPBACKUP

_ROOT = Path(__file__).resolve().parents[1]
_PROGRAMS = {
    "mariadb-dump": ["mariadb-dump", "--version"], "mydumper": ["mydumper", "--version"], "zstd": ["zstd", "--version"],
    "age": ["age", "--version"], "kpbackup": [KPBACKUP, "version"],
}
_PACKAGES = ("boto3", "cryptography", "pymysql", "zstandard")


def facts() -> dict[str, Any]:
    """The machine; `load_1min` is that of the moment."""
    cpu = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def versions(*, server: str, store: str) -> dict[str, str]:
    """Of everything that took part and is installed."""
    found = {"python": platform.python_version(), "mariadb": server, "seaweedfs": store}
    for name, argv in _PROGRAMS.items():
        text = _output(argv)
        number = re.search(r"\d+\.\d+(\.\d+)?", text.replace("Ver 10.19 Distrib ", ""))
        if number:
            found[name] = number[0]
    return found | {name: metadata.version(name) for name in _PACKAGES}


def commit() -> dict[str, Any]:
    """The checkout's commit, and whether files differ from it."""
    git = ["git", "--no-optional-locks", "-C", str(_ROOT)]
    status = _output([*git, "status", "--porcelain", "--", "kpbackup", "bench", "demo"])
    return {"commit": _output([*git, "rev-parse", "HEAD"]).strip(), "uncommitted_changes": bool(status.strip())}


def _output(argv: list[str]) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL).stdout
    except FileNotFoundError:
        return ""
