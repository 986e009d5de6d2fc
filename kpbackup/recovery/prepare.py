"""Step 1: the target made ready. Plan, keys, signatures and the target's fitness were judged when the plan was made;
here what was named with --overwrite is dropped, and what an earlier, given up restore left of its progress and of the server's
settings; and the path of the replay is proven by a trial, before anything is loaded.
"""

from __future__ import annotations

from kpbackup.mysql import load, server
from kpbackup.mysql.quoting import identifier
from kpbackup.recovery import cut as cuts
from kpbackup.recovery import durability, paths
from kpbackup.recovery.binlog import SegmentReader
from kpbackup.recovery.planning import RecoveryPlan
from kpbackup.recovery.steps import RecoveryRequest


def run(plan: RecoveryPlan, request: RecoveryRequest) -> dict[str, str]:
    """Prepares the target; returns what was changed, for the journal.

    Raises:
        PrivilegeMissing, TargetRefused, StepFailed, DatabaseError, ServerUnreachable.
    """
    with server.connect(request.endpoint) as connection:
        load.prepare_session(connection, write_binlog=bool(request.into))
        durability.put_back(connection)
        # the progress goes last: while a database of the old content is there, so is the sign that the target is not whole
        for name in (*plan.target.overwritten, load.SCRATCH_SCHEMA):
            connection.execute(f"DROP DATABASE IF EXISTS {identifier(name)}")
    figures = {"databases_dropped": str(len(plan.target.overwritten))} if plan.target.overwritten else {}
    if plan.cut.segments:
        first = cuts.segment_events(SegmentReader(request.repository, request.identities), plan.cut.segments[0])
        figures["replay_path"] = str(paths.prove(request, plan.backup_set, next(first).data))
    return figures
