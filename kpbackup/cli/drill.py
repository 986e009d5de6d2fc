"""`kpbackup drill`: restore a point of the window on a scratch server, verify it, clear the server, record the result."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from kpbackup import errors, quantities
from kpbackup.cli import context, render
from kpbackup.model import times
from kpbackup.service import progress

if TYPE_CHECKING:
    from kpbackup.mysql.server import Endpoint
    from kpbackup.plan.timeline import Target
    from kpbackup.recovery.drill import Drilled
    from kpbackup.recovery.steps import RecoveryRequest

To = Annotated[str | None, typer.Option("--to", help="This time, or `latest`, instead of a random point.")]


def drill(ctx: typer.Context, to: To = None, json: context.JsonOption = False) -> None:
    """Restore a random point of the recoverable window on a scratch server and verify it there.

    The server is recovery.target, which must be empty and is cleared afterwards; without one a server of the source's flavour is
    started for it, on this machine or, with drill.kubernetes, in a cluster, and removed. The application is started only with
    drill.application, there, and only after a probe saw that nothing gets out. Passed or failed, the drill is recorded:
    `kpbackup recoveries` lists it.
    """
    room = context.of(ctx, json=json)
    _report(room, *_carry_out(room, _request(room, _target(room, to))))


def failover(ctx: typer.Context, json: context.JsonOption = False) -> None:
    """Prove that the archive went on across the last change of primary, and restore a point just behind it.

    Everything is read from the bucket: which server wrote which part of the archive. A gap between two primaries fails the drill.
    When one server wrote all that is archived there is nothing to prove: that is said, nothing is recorded, and the exit code
    is 0.
    """
    from kpbackup.plan.timeline import Target
    from kpbackup.recovery import drill as drills
    from kpbackup.recovery import drill_failover

    room = context.of(ctx, json=json)
    asked = _request(room, Target(latest=True))
    found = drill_failover.find(asked.repository, asked.identities)
    if found is None:
        fields = render.Fields([("drill", "none: one server wrote everything that is archived")])
        room.printer.show({"run": None, "passed": None}, fields)
        return
    try:
        found.refuse_gap()
    except errors.KpbackupError as exc:
        drills.record_failure(asked, exc, found.figures)
        raise
    _report(room, *_carry_out(room, replace(asked, target=found.target), found.figures))


def scale(ctx: typer.Context, json: context.JsonOption = False) -> None:
    """Measure the RTO at 2 and 4 times the data, and tell when a straight line through it meets the objective.

    The newest point is restored onto a server started on this machine; the tables that grow by themselves are doubled there,
    twice, and each size is backed up to this machine's disk and restored onto a second server. Needs room for four times the
    data, three times over, in drill.directory.
    """
    from kpbackup.cli.backup import holder
    from kpbackup.plan.timeline import Target
    from kpbackup.recovery import drill as drills
    from kpbackup.recovery import scratch_programs
    from kpbackup.service import scale as scales

    room = context.of(ctx, json=json)
    wanted = room.settings.drill
    with progress.show("drill", stream=sys.stderr) as report:
        asked = replace(
            _request(room, Target(latest=True)), progress=lambda phase, done, total: report(done, total, phase)
        )
        programs = scratch_programs.find_programs(drills.source_of(asked), str(wanted.programs or ""))
        done, points = scales.carry_out(asked, programs, str(wanted.directory or ""), holder())
    line, objective = scales.fit(points), room.settings.objectives.rto
    limit = line.reaches(objective.total_seconds())
    document = {
        "run": done.run,
        "points": [
            {"factor": p.factor, "rows": p.rows, "row_bytes": p.row_bytes, "measured_rto_seconds": round(p.measured_rto_s, 3)}
            for p in points
        ],
        "line": {"base_seconds": round(line.base_s, 3), "seconds_per_gib": round(line.s_per_byte * 2**30, 3)},
        "objective_reached_at_bytes": round(limit) if limit is not None else None,
    }
    rows = [(f"{p.factor}x", p.rows, quantities.format_size(p.row_bytes), f"{p.measured_rto_s:.1f} s") for p in points]
    told = (
        f"a straight line: {line.base_s:.1f} s and {line.s_per_byte * 2**30:.1f} s for each GiB of rows;"
        + (f" it meets the objective of {objective} at about {quantities.format_size(round(limit))}" if limit is not None
           else f" it says nothing of when the objective of {objective} is met")
    )
    room.printer.show(document, render.Table(("data", "rows", "row bytes", "measured RTO"), rows), told)


def _carry_out(
    room: context.Context, asked: RecoveryRequest, figures: Mapping[str, str] | None = None
) -> tuple[Drilled, list[str]]:
    """The drill carried out, with its warnings."""
    from kpbackup.recovery import drill as drills
    from kpbackup.recovery import drill_application
    from kpbackup.recovery.steps import Driver, SqlCheck, Step
    from kpbackup.service import opening

    application = opening.drilled_application(room.settings)
    warnings: list[str] = []

    def warn(warning: str) -> None:
        warnings.append(warning)
        print(f"warning: {warning}", file=sys.stderr)

    with progress.show("drill", stream=sys.stderr) as report:
        asked = replace(
            asked, warn=warn, progress=lambda phase, done, total: report(done, total, phase),
            sql_checks=tuple(SqlCheck(check.query, str(check.expect)) for check in room.settings.recovery.verify.sql),
        )
        with ExitStack() as stack:
            try:
                if application is not None:
                    drill_application.judge_rights(application)
                asked = replace(asked, endpoint=stack.enter_context(_scratch(room, asked)))
                if application is not None:
                    started = stack.enter_context(drill_application.around(application))
                    asked = replace(asked, drilled=started, drivers={Step.DEPLOY: Driver("kubernetes")})
            except errors.KpbackupError as exc:  # a drill without a server is a failed one too
                drills.record_failure(asked, exc, figures or {})
                raise
            return drills.carry_out(asked, figures), warnings


def _target(room: context.Context, to: str | None) -> Target:
    from kpbackup.plan import timeline
    from kpbackup.recovery import drill as drills
    from kpbackup.repository import catalog
    from kpbackup.service import opening

    if to == "latest":
        return timeline.Target(latest=True)
    if to is not None:
        return timeline.Target(time=times.parse_moment(to, room.settings.zone, now=datetime.now(UTC)))
    found = timeline.windows(catalog.read_catalog(opening.reading_repository(room.settings)))
    return drills.choose_point(found, random.SystemRandom().random())


def _request(room: context.Context, target: Target) -> RecoveryRequest:
    from kpbackup.mysql.server import Endpoint
    from kpbackup.recovery.steps import Objectives, RecoveryRequest, Replaying
    from kpbackup.service import opening

    settings = room.settings
    given = settings.recovery.target if settings.drill.kubernetes is None else None
    return RecoveryRequest(
        repository=opening.reading_repository(settings),
        endpoint=opening.target_endpoint(settings) if given else Endpoint("127.0.0.1"),
        target=target,
        identities=opening.identities(settings),
        workers=given.max_connections if given else 4,
        verification=opening.drill_verification(settings),
        replaying=opening.replaying(settings) if given else Replaying("direct" if settings.drill.kubernetes else "auto"),
        objectives=Objectives(settings.objectives.rpo.total_seconds(), settings.objectives.rto.total_seconds()),
    )


@contextmanager
def _scratch(room: context.Context, request: RecoveryRequest) -> Iterator[Endpoint]:
    """The given server, else one that lives as long as the block."""
    from kpbackup.recovery import drill as drills
    from kpbackup.recovery import scratch, scratch_programs
    from kpbackup.service import opening

    wanted = room.settings.drill
    if wanted.kubernetes is not None:
        from kpbackup.recovery import scratch_cluster

        there, in_cluster = wanted.kubernetes, opening.drill_cluster(wanted.kubernetes)
        with scratch_cluster.started(in_cluster, drills.source_of(request), host=there.host, port=there.port) as endpoint:
            yield endpoint
        return
    if room.settings.recovery.target is not None:
        yield request.endpoint
        return
    programs = scratch_programs.find_programs(drills.source_of(request), str(wanted.programs or ""))
    with scratch.started(programs, directory=str(wanted.directory or "")) as endpoint:
        yield endpoint


def _report(room: context.Context, done: Drilled, warnings: list[str]) -> None:
    zone = room.settings.zone
    document = {
        "run": done.run,
        "passed": True,
        "target": done.target,
        "set": done.backup_set,
        "recovered_to": done.recovered_to,
        "measured_rto_seconds": round(done.measured_rto_s, 3),
        "achieved_rpo_seconds": round(done.achieved_rpo_s, 3),
        "details": done.figures,
        "warnings": warnings,
    }
    lost = quantities.format_duration(timedelta(seconds=done.achieved_rpo_s))
    fields: list[tuple[str, object]] = [
        ("drill", done.run),
        ("result", "passed"),
        ("asked for", done.target),
        ("restored to", times.format_moment(done.recovered_to, zone)),
        ("primary", _seam(done.figures)),
        ("backup set", done.backup_set),
        ("measured RTO", timedelta(seconds=done.measured_rto_s)),
        ("achieved RPO", f"{lost}, had the source died when the drill began"),
        ("rows", f"{done.figures['rows']}, every chunk read back and compared" if "rows" in done.figures else None),
        ("application", f"{done.figures['calls']} answers right, with no way out" if "calls" in done.figures else None),
        ("scratch server", "cleared"),
    ]
    room.printer.show(document, render.Fields(fields))


def _seam(figures: Mapping[str, str]) -> str | None:
    if "from_server" not in figures:
        return None
    return f"changed from server {figures['from_server']} to {figures['to_server']}; the archive went on across it"
