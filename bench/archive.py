"""`python -m bench.archive`: a day's binlog archived by `kpbackup backup incremental`, beside the server's own program.

Both take the same whole files from one MariaDB over TCP into a directory, in turns. `mariadb-binlog --raw` copies them as
they are; kpbackup checks every event, compresses, seals, hashes and signs, and its start and its safeguards are in its time.
What those take whatever the number of bytes is shown apart: a run with nothing new, right after each. It weighs the less the
more there is, so each of the sizes asked for has its own table.

Prints the table; `--write` keeps it as docs/evidence/archive.json and in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine, measure, transactions
from bench.measure import Programs, Run
from bench.published import publish
from tests.integration.scenario import Scene
from tests.servers import mariadb
from tests.servers.database import Server

PROGRAM, OURS = "`mariadb-binlog --read-from-remote-server --raw`", "`kpbackup backup incremental`"
COUNTS = (transactions.COUNT, 260_000)  # small transactions: about 0.5 and 1.2 GB of binlog
LARGE = 24  # transactions that copy a whole table: about as many bytes as the small ones write
GOAL_CORES, GOAL_MB_S = 0.5, 20  # at most so many cores for so many MB a second


def _write(source: Server, count: int) -> None:
    """Small transactions, and some large ones between them."""
    transactions.commit(source, count)
    source.execute(f"CREATE TABLE {transactions.SCHEMA}.copies LIKE {transactions.SCHEMA}.log0")
    columns = "user_id, method, path, module, body, status_code, duration, created_at"
    for number in range(LARGE):
        table = f"{transactions.SCHEMA}.log{number % transactions.TABLES}"
        source.execute(f"INSERT INTO {transactions.SCHEMA}.copies ({columns}) SELECT {columns} FROM {table}")


def _files(source: Server) -> list[tuple[str, int]]:
    """All binlog files and their sizes."""
    with source.connect() as connection:
        return [(str(row[0]), int(row[1])) for row in connection.rows("SHOW BINARY LOGS")]


def measured(counts: Sequence[int], rounds: int) -> dict[str, Any]:
    return {
        "made_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), **machine.commit(), "machine": machine.facts(),
        "rounds": rounds, "sizes": [_size(count, rounds) for count in counts],
    }


def _size(count: int, rounds: int) -> dict[str, Any]:
    """One size, on a server of its own."""
    found: dict[str, Any] = {"transactions": count, "runs": {PROGRAM: [], OURS: []}, "nothing_new": []}
    with (
        tempfile.TemporaryDirectory(prefix="kpb-archive-") as top,
        mariadb.mariadb_server(Path(top) / "source", server_id=81, options=("--max-binlog-size=128M",)) as source,
    ):
        scene = Scene(Path(top) / "scene", source=source)
        transactions.create(source)
        scene.ok("init", "--keys", str(scene.keys))
        source.execute("FLUSH BINARY LOGS")
        scene.ok("backup", "full")
        first = _files(source)[-1][0]
        _write(source, count)
        source.execute("FLUSH BINARY LOGS")
        found["server"], files = source.version, [one for one in _files(source) if one[0] >= first]
        found["binlog_bytes"] = sum(size for _, size in files)
        shutil.copytree(scene.repository, Path(top) / "before")
        for number in range(rounds):
            for name in (PROGRAM, OURS) if number % 2 == 0 else (OURS, PROGRAM):
                made = _run(name, source, scene, Path(top), [file for file, _ in files])
                found["runs"][name].append(_rounded(made))
                if name == OURS:
                    found["nothing_new"].append(_rounded(_measured(scene.argv("backup", "incremental"), source, Path(top))))
                print(f"{count:,}  round {number + 1}  {name:<50} {made.wall_s:.2f} s", file=sys.stderr, flush=True)
    return found


def _run(name: str, source: Server, scene: Scene, top: Path, files: list[str]) -> Run:
    """Into a directory that holds nothing of these files yet; what has come is compared in size."""
    if name == OURS:
        shutil.rmtree(scene.repository)
        shutil.copytree(top / "before", scene.repository)
        argv = scene.argv("backup", "incremental")
    else:
        shutil.rmtree(top / "raw", ignore_errors=True)
        (top / "raw").mkdir()
        argv = [
            mariadb.find("mariadb-binlog"), "--no-defaults", "--read-from-remote-server", "--raw", f"--host={source.host}",
            f"--port={source.port}", "--user=root", f"--result-file={top / 'raw'}/", *files,
        ]
    return _measured(argv, source, top)


def _measured(argv: list[str], source: Server, top: Path) -> Run:
    environ = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
    return measure.run(Programs([argv]), environ=environ, log=top / "log", server_pid=source.pid, store_pid=0)


def _rounded(made: Run) -> dict[str, float]:
    return {key: round(value, 3) for key, value in asdict(made).items()}


def table(document: dict[str, Any]) -> str:
    sizes = document["sizes"]
    other = max(run["other_share"] for size in sizes for runs in size["runs"].values() for run in runs)
    lines = [
        f"Small transactions, and {LARGE} large ones of about as many bytes; medians of {document['rounds']} runs each, in turns."
        f" Made {document['made_at']}, MariaDB {sizes[0]['server']}, {document['machine']['cores']} cores; other programs took up"
        f" to {other:.0%} of the machine meanwhile.",
    ]
    return "\n".join([*lines, *(line for size in sizes for line in _size_lines(size))])


def _size_lines(size: dict[str, Any]) -> list[str]:
    megabytes, middle = size["binlog_bytes"] / 1e6, dict[str, dict[str, float]]()
    lines = [
        "", f"{megabytes:,.0f} MB of binlog, {size['transactions']:,} small transactions:",
        "", "| | wall s (lowest to highest) | MB/s | CPU s, program | CPU s, server | cores at 20 MB/s |",
        "|---|---|---|---|---|---|",
    ]
    for name, runs in size["runs"].items():
        middle[name] = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        walls, found = sorted(run["wall_s"] for run in runs), middle[name]
        cores = found["client_cpu_s"] / megabytes * GOAL_MB_S
        lines.append(
            f"| {name} | {found['wall_s']:.2f} ({walls[0]:.2f} to {walls[-1]:.2f}) | {megabytes / found['wall_s']:.0f}"
            f" | {found['client_cpu_s']:.1f} | {found['server_cpu_s']:.1f} | {cores:.2f} |"
        )
    wall_s, cpu_s = (statistics.median(run[key] for run in size["nothing_new"]) for key in ("wall_s", "client_cpu_s"))
    ours = middle[OURS]
    faster, cores = middle[PROGRAM]["wall_s"] / ours["wall_s"], ours["client_cpu_s"] / megabytes * GOAL_MB_S
    return [
        *lines,
        f"| of that its start and safeguards: a run with nothing new | {wall_s:.2f} | without them"
        f" {megabytes / max(ours['wall_s'] - wall_s, 0.001):.0f} | {cpu_s:.1f} | | |",
        "", "| goal | found | |", "|---|---|---|",
        f"| at least as fast as the program | {faster:.2f}x | {'met' if faster >= 1 else '**missed**'} |",
        f"| under {GOAL_CORES} of a core at {GOAL_MB_S} MB/s | {cores:.2f} | {'met' if cores < GOAL_CORES else '**missed**'} |",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.archive", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--counts", type=int, nargs="+", default=COUNTS, metavar="N",
        help="small transactions, a size each (default: 100000 and 260000, about 0.5 and 1.2 GB)",
    )
    parser.add_argument("--rounds", type=int, default=5, help="runs of each (default: 5)")
    parser.add_argument("--write", action="store_true", help="keep the figures: docs/evidence/archive.json, docs/benchmarks.md")
    arguments = parser.parse_args()
    document = measured(arguments.counts, arguments.rounds)
    if arguments.write:
        publish("archive", document, table(document))
    print(table(document))


if __name__ == "__main__":
    main()
