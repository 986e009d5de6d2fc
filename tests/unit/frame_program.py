"""The program with a few verbs of its own, so that the frame's endings can be provoked in a real process.

Run as `python -m tests.unit.frame_program ARGS`; the verbs join the table as the real ones do.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from kpbackup import errors
from kpbackup.cli import context, main, verbs
from kpbackup.cli.render import Table
from kpbackup.service import progress

HERE = "tests.unit.frame_program"


def broken(ctx: typer.Context) -> None:
    """Meets a defect."""
    raise RuntimeError("nobody foresaw this")


def refused(ctx: typer.Context, json: context.JsonOption = False) -> None:
    """Fails as a verb does."""
    context.of(ctx, json=json)
    raise errors.UnreachableTarget("cannot restore to 10:00\x1b[31m: gap", hint="nearest point is 09:58")


def answers_then_fails(ctx: typer.Context, json: context.JsonOption = False) -> None:
    """Prints its answer, then fails, as `check` does."""
    context.of(ctx, json=json).printer.show({"faults": 1}, "1 fault")
    raise errors.IntegrityError("object x is flipped")


def waits(ctx: typer.Context, mark: str) -> None:
    """Waits for a signal, and leaves a mark when it is unwound."""
    try:
        Path(mark).write_text("waiting", encoding="utf-8")
        time.sleep(60)
    finally:
        Path(mark).write_text("unwound", encoding="utf-8")


def shows(ctx: typer.Context, json: context.JsonOption = False) -> int:
    """Shows settings, and ends as a warning."""
    room = context.of(ctx, json=json)
    days = room.settings.retention.days
    room.printer.show({"days": days, "source": room.settings.need_source().label}, Table(("KEY", "VALUE"), [("days", days)]))
    return 1


def floods(ctx: typer.Context) -> None:
    """Prints without end."""
    room = context.of(ctx)
    while True:
        room.printer.show({}, "line " * 1000)


def breaks_a_pipe(ctx: typer.Context) -> None:
    """Meets a broken pipe that is not standard output."""
    reading, writing = os.pipe()
    os.close(reading)
    os.write(writing, b"x")


def works(ctx: typer.Context) -> None:
    """Reports progress."""
    context.of(ctx)
    with progress.show("work", stream=sys.stderr, log_interval_s=0) as report:
        report(1 << 20, 2 << 20, "bytes")
        report(2 << 20, 2 << 20, "bytes")


def five(ctx: typer.Context, to: Annotated[str | None, typer.Option("--to", help="When.")] = None) -> None:
    """All steps."""
    context.of(ctx).printer.show({}, f"all steps to {to}")


def step(ctx: typer.Context, to: Annotated[str | None, typer.Option("--to", help="When.")] = None) -> None:
    """One step."""
    context.of(ctx).printer.show({}, f"one step to {to}")


if __name__ == "__main__":
    for function in (broken, refused, waits, shows, floods, works):
        verbs.VERBS[function.__name__] = verbs.Verb(HERE, function.__name__, str(function.__doc__))
    verbs.VERBS["answers"] = verbs.Verb(HERE, "answers_then_fails", "Answers, then fails.")
    verbs.VERBS["pipe"] = verbs.Verb(HERE, "breaks_a_pipe", "Breaks a pipe.")
    verbs.VERBS["mend"] = verbs.Verb(HERE, "five", "All steps.")
    verbs.VERBS["mend step"] = verbs.Verb(HERE, "step", "One step.")
    verbs.VERBS["backup trial"] = verbs.Verb(HERE, "step", "In a group that is no verb itself.")
    verbs.VERBS["absent"] = verbs.Verb("tests.unit.no_such_module", "absent", "Its module is never imported by --help.")
    sys.exit(main.main())
