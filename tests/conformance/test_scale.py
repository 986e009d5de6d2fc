"""Pages and compaction on long archives: what readers find stays the same, what they ask for does not grow with the archive.

The archives are real signed objects in a directory. Requests are counted, not seconds; `make soak` has the year and the clock.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import zstandard

from kpbackup import errors
from kpbackup.model import canonical, codec
from kpbackup.model import manifest as m
from kpbackup.model.catalog import Catalog, History
from kpbackup.model.coordinates import order
from kpbackup.model.heads import Heads
from kpbackup.pipeline import sign
from kpbackup.plan import chain, retention, timeline
from kpbackup.repository import (
    catalog,
    check,
    choosing,
    compact,
    heads,
    layout,
    objects,
    pages,
    payloads,
    prune,
    trust,
)
from kpbackup.repository.binding import Repository
from kpbackup.storage import ObjectInfo
from tests import archives
from tests.archives import Growing, payload_of
from tests.cut_off import CutOffBackend

KEY = sign.SigningKey.generate()
START = datetime(2025, 11, 29, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
ROWS = 8  # a page of these tests: eight segments, and 64 on a page of pages


class Counting(CutOffBackend):
    """Counts what a reader asks the store for."""

    def __init__(self, repository: Repository) -> None:
        super().__init__(repository.backend)
        self.asked: Counter[str] = Counter()

    def get(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        self.asked["get"] += 1
        return super().get(key, offset=offset, length=length)

    def read(self, key: str, *, limit_bytes: int = 64 << 20) -> bytes:
        self.asked["get"] += 1
        return super().read(key, limit_bytes=limit_bytes)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        self.asked["list"] += 1
        for info in super().list(prefix, after=after):
            self.asked["listed"] += 1
            yield info


def fresh(repository: Repository) -> tuple[Repository, Counting]:
    """The same repository for a process that read nothing of it before."""
    store = Counting(repository)
    return dataclasses.replace(repository, backend=store, verified={}, stretches={}), store


@pytest.fixture
def repository() -> Iterator[Repository]:
    with archives.in_memory(KEY, START, page_rows=ROWS) as made:
        yield made


@pytest.fixture
def grown(repository: Repository) -> Growing:
    """Three days of a segment every twenty minutes, over a month's end, a set a day: 216 segments."""
    growing = Growing(repository, START, timedelta(minutes=20), per_file=37)
    growing.back_up()
    growing.grow(216, sets_every=DAY)
    return growing


def read(repository: Repository) -> History:
    return catalog.read_history(fresh(repository)[0], "0001")


def upkeep(repository: Repository, growing: Growing, *, after: timedelta = timedelta(hours=2)) -> compact.Upkeep:
    return compact.run(fresh(repository)[0], "0001", growing.now + after)


def test_pages_say_what_their_segments_say(grown: Growing, repository: Repository) -> None:
    before = read(repository)
    assert before.segments == tuple(grown.made) and before.stretches == ()
    made = upkeep(repository, grown)
    assert made.pages == 216 // 8 + 216 // 64  # levels 0 and 1
    after = read(repository)
    assert len(after.stretches) == 27 and after.segments == ()
    assert after.newest == before.newest and after.segment_count == 216
    assert catalog.detailed(repository, after, after.units).segments == before.segments
    assert chain.runs(after)[1] == chain.runs(before)[1] == ()
    both = [timeline.windows(catalog_of(repository, one)) for one in (before, after)]
    assert both[0] == both[1] and sum(len(window.sets) for window in both[0]) == 4
    again = upkeep(repository, grown)
    assert (again.pages, again.objects) == (0, 0)


def test_a_clock_that_was_put_right_is_seen_in_pages_too(grown: Growing, repository: Repository) -> None:
    """An hour ahead of what the last set was told: believed, for it is the source's own clock that says so."""
    upkeep(repository, grown)
    history = read(repository)
    last, late = history.stretches[-1], timedelta(hours=1)
    assert last.observation is not None and last.last_commit_at is not None and history.observation is None
    ahead = dataclasses.replace(
        last, last_commit_at=last.last_commit_at + late,
        observation=dataclasses.replace(last.observation, clock=last.observation.clock + 3 * late),
    )  # fmt: skip
    seen = dataclasses.replace(history, stretches=(*history.stretches[:-1], ahead))
    assert timeline.newest_recovery_point(catalog_of(repository, seen)) == last.observation.clock + 3 * late


