"""A scratch server for a drill: MariaDB started from the programs of this machine, in a directory of its own, gone afterwards.

It listens on 127.0.0.1 alone, with a password that is drawn for it; its scheduler and its replication are off, so that nothing
in the restored data acts. A watchdog that waits on a pipe of ours kills it and removes its directory when we die, even by
kill -9.

Limits: MariaDB alone; for MySQL name a server in recovery.target. The directory needs the space of the restored data.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kpbackup import errors
from kpbackup.mysql import server

ACCOUNT = "kpbackup_drill"
READY_TIMEOUT_S = 120.0
POLL_S = 0.05
_WATCH = 'read -r _; kill -s KILL -- "-$1" 2>/dev/null; rm -rf -- "$2"'
_SYSTEM_PATH = ":/usr/sbin:/usr/bin:/usr/local/bin"


@dataclass(frozen=True)
class Programs:
    """The two programs of a server: what makes a data directory, and the server."""

    install: str
    serve: str


def find_programs(flavour: str, folder: str = "") -> Programs:
    """The programs in `folder`, else those on PATH.

    Raises:
        StepFailed: they are not installed, or the flavour is not one that can be started here.
    """
    if flavour != "mariadb":
        raise errors.StepFailed(
            f"a drill cannot start a scratch server of {flavour} by itself", hint="name an empty one in recovery.target"
        )
    where = folder or os.environ.get("PATH", "") + _SYSTEM_PATH
    install, serve = (shutil.which(name, path=where) for name in ("mariadb-install-db", "mariadbd"))
    if install is None or serve is None:
        raise errors.StepFailed(
            f"there is no MariaDB server {f'in {folder}' if folder else 'on this machine'} to drill with: mariadbd and"
            " mariadb-install-db are needed",
            hint="install mariadb-server-core (or set drill.programs), or name an empty scratch server in recovery.target",
        )
    return Programs(install, serve)


@contextmanager
def started(programs: Programs, *, directory: str = "", lower_case_table_names: str = "") -> Iterator[server.Endpoint]:
    """An empty server, ended and removed when the block ends.

    Raises:
        StepFailed: it does not start; with the end of its log.
        LocalIOError: there is no directory for it.
    """
    try:
        home = Path(tempfile.mkdtemp(prefix="kpbackup-drill-", dir=directory or None))
    except OSError as exc:
        raise errors.LocalIOError(
            f"no directory for the scratch server can be made in {directory or tempfile.gettempdir()}: {exc.strerror}",
            hint="check drill.directory",
        ) from exc
    try:
        endpoint = _prepare(programs, home)
        options = [f"--lower-case-table-names={lower_case_table_names}"] if lower_case_table_names else []
        with _running(programs, home, endpoint, options):
            yield endpoint
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _prepare(programs: Programs, home: Path) -> server.Endpoint:
    """Makes the data directory, and the file that gives the server its passwords when it starts."""
    made = subprocess.run(
        [
            programs.install, "--no-defaults", *_as_user(), f"--datadir={home}/data", f"--tmpdir={home}",
            "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-log-bin",
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )
    if made.returncode:
        raise errors.StepFailed(
            f"{programs.install} ended with {made.returncode}: {_end(made.stdout)}", hint="is there room in drill.directory?"
        )
    password, start = secrets.token_urlsafe(24), home / "start.sql"
    start.touch(mode=0o600)
    start.write_text(
        f"SET sql_log_bin = 0;\nALTER USER root@localhost IDENTIFIED BY '{password}';\n"
        f"CREATE USER {ACCOUNT}@'127.0.0.1' IDENTIFIED BY '{password}';\n"
        f"GRANT ALL ON *.* TO {ACCOUNT}@'127.0.0.1' WITH GRANT OPTION;\n"
        "DELETE FROM mysql.global_priv WHERE User IN ('', 'root') AND Host <> 'localhost';\nFLUSH PRIVILEGES;\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return server.Endpoint("127.0.0.1", int(free.getsockname()[1]), ACCOUNT, password)


@contextmanager
def _running(programs: Programs, home: Path, endpoint: server.Endpoint, options: list[str]) -> Iterator[None]:
    argv = [
        programs.serve, "--no-defaults", *_as_user(), f"--datadir={home}/data", f"--socket={home}/socket",
        f"--pid-file={home}/pid", f"--tmpdir={home}", f"--port={endpoint.port}", "--bind-address=127.0.0.1",
        f"--init-file={home}/start.sql", f"--server-id={secrets.randbelow(2**31) + 1}", "--log-bin=binlog", "--log-slave-updates",
        "--binlog-format=ROW", "--skip-name-resolve", "--skip-slave-start", "--event-scheduler=OFF", "--sync-binlog=0",
        "--innodb-flush-log-at-trx-commit=0", "--character-set-server=utf8mb4", *options,
    ]
    with (home / "log").open("wb") as log:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    watchdog = subprocess.Popen(
        ["/bin/sh", "-c", _WATCH, "watchdog", str(child.pid), str(home)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )
    try:
        _await(child, home, endpoint)
        yield
    finally:
        child.kill()
        child.wait()
        watchdog.communicate()  # its end of the pipe is closed: it removes what is left


def _await(child: subprocess.Popen[bytes], home: Path, endpoint: server.Endpoint) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            server.connect(endpoint).close()
            return
        except errors.ServerUnreachable:
            if child.poll() is not None or time.monotonic() > deadline:
                told = _end((home / "log").read_text(errors="replace"))
                message = f"the scratch server of the drill does not start: {told}"
                raise errors.StepFailed(message, hint="see drill.programs") from None
        time.sleep(POLL_S)


def _end(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if "ERROR" in line] or text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _as_user() -> list[str]:
    """The option without which mariadbd refuses to be root."""
    return ["--user=root"] if os.geteuid() == 0 else []
