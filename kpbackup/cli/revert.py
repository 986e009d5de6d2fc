"""`kpbackup restore revert --resume RUN`: what step 5 replaced is put back."""

from __future__ import annotations

import sys

import typer

from kpbackup import errors
from kpbackup.cli import asked, context, render


def revert(ctx: typer.Context, resume: asked.Resume = None, json: context.JsonOption = False) -> None:
    """Take a finished switch back: the Service or Ingress is made what it was before step 5 of the run, byte for byte.

    Refused when somebody changed it since, with the places. Annotations and TLS were never touched and are not now. The public
    address is asked afterwards: what is wrong with it is a warning, because the application before may be what was lost. A
    second time changes nothing. `kpbackup restore switch --resume RUN` switches again.
    """
    from kpbackup.cli.restore import recovery_request
    from kpbackup.plan.timeline import Target
    from kpbackup.recovery import journal as journals
    from kpbackup.recovery import reverting

    if resume is None:
        raise errors.UsageError(
            "a switch is taken back for the run that made it", hint="give --resume RUN; `kpbackup recoveries` lists the runs"
        )
    room = context.of(ctx, json=json)
    warnings: list[str] = []
    request = recovery_request(room, Target(latest=True), (), False, None, warnings)
    done = reverting.revert(journals.open_journal(request.repository, resume), request)
    if done.public_problem:
        warnings.append(f"the public address does not answer as the profile says: {done.public_problem}")
        print(f"warning: {warnings[-1]}", file=sys.stderr)
    document = {
        "run": done.run, "kind": done.kind, "name": done.name, "changed": done.changed,
        "public_address": "wrong" if done.public_problem else "right", "warnings": warnings,
    }
    fields = [
        ("recovery", done.run),
        (done.kind, f"{done.name}: {'put back' if done.changed else 'was as before the switch already'}"),
        ("public address", "does not answer rightly, see above" if done.public_problem else "answers"),
    ]
    room.printer.show(document, render.Fields(fields))
