"""Another server's binlog against the archive: the place is found exactly where it is, and only where there is one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from kpbackup.model import gtid
from kpbackup.plan import takeover
from kpbackup.plan.takeover import Archived, Search

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WRITERS = {
    "mysql": ("11111111-1111-1111-1111-111111111111", "11111111-1111-1111-1111-111111111111:tag"),
    "mariadb": ("1-11", "7-11"),
}
STRANGER = {"mysql": "22222222-2222-2222-2222-222222222222:1", "mariadb": "1-12-{}"}
FLAVOURS = st.sampled_from(["mysql", "mariadb"])
ORDERS = st.lists(st.sampled_from([0, 1]), min_size=1, max_size=12)


def named(flavour: str, order: list[int]) -> list[str]:
    """A history of two writers, each counting for itself."""
    counts = [0, 0]
    found = []
    for writer in order:
        counts[writer] += 1
        join = ":" if flavour == "mysql" else "-"
        found.append(f"{WRITERS[flavour][writer]}{join}{counts[writer]}")
    return found


def state(flavour: str, names: list[str]) -> str:
    reached = ""
    for name in names:
        reached = gtid.add(flavour, reached, name)
    return reached


def search(archived: Archived, names: list[str], begin: int) -> tuple[str, int]:
    """(why not, number of transactions before the place) of a search from the file that begins after `begin` transactions."""
    found = Search(archived, state(archived.flavour, names[:begin]))
    at = begin
    if not found.why and not found.is_there:
        for name in names[begin:]:
            more = found.feed(name, stamp(name))
            at += not found.why
            if not more:
                break
    return found.verdict(), at


def stamp(name: str) -> int:
    return sum(name.encode()) * 1_000_003


def archive(flavour: str, names: list[str], floor: int) -> Archived:
    moments = [EPOCH + timedelta(microseconds=stamp(name)) for name in names[floor:]]
    return Archived(
        flavour, state(flavour, names), state(flavour, names[:floor]), min(moments, default=None), max(moments, default=None)
    )


@given(FLAVOURS, ORDERS, st.data())
def test_the_place_is_right_after_what_is_archived(flavour: str, order: list[int], data: st.DataObject) -> None:
    names = named(flavour, order)
    end = data.draw(st.integers(1, len(names)))
    floor = data.draw(st.integers(0, end))
    begin = data.draw(st.integers(0, floor))
    archived = archive(flavour, names[:end], floor)
    assert takeover.may_begin(archived, state(flavour, names[:begin]))
    assert search(archived, names, begin) == ("", end)


@given(FLAVOURS, ORDERS, st.data())
def test_a_server_that_lacks_something_is_refused(flavour: str, order: list[int], data: st.DataObject) -> None:
    names = named(flavour, order)
    end = data.draw(st.integers(1, len(names)))
    archived = archive(flavour, names[:end], end - 1)
    why, _ = search(archived, names[: data.draw(st.integers(0, end - 1))], 0)
    assert why.startswith("it lacks")


@given(FLAVOURS, ORDERS, st.data())
def test_a_transaction_of_its_own_before_the_place_is_refused(flavour: str, order: list[int], data: st.DataObject) -> None:
    names = named(flavour, order)
    end = data.draw(st.integers(1, len(names)))
    at = data.draw(st.integers(0, end - 1))
    before = [name for name in names[:at] if name.startswith("1-")]
    errant = STRANGER[flavour].format(len(before))  # MariaDB without strict mode: a number that is there already
    why, _ = search(archive(flavour, names[:end], 0), [*names[:at], errant, *names[at:]], 0)
    assert why.startswith("it executed")


@given(FLAVOURS, ORDERS)
def test_numbers_that_were_given_twice_are_refused(flavour: str, order: list[int]) -> None:
    names = named(flavour, order)
    archived = archive(flavour, names, len(names) - 1)
    found = Search(archived, "")
    for name in names:
        found.feed(name, stamp(name) + 1_000_000)
    assert "given twice" in found.verdict()


@given(FLAVOURS, ORDERS, st.data())
def test_a_file_behind_the_newest_archived_is_not_the_one(flavour: str, order: list[int], data: st.DataObject) -> None:
    names = named(flavour, order)
    end = data.draw(st.integers(1, len(names)))
    archived = archive(flavour, names[:end], end - 1)
    assert not takeover.may_begin(archived, state(flavour, names[:end]))
    assert takeover.is_purged(archived, state(flavour, names)) == (end < len(names))
