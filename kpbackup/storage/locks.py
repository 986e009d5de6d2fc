"""Object Lock: the store itself refuses to delete what it holds until a date, whoever asks.

A lock needs a bucket made for it, which keeps versions too: deleting there hides an object, and its bytes stay until the lock is
over. Stores without locks do not have the calls of `LockingBackend`; nothing is locked there.

Limits: a governance lock can be lifted by an account with that right, a compliance lock by nobody. Locks are never shortened or
lifted by kpbackup; prune makes them longer for what is kept longer (repository/lock_renewal.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol, runtime_checkable

from kpbackup import errors
from kpbackup.storage.backend import Backend

Mode = Literal["governance", "compliance"]
ASKERS = 16  # small requests, one per object


@dataclass(frozen=True)
class Lock:
    """What every object written gets; those whose keys start with one of `exempt` get none (they are replaced)."""

    mode: Mode
    period: timedelta
    exempt: tuple[str, ...] = ()

    def parameters(self, key: str, now: datetime) -> dict[str, Any]:
        """The parameters of a write of `key`."""
        return {} if key.startswith(self.exempt) else fixed(self.mode, now + self.period)


def fixed(mode: Mode, until: datetime) -> dict[str, Any]:
    """The parameters of a write that is locked until then."""
    return {"ObjectLockMode": mode.upper(), "ObjectLockRetainUntilDate": until.astimezone(UTC)}


@runtime_checkable
class LockingBackend(Protocol):
    """A store that may lock objects and keep versions."""

    lock: Lock | None

    def locked_until(self, key: str) -> datetime | None:
        """When its lock is over; None without one. Raises ObjectMissing."""

    def lock_longer(self, key: str, *, mode: Mode, until: datetime) -> None:
        """Locks what is stored until then; a lock that ends later is refused with StorageError."""

    def can_lock(self) -> bool:
        """Whether the bucket was made with Object Lock."""

    def keeps_versions(self) -> bool:
        """Whether what is overwritten or deleted stays as an older version."""

    def put_locked(self, key: str, data: bytes, *, mode: Mode, until: datetime) -> str:
        """Stores an object that is locked; the name of its version."""

    def delete_version(self, key: str, version: str, *, bypass: bool) -> None:
        """Deletes one version for good; with `bypass` over a governance lock. Raises StorageError when it is refused."""


def of(backend: Backend) -> Lock | None:
    """What the settings ask to put on everything written there; None for no lock."""
    return backend.lock if isinstance(backend, LockingBackend) else None


def renew(backend: Backend, keys: Iterable[str], now: datetime) -> int:
    """Locks anew, for a whole period from now, those of the keys whose lock has less than half of it left; how many.

    Raises:
        StorageError. What is gone meanwhile is passed over.
    """
    if not isinstance(backend, LockingBackend) or backend.lock is None:
        return 0
    lock, store = backend.lock, backend

    def is_renewed(key: str) -> bool:
        try:
            until = store.locked_until(key)
            if until is not None and until - now >= lock.period / 2:
                return False
            store.lock_longer(key, mode=lock.mode, until=now + lock.period)
        except errors.ObjectMissing:
            return False
        return True

    with ThreadPoolExecutor(ASKERS) as pool:
        return sum(pool.map(is_renewed, keys))


def locked(backend: Backend, keys: Iterable[str], now: datetime) -> frozenset[str]:
    """Those of the keys that the store would not give up yet.

    Raises:
        StorageError.
    """
    if not isinstance(backend, LockingBackend) or not backend.can_lock():
        return frozenset()

    def is_locked(key: str) -> bool:
        try:
            until = backend.locked_until(key)
        except errors.ObjectMissing:
            return False
        return until is not None and until > now

    wanted = list(keys)
    with ThreadPoolExecutor(ASKERS) as pool:
        return frozenset(key for key, held in zip(wanted, pool.map(is_locked, wanted), strict=True) if held)
