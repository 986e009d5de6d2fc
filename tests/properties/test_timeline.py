"""Windows, plans and cuts of random histories against a replay of the plain list of transactions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpbackup import errors
from kpbackup.model.coordinates import Coordinates
from kpbackup.model.manifest import BackupSet
from kpbackup.plan import chain, timeline
from kpbackup.plan.timeline import RestorePlan, Target
from kpbackup.recovery import cut as cuts
from tests.histories import MemoryReader, Source, Txn, catalog

US = timedelta(microseconds=1)
SHIFTS = [-US, 0 * US, US, timedelta(seconds=-1), timedelta(milliseconds=400), timedelta(days=9)]
STEPS = st.lists(
    st.sampled_from(
        ["commit", "commit", "commit", "wait", "flush", "crash", "set", "archive 1", "archive 2", "archive 9", "archive 1 only 1"]
    ),
    max_size=25,
)
FLAVOURS = st.sampled_from(["mariadb", "mysql"])


def build(steps: Sequence[str], flavour: str) -> Source:
    source = Source(flavour)
    source.commit()
    source.back_up()
    for step in steps:
        run(source, step)
    return source


def run(source: Source, step: str) -> None:
    word, *numbers = step.split()
    if word == "archive":
        source.archive(most=int(numbers[0]), only=int(numbers[2]) if numbers[1:] else None)
    elif word == "set":
        source.back_up()
    elif word == "wait":
        source.wait(1.7)
    else:
        getattr(source, word)()


class Oracle:
    """What can be restored from one undamaged source, by its transactions, its sets' places and how far the archive came."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.head = self.place(source.segments[-1].end if source.segments else source.sets[0].coordinates)

    def place(self, at: Coordinates) -> tuple[int, int]:
        return self.source.place(at.file, at.position)

    def end(self, txn: Txn) -> tuple[int, int]:
        return self.source.place(txn.file, txn.end)

    def reach(self, backup_set: BackupSet) -> tuple[int, int]:
        return max(self.head, self.place(backup_set.coordinates))

    def point(self, backup_set: BackupSet) -> datetime:
        """The latest moment of which everything is in the set or the archive after it."""
        own, reach = self.place(backup_set.coordinates), self.reach(backup_set)
        stamps = [t.stamp for t in self.source.transactions if own < self.end(t) <= reach]
        seen = [o.clock for o in self.source.observed if self.place(o.position) <= reach]
        return max([backup_set.clock, *stamps, *seen])

    def held(self, backup_set: BackupSet) -> int:
        """How many transactions the set holds."""
        return sum(self.end(t) <= self.place(backup_set.coordinates) for t in self.source.transactions)

    def stored(self, backup_set: BackupSet) -> int:
        """How many transactions can be had in all, starting from this set."""
        return sum(self.end(t) <= self.reach(backup_set) for t in self.source.transactions)

    def best(self, target: Target) -> tuple[BackupSet, int] | None:
        """The newest usable set and how many transactions there must be after the restore."""
        found = [(one, count) for one in self.source.sets if (count := self.count(one, target)) is not None]
        return found[-1] if found else None

    def count(self, one: BackupSet, target: Target) -> int | None:
        held, stored = self.held(one), self.stored(one)
        all_of_them = self.source.transactions
        if target.time is not None:
            if target.time != one.clock and not one.clock < target.time <= self.point(one):
                return None
            asked = target.time.replace(microsecond=0) if self.source.flavour == "mariadb" else target.time
            return next((n for n in range(held, stored) if all_of_them[n].stamp >= asked), stored)
        wanted = target.gtid or target.before_gtid
        if wanted is not None:
            places = [n for n in range(held, stored) if all_of_them[n].gtid == wanted]
            return places[0] + (target.gtid is not None) if places else None
        if target.position is not None:
            at = self.place(target.position)
            exists = target.position.position <= len(self.source.files[at[0]].data)
            if not exists or not self.place(one.coordinates) <= at <= self.reach(one):
                return None
            return sum(self.end(t) <= at for t in all_of_them)
        return stored


