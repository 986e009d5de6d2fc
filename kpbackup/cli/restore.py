"""`kpbackup restore` and its steps: the plan first, then a question, then the run.

`restore` runs all five steps, `restore prepare` and `restore database` begin a run that ends after that step, and any step
alone can be run (again) with --resume RUN.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import typer

from kpbackup import errors, quantities
from kpbackup.cli import asked, context, plan_text, render, told
from kpbackup.model import times
from kpbackup.service import progress

if TYPE_CHECKING:
    from kpbackup.model.selection import Selection
    from kpbackup.plan.timeline import Target
    from kpbackup.recovery.journal import Journal
    from kpbackup.recovery.planning import RecoveryPlan
    from kpbackup.recovery.run import Outcome
    from kpbackup.recovery.steps import RecoveryRequest, Step

def _beginning(help_text: str, steps: Sequence[str]) -> Callable[..., int]:
    """A verb that plans a run of these steps, asks, and carries them out; all such verbs take the same options."""

    def begin(
        ctx: typer.Context,
        to: asked.To = None,
        to_gtid: asked.ToGtid = None,
        before_gtid: asked.BeforeGtid = None,
        to_position: asked.ToPosition = None,
        yes: asked.Yes = False,
        dry_run: asked.DryRun = False,
        overwrite: asked.Overwrite = None,
        resume: asked.Resume = None,
        replace_users: asked.ReplaceUsers = False,
        skip_gtid: asked.SkipGtid = None,
        only: asked.Only = None,
        exclude: asked.Exclude = None,
        rename: asked.Rename = None,
        into: asked.Into = None,
        one_phase: asked.OnePhase = False,
        confirm: asked.Confirm = None,
        json: context.JsonOption = False,
    ) -> int:
        from kpbackup.recovery.steps import Step

        room = context.of(ctx, json=json)
        shadow = asked.into(into, only=only, rename=rename, replace_users=replace_users, resume=resume)
        return _restore(
            room,
            asked.target(room, to, to_gtid, before_gtid, to_position, resume),
            tuple(map(Step, steps[:2] if shadow else steps)),  # beside the living nothing is deployed, verified or switched
            yes=yes,
            dry_run=dry_run,
            overwrite=tuple(overwrite or ()),
            resume=resume,
            replace_users=replace_users,
            skip_gtids=tuple(skip_gtid or ()),
            selection=asked.selection(only, exclude) if only or exclude else None,
            rename=asked.rename(rename),
            into=shadow,
            one_phase=one_phase,
            confirm=tuple(confirm or ()),
        )

    begin.__doc__ = help_text
    return begin


restore = _beginning(
    "Recover: prepare, database, deploy, verify, switch. Shows the plan and asks before anything is changed.",
    ("prepare", "database", "deploy", "verify", "switch"),
)
prepare = _beginning("Step 1: judge the plan and the target, and make the target ready.", ("prepare",))
database = _beginning(
    "Steps 1 and 2: bring the database back, prove it by reading it back, and stop there.", ("prepare", "database")
)


def deploy(
    ctx: typer.Context, resume: asked.Resume = None, confirm: asked.Confirm = None, json: context.JsonOption = False
) -> int:
    """Step 3 of a run alone: deploy the application by its driver."""
    return _alone(ctx, "deploy", resume, confirm, json=json)


def verify(
    ctx: typer.Context, resume: asked.Resume = None, confirm: asked.Confirm = None, json: context.JsonOption = False
) -> int:
    """Step 4 of a run alone: judge the restored database and application."""
    return _alone(ctx, "verify", resume, confirm, json=json)


def switch(
    ctx: typer.Context, resume: asked.Resume = None, confirm: asked.Confirm = None, json: context.JsonOption = False
) -> int:
    """Step 5 of a run alone: switch traffic; refused unless step 4 is finished."""
    return _alone(ctx, "switch", resume, confirm, json=json)


def _alone(ctx: typer.Context, step: str, resume: str | None, confirm: Sequence[str] | None, *, json: bool) -> int:
    if resume is None:
        raise errors.UsageError(
            f"step {step} needs the run it belongs to", hint="give --resume RUN; `kpbackup recoveries` lists the runs"
        )
    room = context.of(ctx, json=json)
    from kpbackup.recovery.steps import Step

    return _restore(
        room,
        None,
        (Step(step),),
        yes=True,
        dry_run=False,
        overwrite=(),
        resume=resume,
        replace_users=False,
        confirm=tuple(confirm or ()),
        again=True,
    )


def _restore(
    room: context.Context,
    wanted: Target | None,
    steps: Sequence[Step],
    *,
    yes: bool,
    dry_run: bool,
    overwrite: tuple[str, ...],
    resume: str | None,
    replace_users: bool,
    confirm: tuple[str, ...],
    skip_gtids: tuple[str, ...] = (),
    selection: Selection | None = None,
    rename: tuple[tuple[str, str], ...] = (),
    into: str = "",
    one_phase: bool = False,
    again: bool = False,
) -> int:
    from kpbackup.model.selection import Selection
    from kpbackup.plan.timeline import Target
    from kpbackup.recovery import journal as journals
    from kpbackup.recovery import planning, resuming, run
    from kpbackup.recovery.steps import Step as Steps
    from kpbackup.service import opening

    confirmed = _confirmed(confirm)
    if resume is not None:
        asked.refuse_beside_resume(
            resume, dry_run=dry_run, overwrite=overwrite, skip_gtids=skip_gtids, chooses=bool(selection or rename),
            one_phase=one_phase,
        )
    warnings: list[str] = []
    with _progress(room) as report:
        request = replace(
            recovery_request(room, wanted or Target(latest=True), overwrite, replace_users, report, warnings),
            skip_gtids=skip_gtids, selection=selection or Selection(), rename=rename,
        )
        if not one_phase:
            request = replace(request, tiers=opening.tiers(room.settings))
        if into:
            request = request.beside_the_living(into)
        if resume is not None:
            journal = journals.open_journal(request.repository, resume)
            request = resuming.resumed_request(journal, request)
            plan = run.resume(journal, request)
            planned = tuple(Steps(name) for name in journal.entries[0].fields["steps"].split(","))
            steps = planned if len(steps) == len(Steps) else steps  # `restore --resume` does what the run was begun for
        else:
            plan = planning.make_plan(request)
            _show(room, plan, request, final=dry_run)
            if dry_run:
                return 0
            _ask(yes)
            journal = journals.new_journal(request.repository, datetime.now(UTC))
            run.begin(journal, plan, request, steps)
            if not room.printer.json:
                print(f"recovery {journal.run} started", file=sys.stderr)
        outcome = _carry_out(journal, plan, request, steps, again=steps if again else (), confirmed=confirmed)
    _report(room, journal, outcome, steps, warnings)
    return 0


def _carry_out(
    journal: Journal,
    plan: RecoveryPlan,
    request: RecoveryRequest,
    steps: Sequence[Step],
    *,
    again: Sequence[Step],
    confirmed: Sequence[Step],
) -> Outcome:
    from kpbackup.recovery import run

    try:
        return run.carry_out(journal, plan, request, steps, again=again, confirmed=confirmed)
    except BaseException as exc:  # Ctrl-C and SIGTERM too: whoever stops it must learn how to go on
        if not isinstance(exc, errors.ManualStepWaiting | errors.UsageError):
            print(
                f"kpbackup: recovery {journal.run} stopped; continue it with `kpbackup restore --resume {journal.run}`",
                file=sys.stderr,
            )
        raise


def _confirmed(names: Sequence[str]) -> tuple[Step, ...]:
    from kpbackup.recovery.steps import Step

    try:
        return tuple(Step(name) for name in names)
    except ValueError as exc:
        raise errors.UsageError(f"--confirm: {exc}", hint=f"steps are {', '.join(Step)}") from exc


def recovery_request(
    room: context.Context,
    target: Target,
    overwrite: tuple[str, ...],
    replace_users: bool,
    report: Any,
    warnings: list[str],
) -> RecoveryRequest:
    from kpbackup.recovery.steps import Driver, Objectives, RecoveryRequest, SqlCheck, Step
    from kpbackup.service import opening

    def warn(warning: str) -> None:
        warnings.append(warning)
        print(f"warning: {warning}", file=sys.stderr)  # at once: the run may stop before its report

    settings = room.settings
    recovery = settings.recovery
    configured = {
        Step.PREPARE: recovery.prepare,
        Step.DEPLOY: recovery.deploy,
        Step.VERIFY: recovery.verify,
        Step.SWITCH: recovery.switch,
    }
    return RecoveryRequest(
        repository=opening.reading_repository(settings),
        endpoint=opening.target_endpoint(settings),
        target=target,
        identities=opening.identities(settings),
        drivers={step: Driver(c.driver, tuple(c.command), c.timeout.total_seconds()) for step, c in configured.items()},
        overwrite=overwrite,
        replace_users=replace_users,
        workers=settings.need_target().max_connections,
        replaying=opening.replaying(settings),
        sql_checks=tuple(SqlCheck(check.query, str(check.expect)) for check in recovery.verify.sql),
        ask_manual=_ask_manual if sys.stdin.isatty() else None,
        progress=report,
        warn=warn,
        environment=opening.environment(settings),
        files_directory=str(recovery.deploy.files_directory or ""),
        verification=opening.verification(settings),
        read_only=recovery.read_only,
        objectives=Objectives(settings.objectives.rpo.total_seconds(), settings.objectives.rto.total_seconds()),
    )


@contextmanager
def _progress(room: context.Context) -> Iterator[Any]:
    """Progress of the phases, one bar at a time."""
    with progress.show("restore", stream=sys.stderr, log_interval_s=room.settings.log.progress_interval_s) as report:
        yield lambda phase, done, total: report(done, total, "transactions" if phase == "replay" else "rows", phase)


def _ask_manual(step: Step, instructions: str) -> None:
    print(f"\nstep {step}: {instructions}", file=sys.stderr)
    input("press Enter when it is done, Ctrl-C to stop here: ")


def _ask(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise errors.ConfirmationNeeded(
            "nothing was changed: a restore without a terminal needs --yes",
            hint="look at the plan above, then run it again with --yes",
        )
    if input("carry out this plan? [y/N] ").strip().lower() not in ("y", "yes"):
        raise errors.ConfirmationNeeded("nothing was changed: the plan was not confirmed")


def _show(room: context.Context, plan: RecoveryPlan, request: RecoveryRequest, *, final: bool) -> None:
    zone = room.settings.zone

    def transaction(found: Any) -> str | None:
        return told.named(found, zone) if found else None

    cut = plan.cut
    document = {
        "target": str(request.target),
        "set": plan.backup_set.name,
        "set_clock": plan.backup_set.clock,
        "cut": str(cut.at),
        "segments": len(cut.segments),
        "last_included": transaction(cut.last_included),
        "first_excluded": transaction(cut.first_excluded),
        "into": request.endpoint.name,
        "overwritten": list(plan.target.overwritten),
        "rows": sum(chunk.rows for chunk in plan.inventory.chunks),
        "is_partial": plan.backup_set.is_partial,
        "selection": plan_text.selection_document(plan, request),
        "second_tier": plan.second.names if plan.second else [],
        "replay_paths": list(plan.target.replay_paths),
        "relaxes_durability": plan.target.relaxes,
        "estimate_seconds": round(plan.estimate_s) if plan.estimate_s is not None else None,
        **(told.preview_document(plan.preview) if plan.preview else {}),
        "warnings": plan_text.warnings(plan),
        "application": plan_text.application_document(plan),
    }
    around = told.preview_fields(plan.preview, zone) if plan.preview else {}
    moment = times.format_moment(request.target.time, zone) if request.target.time else str(request.target)
    parts = render.Fields(
        [
            ("restore to", f"before {moment}" if request.target.time else moment),
            ("note", "the source stamps whole seconds: the fraction of the time was dropped" if cut.floored else None),
            (
                "backup set",
                f"{plan.backup_set.name} of {times.format_moment(plan.backup_set.clock, zone)},"
                f" {sum(chunk.rows for chunk in plan.inventory.chunks)} rows",
            ),
            ("it holds", f"a part of the source: {plan.whole_selection}" if plan.backup_set.is_partial else None),
            *plan_text.selection(plan, request),
            ("later", plan_text.second_tier(plan)),
            ("binlog", f"{quantities.count(len(cut.segments), 'segment')}, up to {cut.at}"),
            ("last included", transaction(cut.last_included) or "the backup set's own state"),
            ("it did", around.pop("last did", None)),
            ("first excluded", transaction(cut.first_excluded) or "none: this is everything archived"),
            ("it does", around.pop("excluded does", None)),
            *around.items(),
            ("into", plan_text.into(plan, request)),
            ("changes there", plan_text.changes(plan, request)),
            ("replay", plan_text.replay(plan)),
            ("dropped there", ", ".join(plan.target.overwritten) or None),
            *plan_text.application(plan, request),
            ("warnings", "; ".join(plan_text.warnings(plan)) or None),
            ("last measured", timedelta(seconds=round(plan.estimate_s)) if plan.estimate_s is not None else None),
        ]
    )
    if final:
        room.printer.show(document, parts)
    else:
        room.printer.say(parts)


def _report(
    room: context.Context, journal: Journal, outcome: Outcome, steps: Sequence[Step], warnings: Sequence[str]
) -> None:
    zone = room.settings.zone
    document = {
        "run": outcome.run,
        "recovered": outcome.recovered,
        "recovered_to": outcome.recovered_to,
        "measured_rto_seconds": round(outcome.measured_rto_s, 3),
        "skipped": list(outcome.skipped),
        "details": outcome.details,
        "warnings": list(warnings),
    }
    state = (
        "recovered" if outcome.recovered else f"steps done: {', '.join(steps)}; not done: {', '.join(outcome.skipped) or 'none'}"
    )
    room.printer.show(
        document,
        render.Fields(
            [
                ("recovery", outcome.run),
                ("state", state),
                ("restored to", times.format_moment(outcome.recovered_to, zone)),
                ("essential tables", _seconds(outcome.details.get("essential_rto_s"))),
                ("measured RTO", timedelta(seconds=outcome.measured_rto_s)),
                ("rows", f"{outcome.details['rows']}, every chunk read back and compared" if "rows" in outcome.details else None),
                ("replayed", f"{outcome.details['transactions']} transactions" if "transactions" in outcome.details else None),
                ("warnings", f"{len(warnings)}, see above" if warnings else None),
            ]
        ),
    )


def _seconds(text: str | None) -> str | None:
    return f"ready after {float(text):.1f} s" if text else None
