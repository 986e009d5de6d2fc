"""One sample of each manifest of format 1, with fixed values: what the frozen files in tests/vectors/format were made from.

`python -m tests.vectors.format_samples DIRECTORY` writes them anew. They are frozen: a changed file means another format.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kpbackup.model import manifest as m
from kpbackup.model.coordinates import Coordinates
from kpbackup.pipeline.sign import SigningKey
from kpbackup.plan import chain
from kpbackup.repository import layout, objects

REPOSITORY = "0f6d4c1e-5a43-4f0e-9c7b-2f1d6a8e9b00"
TIMELINE = "0001"
T0 = datetime(2026, 4, 30, 23, 59, 59, 123456, tzinfo=UTC)
HASH = "ab" * 32
SEALING = m.Sealing("0123456789abcdef0123456789abcdef", "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z")
FILE = m.FileIdentity(11, T0 - timedelta(hours=1), "cd" * 32)
START = Coordinates("binlog.000007", 4711, "1-11-41")
END = Coordinates("binlog.000007", 9000, "1-11-45")


def signing_key() -> SigningKey:
    """A key for these vectors alone."""
    return SigningKey.parse((Path(__file__).parent / "format" / "signing.key").read_text())


def _head(kind: str, key: str, seq: int, timeline: str = TIMELINE) -> m.Head:
    return m.Head(kind=kind, repository=REPOSITORY, timeline=timeline, seq=seq, key=key, created_at=T0, writer="kpbackup 0.1.0")


def _log(log: str, seq: int) -> str:
    return layout.log_entry(TIMELINE, log, month_of=T0, seq=seq)


def samples() -> dict[str, Any]:
    """File name -> manifest value."""
    data = layout.attempt(TIMELINE, T0, "00c0ffee")
    link0 = chain.first_link(REPOSITORY, TIMELINE)
    link1 = chain.next_link(link0, seq=1, payload_sha256=HASH, start=START, end=END)
    observation = m.Observation(T0 + timedelta(seconds=5), END)
    return {
        "repository": m.RepositoryBinding(_head("repository", layout.BINDING, 0, ""), "db.example:3306", "mariadb"),
        "timeline": m.Timeline(_head("timeline", layout.timeline(TIMELINE), 0), "first", "mariadb", "10.11.19-MariaDB", ""),
        "set": m.BackupSet(
            _head("set", _log("sets", 1), 1), T0 - timedelta(minutes=2), T0 - timedelta(minutes=1), START, FILE,
            m.Source("mariadb", "10.11.19-MariaDB", 11), m.Snapshot("backup_stage", 12), SEALING,
            m.StoredObject(data + "inventory", 900, HASH), (m.StoredObject(data + "1-before-rows.sql", 500, HASH),),
            (m.StoredObject(layout.data_object(data, 0), 70_000, HASH),), m.Totals(1, 13, 25_000, 9_000_000, 71_400),
        ),
        "segment": m.BinlogSegment(
            _head("segment", _log("segments", 1), 1), START, END, FILE, "1-11-45", 4, T0, T0 + timedelta(seconds=2), 4289, 256,
            False, link0, link1, SEALING, m.Payload(1800, HASH), observation,
        ),
        "observation": m.ObservationManifest(_head("observation", _log("observations", 1), 1), observation, 1, link1),
        "anchor": m.Anchor(_head("anchor", _log("anchors", 1), 1), 2, link1),
        "tombstone": m.Tombstone(_head("tombstone", _log("tombstones", 1), 1), 1, (data + "inventory",), "released by retention"),
        "recovery": m.RecoveryRecord(
            _head("recovery", layout.recovery_entry("20260501T100000Z-abc123", 1), 1, ""), "20260501T100000Z-abc123", "planned",
            {"set": "0001-1", "target": "latest"},
        ),
        "report": m.Report(
            _head("report", layout.report("check", 1), 1, ""), "check", T0 - timedelta(minutes=1), True,
            {"manifests": 4, "objects": 9, "read_objects": 3, "read_bytes": 70_400, "opened": 0, "problems": 0},
        ),
    }


if __name__ == "__main__":
    for name, value in samples().items():
        (Path(sys.argv[1]) / name).write_bytes(objects.assemble(value, signing_key()))