def judge(source: Source, target: Target) -> None:
    """The plan is the oracle's, and what it replays is exactly the missing transactions."""
    wanted = Oracle(source).best(target)
    reader = MemoryReader(source)
    if wanted is None:
        with pytest.raises(errors.UnreachableTarget) as refused:
            cuts.find_cut(reader, timeline.plan_restore(catalog(source), target))
        assert refused.value.hint
        return
    plan = timeline.plan_restore(catalog(source), target)
    assert plan.backup_set.name == wanted[0].name
    assert replayed(source, plan, reader) == source.transactions[: wanted[1]]


def replayed(source: Source, plan: RestorePlan, reader: MemoryReader) -> list[Txn]:
    """The transactions a restore would end with: those of the set, then those read from the needed segments up to the cut."""
    cut = cuts.find_cut(reader, plan)
    place = Oracle(source).place
    start = place(plan.backup_set.coordinates)
    by_start = {source.place(t.file, t.start): t for t in source.transactions}
    found = [t for t in source.transactions if source.place(t.file, t.end) <= start]
    read = [t for segment in cut.segments for t in cuts.transactions(reader, segment)]
    for one in read:
        if start < source.place(one.file, one.end) <= place(cut.at):
            found.append(by_start[source.place(one.file, one.start)])
    check_neighbours(source, cut, found)
    return found


def check_neighbours(source: Source, cut: cuts.Cut, found: list[Txn]) -> None:
    """What the plan shows as last included and first excluded."""
    if cut.last_included is not None:
        assert cut.last_included.gtid == found[-1].gtid and cut.at.position == found[-1].end
        assert cuts.commit_time(cut.last_included) == found[-1].stamp
    if cut.first_excluded is not None:
        assert cut.first_excluded.gtid == source.transactions[len(found)].gtid


@given(STEPS, FLAVOURS, st.data())
def test_any_moment(steps: list[str], flavour: str, data: st.DataObject) -> None:
    source = build(steps, flavour)
    known = [one.clock for one in source.sets] + [o.clock for o in source.observed] + [t.stamp for t in source.transactions]
    near = data.draw(st.sampled_from(sorted(known)))
    judge(source, Target(time=near + data.draw(st.sampled_from(SHIFTS))))


@given(STEPS, FLAVOURS, st.data())
def test_any_transaction(steps: list[str], flavour: str, data: st.DataObject) -> None:
    source = build(steps, flavour)
    number = data.draw(st.integers(1, source.number + 2))
    judge(source, data.draw(st.sampled_from([Target(gtid=source.gtid(number)), Target(before_gtid=source.gtid(number))])))


@given(STEPS, FLAVOURS, st.data())
def test_any_position(steps: list[str], flavour: str, data: st.DataObject) -> None:
    source = build(steps, flavour)
    places = [(t.file, at) for t in source.transactions for at in (t.start, t.end)]
    places += [(f.name, at) for f in source.files for at in (4, len(f.data), len(f.data) + 50)]
    places += [(s.coordinates.file, s.coordinates.position) for s in source.sets]
    judge(source, Target(position=Coordinates(*data.draw(st.sampled_from(places)))))


@given(STEPS, FLAVOURS)
def test_latest(steps: list[str], flavour: str) -> None:
    judge(build(steps, flavour), Target(latest=True))


@given(STEPS, FLAVOURS)
def test_recovery_points_and_windows(steps: list[str], flavour: str) -> None:
    source = build(steps, flavour)
    oracle, history = Oracle(source), source.history()
    points = [timeline.recovery_point(history, found) for found in chain.chains(history)]
    assert points == [oracle.point(one) for one in source.sets]
    found = timeline.windows(catalog(source))
    assert [name for window in found for name in window.sets] == [one.name for one in source.sets]
    assert max(window.end for window in found) == max(points) == timeline.newest_recovery_point(catalog(source))
    for one, point in zip(source.sets, points, strict=True):
        assert any(window.start <= one.clock and point <= window.end and one.name in window.sets for window in found)
    for before, after in zip(found, found[1:], strict=False):
        assert before.end < after.start
