"""MySQL 9.7 from Debian's unstable suite, unpacked into a cache folder and run through its own dynamic loader.

Fetched once per machine (`fetched.py`; about 10 s, 63 MB). The version is the one unstable has on that day: read
`Server.version`.

The data directory is made once per process (about 4 s) and copied for each server. Settings: row binlog, GTID on,
64 MiB buffer pool, no fsync. Options come last and win: `("--gtid-mode=OFF", "--enforce-gtid-consistency=OFF")`.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tests.servers import database
from tests.servers.fetched import fetched
from tests.servers.process import ServerFailed

_PACKAGES = ("mysql-server-core", "mysql-client-core")
_REDO_CAPACITY = "--innodb-redo-log-capacity=8M"


def mysql97_server(directory: Path, *, server_id: int, options: Sequence[str] = ()) -> AbstractContextManager[database.Server]:
    """A fresh server in `directory` (a data directory already there is used as it is).

    Raises:
        fetched.FetchFailed, process.ServerFailed.
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
        fetched.FetchFailed.
    """
    return fetched("mysql", suite="sid", packages=_PACKAGES)


def scripts() -> Path:
    """The unpacked content of the package with MySQL's own regression scripts. Raises as `home`."""
    return fetched("mysql-scripts", suite="sid", alone=["mysql-testsuite"]) / "root"


def version() -> str:
    told = subprocess.run([program("mysqld"), "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return f"MySQL {told.stdout.split(' Ver ')[1].split()[0]}"


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
