"""What a run was told at its beginning, so that a resumed one does the same: sealed in the journal's first entry."""

from __future__ import annotations

from dataclasses import replace

from kpbackup import errors
from kpbackup.model.selection import Selection
from kpbackup.mysql.tiering import Tiers
from kpbackup.recovery import sealed_fields
from kpbackup.recovery.journal import Entry, Journal
from kpbackup.recovery.steps import RecoveryRequest


def sealed_selection(request: RecoveryRequest) -> str:
    """What of the set was chosen, for the plan in the journal."""
    chosen = {"only": list(request.selection.only), "exclude": list(request.selection.exclude)}
    fields = {**chosen, "rename": [list(pair) for pair in request.rename], "into": request.into}
    return sealed_fields.seal(fields, request.identities)


def _with_selection(planned: Entry, request: RecoveryRequest) -> RecoveryRequest:
    if "selection" not in planned.fields:
        return request
    found = sealed_fields.unseal(planned.fields["selection"], request.identities)
    if not found:
        raise errors.UsageError("what this recovery was to choose cannot be read", hint="start a new restore")
    selection = Selection(tuple(found["only"]), tuple(found["exclude"]))
    request = replace(request, selection=selection, rename=tuple((old, new) for old, new in found["rename"]))
    return request.beside_the_living(found["into"]) if found.get("into") else request


def sealed_tiers(tiers: Tiers, request: RecoveryRequest) -> str:
    """The second tier's tables, for the plan in the journal."""
    return sealed_fields.seal({"second": list(tiers.second), "room": tiers.room}, request.identities)


def _tiers(planned: Entry, request: RecoveryRequest) -> Tiers:
    if "tiers" not in planned.fields:
        return Tiers()
    found = sealed_fields.unseal(planned.fields["tiers"], request.identities)
    if not found:
        raise errors.UsageError("the tiers of this recovery cannot be read", hint="start a new restore")
    return Tiers(tuple(found["second"]), int(found["room"]))


def resumed_request(journal: Journal, request: RecoveryRequest) -> RecoveryRequest:
    """The request with what an interrupted run was told at its beginning.

    Raises:
        UsageError: the journal has no plan, or the run was for another target server.
    """
    planned = journal.entries[0]
    if planned.event != "planned":
        raise errors.UsageError(f"recovery {journal.run} was never planned", hint="start a new restore")
    if planned.fields["into"] != request.endpoint.name:
        raise errors.UsageError(
            f"recovery {journal.run} restores into {planned.fields['into']}, the settings name {request.endpoint.name}",
            hint="resume it with recovery.target as it was, or start a new restore",
        )
    return replace(
        _with_selection(planned, request),
        overwrite=tuple(sealed_fields.unseal(planned.fields["overwrite"], request.identities) or ()),
        replace_users=request.replace_users or planned.fields["replace_users"] == "yes",
        skip_gtids=tuple(filter(None, planned.fields.get("skip", "").split(","))),
        tiers=_tiers(planned, request),
    )
