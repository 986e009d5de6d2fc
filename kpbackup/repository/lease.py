"""Leases: one holder per role, by conditional writes on one small object.

A lease only saves work; the fence is the create-only key of a manifest. Expiry is judged by the observer alone:
an ETag that did not change for a whole time to live on its own monotonic clock. So no two clocks are compared. ETags are
hashes of the content in most stores, so every write carries a fresh `mark`: a renewal without one would look like silence.
The fencing number only grows: release writes a released lease, it deletes nothing. After a crash the same holder
name takes its lease back at once; anyone else waits one time to live.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType

from kpbackup import errors
from kpbackup.model import canonical, codec
from kpbackup.repository import layout
from kpbackup.repository.binding import Repository

TTL_S = 30.0  # three renewals may fail before someone else may take over
POLL_S = 1.0


@dataclass(frozen=True)
class LeaseState:
    """What the lease object says. `ttl_s` is the holder's promise to renew within that many seconds."""

    role: str
    holder: str
    fencing: int
    ttl_s: int
    held: bool
    mark: str = ""


class Lease:
    """A held lease: renewed by a thread until released; `check()` before each commit.

    Use as a context manager. Losing it (another holder took over after we stalled) makes check() raise.
    """

    def __init__(self, repository: Repository, state: LeaseState, etag: str) -> None:
        self._repository = repository
        self.state = state
        self._etag = etag
        self._lost: errors.KpbackupError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_stopped, name=f"lease-{state.role}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises LeaseHeld when the lease was lost."""
        if self._lost is not None:
            raise errors.LeaseHeld(
                f"the lease {self.state.role!r} was lost: {self._lost.message}",
                hint="another process took over; this run stops without committing",
            )

    def release(self) -> None:
        self._stop.set()
        self._thread.join()
        if self._lost is None:
            try:
                self._write(replace(self.state, held=False))
            except (errors.StorageError, errors.LocalIOError):
                return  # it expires by itself; the work is committed and must not fail for this

    def _renew_until_stopped(self) -> None:
        renewed = time.monotonic()
        while not self._stop.wait(self.state.ttl_s / 3):
            try:
                self._write(self.state)
                renewed = time.monotonic()
            except errors.PreconditionFailed as exc:
                self._lost = exc
                return
            except (errors.StorageError, errors.LocalIOError) as exc:
                if time.monotonic() - renewed > self.state.ttl_s:
                    self._lost = exc
                    return

    def _write(self, state: LeaseState) -> None:
        self._etag = self._repository.backend.replace(layout.lease(state.role), _encode(state), etag=self._etag).etag

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def acquire(
    repository: Repository, role: str, *, holder: str, ttl_s: float = TTL_S, sleep: Callable[[float], None] = time.sleep
) -> Lease:
    """The lease of `role`, at once or after watching a silent holder for its whole time to live.

    Raises:
        LeaseHeld: another holder renewed it meanwhile.
    """
    backend, key = repository.backend, layout.lease(role)
    fresh = LeaseState(role, holder, 1, math.ceil(ttl_s), True)
    for _ in range(3):
        try:
            return Lease(repository, fresh, backend.put_if_absent(key, _encode(fresh)).etag)
        except errors.ObjectExists:
            state, etag = _observe(repository, role)
        if state.held and state.holder != holder:
            _watch(repository, state, etag, sleep)
        mine = replace(fresh, fencing=state.fencing + 1)
        try:
            return Lease(repository, mine, backend.replace(key, _encode(mine), etag=etag).etag)
        except errors.PreconditionFailed:
            continue  # someone was faster: look again
    raise errors.LeaseHeld(f"another process took the lease {role!r} of {backend.name}", hint="try again when it has finished")


def _watch(repository: Repository, state: LeaseState, etag: str, sleep: Callable[[float], None]) -> None:
    started = time.monotonic()
    while time.monotonic() - started < state.ttl_s:
        sleep(POLL_S)
        now, current = _observe(repository, state.role)
        if current != etag and now.held:
            raise errors.LeaseHeld(
                f"{now.holder} holds the lease {state.role!r} of {repository.backend.name}",
                hint="it is doing this work now; wait for it, or stop it first",
            )
        if current != etag:
            return


def _observe(repository: Repository, role: str) -> tuple[LeaseState, str]:
    key = layout.lease(role)
    before = repository.backend.head(key)
    data = repository.backend.read(key)
    if repository.backend.head(key).etag != before.etag:
        return _observe(repository, role)  # renewed between the two reads
    return codec.decode(LeaseState, canonical.loads(data, what=key), what=key), before.etag


def observe(repository: Repository, role: str) -> LeaseState | None:
    """What the lease of `role` says now, None when nobody ever took it."""
    try:
        return _observe(repository, role)[0]
    except errors.ObjectMissing:
        return None


def _encode(state: LeaseState) -> bytes:
    return canonical.dumps(codec.encode(replace(state, mark=secrets.token_hex(8)))) + b"\n"
