"""`kpbackup copy`: brings the second copies of the repository up to date, each by itself."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kpbackup import errors, quantities
from kpbackup.cli import context, render
from kpbackup.cli.backup import holder
from kpbackup.service import progress

if TYPE_CHECKING:
    from kpbackup.config import Settings
    from kpbackup.repository.binding import Repository


def copy(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="This copy alone; else all in the settings.")] = None,
    json: context.JsonOption = False,
) -> None:
    """Carry what is new to the second copies (`copies` in the settings): sealed objects as they are, nothing opened or deleted.

    A copy is whole at every moment and goes on where it was interrupted. What does not verify at the origin is not copied
    and named; then the exit code is 17. Needs no identity and no signing key.
    """
    from kpbackup.service import opening

    room = context.of(ctx, json=json)
    settings = room.settings
    opening.refuse_copy(settings)
    names = [settings.need_copy(name).name] if name is not None else [one.name for one in settings.copies]
    if not names:
        raise errors.SettingsError("the settings name no copies", hint="add one to `copies`: a name and a url")
    origin = opening.reading_repository(settings)
    failed: list[errors.KpbackupError] = []
    rows = [_copy(settings, origin, one, failed) for one in names]
    room.printer.show(
        {"copies": rows},
        render.Table(
            ("copy", "manifests", "objects", "size", "result"),
            [_line(row) for row in rows],
            right=frozenset({"size"}),
        ),
        *(_problems(row) for row in rows if row["problems"]),
    )
    if failed:
        raise failed[0]


def _line(row: dict[str, Any]) -> tuple[object, ...]:
    size = quantities.format_size(row["bytes"])
    return row["copy"], row["manifests"], row["objects"], size, row["error"] or "up to date"


def _problems(row: dict[str, Any]) -> render.Table:
    return render.Table(("object", "problem"), [(one["key"], one["what"]) for one in row["problems"]])


def _copy(settings: Settings, origin: Repository, name: str, failed: list[errors.KpbackupError]) -> dict[str, Any]:
    """One copy's row; what stops it is added to `failed`, so that the others go on."""
    from kpbackup.service import copies

    row: dict[str, Any] = {"copy": name, "manifests": 0, "objects": 0, "bytes": 0, "problems": [], "error": ""}
    try:
        with progress.show(f"copy {name}", stream=sys.stderr) as report:
            done = copies.bring_up(settings, origin, name, holder=holder(), progress=report)
    except errors.KpbackupError as exc:
        failed.append(exc)
        return {**row, "error": exc.message}
    row.update(manifests=done.manifests, objects=done.objects, bytes=done.bytes)
    if done.problems:
        row["problems"] = [{"key": key, "what": what} for key, what in done.problems]
        row["error"] = f"{len(done.problems)} problems"
        key, what = done.problems[0]
        failed.append(
            errors.IntegrityError(
                f"{len(done.problems)} objects were not copied to {name}, the first is {key}: {what}",
                hint="run `kpbackup check --all` on the repository and on the copy (`kpbackup --copy NAME check --all`)",
            )
        )
    return row
