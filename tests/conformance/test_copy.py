"""Second copies: whole at every moment, resumable, deaf to the origin's prune; an origin that lost something is found."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kpbackup import errors
from kpbackup.model.catalog import Catalog
from kpbackup.pipeline import sign
from kpbackup.plan import retention, timeline
from kpbackup.repository import binding, catalog, check, compact, copy, layout, prune
from kpbackup.repository.binding import Repository
from kpbackup.storage import Backend, open_backend
from tests.archives import Growing
from tests.cut_off import CutOffBackend, Refuse
from tests.vectors.vector import Vector

START = datetime(2025, 11, 29, 12, 0, tzinfo=UTC)


def content(store: Backend) -> dict[str, bytes]:
    """Everything but leases."""
    return {info.key: store.read(info.key) for info in store.list("") if not info.key.startswith(layout.LEASES)}


def copied(origin: Repository, store: Backend) -> copy.Copied:
    return copy.copy(origin, store, holder="test")


def after(cut: int) -> Refuse:
    """Every write behind the first `cut` reaches the store, and its answer is lost."""
    return lambda number, key: "after" if number > cut else ""


@pytest.fixture
def vector(tmp_path: Path) -> Vector:
    return Vector.thawed(tmp_path / "origin")


def test_a_copy_is_every_object_and_a_second_run_has_nothing_to_do(store: Backend, vector: Vector) -> None:
    done = copied(vector.repository(), store)
    assert done.problems == () and done.manifests > 10
    assert content(store) == content(vector.repository().backend)
    again = copied(vector.repository(), store)
    assert (again.manifests, again.objects, again.bytes) == (0, 0, 0)
    made = binding.open_repository(store, public_keys=vector.public_keys)
    assert check.check(made, read_percent=100, identities=vector.identities).problems == ()


def test_a_copy_cut_off_at_any_write_is_whole_and_is_finished_by_the_next_run(tmp_path: Path, vector: Vector) -> None:
    origin = vector.repository()
    writes = CutOffBackend(open_backend((tmp_path / "all").as_uri()))
    copied(origin, writes)
    for cut in range(0, len(writes.writes) - 1, 4):  # the last write gives the lease back
        place = tmp_path / f"cut-{cut}"
        store = CutOffBackend(open_backend(place.as_uri()), refuse=after(cut))
        with pytest.raises(errors.StorageError):
            copied(origin, store)
        if (place / layout.BINDING).exists():  # before that there is no repository
            made = binding.open_repository(open_backend(place.as_uri()), public_keys=vector.public_keys)
            assert check.check(made, read_percent=100, identities=vector.identities).problems == (), writes.writes[cut]
        whole = open_backend(place.as_uri())
        for lease in (place / "leases").glob("*"):
            lease.unlink()  # of the run that was cut off; else its whole time to live is waited
        copied(origin, whole)
        assert content(whole) == content(origin.backend)
        shutil.rmtree(place)


def test_what_the_origin_pruned_stays_in_the_copy_until_its_own_prune(tmp_path: Path) -> None:
    key = sign.SigningKey.generate()
    origin = binding.create_repository(
        open_backend((tmp_path / "origin").as_uri()), signing_key=key, source="shop", flavour="mariadb", created_at=START
    )
    growing = Growing(origin, START, timedelta(hours=1), with_data=True)
    for _ in range(3):
        growing.back_up()
        growing.grow(4)
    store = open_backend((tmp_path / "copy").as_uri())
    assert copied(origin, store).problems == ()
    before, now = content(store), START + timedelta(days=60)
    policy = retention.Policy(days=1, complete_chains=1, grace_period=timedelta())
    for later in (now, now + timedelta(days=1)):  # mark, then delete
        found = catalog.read_catalog(origin)
        prune.execute(origin, found, retention.plan_prune(found, policy, later), policy, later)
    growing.grow(2)
    assert copied(origin, store).problems == ()
    after = content(store)
    assert set(before) <= set(after) and set(content(origin.backend)) < set(after)
    made = binding.open_repository(store, public_keys=(key.public_key,))
    assert windows(catalog.read_catalog(made)) == windows(catalog.read_catalog(origin))
    kept = retention.Policy(grace_period=timedelta(days=7))
    deleted = prune.execute(made, catalog.read_catalog(made), retention.NOTHING, kept, now + timedelta(days=6)).deleted
    assert deleted == 0, "the copy's grace period is not over"
    prune.execute(made, catalog.read_catalog(made), retention.NOTHING, kept, now + timedelta(days=9))
    assert set(content(store)) == set(content(origin.backend))
    assert copied(origin, store).objects == 0, "and it is not copied again"


def test_a_first_copy_of_a_pruned_and_paged_archive_is_intact(tmp_path: Path) -> None:
    key = sign.SigningKey.generate()
    made = binding.create_repository(
        open_backend((tmp_path / "origin").as_uri()), signing_key=key, source="shop", flavour="mariadb", created_at=START
    )
    origin = Repository(made.backend, made.binding, made.public_keys, key, page_rows=8)
    growing = Growing(origin, START, timedelta(hours=1), with_data=True)
    growing.back_up()
    growing.grow(20)
    growing.back_up()
    growing.grow(20)
    compact.run(origin, "0001", START + timedelta(days=20))
    now, policy = START + timedelta(days=60), retention.Policy(days=1, complete_chains=1, grace_period=timedelta())
    found = catalog.read_catalog(origin)
    prune.execute(origin, found, retention.plan_prune(found, policy, now), policy, now)
    store = open_backend((tmp_path / "copy").as_uri())
    assert copied(origin, store).problems == ()
    opened = binding.open_repository(store, public_keys=(key.public_key,))
    seen = Repository(opened.backend, opened.binding, opened.public_keys, page_rows=8)
    assert windows(catalog.read_catalog(seen)) == windows(catalog.read_catalog(origin))
    assert not catalog.read_catalog(seen).damaged


def windows(found: Catalog) -> list[tuple[datetime, datetime]]:
    return [(one.start, one.end) for one in timeline.windows(found)]


def test_damage_at_the_origin_is_named_and_not_copied(tmp_path: Path, vector: Vector) -> None:
    victim = next(path for path in vector.files("data/") if path.stat().st_size > 500)
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(bytes(data))
    store = open_backend((tmp_path / "copy").as_uri())
    done = copied(vector.repository(), store)
    ((key, what),) = done.problems
    assert "/sets/" in key and "not those that were signed for" in what
    assert key not in content(store) and done.manifests > 5


def test_an_origin_that_shows_less_than_its_copy_is_found(tmp_path: Path, vector: Vector) -> None:
    store = open_backend((tmp_path / "copy").as_uri())
    copied(vector.repository(), store)
    newest = vector.files("timelines/0002/segments/")[-1]
    newest.unlink()
    ((key, what),) = copied(vector.repository(), store).problems
    assert key == vector.key_of(newest) and "rolled back" in what
    assert key in content(store), "the copy keeps it"


def test_another_repository_is_never_copied_over(tmp_path: Path, vector: Vector) -> None:
    other = open_backend((tmp_path / "other").as_uri())
    binding.create_repository(
        other, signing_key=sign.SigningKey.generate(), source="other", flavour="mariadb", created_at=START
    )
    before = content(other)
    with pytest.raises(errors.RepositoryError, match="another repository"):
        copied(vector.repository(), other)
    assert content(other) == before
