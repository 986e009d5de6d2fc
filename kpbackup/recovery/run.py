"""The five steps as a state machine over the journal: what is finished is not done again.

A run writes 'planned' first, then 'step_started' and 'step_finished' (or 'step_failed') for each step, then 'finished'.
A crash or Ctrl-C at any moment leaves the journal at the step under way; `--resume RUN` enters that step again. The
measured RTO is the time from 'planned' to the end of the last step before the switch, waits for people included.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from kpbackup import errors
from kpbackup.model import canonical, codec
from kpbackup.recovery import (
    database,
    deploy,
    drivers,
    environment,
    files,
    holding,
    planning,
    prepare,
    proof,
    resuming,
    reverting,
    sealed_fields,
    second,
    switch,
    verify,
)
from kpbackup.recovery.journal import Entry, Journal
from kpbackup.recovery.planning import RecoveryPlan
from kpbackup.recovery.steps import Driver, Objectives, RecoveryRequest, Step
from kpbackup.repository import applications

DEFAULT_DRIVERS = {
    Step.PREPARE: Driver("none"),
    Step.DEPLOY: Driver("manual"),
    Step.VERIFY: Driver("none"),
    Step.SWITCH: Driver("manual"),
}
BUILT_IN = (Step.PREPARE, Step.DATABASE, Step.VERIFY)  # these do work of their own; their driver only adds to it


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `recovered` is True only when all five steps were done with everything, and none was skipped."""

    run: str
    recovered: bool
    skipped: tuple[Step, ...]
    measured_rto_s: float
    recovered_to: datetime
    details: dict[str, str]


def begin(
    journal: Journal, plan: RecoveryPlan, request: RecoveryRequest, steps: Sequence[Step], *, kind: str = "restore"
) -> None:
    """Writes the plan as the journal's first entry: from here on the run exists and can be resumed."""
    cut = plan.cut
    journal.write(
        "planned",
        {
            "kind": kind,
            "target": request.target,
            "set": plan.backup_set.name,
            "cut_file": cut.at.file,
            "cut_position": cut.at.position,
            "cut_gtid": cut.at.gtid,
            "recovered_to": canonical.time_text(plan.recovered_to),
            "reaches": canonical.time_text(plan.reaches),
            "segments": len(cut.segments),
            "into": request.endpoint.name,
            "last_included": cut.last_included.gtid if cut.last_included else "",
            "first_excluded": cut.first_excluded.gtid if cut.first_excluded else "",
            "overwrite": sealed_fields.seal(list(plan.target.overwritten), request.identities),
            **({"selection": resuming.sealed_selection(request)} if request.is_partial else {}),
            "replace_users": "yes" if request.replace_users else "no",
            "skip": ",".join(one.gtid for one in plan.skipped),
            "steps": ",".join(steps),
            **({"tiers": resuming.sealed_tiers(request.tiers, request)} if plan.second else {}),
            "bundle": plan.application.manifest.head.key if plan.application else "",
            **_promised(request),
        },
    )


def _promised(request: RecoveryRequest) -> dict[str, object]:
    promised = request.objectives
    return {"objective_rpo_s": f"{promised.rpo_s:.0f}", "objective_rto_s": f"{promised.rto_s:.0f}"} if promised else {}


