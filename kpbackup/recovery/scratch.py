"""A scratch server for a drill: started from the programs of this machine, in a directory of its own, gone afterwards.

It listens on 127.0.0.1 alone, with a password that is drawn for it; its scheduler and its replication are off, so that nothing
in the restored data acts. A watchdog that waits on a pipe of ours kills it and removes its directory when we die, even by
kill -9.

Its port is free when it is drawn, and taken by somebody else before the server listens now and then: then all is tried again.

Limits: the directory needs the space of the restored data. A path to it of more than about 90 characters is too long for a
socket.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kpbackup import errors
from kpbackup.mysql import server
from kpbackup.recovery.scratch_programs import ACCOUNT, Programs

READY_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 10.0
POLL_S = 0.05
ATTEMPTS = 5
_TAKEN = "another program has taken the port that was drawn for it"
_WATCH = 'read -r _; kill -s KILL -- "-$1" 2>/dev/null; rm -rf -- "$2"'


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has at this moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def started(programs: Programs, *, directory: str = "", draw: Callable[[], int] = free_port) -> Iterator[server.Endpoint]:
    """An empty server, ended and removed when the block ends.

    Raises:
        StepFailed: it does not start; with the end of its log.
        LocalIOError: there is no directory for it.
    """
    with ExitStack() as stack:
        yield _first_that_starts(stack, programs, directory, draw)


def _first_that_starts(stack: ExitStack, programs: Programs, directory: str, draw: Callable[[], int]) -> server.Endpoint:
    for _ in range(ATTEMPTS - 1):
        try:
            return stack.enter_context(_started_once(programs, directory, draw))
        except errors.StepFailed as exc:
            if _TAKEN not in exc.message:
                raise
    return stack.enter_context(_started_once(programs, directory, draw))


@contextmanager
def _started_once(programs: Programs, directory: str, draw: Callable[[], int]) -> Iterator[server.Endpoint]:
    try:
        home = Path(tempfile.mkdtemp(prefix="kpbackup-drill-", dir=directory or None))
    except OSError as exc:
        raise errors.LocalIOError(
            f"no directory for the scratch server can be made in {directory or tempfile.gettempdir()}: {exc.strerror}",
            hint="check drill.directory",
        ) from exc
    try:
        password = _prepare(programs, home)
        endpoint = server.Endpoint("127.0.0.1", draw(), ACCOUNT, password)  # drawn as late as can be
        with _running(programs, home, endpoint):
            yield endpoint
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _prepare(programs: Programs, home: Path) -> str:
    """Makes the data directory, and the file that gives the server its passwords when it starts; the password."""
    made = subprocess.run(
        programs.install_argv(home),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )
    if made.returncode:
        raise errors.StepFailed(
            f"{programs.install} ended with {made.returncode}: {_end(made.stdout + _log(home / 'install.log'))}",
            hint="is there room in drill.directory, and is drill.programs the right folder?",
        )
    password, start = secrets.token_urlsafe(24), home / "start.sql"
    start.touch(mode=0o600)
    start.write_text(programs.first_statements(password))
    return password


@contextmanager
def _running(programs: Programs, home: Path, endpoint: server.Endpoint) -> Iterator[None]:
    argv = programs.serve_argv(home, endpoint.port, secrets.randbelow(2**31) + 1)
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
    while not _answers(home, endpoint):
        if child.poll() is not None or time.monotonic() > deadline:
            log = _log(home / "log")
            told = _TAKEN if "Address already in use" in log else _end(log)
            raise errors.StepFailed(f"the scratch server of the drill does not start: {told}", hint="see drill.programs")
        time.sleep(POLL_S)


def _answers(home: Path, endpoint: server.Endpoint) -> bool:
    if not (home / "pid").exists():
        return False  # it does not listen yet; another program on its port need not say anything, ever
    try:
        server.connect(endpoint, read_timeout_s=ANSWER_TIMEOUT_S).close()
    except errors.ServerUnreachable:
        return False
    return True


def _end(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if "ERROR" in line] or text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _log(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
