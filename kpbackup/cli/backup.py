"""`kpbackup backup full` and `kpbackup backup incremental`: one job now, from this process."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from kpbackup import quantities
from kpbackup.cli import context, progress, render
from kpbackup.service import head_file, opening

if TYPE_CHECKING:
    from kpbackup.repository.binding import Repository


def full(ctx: typer.Context, json: context.JsonOption = False) -> None:
    """Take a full backup: one consistent point, all objects and rows, read back from the store before it counts."""
    from kpbackup.backup.full import run_full

    room = context.of(ctx, json=json)
    repository = _writing(room)
    request = opening.full_request(room.settings, holder=holder())
    with progress.show("full backup", stream=sys.stderr) as report:
        made = run_full(repository, replace(request, progress=lambda done, total: report(done, total, "rows")))
    head_file.record(room.settings.need_repository().head_file, [made], now=datetime.now(UTC))
    totals = made.totals
    document = {
        "set": made.name,
        "clock": made.clock,
        "coordinates": str(made.coordinates),
        "gtid": made.coordinates.gtid,
        "databases": totals.databases,
        "tables": totals.tables,
        "rows": totals.rows,
        "row_bytes": totals.row_bytes,
        "stored_bytes": totals.stored_bytes,
        "snapshot": made.snapshot.rung,
        "writes_blocked_ms": made.snapshot.locked_ms,
        "warnings": made.warnings,
    }
    room.printer.show(
        document,
        render.Fields(
            [
                ("set", made.name),
                ("restorable to", made.clock),
                ("coordinates", made.coordinates),
                ("gtid", made.coordinates.gtid or None),
                ("holds", f"{totals.databases} databases, {totals.tables} tables, {totals.rows} rows"),
                ("stored", f"{quantities.format_size(totals.stored_bytes)} of {quantities.format_size(totals.row_bytes)} rows"),
                ("writes blocked", f"{made.snapshot.locked_ms} ms ({made.snapshot.rung})"),
                ("warnings", f"{made.warnings}: `kpbackup list --warnings {made.name}` shows them" if made.warnings else None),
            ]
        ),
    )


def incremental(ctx: typer.Context, json: context.JsonOption = False) -> None:
    """Archive the binlog from where the archive ends to now. With nothing new, one observation moves the recovery point."""
    from kpbackup.backup.archiver import run_incremental

    room = context.of(ctx, json=json)
    repository = _writing(room)
    made = run_incremental(repository, opening.archive_request(room.settings, holder=holder()))
    head_file.record(room.settings.need_repository().head_file, made.segments, now=datetime.now(UTC))
    transactions = sum(segment.transactions for segment in made.segments)
    document = {
        "segments": len(made.segments),
        "transactions": transactions,
        "raw_bytes": sum(s.raw_bytes for s in made.segments),
        "stored_bytes": sum(s.payload.bytes for s in made.segments),
        "recovery_point": made.observed.clock,
        "coordinates": str(made.observed.position),
        "gtid": made.observed.position.gtid,
    }
    room.printer.show(
        document,
        render.Fields(
            [
                ("segments", f"{len(made.segments)}, {transactions} transactions" if made.segments else "none: nothing new"),
                ("restorable to", made.observed.clock),
                ("coordinates", made.observed.position),
                ("gtid", made.observed.position.gtid or None),
            ]
        ),
    )


def _writing(room: context.Context) -> Repository:
    """The repository to write to; a store that shows less than the head file knows is not written on top of."""
    from kpbackup.repository import catalog as catalogs

    repository = opening.writing_repository(room.settings)
    if (path := room.settings.need_repository().head_file) is not None:
        head_file.expect(path, catalogs.read_catalog(repository))
    return repository


def holder() -> str:
    """The lease holder name of a one-shot command: never the same twice, so a crashed one is waited out, not taken over."""
    return f"{socket.gethostname()}/{os.getpid()}"
