"""One server process in a session of its own, which never outlives us.

Three nets, because a forgotten server eats the machine: the context managers kill in `finally`, `atexit` kills what is
left, and a tiny shell per server waits on a pipe that only we hold and kills the server's group when we die (kill -9 included).
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

READY_TIMEOUT_S = 180.0  # a busy 2-core machine; MySQL needs about 1 s, the others less
POLL_INTERVAL_S = 0.02

_running: set[ServerProcess] = set()


class ServerFailed(RuntimeError):
    """A server ended or stayed silent while it was awaited; the message carries the tail of its log."""


class ServerProcess:
    """A started program. Its output goes to `log`, appended, so that a restart keeps the story."""

    def __init__(self, argv: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                list(argv), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                cwd=cwd, env=dict(env) if env is not None else None, start_new_session=True,
            )
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; kill -s KILL -- "-$1" 2>/dev/null', "watchdog", str(self.pid)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )
        _running.add(self)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_running(self) -> bool:
        return self._child.poll() is None

    def wait_until(self, is_ready: Callable[[], bool], *, what: str, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Returns when `is_ready()` is true.

        Raises:
            ServerFailed: the process ended, or the time was up. It has been killed then.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            if not self.is_running:
                code = self._child.returncode
                self.kill()
                raise ServerFailed(f"{what} ended with {code} while starting; its log ends:\n{self.log_tail()}")
            if is_ready():
                return
            if time.monotonic() > deadline:
                self.kill()
                raise ServerFailed(f"{what} is not ready after {timeout_s:.0f} s; its log ends:\n{self.log_tail()}")
            time.sleep(POLL_INTERVAL_S)

    def stop(self, *, timeout_s: float = 30.0) -> None:
        """Asks with SIGTERM, insists with SIGKILL after the time-out."""
        if self.is_running:
            self._child.terminate()
            try:
                self._child.wait(timeout_s)
            except subprocess.TimeoutExpired:
                pass  # the kill below answers for it
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole group; returns when it is gone. Twice is fine."""
        if self in _running:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has ended by itself
            self._child.wait()
            self._watchdog.kill()
            if self._watchdog.stdin is not None:
                self._watchdog.stdin.close()
            self._watchdog.wait()
            _running.discard(self)

    def log_tail(self, *, limit_bytes: int = 4000) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - limit_bytes))
            return log.read().decode("utf-8", "replace")


@atexit.register
def _kill_what_is_left() -> None:
    for process in list(_running):
        process.kill()
