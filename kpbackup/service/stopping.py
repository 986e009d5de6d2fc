"""Stopping a job of the daemon at a safe point: a store that, once told, refuses to begin or go on with data.

Idea: whatever a job does, it ends in the store, and nothing exists before its manifest does. So a job that may no longer
write data unwinds like after any failure: workers are ended, leases are released, no half of anything is visible.
What completes work already paid for still passes: the manifest of a set whose data is all there, and leases.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from kpbackup.repository import layout
from kpbackup.storage.backend import Backend, Capabilities, ObjectInfo


class Stopped(BaseException):
    """The daemon is ending. Not an Exception: nothing but `finally` and the daemon's own guard handles it."""


class StoppableBackend:
    """`Backend` that raises Stopped at safe points after `stop` is set."""

    def __init__(self, backend: Backend, stop: threading.Event) -> None:
        self._backend = backend
        self._stop = stop

    @property
    def name(self) -> str:
        return self._backend.name

    @property
    def capabilities(self) -> Capabilities:
        return self._backend.capabilities

    def put(self, key: str, chunks: Iterable[bytes], *, size_hint: int = 0) -> ObjectInfo:
        self._check()
        return self._backend.put(key, self._watched(chunks), size_hint=size_hint)

    def put_if_absent(self, key: str, data: bytes) -> ObjectInfo:
        place = layout.parse_log_entry(key)
        if place is None or place[1] != "sets":
            self._check()
        return self._backend.put_if_absent(key, data)

    def replace(self, key: str, data: bytes, *, etag: str) -> ObjectInfo:
        return self._backend.replace(key, data, etag=etag)

    def get(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        return self._backend.get(key, offset=offset, length=length)

    def read(self, key: str, *, limit_bytes: int = 64 << 20) -> bytes:
        return self._backend.read(key, limit_bytes=limit_bytes)

    def head(self, key: str) -> ObjectInfo:
        if key.startswith(layout.LEASES):
            self._check()  # who waits for another holder looks at its lease again and again
        return self._backend.head(key)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        return self._backend.list(prefix, after=after)

    def list_prefixes(self, prefix: str) -> Iterator[str]:
        return self._backend.list_prefixes(prefix)

    def delete(self, key: str) -> None:
        self._backend.delete(key)

    def delete_all(self, keys: Iterable[str]) -> None:
        self._backend.delete_all(keys)

    def verifies_checksums(self, key: str) -> bool:
        return self._backend.verifies_checksums(key)

    def close(self) -> None:
        """The backend belongs to whoever opened it."""

    def _watched(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._check()
            yield chunk

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped
