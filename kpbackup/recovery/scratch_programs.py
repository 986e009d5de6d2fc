"""The programs a drill starts its scratch server from, and what each flavour wants to be told.

What gives rows another meaning or makes a server refuse a definition is as on the source (names, pages, GTID mode); what only
protects a server that lives long (flushes, the checks of writers of functions) is off. Nothing that acts by itself is on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kpbackup import errors

ACCOUNT = "kpbackup_drill"
_SYSTEM_PATH = ":/usr/sbin:/usr/bin:/usr/local/bin:/usr/libexec"
_AT_BIRTH = ("lower_case_table_names", "innodb_page_size")  # fixed when the data directory is made
_PACKAGES = {"mariadb": "mariadb-server-core", "mysql": "mysql-server-core"}


@dataclass(frozen=True)
class Like:
    """The source as the set knows it: its flavour, and its settings by name."""

    flavour: str
    settings: Mapping[str, str] = field(default_factory=dict)

    def options(self, *names: str) -> list[str]:
        """The source's values of these settings, as options."""
        found = ((name, self.settings.get(name, "")) for name in names)
        return [f"--{name.replace('_', '-')}={value}" for name, value in found if value]

    def server_options(self) -> list[str]:
        """What a scratch server is told wherever it runs."""
        return [
            "--log-bin=binlog", "--binlog-format=ROW", "--skip-name-resolve", "--event-scheduler=OFF", "--sync-binlog=0",
            "--innodb-flush-log-at-trx-commit=0", "--character-set-server=utf8mb4", "--log-bin-trust-function-creators=ON",
            "--max-allowed-packet=1G", *self.options(*_AT_BIRTH), *self._of_flavour(),
        ]

    def _of_flavour(self) -> list[str]:
        if self.flavour == "mariadb":
            return ["--log-slave-updates", "--skip-slave-start"]
        mode = self.settings.get("gtid_mode", "ON")
        return [
            "--log-replica-updates", "--skip-replica-start", "--mysqlx=OFF", f"--gtid-mode={mode}",
            f"--enforce-gtid-consistency={'ON' if mode.startswith('ON') else 'OFF'}", *self.options("partial_revokes"),
        ]


@dataclass(frozen=True)
class Programs:
    """What makes a data directory, and the server: the same program for MySQL."""

    install: str
    serve: str
    like: Like

    def install_argv(self, home: Path) -> list[str]:
        """Makes `home`/data."""
        places = [f"--datadir={home}/data", f"--tmpdir={home}", "--skip-log-bin", *self.like.options(*_AT_BIRTH)]
        if self.like.flavour == "mysql":
            return [
                self.install, "--no-defaults", *_as_user(), "--initialize-insecure", "--secure-file-priv=NULL",
                f"--log-error={home}/install.log", *places,
            ]
        return [self.install, "--no-defaults", *_as_user(), *places, "--auth-root-authentication-method=normal", "--skip-test-db"]

    def serve_argv(self, home: Path, port: int, server_id: int) -> list[str]:
        """Starts the server, on 127.0.0.1 alone."""
        return [
            self.serve, "--no-defaults", *_as_user(), f"--datadir={home}/data", f"--socket={home}/socket",
            f"--pid-file={home}/pid", f"--tmpdir={home}", f"--port={port}", "--bind-address=127.0.0.1",
            f"--init-file={home}/start.sql", f"--server-id={server_id}", *self.like.server_options(),
            *(["--secure-file-priv=NULL"] if self.like.flavour == "mysql" else ()),
        ]

    def first_statements(self, password: str) -> str:
        """What the server runs when it starts, a statement a line: root and the drill's account get a password, nobody else is
        left."""
        account = f"{ACCOUNT}@'127.0.0.1'"
        nobody = ["DELETE FROM mysql.global_priv WHERE User IN ('', 'root') AND Host <> 'localhost'", "FLUSH PRIVILEGES"]
        return "".join(
            f"{statement};\n"
            for statement in (
                "SET sql_log_bin = 0", f"ALTER USER root@localhost IDENTIFIED BY '{password}'",
                f"CREATE USER {account} IDENTIFIED BY '{password}'", f"GRANT ALL ON *.* TO {account} WITH GRANT OPTION",
                *(nobody if self.like.flavour == "mariadb" else ()),  # MySQL makes root@localhost alone
            )
        )


def find_programs(like: Like, folder: str = "") -> Programs:
    """The programs in `folder`, else those on PATH.

    Raises:
        StepFailed: they are not installed; MySQL and MariaDB are never taken for each other.
    """
    where = folder or os.environ.get("PATH", "") + _SYSTEM_PATH
    wanted = ("mysqld", "mysqld") if like.flavour == "mysql" else ("mariadb-install-db", "mariadbd")
    install, serve = (shutil.which(name, path=where) for name in wanted)
    if install is None or serve is None or (like.flavour == "mysql" and _is_mariadb(serve)):
        what = {"mysql": "MySQL", "mariadb": "MariaDB"}[like.flavour]
        raise errors.StepFailed(
            f"there is no {what} server {f'in {folder}' if folder else 'on this machine'} to drill with:"
            f" {' and '.join(sorted(set(wanted)))} {'is' if like.flavour == 'mysql' else 'are'} needed",
            hint=f"install {_PACKAGES[like.flavour]} (or set drill.programs), or name an empty scratch server in recovery.target",
        )
    return Programs(install, serve, like)


def _is_mariadb(path: str) -> bool:
    """MariaDB installs a link `mysqld` to its own server."""
    return "mariadb" in os.path.basename(os.path.realpath(path))


def _as_user() -> list[str]:
    """The option without which a server refuses to be root."""
    return ["--user=root"] if os.geteuid() == 0 else []
