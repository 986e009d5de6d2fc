"""docs/benchmarks.md from docs/evidence/bench.json.

    python -m bench.tables            rewrites the part between `<!-- begin figures -->` and `<!-- end figures -->`
    python -m bench.tables --check    changes nothing, exits 1 when the document is out of date

Everything outside the markers is written by hand and kept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import published, verdicts

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE = ROOT / "docs" / "evidence" / "bench.json"
PAGE = ROOT / "docs" / "benchmarks.md"
_MB, _MIB = 1e6, 2**20


def figures(document: Mapping[str, Any]) -> Iterator[str]:
    """The lines of the generated part."""
    yield from _circumstances(document)
    for direction, title in verdicts.DIRECTIONS.items():
        if document.get(direction):
            yield from _direction(document[direction], title, is_backup=direction != "restore")
    if document.get("memory"):
        yield from _memory(document["memory"])
    yield from _goals(document["goals"])


def _circumstances(document: Mapping[str, Any]) -> Iterator[str]:
    machine, versions, data = document["machine"], document["versions"], document["data"]
    changed = " with changes" if document["uncommitted_changes"] else ""
    yield (
        f"Made at {document['made_at']} of commit `{document['commit'][:12]}`{changed}, {document['rounds']} rounds,"
        f" seed {document['seed']}, size {document['size']}."
    )
    yield ""
    yield (
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB memory, Linux"
        f" {machine['kernel']}, load {machine['load_1min']} before the run. Source, target, store and client share it;"
        f" other programs took {verdicts.other_share(document):.0%} of it meanwhile."
    )
    yield ""
    yield f"Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}."
    yield ""
    yield (
        f"Data: {data['tables']} tables, about {data['rows']:,} rows, {data['table_bytes'] / _MB:,.0f} MB with indexes."
        f" Server options: {', '.join(f'`{option}`' for option in document['server_options'])}."
    )
    yield ""


def _direction(section: Mapping[str, Any], title: str, *, is_backup: bool) -> Iterator[str]:
    yield f"### {title}"
    yield ""
    stored = is_backup
    more = " stored MB |" if stored else ""
    yield f"| | median s | all runs, s | kpbackup is | CPU s: client, server, store |{more} peak MiB |"
    yield f"|---|---|---|---|---|{'---|' if stored else ''}---|"
    for name, found in section.items():
        median = found["median"]
        runs = " ".join(f"{run['wall_s']:.1f}" for run in found["runs"])
        ratio = "-" if name == "kpbackup" or found["ratio"] is None else f"{found['ratio']:.2f}x as fast"
        cpu = f"{median['client_cpu_s']:.1f}, {median['server_cpu_s']:.1f}, {median['store_cpu_s']:.1f}"
        size = f" {median['output_bytes'] / _MB:,.1f} |" if stored else ""
        peak = f"{median['peak_rss_bytes'] / _MIB:.0f}"
        yield f"| {found['label']} | {median['wall_s']:.1f} | {runs} | {ratio} | {cpu} |{size} {peak} |"
    yield ""
    for found in section.values():
        for note in found["notes"]:
            yield f"{found['label']}: {note}."
            yield ""


def _memory(memory: Mapping[str, Any]) -> Iterator[str]:
    yield "### Memory of kpbackup"
    yield ""
    yield "Highest sum over all its processes, sampled every 50 ms. Twice the data: the big tables a second time."
    yield ""
    yield "| | RSS MiB | at twice the data | PSS MiB | at twice the data |"
    yield "|---|---|---|---|---|"
    for direction in ("backup", "restore"):
        peaks = memory[direction]
        cells = [f"{peaks[size][kind] / _MIB:.0f}" for kind in ("rss_bytes", "pss_bytes") for size in ("once", "twice")]
        yield f"| {direction} | {' | '.join(cells)} |"
    yield ""


def _goals(goals: list[Mapping[str, Any]]) -> Iterator[str]:
    yield "### Goals"
    yield ""
    yield "| goal | limit | found | |"
    yield "|---|---|---|---|"
    for goal in goals:
        yield f"| {goal['what']} | {goal['limit']:g} | {goal['found']:.2f} | {'met' if goal['met'] else '**missed**'} |"
    yield ""


def renewed(page: str, document: Mapping[str, Any]) -> str:
    """The page with its generated part replaced. Raises ValueError: it has no marks for it."""
    return published.renewed(page, "figures", "\n".join(figures(document)))


def main() -> int:
    page = PAGE.read_text(encoding="utf-8")
    new = renewed(page, json.loads(EVIDENCE.read_text(encoding="utf-8")))
    if new == page:
        return 0
    if "--check" in sys.argv[1:]:
        print("out of date: docs/benchmarks.md; run python -m bench.tables", file=sys.stderr)
        return 1
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
