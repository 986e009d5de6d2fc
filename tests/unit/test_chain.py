"""Links, runs and chains on small hand-made histories."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest

from kpbackup.model.coordinates import Coordinates
from kpbackup.model.manifest import Anchor, BinlogSegment
from kpbackup.plan import chain
from tests.histories import Source


def archived() -> Source:
    """A set, then seven segments over three files, one of them closed by a segment of no bytes."""
    source = Source()
    source.back_up()
    for _ in range(4):
        source.commit()
    source.archive(most=2)  # 1, 2: all of the file so far
    source.crash()
    source.commit()
    source.archive(most=2)  # 3 closes the first file, 4
    source.commit()
    source.flush()
    source.commit()
    source.archive(most=2)  # 5 ends the second file, 6
    source.commit()
    source.archive(most=2)  # 7
    assert [s.ends_file for s in source.segments] == [False, False, True, False, True, False, False]
    assert source.segments[2].raw_bytes == 0
    return source


def with_segments(source: Source, *segments: BinlogSegment) -> tuple[list[list[int]], list[str]]:
    """Numbers of the segments in each run, reasons of the gaps."""
    history = dataclasses.replace(source.history(), segments=segments)
    runs, gaps = chain.runs(history)
    return [[unit.first_seq for unit in run] for run in runs], [gap.reason for gap in gaps]


def test_links_are_what_the_format_says() -> None:
    """Computed here from the words of docs/format.md, 'Links', and nothing of the program."""
    source = archived()
    head = source.sets[0].head
    link = hashlib.sha256(f"kpbackup-link-1\n{head.repository}\n{head.timeline}\n".encode()).hexdigest()
    for number, segment in enumerate(source.segments, 1):
        places = [{"file": c.file, "position": c.position, "gtid": c.gtid} for c in (segment.start, segment.end)]
        canonical = json.dumps(places, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert segment.link_before == link
        text = f"kpbackup-link-1\n{link}\n{number}\n{segment.payload.sha256}\n{canonical}\n"
        link = hashlib.sha256(text.encode()).hexdigest()
        assert segment.link == link


def test_a_whole_archive_is_one_run() -> None:
    source = archived()
    assert with_segments(source, *source.segments) == ([[1, 2, 3, 4, 5, 6, 7]], [])
    (found,) = chain.chains(source.history())
    assert (found.segments, found.gap, found.end) == (tuple(source.segments), None, source.here)


def test_an_empty_archive_has_no_gap() -> None:
    source = Source()
    source.back_up()
    assert chain.runs(source.history()) == ((), ())
    (found,) = chain.chains(source.history())
    assert (found.segments, found.gap, found.end) == ((), None, source.sets[0].coordinates)


@pytest.mark.parametrize(("change", "reason"), [
    ({"link_before": "00" * 32}, "not linked"),
    ({"link": "00" * 32}, "names a link that is not its own"),
    ({"end": Coordinates("binlog.000001", 1)}, "names a link that is not its own"),
])
def test_a_changed_segment_is_cut_out(change: dict[str, object], reason: str) -> None:
    source = archived()
    one, two, three = source.segments[:3]
    changed = dataclasses.replace(two, **change)  # type: ignore[arg-type]
    runs, gaps = with_segments(source, one, changed, three)
    assert runs[0] == [1] and reason in gaps[0]


@pytest.mark.parametrize("change", [
    {"start": Coordinates("binlog.000001", 5_000, "1-11-2")},
    {"start": Coordinates("binlog.000009", 0, "1-11-2")},
    {"start": dataclasses.replace(archived().segments[1].start, gtid="1-11-1")},
    {"file": archived().segments[4].file},
])
def test_a_segment_that_starts_elsewhere_is_a_break_even_when_linked(change: dict[str, object]) -> None:
    source = archived()
    moved = dataclasses.replace(source.segments[1], **change)  # type: ignore[arg-type]
    assert with_segments(source, source.segments[0], relinked(moved))[0] == [[1], [2]]


@pytest.mark.parametrize("change", [
    {"start": Coordinates("binlog.000001", 0, "1-11-4")},  # the file that ended
    {"start": Coordinates("binlog.000002", 90, "1-11-4")},  # not its beginning
])
def test_after_a_file_that_ended_comes_the_beginning_of_another(change: dict[str, object]) -> None:
    source = archived()
    moved = dataclasses.replace(source.segments[3], **change)  # type: ignore[arg-type]
    runs, gaps = with_segments(source, *source.segments[:3], relinked(moved))
    assert runs == [[1, 2, 3], [4]] and "does not start the file after" in gaps[0]


def test_the_first_segment_follows_the_timeline_or_the_anchor() -> None:
    source = archived()
    third = source.segments[2]
    assert with_segments(source, *source.segments[2:]) == ([[3, 4, 5, 6, 7]], ["segments 1 to 2 are missing"])
    foreign = relinked(dataclasses.replace(source.segments[0], link_before="11" * 32))
    assert with_segments(source, foreign)[1] == ["segment 1 does not start this timeline's links"]
    anchor = Anchor(third.head, 3, third.link_before)
    for kept, link, gaps in [
        (3, third.link_before, []),
        (3, "11" * 32, ["segment 3 does not follow the anchor"]),
        (2, third.link_before, ["segments 2 to 2 are missing"]),
    ]:
        newest = dataclasses.replace(anchor, first_seq=kept, link_before=link)
        found = dataclasses.replace(source.history(), segments=tuple(source.segments[2:]), anchor=newest)
        assert [gap.reason for gap in chain.runs(found)[1]] == gaps


def test_a_set_at_a_boundary_goes_on_with_the_next_segment() -> None:
    source = Source()
    source.back_up()
    source.commit()
    source.archive()
    source.back_up()  # right where segment 1 ends
    assert chain.chains(source.history())[1].segments == ()
    source.commit()
    source.archive()
    first, second = chain.chains(source.history())
    assert [s.head.seq for s in first.segments] == [1, 2]
    assert [s.head.seq for s in second.segments] == [2]


def test_a_set_right_behind_a_break_goes_on_with_what_begins_there() -> None:
    source = Source()
    source.back_up()
    source.commit()
    source.archive()
    source.back_up()
    source.commit()
    source.archive()
    foreign = relinked(dataclasses.replace(source.segments[1], link_before="33" * 32))
    first, second = chain.chains(dataclasses.replace(source.history(), segments=(source.segments[0], foreign)))
    assert first.segments == (source.segments[0],) and first.gap is not None
    assert second.segments == (foreign,) and second.gap is None


def test_a_set_at_the_end_of_a_file_goes_on_with_the_next_file() -> None:
    source = Source()
    source.back_up()
    source.commit()
    source.back_up()
    source.crash()
    source.commit()
    source.archive(most=9)
    assert source.segments[0].ends_file and source.segments[0].end.position == source.sets[1].coordinates.position
    assert [s.head.seq for s in chain.chains(source.history())[1].segments] == [2]


def test_a_set_inside_a_segment_starts_with_it() -> None:
    source = Source()
    source.back_up()
    source.commit()
    source.back_up()
    source.commit()
    source.archive(most=9)
    assert [s.head.seq for s in chain.chains(source.history())[1].segments] == [1]


def test_a_set_the_archive_has_not_reached_has_no_gap_but_one_it_passed_by_has() -> None:
    source = archived()
    source.flush()
    late = source.back_up()
    found = chain.chains(source.history())[-1]
    assert (found.backup_set, found.segments, found.gap) == (late, (), None)
    source.commit()
    source.archive()
    source.flush()
    source.commit()
    source.archive()
    *_, passed, beyond = source.segments
    assert late.coordinates.file == passed.start.file
    others = tuple(s for s in source.segments if s.start.file != late.coordinates.file)
    found = chain.chains(dataclasses.replace(source.history(), segments=others))[-1]
    assert found.segments == () and found.gap is not None and found.gap.after == late.coordinates
    assert beyond.start.file != late.coordinates.file


def test_a_file_of_the_same_name_from_another_life_does_not_continue_a_set() -> None:
    source = archived()
    other = dataclasses.replace(source.sets[0].file, first_events_sha256="ee" * 32)
    history = dataclasses.replace(source.history(), sets=(dataclasses.replace(source.sets[0], file=other),))
    (found,) = chain.chains(history)
    assert found.segments == () and found.gap is not None


def relinked(segment: BinlogSegment) -> BinlogSegment:
    link = chain.next_link(
        segment.link_before, seq=segment.head.seq, payload_sha256=segment.payload.sha256, start=segment.start, end=segment.end
    )
    return dataclasses.replace(segment, link=link)
