"""`python -m bench.replay`: 100,000 small transactions brought back by kpbackup's two paths and by the servers' own programs.

Interleaved runs, each into a fresh server that holds the tables as they were before; what came is compared by CHECKSUM with
the source after the clock has stopped. kpbackup reads binlog files as `mysqlbinlog` does, so that reading and opening a
repository is on neither side. Wall time and processor time of client and server.

Prints the table; `--json FILE` keeps the runs.
"""

from __future__ import annotations

import argparse
import json
import resource
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
from bench.measure import cpu_s
from kpbackup.model.coordinates import Coordinates
from kpbackup.mysql import binlog_file, coordinates, direct, facts, gtid_state, load, replay
from kpbackup.mysql.events import StreamEvent
from tests.servers import mariadb, mysql97
from tests.servers.database import Server

PROGRAMS = {"mariadb": "`mariadb-binlog \\| mariadb`", "mysql": "`mysqlbinlog \\| mysql`"}

# goals: how many times faster than the flavour's own programs
GOALS = {
    ("mariadb", "direct, grouped"): 6.0, ("mariadb", "served"): 6.0, ("mariadb", "direct, GTIDs kept"): 3.5,
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


def _direct(keeps_gtids: bool) -> Callable[[Source, Server], None]:
    def run(source: Source, target: Server) -> None:
        with target.connect() as connection:
            found = facts.read_facts(connection)
            if not keeps_gtids:
                connection.execute(f"CREATE DATABASE {load.SCRATCH_SCHEMA}")
        with direct.opened(target.endpoint, found, direct.Manner(keeps_gtids)) as applier:
            applier.begin(source.start)
            applier.run(source.read_from(source.start.file, source.start.position))

    return run


def _served(source: Source, target: Server) -> None:
    with target.connect() as connection:
        replay.replay(
            connection, facts.read_facts(connection), read_from=source.read_from, start=source.start, set_gtid_state=False,
            listening=replay.Listening(tls=True),
        )


VARIANTS: dict[str, Callable[[Source, Server], None]] = {
    "programs": _by_programs, "direct, grouped": _direct(False), "direct, GTIDs kept": _direct(True), "served": _served,
}


def _own_cpu_s() -> float:
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in found)


def _run(source: Source, name: str, directory: Path) -> dict[str, Any]:
    with _server(source.flavour, directory, 82) as target:
        transactions.create(target)
        with target.connect() as connection:
            gtid_state.set_state(connection, facts.read_facts(connection), source.start.gtid)
        pid = target.pid
        server_before, own_before, began = cpu_s(pid), _own_cpu_s(), time.monotonic()
        VARIANTS[name](source, target)
        wall, server = time.monotonic() - began, cpu_s(pid) - server_before
        own = _own_cpu_s() - own_before
        if _checksums(target) != source.checksums:
            raise SystemExit(f"{source.flavour}: {name} brought back something else")
    return {"wall_s": round(wall, 2), "client_cpu_s": round(own, 2), "server_cpu_s": round(server, 2)}


def measure(count: int, rounds: int) -> dict[str, Any]:
    document: dict[str, Any] = {
        "made_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), **machine.commit(), "machine": machine.facts(),
        "transactions": count, "rounds": rounds, "runs": {},
    }
    with tempfile.TemporaryDirectory(prefix="kpb-replay-") as top:
        for flavour in ("mariadb", "mysql"):
            source = _make(flavour, Path(top), count)
            runs: dict[str, list[dict[str, Any]]] = {name: [] for name in VARIANTS}
            for number in range(rounds):
                names, shift = list(VARIANTS), number % len(VARIANTS)
                for place, name in enumerate(names[shift:] + names[:shift]):
                    made = _run(source, name, Path(top) / f"{flavour}-{number}-{place}")
                    runs[name].append(made)
                    print(f"{flavour:<8} round {number + 1}  {name:<20} {made}", file=sys.stderr, flush=True)
            document["runs"][flavour] = runs
    return document


def table(document: dict[str, Any]) -> str:
    """Medians, and how many times faster than the programs; CPU is client and server."""
    lines = [
        f"{document['transactions']:,} transactions, {document['rounds']} interleaved runs each, medians; every run's tables"
        f" equal the source's by CHECKSUM. Made {document['made_at']}, {document['machine']['cores']} cores, load"
        f" {document['machine']['load_1min']:.0f} when it began.", "",
        "| server | replay | wall s (lowest to highest) | CPU s client + server | times faster | CPU: times less | goal |",
        "|---|---|---|---|---|---|---|",
    ]
    for flavour, runs in document["runs"].items():
        middle = {name: statistics.median(run["wall_s"] for run in made) for name, made in runs.items()}
        cpu = {n: statistics.median(r["client_cpu_s"] + r["server_cpu_s"] for r in made) for n, made in runs.items()}
        for name, made in runs.items():
            walls = sorted(run["wall_s"] for run in made)
            ratio, goal = middle["programs"] / middle[name], GOALS.get((flavour, name))
            label = PROGRAMS[flavour] if name == "programs" else name
            verdict = f"{goal:g}x: {'met' if ratio >= goal else '**missed**'}" if goal else ""
            lines.append(
                f"| {flavour} | {label} | {middle[name]:.1f} ({walls[0]:.1f} to {walls[-1]:.1f}) | {cpu[name]:.1f}"
                f" | {ratio:.1f} | {cpu['programs'] / cpu[name]:.1f} | {verdict} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.replay", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=transactions.COUNT, help="transactions (default: 100000)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each variant (default: 3)")
    parser.add_argument("--json", metavar="FILE", help="write the runs to FILE as well")
    arguments = parser.parse_args()
    document = measure(arguments.count, arguments.rounds)
    print(table(document))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
