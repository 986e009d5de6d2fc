"""Cuts where commit stamps go back and forth, where segments are empty, and inside transactions."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kpbackup import errors
from kpbackup.model.coordinates import Coordinates
from kpbackup.plan import timeline
from kpbackup.plan.timeline import Target
from kpbackup.recovery import cut as cuts
from tests.histories import T0, MemoryReader, Source, catalog

SECOND = timedelta(seconds=1)


def find(source: Source, target: Target) -> tuple[cuts.Cut, MemoryReader]:
    reader = MemoryReader(source)
    return cuts.find_cut(reader, timeline.plan_restore(catalog(source), target)), reader


def test_a_late_stamp_held_by_the_set_does_not_hide_what_follows() -> None:
    source = Source("mysql")
    source.back_up()
    source.commit(stamp=T0 + 50 * SECOND)
    source.back_up()
    source.commit(stamp=T0 + 25 * SECOND)
    source.archive(most=9)
    source.commit(stamp=T0 + 30 * SECOND)
    source.archive()
    source.commit(stamp=T0 + 40 * SECOND)
    source.archive()
    found, _ = find(source, Target(time=T0 + 35 * SECOND))
    assert found.last_included is not None and found.last_included.gtid == source.gtid(3)
    assert found.first_excluded is not None and found.first_excluded.gtid == source.gtid(4)


def test_the_cut_is_a_prefix_whatever_the_later_stamps_are() -> None:
    source = Source("mysql")
    source.back_up()
    for after in (10, 40, 20, 60):
        source.commit(stamp=T0 + after * SECOND)
        source.archive()
    found, _ = find(source, Target(time=T0 + 30 * SECOND))
    assert found.at.position == source.transactions[0].end


def test_segments_without_transactions_before_the_cut() -> None:
    source = Source("mysql")
    source.back_up()
    source.commit()
    source.archive()
    source.crash()
    source.archive()  # one that closes the file, one with a new file's beginning
    assert [s.transactions for s in source.segments] == [1, 0, 0]
    found, _ = find(source, Target(latest=True))
    assert found.last_included is not None and found.last_included.gtid == source.gtid(1)
    source.wait(5)
    source.commit()
    source.archive()
    found, reader = find(source, Target(time=source.transactions[1].stamp))
    assert found.at.position == source.transactions[0].end
    assert set(reader.read) == {1, 4}  # nothing that cannot matter is fetched


def test_latest_reads_only_what_it_must() -> None:
    source = Source()
    source.back_up()
    for _ in range(5):
        source.commit()
        source.archive()
    found, reader = find(source, Target(latest=True))
    assert (found.at.position, found.first_excluded, reader.read) == (source.here.position, None, [5])


def test_inside_a_transaction_is_no_place_to_stop() -> None:
    source = Source()
    source.back_up()
    txn = source.commit()
    source.archive()
    with pytest.raises(errors.UnreachableTarget, match="inside a transaction") as refused:
        find(source, Target(position=Coordinates(txn.file, txn.start + 1)))
    assert f"{txn.file}:{txn.start} or {txn.file}:{txn.end}" in refused.value.hint


def test_a_fraction_of_a_second_is_dropped_for_mariadb_alone() -> None:
    for flavour, floored in (("mariadb", True), ("mysql", False)):
        source = Source(flavour)
        source.back_up()
        source.wait(3)
        source.commit()
        source.archive()
        asked = source.transactions[0].stamp + timedelta(microseconds=1) if floored else source.transactions[0].stamp
        found, _ = find(source, Target(time=asked))
        assert (found.floored, found.last_included) == (floored, None)
