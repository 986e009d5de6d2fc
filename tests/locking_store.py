"""A store that holds Object Locks, with a clock of its own: a real backend behind a small one, for tests of what is locked."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta

from kpbackup import errors
from kpbackup.repository import layout
from kpbackup.repository.binding import Repository
from kpbackup.storage import ObjectInfo, locks
from tests.cut_off import CutOffBackend


class LockingStore(CutOffBackend):
    """Holds locks in memory; `now` is its clock. Deletes what it is told to, as a bucket without versions would."""

    def __init__(self, repository: Repository, *, now: datetime, period: timedelta) -> None:
        super().__init__(repository.backend)
        self.lock: locks.Lock | None = locks.Lock("compliance", period, (layout.LEASES,))
        self.period = period
        self.now = now
        self.until: dict[str, datetime] = {}
        self.asked = 0

    def put(self, key: str, chunks: Iterable[bytes], *, size_hint: int = 0) -> ObjectInfo:
        self.until[key] = self.now + self.period
        return super().put(key, chunks, size_hint=size_hint)

    def put_if_absent(self, key: str, data: bytes) -> ObjectInfo:
        self.until[key] = self.now + self.period
        return super().put_if_absent(key, data)

    def locked_until(self, key: str) -> datetime | None:
        self.asked += 1
        self.head(key)
        return self.until.get(key)

    def lock_longer(self, key: str, *, mode: locks.Mode, until: datetime) -> None:
        if until < self.until[key]:
            raise errors.StorageError(f"{key} is locked until {self.until[key]}")
        self.until[key] = until

    def can_lock(self) -> bool:
        return True

    def keeps_versions(self) -> bool:
        return False

    def put_locked(self, key: str, data: bytes, *, mode: locks.Mode, until: datetime) -> str:
        raise errors.StorageError("not in this store")

    def delete_version(self, key: str, version: str, *, bypass: bool) -> None:
        raise errors.StorageError("not in this store")

    def write_dates(self) -> None:
        """Locks what came past us by the times at which its manifest says it was written, the rest from now."""
        for info in self.list(""):
            if info.key not in self.until:
                lines = self.read(info.key).split(b"\n")
                head = json.loads(lines[4])["head"] if len(lines) > 4 and lines[4].startswith(b'{"') else None
                written = datetime.fromisoformat(head["created_at"]) if head else self.now
                self.until[info.key] = written + self.period

    def lose_what_is_not_locked(self, at: datetime) -> list[str]:
        """What somebody with every right can do at that moment."""
        gone = [info.key for info in self.list("") if self.until[info.key] <= at]
        self.delete_all(gone)
        return gone
