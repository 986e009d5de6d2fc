"""What the options of `kpbackup restore` mean: the PITR target and the selection."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kpbackup import errors
from kpbackup.cli import context
from kpbackup.model import times

if TYPE_CHECKING:
    from kpbackup.model.selection import Selection
    from kpbackup.plan.timeline import Target

To = Annotated[
    str | None, typer.Option("--to", help="A time (2024-05-01T10:00, with Z or offset, else in `timezone`), or `latest`.")
]
ToGtid = Annotated[str | None, typer.Option("--to-gtid", help="Up to and including this transaction.")]
BeforeGtid = Annotated[str | None, typer.Option("--before-gtid", help="Up to but not including this transaction.")]
ToPosition = Annotated[str | None, typer.Option("--to-position", help="Up to this place in the source's binlog, FILE:POSITION.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop; nothing is changed.")]
Overwrite = Annotated[
    list[str] | None, typer.Option("--overwrite", help="Database on the target that may be dropped; repeat for more.")
]
Resume = Annotated[str | None, typer.Option("--resume", help="Continue this run (see `kpbackup recoveries`).")]
ReplaceUsers = Annotated[
    bool, typer.Option("--replace-users", help="Replace accounts that exist on the target (never the restore's own).")
]
SkipGtid = Annotated[
    list[str] | None, typer.Option("--skip-gtid", help="Leave this transaction out of the replay; repeat for more.")
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", help="Restore only this DATABASE or DATABASE.TABLE, with * and ?; repeat for more."),
]
Exclude = Annotated[
    list[str] | None, typer.Option("--exclude", help="Leave this DATABASE or DATABASE.TABLE out, with * and ?; repeat for more.")
]
Rename = Annotated[
    list[str] | None, typer.Option("--rename", help="OLD=NEW: restore this database under another name; repeat for more.")
]
Into = Annotated[
    str | None,
    typer.Option("--into", help="With --only: bring these tables into this new database on a target that goes on serving."),
]
OnePhase = Annotated[
    bool, typer.Option("--one-phase", help="Restore everything at once, whatever recovery.tiers says.")
]
Confirm = Annotated[list[str] | None, typer.Option("--confirm", help="A manual step that a person has done; repeat for more.")]


def target(
    room: context.Context,
    to: str | None,
    to_gtid: str | None,
    before_gtid: str | None,
    to_position: str | None,
    resume: str | None,
) -> Target | None:
    """The PITR target from the options: exactly one, or none with --resume."""
    given = [value for value in (to, to_gtid, before_gtid, to_position) if value is not None]
    if resume is not None:
        if given:
            raise errors.UsageError(
                "--resume continues a run with the target it was planned for", hint="leave the --to options out"
            )
        return None
    if len(given) != 1:
        raise errors.UsageError(
            "restore needs exactly one target" if given else "restore needs a target",
            hint="one of --to TIME, --to latest, --to-gtid, --before-gtid, --to-position",
        )
    from kpbackup.plan.timeline import Target

    if to == "latest":
        return Target(latest=True)
    if to is not None:
        return Target(time=times.parse_moment(to, room.settings.zone, now=datetime.now(UTC)))
    if to_position is not None:
        return Target(position=_position(to_position))
    return Target(gtid=to_gtid, before_gtid=before_gtid)


def refuse_beside_resume(
    run: str, *, dry_run: bool, overwrite: Sequence[str], skip_gtids: Sequence[str], chooses: bool, one_phase: bool
) -> None:
    """Refuses what a resumed run would pass over in silence: it does what it was planned to do.

    Raises:
        UsageError: with the option.
    """
    if dry_run:
        raise errors.UsageError(
            "--resume carries a run on, and --dry-run changes nothing: together they mean nothing",
            hint=f"`kpbackup recoveries {run}` shows what it was planned to do and what is done; leave --dry-run out to go on",
        )
    if overwrite:
        raise errors.UsageError(
            "--resume continues a run with what it was planned to drop",
            hint="leave --overwrite out, or start a new restore with it",
        )
    if skip_gtids:
        raise errors.UsageError("--resume continues a run with what it was planned to leave out", hint="leave --skip-gtid out")
    if chooses:
        raise errors.UsageError("--resume continues a run with what it was planned to choose", hint="leave it out")
    if one_phase:
        raise errors.UsageError("--resume continues a run in the phases it was planned in", hint="leave --one-phase out")


def selection(only: Sequence[str] | None, exclude: Sequence[str] | None) -> Selection:
    """What is chosen."""
    from kpbackup.model import selection as selections

    for option, patterns in (("--only", only), ("--exclude", exclude)):
        for pattern in patterns or ():
            if wrong := selections.fault(pattern):
                raise errors.UsageError(f"{option} {pattern!r} names no database or table", hint=wrong)
    return selections.Selection(tuple(only or ()), tuple(exclude or ()))


def _position(text: str) -> Any:
    from kpbackup.model.coordinates import Coordinates

    file, _, position = text.rpartition(":")
    if not file or not position.isdecimal():
        raise errors.UsageError(
            f"{text!r} is not a place in a binlog", hint="write FILE:POSITION, for example binlog.000003:4711"
        )
    return Coordinates(file, int(position))


def rename(pairs: Sequence[str] | None) -> tuple[tuple[str, str], ...]:
    """(old, new) of each."""
    found = []
    for pair in pairs or ():
        old, equals, new = pair.partition("=")
        if not (old and equals and new):
            raise errors.UsageError(f"--rename {pair!r} does not say what becomes what", hint="write --rename OLD=NEW")
        found.append((old, new))
    if len({old for old, _ in found}) < len(found):
        raise errors.UsageError("--rename names a database twice", hint="give each one new name")
    return tuple(found)


def into(
    name: str | None, *, only: Sequence[str] | None, rename: Sequence[str] | None, replace_users: bool, resume: str | None
) -> str:
    """The shadow's name, '' without one."""
    if name is None:
        return ""
    if resume is not None:
        raise errors.UsageError("--resume continues a run with what it was planned to choose", hint="leave --into out")
    if not only:
        raise errors.UsageError(f"--into {name} needs to know which tables", hint="name them with --only DATABASE.TABLE")
    if rename or replace_users:
        what = "--rename" if rename else "--replace-users"
        raise errors.UsageError(f"{what} has no meaning with --into {name}", hint=f"leave {what} out")
    return name
