"""docs/fidelity.md, its table made of docs/evidence/fidelity.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"
EVIDENCE, PAGE = DOCS / "evidence" / "fidelity.json", DOCS / "fidelity.md"
BEGIN, END = "<!-- begin figures -->\n", "<!-- end figures -->"
_LISTED = 60


def tables(wrong: Mapping[str, Any]) -> int:
    """How many of the wrong objects are tables or sequences."""
    return sum(name.startswith(("table ", "sequence ")) for name in wrong)


def renewed(page: str, evidence: Mapping[str, Any]) -> str:
    """The page with the figures of the evidence.

    Raises:
        ValueError: the page has no markers.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} has no markers for its figures")
    return before + begin + figures(evidence) + end + after


def write(evidence: Mapping[str, Any]) -> None:
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), evidence), encoding="utf-8")


def figures(evidence: Mapping[str, Any]) -> str:
    """The text between the markers."""
    total = evidence["total"]
    lines = [
        "", f"Made at {evidence['made_at']} with {evidence['server']}.", "",
        "| scripts of | scripts | tables | other objects | wrong by kpbackup | wrong by `mariadb-dump \\| mariadb` |",
        "|---|---|---|---|---|---|",
        *(_row(f"`{suite}`", row) for suite, row in evidence["suites"].items()), _row("**all**", total), "",
        "Where kpbackup stopped, so that all of the batch is missing:", "",
    ]
    stopped = evidence["stopped"]
    lines += [f"- {_short(one)}" for one in stopped] or ["- nowhere"]
    lines += ["", "Wrong by kpbackup elsewhere:", ""]
    suites = tuple(f" ({one.partition(':')[0]}," for one in stopped)
    wrong = {key: what for key, what in evidence["wrong"]["kpbackup"].items() if not any(suite in key for suite in suites)}
    lines += [f"- {name}: {_short(found[0])}" for name, found in list(wrong.items())[:_LISTED]] or ["- nothing"]
    lines += [f"- {len(wrong) - _LISTED} more, in the evidence"] if len(wrong) > _LISTED else []
    return "\n".join([*lines, "", ""])


def _row(name: str, row: Mapping[str, int]) -> str:
    programs = ("kpbackup", "mariadb-dump")
    wrong = [f"{row.get(f'{who} tables', 0)} tables, {row.get(f'{who} others', 0)} others" for who in programs]
    return f"| {name} | " + " | ".join([*(f"{row.get(one, 0):,}" for one in ("scripts", "tables", "others")), *wrong]) + " |"


def _short(text: str) -> str:
    return " ".join(text.split())[:220].replace("|", "\\|").replace("`", "'")
