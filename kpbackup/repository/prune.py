"""Carrying out a prune plan: tombstone or anchor, manifest, grace period, data (docs/format.md, 'Ordering').

Every step can be repeated: a crash leaves marks that the next prune reads, and deleting what is gone is no error. Only the
pruner's credentials may delete. The lease `prune` keeps two of them apart; a plan that another prune has overtaken is refused.

Limits: the key object of an attempt that never made a manifest is kept (a few hundred bytes): nothing tells it from one whose
manifest is about to be written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Pruned:
    """What a prune did: sets and segments released now, objects deleted now."""

    sets: int
    segments: int
    deleted: int


@dataclass(frozen=True)
class _Below:
    """The segments of a timeline below its newest anchor: `due` may be deleted, the others wait for the grace period to end."""

    due: tuple[manifest.BinlogSegment, ...]
    waiting: tuple[manifest.BinlogSegment, ...]


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
    """
    if catalog.damaged:
        raise errors.RepositoryError(
            f"{len(catalog.damaged)} manifests of {repository.backend.name} are damaged: nothing is pruned",
            hint="run `kpbackup check` and mend what it names first",
        )
    _refuse_stale(repository, catalog)
    below = {history.id: _below(repository, history, policy, now) for history in catalog.histories}
    in_use = {s.sealing.key_id for h in catalog.histories for s in h.segments}
    due = [key for h in catalog.histories for key in _due(repository, h, below[h.id], in_use, policy, now)]
    named = {_attempt_of(key) for key in _named(catalog, below.values())}
    due += _leftovers(repository, named, policy, now)
    for backup_set in plan.release_sets:
        check()
        _bury(repository, backup_set, now)
    for release in plan.release_segments:
        check()
        _anchor(repository, release, now)
    for key in due:
        check()
        repository.backend.delete(key)
    return Pruned(len(plan.release_sets), sum(r.count for r in plan.release_segments), len(due))


def leftovers(repository: Repository, catalog: Catalog, policy: Policy, now: datetime) -> list[str]:
    """Keys of data objects no manifest names, of attempts older than the grace period and two days."""
    below = [_below(repository, history, policy, now) for history in catalog.histories]
    return _leftovers(repository, {_attempt_of(key) for key in _named(catalog, below)}, policy, now)


def _leftovers(repository: Repository, named: set[str], policy: Policy, now: datetime) -> list[str]:
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


def _bury(repository: Repository, backup_set: manifest.BackupSet, now: datetime) -> None:
    history = catalogs.read_history(repository, backup_set.head.timeline)
    is_newest = history.newest["sets"][0] == backup_set.head.seq  # the next set's key is built from it: it stays
    data = tuple(o.key for o in (*backup_set.objects, *backup_set.definitions, backup_set.inventory))
    key_objects = tuple(info.key for info in repository.backend.list(layout.key_objects(backup_set.sealing.key_id)))
    if all(tombstone.set_seq != backup_set.head.seq for tombstone in history.tombstones):
        seq, key = catalogs.next_place(history, "tombstones")
        head = repository.head("tombstone", key=key, created_at=_after(history, "tombstones", now), timeline=history.id, seq=seq)
        repository.create(
            manifest.Tombstone(head=head, set_seq=backup_set.head.seq, keys=(*data, *key_objects), reason="released by retention")
        )
    if not is_newest:
        repository.backend.delete(backup_set.head.key)


def _anchor(repository: Repository, release: Release, now: datetime) -> None:
    history = catalogs.read_history(repository, release.timeline)
    seq, key = catalogs.next_place(history, "anchors")
    head = repository.head("anchor", key=key, created_at=_after(history, "anchors", now), timeline=history.id, seq=seq)
    repository.create(manifest.Anchor(head=head, first_seq=release.first_seq, link_before=release.link_before))


def _after(history: History, log: str, now: datetime) -> datetime:
    """A creation time that does not go back along the log."""
    return max(now, history.newest.get(log, (0, _NEVER))[1])


def _below(repository: Repository, history: History, policy: Policy, now: datetime) -> _Below:
    """Released segments still stored. An anchor counts when its own grace period is over, however many newer ones there are."""
    if history.anchor is None:
        return _Below((), ())
    anchors = [repository.read(key, manifest.Anchor)[0] for key in _keys(repository, history, "anchors")]
    over = max((a.first_seq for a in anchors if a.head.created_at + policy.grace_period <= now), default=0)
    released = [key for key in _keys(repository, history, "segments") if _seq(key) < history.anchor.first_seq]
    segments = [repository.read(key, manifest.BinlogSegment)[0] for key in released]
    return _Below(tuple(s for s in segments if s.head.seq < over), tuple(s for s in segments if s.head.seq >= over))


def _due(
    repository: Repository, history: History, below: _Below, in_use: set[str], policy: Policy, now: datetime
) -> Iterator[str]:
    """Keys whose grace period is over: data of tombstones, segments below the anchor, observations but the newest."""
    sets = _keys(repository, history, "sets")
    over = [t for t in history.tombstones if t.head.created_at + policy.grace_period <= now]
    yield from _present(repository, [key for tombstone in over for key in tombstone.keys])
    buried = {tombstone.set_seq for tombstone in over}
    yield from (key for key in sets[:-1] if _seq(key) in buried)  # it was the newest when it was released, or a crash left it
    for key_id in {s.sealing.key_id for s in below.due} - in_use - {s.sealing.key_id for s in below.waiting}:
        yield from (info.key for info in repository.backend.list(layout.key_objects(key_id)))
    # The manifest goes last: a crash in between leaves it to name what is left.
    yield from (s.payload.key for s in below.due if s.payload.key is not None)
    yield from (s.head.key for s in below.due)
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


def _named(catalog: Catalog, below: Iterable[_Below]) -> Iterator[str]:
    """Every data object that a manifest names, tombstones and released segments included."""
    for history in catalog.histories:
        for backup_set in history.sets:
            yield from (o.key for o in (*backup_set.objects, *backup_set.definitions, backup_set.inventory))
        yield from (key for tombstone in history.tombstones for key in tombstone.keys)
        yield from (s.payload.key for s in history.segments if s.payload.key is not None)
    for stretch in below:
        yield from (s.payload.key for s in (*stretch.due, *stretch.waiting) if s.payload.key is not None)