def carry_out(
    journal: Journal,
    plan: RecoveryPlan,
    request: RecoveryRequest,
    steps: Sequence[Step],
    *,
    again: Sequence[Step] = (),
    confirmed: Sequence[Step] = (),
) -> Outcome:
    """Runs the steps that are not finished yet (and those in `again`), in order.

    `confirmed` names manual steps that a person has done.

    Raises:
        ManualStepWaiting, StepFailed and what the steps raise; the journal says where to go on.
    """
    _refuse_confirmations(request, confirmed)
    if request.into and set(steps) - {Step.PREPARE, Step.DATABASE}:
        raise errors.UsageError(
            f"recovery {journal.run} brings tables into a shadow: it ends with step {Step.DATABASE}",
            hint=f"take back what you need from the shadow; `kpbackup restore --resume {journal.run}` goes on with what is left",
        )
    try:
        for step in steps:
            if _is_finished(journal, step) and step not in again:
                continue
            is_back = step in (Step.DEPLOY, Step.VERIFY) and _is_finished(journal, Step.DATABASE)
            if request.read_only and is_back and not _is_finished(journal, Step.SWITCH):
                holding.hold(request, journal)
            _carry_out_one(journal, plan, request, step, confirmed=step in confirmed)
    except errors.ManualStepWaiting:
        _second_tier(journal, plan, request)  # the person is not waited for
        raise
    _second_tier(journal, plan, request)
    return _finish(journal, plan, steps)


def _second_tier(journal: Journal, plan: RecoveryPlan, request: RecoveryRequest) -> None:
    """The second phase, when the first has brought the essential tables back and the target may be written to."""
    ready = journal.last("essential_ready")
    if plan.second is None or ready is None or journal.last("second_finished") or holding.is_held(journal):
        return
    journal.write("second_started")
    started = time.monotonic()
    try:
        starts = sealed_fields.unseal(ready.fields["starts"], request.identities)
        figures = second.run(plan, request, journal, starts)
    except errors.KpbackupError as exc:
        journal.write("second_failed", {"error": type(exc).__name__, "exit_code": exc.exit_code})
        raise
    journal.write("second_finished", {"seconds": f"{time.monotonic() - started:.3f}", **figures})


def _database(journal: Journal, plan: RecoveryPlan, request: RecoveryRequest) -> dict[str, str]:
    figures = database.run(plan, request, journal)
    if request.into:
        return figures
    if plan.second is not None and plan.second_starts:
        second.keep_apart(request.endpoint, plan.second, plan.second_starts)
    figures |= _proved(journal, request)
    if plan.second is not None and journal.last("essential_ready") is None:
        took = (datetime.now(UTC) - journal.entries[0].at).total_seconds()
        starts = sealed_fields.seal(dict(plan.second_starts), request.identities)
        journal.write("essential_ready", {"essential_rto_s": f"{took:.3f}", "starts": starts})
    return figures


def _carry_out_one(journal: Journal, plan: RecoveryPlan, request: RecoveryRequest, step: Step, *, confirmed: bool) -> None:
    _gate(journal, step)
    journal.write("step_started", {"step": step})
    started = time.monotonic()
    was_held = step is Step.SWITCH and holding.is_held(journal)
    if was_held:
        holding.release(request, journal)
    try:
        results = _work(journal, plan, request, step)
        driver = _driver(request, step)
        driven = "confirmed" if confirmed else drivers.drive(step, driver, request, _facts(plan, request), journal.run)
    except errors.ManualStepWaiting as exc:
        journal.write("step_waiting", {"step": step, "reason": exc.message})
        raise
    except errors.KpbackupError as exc:
        journal.write("step_failed", {"step": step, "error": type(exc).__name__, "exit_code": exc.exit_code})
        if was_held:
            holding.hold(request, journal)
        raise
    journal.write("step_finished", {"step": step, "driven": driven, "seconds": f"{time.monotonic() - started:.3f}", **results})


def _work(journal: Journal, plan: RecoveryPlan, request: RecoveryRequest, step: Step) -> dict[str, str]:
    """What kpbackup does itself in a step: in the cluster if the step is driven by it, and what is built in."""
    work: dict[Step, Callable[[], dict[str, str]]] = {
        Step.PREPARE: lambda: _prepare(journal, plan, request),
        Step.DATABASE: lambda: _database(journal, plan, request),
        Step.DEPLOY: lambda: _deploy(journal, plan, request),
        Step.VERIFY: lambda: verify.run(plan, request, sealed_fields.unseal(_tables(journal), request.identities)),
        Step.SWITCH: lambda: _switch(journal, plan, request),
    }
    return work[step]()


