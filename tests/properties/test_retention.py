"""Retention over random histories, judged by what plan_restore can still do afterwards: nothing that was promised is lost."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpbackup import errors
from kpbackup.model.catalog import Catalog
from kpbackup.plan import chain, retention, timeline
from tests.unit.plain_histories import Source, catalog, pruned, when

STEPS = st.lists(st.tuples(st.sampled_from(["full", "archive", "nothing"]), st.integers(1, 30)), max_size=14)


@st.composite
def catalogs(draw: st.DrawFn) -> tuple[Catalog, int]:
    """A catalog of up to three timelines with holes, and the hour it ends at."""
    hour, histories = 0, []
    for number in range(1, draw(st.integers(1, 3)) + 1):
        source = Source(timeline=f"{number:04d}")
        source.full(hour)
        for act, hours in draw(STEPS):
            hour += hours
            if act == "full":
                source.full(hour)
            elif act == "archive" and source.archived is not None and hour > source.archived:
                source.archive(hour)
        lost = draw(st.sets(st.integers(1, max(1, len(source.segments))), max_size=2)) if draw(st.booleans()) else ()
        # the newest segment may be lost too, but then nobody can know
        histories.append(source.history(without_segments=lost))
        hour += draw(st.integers(1, 10))
    return catalog(*histories), hour


def restorable(found: Catalog, moment: datetime) -> bool:
    try:
        plan = timeline.plan_restore(found, timeline.Target(time=moment))
    except errors.UnreachableTarget:
        return False
    return plan.backup_set.clock <= moment <= plan.reaches


def latest(found: Catalog) -> str | None:
    """The set `latest` is restored from, None when that is refused."""
    try:
        return timeline.plan_restore(found, timeline.Target(latest=True)).backup_set.name
    except errors.UnreachableTarget:
        return None


def after(found: Catalog, plan: retention.PrunePlan) -> Catalog:
    return pruned(
        found,
        released_sets={one.name for one in plan.release_sets},
        first_kept={one.timeline: (one.first_seq, one.link_before) for one in plan.release_segments},
    )


def complete(found: Catalog) -> int:
    return sum(one.gap is None for history in found.histories for one in chain.chains(history))


@settings(max_examples=60, deadline=None)
@given(catalogs(), st.integers(1, 6), st.integers(1, 3), st.integers(0, 100))
def test_nothing_promised_is_lost(made: tuple[Catalog, int], days: int, chains: int, later: int) -> None:
    found, end = made
    now = when(end + later)
    policy = retention.Policy(days=days, complete_chains=chains)
    plan = retention.plan_prune(found, policy, now)
    left = after(found, plan)

    horizon = now - timedelta(days=days)
    for hour in range(end + 2):
        for moment in (when(hour), when(hour + 0.5)):
            if moment >= horizon and restorable(found, moment):
                assert restorable(left, moment), moment
    assert complete(left) >= min(chains, complete(found))
    for before, now_left in zip(found.histories, left.histories, strict=True):
        assert not before.segments or now_left.segments[-1] == before.segments[-1]  # the next number follows it
        for kept in chain.chains(now_left):
            whole = next(one for one in chain.chains(before) if one.backup_set == kept.backup_set)
            assert (kept.segments, kept.gap is None) == (whole.segments, whole.gap is None)
            assert timeline.recovery_point(now_left, kept) == timeline.recovery_point(before, whole)
    assert latest(left) == latest(found)


@settings(max_examples=100, deadline=None)
@given(catalogs(), st.integers(1, 6))
def test_pruning_again_at_the_same_moment_releases_nothing(made: tuple[Catalog, int], days: int) -> None:
    found, end = made
    policy = retention.Policy(days=days, complete_chains=1)
    left = after(found, retention.plan_prune(found, policy, when(end)))
    again = retention.plan_prune(left, policy, when(end))
    assert (again.release_sets, again.release_segments) == ((), ())


@settings(max_examples=100, deadline=None)
@given(catalogs(), st.integers(1, 6), st.integers(1, 3))
def test_every_decision_has_a_reason_and_old_sets_do_go(made: tuple[Catalog, int], days: int, chains: int) -> None:
    found, end = made
    plan = retention.plan_prune(found, retention.Policy(days=days, complete_chains=chains), when(end + 10_000))
    assert all(one.reason for one in plan.decisions)
    kept = [one.name for one in plan.decisions if one.keep and one.name.startswith("set ")]
    total = sum(len(history.sets) for history in found.histories)
    assert len(kept) + len(plan.release_sets) == total
    assert len(kept) <= chains + 1  # the chains asked for, and the newest set where its chain is broken


@pytest.mark.parametrize(("days", "kept"), [(1, ["0001-2", "0001-3"]), (2, ["0001-1", "0001-2", "0001-3"])])
def test_the_set_before_the_horizon_is_kept_for_the_points_after_it(days: int, kept: list[str]) -> None:
    source = Source()
    for day in range(3):
        source.full(day * 24 + 2)
        source.archive(day * 24 + 26)
    plan = retention.plan_prune(catalog(source.history()), retention.Policy(days=days, complete_chains=1), when(74))
    assert [one.name.removeprefix("set ") for one in plan.decisions if one.keep and one.name.startswith("set ")] == kept
