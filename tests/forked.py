"""kpbackup's command line without its start, for tests that run it by the thousand: forked off a process that imported it.

    code, out, err = forked.run(["--config", "x.yaml", "backup", "full"], environ, timeout_s=60)

The child gets the arguments, the environment and the standard streams that a new process would get, runs `kpbackup.cli.main` and
ends as a program does. Other than in a new one all of kpbackup is imported already, and `ps` shows the helper's command line. So
`Scene.start` starts new ones, as tests do that look at processes, and KPBACKUP_TEST_FORK=no makes all of them new.

The helper is started by the first call and ends with the process of tests. It has one thread, so it can be forked.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, Any

_AT_START = ("LANG", "LC_", "LD_", "MALLOC_", "OPENSSL_", "PYTHON", "SSL_", "TZ")  # variables that a process reads when it starts
_MOST_BYTES = 1 << 20


def run(words: Sequence[str], environ: Mapping[str, str], *, timeout_s: float) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `kpbackup WORDS`; a signal's number is a negative code, as in subprocess.

    Raises:
        subprocess.TimeoutExpired: it was killed.
    """
    if os.environ.get("KPBACKUP_TEST_FORK") == "no" or _at_start(environ) != _at_start(os.environ):
        argv = [sys.executable, "-m", "kpbackup", *words]
        done = subprocess.run(
            argv, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        return done.returncode, done.stdout, done.stderr
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        request = json.dumps({"words": list(words), "environ": dict(environ), "cwd": os.getcwd()}).encode()
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                socket.send_fds(_helper(), [request], [theirs.fileno(), out.fileno(), err.fileno()])
            code = _awaited(ours, words, timeout_s)
        return code, _read(out), _read(err)


def _at_start(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith(_AT_START)}


def _awaited(reply: socket.socket, words: Sequence[str], timeout_s: float) -> int:
    with reply.makefile("r") as lines:
        pid = int(lines.readline())
        reply.settimeout(timeout_s)
        try:
            return int(lines.readline())
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(list(words), timeout_s) from None


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


@functools.cache
def _helper() -> socket.socket:
    """The socket that takes requests of a helper that was started for this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        os.set_inheritable(theirs.fileno(), True)
        helper = subprocess.Popen(
            [sys.executable, "-m", "tests.forked", str(theirs.fileno())], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    atexit.register(helper.wait)
    atexit.register(ours.close)  # before it: this is what ends the helper
    return ours


# --- the helper


def _main() -> int:
    for found in pkgutil.walk_packages(importlib.import_module("kpbackup").__path__, "kpbackup."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    importlib.import_module("boto3")
    gc.freeze()
    words = _in_child(socket.socket(fileno=int(sys.argv[1])))
    return 0 if words is None else importlib.import_module("kpbackup.cli.main").main(words)


def _in_child(control: socket.socket) -> list[str] | None:
    """Forks for each request. Returns its arguments in the child, None in the helper when no more can come."""
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    while True:
        for ready, _ in selector.select():
            if ready.data is not None:
                _tell_end(selector, ready.fd, *ready.data)
                continue
            data, fds, _, _ = socket.recv_fds(control, _MOST_BYTES, 3)
            if not data:
                return None
            reply = socket.socket(fileno=fds[0])
            pid = os.fork()
            if not pid:
                selector.close()
                control.close()
                reply.close()
                return _became(json.loads(data), *fds[1:])
            for fd in fds[1:]:
                os.close(fd)
            reply.sendall(b"%d\n" % pid)
            selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, reply))


def _tell_end(selector: selectors.BaseSelector, fd: int, pid: int, reply: socket.socket) -> None:
    selector.unregister(fd)
    os.close(fd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with reply:
        try:
            reply.sendall(b"%d\n" % code)
        except BrokenPipeError:
            pass  # nobody waits any more


def _became(request: dict[str, Any], out: int, err: int) -> list[str]:
    """Makes this child what the request asks for; its arguments."""
    for fd, place in ((out, 1), (err, 2)):
        os.dup2(fd, place)
        os.close(fd)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environ"])
    tempfile.tempdir = None
    words: list[str] = request["words"]
    sys.argv[1:] = words
    return words


if __name__ == "__main__":
    sys.exit(_main())