def _prepare(journal: Journal, plan: RecoveryPlan, request: RecoveryRequest) -> dict[str, str]:
    figures: dict[str, str] = {}
    if request.driven_by_kubernetes(Step.PREPARE) and plan.application is not None:
        figures = environment.prepare(request, plan.application, journal.run)
    if plan.target.facts is None:  # it was started just now
        found = planning.Found.FRESH if journal.last("step_finished", step=Step.PREPARE) is None else planning.Found.BEGUN
        state = planning.look_at_target(request, plan.backup_set, plan.inventory, found)
        plan = replace(plan, target=state)
    return figures | prepare.run(plan, request)


def _proved(journal: Journal, request: RecoveryRequest) -> dict[str, str]:
    """Sums over the restored tables, sealed into the journal: step 4 compares with them."""
    volatile = request.verification.profile.tables.volatile_columns if request.verification else {}
    sums = proof.take(request.endpoint, volatile, sessions=request.workers)
    encoded = {name: codec.encode(one) for name, one in sums.items()}
    journal.write("proved", {"tables": sealed_fields.seal(encoded, request.identities)})
    return {"tables_proved": str(len(sums))}


def _tables(journal: Journal) -> str:
    entry = journal.last("proved")
    return entry.fields["tables"] if entry is not None else ""


def _deploy(journal: Journal, plan: RecoveryPlan, request: RecoveryRequest) -> dict[str, str]:
    if request.drilled is not None:
        return request.drilled.start(plan, request)
    figures = _restore_files(plan, request) if request.files_directory else {}
    if request.driven_by_kubernetes(Step.DEPLOY) and plan.application is not None:
        figures |= deploy.run(request, plan.application, journal.run)
    return figures


def _restore_files(plan: RecoveryPlan, request: RecoveryRequest) -> dict[str, str]:
    """The files of the bundle, before the application that reads them is started."""
    in_force = applications.in_force(applications.all_manifests(request.repository), plan.recovered_to)
    found = plan.application.manifest if plan.application else in_force
    if found is None:
        raise errors.StepFailed(
            "recovery.deploy.files_directory is set, and the repository holds no application bundle",
            hint="unset it, or set `application` where backups are made",
        )
    return files.restore(request, found, request.files_directory)


def _switch(journal: Journal, plan: RecoveryPlan, request: RecoveryRequest) -> dict[str, str]:
    if not request.driven_by_kubernetes(Step.SWITCH) or plan.application is None:
        return {}
    recorded = reverting.record_in(journal)
    before = sealed_fields.unseal(recorded.fields["before"], request.identities) if recorded is not None else None

    def keep(found: dict[str, Any]) -> None:
        journal.write(reverting.RECORDED, {"before": sealed_fields.seal(found, request.identities)})

    def left(found: dict[str, Any]) -> None:
        journal.write(reverting.SWITCHED, {"replaced": sealed_fields.seal(found, request.identities)})

    return switch.run(request, plan.application, journal.run, before, keep, left, lambda: verify.public_problem(request))


def _driver(request: RecoveryRequest, step: Step) -> Driver:
    return request.drivers.get(step) or DEFAULT_DRIVERS.get(step, Driver("none"))


def _refuse_confirmations(request: RecoveryRequest, confirmed: Sequence[Step]) -> None:
    """A confirmation takes the place of a person's 'done', never of a command or of work of our own."""
    for step in confirmed:
        if _driver(request, step).kind != "manual":
            raise errors.UsageError(
                f"step {step} has nothing to confirm: its driver is {_driver(request, step).kind}",
                hint=f"leave out --confirm {step}, or set recovery.{step}.driver to manual",
            )


def _gate(journal: Journal, step: Step) -> None:
    """A step runs when those it builds on are finished: a switch to a database that was never verified is an outage."""
    needed = {Step.DATABASE: Step.PREPARE, Step.DEPLOY: Step.DATABASE, Step.VERIFY: Step.DATABASE, Step.SWITCH: Step.VERIFY}
    before = needed.get(step)
    if before is not None and not _is_finished(journal, before):
        raise errors.StepFailed(
            f"step {step} of recovery {journal.run} is gated on step {before}, which is not finished",
            hint=f"run `kpbackup restore {before} --resume {journal.run}` first",
        )


