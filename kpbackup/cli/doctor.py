"""`kpbackup doctor`: is everything set up so that backups work, and how to mend what is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kpbackup import errors
from kpbackup.cli import context, render

if TYPE_CHECKING:
    from kpbackup.service.doctor import Examined

ORDER = ("error", "warning", "unknown", "ok")


def doctor(
    ctx: typer.Context,
    as_attacker: Annotated[
        bool,
        typer.Option("--as-attacker", help="Try, with the credentials at hand, to decrypt, overwrite and delete; only probes."),
    ] = False,
    checklist: Annotated[
        bool,
        typer.Option("--checklist", help="Walk the high-availability list of the application in its cluster instead."),
    ] = False,
    json: context.JsonOption = False,
) -> None:
    """Examine source, binlog settings, privileges, store, repository, keys and clock; say how to mend what is wrong.

    With --as-attacker, run where backups are made: what could somebody do who took over this machine? It tries to open the
    newest backup and to overwrite and delete probe objects of its own, and says what it could.

    With --checklist it walks the list for highly available deployments instead: replicas, anti-affinity, database, load balancer,
    TLS, probes, disruption budgets, backup policy and alerts, of the release that `application` in the settings names. What could
    not be seen, for want of rights for example, is said to be unknown. Nothing is changed.

    Exits 29 when something must be mended; warnings and unknowns alone exit 0.
    """
    room = context.of(ctx, json=json)
    if as_attacker and checklist:
        raise errors.UsageError("--as-attacker and --checklist are two examinations", hint="run one after the other")
    found = sorted(_findings(room, as_attacker, checklist), key=lambda one: ORDER.index(one.finding.severity))
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


def _findings(room: context.Context, as_attacker: bool, checklist: bool) -> list[Examined]:
    from kpbackup.service import attacker
    from kpbackup.service import checklist as checklists
    from kpbackup.service.doctor import examine

    if as_attacker:
        return attacker.attack(room.settings)
    return checklists.walk(room.settings) if checklist else examine(room.settings)
