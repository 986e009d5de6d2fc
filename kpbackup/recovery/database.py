"""Step 2: the database brought back: load the set, prove it, replay the archived binlog up to the cut.

Resumable: the load goes on where chunks are marked, the replay as `replaying` says.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from kpbackup import errors
from kpbackup.model import gtid
from kpbackup.model.inventory import Inventory
from kpbackup.mysql import direct, gtid_state, load, replica_channel, schema, server
from kpbackup.mysql import facts as server_facts
from kpbackup.recovery import loading, paths, replaying, shadow_replay
from kpbackup.recovery.journal import Journal
from kpbackup.recovery.paths import Path
from kpbackup.recovery.planning import RecoveryPlan
from kpbackup.recovery.steps import RecoveryRequest


def run(plan: RecoveryPlan, request: RecoveryRequest, journal: Journal) -> dict[str, str]:
    """Loads and replays; returns figures for the journal.

    Raises:
        RestoreMismatch, IntegrityError, StepFailed, PrivilegeMissing, TargetRefused, DatabaseError, ServerUnreachable.
    """
    with server.connect(request.endpoint) as connection:
        facts = server_facts.read_facts(connection)
    figures: dict[str, str] = {}
    if journal.last("loaded") is None:
        figures |= _load(plan, request, journal)
    if journal.last("replayed") is None:
        figures |= _replay(plan, request, journal, facts)
    path = replaying.chosen(journal)
    if path.name == paths.SERVED and not request.into:
        with server.connect(request.endpoint) as connection:
            # after the entry: while it may be resumed, the channel knows how far it came
            replica_channel.remove(connection, facts)
    if journal.last("checked") is None:
        _check_end(plan, request, facts, path)
        journal.write("checked")  # before the scratch schema goes, whose absence would otherwise fail the check of a resumed run
    loading.drop_scratch(request.endpoint, write_binlog=bool(request.into))
    return figures


def _load(plan: RecoveryPlan, request: RecoveryRequest, journal: Journal) -> dict[str, str]:
    figures = load_into(plan, request, plan.inventory, plan.renamed, write_binlog=bool(request.into))
    journal.write("loaded", figures)
    return figures


def load_into(
    plan: RecoveryPlan, request: RecoveryRequest, inventory: Inventory, renamed: Mapping[str, str], *, write_binlog: bool
) -> dict[str, str]:
    """Loads and proves what `inventory` has of the plan's set; figures for the journal."""
    started = time.monotonic()
    wanted = loading.LoadRequest(
        request.endpoint, workers=request.workers, replace_users=request.replace_users, write_binlog=write_binlog,
        progress=request.progress,
    )  # fmt: skip
    done = loading.load_set(
        request.repository, plan.backup_set, inventory, plan.data_key, wanted, stored_chunks=plan.stored_chunks, renamed=renamed
    )
    for warning in done.warnings:
        request.warn(warning)
    return {
        "rows": str(done.rows),
        "chunks_read_back": str(done.chunks),
        "load_s": f"{time.monotonic() - started:.3f}",
        "warnings": str(len(done.warnings)),
    } | {f"{phase}_busy_s": f"{seconds:.3f}" for phase, seconds in done.busy_s.items()}


def _replay(plan: RecoveryPlan, request: RecoveryRequest, journal: Journal, facts: server_facts.ServerFacts) -> dict[str, str]:
    started = time.monotonic()
    if plan.shadow is not None:
        figures = shadow_replay.run(plan, request, journal, facts, plan.shadow)
    else:
        figures = replaying.run(plan, request, journal, facts)
    figures |= {"replay_s": f"{time.monotonic() - started:.3f}"}
    journal.write("replayed", figures)
    return figures


def _check_end(plan: RecoveryPlan, request: RecoveryRequest, facts: server_facts.ServerFacts, path: Path) -> None:
    """The target's GTID state must hold the last included transaction and not the first excluded one; where GTIDs were not
    kept, the progress in the scratch schema must be the cut."""
    with server.connect(request.endpoint) as target:
        if request.into:  # beside the living the GTID state is theirs
            return check_grouped(plan, request, target) if plan.cut.segments else None
        there = schema.database_names(target)
        if not path.keeps_gtids and load.SCRATCH_SCHEMA in there:
            return check_grouped(plan, request, target)
        state = gtid_state.read_state(target, facts)
    last, first = plan.cut.last_included, plan.cut.first_excluded
    if last is not None and last.gtid and not gtid.contains(facts.flavour, state, last.gtid):
        raise errors.RestoreMismatch(
            f"{request.endpoint.name} stands at {state} after the replay, before {last.gtid}",
            hint="the target is not to be used; restore again",
        )
    if first is not None and first.gtid and gtid.contains(facts.flavour, state, first.gtid):
        raise errors.RestoreMismatch(
            f"{request.endpoint.name} executed {first.gtid}, which lies behind the cut",
            hint="the target is not to be used; restore again",
        )
    if load.SCRATCH_SCHEMA not in there:
        raise errors.RestoreMismatch(
            f"{load.SCRATCH_SCHEMA} vanished from {request.endpoint.name} during the replay",
            hint="is somebody else working on the target? restore again",
        )


def check_grouped(plan: RecoveryPlan, request: RecoveryRequest, target: server.Connection) -> None:
    """Raises RestoreMismatch unless the progress in the scratch schema is the cut."""
    file, position = target.row(f"SELECT CONVERT(file USING utf8mb4), position FROM {direct.PROGRESS_TABLE}") or ("", 0)
    if (file, int(position)) != (plan.cut.at.file, plan.cut.at.position):
        raise errors.RestoreMismatch(
            f"{request.endpoint.name} stands at {file}:{position} of the source's binlog after the replay, not at {plan.cut.at}",
            hint="the target is not to be used; restore again",
        )
