"""Windows and plans: gaps, two timelines, GTIDs, and what is said when a point cannot be reached."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from kpbackup import errors
from kpbackup.model import canonical
from kpbackup.model.catalog import Catalog, Damaged, History
from kpbackup.model.coordinates import Coordinates
from kpbackup.model.manifest import Observation, ObservationManifest
from kpbackup.plan import chain, timeline
from kpbackup.plan.timeline import Target
from tests.histories import Source, catalog

SECOND = timedelta(seconds=1)


def archived(flavour: str = "mysql") -> Source:
    """Three times: a transaction, a set, two transactions a second apart, each followed by a pass.

    So segments 1, 3 and 5 hold the sets' places, and 2, 4 and 6 one transaction (3, 6 and 9) each.
    """
    source = Source(flavour)
    for _ in range(3):
        source.commit()
        source.back_up()
        for _ in range(2):
            source.wait(1)
            source.commit()
            source.archive()
        source.wait(1)
    return source


def without(source: Source, *numbers: int) -> Catalog:
    """The catalog when these segments are gone."""
    kept = tuple(s for s in source.segments if s.head.seq not in numbers)
    return changed(source, dataclasses.replace(source.history(), segments=kept))


def changed(source: Source, *histories: History) -> Catalog:
    return dataclasses.replace(catalog(source), histories=histories)


def names(found: tuple[timeline.Window, ...]) -> list[tuple[str, ...]]:
    return [window.sets for window in found]


def test_one_unbroken_archive_is_one_window() -> None:
    source = archived()
    (window,) = timeline.windows(catalog(source))
    assert (window.timeline, window.start, window.gap) == ("0001", source.sets[0].clock, None)
    assert window.end == source.observed[-1].clock
    assert window.sets == ("0001-1", "0001-2", "0001-3")


def test_a_lost_segment_splits_the_windows_and_the_hint_names_both_edges() -> None:
    source = archived()
    found = without(source, 4)
    before, after = timeline.windows(found)
    assert names((before, after)) == [("0001-1", "0001-2"), ("0001-3",)]
    assert before.gap is not None and "segments 4 to 4 are missing" in before.gap.reason
    assert before.end == source.observed[2].clock
    for moment in (before.end + SECOND / 4, after.start - SECOND / 4):
        with pytest.raises(errors.UnreachableTarget) as refused:
            timeline.plan_restore(found, Target(time=moment))
        assert "it lies in a gap (segments 4 to 4 are missing" in refused.value.message
        edges = f"{canonical.time_text(before.end)} and {canonical.time_text(after.start)}"
        assert refused.value.hint == f"nearest recoverable points: {edges}"
    assert timeline.plan_restore(found, Target(time=before.end)).backup_set.name == "0001-2"
    assert timeline.plan_restore(found, Target(time=after.start)).backup_set.name == "0001-3"


def test_the_gap_that_is_named_is_the_one_the_target_lies_in() -> None:
    source = archived()
    found = without(source, 2, 4)
    for number in (2, 4):
        with pytest.raises(errors.UnreachableTarget, match=f"segments {number} to {number}"):
            timeline.plan_restore(found, Target(time=source.segments[number - 1].last_commit_at))


def test_before_the_first_and_after_the_last_point() -> None:
    source = archived()
    first, last = source.sets[0].clock, source.observed[-1].clock
    with pytest.raises(errors.UnreachableTarget, match="before the first recoverable point") as refused:
        timeline.plan_restore(catalog(source), Target(time=first - SECOND))
    assert refused.value.hint == f"nearest recoverable points: {canonical.time_text(first)}"
    with pytest.raises(errors.UnreachableTarget, match="after the last recoverable point") as refused:
        timeline.plan_restore(catalog(source), Target(time=last + SECOND / 1000))
    assert refused.value.hint == f"nearest recoverable points: {canonical.time_text(last)}"
    assert timeline.plan_restore(catalog(source), Target(time=first)).backup_set.name == "0001-1"
    assert timeline.plan_restore(catalog(source), Target(time=last)).reaches == last


def test_no_set_at_all() -> None:
    empty = changed(Source(), dataclasses.replace(Source().history()))
    with pytest.raises(errors.UnreachableTarget, match="no backup set") as refused:
        timeline.plan_restore(empty, Target(latest=True))
    assert "backup full" in refused.value.hint
    assert timeline.windows(empty) == () and timeline.newest_recovery_point(empty) is None


def test_an_observation_counts_only_when_the_archive_holds_its_position() -> None:
    source = archived()
    source.wait(60)
    source.archive()
    assert source.observation is not None
    assert timeline.newest_recovery_point(catalog(source)) == source.observed[-1].clock > source.observed[-2].clock
    end = source.here
    for at, counts in [
        (end, True),
        (dataclasses.replace(end, position=end.position + 1), False),
        (Coordinates("binlog.000002", 4), False),
    ]:
        seen = Observation(source.now + SECOND, at)
        beyond = ObservationManifest(source.observation.head, seen, len(source.segments), source.segments[-1].link)
        found = changed(source, dataclasses.replace(source.history(), observation=beyond))
        assert (timeline.newest_recovery_point(found) == seen.clock) is counts
    # the archive's end is cut off: what was observed there is not restorable any more
    assert timeline.newest_recovery_point(without(source, 6)) == source.observed[4].clock


def test_a_set_newer_than_the_archive() -> None:
    source = archived()
    source.commit()
    late = source.back_up()
    plan = timeline.plan_restore(catalog(source), Target(latest=True))
    assert (plan.backup_set, plan.segments, plan.reaches) == (late, (), late.clock)
    with pytest.raises(errors.UnreachableTarget):
        timeline.plan_restore(catalog(source), Target(time=late.clock + SECOND / 1000))
    between = (source.observed[-1].clock + (late.clock - source.observed[-1].clock) / 2).replace(microsecond=0)
    assert timeline.plan_restore(catalog(source), Target(time=min(between, source.observed[-1].clock))).backup_set is not late


@pytest.mark.parametrize("flavour", ["mariadb", "mysql"])
def test_a_gtid_is_looked_for_after_the_newest_set_without_it(flavour: str) -> None:
    source = archived(flavour)  # sets hold 1, 4 and 7 transactions
    for number, wanted in [(2, 1), (3, 1), (4, 1), (5, 2), (7, 2), (8, 3), (9, 3)]:
        for target in (Target(gtid=source.gtid(number)), Target(before_gtid=source.gtid(number))):
            assert timeline.plan_restore(catalog(source), target).backup_set.head.seq == wanted
    for number in (1, 10):  # in the first set; not yet committed
        with pytest.raises(errors.UnreachableTarget, match="no archived transaction has it") as refused:
            timeline.plan_restore(catalog(source), Target(gtid=source.gtid(number)))
        assert "recoverable windows: " in refused.value.hint


@pytest.mark.parametrize(("flavour", "unknown"), [
    ("mariadb", "7-11-3"),
    ("mysql", "33333333-3333-3333-3333-333333333333:3"),
    ("mysql", "11111111-1111-1111-1111-111111111111:tag:3"),
])
def test_an_unknown_gtid_is_unreachable(flavour: str, unknown: str) -> None:
    with pytest.raises(errors.UnreachableTarget):
        timeline.plan_restore(catalog(archived(flavour)), Target(gtid=unknown))


def test_a_position_before_a_set_in_the_same_segment_needs_the_older_set() -> None:
    source = archived()
    set_2, after = source.sets[1].coordinates, source.transactions[4]
    assert source.segments[2].start.position < set_2.position < source.segments[2].end.position
    for position, wanted in [(set_2.position - 1, 1), (set_2.position, 2), (after.end, 2)]:
        plan = timeline.plan_restore(catalog(source), Target(position=Coordinates(set_2.file, position)))
        assert plan.backup_set.head.seq == wanted
    with pytest.raises(errors.UnreachableTarget, match="no chain of segments contains it"):
        timeline.plan_restore(catalog(source), Target(position=Coordinates(set_2.file, 4)))


def test_a_gtid_in_a_lost_segment_is_unreachable() -> None:
    source = archived()
    for number in (6, 7):  # 7 is in set 3
        with pytest.raises(errors.UnreachableTarget):
            timeline.plan_restore(without(source, 4), Target(gtid=source.gtid(number)))
    assert timeline.plan_restore(without(source, 4), Target(gtid=source.gtid(8))).backup_set.name == "0001-3"


@pytest.mark.parametrize(("flavour", "text"), [
    ("mariadb", "1-11"), ("mariadb", "11111111-1111-1111-1111-111111111111:3"), ("mysql", "1-11-3"),
    ("mysql", "11111111-1111-1111-1111-111111111111:3-4"),
])
def test_what_is_no_gtid_of_one_transaction_is_a_usage_error(flavour: str, text: str) -> None:
    with pytest.raises(errors.UsageError) as refused:
        timeline.plan_restore(catalog(archived(flavour)), Target(gtid=text))
    assert refused.value.hint.startswith("write it like")


def test_a_gtid_may_be_spelt_otherwise() -> None:
    source = archived("mysql")
    asked = source.gtid(5).upper().replace(":", " : ")
    assert timeline.plan_restore(catalog(source), Target(gtid=asked)).target.gtid == source.gtid(5)


def two_timelines(flavour: str) -> tuple[Source, Source]:
    """The source was set back to its sixth transaction and goes on; what it had written after that is only in timeline 1."""
    old = archived(flavour)
    new = old.restored(6, wait=10)
    new.back_up()
    for _ in range(5):
        new.wait(1)
        new.commit()
    new.archive()
    return old, new


@pytest.mark.parametrize("flavour", ["mariadb", "mysql"])
def test_two_timelines(flavour: str) -> None:
    old, new = two_timelines(flavour)
    both = catalog(old, new)
    assert names(timeline.windows(both)) == [("0001-1", "0001-2", "0001-3"), ("0002-1",)]
    assert timeline.plan_restore(both, Target(latest=True)).backup_set.name == "0002-1"
    assert timeline.plan_restore(both, Target(time=old.observed[-1].clock)).backup_set.name == "0001-3"
    assert timeline.plan_restore(both, Target(time=new.observed[-1].clock)).backup_set.name == "0002-1"
    with pytest.raises(errors.UnreachableTarget, match="between two timelines"):
        timeline.plan_restore(both, Target(time=new.sets[0].clock - SECOND))
    # numbers 7 to 9 were given twice: the server id or UUID tells whose is meant
    assert timeline.plan_restore(both, Target(gtid=old.gtid(9))).backup_set.name == "0001-3"
    assert timeline.plan_restore(both, Target(gtid=new.gtid(9))).backup_set.name == "0002-1"
    assert timeline.plan_restore(both, Target(gtid=old.gtid(5))).backup_set.name == "0001-2"


def test_a_newer_timeline_without_a_set_hides_nothing() -> None:
    old = archived()
    both = catalog(old, old.restored(6))
    assert timeline.plan_restore(both, Target(latest=True)).backup_set.name == "0001-3"
    assert timeline.newest_recovery_point(both) == old.observed[-1].clock


def test_latest_refuses_to_stop_silently_at_a_gap() -> None:
    source = archived()
    found = without(source, 5)
    with pytest.raises(errors.UnreachableTarget, match="gap before its end") as refused:
        timeline.plan_restore(found, Target(latest=True))
    point = timeline.recovery_point(found.histories[0], chain.chains(found.histories[0])[-1])
    assert canonical.time_text(point) in refused.value.hint
    assert timeline.plan_restore(found, Target(time=point)).backup_set.name == "0001-3"
    older = without(source, 1, 3)
    assert timeline.plan_restore(older, Target(latest=True)).backup_set.name == "0001-3"


def test_latest_refuses_a_damaged_end() -> None:
    source = archived()
    found = without(source, 6)
    damaged = (Damaged(source.segments[5].head.key, "bad signature"),)
    history = dataclasses.replace(found.histories[0], damaged=damaged)
    with pytest.raises(errors.IntegrityError, match="0000000006: bad signature"):
        timeline.plan_restore(dataclasses.replace(found, histories=(history,), damaged=damaged), Target(latest=True))


def jumped(source: Source, by: timedelta) -> None:
    """The clock of the source, and of whoever stores, is another one from now on."""
    source.now += by


@pytest.mark.parametrize("flavour", ["mariadb", "mysql"])
def test_a_stamp_from_the_future_is_no_recovery_point(flavour: str) -> None:
    """A session set the time a day ahead: else the RPO would be nothing for a day, whatever becomes of the archive."""
    source = archived(flavour)
    source.commit(stamp=source.now + timedelta(days=1))
    last = source.commit()
    source.archive()
    (window,) = timeline.windows(catalog(source))
    assert window.end == timeline.newest_recovery_point(catalog(source)) == source.observed[-1].clock
    # it can still be asked for, and is what `--to` says: everything before the first transaction stamped so or later
    plan = timeline.plan_restore(catalog(source), Target(time=source.transactions[-2].stamp))
    assert plan.backup_set.name == "0001-3" and plan.segments[-1].end.gtid == source.state(last.number)
    with pytest.raises(errors.UnreachableTarget, match="after the last recoverable point"):
        timeline.plan_restore(catalog(source), Target(time=source.transactions[-2].stamp + SECOND))


def test_a_clock_that_jumped_a_day_ahead_and_back() -> None:
    """While it was ahead the recovery point was, too, as the source itself was; then it is the day of before again."""
    source = archived()
    day = timedelta(days=1)
    jumped(source, day)
    source.commit()
    source.archive()
    ahead = source.observed[-1].clock
    assert timeline.newest_recovery_point(catalog(source)) == ahead
    # only the source's clock was wrong: what is stored was stored today
    last, seen = source.segments[-1], source.observed[-1]
    source.segments[-1] = dataclasses.replace(last, head=dataclasses.replace(last.head, created_at=seen.clock - day))
    assert timeline.newest_recovery_point(catalog(source)) == ahead
    jumped(source, -day)
    source.wait(2)
    source.commit()
    source.archive()
    point = timeline.newest_recovery_point(catalog(source))
    assert point == source.observed[-1].clock and point < ahead - day + timedelta(minutes=1)


def test_a_source_whose_clock_is_another_than_ours() -> None:
    """An hour ahead of whoever stores: its stamps are right by its own clock."""
    source = archived()
    hour = timedelta(hours=1)
    source.segments[:] = [
        dataclasses.replace(one, head=dataclasses.replace(one.head, created_at=one.head.created_at - hour))
        for one in source.segments
    ]
    source.observed.clear()
    assert timeline.newest_recovery_point(catalog(source)) == max(
        source.segments[-1].last_commit_at, source.segments[-1].observation.clock  # type: ignore[union-attr, type-var]
    )
