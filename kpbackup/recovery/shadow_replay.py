"""The replay into a shadow: of the chosen tables alone, over an ordinary connection, under GTIDs of the target's own.

What cannot be replayed exactly was refused when the plan was made (`shadow_judging`). Resumable: how far it came stands on the
target, written in the same transactions.
"""

from __future__ import annotations

from kpbackup import errors
from kpbackup.mysql import direct, server
from kpbackup.mysql.facts import ServerFacts
from kpbackup.mysql.replay import OnProgress
from kpbackup.mysql.serve import Progress
from kpbackup.mysql.shadow_filter import ShadowFilter
from kpbackup.mysql.shadowing import Shadow
from kpbackup.recovery.archived import Archived
from kpbackup.recovery.binlog import SegmentReader
from kpbackup.recovery.journal import Journal
from kpbackup.recovery.planning import RecoveryPlan
from kpbackup.recovery.steps import RecoveryRequest

MANNER = direct.Manner(keeps_gtids=False)


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
