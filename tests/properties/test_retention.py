"""Retention over random histories, judged by what plan_restore can still do afterwards: nothing that was promised is lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpbackup import errors
from kpbackup.model import manifest
from kpbackup.model.catalog import Catalog, History
from kpbackup.plan import chain, retention, timeline
from tests.unit.plain_histories import Source, catalog, head, pruned, when

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
    return sum(one.gap is None and not one.released for history in found.histories for one in chain.chains(history))


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
            assert kept.segments == whole.segments
            assert kept.released or (kept.gap is None) == (whole.gap is None)
            assert not kept.released or not whole.segments  # with its chain, or nothing was ever there
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


@settings(max_examples=150, deadline=None)
@given(catalogs(), st.integers(1, 3), st.tuples(*[st.integers(0, 3)] * 3), st.data())
def test_sets_kept_alone_are_those_of_a_simple_oracle(
    made: tuple[Catalog, int], days: int, counts: tuple[int, int, int], data: st.DataObject
) -> None:
    """Weeks, months, years and pins by counting backwards, which is another way than the code's."""
    found, end = made
    found = spread(found, data.draw(st.integers(1, 40)))
    names = [one.name for history in found.histories for one in history.sets]
    held = data.draw(st.sets(st.sampled_from(names)))
    found = pinned(found, held)
    weekly, monthly, yearly = counts
    now = when(end * 41 + 1000)
    policy = retention.Policy(days=days, complete_chains=1, weekly=weekly, monthly=monthly, yearly=yearly)
    plan = retention.plan_prune(found, policy, now)
    reasons = {one.name.removeprefix("set "): one.reason for one in plan.decisions if one.keep and one.name.startswith("set ")}

    wanted = set(held)
    for count, form in ((weekly, "%G-%V"), (monthly, "%Y-%m"), (yearly, "%Y")):
        seen: list[str] = []
        earliest: dict[tuple[str, str], str] = {}
        for one in sorted((s for h in found.histories for s in h.sets), key=lambda s: s.clock, reverse=True):
            period = one.clock.strftime(form)
            if period not in seen and len(seen) < count:
                seen.append(period)
            if period in seen:
                earliest[one.head.timeline, period] = one.name
        wanted |= {*earliest.values()}
    assert wanted <= reasons.keys()
    assert reasons.keys() == wanted | plan.chained
    assert all(reasons[name].startswith("pinned") for name in held - plan.chained)
    left = after(found, plan)
    for history in left.histories:
        for kept in chain.chains(history):
            assert kept.gap is None or not kept.released
            at = timeline.plan_restore(left, timeline.Target(time=kept.backup_set.clock))
            assert at.backup_set.clock == kept.backup_set.clock  # its own moment is still there
    again = retention.plan_prune(left, policy, now)
    assert (again.release_sets, again.release_segments) == ((), ())


@settings(max_examples=60, deadline=None)
@given(catalogs(), st.integers(1, 3), st.tuples(*[st.integers(0, 3)] * 3), st.integers(1, 40))
def test_forged_sets_of_the_future_push_nothing_out(
    made: tuple[Catalog, int], days: int, counts: tuple[int, int, int], forged: int
) -> None:
    """Whoever has the signing key writes sets of months to come, each a complete chain: all that was kept is kept."""
    found, end = made
    weekly, monthly, yearly = counts
    policy = retention.Policy(days=days, complete_chains=2, weekly=weekly, monthly=monthly, yearly=yearly)
    now = when(end + 24 * days)
    before = {one.name for one in retention.plan_prune(found, policy, now).decisions if one.keep and one.name.startswith("set ")}
    last = found.histories[-1]
    newest = last.sets[-1]
    sets = tuple(
        replace(newest, head=replace(newest.head, seq=newest.head.seq + number), clock=now + timedelta(days=2 + 31 * number))
        for number in range(1, forged + 1)
    )
    changed = replace(last, sets=(*last.sets, *sets), newest={**last.newest, "sets": (sets[-1].head.seq, now)})
    plan = retention.plan_prune(replace(found, histories=(*found.histories[:-1], changed)), policy, now)
    released = {f"set {one.name}" for one in plan.release_sets}
    assert not released & before


@settings(max_examples=60, deadline=None)
@given(catalogs(), st.integers(1, 40), st.integers(1, 3), st.tuples(*[st.integers(0, 3)] * 3), st.data())
def test_forged_sets_of_the_past_push_nothing_out(
    made: tuple[Catalog, int], factor: int, days: int, counts: tuple[int, int, int], data: st.DataObject
) -> None:
    """Whoever has the signing key appends sets that claim any time until the newest one's, in any order: all that weeks, months,
    years and pins kept is kept."""
    found, end = made
    found = spread(found, factor)
    weekly, monthly, yearly = counts
    policy = retention.Policy(days=days, complete_chains=1, weekly=weekly, monthly=monthly, yearly=yearly)
    now = when(end * 41 + 1000)
    before = {one.name for one in retention.plan_prune(found, policy, now).decisions if one.keep and " of its " in one.reason}
    last = found.histories[-1]
    newest = max(one.clock for history in found.histories for one in history.sets)
    claimed = data.draw(st.lists(st.integers(0, 500 * 24), min_size=1, max_size=12))
    sets = tuple(
        replace(last.sets[-1], head=replace(last.sets[-1].head, seq=last.sets[-1].head.seq + number),
                clock=newest - timedelta(hours=hours))
        for number, hours in enumerate(claimed, 1)
    )  # fmt: skip
    changed = replace(last, sets=(*last.sets, *sets), newest={**last.newest, "sets": (sets[-1].head.seq, now)})
    plan = retention.plan_prune(replace(found, histories=(*found.histories[:-1], changed)), policy, now)
    assert not {f"set {one.name}" for one in plan.release_sets} & before


