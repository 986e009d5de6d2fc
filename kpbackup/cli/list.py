"""`kpbackup list`: what is stored and what can be restored from it: windows with their gaps, sets, the archive."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Annotated

import typer

from kpbackup import errors, quantities
from kpbackup.cli import context, line_text, render
from kpbackup.model import times

if TYPE_CHECKING:
    from kpbackup.model.catalog import Catalog, History
    from kpbackup.model.manifest import BackupSet
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


@dataclass(frozen=True)
class _Shown:
    """What `list` shows, and what tells more of it."""

    state: State
    windows: tuple[Window, ...]
    sets: tuple[BackupSet, ...]
    proven: dict[str, str]
    pinned: frozenset[str]
    zone: tzinfo

    def moment(self, at: datetime) -> str:
        return times.format_moment(at.replace(microsecond=0), self.zone)


def _show(room: context.Context, state: State) -> None:
    from kpbackup.plan import timeline

    histories = state.catalog.histories
    shown = _Shown(
        state,
        tuple(timeline.windows(state.catalog)),
        tuple(one for history in histories for one in history.sets),
        {one.backup_set: one.run for one in state.recoveries},
        frozenset(one.name for history in histories for one in history.sets if one.head.seq in history.pinned),
        room.settings.zone,
    )
    events = [(one.clock, "set", one.name) for one in shown.sets]
    events += [(one.finished_at, "recovery", one.run) for one in state.recoveries]
    room.printer.show(
        _document(shown),
        "recoverable windows",
        *line_text.lines(shown.windows, events, shown.zone, now=state.read_at),
        _window_table(shown),
        "\nbackup sets",
        _set_table(shown),
        "\narchive",
        _archive_table(state.catalog),
    )
    if state.catalog.damaged:
        room.printer.say("", f"{len(state.catalog.damaged)} manifests are damaged and left out: run `kpbackup check`")


def _document(shown: _Shown) -> dict[str, object]:
    """The JSON document: docs/json.md."""
    catalog = shown.state.catalog
    return {
        "windows": [
            {"timeline": w.timeline, "start": w.start, "end": w.end, "sets": w.sets, "gap": _gap(w)} for w in shown.windows
        ],
        "sets": [_set_document(shown, one) for one in shown.sets],
        "archive": [_archive_document(one) for one in catalog.histories],
        "damaged": [{"key": d.key, "reason": d.reason} for d in catalog.damaged],
    }


def _set_document(shown: _Shown, one: BackupSet) -> dict[str, object]:
    return {
        "set": one.name,
        "timeline": one.head.timeline,
        "state": "proven" if one.name in shown.proven else "stored",
        "proven_by": shown.proven.get(one.name),
        "clock": one.clock,
        "created_at": one.head.created_at,
        "coordinates": str(one.coordinates),
        "gtid": one.coordinates.gtid,
        "databases": one.totals.databases,
        "tables": one.totals.tables,
        "rows": one.totals.rows,
        "row_bytes": one.totals.row_bytes,
        "stored_bytes": one.totals.stored_bytes,
        "snapshot": one.snapshot.rung,
        "writes_blocked_ms": one.snapshot.locked_ms,
        "warnings": one.warnings,
        "pinned": one.name in shown.pinned,
        "is_partial": one.is_partial,
    }


def _archive_document(history: History) -> dict[str, object]:
    return {
        "timeline": history.id,
        "reason": history.timeline.reason,
        "parent": history.timeline.parent,
        "segments": history.segment_count,
        "first": str(history.units[0].start) if history.units else None,
        "last": str(history.units[-1].end) if history.units else None,
        "transactions": sum(unit.transactions for unit in history.units),
        "stored_bytes": sum(unit.payload_bytes for unit in history.units),
    }


def _window_table(shown: _Shown) -> render.Table:
    rows = [(w.timeline, shown.moment(w.start), shown.moment(w.end), len(w.sets), _gap(w) or "") for w in shown.windows]
    return render.Table(("timeline", "from", "to", "sets", "then"), rows, empty="none: there is no set")


def _set_table(shown: _Shown) -> render.Table:
    rows = [
        (
            one.name,
            _state(one.name in shown.proven, one.name in shown.pinned, one.is_partial),
            shown.moment(one.clock),
            one.totals.rows,
            quantities.format_size(one.totals.stored_bytes),
            f"{one.snapshot.rung}, {one.snapshot.locked_ms} ms",
            one.warnings,
        )
        for one in shown.sets
    ]
    columns = ("set", "state", "of", "rows", "stored", "writes blocked", "warnings")
    return render.Table(columns, rows, right=frozenset({"stored"}))


def _archive_table(catalog: Catalog) -> render.Table:
    rows = [
        (
            one.id,
            one.timeline.reason,
            one.segment_count,
            one.units[0].start if one.units else None,
            one.units[-1].end if one.units else None,
            quantities.format_size(sum(unit.payload_bytes for unit in one.units)),
        )
        for one in catalog.histories
    ]
    return render.Table(("timeline", "started by", "segments", "from", "to", "stored"), rows, right=frozenset({"stored"}))


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
