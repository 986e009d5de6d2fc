"""What the capture hands over is sealed in its order, in bounded memory, and what goes wrong with that is not lost."""

from __future__ import annotations

import contextlib
import os
import threading
from datetime import UTC, datetime

import pytest

from kpbackup import errors
from kpbackup.backup import sealing
from kpbackup.backup.backlog import Abandoned, Backlog, Sealed, Spool
from kpbackup.backup.sealing import Sealer
from kpbackup.model.manifest import FileIdentity, Sealing
from kpbackup.mysql.segmenter import SegmentFacts
from kpbackup.pipeline import stream
from kpbackup.pipeline.age_keys import Identity
from kpbackup.repository.keys import FreshKey
from tests.integration.deployment import until

IDENTITY = Identity.generate()
KEY = FreshKey(Sealing("0123", str(IDENTITY.recipient)), b"")
LARGE = os.urandom(sealing.WAITING_BYTES + 1)
PATIENCE_S, MOMENT_S = 20.0, 0.3


def facts(number: int) -> SegmentFacts:
    return SegmentFacts(
        file="binlog.000001", start_position=number, end_position=number + 1, prefix_bytes=0, raw_bytes=1, transactions=0,
        first_gtid="", last_gtid="", gtid_set="", gtid_before="", gtid_after="", first_commit_at=None, last_commit_at=None,
        identity=FileIdentity(1, datetime(2026, 11, 28, tzinfo=UTC), "0" * 64), ends_file=False,
    )


def taken(backlog: Backlog) -> list[tuple[int, bytes]]:
    found = []
    while (sealed := backlog.first()) is not None:
        found.append((sealed.facts.start_position, b"".join(stream.unseal(sealed.spool.pieces(), (IDENTITY,)))))
        backlog.drop_first()
    return found


def test_segments_come_whole_and_in_order() -> None:
    backlog = Backlog(1 << 30)
    texts = {number: [os.urandom(1000), LARGE, os.urandom(10)] for number in range(3)}
    with Sealer(backlog) as sealer:
        for number, pieces in texts.items():
            spool = Spool(KEY, backlog)
            for piece in pieces:
                sealer.write(spool, piece)
            sealer.finish(spool, facts(number))
    assert sealer.is_idle
    backlog.end()
    assert taken(backlog) == [(number, b"".join(pieces)) for number, pieces in texts.items()]


def test_a_large_piece_waits_for_nobody() -> None:
    """Else two events of a gigabyte would be held at once."""
    backlog = Backlog(1 << 30)
    with Sealer(backlog) as sealer:
        spool = Spool(KEY, backlog)
        sealer.write(spool, LARGE)
        assert spool.size_bytes > len(LARGE) - (1 << 20)
    spool.close()


def test_nobody_waits_for_a_store_that_was_given_up() -> None:
    """The backlog is full, so sealing stands still; a piece and as much as may wait are handed over, and then that does, too."""
    backlog = Backlog(1)
    backlog.add(Sealed(facts(0), Spool(KEY, backlog)))
    first, second = Spool(KEY, backlog), Spool(KEY, backlog)
    with pytest.raises(Abandoned), Sealer(backlog) as sealer, contextlib.closing(first), contextlib.closing(second):
        sealer.write(first, b"x")
        backlog.abandon()
        sealer.write(second, LARGE)


def test_what_waits_is_bounded_and_nothing_that_waits_is_idle() -> None:
    """A store that takes nothing, and a capture that goes on: it is held up, and told that the store was given up."""
    backlog = Backlog(1)
    waiting = Spool(KEY, backlog)
    waiting.finish()
    backlog.add(Sealed(facts(0), waiting))
    piece, handed = bytes(sealing.WAITING_BYTES // 4), 0
    spool, has_handed_four, has_ended = Spool(KEY, backlog), threading.Event(), threading.Event()
    idle = []

    def give_up() -> None:
        has_handed_four.wait(PATIENCE_S)
        has_ended.wait(MOMENT_S)  # which is enough for one that nobody holds up
        idle.append(sealer.is_idle)
        backlog.abandon()

    with pytest.raises(Abandoned), contextlib.closing(spool), Sealer(backlog) as sealer:
        thread = threading.Thread(target=give_up)
        thread.start()
        try:
            for handed in range(1, 10):
                sealer.write(spool, piece)
                if handed == 4:
                    has_handed_four.set()
        finally:
            has_ended.set()
            thread.join()
    assert handed == 5 and idle == [False]  # the fifth was never taken


def test_what_still_waits_when_one_is_done_is_not_idle() -> None:
    backlog = Backlog(1)
    first, second = Spool(KEY, backlog), Spool(KEY, backlog)
    sealer = Sealer(backlog)
    sealer.write(first, b"x")
    sealer.finish(first, facts(1))
    sealer.write(second, b"x")  # for which there is no room any more
    with sealer:
        until(lambda: backlog.waiting[0] == 1, what="the first to be sealed")
        threading.Event().wait(MOMENT_S)
        was_idle = sealer.is_idle
        backlog.drop_first()
    assert not was_idle and sealer.is_idle
    second.close()


def test_what_went_wrong_is_raised_at_the_next_call_and_closes_what_waits() -> None:
    backlog = Backlog(1 << 30)
    full, other, later = (Spool(KEY, backlog) for _ in range(3))
    full.close()  # as a spool that has no space any more, it cannot be written
    sealer = Sealer(backlog)
    sealer.write(full, b"x")
    sealer.write(other, b"x")
    with pytest.raises((ValueError, errors.LocalIOError)), contextlib.closing(later), sealer:
        with pytest.raises((ValueError, errors.LocalIOError)):
            until(lambda: sealer.write(later, b"x"), what="the error", timeout_s=PATIENCE_S)
        with pytest.raises(ValueError, match="closed"):
            list(other.pieces())


def test_what_went_wrong_at_the_end_is_raised_on_leaving() -> None:
    backlog = Backlog(1 << 30)
    spool = Spool(KEY, backlog)
    spool.close()  # as a spool that has no space any more, it cannot be written
    with pytest.raises((ValueError, errors.LocalIOError)), Sealer(backlog) as sealer:
        sealer.finish(spool, facts(0))
