"""A repository worth looking at, and the program that shows it: for the pictures of the documents, and to measure the page.

Three weeks of signed manifests without data, a gap, a drill, a check. What is shown of it is the program's own.
"""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from kpbackup.model import manifest
from kpbackup.pipeline import sign
from kpbackup.repository import binding, layout, reports
from kpbackup.repository.binding import Repository
from kpbackup.storage import open_backend
from tests.archives import Growing

ROOT = Path(__file__).resolve().parents[1]
DAYS = 21
MB = 1_000_000


def stocked(directory: Path) -> Repository:
    """Three weeks: a set each night, a segment each quarter of an hour, a gap of an hour on the second night."""
    start = datetime.now(UTC) - timedelta(days=DAYS)
    made = binding.create_repository(
        open_backend(f"file://{directory}"), signing_key=sign.SigningKey.generate(), source="kubepolaris-db", flavour="mariadb",
        created_at=start,
    )

    def totals(seq: int) -> manifest.Totals:
        rows = 1600 * MB + 21 * MB * seq
        return manifest.Totals(2, 14, rows // 180, rows, rows // 9)

    growing = Growing(made, start, timedelta(minutes=15), payload_bytes=4000, totals=totals, took=timedelta(seconds=72))
    growing.back_up()
    growing.grow(DAYS * 96, sets_every=timedelta(days=1))
    lost = sorted((directory / "timelines/0001/segments").glob("*/*"))[170:174]
    for path in lost:
        path.unlink()
    _record(made, growing.sets)
    return made


def _record(made: Repository, newest: int) -> None:
    begun = datetime.now(UTC) - timedelta(days=2)
    run, at = f"{begun:%Y%m%dT%H%M%SZ}-4ce0ba", begun
    entries: list[tuple[float, str, dict[str, str]]] = []
    entries.append((0.0, "planned", {"kind": "drill", "target": f"{begun:%Y-%m-%d}T03:12:44Z", "set": f"0001-{newest - 2}"}))
    for step, took_s, more in (("prepare", 2.1, {}), ("database", 1284.0, {"rows": "9171234"}), ("verify", 24.3, {})):
        entries.append((0.2, "step_started", {"step": step}))
        entries.append((took_s, "step_finished", {"step": step, "driven": "none", **more}))
    entries.append((0.2, "finished", {"recovered": "no", "measured_rto_s": "1310.4"}))
    entries.append((0.1, "drilled", {"result": "passed", "measured_rto_s": "1310.4", "achieved_rpo_s": "3.1"}))
    for seq, (later_s, event, fields) in enumerate(entries, 1):
        at += timedelta(seconds=later_s)
        head = made.head("recovery", key=layout.recovery_entry(run, seq), created_at=at, seq=seq)
        made.create(manifest.RecoveryRecord(head=head, run=run, event=event, fields=fields))
    figures = {"manifests": 2200, "objects": 2085, "read_objects": 104, "read_bytes": 231 * MB, "opened": 0, "problems": 0}
    reports.leave(made, "check", started_at=datetime.now(UTC), passed=True, figures=figures)


def settings(directory: Path, made: Repository, port: int) -> Path:
    path = directory / "kpbackup.yaml"
    path.write_text(yaml.safe_dump({
        "repository": {"url": made.backend.name}, "signing": {"public_keys": [str(made.public_keys[0])]},
        "archive": {"continuous": True}, "objectives": {"rpo": "1h", "rto": "30m"}, "forecast": {"price_per_gb": 0.023},
        "service": {"listen": f"127.0.0.1:{port}"}, "log": {"level": "error"},
    }))  # fmt: skip
    return path


@contextmanager
def exporter(config: Path, port: int) -> Iterator[str]:
    """The address of a running `kpbackup exporter` that has read the repository."""
    running = subprocess.Popen([sys.executable, "-m", "kpbackup", "--config", str(config), "exporter"], cwd=ROOT)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/api/health/ready", timeout=5).close()  # noqa: S310 - our own process
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        running.terminate()
        running.wait(60)
