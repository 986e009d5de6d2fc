"""The replay into a shadow: of the chosen tables alone, over an ordinary connection, under GTIDs of the target's own.

Everything between the set and the cut is read once when the plan is made, through the very filter that the replay uses: what
cannot be replayed exactly is refused before anything is changed, all of it in one answer. Resumable: how far it came stands on
the target, written in the same transactions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kpbackup import errors
from kpbackup.model.manifest import BackupSet
from kpbackup.mysql import direct, server
from kpbackup.mysql.facts import ServerFacts
from kpbackup.mysql.replay import OnProgress
from kpbackup.mysql.serve import Progress
from kpbackup.mysql.shadow_filter import REFUSALS_LISTED, ShadowFilter
from kpbackup.mysql.shadowing import Shadow
from kpbackup.recovery import cut as cuts
from kpbackup.recovery.archived import Archived
from kpbackup.recovery.binlog import SegmentReader
from kpbackup.recovery.journal import Journal
from kpbackup.recovery.steps import RecoveryRequest

if TYPE_CHECKING:
    from kpbackup.recovery.planning import RecoveryPlan

MANNER = direct.Manner(keeps_gtids=False)


def judge(
    reader: SegmentReader, backup_set: BackupSet, cut: cuts.Cut, shadow: Shadow, skipped: frozenset[str]
) -> dict[str, int]:
    """Rows inserted between set and cut, by table of the shadow, if the chosen tables can be replayed exactly.

    Raises:
        UnreachableTarget: they cannot; says which statements are in the way.
        IntegrityError, KeyProblem, StorageError, ServerUnfit: a segment cannot be read.
    """
    if cut.last_included is None:
        return {}
    if shadow.cascades:
        raise _refused(shadow, backup_set, f"a foreign key of {shadow.cascades[0]} lets a table that is left out change its rows,"
                                           " which is in no binlog")  # fmt: skip
    judging = ShadowFilter(shadow, skipped=skipped, lists=True)
    archived = Archived(reader, backup_set.coordinates, cut)
    try:
        for _ in judging.steps(archived.behind(backup_set.coordinates)):
            pass
    except errors.StepFailed as exc:
        raise _refused(shadow, backup_set, exc.message) from exc
    if judging.refusals:
        more = len(judging.refusals) - REFUSALS_LISTED
        listed = "; ".join(judging.refusals[:REFUSALS_LISTED]) + (f"; and {more} more" if more > 0 else "")
        raise _refused(shadow, backup_set, listed)
    return dict(judging.inserted)


def _refused(shadow: Shadow, backup_set: BackupSet, why: str) -> errors.UnreachableTarget:
    at = backup_set.coordinates
    return errors.UnreachableTarget(
        f"cannot replay {shadow.chosen} into {shadow.name} exactly: {why}",
        hint="choose a point before it (--before-gtid, `kpbackup find` prints GTIDs) or what belongs to it too, or restore"
        f" everything into a server of its own; --to-position {at.file}:{at.position} is the set itself, without a replay",
    )


def run(
    plan: RecoveryPlan, request: RecoveryRequest, journal: Journal, facts: ServerFacts, shadow: Shadow, *, prefix: str = ""
) -> dict[str, str]:
    """Replays up to the cut; returns figures for the journal, in which the names of its entries begin with `prefix`.

    Raises:
        StepFailed, PrivilegeMissing, IntegrityError, DatabaseError, ServerUnreachable.
    """
    if not plan.cut.segments:
        return {"transactions": "0"}
    filtering = ShadowFilter(shadow, skipped=frozenset(one.gtid for one in plan.skipped))
    start = plan.backup_set.coordinates
    archived = Archived(SegmentReader(request.repository, request.identities), start, plan.cut)
    with direct.opened(request.endpoint, facts, MANNER) as applier:
        if journal.last(f"{prefix}replay_started") is None:
            applier.begin(start)
            journal.write(f"{prefix}replay_started", {"from": start, "to": plan.cut.at})
        else:
            _refuse_non_transactional(request, shadow)
            start = applier.reached()
            journal.write(f"{prefix}replay_resumed", {"file": start.file, "position": start.position})
            for _ in filtering.steps(archived.before(start)):
                pass  # it knows again which databases and tables there are
        done = applier.run(archived.behind(start), _report(plan, request, filtering), steps=filtering.steps)
    return {
        "transactions": str(done.transactions),
        "transactions_left_out": str(filtering.left_out),
        "replayed_bytes": str(done.sent_bytes),
        "replay_path": "direct, grouped",
        "reached": f"{done.file or start.file}:{done.position or start.position}",
        "skipped": ",".join(sorted(one.gtid for one in plan.skipped)),
    }


def _report(plan: RecoveryPlan, request: RecoveryRequest, filtering: ShadowFilter) -> OnProgress | None:
    if request.progress is None:
        return None
    report = request.progress
    total = sum(segment.transactions for segment in plan.cut.segments)

    def on_progress(progress: Progress) -> None:
        done = progress.transactions + filtering.left_out
        report("replay", done, max(total, done))

    return on_progress


def _refuse_non_transactional(request: RecoveryRequest, shadow: Shadow) -> None:
    """Raises StepFailed: what a killed replay wrote into such a table was neither committed nor rolled back with the rest."""
    with server.connect(request.endpoint) as target:
        found = target.rows(
            "SELECT table_name FROM information_schema.tables WHERE engine <> 'InnoDB' AND table_type = 'BASE TABLE'"
            " AND table_schema = %s ORDER BY 1 LIMIT 5", (shadow.name,),
        )  # fmt: skip
    if found:
        names = ", ".join(str(row[0]) for row in found)
        raise errors.StepFailed(
            f"the replay was interrupted, and tables without transactions may hold a part of one: {names}",
            hint=f"begin again: drop the database {shadow.name}, or give --overwrite {shadow.name}",
        )
