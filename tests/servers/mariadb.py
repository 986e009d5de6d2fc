"""MariaDB of the Debian release (10.11 on Debian 12), from mariadb-server-core.

The data directory is made once per process by `mariadb-install-db` (about 1 s) and copied for each server (about 20 ms).
Settings: row binlog, GTID strict mode in domain 1, utf8mb4, 32 MiB buffer pool, no fsync. The caller's options come last and win:
`--skip-log-bin`, `--binlog-format=STATEMENT`, `--innodb-flush-method=fsync` for honest times, and so on.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tests.servers import database

_LOG_FILE_SIZE = "--innodb-log-file-size=8M"  # the same in the template and at start, else InnoDB rebuilds its log
SETTINGS = (
    "--log-bin=binlog", "--log-slave-updates", "--binlog-format=ROW", "--gtid-strict-mode=ON", "--gtid-domain-id=1",
    "--character-set-server=utf8mb4", "--skip-name-resolve", _LOG_FILE_SIZE, "--innodb-buffer-pool-size=32M",
    "--innodb-flush-method=nosync", "--performance-schema=OFF",
)


def mariadb_server(
    directory: Path, *, server_id: int, options: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> AbstractContextManager[database.Server]:
    """A fresh server in `directory` (a data directory already there is used as it is); `environ` replaces our own.

    Raises:
        process.ServerFailed: with the end of its log.
        RuntimeError: MariaDB is not installed.
    """
    program = find("mariadbd")

    def command_line(paths: database.Paths, port: int) -> list[str]:
        return [program, "--no-defaults", *as_user(), *paths.options(port), f"--server-id={server_id}", *SETTINGS]

    return database.running(
        "MariaDB", directory, template=_template(), command_line=command_line, server_id=server_id, options=options,
        environ=environ,
    )


def find(program: str) -> str:
    """The full path of a MariaDB program; /usr/sbin counts even where a user's PATH leaves it out.

    Raises:
        RuntimeError: not installed.
    """
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin")
    if found is None:
        raise RuntimeError(f"{program} is not installed; run: make setup-test")
    return found


@functools.cache
def _template() -> Path:
    top = Path(tempfile.mkdtemp(prefix="kpb-"))
    atexit.register(shutil.rmtree, top, ignore_errors=True)
    data = top / "data"
    subprocess.run(
        [
            find("mariadb-install-db"), "--no-defaults", *as_user(), f"--datadir={data}", f"--tmpdir={top}",
            "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-log-bin",
            _LOG_FILE_SIZE, "--innodb-flush-method=nosync",
        ],
        check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )
    return data


def as_user() -> list[str]:
    """The option without which mariadbd refuses to be root."""
    return ["--user=root"] if os.geteuid() == 0 else []