def _is_finished(journal: Journal, step: Step) -> bool:
    """Whether its newest run ended well: one that was run again and failed is not finished, whatever was before. What was
    verified is not verified any more once a step before was run again."""
    for entry in reversed(journal.entries):
        name = entry.fields.get("step")
        if name == step:
            return entry.event == "step_finished"
        if step is Step.SWITCH and entry.event == reverting.EVENT:
            return False
        if step is Step.VERIFY and name in (Step.PREPARE, Step.DATABASE, Step.DEPLOY):
            return False
    return False


def _facts(plan: RecoveryPlan, request: RecoveryRequest) -> Mapping[str, str]:
    return {
        "set": plan.backup_set.name,
        "target_host": request.endpoint.host,
        "target_port": str(request.endpoint.port),
        "recovered_to": canonical.time_text(plan.recovered_to),
    }


def _finish(journal: Journal, plan: RecoveryPlan, steps: Sequence[Step]) -> Outcome:
    planned = journal.entries[0]
    finished = {step: entry for step in Step if (entry := journal.last("step_finished", step=step)) is not None}
    skipped = tuple(
        step for step in Step if step not in finished or (step not in BUILT_IN and finished[step].fields["driven"] == "skipped")
    )
    promised = request_objectives(planned)
    before_switch = [entry.at for step, entry in finished.items() if step is not Step.SWITCH]
    if (whole := journal.last("second_finished")) is not None:
        before_switch.append(whole.at)
    essential = journal.last("essential_ready")
    measured = (max(before_switch) - planned.at).total_seconds() if before_switch else 0.0
    achieved = (planned.at - plan.recovered_to).total_seconds()
    recovered = not skipped and not journal.is_of_selection and (plan.second is None or whole is not None)
    details = dict(finished[Step.DATABASE].fields) if Step.DATABASE in finished else {}
    journal.write(
        "finished",
        {
            "recovered": "yes" if recovered else "no",
            "skipped": ",".join(skipped),
            "measured_rto_s": f"{measured:.3f}",
            **({"essential_rto_s": essential.fields["essential_rto_s"]} if essential else {}),
            "achieved_rpo_s": f"{achieved:.3f}",
            "recovered_to": canonical.time_text(plan.recovered_to),
            "steps": ",".join(steps),
            "at": canonical.time_text(datetime.now(UTC)),
            **({"rpo_met": _yes(achieved <= promised.rpo_s), "rto_met": _yes(measured <= promised.rto_s)} if promised else {}),
        },
    )
    if essential is not None:
        details["essential_rto_s"] = essential.fields["essential_rto_s"]
    if whole is not None:
        details["second_tier_rows"] = whole.fields.get("rows", "")
    return Outcome(journal.run, recovered, skipped, measured, plan.recovered_to, details)


def request_objectives(planned: Entry) -> Objectives | None:
    """What was promised when the run was planned."""
    if "objective_rto_s" not in planned.fields:
        return None
    return Objectives(float(planned.fields["objective_rpo_s"]), float(planned.fields["objective_rto_s"]))


def _yes(met: bool) -> str:
    return "yes" if met else "no"


def resume(journal: Journal, request: RecoveryRequest) -> RecoveryPlan:
    """The plan of an interrupted run; `request` comes from `resuming`. Raises what `planning.remake_plan` does."""
    if journal.last("step_finished", step=Step.DATABASE) is not None:
        target = planning.Found.RESTORED
    elif journal.last("step_finished", step=Step.PREPARE) is not None:
        target = planning.Found.BEGUN
    else:
        target = planning.Found.FRESH
    return planning.remake_plan(request, journal.entries[0], target=target)
