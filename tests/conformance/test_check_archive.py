"""`check` of an archive whose segments are listed by pages and joined in compacted objects, their small objects gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kpbackup.pipeline import sign
from kpbackup.plan import retention
from kpbackup.repository import binding, catalog, check, compact, prune
from kpbackup.repository.binding import Repository
from kpbackup.storage import open_backend
from tests.archives import Growing

START = datetime(2025, 11, 29, 12, 0, tzinfo=UTC)


@pytest.fixture
def joined(tmp_path: Path) -> Repository:
    """Three days of hourly segments; those of whole days lie in compacted objects alone. Nothing is released."""
    key = sign.SigningKey.generate()
    made = binding.create_repository(
        open_backend(tmp_path.as_uri()), signing_key=key, source="shop", flavour="mariadb", created_at=START
    )
    repository = Repository(made.backend, made.binding, made.public_keys, key, page_rows=8)
    growing = Growing(repository, START, timedelta(hours=1), with_data=True)
    growing.back_up()
    growing.grow(72)
    now = START + timedelta(days=4)
    compact.run(repository, "0001", now)
    found = catalog.read_catalog(repository)
    policy = retention.Policy(days=30, complete_chains=1, grace_period=timedelta())
    later = datetime.now(UTC) + timedelta(days=1)
    prune.execute(repository, found, retention.plan_prune(found, policy, now), policy, later)
    return repository


def problems(repository: Repository) -> dict[str, str]:
    """What is wrong, but for data keys: these archives have none."""
    fresh = binding.open_repository(repository.backend, public_keys=repository.public_keys)
    seen = Repository(fresh.backend, fresh.binding, fresh.public_keys, page_rows=8)
    return {one.key: one.costs for one in check.check(seen, read_percent=100).problems if not one.key.startswith("keys/")}


def objects(tmp_path: Path, below: str) -> list[Path]:
    return sorted(path for path in (tmp_path / below).rglob("*") if path.is_file())


def test_every_member_of_a_compacted_object_is_read(joined: Repository, tmp_path: Path) -> None:
    assert len(objects(tmp_path, "timelines/0001/segments")) < 40, "small objects were replaced"
    assert problems(joined) == {}
    victim = max(objects(tmp_path, "data/0001"), key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(bytes(data))
    (found,) = problems(joined).items()
    assert found[0] == victim.relative_to(tmp_path).as_posix() and found[1].startswith("the recoverable points after")


@pytest.mark.parametrize("below", ["timelines/0001/compacted", "timelines/0001/pages"])
def test_a_damaged_index_of_the_archive_is_named(joined: Repository, tmp_path: Path, below: str) -> None:
    victim = objects(tmp_path, below)[0]
    data = bytearray(victim.read_bytes())
    data[-3] ^= 1
    victim.write_bytes(bytes(data))
    assert victim.relative_to(tmp_path).as_posix() in " ".join(problems(joined)), problems(joined)


def test_a_removed_compacted_object_costs_the_points_of_its_segments(joined: Repository, tmp_path: Path) -> None:
    victim = max(objects(tmp_path, "data/0001"), key=lambda path: path.stat().st_size)
    victim.unlink()
    assert "the recoverable points after" in problems(joined)[victim.relative_to(tmp_path).as_posix()]
