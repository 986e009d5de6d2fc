"""A store that can be cut off: a real backend behind a real small one, which counts writes and refuses them on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

from kpbackup import errors
from kpbackup.storage import Backend, Capabilities, ObjectInfo

Refuse = Callable[[int, str], str]  # (number of the write from 1, key) -> 'before', 'after' or ''


class CutOffBackend:
    """Passes everything on. `refuse` decides for each write: fail before it reaches the store, right after it, or not at all."""

    def __init__(self, inner: Backend, *, refuse: Refuse = lambda number, key: "") -> None:
        self.refuse = refuse
        self.writes: list[str] = []
        self._inner = inner
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    def put(self, key: str, chunks: Iterable[bytes], *, size_hint: int = 0) -> ObjectInfo:
        return self._write(key, lambda: self._inner.put(key, chunks, size_hint=size_hint))

    def put_if_absent(self, key: str, data: bytes) -> ObjectInfo:
        return self._write(key, lambda: self._inner.put_if_absent(key, data))

    def replace(self, key: str, data: bytes, *, etag: str) -> ObjectInfo:
        return self._write(key, lambda: self._inner.replace(key, data, etag=etag))

    def get(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        return self._inner.get(key, offset=offset, length=length)

    def read(self, key: str, *, limit_bytes: int = 64 << 20) -> bytes:
        return self._inner.read(key, limit_bytes=limit_bytes)

    def head(self, key: str) -> ObjectInfo:
        return self._inner.head(key)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        return self._inner.list(prefix, after=after)

    def list_prefixes(self, prefix: str) -> Iterator[str]:
        return self._inner.list_prefixes(prefix)

    def delete(self, key: str) -> None:
        self._inner.delete(key)

    def delete_all(self, keys: Iterable[str]) -> None:
        self._inner.delete_all(keys)

    def verifies_checksums(self, key: str) -> bool:
        return self._inner.verifies_checksums(key)

    def close(self) -> None:
        self._inner.close()

    def _write(self, key: str, send: Callable[[], ObjectInfo]) -> ObjectInfo:
        with self._lock:
            self.writes.append(key)
            verdict = self.refuse(len(self.writes), key)
        if verdict == "before":
            raise errors.StorageError(f"cut off before {key}")
        done = send()
        if verdict == "after":
            raise errors.StorageError(f"cut off after {key}")
        return done
