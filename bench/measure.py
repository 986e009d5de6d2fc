"""One run of a pipeline of programs: wall time, processor time, memory of the whole process tree.

Idea: the clock starts before the first program is started and stops when the last one was waited for. Processor time of the
programs is what the kernel charges to waited-for children (workers of workers included), that of servers is read from /proc.
Memory is sampled every 50 ms over the tree below the programs: the sum of RSS counts shared pages once per process, the sum of
PSS once in all.

Limits: a peak between two samples is not seen. The sampler itself takes about a hundredth of one core, from all variants alike.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

SAMPLE_INTERVAL_S = 0.05
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_CORES = os.sysconf("SC_NPROCESSORS_ONLN")


class BenchFailed(Exception):
    """A sentence that says why there is no result."""


@dataclass(frozen=True)
class Run:
    """What one run took. `client_cpu_s` is of the programs, `server_cpu_s` and `store_cpu_s` of the servers they talked to.

    `other_share` is what everybody else took of the machine's processor time meanwhile, from 0 to 1: figures made on a busy
    machine are worth nothing, and this shows it. `read_back_share` is of a restore by kpbackup: the workers' time for reading
    back over that for loading and indexes.
    """

    wall_s: float
    client_cpu_s: float
    server_cpu_s: float
    store_cpu_s: float
    peak_rss_bytes: int
    peak_pss_bytes: int
    other_share: float
    output_bytes: int = 0
    read_back_share: float = 0.0


@dataclass(frozen=True)
class Programs:
    """A pipeline: each program's output is the next one's input; the first reads `source`, the last writes `sink`."""

    argvs: Sequence[Sequence[str]]
    source: Path | None = None
    sink: Path | None = None


def run(programs: Programs, *, environ: Mapping[str, str], log: Path, server_pid: int, store_pid: int) -> Run:
    """Runs the pipeline to its end.

    Raises:
        BenchFailed: a program ended with an error; with the end of what it said.
    """
    before = Used.now(server_pid, store_pid)
    started = time.monotonic()
    with log.open("wb") as errors, _started(programs, environ, errors) as children, _Sampler([c.pid for c in children]) as peaks:
        codes = [child.wait() for child in children]
    wall_s = time.monotonic() - started
    for argv, code in zip(programs.argvs, codes, strict=True):
        if code:
            raise BenchFailed(f"{' '.join(argv)[:300]} ended with {code}: {log.read_text('utf-8', 'replace')[-2000:]}")
    used = Used.now(server_pid, store_pid).since(before)
    return Run(
        wall_s=wall_s,
        client_cpu_s=used.programs_s,
        server_cpu_s=used.server_s,
        store_cpu_s=used.store_s,
        peak_rss_bytes=peaks.rss_bytes,
        peak_pss_bytes=peaks.pss_bytes,
        other_share=used.other_share(wall_s),
    )


@dataclass(frozen=True)
class Used:
    """Processor time used so far, in seconds."""

    programs_s: float
    server_s: float
    store_s: float
    bench_s: float
    machine_s: float

    @classmethod
    def now(cls, server_pid: int, store_pid: int = 0) -> Used:
        own = resource.getrusage(resource.RUSAGE_SELF)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        user, nice, system, _idle, _waiting, irq, softirq, steal = map(int, _read("/proc/stat").split()[1:9])
        return cls(
            programs_s=children.ru_utime + children.ru_stime,
            server_s=cpu_s(server_pid),
            store_s=cpu_s(store_pid),
            bench_s=own.ru_utime + own.ru_stime,
            machine_s=(user + nice + system + irq + softirq + steal) / _TICKS_PER_S,
        )

    def other_share(self, wall_s: float) -> float:
        """What everybody else took of the machine's processor time in `wall_s`, from 0 to 1."""
        ours = self.programs_s + self.server_s + self.store_s + self.bench_s
        return max(0.0, self.machine_s - ours) / (wall_s * _CORES)

    def since(self, before: Used) -> Used:
        return Used(*(getattr(self, f.name) - getattr(before, f.name) for f in fields(self)))


@contextlib.contextmanager
def _started(programs: Programs, environ: Mapping[str, str], errors: object) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The running programs; on an exception they are killed."""
    children: list[subprocess.Popen[bytes]] = []
    with contextlib.ExitStack() as files:
        feed: object = files.enter_context(programs.source.open("rb")) if programs.source else subprocess.DEVNULL
        sink: object = files.enter_context(programs.sink.open("wb")) if programs.sink else subprocess.DEVNULL
        try:
            for number, argv in enumerate(programs.argvs):
                output = sink if number == len(programs.argvs) - 1 else subprocess.PIPE
                child = subprocess.Popen(list(argv), stdin=feed, stdout=output, stderr=errors, env=dict(environ))  # type: ignore[call-overload]
                if children and children[-1].stdout:
                    children[-1].stdout.close()  # the next program holds it now; a dead reader must be noticed
                children.append(child)
                feed = child.stdout
            yield children
        except BaseException:
            for child in children:
                child.kill()
                child.wait()
            raise


class _Sampler:
    """Peaks of the memory of some processes and all below them, while its context lasts."""

    def __init__(self, roots: Sequence[int]) -> None:
        self.rss_bytes = self.pss_bytes = 0
        self._roots = list(roots)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_INTERVAL_S):
            pids = tree(self._roots)
            self.rss_bytes = max(self.rss_bytes, sum(map(_rss_bytes, pids)))
            self.pss_bytes = max(self.pss_bytes, sum(map(_pss_bytes, pids)))


def tree(roots: Sequence[int]) -> list[int]:
    """The processes and everything below them."""
    found: list[int] = []
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                waiting += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
        except FileNotFoundError:
            pass  # it has just ended
    return found


def cpu_s(pid: int) -> float:
    """Processor time a process has used, all its threads."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S if fields else 0.0


def _rss_bytes(pid: int) -> int:
    fields = _read(f"/proc/{pid}/statm").split()
    return int(fields[1]) * _PAGE_BYTES if fields else 0


def _pss_bytes(pid: int) -> int:
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: str) -> str:
    """A file of /proc; nothing when its process is gone."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
