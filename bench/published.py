"""Where long runs leave what they found: docs/evidence/<name>.json, and the table between two marks in docs/benchmarks.md."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"


def evidence(name: str) -> dict[str, Any]:
    """What the newest run of that name left. Raises FileNotFoundError before the first."""
    found: dict[str, Any] = json.loads((ROOT / "docs" / "evidence" / f"{name}.json").read_text(encoding="utf-8"))
    return found


def publish(name: str, found: dict[str, Any], table: str) -> None:
    """Replaces both. Raises ValueError when the page has no place for it."""
    (ROOT / "docs" / "evidence" / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    PAGE.write_text(renewed(PAGE.read_text(), name, table))


def kept(page: Path, new: str, *, renew: str) -> int:
    """Writes the page that the evidence makes; with --check only says when it is another. `renew` is the command for it."""
    if new == page.read_text(encoding="utf-8"):
        return 0
    if "--check" in sys.argv[1:]:
        print(f"out of date: {page.relative_to(ROOT)}; run {renew}", file=sys.stderr)
        return 1
    page.write_text(new, encoding="utf-8")
    return 0


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
