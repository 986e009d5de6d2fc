"""`kpbackup list`: what is stored and what can be restored from it: windows with their gaps, sets, the archive."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from kpbackup import errors, quantities
from kpbackup.cli import context, line_text, render
from kpbackup.model import times

if TYPE_CHECKING:
    from kpbackup.model.catalog import Catalog
    from kpbackup.plan.timeline import Window
    from kpbackup.service.reading import State


def list_(
    ctx: typer.Context,
    json: context.JsonOption = False,
    warnings: Annotated[
        str | None, typer.Option("--warnings", metavar="SET", help="Show the warnings of this set; needs the identity.")
    ] = None,
) -> None:
    """List recoverable windows with their gaps, backup sets and the archive.

    A set is `stored` when it was read back from the store, `proven` when a finished recovery restored it.
    """
    from kpbackup.service import opening, reading

    room = context.of(ctx, json=json)
    repository = opening.reading_repository(room.settings)
    state = reading.Reader(repository).read()
    if warnings is not None:
        _show_warnings(room, state.catalog, warnings)
        return
    _show(room, state)


def _show(room: context.Context, state: State) -> None:
    from kpbackup.plan import timeline

    catalog, zone = state.catalog, room.settings.zone
    proven = {one.backup_set: one.run for one in state.recoveries}
    pinned = {s.name for history in catalog.histories for s in history.sets if s.head.seq in history.pinned}
    windows = timeline.windows(catalog)
    sets = [one for history in catalog.histories for one in history.sets]
    events = [(s.clock, "set", s.name) for s in sets] + [(one.finished_at, "recovery", one.run) for one in state.recoveries]
    document = {
        "windows": [{"timeline": w.timeline, "start": w.start, "end": w.end, "sets": w.sets, "gap": _gap(w)} for w in windows],
        "sets": [
            {
                "set": s.name,
                "timeline": s.head.timeline,
                "state": "proven" if s.name in proven else "stored",
                "proven_by": proven.get(s.name),
                "clock": s.clock,
                "created_at": s.head.created_at,
                "coordinates": str(s.coordinates),
                "gtid": s.coordinates.gtid,
                "databases": s.totals.databases,
                "tables": s.totals.tables,
                "rows": s.totals.rows,
                "row_bytes": s.totals.row_bytes,
                "stored_bytes": s.totals.stored_bytes,
                "snapshot": s.snapshot.rung,
                "writes_blocked_ms": s.snapshot.locked_ms,
                "warnings": s.warnings,
                "pinned": s.name in pinned,
                "is_partial": s.is_partial,
            }
            for s in sets
        ],
        "archive": [
            {
                "timeline": h.id,
                "reason": h.timeline.reason,
                "parent": h.timeline.parent,
                "segments": h.segment_count,
                "first": str(h.units[0].start) if h.units else None,
                "last": str(h.units[-1].end) if h.units else None,
                "transactions": sum(unit.transactions for unit in h.units),
                "stored_bytes": sum(unit.payload_bytes for unit in h.units),
            }
            for h in catalog.histories
        ],
        "damaged": [{"key": d.key, "reason": d.reason} for d in catalog.damaged],
    }

    def moment(at: datetime) -> str:
        return times.format_moment(at.replace(microsecond=0), zone)

    room.printer.show(
        document,
        "recoverable windows",
        *line_text.lines(windows, events, zone, now=state.read_at),
        render.Table(
            ("timeline", "from", "to", "sets", "then"),
            [(w.timeline, moment(w.start), moment(w.end), len(w.sets), _gap(w) or "") for w in windows],
            empty="none: there is no set",
        ),
        "\nbackup sets",
        render.Table(
            ("set", "state", "of", "rows", "stored", "writes blocked", "warnings"),
            [
                (
                    s.name,
                    _state(s.name in proven, s.name in pinned, s.is_partial),
                    moment(s.clock),
                    s.totals.rows,
                    quantities.format_size(s.totals.stored_bytes),
                    f"{s.snapshot.rung}, {s.snapshot.locked_ms} ms",
                    s.warnings,
                )
                for s in sets
            ],
            right=frozenset({"stored"}),
        ),
        "\narchive",
        render.Table(
            ("timeline", "started by", "segments", "from", "to", "stored"),
            [
                (
                    h.id,
                    h.timeline.reason,
                    h.segment_count,
                    h.units[0].start if h.units else None,
                    h.units[-1].end if h.units else None,
                    quantities.format_size(sum(unit.payload_bytes for unit in h.units)),
                )
                for h in catalog.histories
            ],
            right=frozenset({"stored"}),
        ),
    )
    if catalog.damaged:
        room.printer.say("", f"{len(catalog.damaged)} manifests are damaged and left out: run `kpbackup check`")


def _state(is_proven: bool, is_pinned: bool, is_partial: bool) -> str:
    parts = ["proven" if is_proven else "stored", *(["pinned"] if is_pinned else [])]
    return ", ".join([*parts, *(["a part of the source"] if is_partial else [])])


def _show_warnings(room: context.Context, catalog: Catalog, name: str) -> None:
    from kpbackup.recovery import loading
    from kpbackup.repository import keys
    from kpbackup.service import opening

    found = [s for history in catalog.histories for s in history.sets if s.name == name]
    if not found:
        raise errors.UsageError(
            f"there is no set {name!r} in this repository", hint="`kpbackup list` shows their names, such as 0001-3"
        )
    repository = opening.reading_repository(room.settings)
    data_key = keys.open_data_key(repository, found[0].sealing, opening.identities(room.settings))
    warnings = loading.read_inventory(repository, found[0], data_key).warnings
    room.printer.show({"set": name, "warnings": warnings}, *(warnings or ("no warnings",)))


def _gap(window: Window) -> str | None:
    return window.gap.reason if window.gap is not None else None
