"""The loadable plugins of the MariaDB that is installed, which Debian keeps in a package that would start a service.

Fetched once per machine and version into the cache folder of `fetched.py`, and given to a server by its options.
"""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.servers.fetched import fetched


def options(folder: Path, names: Sequence[str]) -> list[str]:
    """Server options that load the plugins of a folder."""
    return [f"--plugin-dir={folder}", *(f"--plugin-load-add={name}.so" for name in names)]


@functools.cache
def installed_mariadb() -> Path:
    """The folder of plugins (auth_ed25519.so, ha_archive.so and others) of the installed version.

    Raises:
        fetched.FetchFailed: the mirror does not have that version any more; upgrade the machine.
    """
    return package("mariadb-server") / "usr/lib/mysql/plugin"


@functools.cache
def package(name: str) -> Path:
    """The unpacked content of a package of MariaDB in the version that is installed."""
    plain = "".join(letter if letter.isalnum() else "-" for letter in version())
    return fetched(f"{name}-{plain}", alone=[f"{name}={version()}"]) / "root"


def version() -> str:
    """The version of the package of the server that is installed."""
    show = ["dpkg-query", "--show", "--showformat=${Version}", "mariadb-server-core"]
    return subprocess.run(show, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
