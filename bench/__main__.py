"""`python -m bench`: runs, prints the tables, exits 1 when a goal is missed, 2 when there is no result, 130 when interrupted."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine, memory, rounds, stage, tables, variants, verdicts
from bench.measure import BenchFailed
from bench.rounds import Results

ONLY = ("backup", "backup_s3", "restore", "memory")
LEAST_ROUNDS = 5  # of what is kept as evidence
EXIT_GOAL_MISSED, EXIT_FAILED, EXIT_INTERRUPTED = 1, 2, 130


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="kpbackup beside mariadb-dump and mydumper, in one run")
    parser.add_argument("--size", choices=("tiny", "small", "medium"), default="medium", help="of the data (default: medium)")
    parser.add_argument("--rows-mb", type=int, metavar="N", help="about so many megabytes of data instead of a named size")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each variant (default: 5)")
    parser.add_argument("--only", choices=ONLY, help="one part alone")
    parser.add_argument("--without", action="append", default=[], metavar="NAME", help="leave a variant out; repeat for more")
    parser.add_argument("--write", action="store_true", help="keep a whole run: docs/evidence/bench.json, docs/benchmarks.md")
    parser.add_argument("--json", metavar="FILE", help="write the document to FILE as well")
    arguments = parser.parse_args(argv)
    known = {variant.name for variant in (*variants.BACKUPS, *variants.UPLOADS, *variants.RESTORES)} - {"kpbackup"}
    if arguments.rounds < 1:
        parser.error("--rounds takes 1 or more")
    if unknown := set(arguments.without) - known:
        parser.error(f"--without {sorted(unknown)[0]}: the variants are {', '.join(sorted(known))}")
    return arguments


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _measure(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    wanted = {arguments.only} if arguments.only else set(ONLY)
    chosen = {
        "backup": variants.installed(variants.BACKUPS, arguments.without),
        "backup_s3": variants.installed(variants.UPLOADS, arguments.without),
        "restore": variants.installed(variants.RESTORES, arguments.without),
    }
    document = _head(arguments)
    with stage.open_stage(directory) as opened:
        began = time.monotonic()
        opened.load(stage.chosen_size(arguments.size, arguments.rows_mb))
        opened.new_repository(stage.FILES)
        opened.new_repository(stage.STORE)
        sizes = opened.tables(opened.source)
        document["data"] = {
            "tables": len(sizes),
            "rows": sum(rows for rows, _ in sizes.values()),
            "table_bytes": sum(size for _, size in sizes.values()),
        }
        document["versions"] = machine.versions(server=opened.source.version, store=opened.store.version)
        _say(f"data    {document['data']['table_bytes'] / 1e6:.0f} MB in {time.monotonic() - began:.0f} s")
        found = {direction: Results() for direction in chosen}
        for direction in ("backup", "backup_s3"):
            if direction in wanted:
                found[direction] = rounds.backups(opened, chosen[direction], arguments.rounds, _say, what=direction)
        if "restore" in wanted:
            found["restore"] = rounds.restores(opened, chosen["restore"], arguments.rounds, _say)
        for direction, results in found.items():
            document[direction] = _section(chosen[direction], results)
        if "memory" in wanted:
            document["memory"] = memory.measure(opened, found["backup_s3"], _say)
    document["goals"] = verdicts.goals(document)
    return document


def _head(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "made_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        **machine.commit(),
        "seed": stage.SEED,
        "size": f"about {arguments.rows_mb} MB" if arguments.rows_mb else arguments.size,
        "rounds": arguments.rounds,
        "machine": machine.facts(),
        "server_options": list(stage.SERVER_OPTIONS),
    }


def _section(chosen: Sequence[variants.Variant], results: Results) -> dict[str, Any]:
    return verdicts.section(
        [
            (v.name, v.label, v.goal, [_rounded(asdict(made)) for made in results.runs[v.name]], results.notes.get(v.name, []))
            for v in chosen
            if v.name in results.runs
        ]
    )


def _rounded(run: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 3) for name, value in run.items()}


def _keep(document: dict[str, Any], arguments: argparse.Namespace) -> None:
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    if arguments.json:
        Path(arguments.json).write_text(text, encoding="utf-8")
    share = verdicts.other_share(document)
    if arguments.write and not _is_evidence(arguments):
        _say("docs/evidence/bench.json is left as it is: evidence is a whole run at size medium"
             f" with {LEAST_ROUNDS} rounds or more")
    elif arguments.write and share > verdicts.BUSY_SHARE:
        _say(f"docs/evidence/bench.json is left as it is: other programs took {share:.0%} of the machine; run it on a quiet one")
    elif arguments.write:
        tables.EVIDENCE.parent.mkdir(parents=True, exist_ok=True)
        tables.EVIDENCE.write_text(text, encoding="utf-8")
        tables.PAGE.write_text(tables.renewed(tables.PAGE.read_text(encoding="utf-8"), document), encoding="utf-8")


def _is_evidence(arguments: argparse.Namespace) -> bool:
    return (
        arguments.size == "medium" and arguments.rows_mb is None and arguments.rounds >= LEAST_ROUNDS
        and arguments.only is None and not arguments.without
    )


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    directory = Path(tempfile.mkdtemp(prefix="kpbench-"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # servers and the directory go away then, too
    try:
        document = _measure(arguments, directory)
    except BenchFailed as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    _keep(document, arguments)
    print("\n".join(tables.figures(document)))
    return 0 if all(goal["met"] for goal in document["goals"]) else EXIT_GOAL_MISSED


if __name__ == "__main__":
    sys.exit(main())
