"""`kpbackup prune`: releases what retention no longer needs, then deletes what was released a grace period ago."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from kpbackup import errors
from kpbackup.cli import context, left, render
from kpbackup.cli.backup import holder

if TYPE_CHECKING:
    from kpbackup.config import Settings
    from kpbackup.model.catalog import Catalog
    from kpbackup.plan.retention import Decision, Policy, PrunePlan
    from kpbackup.repository.binding import Repository
    from kpbackup.repository.prune import Pruned


def prune(
    ctx: typer.Context,
    json: context.JsonOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show every decision with its reason and stop.")] = False,
) -> None:
    """Release sets and segments that no kept recovery point needs, and delete what was released a grace period ago.

    Needs the signing key, and credentials that may delete. On a copy (`kpbackup --copy NAME prune`) nothing is released: what
    the origin released is deleted after the copy's own grace period, and no signing key is needed.
    """
    from kpbackup.plan import retention
    from kpbackup.repository import applications, lease
    from kpbackup.repository import catalog as catalogs
    from kpbackup.repository import prune as pruning
    from kpbackup.service import opening, reading

    room = context.of(ctx, json=json)
    policy = reading.policy(room.settings)
    if dry_run:
        repository = opening.reading_repository(room.settings)
        catalog = catalogs.read_catalog(repository)
        plan = _plan(room.settings, catalog, policy, datetime.now(UTC))
        bundles = retention.plan_bundles(applications.all_manifests(repository), catalog, plan, policy)
        _show(room, (*plan.decisions, *bundles.decisions), None)
        return
    repository = (opening.reading_repository if room.settings.copy_name else opening.writing_repository)(room.settings)
    with lease.acquire(repository, "prune", holder=holder()) as held:
        catalog, now = catalogs.read_catalog(repository), datetime.now(UTC)
        plan = _plan(room.settings, catalog, policy, now)
        bundles = retention.plan_bundles(applications.all_manifests(repository), catalog, plan, policy)
        try:
            done = pruning.execute(repository, catalog, plan, policy, now, check=held.check)
            done = replace(done, deleted=done.deleted + applications.delete(repository, bundles.release))
        except errors.KpbackupError:
            _leave(repository, now, None)
            raise
        _leave(repository, now, done)
    _show(room, (*plan.decisions, *bundles.decisions), done)


def _leave(repository: Repository, now: datetime, done: Pruned | None) -> None:
    """Leaves in the repository what was done, None for a prune that could not finish."""
    figures = asdict(done) if done is not None else {}
    left.report(repository, "prune", started_at=now, passed=done is not None, figures=figures)


def _plan(settings: Settings, catalog: Catalog, policy: Policy, now: datetime) -> PrunePlan:
    """What to release: on a copy nothing, for the origin's marks are copied."""
    from kpbackup.plan import retention

    return retention.NOTHING if settings.copy_name else retention.plan_prune(catalog, policy, now)


def _show(room: context.Context, decisions: Sequence[Decision], done: Pruned | None) -> None:
    document = {
        "dry_run": done is None,
        "decisions": [{"what": one.name, "keep": one.keep, "reason": one.reason} for one in decisions],
        "released_sets": done.sets if done else None,
        "released_segments": done.segments if done else None,
        "deleted_objects": done.deleted if done else None,
        "kept_by_lock": done.kept_by_lock if done else None,
        "renewed_locks": done.renewed_locks if done else None,
    }
    told = (
        f"released {done.sets} sets and {done.segments} segments; deleted {done.deleted} objects whose grace period is over"
        + (f"; {done.kept_by_lock} more are kept by lock" if done.kept_by_lock else "")
        + (f"; renewed the locks of {done.renewed_locks} objects" if done.renewed_locks else "")
        if done
        else "dry run: nothing was changed"
    )
    rows = [("keep" if one.keep else "release", one.name, one.reason) for one in decisions]
    room.printer.show(document, render.Table(("decision", "what", "reason"), rows, empty="nothing is stored yet"), told)
