"""Medians, ratios and whether the goals are met: pure functions of the runs, so that a test can compute them again."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

DIRECTIONS = {"backup": "Backup to files", "backup_s3": "Backup to S3", "restore": "Restore"}
SERVER_CPU_GOAL = 1.1  # processor time of the source: times that of a plain prepared SELECT of the same rows
CLIENT_CPU_GOAL = 1.5  # our own: times that of the source
READ_BACK_GOAL = 1 / 3  # of the workers' time for loading and indexes
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


def section(variants: Sequence[tuple[str, str, float | None, Runs, Sequence[str]]]) -> dict[str, Any]:
    """One direction of the document: (name, label, goal, runs, notes) of each variant in table order."""
    medians = {name: summary(runs) for name, _, _, runs, _ in variants}
    found = ratios(medians)
    return {
        name: {
            "label": label, "goal": goal, "notes": list(notes), "runs": [dict(run) for run in runs],
            "median": medians[name], "ratio": found.get(name),
        }
        for name, label, goal, runs, notes in variants
    }


def goals(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each goal that this document can judge: what, found, limit, met."""
    return [*_speed_goals(document), *_cost_goals(document), *_memory_goals(document)]


def _speed_goals(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for direction, title in DIRECTIONS.items():
        for found in document.get(direction, {}).values():
            if found["goal"] is not None and found["ratio"] is not None:
                what = f"{title}: times as fast as {found['label']}"
                yield _goal(what, found=found["ratio"], limit=found["goal"], met=found["ratio"] >= found["goal"])


def _cost_goals(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What a backup asks of the source and of the machine, and what the proof of a load costs."""
    backup, restore = document.get("backup", {}), document.get("restore", {})
    if {"kpbackup", "scan"} <= set(backup):
        own, scan = backup["kpbackup"]["median"], backup["scan"]["median"]
        found = own["server_cpu_s"] / scan["server_cpu_s"]
        what = "Backup: the source's processor time, times that of a prepared SELECT of all rows"
        yield _goal(what, found=found, limit=SERVER_CPU_GOAL, met=found <= SERVER_CPU_GOAL)
        found = own["client_cpu_s"] / own["server_cpu_s"]
        what = "Backup: kpbackup's processor time, times the source's"
        yield _goal(what, found=found, limit=CLIENT_CPU_GOAL, met=found <= CLIENT_CPU_GOAL)
    if "read_back_share" in restore.get("kpbackup", {}).get("median", {}):
        found = restore["kpbackup"]["median"]["read_back_share"]
        what = "Restore: workers' time for reading back, as a share of that for loading and indexes"
        yield _goal(what, found=found, limit=READ_BACK_GOAL, met=found <= READ_BACK_GOAL)


def _memory_goals(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for direction in ("backup", "restore"):
        peaks = document.get("memory", {}).get(direction)
        if not peaks:
            continue
        once, twice = peaks["once"]["rss_bytes"], peaks["twice"]["rss_bytes"]
        highest, growth = max(once, twice) / 2**20, abs(twice - once) / once
        limit = MEMORY_GOAL_BYTES / 2**20
        what = f"{direction.capitalize()}: MiB of memory at most, all processes"
        yield _goal(what, found=highest, limit=limit, met=highest < limit)
        what = f"{direction.capitalize()}: change of memory with twice the data, as a share"
        yield _goal(what, found=growth, limit=GROWTH_GOAL, met=growth <= GROWTH_GOAL)


def other_share(document: Mapping[str, Any]) -> float:
    """The mean share of the machine that other programs took during the runs, 0 to 1, each run weighed by its length."""
    runs = [run for direction in DIRECTIONS for found in document.get(direction, {}).values() for run in found["runs"]]
    wall_s = sum(run["wall_s"] for run in runs)
    return sum(run["other_share"] * run["wall_s"] for run in runs) / wall_s if runs else 0.0


def _goal(what: str, *, found: float, limit: float, met: bool) -> dict[str, Any]:
    return {"what": what, "found": round(found, 3), "limit": limit, "met": met}
