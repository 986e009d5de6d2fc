"""Peak memory of kpbackup's process tree at the chosen size and at twice the data, backup and restore."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from bench import rounds, variants
from bench.measure import Run
from bench.rounds import Results, Say
from bench.stage import Stage

BACKUP, RESTORE = variants.UPLOADS[0], variants.RESTORE_FROM_S3  # S3 takes more memory than files


def measure(stage: Stage, backups: Results, say: Say) -> dict[str, Any]:
    """Peaks as {"backup": {"once": ..., "twice": ...}, "restore": ...}; backups that were measured are not repeated."""
    once = {"backup": backups.runs.get("kpbackup") or [rounds.back_up_once(stage, BACKUP)], "restore": [_restored(stage)]}
    say("memory  copying the big tables")
    copied = stage.double()
    twice = {"backup": [rounds.back_up_once(stage, BACKUP)], "restore": [_restored(stage)]}
    found: dict[str, Any] = {"copied_tables": copied}
    for what in ("backup", "restore"):
        found[what] = {"once": _peak(once[what]), "twice": _peak(twice[what])}
        say(
            f"memory  {what:<8} {found[what]['once']['rss_bytes'] / 2**20:6.0f} MiB,"
            f" at twice the data {found[what]['twice']['rss_bytes'] / 2**20:6.0f} MiB"
        )
    found["twice_runs"] = {what: [asdict(made) for made in runs] for what, runs in twice.items()}
    return found


def _restored(stage: Stage) -> Run:
    return rounds.restore_once(stage, RESTORE, stage.fingerprint(stage.source))[0]


def _peak(runs: list[Run]) -> dict[str, int]:
    """The highest of several runs: a limit holds always or not at all."""
    return {"rss_bytes": max(r.peak_rss_bytes for r in runs), "pss_bytes": max(r.peak_pss_bytes for r in runs)}
