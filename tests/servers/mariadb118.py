"""MariaDB 11.8 from Debian 13, unpacked into a cache folder and run through its own dynamic loader.

Fetched once per machine (`fetched.py`; about 10 s, 35 MB), with the plugins that Debian keeps in other packages (ed25519,
ARCHIVE and more in `plugins()`; they are there to be loaded, none is by default). Settings as in `mariadb.py`; options come
last and win.

`mariadb-install-db` knows nothing of the loader, so the data directory is made, once per process, by the SQL it would run.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tests.servers import database
from tests.servers.fetched import fetched
from tests.servers.mariadb import SETTINGS, as_user
from tests.servers.process import ServerFailed

_PACKAGES = ("mariadb-server-core", "mariadb-client")
_PLUGINS = ("mariadb-server",)
_SYSTEM_TABLES = (
    "mariadb_system_tables", "mariadb_performance_tables", "mariadb_system_tables_data", "maria_add_gis_sp_bootstrap",
    "mariadb_sys_schema",
)
_BOOTSTRAP = ("CREATE DATABASE mysql;", "USE mysql;", "SET @auth_root_socket=NULL;", "SET @current_hostname='localhost';",
              "SET @skip_auth_anonymous=1;")


def mariadb118_server(
    directory: Path, *, server_id: int, options: Sequence[str] = ()
) -> AbstractContextManager[database.Server]:
    """A fresh server in `directory` (a data directory already there is used as it is).

    Raises:
        fetched.FetchFailed, process.ServerFailed.
    """
    template = _template()

    def command_line(paths: database.Paths, port: int) -> list[str]:
        return [*_mariadbd(), *paths.options(port), f"--server-id={server_id}", *SETTINGS]

    return database.running(
        "MariaDB", directory, template=template, command_line=command_line, server_id=server_id, options=options
    )


def program(name: str) -> str:
    """The full path of a program of MariaDB 11.8 (mariadb, mariadb-dump, mariadb-binlog, mariadb-admin)."""
    return str(home() / "bin" / name)


def plugins() -> Path:
    """The folder of loadable plugins (auth_ed25519.so, ha_archive.so and others), which is the server's plugin_dir."""
    return home() / "root/usr/lib/mysql/plugin"


@functools.cache
def home() -> Path:
    """The cache folder with `bin/` and `root/`, fetched when it is not there yet.

    Raises:
        fetched.FetchFailed.
    """
    return fetched("mariadb118", suite="trixie", packages=_PACKAGES, alone=_PLUGINS)


def _mariadbd() -> list[str]:
    root = home() / "root"
    return [
        program("mariadbd"), "--no-defaults", *as_user(), f"--basedir={root}/usr", f"--plugin-dir={plugins()}",
        f"--lc-messages-dir={root}/usr/share/mariadb", f"--character-sets-dir={root}/usr/share/mariadb/charsets",
    ]


@functools.cache
def _template() -> Path:
    top = Path(tempfile.mkdtemp(prefix="kpb-"))
    atexit.register(shutil.rmtree, top, ignore_errors=True)
    data = top / "data"
    data.mkdir()
    scripts = home() / "root/usr/share/mariadb"
    sql = "\n".join([*_BOOTSTRAP, *(f"{(scripts / f'{name}.sql').read_text()}" for name in _SYSTEM_TABLES)])
    run = subprocess.run(
        [
            *_mariadbd(), "--bootstrap", f"--datadir={data}", f"--tmpdir={top}", "--skip-log-bin",
            "--enforce-storage-engine=", "--max-allowed-packet=8M", *(one for one in SETTINGS if one.startswith("--innodb-")),
        ],
        input=sql, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )
    if run.returncode != 0:
        raise ServerFailed(f"mariadbd --bootstrap ended with {run.returncode}:\n{run.stdout[-3000:]}")
    return data
