"""Random histories of a source, archived and damaged: the break is found exactly where it is."""

from __future__ import annotations

import dataclasses

from hypothesis import example, given
from hypothesis import strategies as st

from kpbackup.model.catalog import History
from kpbackup.model.manifest import BinlogSegment
from kpbackup.plan import chain
from tests.histories import Source

STEPS = st.lists(
    st.one_of(
        st.sampled_from(["commit", "commit", "flush", "crash", "set", "archive 1", "archive 2", "archive 9"]),
        st.sampled_from(["archive 1 only 1", "archive 1 only 2"]),
    ),
    max_size=30,
)
DAMAGES = st.sampled_from(["drop", "swap", "renumber", "relink", "foreign"])


def build(steps: list[str], flavour: str = "mariadb") -> Source:
    source = Source(flavour)
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
        source.wait(float(numbers[0]))
    else:
        getattr(source, word)()


def following(source: Source, number: int) -> list[BinlogSegment]:
    """The segments that hold, or come after, what follows set `number`: by places alone."""
    at = source.sets[number].coordinates
    place = source.place(at.file, at.position)
    # the one of no bytes that closes the set's file counts too
    return [s for s in source.segments if source.place(s.end.file, s.end.position) > place or s.start == s.end == at]


@given(STEPS, st.sampled_from(["mariadb", "mysql"]))
def test_an_undamaged_archive_is_one_run_and_every_set_is_in_it(steps: list[str], flavour: str) -> None:
    source = build(steps, flavour)
    runs, gaps = chain.runs(source.history())
    assert gaps == ()
    assert [list(run) for run in runs] == ([source.segments] if source.segments else [])
    for number, found in enumerate(chain.chains(source.history())):
        assert found.gap is None
        assert list(found.segments) == following(source, number)


def damage(kind: str, at: int, source: Source, other: Source) -> list[BinlogSegment]:
    """The segments after the damage at place `at`."""
    found = list(source.segments)
    one = found[at]
    if kind == "drop":
        del found[at]
    elif kind == "swap":
        found[at : at + 2] = reversed(found[at : at + 2])
    elif kind == "renumber":
        found[at] = dataclasses.replace(one, head=dataclasses.replace(one.head, seq=one.head.seq + 1_000))
    elif kind == "relink":
        link = chain.next_link("22" * 32, seq=one.head.seq, payload_sha256=one.payload.sha256, start=one.start, end=one.end)
        found[at] = dataclasses.replace(one, link_before="22" * 32, link=link)
    else:
        found[at] = other.segments[at]
    return found


def expected_runs(source: Source, found: list[BinlogSegment]) -> tuple[list[list[int]], bool]:
    """Stretches of original neighbours, as places in `found`; and whether the first one begins where it must."""
    runs: list[list[int]] = []
    for place, segment in enumerate(found):
        before = found[place - 1] if place else None
        original = [id(s) for s in source.segments]
        is_next = before is not None and id(segment) in original and id(before) in original
        if is_next and original.index(id(segment)) == original.index(id(before)) + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs, bool(found) and found[0] is source.segments[0]


@given(STEPS, DAMAGES, st.integers(0, 30))
@example(["flush", "set", "crash"], "swap", 1)  # the end of the set's file, which is not where it was
def test_damage_is_found_exactly_where_it_is(steps: list[str], kind: str, at: int) -> None:
    steps = ["commit", *steps, "commit", "archive 1", "commit", "archive 1"]
    source = build(steps)
    other = Source(timeline="0002")
    other.back_up()
    for step in steps:
        run(other, step)
    at %= len(source.segments) - (kind == "swap")
    found = damage(kind, at, source, other)
    history = dataclasses.replace(source.history(), segments=tuple(found))
    runs, gaps = chain.runs(history)
    expected, starts_well = expected_runs(source, found)
    assert [list(run) for run in runs] == [[found[place] for place in run] for run in expected]
    assert len(gaps) == len(expected) - starts_well
    no_chain_crosses(source, history, found)


def no_chain_crosses(source: Source, history: History, found: list[BinlogSegment]) -> None:
    """Each chain is the original one up to the first missing or changed segment."""
    kept = [id(segment) for segment in found]
    runs = [[id(s) for s in run] for run in chain.runs(history)[0]]
    for number, got in enumerate(chain.chains(history)):
        wanted = following(source, number)
        if not wanted:
            assert got.segments == ()
        elif id(wanted[0]) not in kept:  # what the set would go on with is gone: nothing else of the archive may stand in for it
            assert all(id(s) not in {id(one) for one in source.segments} for s in got.segments)
        elif wanted[0].start.file != source.sets[number].coordinates.file and not shows_end(source, number, runs):
            assert got.segments == ()  # that the set's file had nothing more, right before what follows, is not known any more
        else:
            run = next(run for run in runs if id(wanted[0]) in run)
            assert [id(s) for s in got.segments] == run[run.index(id(wanted[0])) :]
            if len(got.segments) < len(wanted) and got.segments[-1] is not found[-1]:
                assert got.gap is not None and got.gap.after == got.end


def shows_end(source: Source, number: int, runs: list[list[int]]) -> bool:
    """Whether what ends the set's file is still joined to what follows the set."""
    at, wanted = source.sets[number].coordinates, following(source, number)[0]
    ends = {id(s) for s in source.segments if s.ends_file and s.end == at}
    return any(id(wanted) in run and ends & set(run) for run in runs)
