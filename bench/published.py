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
    PAGE.write_text(renewed(PAGE.read_text(), name, table))


def renewed(page: str, name: str, body: str) -> str:
    """The page with what stands between the marks of `name` replaced.

    Raises:
        ValueError: it has no such marks.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    head, opened, rest = page.partition(begin)
    _, closed, tail = rest.partition(end)
    if not opened or not closed:
        raise ValueError(f"no marks {begin} ... {end}")
    return f"{head}{begin}\n\n{body.strip()}\n\n{end}{tail}"
