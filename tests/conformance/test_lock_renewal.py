"""What `prune` locks anew is enough: an enemy deletes all that is no longer locked, and every kept moment still restores.

The archives are real signed objects in a directory, the locks are held by a small store with a clock of its own;
`tests/integration/test_object_lock.py` has the calls on a real S3 server.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from kpbackup.model.application import Bundle
from kpbackup.pipeline import encrypt, sign
from kpbackup.plan import retention
from kpbackup.repository import applications, catalog, compact, layout, payloads, pins, prune, sealed_identity
from kpbackup.repository.binding import Repository
from tests import archives
from tests.archives import Growing
from tests.locking_store import LockingStore

KEY = sign.SigningKey.generate()
START = datetime(2025, 11, 20, 12, 0, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
PERIOD = 2 * DAY
JUST_BEFORE_NEXT = PERIOD / 2 - timedelta(seconds=1)  # the next prune is due by then
ROWS = 8
POLICY = retention.Policy(days=300)


@pytest.fixture
def grown() -> Iterator[Growing]:
    """Five days of a segment every 45 minutes, a set every other day, each day with a data key; some payloads stand alone."""
    with archives.in_memory(KEY, START, page_rows=ROWS) as made:
        growing = Growing(made, START, timedelta(minutes=45), per_file=37, with_data=True, large_every=29)
        growing.back_up()
        growing.grow(160, sets_every=2 * DAY)
        for key_id in growing.keys:
            growing.repository.backend.put(layout.key_object(key_id, 1), [b"a data key"])
        sealed_identity.store(growing.repository.backend, b"an identity, sealed")
        yield growing


def locking(grown: Growing) -> tuple[Repository, LockingStore]:
    store = LockingStore(grown.repository, now=grown.now, period=PERIOD)
    store.write_dates()
    return dataclasses.replace(grown.repository, backend=store, verified={}, stretches={}), store


def pruned(repository: Repository, store: LockingStore, now: datetime, policy: retention.Policy) -> prune.Pruned:
    store.now = now
    reader = dataclasses.replace(repository, verified={}, stretches={})
    found = catalog.read_catalog(reader)
    return prune.execute(reader, found, retention.plan_prune(found, policy, now), policy, now)


@pytest.mark.parametrize("stored", ["segment by segment", "joined, small ones still there", "joined alone"])
def test_what_is_locked_is_enough_for_every_kept_moment(grown: Growing, stored: str) -> None:
    repository, store = locking(grown)
    now = grown.now + 3 * HOUR
    store.now = now
    small = sum(info.key.startswith("timelines/0001/segments/") for info in store.list("timelines/"))
    if stored != "segment by segment":
        compact.run(repository, "0001", now)
    if stored == "joined alone":
        store.now = now = grown.now + 1.5 * DAY
        pruned(repository, store, now, POLICY)
    before = catalog.read_history(repository, "0001")
    segments = catalog.detailed(repository, before, before.units).segments
    store.asked = 0
    done = pruned(repository, store, now + 6 * HOUR, POLICY)
    assert done.renewed_locks > 0 or stored == "joined alone"  # there the first prune renewed them
    assert store.asked < (1.2 if stored == "segment by segment" else 0.4) * small + 80, "few questions once segments are joined"
    gone = store.lose_what_is_not_locked(now + 6 * HOUR + JUST_BEFORE_NEXT)
    assert stored == "segment by segment" or len(gone) > 60 or stored == "joined alone", "what others hold runs out"

    reader = dataclasses.replace(repository, verified={}, stretches={})
    after = catalog.read_history(reader, "0001")
    assert (after.damaged, after.sets, after.newest) == ((), before.sets, before.newest)
    assert catalog.detailed(reader, after, after.units).segments == segments == tuple(grown.made)
    source = payloads.Payloads(reader)
    assert all(len(b"".join(source.read(one))) == one.payload.bytes for one in segments)
    left = {info.key for info in store.list("")}
    assert len(grown.keys) == 9 and {layout.key_object(key_id, 1) for key_id in grown.keys} <= left
    assert {one.inventory.key for one in after.sets} <= left
    assert {layout.sealed_identity(1), layout.BINDING, "reader-1.py", "reader-1.py.minisig"} <= left


def test_what_is_released_runs_out(grown: Growing) -> None:
    """A pinned set of long ago and its pin are locked anew; the segments that nothing kept needs are not."""
    repository, store = locking(grown)
    now = grown.now + 3 * HOUR
    store.now = now - 30 * HOUR
    pins.write(repository, "0001-1", pinned=True, reason="audit", holder="test", now=store.now)
    policy = retention.Policy(days=1, complete_chains=1)
    pruned(repository, store, now, policy)
    found = catalog.read_history(repository, "0001")
    assert found.anchor is not None and found.sets[0].head.seq == 1 and len(found.sets) == 2
    store.now = now + 1.2 * DAY
    pruned(repository, store, store.now, POLICY)
    store.lose_what_is_not_locked(store.now + JUST_BEFORE_NEXT)
    reader = dataclasses.replace(repository, verified={}, stretches={})
    after = catalog.read_history(reader, "0001")
    assert not after.damaged and after.pinned[1].reason == "audit" and after.sets[0] == found.sets[0]
    assert after.anchor is not None and after.units[0].first_seq == after.anchor.first_seq
    assert store.until[grown.made[0].head.key] < store.now, "a released segment was not locked anew"


def test_marks_and_bundles_are_locked_anew(grown: Growing) -> None:
    """The mark of a released set whose manifest stays, since it is the newest; and the application as it was then."""
    repository, store = locking(grown)
    now = store.now = grown.now + 3 * HOUR
    bundle = Bundle(now, "cluster", "v1", "shop", "shop", "", None, ())
    stored = applications.store(repository, bundle, (encrypt.Identity.generate().recipient,))
    found = catalog.read_catalog(repository)
    plan = retention.PrunePlan((), (found.histories[0].sets[-1],), ())
    prune.execute(repository, found, plan, dataclasses.replace(POLICY, grace_period=9 * DAY), now)
    store.now = now + 1.2 * DAY
    assert prune.execute(repository, catalog.read_catalog(repository), retention.NOTHING, POLICY, store.now).renewed_locks
    store.lose_what_is_not_locked(store.now + JUST_BEFORE_NEXT)
    reader = dataclasses.replace(repository, verified={}, stretches={})
    assert catalog.read_history(reader, "0001").sets == found.histories[0].sets[:-1]
    assert len(list(store.list("timelines/0001/tombstones/"))) == 1, "an enemy may leave the set and take its mark alone"
    assert applications.all_manifests(reader) == [stored]
    assert list(store.list(layout.key_objects(stored.sealing.key_id)))


def test_without_a_lock_in_the_settings_nothing_is_asked(grown: Growing) -> None:
    repository, store = locking(grown)
    store.lock = None
    before = dict(store.until)
    assert pruned(repository, store, grown.now + 3 * HOUR, POLICY).renewed_locks == 0
    assert store.until == before
