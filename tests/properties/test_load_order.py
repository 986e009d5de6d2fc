"""The order of a load: everything once, the longest table first, workers apart where they can be, and all of them done early."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from kpbackup.recovery.load_order import INDEX_ENTRY_US, LEAST_SPEED_US, READ_BACK_SHARE, LoadOrder, Piece

Name = tuple[str, str]
ROW_BYTES = 500
NAMES = st.sampled_from([("shop", name) for name in "abcdef"])


def piece(table: Name, number: int, rows: int) -> Piece:
    return Piece(f"data/{table[1]}-{number}", table, rows, rows * ROW_BYTES)


pieces = st.lists(st.tuples(NAMES, st.integers(0, 250_000)), max_size=40).map(
    lambda found: [piece(table, number, rows) for number, (table, rows) in enumerate(found)]
)
later = st.dictionaries(NAMES, st.integers(0, 8))


def play(found: Sequence[Piece], keys: Mapping[Name, int], workers: int) -> tuple[list[str], float]:
    """(objects in the order they were taken, when the last row and index is in) with workers as fast as the estimate says."""
    order = LoadOrder(found, later_keys=keys)
    left = {p.table: sum(q.table == p.table for q in found) for p in found}
    rows = {p.table: sum(q.rows for q in found if q.table == p.table) for p in found}
    taken: list[str] = []
    to_index: list[Name] = []
    now = 0.0
    running: list[tuple[float, int, Piece | None]] = [(0.0, number, None) for number in range(workers)]
    while running:
        now, number, ended = heapq.heappop(running)
        if ended is not None:
            order.loaded(ended)
            left[ended.table] -= 1
            if not left[ended.table]:
                to_index.append(ended.table)
        if to_index:
            table = to_index.pop(0)
            heapq.heappush(running, (now + rows[table] * keys.get(table, 0) * INDEX_ENTRY_US, number, None))
        elif (chosen := order.take()) is not None:
            taken.append(chosen.object_key)
            heapq.heappush(running, (now + chosen.load_us, number, chosen))
    return taken, now


@given(pieces, later, st.integers(1, 5))
def test_every_object_is_taken_once_and_those_of_a_table_in_their_order(
    found: list[Piece], keys: dict[Name, int], workers: int
) -> None:
    taken, _ = play(found, keys, workers)
    assert sorted(taken) == sorted(p.object_key for p in found)
    for table in {p.table for p in found}:
        own = [p.object_key for p in found if p.table == table]
        assert [key for key in taken if key in own] == own


@given(pieces, later)
def test_the_first_object_is_of_the_table_that_takes_longest(found: list[Piece], keys: dict[Name, int]) -> None:
    order = LoadOrder(found, later_keys=keys)
    first = order.take()
    assert (first is None) == (not found)

    def whole_us(table: Name) -> float:
        own = [p for p in found if p.table == table]
        return sum(p.load_us for p in own) + sum(p.rows for p in own) * keys.get(table, 0) * INDEX_ENTRY_US

    assert first is None or whole_us(first.table) == max(whole_us(p.table) for p in found)


@given(pieces, later, st.lists(st.booleans(), max_size=80))
def test_every_choice_is_the_table_whose_end_is_farthest(found: list[Piece], keys: dict[Name, int], moves: list[bool]) -> None:
    order = LoadOrder(found, later_keys=keys)
    waiting, loading = list(found), list[Piece]()
    for takes in moves:
        if not takes:
            if loading:
                order.loaded(loading.pop(0))
            continue
        ends = {p.table: _end_us(p.table, [*waiting, *loading], loading, found, keys) for p in waiting}
        taken = order.take()
        assert (taken is None) == (not waiting)
        if taken is not None:
            assert ends[taken.table] >= max(ends.values()) - 1e-3
            waiting.remove(taken)
            loading.append(taken)


def _end_us(table: Name, left: list[Piece], loading: list[Piece], all_of_them: list[Piece], keys: dict[Name, int]) -> float:
    index_us = sum(p.rows for p in all_of_them if p.table == table) * keys.get(table, 0) * INDEX_ENTRY_US
    return sum(p.load_us for p in left if p.table == table) / (sum(p.table == table for p in loading) + 1) + index_us


def test_workers_go_to_different_tables_of_the_same_size() -> None:
    order = LoadOrder([piece(("s", t), n, 100_000) for t in "abc" for n in range(4)], later_keys={})
    assert len({p.table for p in (order.take(), order.take(), order.take()) if p}) == 3


def test_all_help_with_a_table_whose_indexes_would_come_last() -> None:
    big = [piece(("s", "big"), n, 250_000) for n in range(6)]
    small = [piece(("s", "small"), 9, 50_000)]
    order = LoadOrder([*small, *big], later_keys={("s", "big"): 8})
    assert [order.take(), order.take()] == big[:2]


def test_the_indexes_of_the_largest_table_are_built_while_others_load() -> None:
    """Its last row is in early enough that the end is not later than its own work and its index, with the rest beside it."""
    big = [piece(("s", "big"), n, 250_000) for n in range(6)]
    rest = [piece(("s", name), n, 200_000) for name in "abcd" for n in range(2)]
    keys = {("s", "big"): 8}
    _, ended = play([*rest, *big], keys, 2)
    alone = sum(p.load_us for p in big) / 2 + 1_500_000 * 8 * INDEX_ENTRY_US
    everything = (sum(p.load_us for p in (*big, *rest)) + 1_500_000 * 8 * INDEX_ENTRY_US) / 2
    assert ended <= max(alone, everything) * 1.1


def test_beside_a_long_build_only_as_many_go_on_as_are_needed_to_end_with_it() -> None:
    big, other = ("s", "big"), ("s", "other")
    order = LoadOrder([piece(big, 0, 1_000_000), *(piece(other, n, 100_000) for n in range(4))], later_keys={big: 8})
    first = order.take()
    assert first is not None and first.table == big
    order.loaded(first, took_s=first.load_us / 1e6)  # as fast as the estimate
    assert order.has_room(3, 0.0)  # nothing is built yet
    order.building(big, 10.0)
    build_us, rest_us = 8_000_000 * INDEX_ENTRY_US, 4 * piece(other, 0, 100_000).load_us
    others_us = rest_us + READ_BACK_SHARE * (first.load_us + rest_us)
    assert others_us < build_us
    assert order.has_room(0, 10.0)
    assert not order.has_room(1, 10.0)
    almost = 10.0 + build_us / 1e6 - others_us / 2.5e6  # the others take longer than what is left of the build: three can help
    assert order.has_room(2, almost)
    assert order.has_room(99, 11.0 + build_us / 1e6)  # it should have ended: nobody waits for a wrong estimate
    slow = LoadOrder([piece(big, 0, 1_000_000), *(piece(other, n, 100_000) for n in range(4))], later_keys={big: 8})
    slow.take()
    slow.loaded(first, took_s=first.load_us / LEAST_SPEED_US * 4)  # by the network: the build takes its own time
    slow.building(big, 10.0)
    assert slow.has_room(2, 10.0)
    order.built(big)
    assert order.has_room(99, 10.0)


@given(pieces, later, st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f"]), max_size=4), st.floats(0, 1e4))
def test_there_is_always_room_for_one_and_more_work_never_lessens_it(
    found: list[Piece], keys: dict[Name, int], built: list[str], now_s: float
) -> None:
    order = LoadOrder(found, later_keys=keys)
    while (taken := order.take()) is not None:
        order.loaded(taken, took_s=0.1)
    for name in built:
        order.building(("shop", name), 0.0)
    assert order.has_room(0, now_s)
    if not order.has_room(1, now_s):
        assert not order.has_room(2, now_s)
