"""Renewing Object Locks of what is kept longer than its lock: pinned sets, weekly, monthly, yearly ones, chains of any age.

A lock is put on when an object is written, until retention would release it. Who keeps it longer renews it: prune, which knows
what is kept. Whatever has less than half of its lock's period left is locked for a whole period from now.

Renewed is what every kept moment needs, and nothing else (the closure). A set: its manifest, data, inventory, data key, pin.
Segments: pages, the newest compacted object that holds a payload, the small object where none does, large payloads, data keys.
Around them: timeline, newest anchor, binding, reader, sealed identities, and the application bundles that are kept. So small
objects that a compacted one replaces run out of their locks, and the next prune can delete them.

Limits: reports, canaries and evidence of recoveries keep the lock they were written with. What is released meanwhile stays locked
until its lock is over. Locks are only made longer: a crash leaves some of them renewed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from kpbackup.model.catalog import Catalog, History
from kpbackup.model.manifest import ApplicationManifest, BackupSet, Stretch
from kpbackup.model.stretch import Unit, data_keys, key_ids
from kpbackup.plan.retention import Policy, PrunePlan, plan_bundles
from kpbackup.repository import applications, layout
from kpbackup.repository.binding import Repository
from kpbackup.repository.released import Archive, covered
from kpbackup.storage import locks


@dataclass(frozen=True)
class Kept:
    """What a prune keeps: the archives as they are stored, without what its plan releases."""

    archives: Sequence[Archive]
    plan: PrunePlan
    bundles: Sequence[ApplicationManifest]


def renew(repository: Repository, kept: Kept, now: datetime) -> int:
    """Renews what is kept; the number of renewed locks. 0 where the settings ask for no lock.

    Raises:
        StorageError: the account may not lock (s3:PutObjectRetention), or the store failed; run it again.
    """
    lock = locks.of(repository.backend)
    if lock is None:
        return 0
    before = now - lock.period / 2  # what is younger has at least half of its lock before it
    return locks.renew(repository.backend, dict.fromkeys(needed(repository, kept, before)), now)


def bundles(repository: Repository, catalog: Catalog, plan: PrunePlan, policy: Policy) -> list[ApplicationManifest]:
    """The application bundles that are kept."""
    every = applications.all_manifests(repository)
    released = {one.head.key for one in plan_bundles(every, catalog, plan, policy).release}
    return [one for one in every if one.head.key not in released]


def needed(repository: Repository, kept: Kept, before: datetime) -> Iterator[str]:
    """Keys of all that is kept and needed and was written up to `before`; a few of what is younger, where that costs nothing."""
    found = [key for archive in kept.archives for key in _of_timeline(repository, archive, kept.plan, before)]
    for bundle in (one for one in kept.bundles if one.taken_at <= before):
        packed = bundle.files
        found += [bundle.head.key, *_key_objects(repository, bundle.sealing.key_id)]
        found += [*(one.key for one in packed.objects), *_key_objects(repository, packed.sealing.key_id)] if packed else []
    if found:
        yield layout.BINDING
        yield from _listed(repository, "reader-")
        yield from _listed(repository, layout.IDENTITIES)
    yield from found


def _of_timeline(repository: Repository, archive: Archive, plan: PrunePlan, before: datetime) -> Iterator[str]:
    history = archive.history
    released = {one.head.seq for one in plan.release_sets if one.head.timeline == history.id}
    first_kept = max((one.first_seq for one in plan.release_segments if one.timeline == history.id), default=0)
    sets = [one for one in history.sets if one.head.seq not in released and one.head.created_at <= before]
    units = list(_old(history.units, first_kept, before))
    newest, _ = history.newest.get("sets", (0, before))  # its manifest stays when it is released: only the mark says so
    marks = [one.head.key for one in history.tombstones if one.set_seq == newest and one.head.created_at <= before]
    if not (sets or units or marks):
        return
    yield history.timeline.head.key
    for one in sets:
        yield from _of_set(repository, history, one)
    yield from marks
    if units:
        yield from (one.head.key for one in (history.anchor,) if one is not None)
        yield from _of_archive(repository, archive, units, max(first_kept, units[0].first_seq))


def _of_set(repository: Repository, history: History, one: BackupSet) -> Iterator[str]:
    yield one.head.key
    yield from (stored.key for stored in (*one.objects, *one.definitions, one.inventory))
    yield from _key_objects(repository, one.sealing.key_id)
    if (pin := history.pinned.get(one.head.seq)) is not None:  # without it the next prune would release the set
        yield pin.head.key


def _old(units: Iterable[Unit], first_kept: int, before: datetime) -> Iterator[Unit]:
    """The kept units that begin with a segment written up to `before`: one is not older than the end of the unit before it."""
    ended: datetime | None = None
    for unit in units:
        began, ended = ended, unit.created_at
        if unit.last_seq >= first_kept and (began is None or began <= before):
            yield unit


def _of_archive(repository: Repository, archive: Archive, units: Sequence[Unit], first: int) -> Iterator[str]:
    last = units[-1].last_seq
    yield from (key for unit in units for key in data_keys(unit))
    for key_id in sorted({key_id for unit in units for key_id in key_ids(unit)}):
        yield from _key_objects(repository, key_id)
    spans = [(key, *covered(repository, key)) for key in archive.page_keys]
    yield from (key for key, begin, end in spans if end >= first and begin <= last)
    joined = [one for one in archive.compacted if one.last_seq >= first and one.first_seq <= last]
    topmost = [one for one in joined if not any(other.level > one.level and other.holds(one) for other in joined)]
    yield from (key for one in topmost for key in (one.key, one.object_key))
    paged = [unit for unit in units if isinstance(unit, Stretch)]
    elsewhere = {seq for one in topmost for seq in one.seqs} & {
        seq for unit in paged for seq in range(unit.first_seq, unit.last_seq + 1)
    }
    for key in archive.small:
        seq = layout.seq_of(key)
        if first <= seq <= last and (seq not in elsewhere or key == archive.small[-1]):
            yield key


def _key_objects(repository: Repository, key_id: str) -> Iterator[str]:
    yield from _listed(repository, layout.key_objects(key_id))


def _listed(repository: Repository, prefix: str) -> Iterator[str]:
    yield from (info.key for info in repository.backend.list(prefix))
