"""Step 5: traffic goes to the recovered application. The driver does it; here the events of the database wake up."""

from __future__ import annotations

from kpbackup.mysql import server
from kpbackup.recovery.journal import Entry
from kpbackup.recovery.planning import RecoveryPlan
from kpbackup.recovery.steps import RecoveryRequest


def release_events(plan: RecoveryPlan, request: RecoveryRequest, prepared: Entry | None) -> dict[str, str]:
    """Starts the event scheduler if step 1 stopped it; returns what was changed."""
    if prepared is None or prepared.fields.get("event_scheduler_was") != "ON":
        return {}
    with server.connect(request.endpoint) as connection:
        connection.execute("SET GLOBAL event_scheduler = ON")
    return {"event_scheduler": "ON"}
