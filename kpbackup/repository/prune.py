"""Carrying out a prune plan: tombstone or anchor, manifest, grace period, data (docs/format.md, 'Ordering').

Every step can be repeated: a crash leaves marks that the next prune reads, and deleting what is gone is no error. Only the
pruner's credentials may delete; the lease `prune` keeps two of them apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from kpbackup import errors
from kpbackup.model import manifest
from kpbackup.model.catalog import Catalog, History
from kpbackup.plan.retention import Policy, PrunePlan, Release
from kpbackup.repository import catalog as catalogs
from kpbackup.repository import layout
from kpbackup.repository.binding import Repository

LEFT_OVER_AFTER = timedelta(days=2)  # beside the grace period: no attempt at a set runs that long


@dataclass(frozen=True)
class Pruned:
    """What a prune did: sets and segments released now, objects deleted now."""

    sets: int
    segments: int
    deleted: int


def leftovers(repository: Repository, catalog: Catalog, policy: Policy, now: datetime) -> list[str]:
    """Keys of data objects no manifest names, of attempts older than the grace period and two days."""
    named = {key.rsplit("/", 1)[0] + "/" for key in _named(catalog)}
    limit = (now - policy.grace_period - LEFT_OVER_AFTER).strftime("%Y%m%dT%H%M%SZ")
    found: list[str] = []
    busy = {h.id for h in catalog.histories if h.anchor is not None and h.anchor.head.created_at + policy.grace_period > now}
    for prefix in _attempts(repository):
        if prefix.split("/")[1] in busy:
            continue  # payloads of segments that were just released are named by nobody, and may still be read
        if prefix not in named and layout.attempt_started(prefix) < limit:
            found += [info.key for info in repository.backend.list(prefix)]
    return found


def execute(repository: Repository, catalog: Catalog, plan: PrunePlan, policy: Policy, now: datetime) -> Pruned:
    """Releases what the plan says, then deletes what was released a grace period ago.

    Raises:
        StorageError: the account may not delete, or the store failed; run it again.
        RepositoryError: a manifest in the repository is damaged: nothing is deleted on half a picture.
    """
    if catalog.damaged:
        raise errors.RepositoryError(f"{len(catalog.damaged)} manifests of {repository.backend.name} are damaged: nothing is pruned",
                                     hint="run `kpbackup check` and mend what it names first")
    for backup_set in plan.release_sets:
        _bury(repository, backup_set, now)
    for release in plan.release_segments:
        _anchor(repository, release, now)
    due = [key for history in catalog.histories for key in _due(repository, history, policy, now)]
    deleted = _delete(repository, [*due, *leftovers(repository, catalog, policy, now)])
    return Pruned(len(plan.release_sets), sum(r.count for r in plan.release_segments), deleted + len(plan.release_sets))


def _bury(repository: Repository, backup_set: manifest.BackupSet, now: datetime) -> None:
    history = catalogs.read_history(repository, backup_set.head.timeline)
    is_newest = history.newest["sets"][0] == backup_set.head.seq  # the next set's key is built from it: it stays
    data = tuple(o.key for o in (*backup_set.objects, *backup_set.definitions, backup_set.inventory))
    keys = data if is_newest else (backup_set.head.key, *data)
    if all(tombstone.set_seq != backup_set.head.seq for tombstone in history.tombstones):
        seq, key = catalogs.next_place(history, "tombstones")
        head = repository.head("tombstone", key=key, created_at=_after(history, "tombstones", now), timeline=history.id, seq=seq)
        repository.create(manifest.Tombstone(head=head, set_seq=backup_set.head.seq, keys=keys, reason="released by retention"))
    if not is_newest:
        repository.backend.delete(backup_set.head.key)


def _anchor(repository: Repository, release: Release, now: datetime) -> None:
    history = catalogs.read_history(repository, release.timeline)
    seq, key = catalogs.next_place(history, "anchors")
    head = repository.head("anchor", key=key, created_at=_after(history, "anchors", now), timeline=history.id, seq=seq)
    repository.create(manifest.Anchor(head=head, first_seq=release.first_seq, link_before=release.link_before))


def _after(history: History, log: str, now: datetime) -> datetime:
    """A creation time that does not go back along the log."""
    return max(now, history.newest.get(log, (0, datetime.min.replace(tzinfo=UTC)))[1])


def _due(repository: Repository, history: History, policy: Policy, now: datetime) -> Iterator[str]:
    """Keys whose grace period is over: data of tombstones, segments below the anchor, observations but the newest."""
    attempts = {prefix for prefix in _attempts(repository) if prefix.startswith(f"{layout.DATA}{history.id}/")}
    manifests = set(_keys(repository, history, "sets"))
    for tombstone in history.tombstones:
        if tombstone.head.created_at + policy.grace_period <= now:
            yield from (key for key in tombstone.keys if key in manifests or key.rsplit("/", 1)[0] + "/" in attempts)
    if history.anchor is not None and history.anchor.head.created_at + policy.grace_period <= now:
        for key in _keys(repository, history, "segments"):
            if _seq(key) < history.anchor.first_seq:
                segment, _ = repository.read(key, manifest.BinlogSegment)
                yield key
                if segment.payload.key is not None:
                    yield segment.payload.key
    yield from _keys(repository, history, "observations")[:-1]


def _keys(repository: Repository, history: History, log: str) -> list[str]:
    return [info.key for info in repository.backend.list(layout.log_prefix(history.id, log))]


def _seq(key: str) -> int:
    place = layout.parse_log_entry(key)
    if place is None:
        raise errors.IntegrityError(f"{key} is not a key of this format", hint="who wrote it? nothing is pruned")
    return place[2]


def _named(catalog: Catalog) -> Iterator[str]:
    for history in catalog.histories:
        for backup_set in history.sets:
            yield from (o.key for o in (*backup_set.objects, *backup_set.definitions, backup_set.inventory))
        yield from (key for tombstone in history.tombstones for key in tombstone.keys)
        yield from (s.payload.key for s in history.segments if s.payload.key is not None)


def _attempts(repository: Repository) -> Iterator[str]:
    for timeline in repository.backend.list_prefixes(layout.DATA):
        yield from repository.backend.list_prefixes(timeline)


def _delete(repository: Repository, keys: Iterable[str]) -> int:
    count = 0
    for key in keys:
        repository.backend.delete(key)
        count += 1
    return count
