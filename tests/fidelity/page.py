"""docs/fidelity.md, its tables made of docs/evidence/fidelity.json and fidelity-mysql.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "fidelity.md"
_LISTED = 60


def evidence(name: str) -> Path:
    """The file of what was found with the scripts of `mariadb` or `mysql`."""
    return DOCS / "evidence" / ("fidelity.json" if name == "mariadb" else f"fidelity-{name}.json")


def tables(wrong: Mapping[str, Any]) -> int:
    """How many of the wrong objects are tables or sequences."""
    return sum(name.startswith(("table ", "sequence ")) for name in wrong)


def renewed(page: str, name: str, found: Mapping[str, Any]) -> str:
    """The page with the figures of the evidence of `name`.

    Raises:
        ValueError: the page has no markers.
    """
    before, begin, rest = page.partition(f"<!-- begin {name} -->\n")
    _, end, after = rest.partition(f"<!-- end {name} -->\n")
    if not begin or not end:
        raise ValueError(f"{PAGE.name} has no markers for the figures of {name}")
    return before + begin + figures(found) + end + after


def write(name: str) -> None:
    found = json.loads(evidence(name).read_text(encoding="utf-8"))
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), name, found), encoding="utf-8")


def figures(evidence: Mapping[str, Any]) -> str:
    """The text between the markers."""
    total, dump = evidence["total"], evidence.get("dump", "mariadb-dump")
    lines = [
        "", f"Made until {evidence['made_at']} with {evidence['server']}{_extent(evidence)}.", "",
        "| scripts of | scripts | tables | other objects | wrong by kpbackup | of these broken on the source |"
        f" of these named by the backup | wrong by `{dump} \\| {dump.removesuffix('dump').removesuffix('-')}` |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(f"`{suite}`", row, dump) for suite, row in evidence["suites"].items()), _row("**all**", total, dump), "",
        "Where kpbackup stopped, so that all of the batch is missing:", "",
    ]
    lines += [f"- {_short(one)}" for one in evidence["stopped"]] or ["- nowhere"]
    lines += ["", "Left out as the error's hint said, and counted as wrong with all that hangs on it:", ""]
    lines += [f"- {_short(one)}" for one in evidence["left_out"]] or ["- nothing"]
    lines += ["", "Not as it was, as warnings of the backup name (above):", ""]
    lines += [f"- {one}" for one in evidence["named"]] or ["- nothing"]
    lines += ["", "Wrong by kpbackup elsewhere:", ""]
    wrong = {key: what for key, what in evidence["wrong"]["kpbackup"].items() if not _is_explained(key, evidence)}
    lines += [f"- {name}: {_short(found[0])}" for name, found in list(wrong.items())[:_LISTED]] or ["- nothing"]
    lines += [f"- {len(wrong) - _LISTED} more, in the evidence"] if len(wrong) > _LISTED else []
    lines += ["", "Not judged, because the source or the judge failed:", ""] if evidence["unjudged"] else []
    lines += [f"- {_short(one)}" for one in evidence["unjudged"]]
    return "\n".join([*lines, "", ""])


def _is_explained(key: str, evidence: Mapping[str, Any]) -> bool:
    """Whether a wrong object, as `kind script: name (suite, batch n)`, is of a batch that stopped, left out, broken or
    named by a warning of the backup."""
    what, _, where = key.rpartition(" (")
    script, _, name = what.partition(" ")[2].partition(": ")
    suite = where.partition(", batch ")[0]
    out = (f"{suite}, {script}: {name}: ", f"{suite}, {script}: the whole database: ")
    stopped = any(one.startswith(where.rstrip(")") + ": ") for one in evidence["stopped"])
    told = key in evidence["broken"] or key in evidence["named"]
    return stopped or told or any(one.startswith(out) for one in evidence["left_out"])


def _extent(evidence: Mapping[str, Any]) -> str:
    left = evidence["scripts_left"]
    return f"; of {evidence['total']['scripts'] + left:,} scripts {left:,} were not run" if left else ""


def _row(name: str, row: Mapping[str, int], dump: str) -> str:
    programs = ("kpbackup", dump)
    ours, theirs = (f"{row.get(f'{who} tables', 0)} tables, {row.get(f'{who} others', 0)} others" for who in programs)
    told = (f"{row.get('broken', 0)} others", f"{row.get('named', 0)} tables")
    cells = [*(f"{row.get(one, 0):,}" for one in ("scripts", "tables", "others")), ours, *told, theirs]
    return f"| {name} | " + " | ".join(cells) + " |"


def _short(text: str) -> str:
    return " ".join(text.split())[:220].replace("|", "\\|").replace("`", "'")
