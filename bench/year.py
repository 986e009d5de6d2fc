"""`python -m bench.year`: what it costs to ask a repository with a year of minutely segments.

525,600 segments and a set a day, in a directory: real signed manifests, catalogue pages, compacted objects and sets, everything
that a reader reads. The segments' own objects are names of one file: whoever opened one of those would be found out at once.

Measured in processes that know nothing from before: `kpbackup status`, planning a restore to a moment, a GTID and the end; and at
last one prune: half of the year is released and deleted, and of the other half every small object that a compacted one holds,
after that one was read whole and compared.
On a machine with more to do than it has cores the limits are held against processor time.

Writes docs/evidence/year.json and the table in docs/benchmarks.md. DAYS (365) is for a quick look, kept only with KEEP.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from bench.published import publish
from kpbackup.model import canonical, codec, stretch
from kpbackup.model import manifest as m
from kpbackup.pipeline import compress, sign, stream
from kpbackup.plan import retention, timeline
from kpbackup.repository import binding, catalog, choosing, layout, objects
from kpbackup.repository import prune as pruning
from kpbackup.storage import open_backend
from tests.archives import DAY, Growing

MINUTE = timedelta(minutes=1)
PLAN_LIMIT_S, STATUS_LIMIT_S, PRUNE_LIMIT_S = 5.0, 2.0, 120.0
LIMIT_MIB = 300
ROUNDS = 5


class Paged(Growing):
    """Grows pages at once: a segment's manifest goes into its page, and its own object is a name alone."""

    _dummy: Path
    _rows: list[tuple[m.BinlogSegment, bytes]]
    _lower: dict[int, list[tuple[m.Page, bytes]]]
    _of_day: list[tuple[m.BinlogSegment, bytes]]

    def __post_init__(self) -> None:
        self._rows, self._lower, self._of_day = [], {}, []
        super().__post_init__()
        self._dummy = self._directory / "timelines" / "0001" / "segments" / "nothing"
        self._dummy.parent.mkdir(parents=True, exist_ok=True)
        self._dummy.write_bytes(b"nobody reads this\n")

    def _write(self, value: Any, payload: bytes = b"") -> None:
        if not isinstance(value, m.BinlogSegment):
            super()._write(value, payload)
            return
        path = self._directory / value.head.key
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
        os.link(self._dummy, path)
        self._of_day.append((value, payload))
        self._rows.append((value, canonical.dumps(codec.encode(value))))
        if len(self._rows) == layout.PAGE_ROWS:
            self._page(0, value.head.seq // layout.PAGE_ROWS, self._rows)
            self._rows = []

    def _page(self, level: int, number: int, rows: list[tuple[Any, bytes]]) -> None:
        compressor = compress.Compressor(level=3)
        packed = compressor.compress(b"\n".join(line for _, line in rows) + b"\n") + compressor.flush()
        tally = stream.Tally((packed,))
        for _ in tally:
            pass
        units = [one.stretch if level else one for one, _ in rows]
        page = m.Page(
            self.repository.head(
                "page", key=layout.page("0001", level, number), created_at=self.now, timeline="0001", seq=number
            ),
            level, stretch.summed(units, flavour="mariadb"), m.Rows(len(rows), tally.size_bytes, tally.sha256),
        )
        super()._write(page, packed)
        above = self._lower.setdefault(level + 1, [])
        above.append((page, canonical.dumps(codec.encode(page))))
        if len(above) == layout.PAGE_ROWS:
            self._page(level + 1, number // layout.PAGE_ROWS, above)
            self._lower[level + 1] = []

    def finish(self) -> None:
        """The segments behind the last page, with objects of their own."""
        for value, _ in self._rows:
            path = self._directory / value.head.key
            path.unlink()
            path.write_bytes(objects.assemble(value, self._signer))
        self._dummy.unlink()

    def compact(self) -> None:
        """The compacted object of the day, and its manifest."""
        found, self._of_day = self._of_day, []
        first, last = found[0][0].head.seq, found[-1][0].head.seq
        data = b"".join(payload for _, payload in found)
        offsets = itertools.accumulate((len(payload) for _, payload in found), initial=0)
        members = tuple(
            m.Member(one.head.seq, offset, one.payload.bytes, one.payload.sha256, one.link)
            for (one, _), offset in zip(found, offsets, strict=False)
        )
        super()._write(m.Compacted(
            self.repository.head(
                "compacted", key=layout.compacted("0001", 2, first, last), created_at=self.now, timeline="0001", seq=first
            ),
            2, self._data_object(data, f"day-{first}"), members,
        ))


def main() -> int:
    days = int(os.environ.get("DAYS") or 365)
    memory, load = Path("/dev/shm"), round(os.getloadavg()[0], 1)
    judged = "median_cpu_s" if load > len(os.sched_getaffinity(0)) else "median_s"
    with tempfile.TemporaryDirectory(prefix="kp-year-", dir=memory if memory.is_dir() else None) as directory:
        made = _make(Path(directory), days)
        results = {name: _measured(Path(directory), arguments, judged) for name, arguments in _questions(made).items()}
        results["status"] = _measured(Path(directory), None, judged)
        pruned = ["prune", str(days // 2), made.now.isoformat()]
        results["prune half of it"] = _measured(Path(directory), pruned, judged, rounds=1, limit=PRUNE_LIMIT_S)
    found = {
        "made_at": canonical.time_text(datetime.now(UTC)), "segments": made.segments, "sets": made.sets,
        "objects": made.segments + made.sets, "results": results, "load_1min": load,
        "judged": judged,
    }
    slow = [name for name, one in results.items() if not one["met"]]
    if days == 365 or os.environ.get("KEEP"):
        publish("year", found, table(found))
    print(table(found))
    return 1 if slow else 0


def _make(directory: Path, days: int) -> Growing:
    key = sign.SigningKey.generate()
    start = datetime.now(UTC).replace(microsecond=0) - days * DAY
    repository = binding.create_repository(
        open_backend((directory / "r").as_uri()), signing_key=key, source="db", flavour="mariadb", created_at=start
    )
    (directory / "public").write_text(str(key.public_key))
    (directory / "key").write_text(key.reveal())
    (directory / "kpbackup.yaml").write_text(yaml.safe_dump({
        "repository": {"url": (directory / "r").as_uri()}, "signing": {"public_keys": [str(key.public_key)]},
    }))
    made = Paged(repository, start, MINUTE, per_file=1440, payload_bytes=200, keep=False)
    made.back_up()
    for _ in range(days):
        made.grow(1440)
        made.compact()
        made.back_up()
    made.finish()
    return made


def _questions(made: Growing) -> dict[str, list[str]]:
    moment = made.start + (made.now - made.start) / 3
    return {
        "plan to a moment": ["time", moment.isoformat()],
        "plan to a GTID": ["gtid", f"1-11-{made.segments * 5 + 3}"],
        "plan to the end": ["latest", ""],
    }


def _measured(
    directory: Path, question: list[str] | None, judged: str, *, rounds: int = ROUNDS, limit: float = PLAN_LIMIT_S
) -> dict[str, Any]:
    """The median of some runs, each a process of its own, with its peak memory."""
    what = "prune" if question and question[0] == "prune" else "ask"
    argv = [sys.executable, "-m", "bench.year", what, str(directory), *question] if question else [
        sys.executable, "-m", "kpbackup", "--config", str(directory / "kpbackup.yaml"), "status", "--json",
    ]
    seconds, cpu, peak_kib, asked = [], [], 0, 0
    for _ in range(rounds):
        started = time.monotonic()
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
            output = child.stdout.read() if child.stdout else ""
            _, code, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(code)
        seconds.append(time.monotonic() - started)
        cpu.append(usage.ru_utime + usage.ru_stime)
        peak_kib = max(peak_kib, usage.ru_maxrss)
        answer = json.loads(output)
        asked = answer.get("requests", 0)
        if question is None and answer["segments"] < 1440:
            raise RuntimeError(f"status sees {answer['segments']} segments")
    limit = limit if question else STATUS_LIMIT_S
    medians = {"median_s": sorted(seconds)[len(seconds) // 2], "median_cpu_s": sorted(cpu)[len(cpu) // 2]}
    return {
        "seconds": [round(one, 2) for one in seconds], "limit_s": limit,
        **{name: round(value, 2) for name, value in medians.items()}, "peak_mib": round(peak_kib / 1024), "requests": asked,
        "met": medians[judged] < limit and peak_kib / 1024 < LIMIT_MIB,
    }


def ask(directory: str, kind: str, text: str) -> int:
    """One plan, in a process of its own; prints what it took."""
    from tests.conformance.test_scale import Counting

    public = sign.PublicKey.parse((Path(directory) / "public").read_text())
    opened = binding.open_repository(open_backend((Path(directory) / "r").as_uri()), public_keys=(public,))
    store = Counting(opened)
    repository = binding.Repository(store, opened.binding, opened.public_keys)
    target = {
        "time": lambda: timeline.Target(time=datetime.fromisoformat(text)), "gtid": lambda: timeline.Target(gtid=text),
        "latest": lambda: timeline.Target(latest=True),
    }[kind]()
    plan = choosing.plan_restore(repository, target)
    print(json.dumps({
        "requests": store.asked["get"] + store.asked["list"], "segments": len(plan.segments),
        "peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }))
    return 0


def prune(directory: str, days: int, now: datetime) -> int:
    """Two prunes, a grace period apart, as one: what the first releases the second deletes. Prints how many objects went."""
    key = sign.SigningKey.parse((Path(directory) / "key").read_text(), None)
    opened = binding.open_repository(
        open_backend((Path(directory) / "r").as_uri()), public_keys=(key.public_key,), signing_key=key
    )
    done = []
    for later in (timedelta(), timedelta(days=2)):
        policy = retention.Policy(days=days + later.days)
        repository = dataclasses.replace(opened, verified={}, stretches={})
        found = catalog.read_catalog(repository)
        done.append(pruning.execute(
            repository, found, retention.plan_prune(found, policy, now + later), policy, now + later
        ))
    deleted = sum(one.deleted for one in done)
    if not done[0].segments or deleted < done[0].segments:
        raise RuntimeError(f"prune released {done[0].segments} segments and deleted {deleted} objects")
    print(json.dumps({"requests": deleted, "segments": done[0].segments}))
    return 0


def table(found: dict[str, Any]) -> str:
    lines = [
        f"Made at {found['made_at']}: {found['segments']:,} segments of a minute each, {found['sets']} sets, in a directory; each"
        f" question asked by a new process, start-up included. Load of the machine before: {found['load_1min']}; judged by"
        f" {'processor' if found['judged'] == 'median_cpu_s' else 'wall'} time.",
        "",
        "| question | median s | all runs, s | limit s | CPU s | peak MiB | requests | |", "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in found["results"].items():
        runs = " ".join(f"{second:.2f}" for second in one["seconds"])
        met = ("by CPU: " if found["judged"] == "median_cpu_s" else "") + ("met" if one["met"] else "**missed**")
        asked = one["requests"] or "-"
        figures = f"{one['median_s']:.2f} | {runs} | {one['limit_s']:g} | {one['median_cpu_s']:.2f} | {one['peak_mib']} | {asked}"
        lines.append(f"| {name} | {figures} | {met} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["prune"]:
        sys.exit(prune(sys.argv[2], int(sys.argv[4]), datetime.fromisoformat(sys.argv[5])))
    sys.exit(ask(*sys.argv[2:5]) if sys.argv[1:2] == ["ask"] else main())
