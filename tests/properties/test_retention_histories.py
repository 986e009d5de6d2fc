"""Retention over whole histories, on real repositories: what a simple oracle promises restores after every prune.

A history is a list of acts: segments, full backups, takeovers by another server, new timelines, lost segments, compaction, pins,
time that passes, prunes, and an enemy who deletes all that is not locked. The oracle knows none of the product's plans: it has a
list of sets, and which segments follow them without a break; a moment is the middle of a segment, or a set's own.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from kpbackup import errors
from kpbackup.model.manifest import BinlogSegment
from kpbackup.pipeline import sign
from kpbackup.plan import retention, timeline
from kpbackup.repository import catalog, choosing, compact, layout, payloads, pins, prune
from kpbackup.repository.binding import Repository
from tests import archives
from tests.archives import Growing
from tests.locking_store import LockingStore

EXAMPLES = int(os.environ.get("KPBACKUP_FUZZ_EXAMPLES", "8"))  # `make fuzz` takes more
KEY = sign.SigningKey.generate()
START = datetime(2025, 11, 20, 12, 0, tzinfo=UTC)
STEP, DAY = timedelta(hours=2), timedelta(days=1)
PERIODS = (("weekly", "%G-%V"), ("monthly", "%Y-%m"), ("yearly", "%Y"))


@dataclass
class Copied:
    """A set as the oracle knows it: behind how many segments of its timeline it was made."""

    name: str
    clock: datetime
    behind: int
    pinned: bool = False


@dataclass
class Line:
    """A timeline: its archive grows by `growing`; `lost` are the numbers of segments that vanished."""

    growing: Growing
    sets: list[Copied] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)
    taken_over_at: int = 0  # behind so many segments

    def last_of(self, one: Copied) -> int:
        """The last segment that follows a set without a break."""
        end = one.behind
        while end < self.growing.segments and end + 1 not in self.lost:
            end += 1
        return end

    def middle(self, seq: int) -> datetime:
        """A moment inside a segment."""
        return self.growing.made[seq - 1].head.created_at - STEP / 2

    def reaches(self, one: Copied) -> datetime:
        last = self.last_of(one)
        return self.middle(last) if last > one.behind else one.clock


@dataclass
class World:
    """The repository, and the oracle's list of what was done. `promised` are moments -> (line, set, last segment)."""

    repository: Repository
    store: LockingStore
    policy: retention.Policy
    now: datetime = START
    lines: list[Line] = field(default_factory=list)
    _keys: int = 0  # of the newest line, whose objects are stored

    def act(self, what: str, count: int) -> None:
        line = self.lines[-1] if self.lines else None
        if line is None or what == "timeline":
            self._begin()
        elif what == "segments":
            line.growing.grow(count)
            self.now = line.growing.now
        elif what == "full":
            self._back_up(line)
        elif what == "takeover" and line.taken_over_at < line.growing.segments:  # whoever took over archives before the next
            line.taken_over_at = line.growing.segments
            line.growing.take_over()
        elif what == "lose":
            self._lose(line, count)
        elif what == "compact":
            for each in self.lines:
                compact.run(self._fresh(), each.growing.timeline, self.now)
        elif what == "pin":
            self._pin(count)
        elif what == "wait":
            self.now += count * DAY / 4
            line.growing.now = self.now
        for key_id in [*self.lines[-1].growing.keys][self._keys :]:
            self.repository.backend.put(layout.key_object(key_id, 1), [b"a data key"])
        self._keys = len(self.lines[-1].growing.keys)
        self.store.now = self.now
        self.store.write_dates()

    def _begin(self) -> None:
        number = layout.timeline_id(len(self.lines) + 1)
        made = Growing(
            self.repository, self.now, STEP, per_file=5, timeline=number, with_data=True, large_every=7, seed=len(self.lines) + 1,
            sets=0,
        )
        self.lines.append(Line(made))
        self._keys = 0
        self._back_up(self.lines[-1])
        made.grow(1)
        self.now = made.now

    def _back_up(self, line: Line) -> None:
        growing = line.growing
        growing.now += timedelta(seconds=1)  # two sets of one moment would be the same moment
        made = growing.back_up()
        self.now = growing.now
        line.sets.append(Copied(made.name, made.clock, growing.segments))

    def _lose(self, line: Line, count: int) -> None:
        """One of the newest segments, before anything else holds it; never the last: the next number follows it."""
        seq = line.growing.segments - count % 5 - 1
        stored = {info.key for info in self.repository.backend.list(layout.timeline_prefix(line.growing.timeline))}
        if seq < 1 or any("/pages/" in key or "/compacted/" in key for key in stored):
            return
        key = line.growing.made[seq - 1].head.key
        if key in stored:
            self.repository.backend.delete(key)
            line.lost.add(seq)

    def _pin(self, count: int) -> None:
        every = [one for line in self.lines for one in line.sets]
        if every:
            one = every[count % len(every)]
            one.pinned = not one.pinned
            pins.write(self._fresh(), one.name, pinned=one.pinned, reason="", holder="test", now=self.now)

    # -- retention

    def prune(self) -> None:
        before = self.restorable()
        horizon = self.now - timedelta(days=self.policy.days)
        promised = self._promised(before, horizon)
        reader = self._fresh()
        found = catalog.read_catalog(reader)
        plan = retention.plan_prune(found, self.policy, self.now)
        done = prune.execute(reader, found, plan, self.policy, self.now)
        event(f"released sets: {done.sets > 0}, segments: {done.segments > 0}, deleted: {done.deleted > 0}")
        self._see(plan, horizon)
        self.store.lose_what_is_not_locked(self.now)
        self.assert_restorable(promised)

    def restorable(self) -> dict[datetime, tuple[Line, Copied, int]]:
        """Moment -> how it is restored: the newest set of its line from which the segments lead there."""
        found = {}
        for line in self.lines:
            for one in line.sets:  # in order, so the newest set that reaches a moment stays
                found[one.clock] = (line, one, one.behind)
                for seq in range(one.behind + 1, line.last_of(one) + 1):
                    found[line.middle(seq)] = (line, one, seq)
        return found

    def _promised(
        self, restorable: dict[datetime, tuple[Line, Copied, int]], horizon: datetime
    ) -> dict[datetime, tuple[Line, Copied, int]]:
        """What the policy says must restore: the last days, the newest complete chains, and sets kept for their own moment."""
        every = [(line, one) for line in self.lines for one in line.sets]
        complete = [(line, one) for line, one in every if line.last_of(one) == line.growing.segments]
        chained = {one.name for _, one in complete[max(0, len(complete) - self.policy.complete_chains) :]}
        alone = {one.name for _, one in every if one.pinned} | {every[-1][1].name}
        for word, form in PERIODS:
            first = {(one.clock.strftime(form), line.growing.timeline): one.name for line, one in reversed(every)}
            periods = sorted({period for period, _ in first})
            asked = periods[max(0, len(periods) - int(getattr(self.policy, word))) :]
            alone |= {name for (period, _), name in first.items() if period in asked}
        return {
            moment: (line, one, seq)
            for moment, (line, one, seq) in restorable.items()
            if moment >= horizon or (moment == one.clock and one.name in alone)
            or any(other.name in chained and other in line.sets and other.clock <= moment for other in line.sets)
        }

    def _see(self, plan: retention.PrunePlan, horizon: datetime) -> None:
        """Takes over what was released, which must be what may be: nothing that is old is kept without a reason."""
        released = {one.name for one in plan.release_sets}
        firsts = {one.timeline: one.first_seq for one in plan.release_segments}
        reasons = {one.name.removeprefix("set "): one.reason for one in plan.decisions if one.keep}
        for line in self.lines:
            line.sets = [one for one in line.sets if one.name not in released]
            for seq in range(1, firsts.get(line.growing.timeline, 0)):
                line.lost.add(seq)
            for one in line.sets:
                if "points of the last" in reasons[one.name]:
                    assert one.clock < horizon <= line.reaches(one) + STEP, f"{one.name} is kept for nothing"

    def assert_restorable(self, promised: dict[datetime, tuple[Line, Copied, int]]) -> None:
        """Each promised moment has a plan, and all that the plan needs is there, byte for byte."""
        reader = self._fresh()
        assert not catalog.read_catalog(reader).damaged
        source = payloads.Payloads(reader)
        read: set[tuple[str, int]] = set()
        stored = {info.key for info in self.repository.backend.list("")}
        asked = sorted(promised)
        asked = sorted({*asked[:: 1 + len(asked) // 10], *asked[:1], *asked[-1:]})  # each plan reads the catalog anew
        for moment, (line, one, seq) in sorted(promised.items()):
            self._assert_kept(source, line, one, seq, read)
            if moment not in asked:
                continue
            plan = _planned(reader, moment)
            assert plan is not None and plan.backup_set.clock <= moment <= plan.reaches, (moment, one, seq)
            assert plan.backup_set.inventory.key in stored
            assert layout.key_object(plan.backup_set.sealing.key_id, 1) in stored

    def _assert_kept(self, source: payloads.Payloads, line: Line, one: Copied, seq: int, read: set[tuple[str, int]]) -> None:
        """What the oracle needs for a moment: the segments between its set and it, and their keys."""
        for segment in line.growing.made[one.behind : seq]:
            if (line.growing.timeline, segment.head.seq) not in read:
                self._assert_stored(source, segment)
                read.add((line.growing.timeline, segment.head.seq))

    def _assert_stored(self, source: payloads.Payloads, segment: BinlogSegment) -> None:
        content = b"".join(source.read(segment))
        assert len(content) == segment.payload.bytes, segment.head.key
        assert list(self.repository.backend.list(layout.key_objects(segment.sealing.key_id))), segment.head.key

    def _fresh(self) -> Repository:
        return dataclasses.replace(self.repository, backend=self.store, verified={}, stretches={})


def _planned(repository: Repository, moment: datetime) -> timeline.RestorePlan | None:
    try:
        return choosing.plan_restore(repository, timeline.Target(time=moment))
    except errors.UnreachableTarget:
        return None


@contextmanager
def worlds(policy: retention.Policy) -> Iterator[World]:
    with archives.in_memory(KEY, START, page_rows=8) as repository:
        period = timedelta(days=policy.days) + policy.grace_period
        yield World(repository, LockingStore(repository, now=START, period=period), policy)


ACTS = st.lists(
    st.tuples(
        st.sampled_from(("segments", "segments", "segments", "full", "full", "compact", "takeover", "timeline", "lose", "pin",
                         "wait", "prune", "prune")),
        st.integers(1, 24),
    ),
    min_size=4, max_size=24,
)  # fmt: skip
POLICIES = st.builds(
    retention.Policy, days=st.integers(1, 4), complete_chains=st.integers(1, 3), grace_period=st.sampled_from([timedelta(), DAY]),
    weekly=st.integers(0, 2), monthly=st.integers(0, 2), yearly=st.integers(0, 1),
)  # fmt: skip


@settings(max_examples=EXAMPLES, deadline=None)
@example([*[("segments", 1)] * 5, ("full", 1), ("takeover", 1), ("segments", 1)], retention.Policy(days=1, complete_chains=1))
@given(ACTS, POLICIES)
def test_whatever_happens_what_the_policy_promises_restores(acts: list[tuple[str, int]], policy: retention.Policy) -> None:
    with worlds(policy) as world:
        world.act("timeline", 1)
        for what, count in acts:
            if what == "prune":
                world.prune()
            else:
                world.act(what, count)
        world.prune()
        world.act("wait", 8)
        world.prune()  # now what the first released has gone, the grace period is over
