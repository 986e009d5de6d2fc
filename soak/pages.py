"""docs/reliability.md from docs/evidence: soak-faults.json, kills.json of `make test-kills`, fuzz.json of `tests.fuzzing`.

    python -m soak.pages            rewrites the parts between `<!-- begin NAME -->` and `<!-- end NAME -->`
    python -m soak.pages --check    changes nothing, exits 1 when the document is out of date

Outside the markers all is written by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import published

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE = ROOT / "docs" / "evidence" / "soak-faults.json"
FUZZING = EVIDENCE.with_name("fuzz.json")
KILLS = EVIDENCE.with_name("kills.json")
PAGE = ROOT / "docs" / "reliability.md"
_CIRCUMSTANCES = ("made_at", "commit", "uncommitted_changes", "seconds", "seed", "machine", "failures")


def figures(document: Mapping[str, Any]) -> Iterator[str]:
    """The lines of the generated part."""
    machine = document["machine"]
    changed = " with changes" if document["uncommitted_changes"] else ""
    yield (
        f"`make soak ROUNDS={document['rounds']} SEED={document['seed']} ARGS=faults`, {document['seconds'] / 60:.0f} minutes,"
        f" at {document['made_at']}, commit"
        f" `{document['commit'][:12]}`{changed}; {machine['cpu']}, {machine['cores']} cores,"
        f" load {machine['load_1min']} before."
    )
    yield ""
    yield "| | |"
    yield "|---|---|"
    for key, value in document.items():
        if key not in _CIRCUMSTANCES:
            yield f"| {key.replace('_', ' ')} | {_shown(value)} |"
    yield f"| failures | {len(document['failures'])} |"


def fuzzed(document: Mapping[str, Any]) -> Iterator[str]:
    """The table of the fuzzers."""
    yield (
        f"`make fuzz-inputs SEED={document['seed']}`, last at {document['made_at']}; {document['machine']['cpu']}. Each parser"
        " as it was in its commit."
    )
    yield ""
    yield "| parser | inputs | processor time | crashes and hangs | commit |"
    yield "|---|---:|---:|---:|---|"
    for name, one in document["parsers"].items():
        failed = int(bool(one["failure"]))
        yield f"| {name} | {one['inputs']:,} | {one['cpu_seconds']:,.0f} s | {failed} | `{one['commit'][:12]}` |"


def killed(document: Mapping[str, Any]) -> Iterator[str]:
    """The sentence about kills across the five steps."""
    changed = " with changes" if document["uncommitted_changes"] else ""
    where = ", ".join(f"*{step}* {times}" for step, times in document["killed_in"].items())
    runs = f"{document['recoveries']} recoveries, " if document["recoveries"] else ""
    yield (
        f"`make test-kills` at {document['made_at']}, commit `{document['commit'][:12]}`{changed}, seed {document['seed']},"
        f" {document['seconds'] / 60:.0f} minutes: {runs}{document['kills']} kills ({where}), no failure."
    )


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(one)}" for key, one in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def renewed(page: str, document: Mapping[str, Any]) -> str:
    """The page with its generated part replaced. Raises ValueError: it has no marks for it."""
    return published.renewed(page, "figures", "\n".join(figures(document)))


def main() -> int:
    page = PAGE.read_text(encoding="utf-8")
    new = renewed(page, json.loads(EVIDENCE.read_text(encoding="utf-8")))
    new = published.renewed(new, "fuzzing", "\n".join(fuzzed(json.loads(FUZZING.read_text(encoding="utf-8")))))
    new = published.renewed(new, "kills", "\n".join(killed(json.loads(KILLS.read_text(encoding="utf-8")))))
    return published.kept(PAGE, new, renew="python -m soak.pages")


if __name__ == "__main__":
    sys.exit(main())
