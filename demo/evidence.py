"""What a telling leaves: docs/evidence/demo-<size>.json, and the table made of it in docs/recovery.md.

    python -m demo.evidence           rewrites the part between `<!-- begin demo -->` and `<!-- end demo -->`
    python -m demo.evidence --check   changes nothing, exits 1 when the document is out of date

The figures of each step are read from the journal of the recovery, as any user can (`kpbackup recoveries RUN --json`); that users
were served is what somebody outside saw. Small sizes leave nothing: their seconds are kpbackup's start.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import published
from demo.rows import SEED

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE = ROOT / "docs" / "evidence" / "demo-medium.json"
PAGE = ROOT / "docs" / "recovery.md"
WITHOUT = ("tiny", "small")
STEPS = ("prepare", "database", "deploy", "verify", "switch")
WHOLE_GOAL_S, ESSENTIAL_GOAL_S = 300.0, 60.0


def times(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of a run's journal: the seconds of each step and of the second tier, and both moments of its RTO.

    Raises:
        KeyError: the run did not end, or had one phase.
    """
    events = {one["event"]: one["fields"] for one in entries}
    seconds = {one["fields"]["step"]: float(one["fields"]["seconds"]) for one in entries if one["event"] == "step_finished"}
    database = next(one["fields"] for one in entries if one["event"] == "step_finished" and one["fields"]["step"] == "database")
    return {
        "step_seconds": {step: seconds[step] for step in STEPS},
        "second_tier_seconds": float(events["second_finished"]["seconds"]),
        "essential_rto_s": float(events["finished"]["essential_rto_s"]),
        "rto_s": float(events["finished"]["measured_rto_s"]),
        "essential_rows": int(database["rows"]),
        "second_tier_rows": int(events["second_finished"]["rows"]),
        "transactions_replayed": int(database["transactions"]),
    }


def write(size: str, found: Mapping[str, Any], *, server: str, store: str) -> Path:
    """Leaves the figures of a telling; of size medium, on the page too."""
    from bench import machine  # it asks every program it knows for its version

    document = {
        "made_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), **machine.commit(), "size": size, "seed": SEED,
        "machine": machine.facts(), "versions": machine.versions(server=server, store=store), **found,
    }
    path = EVIDENCE.with_name(f"demo-{size}.json")
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if path == EVIDENCE:
        PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), document), encoding="utf-8")
    return path


def figures(document: Mapping[str, Any]) -> Iterator[str]:
    """The lines of the generated part."""
    machine, changed = document["machine"], " with changes" if document["uncommitted_changes"] else ""
    yield (
        f"`make demo SIZE={document['size']}` at {document['made_at']}, commit `{document['commit'][:12]}`{changed}:"
        f" {document['database_bytes'] / 1e9:.1f} GB and {document['transactions_replayed']:,} transactions"
        f" ({document['hour_of_writes']:,} are an hour's) into an empty cluster; MariaDB {document['versions']['mariadb']},"
        f" {machine['cpu']}, {machine['cores']} cores, load {machine['load_1min']} at its end."
    )
    yield ""
    yield "| | seconds | rows |"
    yield "|---|---:|---:|"
    for step, seconds in document["step_seconds"].items():
        rows = f"{document['essential_rows']:,}" if step == "database" else ""
        yield f"| step *{step}* | {seconds:.1f} | {rows} |"
    yield f"| second tier, behind the application | {document['second_tier_seconds']:.1f} | {document['second_tier_rows']:,} |"
    essential, whole = document["essential_rto_s"], document["rto_s"]
    met = _met(essential < ESSENTIAL_GOAL_S)
    yield f"| **essential tables back** (goal: {ESSENTIAL_GOAL_S:.0f}, {met}) | {essential:.1f} | |"
    yield f"| **a user is served by the public address** | {document['served_after_s']:.1f} | |"
    yield f"| **everything back and verified** (goal: {WHOLE_GOAL_S:.0f}, {_met(whole < WHOLE_GOAL_S)}) | {whole:.1f} | |"
    if not is_quiet(document):
        yield ""
        yield "Other programs took most of the machine meanwhile: these are upper bounds."


def _met(is_met: bool) -> str:
    return "met" if is_met else "missed"


def is_quiet(document: Mapping[str, Any]) -> bool:
    """Whether the machine was the demo's own, whose servers and clients keep about two programs running."""
    return bool(document["machine"]["load_1min"] < document["machine"]["cores"] + 2)


def renewed(page: str, document: Mapping[str, Any]) -> str:
    """The page with its generated part replaced. Raises ValueError: it has no marks for it."""
    return published.renewed(page, "demo", "\n".join(figures(document)))


def main() -> int:
    page, document = PAGE.read_text(encoding="utf-8"), json.loads(EVIDENCE.read_text(encoding="utf-8"))
    return published.kept(PAGE, renewed(page, document), renew="python -m demo.evidence")


if __name__ == "__main__":
    sys.exit(main())
