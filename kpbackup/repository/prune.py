"""Carrying out a prune plan: tombstone or anchor, manifest, grace period, data (docs/format.md, 'Ordering').

Every step can be repeated: a crash leaves marks that the next prune reads, and deleting what is gone is no error. Only the
pruner's credentials may delete. The lease `prune` keeps two of them apart; a plan that another prune has overtaken is refused.
What of an archive may go, and why, is found out in released.py.

Limits: the key object of an attempt that never made a manifest is kept (a few hundred bytes): nothing tells it from one whose
manifest is about to be written.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from kpbackup import errors
from kpbackup.model import manifest
from kpbackup.model.catalog import Catalog, History
from kpbackup.plan.retention import Policy, PrunePlan, Release
from kpbackup.repository import applications, canary, layout, lock_renewal, released, reports
from kpbackup.repository import catalog as catalogs
from kpbackup.repository.binding import Repository
from kpbackup.storage import locks

LEFT_OVER_AFTER = timedelta(days=2)  # beside the grace period: no attempt at a set runs that long
BATCH = 1000  # deletions between two looks at the lease
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Pruned:
    """What a prune did: sets and segments released now, objects deleted now."""

    sets: int
    segments: int
    deleted: int
    kept_by_lock: int = 0  # due, but the store still holds them by Object Lock: a later prune deletes them
    renewed_locks: int = 0  # of what is kept longer than its lock


def execute(
    repository: Repository,
    catalog: Catalog,
    plan: PrunePlan,
    policy: Policy,
    now: datetime,
    *,
    check: Callable[[], None] = lambda: None,
) -> Pruned:
    """Releases what the plan says, then deletes what was released a grace period ago. `check` raises when the lease is lost.

    Raises:
        StorageError: the account may not delete, or the store failed; run it again.
        RepositoryError: a manifest in the repository is damaged: nothing is deleted on half a picture. Or the plan was
            carried out already, or another prune came between.
        IntegrityError: a compacted object is not what its manifest says: the small ones it holds stay.
    """
    if catalog.damaged:
        raise errors.RepositoryError(
            f"{len(catalog.damaged)} manifests of {repository.backend.name} are damaged: nothing is pruned",
            hint="run `kpbackup check` and mend what it names first",
        )
    _refuse_stale(repository, catalog)
    before = now - policy.grace_period
    archives = [released.read(repository, history, before) for history in catalog.histories]
    due = [key for history in catalog.histories for key in _of_sets(repository, history, before)]
    due += _leftovers(repository, _attempts(catalog, archives), policy, now)
    due += canary.outlived(repository, now - timedelta(days=policy.days))
    due += reports.outlived(repository, now - timedelta(days=policy.days))
    batches = [due, *(list(step) for archive in archives for step in released.due(repository, archive, before, check))]
    for timeline, sets in itertools.groupby(plan.release_sets, key=lambda one: one.head.timeline):
        _bury(repository, catalogs.read_history(repository, timeline), sets, now, check)
    for release in plan.release_segments:
        check()
        _anchor(repository, release, now)
    bundles = lock_renewal.bundles(repository, catalog, plan, policy)
    renewed = lock_renewal.renew(repository, lock_renewal.Kept(archives, plan, bundles), now)
    kept = sum(_delete(repository, step, check) for step in batches)
    released_segments = sum(r.count for r in plan.release_segments)
    return Pruned(len(plan.release_sets), released_segments, sum(len(step) for step in batches) - kept, kept, renewed)


def _delete(repository: Repository, keys: Sequence[str], check: Callable[[], None]) -> int:
    """Deletes what the store gives up; how many it does not, because they are locked."""
    rest, kept = iter(keys), 0
    while batch := list(itertools.islice(rest, BATCH)):
        check()
        held = locks.locked(repository.backend, batch, datetime.now(UTC))
        repository.backend.delete_all([key for key in batch if key not in held])
        kept += len(held)
    return kept


def _leftovers(repository: Repository, named: set[str], policy: Policy, now: datetime) -> list[str]:
    """Keys of data objects no manifest names, of attempts older than the grace period and two days."""
    named = named | applications.file_attempts(repository)
    limit = (now - policy.grace_period - LEFT_OVER_AFTER).strftime("%Y%m%dT%H%M%SZ")
    found: list[str] = []
    for timeline in repository.backend.list_prefixes(layout.DATA):
        for prefix in repository.backend.list_prefixes(timeline):
            if prefix not in named and layout.attempt_started(prefix) < limit:
                found += [info.key for info in repository.backend.list(prefix)]
    return found


def _attempt_of(key: str) -> str:
    return key.rpartition("/")[0] + "/"


def _refuse_stale(repository: Repository, catalog: Catalog) -> None:
    """A plan works once: an older one could name an anchor below the newest, and so a gap where there is none."""
    for history in catalog.histories:
        for log in ("tombstones", "anchors"):
            newest = max((_seq(key) for key in _keys(repository, history, log)), default=0)
            if newest != history.newest.get(log, (0, _NEVER))[0]:
                raise errors.RepositoryError(
                    f"{repository.backend.name} was pruned after this plan was made",
                    hint="make a new plan: run `kpbackup prune` again",
                )


def _bury(
    repository: Repository, history: History, sets: Iterable[manifest.BackupSet], now: datetime, check: Callable[[], None]
) -> None:
    """A tombstone for each of the timeline's sets, which then loses its manifest."""
    buried = {tombstone.set_seq for tombstone in history.tombstones}
    for backup_set in sets:
        check()
        if backup_set.head.seq not in buried:
            history = _entomb(repository, history, backup_set, now)
        is_newest = history.newest["sets"][0] == backup_set.head.seq  # the next set's key is built from it: it stays
        if not is_newest and not locks.locked(repository.backend, [backup_set.head.key], datetime.now(UTC)):
            repository.backend.delete(backup_set.head.key)


