"""Runs of kpbackup as forks of one process that has imported it: a job starts in milliseconds instead of most of a second.

What runs is the program's own `main`, in a process and a session of its own that may be killed with SIGKILL; only the imports
were made before. Workers of a job are started by it as always.

`prune_ahead` is `kpbackup prune` as it would be some days from now: the moment is a fact that decisions are given, so nothing has
to pretend to be another clock.

Limits: one job at a time. Ends with its parent: the pipe between them closes.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from kpbackup import errors
from tests.integration.scenario import Ended

AHEAD = "prune-ahead"  # the first word of a job that is `prune_ahead`, with the days and the settings file after it


@dataclass(frozen=True)
class Running:
    """A job on its way; `ended` waits for it."""

    pid: int
    _answers: IO[bytes]
    _output: tuple[Path, Path]

    def kill(self) -> None:
        """SIGKILL; nothing when it has ended already."""
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def ended(self, *, timeout_s: float) -> Ended | None:
        """How it ended; None when it has not after so long."""
        ready, _, _ = select.select([self._answers], [], [], timeout_s)
        if not ready:
            return None
        code = int(self._answers.readline())
        out, err = (path.read_text(encoding="utf-8", errors="replace") for path in self._output)
        return Ended(code, out, err)


class Forks:
    """The process that forks, with `environ` for all jobs; a context manager."""

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        self._output = (directory / "out", directory / "err")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "soak.forks"], env=dict(environ), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def start(self, *words: str) -> Running:
        """`words` follow the program's name."""
        assert self._process.stdin and self._process.stdout
        request = {"words": words, "output": [str(path) for path in self._output]}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        return Running(int(self._process.stdout.readline()), self._process.stdout, self._output)

    def run(self, *words: str, timeout_s: float) -> Ended:
        running = self.start(*words)
        ended = running.ended(timeout_s=timeout_s)
        if ended is None:
            running.kill()
            raise TimeoutError(f"kpbackup {' '.join(words)} hangs")
        return ended


def _serve() -> None:
    """Reads jobs from standard input until it is closed: answers each with its process id, then with its exit code."""
    import boto3  # noqa: F401 - what every job needs is imported once, here

    from kpbackup.cli import backup, check, list, main, prune  # noqa: F401
    from kpbackup.repository import check as _check  # noqa: F401
    from kpbackup.service import opening  # noqa: F401
    from kpbackup.storage import s3  # noqa: F401

    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(job["words"], job["output"])
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(words: Sequence[str], output: Sequence[str]) -> None:
    """The rest of this process is one run of kpbackup."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(output, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - the old one has read ahead
    if words[0] != AHEAD:
        from kpbackup.cli import main

        sys.exit(main.main(words))
    try:
        prune_ahead(days=int(words[1]), settings=words[2])
    except errors.KpbackupError as exc:
        print(f"kpbackup: {exc.message}", file=sys.stderr)
        sys.exit(exc.exit_code)
    sys.exit(0)


def prune_ahead(*, days: int, settings: str) -> None:
    """`kpbackup prune` as it would be `days` from now; prints what it did."""
    from kpbackup import config
    from kpbackup.plan import retention
    from kpbackup.repository import catalog, lease, prune
    from kpbackup.service import opening, reading

    found = config.load(settings, os.environ)
    repository, policy = opening.writing_repository(found), reading.policy(found)
    with lease.acquire(repository, "prune", holder=f"ahead/{os.getpid()}") as held:
        read, now = catalog.read_catalog(repository), datetime.now(UTC) + timedelta(days=days)
        plan = retention.plan_prune(read, policy, now)
        done = prune.execute(repository, read, plan, policy, now, check=held.check)
    document: dict[str, Any] = {"sets": done.sets, "segments": done.segments, "deleted": done.deleted}
    print(json.dumps(document))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the soak's, which then closes our input
    _serve()
