"""Leases on real stores: one holder, renewed, taken over only after silence. Clocks are real.

A process on a busy machine may not run for seconds, and then its lease is silent. So a time to live is short only where silence
is what is waited for; where a holder must be seen alive, it is long enough for such a pause.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from kpbackup import errors
from kpbackup.repository import lease
from kpbackup.repository.binding import Repository
from tests.cut_off import CutOffBackend

TTL_S = 1.0
AWAKE_TTL_S = 6.0  # of a holder that must not seem dead
UNHURRIED_TTL_S = 600.0  # of one that is not renewed during the test
PATIENCE_S = 120.0


def nap(_: float) -> None:
    """Looks more often than a real observer would."""
    time.sleep(0.05)


def never(_: float) -> None:
    raise AssertionError("it waited")


def acquire(
    repository: Repository, holder: str, sleep: Callable[[float], None] = nap, *, ttl_s: float = TTL_S
) -> lease.Lease:
    return lease.acquire(repository, "archive", holder=holder, ttl_s=ttl_s, sleep=sleep)


def take_over(repository: Repository, holder: str) -> lease.Lease:
    """The lease of a machine that was cut off: a renewal that was on its way then may still arrive, and counts as life."""
    found: list[lease.Lease] = []

    def is_taken() -> bool:
        try:
            found.append(acquire(repository, holder, ttl_s=UNHURRIED_TTL_S))
        except errors.LeaseHeld:
            return False
        return True

    wait_for(is_taken)
    return found[0]


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, "it never came about"
        time.sleep(0.02)


def lost(held: lease.Lease) -> bool:
    try:
        held.check()
    except errors.LeaseHeld:
        return True
    return False


class Machine:
    """A process whose store can be cut off: what a hang or a crash looks like to the others."""

    def __init__(self, repository: Repository) -> None:
        self.is_off = threading.Event()
        store = CutOffBackend(repository.backend, refuse=lambda number, key: "before" if self.is_off.is_set() else "")
        self.repository = dataclasses.replace(repository, backend=store)


def test_of_many_one_gets_it(repository: Repository) -> None:
    def attempt(number: int) -> lease.Lease | None:
        try:
            return acquire(repository, f"pod-{number}", ttl_s=AWAKE_TTL_S)
        except errors.LeaseHeld:
            return None

    with ThreadPoolExecutor(6) as pool:
        winners = [held for held in pool.map(attempt, range(6)) if held is not None]
    (winner,) = winners
    winner.check()
    winner.release()
    assert winner.state.fencing == 1


def test_a_renewed_lease_is_never_silent(repository: Repository) -> None:
    """Renewals must change the ETag, which is a hash of the content in most stores."""
    with acquire(repository, "pod-a", ttl_s=AWAKE_TTL_S) as held:
        seen: set[str] = set()

        def renewed() -> bool:
            seen.add(repository.backend.head("leases/archive").etag)
            return len(seen) > 2

        wait_for(renewed)
        with pytest.raises(errors.LeaseHeld, match="pod-a holds the lease 'archive'") as refused:
            acquire(repository, "pod-b")
        assert refused.value.hint
        held.check()


def test_it_is_taken_over_only_after_a_whole_silent_time_to_live(repository: Repository) -> None:
    machine = Machine(repository)
    held = acquire(machine.repository, "pod-a")
    machine.is_off.set()
    started = time.monotonic()
    with take_over(repository, "pod-b") as mine:
        assert time.monotonic() - started >= TTL_S
        assert mine.state.fencing == held.state.fencing + 1
        assert lease.observe(repository, "archive") == dataclasses.replace(mine.state, mark=_mark(repository))
        machine.is_off.clear()  # it comes back, and must learn that it lost
        wait_for(lambda: lost(held))
        mine.check()
        held.release()  # changes nothing for the new holder
        mine.check()
        state = lease.observe(repository, "archive")
        assert state is not None and (state.holder, state.held) == ("pod-b", True)


def _mark(repository: Repository) -> str:
    state = lease.observe(repository, "archive")
    assert state is not None and state.mark
    return state.mark


def test_a_holder_that_cannot_renew_for_its_time_to_live_stops(repository: Repository) -> None:
    machine = Machine(repository)
    held = acquire(machine.repository, "pod-a")
    held.check()
    machine.is_off.set()
    wait_for(lambda: lost(held))
    with pytest.raises(errors.LeaseHeld, match="was lost"):
        held.check()
    held.release()


def test_the_same_holder_takes_it_back_at_once(repository: Repository) -> None:
    machine = Machine(repository)
    before = acquire(machine.repository, "pod-a")
    machine.is_off.set()
    with acquire(repository, "pod-a", never) as mine:
        assert mine.state.fencing == before.state.fencing + 1
    before.release()


def test_a_holder_learns_at_its_next_renewal_that_another_took_over(repository: Repository) -> None:
    before = acquire(repository, "pod-a")
    with acquire(repository, "pod-a", never) as mine:  # a second process of the same name, while the first one runs
        wait_for(lambda: lost(before))
        before.release()
        mine.check()


def test_a_released_lease_stays_as_an_object_and_is_free_at_once(repository: Repository) -> None:
    acquire(repository, "pod-a").release()
    state = lease.observe(repository, "archive")
    assert state is not None and (state.holder, state.fencing, state.held) == ("pod-a", 1, False)
    acquire(repository, "pod-b", never).release()


def test_the_fencing_number_never_goes_back(repository: Repository) -> None:
    found = []
    for holder in ("a", "b", "a", "a"):
        with acquire(repository, holder) as held:
            found.append(held.state.fencing)
    machine = Machine(repository)
    found.append(acquire(machine.repository, "c").state.fencing)
    machine.is_off.set()
    with take_over(repository, "d") as held:
        found.append(held.state.fencing)
    state = lease.observe(repository, "archive")
    assert state is not None
    assert [*found, state.fencing] == [1, 2, 3, 4, 5, 6, 6]


def test_roles_do_not_meet(repository: Repository) -> None:
    assert lease.observe(repository, "full") is None
    with acquire(repository, "a"), lease.acquire(repository, "full", holder="b", ttl_s=TTL_S, sleep=never) as other:
        assert other.state == lease.LeaseState("full", "b", 1, 1, True)


def test_releasing_into_a_broken_store_is_no_error(repository: Repository) -> None:
    machine = Machine(repository)
    held = acquire(machine.repository, "pod-a")
    machine.is_off.set()
    held.release()
    state = lease.observe(repository, "archive")
    assert state is not None and state.held


def test_a_damaged_lease_is_told(repository: Repository) -> None:
    repository.backend.put("leases/archive", [b"{}"])
    with pytest.raises(errors.IntegrityError, match="leases/archive"):
        acquire(repository, "pod-a")
