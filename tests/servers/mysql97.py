"""MySQL 9.7 from Debian's unstable suite, unpacked into a cache folder and run through its own dynamic loader.

Nothing of it is installed: `fetch-debs.sh` (about 10 s, 63 MB) fills `${XDG_CACHE_HOME:-~/.cache}/kpbackup-servers/mysql`
once per machine; a fetch that was cut leaves no half folder. The version is the one unstable has on that day: read
`Server.version`.

The data directory is made once per process (about 4 s) and copied for each server. Settings: row binlog, GTID on,
64 MiB buffer pool, no fsync. Options come last and win: `("--gtid-mode=OFF", "--enforce-gtid-consistency=OFF")`.
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tests.servers import database
from tests.servers.process import ServerFailed

_PACKAGES = ("mysql-server-core", "mysql-client-core")
_FETCH_TIMEOUT_S = 600
_REDO_CAPACITY = "--innodb-redo-log-capacity=8M"


class FetchFailed(RuntimeError):
    """MySQL could not be brought from the Debian mirror; the message says what apt said."""


def mysql97_server(directory: Path, *, server_id: int, options: Sequence[str] = ()) -> AbstractContextManager[database.Server]:
    """A fresh server in `directory` (a data directory already there is used as it is).

    Raises:
        FetchFailed, process.ServerFailed.
    """
    template = _template()

    def command_line(paths: database.Paths, port: int) -> list[str]:
        return [
            *_mysqld(), *paths.options(port), "--mysqlx=OFF", f"--server-id={server_id}",
            "--log-bin=binlog", "--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--sync-binlog=0",
            _REDO_CAPACITY, "--innodb-flush-method=nosync", "--innodb-buffer-pool-size=64M", "--performance-schema=OFF",
        ]

    return database.running(
        "MySQL", directory, template=template, command_line=command_line, server_id=server_id, options=options
    )


def program(name: str) -> str:
    """The full path of a MySQL program (mysql, mysqldump, mysqlbinlog, mysqladmin), a wrapper that finds its own libraries."""
    return str(home() / "bin" / name)


@functools.cache
def home() -> Path:
    """The cache folder with `bin/` and `root/`, fetched when it is not there yet.

    Raises:
        FetchFailed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kpbackup-servers"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / "mysql"
    with (cache / "mysql.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs at once fetch once
        if not folder.exists():
            _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    script = Path(__file__).with_name("fetch-debs.sh")
    unfinished = folder.with_name("mysql.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        run = subprocess.run(
            ["bash", str(script), "sid", str(unfinished), *_PACKAGES],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=_FETCH_TIMEOUT_S, check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise FetchFailed(f"fetching MySQL took longer than {_FETCH_TIMEOUT_S} s") from exc
    if run.returncode != 0:
        raise FetchFailed(f"fetching MySQL from the Debian mirror ended with {run.returncode}:\n{run.stdout[-3000:]}")
    unfinished.rename(folder)


def _mysqld() -> list[str]:
    root = home() / "root"
    return [
        program("mysqld"), "--no-defaults", *(["--user=root"] if os.geteuid() == 0 else []),
        f"--basedir={root}/usr", f"--plugin-dir={root}/usr/lib/mysql/plugin",
        f"--lc-messages-dir={root}/usr/share/mysql", f"--character-sets-dir={root}/usr/share/mysql/charsets",
        "--secure-file-priv=",  # the compiled-in folder does not exist here, and without it mysqld aborts
    ]


@functools.cache
def _template() -> Path:
    top = Path(tempfile.mkdtemp(prefix="kpb-"))
    atexit.register(shutil.rmtree, top, ignore_errors=True)
    data = top / "data"
    run = subprocess.run(
        [
            *_mysqld(), f"--datadir={data}", f"--tmpdir={top}", "--initialize-insecure", "--skip-log-bin",
            _REDO_CAPACITY, "--innodb-flush-method=nosync",
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )
    if run.returncode != 0:
        raise ServerFailed(f"mysqld --initialize ended with {run.returncode}:\n{run.stdout[-3000:]}")
    (data / "auto.cnf").unlink(missing_ok=True)  # else every copy would have the same server UUID
    return data
