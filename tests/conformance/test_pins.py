"""Pins: written as signed entries, heeded by prune, taken back by a later entry."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kpbackup import errors
from kpbackup.pipeline import sign
from kpbackup.plan import retention
from kpbackup.repository import binding, catalog, lease, pins, prune
from kpbackup.repository.binding import Repository
from kpbackup.storage import open_backend
from tests.archives import Growing

START = datetime(2025, 11, 29, 12, 0, tzinfo=UTC)
NOW = START + timedelta(days=60)
POLICY = retention.Policy(days=1, complete_chains=1, grace_period=timedelta())


@pytest.fixture
def stocked(tmp_path: Path) -> Repository:
    """Three sets, of which retention keeps the newest alone."""
    made = binding.create_repository(
        open_backend(f"file://{tmp_path}"), signing_key=sign.SigningKey.generate(), source="shop", flavour="mariadb",
        created_at=START,
    )
    growing = Growing(made, START, timedelta(hours=1))
    for _ in range(3):
        growing.back_up()
        growing.grow(3)
    return made


def pin(repository: Repository, name: str, *, pinned: bool = True, reason: str = "") -> bool:
    return pins.write(repository, name, pinned=pinned, reason=reason, holder="test", now=NOW)


def decisions(repository: Repository) -> dict[str, tuple[bool, str]]:
    plan = retention.plan_prune(catalog.read_catalog(repository), POLICY, NOW)
    return {one.name: (one.keep, one.reason) for one in plan.decisions}


def test_a_pinned_set_outlives_retention_until_it_is_unpinned(stocked: Repository) -> None:
    assert not decisions(stocked)["set 0001-1"][0]
    assert pin(stocked, "0001-1", reason="the audit")
    assert not pin(stocked, "0001-1"), "a second time changes nothing"
    assert decisions(stocked)["set 0001-1"] == (True, "pinned on 2026-01-28: the audit")
    found = catalog.read_catalog(stocked)
    prune.execute(stocked, found, retention.plan_prune(found, POLICY, NOW), POLICY, NOW)
    assert [one.name for one in catalog.read_catalog(stocked).histories[0].sets] == ["0001-1", "0001-3"]
    assert pin(stocked, "0001-1", pinned=False) and not pin(stocked, "0001-1", pinned=False)
    assert not decisions(stocked)["set 0001-1"][0]


def test_a_set_that_is_not_there_cannot_be_pinned(stocked: Repository) -> None:
    with pytest.raises(errors.UsageError, match="no set '0001-9'"):
        pin(stocked, "0001-9")


def test_no_pin_while_a_prune_may_carry_out_a_plan_that_does_not_know_it(stocked: Repository) -> None:
    with lease.acquire(stocked, "prune", holder="the prune", ttl_s=6), pytest.raises(errors.LeaseHeld):
        pin(stocked, "0001-1")
    assert pin(stocked, "0001-1")
