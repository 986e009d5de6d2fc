"""Step 4: the restored database judged: the user's SQL assertions, then (by the driver) the application.

That every chunk reads back as it was backed up and that definitions are equal was proven in step 2, before the
replay changed them on purpose; here the state after the replay is asked.
"""

from __future__ import annotations

from kpbackup import errors
from kpbackup.mysql import load, server
from kpbackup.mysql import schema as schemas
from kpbackup.recovery.planning import RecoveryPlan
from kpbackup.recovery.steps import RecoveryRequest


def run(plan: RecoveryPlan, request: RecoveryRequest) -> dict[str, str]:
    """Asks the target; returns what was asked, for the journal.

    Raises:
        StepFailed: an answer is wrong; the message names the query, expected and found.
    """
    with server.connect(request.endpoint) as connection:
        if load.SCRATCH_SCHEMA in schemas.database_names(connection):
            raise errors.StepFailed(
                f"{request.endpoint.name} still has {load.SCRATCH_SCHEMA}: the database step is not complete",
                hint="resume the restore",
            )
        for check in request.sql_checks:
            found = connection.value(check.query)
            shown = found.decode(errors="replace") if isinstance(found, bytes) else str(found)
            if shown != check.expect:
                raise errors.StepFailed(
                    f"verification failed on {request.endpoint.name}: {check.query!r} answered {shown!r},"
                    f" {check.expect!r} expected",
                    hint="do not switch; look at the restored database, then resume",
                )
    return {"checks": str(len(request.sql_checks))}
