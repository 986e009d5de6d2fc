"""`kpbackup backup full` and `kpbackup backup incremental`: one job now, from this process."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from kpbackup import errors, quantities
from kpbackup.cli import context, render
from kpbackup.service import head_file, opening, progress

if TYPE_CHECKING:
    from kpbackup.model.manifest import FileSet
    from kpbackup.repository.binding import Repository


Only = Annotated[
    list[str] | None,
    typer.Option("--only", help="Back up only this DATABASE or DATABASE.TABLE, with * and ?; repeat for more (source.only)."),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", help="Leave this DATABASE or DATABASE.TABLE out, with * and ?; repeat for more (source.exclude)."),
]


def full(ctx: typer.Context, only: Only = None, exclude: Exclude = None, json: context.JsonOption = False) -> None:
    """Take a full backup: one consistent point, all objects and rows, read back from the store before it counts.

    A part of the source needs a repository of its own: one with sets of everything refuses it, and the other way round.
    """
    from kpbackup.backup.full import run_full

    room = context.of(ctx, json=json)
    room.override("source.only", only or None)
    room.override("source.exclude", exclude or None)
    repository = _writing(room)
    request = opening.full_request(room.settings, holder=holder())
    with progress.show("full backup", stream=sys.stderr, log_interval_s=room.settings.log.progress_interval_s) as report:
        made = run_full(repository, replace(request, progress=lambda done, total: report(done, total, "rows")))
    head_file.record(room.settings.need_repository().head_file, [made], now=datetime.now(UTC))
    totals = made.totals
    bundle = _application(room, repository, made.name)
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
        "is_partial": made.is_partial,
        "application": bundle,
    }
    room.printer.show(
        document,
        render.Fields(
            [
                ("set", made.name),
                ("restorable to", made.clock),
                ("coordinates", made.coordinates),
                ("gtid", made.coordinates.gtid or None),
                (
                    "holds",
                    f"{quantities.count(totals.databases, 'database')}, {quantities.count(totals.tables, 'table')}, "
                    f"{quantities.count(totals.rows, 'row')}"
                    f"{': a part of the source' if made.is_partial else ''}",
                ),
                ("stored", f"{quantities.format_size(totals.stored_bytes)} of {quantities.format_size(totals.row_bytes)} rows"),
                ("writes blocked", f"{made.snapshot.locked_ms} ms ({made.snapshot.rung})"),
                ("application", f"bundle {bundle}" if bundle else None),
                ("warnings", f"{made.warnings}: `kpbackup list --warnings {made.name}` shows them" if made.warnings else None),
            ]
        ),
    )


def application(ctx: typer.Context, json: context.JsonOption = False) -> None:
    """Keep the application beside the database now: Secrets, ConfigMaps, Helm's release, images; sealed like the data."""
    from kpbackup.backup.application import run_application

    room = context.of(ctx, json=json)
    repository = opening.writing_repository(room.settings)
    request = opening.application_request(room.settings)
    if request is None:
        raise errors.SettingsError(
            "application.namespace is not set, and this command needs it",
            hint="name the namespace and the Helm release of the application",
        )
    made = run_application(repository, request)
    assert made is not None
    room.printer.show(
        {
            "bundle": made.name, "taken_at": made.taken_at, "objects": made.objects, "stored_bytes": made.payload.bytes,
            "files": _files_document(made.files),
        },
        render.Fields(
            [
                ("bundle", made.name), ("taken at", made.taken_at), ("holds", f"{made.objects} objects"),
                ("stored", quantities.format_size(made.payload.bytes)), ("files", _files_text(made.files)),
            ]
        ),
    )


def _files_document(found: FileSet | None) -> dict[str, int] | None:
    """What a bundle holds of files outside the database."""
    if found is None:
        return None
    stored = sum(pack.bytes for pack in found.objects)
    return {"count": found.count, "bytes": found.bytes, "stored_bytes": stored, "warnings": found.warnings}


def _files_text(found: FileSet | None) -> str | None:
    if found is None:
        return None
    moved = f"; {found.warnings} moved while they were read, or are neither files nor links" if found.warnings else ""
    return f"{found.count}, {quantities.format_size(found.bytes)}{moved}"


def _application(room: context.Context, repository: Repository, backup_set: str) -> str | None:
    """The name of the application bundle that goes with a set; None where the settings name no application.

    Raises:
        KpbackupError: it could not be kept. The set is stored all the same, and the error says so.
    """
    request = opening.application_request(room.settings)
    if request is None:
        return None
    from kpbackup.backup.application import run_application

    try:
        made = run_application(repository, request)
    except errors.KpbackupError as exc:
        message = f"set {backup_set} is stored, but the application beside it could not be kept: {exc.message}"
        raise type(exc)(message, hint=exc.hint) from exc
    return made.name if made else None


def incremental(ctx: typer.Context, json: context.JsonOption = False) -> None:
    """Archive the binlog from where the archive ends to now. With nothing new, one observation moves the recovery point."""
    from kpbackup.backup.archiver import run_incremental

    room = context.of(ctx, json=json)
    repository = _writing(room)
    made = run_incremental(repository, opening.archive_request(room.settings, holder=holder()))
    head_file.record(room.settings.need_repository().head_file, made.segments, now=datetime.now(UTC))
    compacted = _upkeep(room, repository)
    transactions = sum(segment.transactions for segment in made.segments)
    document = {
        "segments": len(made.segments),
        "transactions": transactions,
        "raw_bytes": sum(s.raw_bytes for s in made.segments),
        "stored_bytes": sum(s.payload.bytes for s in made.segments),
        "recovery_point": made.observed.clock,
        "coordinates": str(made.observed.position),
        "gtid": made.observed.position.gtid,
        "compacted_segments": compacted,
    }
    room.printer.show(
        document,
        render.Fields(
            [
                ("segments", f"{len(made.segments)}, {transactions} transactions" if made.segments else "none: nothing new"),
                ("restorable to", made.observed.clock),
                ("coordinates", made.observed.position),
                ("gtid", made.observed.position.gtid or None),
                ("compacted", f"{compacted} earlier segments joined into larger objects" if compacted else None),
            ]
        ),
    )


def _upkeep(room: context.Context, repository: Repository) -> int:
    """Pages and compaction, where they are due; how many segments were joined.

    Raises:
        KpbackupError: it could not be done. The pass before it is stored all the same, and the error says so.
    """
    from kpbackup.repository import catalog as catalogs
    from kpbackup.service import upkeep

    timelines = upkeep.due(catalogs.read_catalog(repository), datetime.now(UTC), page_rows=repository.page_rows)
    if not timelines:
        return 0
    head_path = room.settings.need_repository().head_file
    try:
        return upkeep.run(repository, timelines, holder=holder(), head_path=head_path).segments
    except errors.LeaseHeld:
        return 0  # another process does it now
    except errors.KpbackupError as exc:
        message = f"the binlog is archived, but small segments could not be joined: {exc.message}"
        raise type(exc)(message, hint=exc.hint) from exc


def _writing(room: context.Context) -> Repository:
    """The repository to write to; a store that shows less than the head file knows is not written on top of."""
    from kpbackup.repository import catalog as catalogs

    repository = opening.writing_repository(room.settings)
    if (path := room.settings.need_repository().head_file) is not None:
        head_file.expect(path, repository, catalogs.read_catalog(repository))
    return repository


def holder() -> str:
    """The lease holder name of a one-shot command: never the same twice, so a crashed one is waited out, not taken over."""
    return f"{socket.gethostname()}/{os.getpid()}"
