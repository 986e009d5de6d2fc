"""`kpbackup doctor`: is everything set up so that backups work, and how to mend what is not."""

from __future__ import annotations

from typing import Annotated

import typer

from kpbackup import errors
from kpbackup.cli import context, render

ORDER = ("error", "warning", "ok")


def doctor(
    ctx: typer.Context,
    as_attacker: Annotated[
        bool,
        typer.Option("--as-attacker", help="Try, with the credentials at hand, to decrypt, overwrite and delete; only probes."),
    ] = False,
    json: context.JsonOption = False,
) -> None:
    """Examine source, binlog settings, privileges, store, repository, keys and clock; say how to mend what is wrong.

    With --as-attacker, run where backups are made: what could somebody do who took over this machine? It tries to open the
    newest backup and to overwrite and delete probe objects of its own, and says what it could.

    Exits 29 when something must be mended; warnings alone exit 0.
    """
    room = context.of(ctx, json=json)
    from kpbackup.service import attacker
    from kpbackup.service.doctor import examine

    findings = attacker.attack(room.settings) if as_attacker else examine(room.settings)
    found = sorted(findings, key=lambda one: ORDER.index(one.finding.severity))
    wrong = [one for one in found if one.finding.severity == "error"]
    document = {
        "healthy": not wrong,
        "findings": [
            {
                "severity": one.finding.severity,
                "area": one.area,
                "what": one.finding.what,
                "why": one.finding.why,
                "mend": one.finding.mend,
            }
            for one in found
        ],
    }
    parts: list[render.Part] = []
    for one in found:
        parts.append(render.Judged(one.finding.severity, f"{one.area}: {one.finding.what}"))
        parts += [f"         {label}: {text}" for label, text in (("why", one.finding.why), ("mend", one.finding.mend)) if text]
    room.printer.show(document, *parts)
    if wrong:
        raise errors.DoctorFailed(
            f"{len(wrong)} of {len(found)} findings must be mended: {'; '.join(one.finding.what for one in wrong)}",
            hint=wrong[0].finding.mend or "see the findings above",
        )