def catalog_of(repository: Repository, history: History) -> Catalog:
    return Catalog(repository.binding, (history,), ())


@pytest.mark.parametrize("days", [0.5, 1.2, 2.9])
def test_a_plan_from_pages_is_the_plan_from_segments(grown: Growing, repository: Repository, days: float) -> None:
    whole = read(repository)
    upkeep(repository, grown)
    for target in (
        timeline.Target(time=START + days * DAY),
        timeline.Target(gtid=f"1-11-{int(days * 72) * 10 + 3}"),
        timeline.Target(position=grown.made[int(days * 72)].end),
        timeline.Target(latest=True),
    ):
        wanted = timeline.plan_restore(catalog_of(repository, whole), target)
        reader, store = fresh(repository)
        found = choosing.plan_restore(reader, target)
        assert (found.backup_set, found.target, found.reaches) == (wanted.backup_set, wanted.target, wanted.reaches)
        # all that is needed to find the cut, and no more than the pages it lies in
        assert found.segments == wanted.segments[: len(found.segments)]
        assert bool(found.segments) == bool(wanted.segments)
        last = next((s for s in wanted.segments if _is_behind(s, target)), None) or (wanted.segments or (None,))[-1]
        assert (last is None or last in found.segments) and (target.latest or len(found.segments) <= 72 + 3 * ROWS)
        assert store.asked["get"] < 60 and store.asked["listed"] < 150, store.asked


def _is_behind(segment: m.BinlogSegment, target: timeline.Target) -> bool:
    """Whether the point lies in this segment or before it."""
    if target.gtid is not None:
        return int(segment.gtids.rpartition("-")[2]) >= int(target.gtid.rpartition("-")[2])
    if target.position is not None:
        return order(segment.end) >= order(target.position)
    return target.time is not None and segment.last_commit_at is not None and segment.last_commit_at >= target.time


