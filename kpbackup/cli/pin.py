"""`kpbackup pin` and `unpin`: a backup set is held against retention, or no longer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from kpbackup import errors
from kpbackup.cli import context
from kpbackup.cli.backup import holder

LONGEST_REASON = 500

SetArgument = Annotated[str, typer.Argument(metavar="SET", help="The set, as `kpbackup list` names it.")]


def pin(
    ctx: typer.Context,
    name: SetArgument,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; shown by `prune`. Not secret.")] = "",
    json: context.JsonOption = False,
) -> None:
    """Hold a backup set against retention: `prune` keeps it, whatever its age, until `kpbackup unpin`.

    It stays restorable to its own moment. Needs the signing key, and no prune running meanwhile.
    """
    if len(reason) > LONGEST_REASON:
        raise errors.UsageError(
            f"the reason has {len(reason)} characters, at most {LONGEST_REASON} are kept", hint="write it shorter"
        )
    _write(context.of(ctx, json=json), name, pinned=True, reason=reason)


def unpin(ctx: typer.Context, name: SetArgument, json: context.JsonOption = False) -> None:
    """Hold a backup set no longer: retention decides on it again."""
    _write(context.of(ctx, json=json), name, pinned=False, reason="")


def _write(room: context.Context, name: str, *, pinned: bool, reason: str) -> None:
    from kpbackup.repository import pins
    from kpbackup.service import opening

    repository = opening.writing_repository(room.settings)
    changed = pins.write(repository, name, pinned=pinned, reason=reason, holder=holder(), now=datetime.now(UTC))
    word = "pinned" if pinned else "not pinned"
    room.printer.show(
        {"set": name, "pinned": pinned, "changed": changed},
        f"set {name} is {word}" if changed else f"set {name} was {word} already: nothing was changed",
    )
