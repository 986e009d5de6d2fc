"""`python -m bench.replay`: 100,000 small transactions brought back by kpbackup's two paths and by the servers' own programs.

Interleaved runs, each into a fresh server that holds the tables as they were before; what came is compared by CHECKSUM with
the source after the clock has stopped. kpbackup reads binlog files as `mysqlbinlog` does, so that reading and opening a
repository is on neither side. Wall time and processor time of client and server.

On a quiet machine the goals are judged by wall time; where other programs take part of it, by processor time, which they do not
change much. MySQL's own programs take minutes a run, so they run once unless `--slow-rounds` says more.

Prints the table; `--write` keeps it as docs/evidence/replay.json and in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine, transactions
from bench.measure import Used
from bench.published import evidence, publish
from bench.verdicts import BUSY_SHARE
from kpbackup.model.coordinates import Coordinates
from kpbackup.mysql import binlog_file, coordinates, direct, facts, grouping, gtid_state, load, replay
from kpbackup.mysql.events import StreamEvent
from kpbackup.mysql.log_flushing import Flushing
from tests.servers import mariadb, mysql97
from tests.servers.database import Server

PROGRAMS = {"mariadb": "`mariadb-binlog \\| mariadb`", "mysql": "`mysqlbinlog \\| mysql`"}

SLOW = ("mysql", "programs")

# goals: how many times faster than the flavour's own programs
GOALS = {
    ("mariadb", "direct, grouped"): 6.0, ("mariadb", "served"): 6.0, ("mariadb", "served, grouped"): 6.0,
    ("mariadb", "direct, GTIDs kept"): 3.5, ("mariadb", "direct, GTIDs kept, relaxed"): 3.5,
    ("mariadb", "served, relaxed"): 6.0,
    ("mysql", "direct, GTIDs kept"): 4.5, ("mysql", "served"): 4.5,
}


@dataclass(frozen=True)
class Source:
    """Binlog files of the transactions alone, where they begin, and what the tables hold after them."""

    flavour: str
    start: Coordinates
    files: tuple[Path, ...]
    checksums: list[tuple[Any, ...]]

    def read_from(self, file: str, position: int) -> Iterator[StreamEvent]:
        for path in self.files:
            if path.name >= file:
                with open(path, "rb") as stream:
                    yield from binlog_file.read_file(
                        iter(lambda: stream.read(1 << 20), b""), file=path.name, start_position=4, prefix_bytes=0
                    )


def _server(flavour: str, directory: Path, server_id: int) -> AbstractContextManager[Server]:
    make = mariadb.mariadb_server if flavour == "mariadb" else mysql97.mysql97_server
    return make(directory, server_id=server_id)


def _checksums(server: Server) -> list[tuple[Any, ...]]:
    with server.connect() as connection:
        return [connection.row(f"CHECKSUM TABLE {transactions.SCHEMA}.log{n}") or () for n in range(transactions.TABLES)]


def _make(flavour: str, directory: Path, count: int) -> Source:
    with _server(flavour, directory / f"{flavour}-source", 81) as source:
        transactions.create(source)
        source.execute("FLUSH BINARY LOGS")
        with source.connect() as connection:
            start = coordinates.read_coordinates(connection, facts.read_facts(connection))
        transactions.commit(source, count)
        checksums = _checksums(source)
        with source.connect() as connection:
            end = coordinates.read_coordinates(connection, facts.read_facts(connection))
        source.execute("FLUSH BINARY LOGS")
    files = sorted(path for path in source.paths.data.glob("binlog.0*") if start.file <= path.name <= end.file)
    return Source(flavour, start, tuple(files), checksums)


def _by_programs(source: Source, target: Server) -> None:
    name, client = ("mariadb-binlog", "mariadb") if source.flavour == "mariadb" else ("mysqlbinlog", "mysql")
    program = mariadb.find if source.flavour == "mariadb" else mysql97.program
    login = [f"--socket={target.paths.socket}", "--user=root"]
    reading = [program(name), f"--start-position={source.start.position}", *map(str, source.files)]
    with subprocess.Popen(reading, stdout=subprocess.PIPE) as reader:
        subprocess.run([program(client), "--no-defaults", "--binary-mode", *login], stdin=reader.stdout, check=True)
    if reader.returncode:
        raise RuntimeError(f"{name} ended with {reader.returncode}")


def _direct(keeps_gtids: bool, *, joined: bool = False) -> Callable[[Source, Server], None]:
    def run(source: Source, target: Server) -> None:
        with target.connect() as connection:
            found = facts.read_facts(connection)
            if not keeps_gtids:
                connection.execute(f"CREATE DATABASE {load.SCRATCH_SCHEMA}")
        with direct.opened(target.endpoint, found, direct.Manner(keeps_gtids)) as applier:
            applier.begin(source.start)
            read_from = grouping.Grouped(source.read_from) if joined else source.read_from
            applier.run(read_from(source.start.file, source.start.position))

    return run


def _relaxed(run: Callable[[Source, Server], None]) -> Callable[[Source, Server], None]:
    """The same with `recovery.replay.relaxed`, the flush at the end included."""

    def relaxed(source: Source, target: Server) -> None:
        with target.connect() as connection:
            before = Flushing.read(connection, facts.read_facts(connection))
            before.relax(connection)
            run(source, target)
            before.settle(connection)

    return relaxed


def _served(grouped: bool) -> Callable[[Source, Server], None]:
    def run(source: Source, target: Server) -> None:
        with target.connect() as connection:
            replay.replay(
                connection, facts.read_facts(connection), read_from=source.read_from, start=source.start, set_gtid_state=False,
                listening=replay.Listening(tls=True), grouped=grouped,
            )

    return run


VARIANTS: dict[str, Callable[[Source, Server], None]] = {
    "programs": _by_programs, "direct, grouped": _direct(False), "direct, GTIDs kept": _direct(True),
    "served": _served(False), "direct, GTIDs joined": _direct(True, joined=True), "served, grouped": _served(True),
    "direct, GTIDs kept, relaxed": _relaxed(_direct(True)), "served, relaxed": _relaxed(_served(False)),
}
ONLY = {"served, grouped": "mariadb", "direct, GTIDs joined": "mariadb"}  # variants that one flavour alone has


def _run(source: Source, name: str, directory: Path) -> dict[str, Any]:
    with _server(source.flavour, directory, 82) as target:
        transactions.create(target)
        with target.connect() as connection:
            gtid_state.set_state(connection, facts.read_facts(connection), source.start.gtid)
        pid = target.pid
        before, began = Used.now(pid), time.monotonic()
        VARIANTS[name](source, target)
        wall, used = time.monotonic() - began, Used.now(pid).since(before)
        if _checksums(target) != source.checksums:
            raise SystemExit(f"{source.flavour}: {name} brought back something else")
    return {
        "wall_s": round(wall, 2), "client_cpu_s": round(used.programs_s + used.bench_s, 2),
        "server_cpu_s": round(used.server_s, 2), "other_share": round(used.other_share(wall), 3),
    }


def measure(flavours: tuple[str, ...], count: int, rounds: int, slow_rounds: int) -> dict[str, Any]:
    document: dict[str, Any] = {
        "made_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), **machine.commit(), "machine": machine.facts(),
        "transactions": count, "rounds": rounds, "runs": {},
    }
    with tempfile.TemporaryDirectory(prefix="kpb-replay-") as top:
        for flavour in flavours:
            source = _make(flavour, Path(top), count)
            variants = [name for name in VARIANTS if ONLY.get(name, flavour) == flavour]
            runs: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
            for number in range(rounds):
                names, shift = variants, number % len(variants)
                for place, name in enumerate(names[shift:] + names[:shift]):
                    if (flavour, name) == SLOW and number >= slow_rounds:
                        continue
                    made = _run(source, name, Path(top) / f"{flavour}-{number}-{place}")
                    runs[name].append(made)
                    print(f"{flavour:<8} round {number + 1}  {name:<20} {made}", file=sys.stderr, flush=True)
            document["runs"][flavour] = runs
    return document


def with_others(document: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """With what was kept of a server that was not measured this time, and when that was."""
    others = {flavour: runs for flavour, runs in before["runs"].items() if flavour not in document["runs"]}
    made = before.get("made_before", {})
    told = {flavour: made.get(flavour, {"made_at": before["made_at"], "commit": before["commit"]}) for flavour in others}
    return {**document, "runs": document["runs"] | others, "made_before": told}


def table(document: dict[str, Any]) -> str:
    """Medians, and how many times faster than the programs; CPU is client and server."""
    other = max(run["other_share"] for runs in document["runs"].values() for made in runs.values() for run in made)
    judged = "CPU" if other > BUSY_SHARE else "wall"
    lines = [
        f"{document['transactions']:,} transactions, interleaved runs, medians; every run's tables equal the source's by"
        f" CHECKSUM. Made {document['made_at']}, {document['machine']['cores']} cores; other programs took up to {other:.0%} of"
        f" the machine meanwhile, so the goals are judged by {judged} time.", "",
        "| server | replay | runs | wall s (lowest to highest) | CPU s: client, server | wall: times faster | CPU: times less"
        " | goal |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for flavour, runs in document["runs"].items():
        middle = {name: _medians(made) for name, made in runs.items()}
        for name, made in runs.items():
            walls, found = sorted(run["wall_s"] for run in made), middle[name]
            ratios = {key: middle["programs"][key] / found[key] for key in ("wall", "CPU")}
            goal = GOALS.get((flavour, name))
            label = PROGRAMS[flavour] if name == "programs" else name
            verdict = f"{goal:g}x: {'met' if ratios[judged] >= goal else '**missed**'}" if goal else ""
            lines.append(
                f"| {flavour} | {label} | {len(made)} | {found['wall']:.1f} ({walls[0]:.1f} to {walls[-1]:.1f})"
                f" | {found['client']:.1f}, {found['server']:.1f} | {ratios['wall']:.1f} | {ratios['CPU']:.1f} | {verdict} |"
            )
    for flavour, made in document.get("made_before", {}).items():
        lines += ["", f"Those of {flavour} are older: made {made['made_at']}, commit `{made['commit'][:12]}`."]
    return "\n".join(lines)


def _medians(made: list[dict[str, float]]) -> dict[str, float]:
    found = {key: statistics.median(run[f"{key}_cpu_s"] for run in made) for key in ("client", "server")}
    return {
        **found, "wall": statistics.median(run["wall_s"] for run in made),
        "CPU": statistics.median(run["client_cpu_s"] + run["server_cpu_s"] for run in made),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.replay", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=transactions.COUNT, help="transactions (default: 100000)")
    parser.add_argument("--only", choices=tuple(PROGRAMS), help="one server alone")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each variant (default: 3)")
    parser.add_argument("--slow-rounds", type=int, default=1, help="runs of `mysqlbinlog | mysql` (default: 1)")
    parser.add_argument("--write", action="store_true", help="keep the figures: docs/evidence/replay.json, docs/benchmarks.md")
    arguments = parser.parse_args()
    flavours = (arguments.only,) if arguments.only else tuple(PROGRAMS)
    document = measure(flavours, arguments.count, arguments.rounds, arguments.slow_rounds)
    if arguments.write:
        document = with_others(document, evidence("replay"))
        publish("replay", document, table(document))
    print(table(document))


if __name__ == "__main__":
    main()
