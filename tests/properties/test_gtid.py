"""GTID sets against naive sets of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpbackup.model import gtid

UUIDS = ("3e11fa47-71ca-11e1-9e33-c80aa9429562", "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee")
SOURCES = tuple((uuid, tag) for uuid in UUIDS for tag in ("", "batch", "_x9"))

numbers = st.sets(st.integers(1, 40), max_size=25)
naive_sets = st.dictionaries(st.sampled_from(SOURCES), numbers, max_size=6).map(
    lambda found: {(source, number) for source, members in found.items() for number in members}
)


def as_set(naive: set[tuple[tuple[str, str], int]]) -> gtid.MysqlGtidSet:
    sources: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for source, number in naive:
        sources.setdefault(source, []).append((number, number))
    return gtid.MysqlGtidSet.of(sources)


def members(found: gtid.MysqlGtidSet) -> set[tuple[tuple[str, str], int]]:
    return {(source, n) for source, intervals in found.sources for a, b in intervals for n in range(a, b + 1)}


def one(source: tuple[str, str], number: int) -> str:
    return ":".join(part for part in (*source, str(number)) if part)


@given(naive_sets, naive_sets)
def test_algebra_agrees_with_sets_of_numbers(left: set, right: set) -> None:
    a, b = as_set(left), as_set(right)
    assert members(a) == left
    assert members(a.union(b)) == left | right
    assert members(a.subtract(b)) == left - right
    assert a.contains(b) == (left >= right)
    assert (a == b) == (left == right)
    assert a.count == len(left)
    assert bool(a) == bool(left)


@given(naive_sets)
def test_intervals_are_minimal(naive: set) -> None:
    for _, intervals in as_set(naive).sources:
        assert all(a <= b for a, b in intervals)
        assert all(before[1] + 1 < after[0] for before, after in zip(intervals, intervals[1:], strict=False))


@given(naive_sets)
def test_text_round_trip(naive: set) -> None:
    found = as_set(naive)
    text = str(found)
    assert gtid.MysqlGtidSet.parse(text) == found
    assert gtid.MysqlGtidSet.parse(text.upper().replace(",", " ,\n ")) == found
    assert str(gtid.MysqlGtidSet.parse(text)) == text


@given(naive_sets, st.sampled_from(SOURCES), st.integers(1, 41))
def test_single_gtids(naive: set, source: tuple[str, str], number: int) -> None:
    text = one(source, number)
    assert as_set(naive).includes(text) == ((source, number) in naive)
    assert members(as_set(naive).add(text)) == naive | {(source, number)}
    assert gtid.split_mysql_gtid(text) == (source, number)


def test_canonical_text_is_the_servers() -> None:
    text = f"{UUIDS[1].upper()}:5:1-3:batch:7,\n{UUIDS[0]}:batch:2:1:9-10"
    assert str(gtid.MysqlGtidSet.parse(text)) == f"{UUIDS[0]}:batch:1-2:9-10,{UUIDS[1]}:1-3:5:batch:7"


def test_huge_intervals_cost_nothing() -> None:
    whole = gtid.MysqlGtidSet.parse(f"{UUIDS[0]}:1-{gtid.LAST_GNO}")
    hole = whole.subtract(gtid.MysqlGtidSet.parse(f"{UUIDS[0]}:4611686018427387904"))
    assert whole.count - hole.count == 1
    assert not hole.contains(whole)


@pytest.mark.parametrize("text", [
    "x", UUIDS[0], f"{UUIDS[0]}:", f"{UUIDS[0]}:0", f"{UUIDS[0]}:5-3", f"{UUIDS[0]}:tag", f"{UUIDS[0]}:1:tag",
    f"{UUIDS[0]}:1-{1 << 63}", f"{UUIDS[0]}:a:b:1", f"{UUIDS[0]}:{'t' * 33}:1", "0-1-5",
])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a GTID set"):
        gtid.MysqlGtidSet.parse(text)


# MariaDB: along one timeline each domain is a sequence of transactions, so a position is a prefix of each.
streams = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), max_size=30)


def timeline(stream: list[tuple[int, int]]) -> list[gtid.MariadbGtid]:
    seen: dict[int, int] = {}
    found = []
    for domain, server_id in stream:
        seen[domain] = seen.get(domain, 0) + 1
        found.append(gtid.MariadbGtid(domain, server_id, seen[domain]))
    return found


@given(streams, st.integers(0, 30), st.integers(0, 30))
def test_mariadb_positions_agree_with_prefixes(stream: list[tuple[int, int]], m: int, n: int) -> None:
    everything = timeline(stream)
    left, right = everything[:m], everything[:n]
    a, b = gtid.MariadbGtidPosition.of(left), gtid.MariadbGtidPosition.of(right)
    assert a.contains(b) == (set(left) >= set(right))
    assert a.union(b) == gtid.MariadbGtidPosition.of(left if m > n else right)
    assert {g.domain for g in a.subtract(b).last} == {g.domain for g in set(left) - set(right)}
    assert all(a.includes(str(one)) == (one in left) for one in everything)
    assert gtid.MariadbGtidPosition.parse(str(a)) == a
    stepwise = gtid.MariadbGtidPosition()
    for step in left:
        stepwise = stepwise.add(str(step))
    assert stepwise == a
    assert gtid.add("mariadb", str(b), str(a)) == str(gtid.MariadbGtidPosition.of(right + list(a.last)))


def test_mariadb_fork_at_the_same_number_is_not_contained() -> None:
    ours, theirs = gtid.MariadbGtidPosition.parse("0-1-7"), gtid.MariadbGtidPosition.parse("0-2-7")
    assert not ours.contains(theirs)
    assert not gtid.contains("mariadb", "0-2-7", "0-1-7")
    assert gtid.contains("mariadb", "0-1-8,5-1-1", "0-2-7")


@pytest.mark.parametrize("text", ["0-1", "0-1-5,0-2-6", "a-b-c", "4294967296-1-1", UUIDS[0] + ":1"])
def test_mariadb_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a MariaDB GTID"):
        gtid.MariadbGtidPosition.parse(text)
