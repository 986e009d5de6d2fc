"""Medians, ratios and whether the goals are met: pure functions of the runs, so that a test can compute them again."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

SPEED_GOAL = 1.5  # times as fast as the mariadb-dump pipeline (the variants with `is_goal`)
MEMORY_GOAL_BYTES = 300 << 20
GROWTH_GOAL = 0.20

BUSY_SHARE = 0.10  # of the machine used by others: more than that and the figures are no evidence

Runs = Sequence[Mapping[str, Any]]


def summary(runs: Runs) -> dict[str, float]:
    """The median of every figure of the runs; peaks are the highest."""
    found = {name: statistics.median(run[name] for run in runs) for name in runs[0] if not name.startswith("peak_")}
    return found | {name: max(run[name] for run in runs) for name in runs[0] if name.startswith("peak_")}


def ratios(medians: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """For each variant: its median wall time over kpbackup's. Above 1, kpbackup is faster."""
    if "kpbackup" not in medians:
        return {}
    own = medians["kpbackup"]["wall_s"]
    return {name: round(found["wall_s"] / own, 3) for name, found in medians.items()}


def section(variants: Sequence[tuple[str, str, bool, Runs, Sequence[str]]]) -> dict[str, Any]:
    """One direction of the document: (name, label, is_goal, runs, notes) of each variant in table order."""
    medians = {name: summary(runs) for name, _, _, runs, _ in variants}
    found = ratios(medians)
    return {
        name: {
            "label": label, "is_goal": is_goal, "notes": list(notes), "runs": [dict(run) for run in runs],
            "median": medians[name], "ratio": found.get(name),
        }
        for name, label, is_goal, runs, notes in variants
    }


def goals(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each goal that this document can judge: what, found, limit, met."""
    judged = []
    for direction in ("backup", "restore"):
        section = document.get(direction, {}).values()
        peers = [found["ratio"] for found in section if found["is_goal"] and found["ratio"] is not None]
        if peers:
            what = f"{direction}: times as fast as the mariadb-dump pipeline"
            judged.append(_goal(what, found=min(peers), limit=SPEED_GOAL, met=min(peers) >= SPEED_GOAL))
    for direction in ("backup", "restore"):
        peaks = document.get("memory", {}).get(direction)
        if not peaks:
            continue
        once, twice = peaks["once"]["rss_bytes"], peaks["twice"]["rss_bytes"]
        highest, growth = max(once, twice) / 2**20, abs(twice - once) / once
        limit = MEMORY_GOAL_BYTES / 2**20
        what = f"{direction}: MiB of memory at most, all processes"
        judged.append(_goal(what, found=highest, limit=limit, met=highest < limit))
        what = f"{direction}: change of memory with twice the data, as a share"
        judged.append(_goal(what, found=growth, limit=GROWTH_GOAL, met=growth <= GROWTH_GOAL))
    return judged


def other_share(document: Mapping[str, Any]) -> float:
    """The mean share of the machine that other programs took during the runs, 0 to 1, each run weighed by its length."""
    runs = [run for direction in ("backup", "restore") for found in document.get(direction, {}).values() for run in found["runs"]]
    wall_s = sum(run["wall_s"] for run in runs)
    return sum(run["other_share"] * run["wall_s"] for run in runs) / wall_s if runs else 0.0


def _goal(what: str, *, found: float, limit: float, met: bool) -> dict[str, Any]:
    return {"what": what, "found": round(found, 3), "limit": limit, "met": met}