def test_a_reader_does_not_ask_for_each_segment(grown: Growing, repository: Repository) -> None:
    reader, store = fresh(repository)
    catalog.read_catalog(reader)
    assert store.asked["get"] > 216 and store.asked["listed"] > 216
    upkeep(repository, grown)
    grown.grow(ROWS // 2)
    reader, store = fresh(repository)
    found = catalog.read_catalog(reader).current
    assert found is not None and found.segment_count == 216 + ROWS // 2
    # sets, timeline; three pages of pages, three pages and the tail; nothing for a segment that a page lists
    assert store.asked["get"] <= 5 + 2 * 3 + 3 + ROWS // 2
    assert store.asked["list"] <= 4 and store.asked["listed"] < 150  # most are keys of compacted objects
    for _ in range(2):  # and a process that goes on reads what is new
        store.asked.clear()
        assert catalog.read_catalog(reader).current == found
        assert store.asked["get"] == 0
    store.asked.clear()
    tail = catalog.read_current(fresh(repository)[0])
    assert tail is not None and tail.units[-1] == found.units[-1] and tail.newest == found.newest


def test_compaction_joins_hours_and_then_days(repository: Repository) -> None:
    growing = Growing(repository, START, timedelta(minutes=10))
    growing.back_up()
    growing.grow(14)  # 12:10 to 14:20
    assert upkeep(repository, growing, after=timedelta()).objects == 2  # the hours of 12 and 13
    assert upkeep(repository, growing, after=timedelta()).objects == 0
    growing.grow(60)  # to 00:20
    assert upkeep(repository, growing, after=timedelta()).objects == 11  # ten more hours, and the day
    found = read(repository).compacted
    assert [(one.first_seq, one.last_seq) for one in found if one.level == 1][:3] == [(1, 5), (6, 11), (12, 17)]
    assert [(one.first_seq, one.last_seq) for one in found if one.level == 2] == [(1, 71)]
    compacted, _ = repository.read(found[-1].key, m.Compacted)
    stored = b"".join(repository.backend.get(compacted.object.key))
    for member, segment in zip(compacted.members, growing.made, strict=False):
        assert stored[member.offset : member.offset + member.bytes] == b"".join(payload_of(repository, segment))
        assert (member.seq, member.sha256, member.link) == (segment.head.seq, segment.payload.sha256, segment.link)


def test_payloads_are_read_from_wherever_they_are(grown: Growing, repository: Repository) -> None:
    wanted = {segment.head.seq: b"".join(payload_of(repository, segment)) for segment in grown.made}
    upkeep(repository, grown)
    reader, store = fresh(repository)
    source = payloads.Payloads(reader)
    assert {s.head.seq: b"".join(source.read(s)) for s in grown.made} == wanted
    assert store.asked["get"] < 60  # one for each object and its manifest, and the few that are not joined yet
    store.asked.clear()
    for number in (170, 3, 4, 5, 100):  # and in any order, some of them begun and left
        next(source.read(grown.made[number]))
        assert b"".join(source.read(grown.made[number])) == wanted[number + 1]


def test_prune_takes_small_objects_away_when_others_hold_them(grown: Growing, repository: Repository) -> None:
    upkeep(repository, grown)
    policy = retention.Policy(days=300)
    before = read(repository)
    payload = {s.head.seq: b"".join(payload_of(repository, s)) for s in grown.made}
    assert pruned(repository, grown.now + timedelta(hours=3), policy) == 0  # the grace period
    deleted = pruned(repository, grown.now + timedelta(days=2), policy)
    left = [info.key for info in repository.backend.list(layout.log_prefix("0001", "segments"))]
    # the last day is not over, so some of it is not joined; the newest segment's key is what the next one's is built from
    assert 1 <= len(left) < 40 and left[-1] == grown.made[-1].head.key
    assert deleted >= 216 - len(left)
    after = read(repository)
    assert (after.units, after.newest, after.sets) == (before.units, before.newest, before.sets)
    assert catalog.detailed(repository, after, after.units).segments == tuple(grown.made)
    source = payloads.Payloads(fresh(repository)[0])
    assert {s.head.seq: b"".join(source.read(s)) for s in grown.made} == payload
    days = [one for one in after.compacted if one.level == 2]
    assert len(days) == 3 and not any(
        day.first_seq <= hour.first_seq and hour.last_seq <= day.last_seq
        for day in days for hour in after.compacted if hour.level == 1
    )
    assert pruned(repository, grown.now + timedelta(days=2), policy) == 0
    grown.grow(10)  # and the archive goes on
    assert read(repository).segment_count == 226


def pruned(repository: Repository, now: datetime, policy: retention.Policy) -> int:
    reader = fresh(repository)[0]
    found = catalog.read_catalog(reader)
    return prune.execute(reader, found, retention.plan_prune(found, policy, now), policy, now).deleted


def test_retention_over_pages(grown: Growing, repository: Repository) -> None:
    upkeep(repository, grown)
    policy = retention.Policy(days=1, complete_chains=1)
    now = grown.now + timedelta(hours=3)
    found = catalog.read_catalog(repository)
    wanted = {
        day: choosing.plan_restore(repository, timeline.Target(time=grown.now - day * DAY)).backup_set.name for day in (0.1, 0.9)
    }
    pruned(repository, now, policy)
    released = read(repository)
    assert 0 < len(released.sets) < len(found.histories[0].sets)
    assert released.anchor is not None and released.units[0].first_seq == released.anchor.first_seq
    pruned(repository, now + timedelta(days=1, hours=1), dataclasses.replace(policy, days=2))  # the same horizon
    left = read(repository)
    assert left.units == released.units and chain.runs(left)[1] == ()
    for day, name in wanted.items():
        plan = choosing.plan_restore(fresh(repository)[0], timeline.Target(time=grown.now - day * DAY))
        assert plan.backup_set.name == name
    stored = {info.key for info in repository.backend.list("")}
    first = released.anchor.first_seq
    assert not any(layout.seq_of(key) < first for key in stored if "/segments/" in key)
    assert all((layout.parse_page(key) or (0, 0))[1] * ROWS >= first for key in stored if "/pages/0/" in key)
    ranges = [span for key in stored if (span := layout.parse_compacted(key))]
    assert ranges and all(last >= first for _, _, last in ranges)
    named = {repository.read(one.key, m.Compacted)[0].object.key for one in left.compacted}
    assert {key for key in stored if key.startswith("data/")} == named


def test_a_compacted_object_that_differs_keeps_the_small_ones(grown: Growing, repository: Repository) -> None:
    upkeep(repository, grown)
    day = next(one for one in read(repository).compacted if one.level == 2)
    path = Path(repository.backend.name.removeprefix("file://")) / repository.read(day.key, m.Compacted)[0].object.key
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    stored = {info.key for info in repository.backend.list("")}
    with pytest.raises(errors.IntegrityError, match="not the one that was archived"):
        pruned(repository, grown.now + timedelta(days=2), retention.Policy(days=300))
    assert {info.key for info in repository.backend.list("")} == stored


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("where", ["manifest", "rows"])
def test_a_damaged_page_costs_nothing_while_the_segments_are_there(
    grown: Growing, repository: Repository, level: int, where: str
) -> None:
    whole = read(repository)
    upkeep(repository, grown)
    key = layout.page("0001", level, 2 if level else 27)
    path = Path(repository.backend.name.removeprefix("file://")) / key
    data = bytearray(path.read_bytes())
    data[400 if where == "manifest" else -20] ^= 1
    path.write_bytes(data)
    reader, store = fresh(repository)
    found = catalog.read_history(reader, "0001")
    if (level, where) != (0, "rows"):  # those are read when a plan needs them
        assert [one.key for one in found.damaged] == [key]
        assert store.asked["get"] < 60
    if (level, where) == (0, "rows"):
        with pytest.raises(errors.IntegrityError, match="rows of page"):
            catalog.detailed(reader, found, found.units)
    else:
        assert catalog.detailed(reader, found, found.units).segments == whole.segments
        assert chain.runs(found)[1] == ()


def test_no_page_hides_a_gap(grown: Growing, repository: Repository) -> None:
    repository.backend.delete(grown.made[40].head.key)
    upkeep(repository, grown)
    found = read(repository)
    assert len(found.stretches) == 26 and len(found.segments) == ROWS - 1
    assert [gap.reason for gap in chain.runs(found)[1]] == ["segments 41 to 41 are missing or damaged"]


def test_upkeep_that_dies_at_any_write(repository: Repository, tmp_path: Path) -> None:
    growing = Growing(repository, START, timedelta(minutes=50))
    growing.back_up()
    growing.grow(17)
    counted, store = fresh(repository)
    whole = compact.run(counted, "0001", growing.now + DAY)
    assert whole.pages == 2 and whole.objects
    for key in store.writes:
        repository.backend.delete(key)
    for number in range(1, len(store.writes) + 1):
        for how in ("before", "after"):

            def refuse(at: int, key: str, n: int = number, way: str = how) -> str:
                return way if at == n else "before" if at > n else ""

            broken = CutOffBackend(repository.backend, refuse=refuse)
            with pytest.raises(errors.StorageError, match="cut off"):
                compact.run(dataclasses.replace(repository, backend=broken, verified={}, stretches={}), "0001", growing.now + DAY)
            found = read(repository)
            assert catalog.detailed(repository, found, found.units).segments == tuple(growing.made) and not found.damaged
            reader = payloads.Payloads(fresh(repository)[0])
            assert all(b"".join(reader.read(s)) == b"".join(payload_of(repository, s)) for s in growing.made)
            upkeep(repository, growing, after=DAY)
            done = read(repository)
            assert len(done.stretches) == 2 and len(done.compacted) == whole.objects
            orphans = {info.key for info in repository.backend.list("data/")}
            orphans -= {repository.read(one.key, m.Compacted)[0].object.key for one in done.compacted}
            assert len(orphans) <= 1
            for key in [info.key for info in repository.backend.list("")]:
                if "/pages/" in key or "/compacted/" in key or key.startswith("data/"):
                    repository.backend.delete(key)


def test_two_writers_of_a_page_write_it_once(grown: Growing, repository: Repository) -> None:
    one, two = fresh(repository)[0], fresh(repository)[0]
    history = catalog.read_history(one, "0001")
    first = pages.write_due(one, history, [])
    assert pages.write_due(two, history, []) == first


def test_upkeep_is_due_until_it_is_done(grown: Growing, repository: Repository) -> None:
    soon = grown.now + timedelta(hours=2)
    assert compact.is_due(read(repository), soon, page_rows=ROWS)
    upkeep(repository, grown)
    assert not compact.is_due(read(repository), soon, page_rows=ROWS)
    grown.grow(ROWS)  # a page, and hours that are over
    assert compact.is_due(read(repository), grown.now, page_rows=ROWS)
    upkeep(repository, grown, after=timedelta())
    assert not compact.is_due(read(repository), grown.now, page_rows=ROWS)
    assert compact.is_due(read(repository), grown.now + DAY, page_rows=ROWS)  # the day that will be over then


def test_one_damaged_payload_keeps_nothing_else_from_being_joined(grown: Growing, repository: Repository) -> None:
    path = Path(repository.backend.name.removeprefix("file://")) / grown.made[40].head.key
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(errors.IntegrityError, match="not the one it was signed for"):
        upkeep(repository, grown)
    found = read(repository)
    assert len(found.stretches) == 27  # of the manifests nothing is damaged
    joined = {seq for one in found.compacted for seq in range(one.first_seq, one.last_seq + 1)}
    assert 41 not in joined and len(joined) > 200


@pytest.mark.parametrize("kept", ["pinned", "weekly"])
def test_sets_kept_alone_beside_pages(grown: Growing, repository: Repository, kept: str) -> None:
    """The set stays and restores its own moment; the segments behind it go, from small and compacted objects alike."""
    upkeep(repository, grown)
    if kept == "pinned":
        key = layout.log_entry("0001", "pins", month_of=START, seq=1)
        head = repository.head("pin", key=key, created_at=grown.now, timeline="0001", seq=1)
        repository.create(m.Pin(head, 1, True, "before the migration"))
    policy = retention.Policy(days=1, complete_chains=1, weekly=2 if kept == "weekly" else 0)
    before = read(repository)
    weeks = {one.clock.isocalendar()[:2]: one for one in reversed(before.sets)}  # the first set of each
    held = [before.sets[0]] if kept == "pinned" else [*reversed(weeks.values())]
    alone = held[0]
    pruned(repository, grown.now + timedelta(hours=3), policy)
    pruned(repository, grown.now + timedelta(hours=30), policy)
    found = read(repository)
    assert found.anchor is not None and found.anchor.first_seq > 64
    assert alone in found.sets and found.units[0].first_seq == found.anchor.first_seq
    released = {one.backup_set.name: one.released for one in chain.chains(found)}
    assert [name for name, is_alone in released.items() if is_alone] == [one.name for one in held]
    plan = choosing.plan_restore(fresh(repository)[0], timeline.Target(time=alone.clock))
    assert plan.backup_set == alone and plan.segments == ()
    with pytest.raises(errors.UnreachableTarget, match="was kept alone|kept set"):
        choosing.plan_restore(fresh(repository)[0], timeline.Target(time=alone.clock + timedelta(minutes=30)))
    reader = payloads.Payloads(fresh(repository)[0])
    every = catalog.detailed(repository, found, found.units).segments
    assert [one.head.seq for one in every] == list(range(found.anchor.first_seq, 217))
    for one in every:
        data = b"".join(reader.read(one))
        assert (len(data), hashlib.sha256(data).hexdigest()) == (one.payload.bytes, one.payload.sha256)
    assert pruned(repository, grown.now + timedelta(hours=30), policy) == 0


@pytest.fixture
def begun_inside(grown: Growing, repository: Repository) -> History:
    """The kept archive begins inside a page: pages were written between a prune's plan and its anchor."""
    found = catalog.read_catalog(fresh(repository)[0])
    plan = retention.PrunePlan((), (), (retention.Release("0001", 150, grown.made[148].link, 149),))
    upkeep(repository, grown)
    prune.execute(repository, found, plan, retention.Policy(), grown.now)
    whole = read(repository)
    assert whole.anchor is not None and whole.anchor.first_seq == 150
    assert whole.units[0].first_seq == whole.anchor.first_seq and whole.stretches
    return whole


def test_a_page_in_which_the_kept_archive_begins(begun_inside: History, grown: Growing, repository: Repository) -> None:
    wanted = {s.head.seq: b"".join(payload_of(repository, s)) for s in grown.made}
    reader = fresh(repository)[0]
    prune.execute(reader, catalog.read_catalog(reader), retention.NOTHING, retention.Policy(), grown.now + timedelta(hours=30))
    found = read(repository)
    assert found.units == begun_inside.units and chain.runs(found)[1] == ()
    # of that page, too, small objects go once a compacted one holds them
    small = [layout.seq_of(info.key) for info in repository.backend.list(layout.log_prefix("0001", "segments"))]
    assert found.units[0].first_seq not in small and small[-1] == 216
    source = payloads.Payloads(fresh(repository)[0])
    every = catalog.detailed(repository, found, found.units).segments
    assert [one.head.seq for one in every] == list(range(found.units[0].first_seq, 217))
    assert all(b"".join(source.read(one)) == wanted[one.head.seq] for one in every)


def test_a_damaged_page_where_the_kept_archive_begins(begun_inside: History, repository: Repository) -> None:
    key = layout.page("0001", 0, (begun_inside.units[0].first_seq - 1) // ROWS + 1)
    path = Path(repository.backend.name.removeprefix("file://")) / key
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    found = read(repository)
    assert (found.units, [one.key for one in found.damaged]) == (begun_inside.units, [key])


def test_a_head_is_compared_inside_a_page_too(grown: Growing, repository: Repository) -> None:
    """A head file of an hour ago names a segment that a page lists now."""
    upkeep(repository, grown)
    known = Heads(repository.id, {"timelines/0001/segments": 101}, {"0001": grown.made[100].link})
    assert heads.compare(repository, catalog.read_catalog(repository), known) == []
    other = dataclasses.replace(known, links={"0001": grown.made[99].link})
    (missing,) = heads.compare(repository, catalog.read_catalog(repository), other)
    assert (missing.first, missing.last) == (101, 101) and "another history" in missing.what


def test_a_retired_signing_key_is_believed_for_pages_and_compacted_objects(grown: Growing, repository: Repository) -> None:
    upkeep(repository, grown)
    until = heads.of_repository(repository, catalog.read_catalog(repository))
    retired = trust.RetiredKey.of(KEY.public_key, until)
    reader = dataclasses.replace(fresh(repository)[0], public_keys=(retired,), signing_key=None)
    found = catalog.read_history(reader, "0001")
    assert len(found.stretches) == 27 and not found.damaged
    for one in found.compacted:
        reader.read(one.key, m.Compacted)
    # and for none that came later
    grown.grow(ROWS * 8)
    upkeep(repository, grown)
    found = catalog.read_history(reader, "0001")
    assert found.damaged and all("retired key" in one.reason for one in found.damaged)


def wrong(repository: Repository, *, percent: int = 100) -> dict[str, str]:
    """What `check` says of the archive, by key; these archives have neither data keys nor rows."""
    report = check.check(fresh(repository)[0], read_percent=percent)
    return {one.key: one.what for one in report.problems if not one.key.startswith("keys/") and one.key not in ("data/x/y", "")}


def test_check_looks_behind_pages_and_into_compacted_objects(grown: Growing, repository: Repository) -> None:
    assert wrong(repository) == {}
    upkeep(repository, grown)
    assert wrong(repository) == {}
    pruned(repository, grown.now + timedelta(days=2), retention.Policy(days=300))
    assert wrong(repository) == {}
    report = check.check(repository, read_percent=100)
    joined = sum(one.last_seq - one.first_seq + 1 for one in read(repository).compacted)
    assert joined > 180 and report.read_bytes >= 216 * 300 and report.read_objects < 60

    day = next(one for one in read(repository).compacted if one.level == 2)
    stored = repository.read(day.key, m.Compacted)[0].object
    path = Path(repository.backend.name.removeprefix("file://")) / stored.key
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    assert wrong(repository, percent=0) == {}  # who does not read cannot see it
    assert list(wrong(repository)) == [stored.key]
    path.write_bytes(data[:-1])
    assert "were written" in wrong(repository, percent=0)[stored.key]
    path.unlink()
    assert wrong(repository, percent=0) == {stored.key: "it is missing"}
    manifest = Path(repository.backend.name.removeprefix("file://")) / day.key
    manifest.unlink()  # then nothing holds those segments any more
    found = wrong(repository, percent=0)
    assert len(found) == day.last_seq - day.first_seq + 1 and set(found.values()) == {
        "its payload is neither here nor in a compacted object"
    }


def test_check_sees_what_a_signed_page_should_not_say(grown: Growing, repository: Repository) -> None:
    """A writer with a defect: the page's own summary, a link and the GTIDs of two of its rows."""
    upkeep(repository, grown)
    key = layout.page("0001", 0, 27)
    page, _ = repository.read(key, m.Page)
    rows = [dataclasses.replace(one) for one in pages.read_segments(repository, page)]
    rows[3] = dataclasses.replace(rows[3], gtids="1-11-9999")
    rows[5] = dataclasses.replace(rows[5], link_before="00" * 32)
    packed = zstandard.compress(b"".join(canonical.dumps(codec.encode(one)) + b"\n" for one in rows))
    summary = dataclasses.replace(page.stretch, transactions=7)
    forged = dataclasses.replace(page, stretch=summary, rows=m.Rows(ROWS, len(packed), hashlib.sha256(packed).hexdigest()))
    path = Path(repository.backend.name.removeprefix("file://")) / key
    path.write_bytes(objects.assemble(forged, KEY) + packed)
    found = wrong(repository, percent=0)
    assert "do not add up" in found[rows[3].head.key]
    assert "not linked" in found["timelines/0001/segments/"]
    assert found[key] == "it does not sum up what it lists"
