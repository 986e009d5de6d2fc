"""What the archive knows of itself when another server stands at the source's address, and how a seam lies in a chain."""

from __future__ import annotations

import dataclasses

import pytest

from kpbackup.model import canonical, codec
from kpbackup.model.coordinates import Coordinates, archive_name, order, own_name, takeovers
from kpbackup.model.manifest import BinlogSegment, Observation
from kpbackup.mysql import events, serve
from kpbackup.plan import chain, takeover
from kpbackup.plan.takeover import Archived, Search
from tests.histories import T0, Source


def test_names_tell_how_many_servers_came_before() -> None:
    assert [archive_name("binlog.000007", n) for n in (0, 1, 12)] == ["binlog.000007", "1/binlog.000007", "12/binlog.000007"]
    assert [takeovers(name) for name in ("binlog.000007", "12/binlog.000007")] == [0, 12]
    assert own_name("12/binlog.000007") == own_name("binlog.000007") == "binlog.000007"
    places = [Coordinates(name, at) for name, at in (("b.9", 5), ("b.10", 4), ("1/b.1", 9), ("2/b.1", 1), ("10/b.1", 0))]
    assert sorted(reversed(places), key=order) == places


def test_a_replica_is_told_names_that_sort_in_the_order_of_the_archive() -> None:
    """MariaDB compares them as text, without the number behind the dot; the servers' own names come in between."""
    files = ["binlog.000009", "1/binlog.000001", "2/a.000001", "10/binlog.000001"]
    told = [serve.announced(name) for name in files]
    assert told[0] == "binlog.000009" and told == sorted(told) and told[1] > "zzz.000001"
    assert [serve.file_announced(name) for name in told] == files


def test_an_observation_without_binlog_state_is_written_as_it_always_was() -> None:
    seen = Observation(T0, Coordinates("b.1", 4))
    assert canonical.dumps(codec.encode(seen)).count(b"binlog_state") == 0
    later = dataclasses.replace(seen, binlog_state="1-11-5")
    assert codec.encode(later)["binlog_state"] == "1-11-5"
    assert [codec.decode(Observation, codec.encode(one), what="it") for one in (seen, later)] == [seen, later]


@pytest.mark.parametrize(("kind", "body", "found"), [
    (35, "00" * 8, ""),
    (35, "0100000000000000" + "11" * 16 + "0100000000000000" + "0500000000000000" + "0900000000000000",
     "11111111-1111-1111-1111-111111111111:5-8"),
    (35, "0102000000000001" + "11" * 16 + "00" + "0100000000000000" + "0100000000000000" + "0200000000000000"
     + "11" * 16 + "06" + b"tag".hex() + "0100000000000000" + "0300000000000000" + "0500000000000000",
     "11111111-1111-1111-1111-111111111111:1:tag:3-4"),
    (163, "02000030" + "01000000" + "0b000000" + "0500000000000000" + "01000000" + "0c000000" + "0600000000000000",
     "1-11-5,1-12-6"),
])  # fmt: skip
def test_what_was_executed_before_a_file(kind: int, body: str, found: str) -> None:
    data = events.seal_event(events.HEADER.pack(0, kind, 11, 0, 0, 0) + bytes.fromhex(body))
    assert events.gtids_before(data) == found


def test_another_servers_writes_must_be_known_from_the_source() -> None:
    """11 wrote until 5, then 12: a replica that has 1-11-6 too has written something of its own."""
    archived = Archived("mariadb", "1-12-9", "1-12-9", state="1-11-5,1-12-8")
    assert Search(archived, "1-11-5,1-12-9").verdict() == ""
    assert "1-11-6" in Search(archived, "1-11-6,1-12-9").verdict()
    assert "1-11-5" in Search(dataclasses.replace(archived, state=""), "1-11-5,1-12-9").verdict()
    assert "a domain that is not archived" in Search(archived, "1-11-5,1-12-9,4-12-1").verdict()


def test_a_domain_at_rest_needs_nothing_in_the_binlog() -> None:
    archived = Archived("mariadb", "1-11-5,7-11-3", "1-11-5,7-11-3")
    assert Search(archived, "1-11-5").verdict() == "it lacks the archived transactions up to 7-11-3"
    assert Search(archived, "1-11-5", at_rest="7-11-3,9-1-1").verdict() == ""


def taken_over(flavour: str, *, seam: str = "") -> tuple[Source, list[BinlogSegment]]:
    """A set and two segments, then one of another server, which begins with GTID state `seam`."""
    source = Source(flavour)
    source.back_up()
    for _ in range(2):
        source.commit()
        source.archive(most=1)
    last = source.segments[-1]
    start = Coordinates("1/binlog.000001", 500, seam or last.end.gtid)
    end = dataclasses.replace(start, position=500)
    link = chain.next_link(last.link, seq=3, payload_sha256=last.payload.sha256, start=start, end=end)
    head = dataclasses.replace(last.head, seq=3)
    other = dataclasses.replace(last.file, server_id=12)
    added = dataclasses.replace(
        last, head=head, start=start, end=end, file=other, link_before=last.link, link=link, transactions=0, gtids="", raw_bytes=0
    )
    return source, [*source.segments, added]


@pytest.mark.parametrize("flavour", ["mariadb", "mysql"])
def test_a_seam_with_the_same_gtids_is_no_gap(flavour: str) -> None:
    source, segments = taken_over(flavour)
    history = dataclasses.replace(source.history(), segments=tuple(segments))
    (found,) = chain.chains(history)
    assert found.gap is None and found.segments == tuple(segments)


@pytest.mark.parametrize("seam", ["1-11-1", "1-12-2", ""])
def test_a_seam_with_other_gtids_is_one(seam: str) -> None:
    source, segments = taken_over("mariadb", seam=seam or "none")
    if not seam:
        nothing = dataclasses.replace(segments[-1].start, gtid="")
        segments[-1] = dataclasses.replace(segments[-1], start=nothing)
    history = dataclasses.replace(source.history(), segments=tuple(segments))
    (found,) = chain.chains(history)
    assert found.gap is not None and "of another server" in found.gap.reason
    assert found.segments == tuple(segments[:2])


def test_a_set_that_another_server_goes_on_from_at_once() -> None:
    source = Source("mysql")
    source.commit()
    source.back_up()
    first = chain.first_link(source.repository, source.timeline)
    _, segments = taken_over("mysql", seam=source.sets[0].coordinates.gtid)
    seam = segments[-1]
    head = dataclasses.replace(seam.head, seq=1)
    link = chain.next_link(first, seq=1, payload_sha256=seam.payload.sha256, start=seam.start, end=seam.end)
    only = dataclasses.replace(seam, head=head, link_before=first, link=link)
    (found,) = chain.chains(dataclasses.replace(source.history(), segments=(only,)))
    assert found.gap is None and found.segments == (only,)


def test_what_is_known_of_an_archive() -> None:
    source, _ = taken_over("mysql")
    end = source.segments[-1].end
    known = takeover.archived(source.history(), end)
    newest = source.segments[-1]
    assert known == Archived("mysql", end.gtid, newest.start.gtid, newest.first_commit_at, newest.last_commit_at)
    assert takeover.archived(source.history(), dataclasses.replace(end, gtid="")) is None
    anonymous = dataclasses.replace(newest, gtids="")
    history = dataclasses.replace(source.history(), segments=(source.segments[0], anonymous))
    assert takeover.archived(history, end) is None
