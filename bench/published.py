"""Where long runs leave what they found: docs/evidence/<name>.json, and the table between two marks in docs/benchmarks.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"


def publish(name: str, found: dict[str, Any], table: str) -> None:
    """Replaces both. Raises ValueError when the page has no place for it."""
    (ROOT / "docs" / "evidence" / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    text = PAGE.read_text()
    if begin not in text or end not in text:
        raise ValueError(f"{PAGE} has no {begin} ... {end}")
    head, _, rest = text.partition(begin)
    PAGE.write_text(f"{head}{begin}\n\n{table}\n\n{end}{rest.partition(end)[2]}")