def test_a_set_that_claims_a_month_of_the_past_takes_nobodys_place() -> None:
    """Of January, March and April there are sets; whoever has the key makes one of February and later ones of each month."""
    source = Source()
    for day in (0, 61, 92):  # of May, July and August
        source.full(day * 24 + 2)
        source.archive(day * 24 + 26)
    found = catalog(source.history())
    policy = retention.Policy(days=1, complete_chains=1, monthly=3)
    now = when(200 * 24)
    last = found.histories[-1]
    forged = tuple(
        replace(last.sets[-1], head=replace(last.sets[-1].head, seq=4 + number), clock=when(day * 24))
        for number, day in enumerate((10, 31, 45, 70, 100))
    )
    changed = replace(last, sets=(*last.sets, *forged), newest={**last.newest, "sets": (8, now)})
    plan = retention.plan_prune(replace(found, histories=(changed,)), policy, now)
    reasons = {one.name: one.reason for one in plan.decisions if one.keep}
    assert [name for name in reasons if "month" in reasons[name]] == ["set 0001-1", "set 0001-2", "set 0001-3", "set 0001-5"]


def spread(found: Catalog, factor: int) -> Catalog:
    """The same catalog with sets days and weeks apart: clocks stretched, places in the binlog as they were."""

    def later(moment: datetime) -> datetime:
        return when(0) + (moment - when(0)) * factor

    def stretched(history: History) -> History:
        return replace(
            history,
            sets=tuple(replace(s, clock=later(s.clock)) for s in history.sets),
            segments=tuple(
                replace(
                    s, last_commit_at=later(s.last_commit_at) if s.last_commit_at else None,
                    observation=replace(s.observation, clock=later(s.observation.clock)) if s.observation else None,
                )
                for s in history.segments
            ),
        )  # fmt: skip

    return replace(found, histories=tuple(stretched(history) for history in found.histories))


def pinned(found: Catalog, names: set[str]) -> Catalog:
    def pins(history: History) -> tuple[manifest.Pin, ...]:
        held = [one.head.seq for one in history.sets if one.name in names]
        others = [one.head.seq for one in history.sets if one.name not in names]
        events = [*((seq, True) for seq in held), *((seq, True) for seq in others), *((seq, False) for seq in others)]
        return tuple(manifest.Pin(head("pin", history.id, n, when(n)), seq, on) for n, (seq, on) in enumerate(events, 1))

    return replace(found, histories=tuple(replace(history, pins=pins(history)) for history in found.histories))


def test_a_set_kept_alone_lets_its_segments_go() -> None:
    source = Source()
    for day in range(60):
        source.full(day * 24 + 2)
        source.archive(day * 24 + 26)
    found = catalog(source.history())
    policy = retention.Policy(days=5, complete_chains=1, monthly=2)
    plan = retention.plan_prune(found, policy, when(60 * 24 + 3))
    kept = [one.name for one in plan.decisions if one.keep and one.name.startswith("set ")]
    # the first ones of May and June, and those that the last five days need
    assert kept[:2] == ["set 0001-1", "set 0001-32"] and len(kept) == 2 + 5
    (release,) = plan.release_segments
    assert release.count > 100
    left = after(found, plan)
    alone = chain.chains(left.histories[0])[0]
    assert alone.released and alone.gap is None and alone.segments == ()
    windows = timeline.windows(left)
    assert (windows[0].start, windows[0].end, windows[0].gap) == (when(2), when(2), None)
    with pytest.raises(errors.UnreachableTarget, match="kept set 0001-1 alone"):
        timeline.plan_restore(left, timeline.Target(time=when(730)))


def test_a_set_before_a_missing_segment_at_the_anchor_is_a_gap_and_not_a_release() -> None:
    """Segments that were removed below what the anchor kept must not pass for released ones."""
    source = Source()
    for day in range(4):
        source.full(day * 24 + 2)
        source.archive(day * 24 + 26)
    history = source.history()
    at = history.segments[4]
    anchor = manifest.Anchor(head("anchor", history.id, 1, when(0)), at.head.seq, at.link_before)
    whole = replace(history, segments=history.segments[4:], anchor=anchor)
    assert chain.chains(whole)[0].released
    cut = replace(whole, segments=whole.segments[1:])
    assert not any(one.released for one in chain.chains(cut))
    assert chain.runs(cut)[1]


@pytest.mark.parametrize(("days", "kept"), [(1, ["0001-2", "0001-3"]), (2, ["0001-1", "0001-2", "0001-3"])])
def test_the_set_before_the_horizon_is_kept_for_the_points_after_it(days: int, kept: list[str]) -> None:
    source = Source()
    for day in range(3):
        source.full(day * 24 + 2)
        source.archive(day * 24 + 26)
    plan = retention.plan_prune(catalog(source.history()), retention.Policy(days=days, complete_chains=1), when(74))
    assert [one.name.removeprefix("set ") for one in plan.decisions if one.keep and one.name.startswith("set ")] == kept
