"""Changes of primary in simulated archives: which one is the newest, and whether a window reaches across it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from kpbackup.plan import seam, timeline
from tests.histories import Source, catalog


def closed(source: Source) -> None:
    """The next file is another server's, and the archive goes on into it."""
    source.archive()
    source.wait(5)
    source.flush()
    opened = source.files[-1]
    opened.identity = replace(opened.identity, server_id=source.server_id + 1)


def a_source() -> Source:
    source = Source("mysql")
    source.back_up()
    source.commit()
    return source


def test_one_server_has_no_seam() -> None:
    source = a_source()
    source.flush()
    source.commit()
    source.archive()
    assert seam.newest(catalog(source)) is None


def test_a_seam_within_one_timeline_is_closed() -> None:
    source = a_source()
    closed(source)
    source.wait(2)
    first = source.commit()
    source.archive()
    found = seam.newest(catalog(source))
    assert found is not None and (found.before.server_id, found.after.server_id) == (11, 12)
    assert found.before.ends_at == source.transactions[0].stamp and found.after.begins_at == first.stamp
    assert found.after.first is not None and found.after.first.start.file == first.file
    assert found.is_closed(timeline.windows(catalog(source)))


def test_a_seam_between_timelines_is_open() -> None:
    """A new timeline begins with a full backup: what the new primary wrote before it is nowhere."""
    source = a_source()
    source.archive()
    other = source.restored(1, wait=30)
    other.back_up()
    other.commit()
    other.archive()
    both = catalog(source, other)
    found = seam.newest(both)
    assert found is not None and found.after.timeline == "0002" and not found.is_closed(timeline.windows(both))


def test_a_new_primary_that_wrote_nothing_yet() -> None:
    source = a_source()
    closed(source)
    source.archive()
    found = seam.newest(catalog(source))
    assert found is not None and found.after.first is None and found.after.begins_at is None
    assert found.is_closed(timeline.windows(catalog(source)))


def test_a_missing_segment_at_the_seam_opens_it() -> None:
    source = a_source()
    closed(source)
    source.commit()
    source.archive()
    source.wait(5)
    source.commit()
    source.archive()
    del source.segments[-2]  # the first of the new primary
    found = seam.newest(catalog(source))
    assert found is not None and not found.is_closed(timeline.windows(catalog(source)))


def test_a_commit_in_the_second_of_the_first_set_counts_on_its_own_timeline_alone() -> None:
    """MariaDB stamps whole seconds; between two timelines the doubt is not the archive's to keep."""
    stamp = datetime(2026, 5, 1, 10, 0, 7, tzinfo=UTC)

    def is_closed(after: str, window: str, left: datetime = stamp) -> bool:
        found = seam.Seam(seam.Reign("0001", 1, left, left), seam.Reign(after, 2, left + timedelta(seconds=2), None))
        begins = stamp + timedelta(milliseconds=400)
        return found.is_closed((timeline.Window(window, begins, stamp + timedelta(minutes=1), (), None),))

    assert is_closed("0001", "0001")
    assert not is_closed("0002", "0002") and not is_closed("0002", "0001")
    assert not is_closed("0001", "0001", stamp + timedelta(microseconds=5))
