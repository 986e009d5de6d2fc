"""Step 1: the target made ready. Plan, keys, signatures and the target's fitness were judged when the plan was made;
here what was named with --overwrite is dropped and the event scheduler is held, so that nothing writes by itself.
"""

from __future__ import annotations

from kpbackup import errors
from kpbackup.mysql import load, server
from kpbackup.mysql.quoting import identifier
from kpbackup.recovery.planning import RecoveryPlan
from kpbackup.recovery.steps import RecoveryRequest


def run(plan: RecoveryPlan, request: RecoveryRequest) -> dict[str, str]:
    """Prepares the target; returns what was changed, for the journal.

    Raises:
        TargetRefused: the event scheduler runs and the account may not stop it.
    """
    changed: dict[str, str] = {"event_scheduler_was": plan.target.facts.event_scheduler}
    with server.connect(request.endpoint) as connection:
        if plan.target.facts.event_scheduler == "ON":
            _hold_events(connection)
        if plan.target.overwritten:
            load.prepare_session(connection, write_binlog=False)
            for name in (*plan.target.overwritten, load.SCRATCH_SCHEMA):
                connection.execute(f"DROP DATABASE IF EXISTS {identifier(name)}")
            changed["dropped"] = ", ".join(plan.target.overwritten)
    return changed


def _hold_events(connection: server.Connection) -> None:
    try:
        connection.execute("SET GLOBAL event_scheduler = OFF")
    except (errors.PrivilegeMissing, errors.DatabaseError) as exc:
        raise errors.TargetRefused(
            f"the event scheduler of {connection.endpoint.name} runs and cannot be stopped: {exc.message}",
            hint="set event_scheduler=OFF on the target (a parameter group on managed services), then restore",
        ) from exc
