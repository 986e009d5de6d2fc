"""`python -m soak [NAME ...]`: runs the files of this folder one after the other, each for SECONDS, and keeps what they found.

A file `soak/NAME.py` has `run(*, seconds: float, seed: int) -> dict`: a JSON document with a list `failures`, empty when all is
well. It is written to `docs/evidence/soak-NAME.json`; a part that failed leaves the file of its last good run alone.

Environment: SECONDS (default 300), SEED (default 1): the same seed chooses the same faults in the same order.

Exit code 0 when nothing failed, 1 when something did, 2 for a name that is no part.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE = ROOT / "docs" / "evidence"
NOT_PARTS = ("__init__", "__main__", "pages")


def parts() -> list[str]:
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in NOT_PARTS)


def evidence_of(name: str) -> Path:
    return EVIDENCE / f"soak-{name}.json"


def circumstances(seconds: float, seed: int) -> dict[str, Any]:
    made_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"made_at": made_at, **machine.commit(), "seconds": round(seconds), "seed": seed, "machine": machine.facts()}


def main(arguments: list[str]) -> int:
    seconds, seed = float(os.environ.get("SECONDS") or 300), int(os.environ.get("SEED") or 1)
    wanted = arguments or parts()
    if unknown := sorted(set(wanted) - set(parts())):
        print(f"soak: no part {', '.join(unknown)}; there are {', '.join(parts())}", file=sys.stderr)
        return 2
    is_good = True
    for name in wanted:
        print(f"soak: {name}, {seconds:.0f} s, seed {seed}", flush=True)
        facts = circumstances(seconds, seed)
        document = {**facts, **importlib.import_module(f"soak.{name}").run(seconds=seconds, seed=seed)}
        for failure in document["failures"]:
            print(f"soak: {name} FAILED: {failure}", file=sys.stderr)
        if document["failures"]:
            is_good = False
            continue
        evidence_of(name).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"soak: {name} ended well: {evidence_of(name).relative_to(ROOT)}", flush=True)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
