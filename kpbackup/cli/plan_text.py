"""Parts of the plan that `kpbackup restore` shows: the target, and the application where Kubernetes drives a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kpbackup.recovery.planning import RecoveryPlan
    from kpbackup.recovery.steps import RecoveryRequest

_NAMES_SHOWN = 10


def into(plan: RecoveryPlan, request: RecoveryRequest) -> str:
    facts = plan.target.facts
    where = f"the new database {request.into} on " if request.into else ""
    return f"{where}{request.endpoint.name}, {f'{facts.flavour} {facts.version_string}' if facts else 'which step 1 starts'}"


def changes(plan: RecoveryPlan, request: RecoveryRequest) -> str | None:
    """What a restore changes beside the data; not known before the target is there."""
    if request.into:
        return f"nothing but the database {request.into}; its own binlog grows by it, and its replicas get it too"
    if plan.target.replay_paths == ("direct",):
        return "its own binlog grows by the restore; where the account may set it, its GTID state becomes the source's"
    return "its own binlog and GTID state are reset; its replicas must be seeded again"


def replay(plan: RecoveryPlan) -> str | None:
    if not plan.cut.segments or not plan.target.replay_paths:
        return None
    told = f"{' or else '.join(plan.target.replay_paths)}, tried in step 1 before anything is loaded"
    if plan.target.relaxes:
        told += "; the target's logs are written once a second meanwhile: if it crashes, the restore must begin anew"
    return told


def warnings(plan: RecoveryPlan) -> list[str]:
    return [*plan.target.warnings, *plan.notes, *(plan.application.warnings if plan.application else ())]


def selection_document(plan: RecoveryPlan, request: RecoveryRequest) -> dict[str, Any] | None:
    chosen = request.selection
    if not request.is_partial:
        return None
    return {
        "only": list(chosen.only), "exclude": list(chosen.exclude), "tables": len(plan.inventory.tables),
        "transactions_left_out": len(plan.left_out), "rename": dict(request.rename),
        "shadow": request.into or None,
    }


def selection(plan: RecoveryPlan, request: RecoveryRequest) -> list[tuple[str, object]]:
    """What of the set is restored, where not everything is."""
    if not request.is_partial:
        return []
    names = sorted(f"{a}.{b}" for a, b in plan.shadow.names) if plan.shadow else _names(plan)
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return [
        ("only", f"{request.selection}: {', '.join(names[:_NAMES_SHOWN]) or 'no table'}{more}; no accounts"),
        ("renamed", ", ".join(f"{old} to {new}" for old, new in request.rename) or None),
        ("left out", f"{len(plan.left_out)} transactions that have nothing to do with it" if plan.left_out else None),
    ]


def second_tier(plan: RecoveryPlan) -> str | None:
    """What comes behind the serving application."""
    if plan.second is None:
        return None
    rows = sum(chunk.rows for chunk in plan.second.shadow.inventory.chunks)
    names = plan.second.names
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"{', '.join(names[:_NAMES_SHOWN])}{more}: {rows} rows, in a second phase; the application may serve before"


def _names(plan: RecoveryPlan) -> list[str]:
    return [f"{table.schema}.{table.name}" for table in plan.inventory.tables]


def application_document(plan: RecoveryPlan) -> dict[str, Any] | None:
    found = plan.application
    if found is None:
        return None
    return {
        "bundle": found.manifest.name, "taken_at": found.manifest.taken_at, "chart": found.bundle.chart,
        "namespace": found.namespace, "release": found.release,
    }


def application(plan: RecoveryPlan, request: RecoveryRequest) -> list[tuple[str, object]]:
    """The application's lines of the plan."""
    found = plan.application
    if found is None:
        return []
    notes = request.verification.profile.notes if request.verification else ()
    what = f"{found.bundle.chart or 'plain objects'} as {found.release or 'it was'} in namespace {found.namespace}"
    return [
        ("application", f"bundle {found.manifest.name} of {found.manifest.taken_at:%Y-%m-%dT%H:%M:%SZ}: {what}"),
        *(("users", note) for note in notes),
    ]
