"""`kpbackup recoveries [RUN]`: the runs of the repository, or the journal of one."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kpbackup import errors
from kpbackup.cli import context, render
from kpbackup.service import opening

if TYPE_CHECKING:
    from kpbackup.recovery.journal import Entry
    from kpbackup.repository.binding import Repository


def recoveries(
    ctx: typer.Context,
    run: Annotated[str | None, typer.Argument(help="One run, to see its journal.")] = None,
    json: context.JsonOption = False,
) -> None:
    """List the recoveries of this repository, or show the journal of one."""
    from kpbackup.recovery import journal

    room = context.of(ctx, json=json)
    repository = opening.reading_repository(room.settings)
    if run is not None:
        entries = journal.open_journal(repository, run).entries
        document = [{"at": e.at, "event": e.event, "signed": e.signed, "fields": e.fields} for e in entries]
        rows = [
            (e.at, e.event, "yes" if e.signed else "no", " ".join(f"{k}={v}" for k, v in e.fields.items() if v)) for e in entries
        ]
        room.printer.show({"run": run, "entries": document}, render.Table(("at", "event", "signed", "details"), rows))
        return
    summary = [_summary(repository, name) for name in journal.list_runs(repository)]
    columns = ("run", "kind", "target", "into", "state", "recovered")
    shown = [[*(one[name] for name in columns), _took(one["measured_rto_seconds"]), one["signed"]] for one in summary]
    table = render.Table((*columns, "measured RTO", "signed"), shown, frozenset({"measured RTO"}), empty="no recovery yet")
    room.printer.show({"recoveries": summary}, table)


def _took(seconds: float | None) -> timedelta | None:
    return timedelta(seconds=seconds) if seconds is not None else None


def _summary(repository: Repository, run: str) -> dict[str, Any]:
    """One line of the list. A journal that cannot be read is a line too: it must not hide the others."""
    from kpbackup.recovery import journal

    nothing = ("target", "into", "recovered", "recovered_to", "measured_rto_seconds", "essential_rto_seconds", "signed", "kind")
    empty = dict.fromkeys(nothing)
    try:
        one = journal.open_journal(repository, run)
    except (errors.IntegrityError, errors.KeyProblem) as exc:
        return {"run": run, **empty, "state": f"unreadable: {exc.message}"}
    planned, finished, essential = one.entries[0], one.last("finished"), one.last("essential_ready")
    return {
        "run": run,
        "kind": planned.fields.get("kind", "restore"),
        "target": planned.fields.get("target"),
        "into": planned.fields.get("into"),
        "state": _state(one.entries[-1]),
        "recovered": finished.fields["recovered"] if finished else None,
        "recovered_to": planned.fields.get("recovered_to"),
        "measured_rto_seconds": float(finished.fields["measured_rto_s"]) if finished else None,
        "essential_rto_seconds": float(essential.fields["essential_rto_s"]) if essential else None,
        "signed": all(entry.signed for entry in one.entries),
    }


def _state(newest: Entry) -> str:
    """What the newest entry says; of a drill that ended, how."""
    return newest.fields["result"] if newest.event == "drilled" else newest.event
