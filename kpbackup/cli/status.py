"""`kpbackup status`: how well the promises are kept now, as text and as an exit code for monitoring."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import typer

from kpbackup import errors, quantities
from kpbackup.cli import context, line_text, render
from kpbackup.model import times

if TYPE_CHECKING:
    from collections.abc import Callable

    from kpbackup.service.status import Reason, Status
    from kpbackup.service.trust import Check


def status(ctx: typer.Context, json: context.JsonOption = False) -> int:
    """Show recovery point, achieved RPO, last successes, chains and sizes, judged against the objectives.

    Exits 0 when everything is as promised, 1 with a warning, 2 when it is critical, 3 when the store cannot be asked.
    It reads the repository alone: the source may be gone.
    """
    from kpbackup.service import copies, opening, reading
    from kpbackup.service.status import Level, Reason

    room = context.of(ctx, json=json)
    settings = room.settings
    try:
        repository = opening.reading_repository(settings)
        state = reading.reader(settings, repository).read()
    except errors.StorageError as exc:
        unknown = Reason(Level.UNKNOWN, f"{exc.message}; {exc.hint}" if exc.hint else exc.message)
        room.printer.show({"level": "unknown", "reasons": [_reason(unknown)]}, f"unknown: {unknown.text}")
        return Level.UNKNOWN
    seen = copies.Reader(settings, repository).read() if not settings.copy_name else ()
    found = reading.assess(settings, state, now=datetime.now(UTC), copies=seen)
    _show(room, found)
    return found.level


def document(found: Status) -> dict[str, Any]:
    """The JSON document: docs/json.md."""
    newest, drill = found.newest_set, found.last_drill
    return {
        "level": found.level.name.lower(),
        "reasons": [_reason(one) for one in found.reasons],
        "at": found.at,
        "source": found.source,
        "recovery_point": found.recovery_point,
        "achieved_rpo_seconds": _seconds(found.achieved_rpo),
        "objective_rpo_seconds": _seconds(found.objectives.rpo),
        "objective_rto_seconds": _seconds(found.objectives.rto),
        "objective_check_seconds": _seconds(found.trust.limits.check),
        "objective_drill_seconds": _seconds(found.objectives.drill),
        "last_success": found.last_success,
        "next_run": found.next_runs,
        "chain_intact": found.chain_intact,
        "damaged_manifests": found.damaged,
        "gaps": [
            {
                "timeline": one.timeline,
                "after": str(one.gap.after),
                "before": str(one.gap.before) if one.gap.before else None,
                "reason": one.gap.reason,
            }
            for one in found.gaps
        ],
        "windows": [{"timeline": one.timeline, "start": one.start, "end": one.end, "sets": one.sets} for one in found.windows],
        "sets": len(found.sets),
        "is_partial": any(one.backup_set.is_partial for one in found.sets),
        "proven_sets": [one.backup_set.name for one in found.sets if one.proven_by],
        "segments": found.segments,
        "archive_bytes": found.archive_bytes,
        "total_bytes": found.total_bytes,
        "newest_set": {
            "set": newest.backup_set.name,
            "clock": newest.backup_set.clock,
            "stored_bytes": newest.stored_bytes,
            "row_bytes": newest.row_bytes,
            "duration_seconds": _seconds(newest.duration),
        }
        if newest
        else None,
        "measured_rto": {
            kind: {"run": one.run, "set": one.backup_set, "seconds": one.measured_rto_s, "finished_at": one.finished_at}
            for kind, one in found.measured_rto.items()
        },
        "copies": [
            {
                "copy": one.name,
                "recovery_point": one.recovery_point,
                "copied_at": one.copied_at,
                "max_age_seconds": _seconds(one.max_age),
                "problem": one.problem,
            }
            for one in found.trust.copies
        ],
        "last_check": _check(found.trust.last_check),
        "last_drill": {"run": drill.run, "ended_at": drill.ended_at, "passed": drill.passed} if drill else None,
    }


def _show(room: context.Context, found: Status) -> None:
    zone, newest = room.settings.zone, found.newest_set

    def moment(at: datetime | None) -> str:
        return times.format_moment(at.replace(microsecond=0), zone) if at is not None else "never"

    proven = [f"{one.backup_set.name} by recovery {one.proven_by}" for one in found.sets if one.proven_by]
    rto = [
        f"{quantities.format_duration(timedelta(seconds=one.measured_rto_s))} ({kind}, {one.run})"
        for kind, one in found.measured_rto.items()
    ]
    events = [(one.backup_set.clock, "set", one.backup_set.name) for one in found.sets]
    events += [(one.finished_at, "recovery", one.run) for one in found.measured_rto.values()]
    room.printer.show(
        document(found),
        render.Table(("level", "why"), [(one.level.name.lower(), one.text) for one in found.reasons], judged="level"),
        "",
        *line_text.lines(found.windows, events, zone, now=found.at),
        render.Fields(
            [
                ("level", found.level.name.lower()),
                ("source", found.source),
                ("recovery point", moment(found.recovery_point)),
                ("achieved RPO", found.achieved_rpo),
                ("measured RTO", ", ".join(rto) or "not measured yet"),
                ("last full", moment(found.last_success["full"])),
                ("last incremental", moment(found.last_success["incremental"])),
                ("last restore", moment(found.last_success["restore"])),
                ("last check", _told_check(found.trust.last_check, moment)),
                *((f"next {kind}", moment(at)) for kind, at in found.next_runs.items()),
                ("next incremental", "all the time" if found.continuous else None),
                ("chains", "intact" if found.chain_intact else "NOT intact: see above"),
                ("stored", _stored(found)),
                *((f"copy {one.name}", one.problem or moment(one.recovery_point)) for one in found.trust.copies),
                (
                    "holds",
                    "a part of the source (source.only, source.exclude): nothing here is true of the rest"
                    if any(one.backup_set.is_partial for one in found.sets)
                    else None,
                ),
                ("proven", ", ".join(proven[-3:]) or "no stored set was restored yet"),
                (
                    "newest set",
                    f"{newest.backup_set.name}: {quantities.format_size(newest.stored_bytes)} of "
                    f"{quantities.format_size(newest.row_bytes)} rows, took {quantities.format_duration(newest.duration)}"
                    if newest
                    else None,
                ),
            ]
        ),
    )


def _stored(found: Status) -> str:
    sets, segments = quantities.count(len(found.sets), "set"), quantities.count(found.segments, "segment")
    return f"{sets}, {segments}, {quantities.format_size(found.total_bytes)}"


def _check(check: Check | None) -> dict[str, Any] | None:
    return dataclasses.asdict(check) if check is not None else None


def _told_check(check: Check | None, moment: Callable[[datetime | None], str]) -> str:
    """When it was, what it found, how much it read."""
    if check is None:
        return "never: run `kpbackup check`"
    result = "nothing wrong" if check.passed else f"FAILED, {check.problems} problems"
    read = f"{check.read_objects} of {check.objects} objects read, {quantities.format_size(check.read_bytes)}"
    return f"{moment(check.ended_at)}: {result}, {read}" + ("" if check.signed else ", report not signed")


def _reason(reason: Reason) -> dict[str, str]:
    return {"level": reason.level.name.lower(), "text": reason.text}


def _seconds(duration: timedelta | None) -> float | None:
    return round(duration.total_seconds(), 3) if duration is not None else None
