"""The points at which a job may die: before each of its writes to the store, and right after those that make something exist.

Every job that writes has its list here, by the names of what it writes, in order. `tests/crash` proves that each job passes
exactly these points, so that a new write needs a place in the list, and kills a process with SIGKILL at each of them.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from kpbackup.repository.binding import Repository
from kpbackup.storage import Backend, ObjectInfo
from tests.cut_off import CutOffBackend

FULL = ("lease", "timeline", "key", "rows", "definitions", "definitions", "definitions", "inventory", "set", "lease")
# the lease is there already: creating it fails, so it is replaced
INCREMENTAL = ("lease", "key", "segment", "segment", "segment", "segment", "lease")
OBSERVATION = ("lease", "lease", "observation", "lease")
CONTINUOUS = ("lease", "key", "segment", "segment", "segment", "segment")  # and so on, segment by segment
# of the following, how often each comes depends on how much there is to do: here each is named once
UPKEEP = ("page", "data", "compacted")
PRUNE = ("tombstone", "set deleted", "anchor")
PRUNE_LATER = ("data deleted", "compacted deleted", "segment deleted", "page deleted")
RESTORE = ("journal",)

NAMES = {
    r"leases/.*": "lease", r"timelines/\d+/timeline": "timeline", r"keys/.*": "key", r"data/.*/\d{6}": "rows",
    r"data/.*\.sql": "definitions", r"data/.*/inventory": "inventory", r"data/.*": "data", r"timelines/\d+/sets/.*": "set",
    r"timelines/\d+/segments/.*": "segment", r"timelines/\d+/observations/.*": "observation",
    r"timelines/\d+/pages/.*": "page", r"timelines/\d+/compacted/.*": "compacted", r"timelines/\d+/anchors/.*": "anchor",
    r"timelines/\d+/tombstones/.*": "tombstone", r"recoveries/.*": "journal",
}
COMMITS = frozenset({"timeline", "set", "segment", "observation", "page", "compacted", "anchor", "tombstone", "journal"})
PATIENCE_S = 180.0
DELETED = "deleted: "  # before the key, in what a store noted


def kind(key: str) -> str:
    if key.startswith(DELETED):
        return kind(key.removeprefix(DELETED)) + " deleted"
    return next(name for pattern, name in NAMES.items() if re.fullmatch(pattern, key))


def kinds(keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(kind, keys))


def deaths(points: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Before each write; right after it, with the answer lost, where it makes something exist."""
    for number, name in enumerate(points, 1):
        yield number, "before"
        if name in COMMITS or name.endswith("deleted"):
            yield number, "after"


def at_the_ends_of_runs(points: Sequence[str]) -> Iterator[tuple[int, str]]:
    """As `deaths`, but of many writes of one kind in a row only the first and the last."""
    for number, how in deaths(points):
        around = points[max(0, number - 2) : number + 1]
        if len(around) < 3 or len(set(around)) > 1:
            yield number, how


class DyingBackend(CutOffBackend):
    """Kills its own process before or after the n-th write or deletion; with 0 it only notes them in `writes`."""

    def __init__(self, inner: Backend, *, at: int = 0, how: str = "before") -> None:
        super().__init__(inner)
        self._at, self._how = at, how

    def delete(self, key: str) -> None:
        self._write(DELETED + key, lambda: self._inner.delete(key))  # type: ignore[arg-type, return-value]

    def delete_all(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.delete(key)

    def _write(self, key: str, send: Callable[[], ObjectInfo]) -> ObjectInfo:
        with self._lock:
            self.writes.append(key)
            is_last = len(self.writes) == self._at
        if is_last and self._how == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done = send()
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return done


def noted(repository: Repository) -> tuple[Repository, DyingBackend]:
    """The repository over a store that notes what is written."""
    store = DyingBackend(repository.backend)
    return replace(repository, backend=store, verified={}, stretches={}), store


def killed(run: Callable[[Repository], object], repository: Repository, at: int, how: str) -> bool:
    """Runs a job in a process of its own that kills itself at its `at`-th write; whether it came that far.

    A fork, so that hundreds of deaths cost no start of an interpreter.

    Raises:
        AssertionError: the job ended with an error of its own, or hung.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            run(replace(repository, backend=DyingBackend(repository.backend, at=at, how=how), verified={}, stretches={}))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = _await(pid)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the job failed by itself"
    return os.WIFSIGNALED(status)


def _await(pid: int) -> int:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError("the job hangs")
        time.sleep(0.002)
