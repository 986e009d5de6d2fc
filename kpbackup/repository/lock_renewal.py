"""Renewing Object Locks of sets that are kept longer than their lock: pinned, weekly, monthly, yearly, of the last chains.

A lock is put on when an object is written, until retention would release it. Who keeps it longer renews it: prune, which knows
what is kept. Whatever has less than half of its lock's period left is locked for a whole period from now.

Renewed is what restores a set's own moment: its manifest, data, key objects, the timeline, the binding and the reader. Limits:
segments are not renewed; those of a chain that is kept longer than the lock are kept, and no longer locked. A set that is
released meanwhile stays locked until its lock is over. Locks are only made longer: a crash leaves some of them renewed.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kpbackup.model.catalog import Catalog
from kpbackup.plan.retention import PrunePlan
from kpbackup.repository import layout
from kpbackup.repository.binding import Repository
from kpbackup.storage import locks


def renew(repository: Repository, catalog: Catalog, plan: PrunePlan, now: datetime) -> int:
    """Renews what `plan` keeps; the number of renewed locks. 0 where the settings ask for no lock.

    Raises:
        StorageError: the account may not lock (s3:PutObjectRetention), or the store failed; run it again.
    """
    lock = locks.of(repository.backend)
    if lock is None:
        return 0
    before = now - lock.period / 2  # what is younger has at least half of its lock before it
    return locks.renew(repository.backend, dict.fromkeys(_kept(repository, catalog, plan, before)), now)


def _kept(repository: Repository, catalog: Catalog, plan: PrunePlan, before: datetime) -> Iterator[str]:
    released = {(one.head.timeline, one.head.seq) for one in plan.release_sets}
    for history in catalog.histories:
        buried = {tombstone.set_seq for tombstone in history.tombstones}
        kept = [one for one in history.sets if (history.id, one.head.seq) not in released and one.head.seq not in buried]
        if not kept or kept[0].head.created_at > before:
            continue
        yield from (layout.BINDING, history.timeline.head.key)
        yield from (info.key for info in repository.backend.list("reader-"))
        for one in kept:
            if one.head.created_at <= before:
                yield one.head.key
                yield from (stored.key for stored in (*one.objects, *one.definitions, one.inventory))
                yield from (info.key for info in repository.backend.list(layout.key_objects(one.sealing.key_id)))