def _entomb(repository: Repository, history: History, backup_set: manifest.BackupSet, now: datetime) -> History:
    """The history with one more entry in its log of tombstones, which is create-only: nobody else's is written over."""
    data = tuple(o.key for o in (*backup_set.objects, *backup_set.definitions, backup_set.inventory))
    key_objects = tuple(info.key for info in repository.backend.list(layout.key_objects(backup_set.sealing.key_id)))
    seq, key = catalogs.next_place(history, "tombstones")
    head = repository.head("tombstone", key=key, created_at=_after(history, "tombstones", now), timeline=history.id, seq=seq)
    repository.create(
        manifest.Tombstone(head=head, set_seq=backup_set.head.seq, keys=(*data, *key_objects), reason="released by retention")
    )
    return replace(history, newest={**history.newest, "tombstones": (seq, head.created_at)})


def _anchor(repository: Repository, release: Release, now: datetime) -> None:
    history = catalogs.read_history(repository, release.timeline)
    seq, key = catalogs.next_place(history, "anchors")
    head = repository.head("anchor", key=key, created_at=_after(history, "anchors", now), timeline=history.id, seq=seq)
    repository.create(manifest.Anchor(head=head, first_seq=release.first_seq, link_before=release.link_before))


def _after(history: History, log: str, now: datetime) -> datetime:
    """A creation time that does not go back along the log."""
    return max(now, history.newest.get(log, (0, _NEVER))[1])


def _of_sets(repository: Repository, history: History, before: datetime) -> Iterator[str]:
    """Keys whose grace period is over: data of tombstones, manifests they left, observations but the newest."""
    sets = _keys(repository, history, "sets")
    over = [t for t in history.tombstones if t.head.created_at <= before]
    yield from _present(repository, [key for tombstone in over for key in tombstone.keys])
    buried = {tombstone.set_seq for tombstone in over}
    yield from (key for key in sets[:-1] if _seq(key) in buried)  # it was the newest when it was released, or a crash left it
    yield from _keys(repository, history, "observations")[:-1]


def _present(repository: Repository, keys: Iterable[str]) -> Iterator[str]:
    """The keys that are still stored; earlier prunes deleted most of what old tombstones name."""
    wanted = set(keys)
    for prefix in sorted({_attempt_of(key) for key in wanted}):
        yield from (info.key for info in repository.backend.list(prefix) if info.key in wanted)


def _keys(repository: Repository, history: History, log: str) -> list[str]:
    return [info.key for info in repository.backend.list(layout.log_prefix(history.id, log))]


def _seq(key: str) -> int:
    place = layout.parse_log_entry(key)
    if place is None:
        raise errors.IntegrityError(f"{key} is not a key of this format", hint="who wrote it? nothing is pruned")
    return place[2]


def _attempts(catalog: Catalog, archives: Iterable[released.Archive]) -> set[str]:
    """Prefixes of all attempts that a manifest names data of, tombstones and released segments included."""
    found: set[str] = set()
    for history in catalog.histories:
        for backup_set in history.sets:
            found.update(_attempt_of(o.key) for o in (*backup_set.objects, *backup_set.definitions, backup_set.inventory))
        found.update(_attempt_of(key) for tombstone in history.tombstones for key in tombstone.keys)
    found.update(_attempt_of(key) for archive in archives for key in archive.data_keys())
    return found
