"""A repository's objects as files below one directory: a disk, an NFS mount, a demo.

Idea: an object is written to a temporary file in `<directory>/.kpbackup-tmp/`, flushed to the disk, and only
then gets its name by rename, or by link when it must not exist yet; the directory is flushed too. A lock
file there makes compare-and-replace atomic between processes, and on NFS between machines.

Limits: one part of a key is at most 255 bytes, and a key cannot also be the directory of another. The whole
directory must be one file system. Etags are the SHA-256 of objects up to 64 KiB (leases, manifests); of
larger ones, which nobody replaces by etag, they are size, mtime and inode.

After a crash: objects are whole or absent. A temporary file left behind is never listed; the next writer
removes it once it is an hour old and nobody holds its lock.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import hashlib
import itertools
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO

from kpbackup import errors
from kpbackup.storage import backend
from kpbackup.storage.backend import Capabilities, ObjectInfo

TEMPORARY = ".kpbackup-tmp"
HASHED_BYTES = 64 << 10
PIECE_BYTES = 256 << 10
LEFTOVER_AFTER_S = 3600.0  # far above the moment between creating a file and locking it
LOCK_WAIT_S = 60.0  # the lock is held for one rename or a hundred deletions; longer means a stopped process or a dead NFS server
LOCK_POLL_S = 0.005
DELETED_AT_ONCE = 100  # under one lock, and one flush of each directory

_HINTS = {
    errno.ENOSPC: "the disk is full: free some space, then try again",
    errno.EFBIG: "the file system or a limit (ulimit -f) does not allow files of this size",
    errno.EDQUOT: "the quota is used up: free some space, then try again",
    errno.EACCES: "give the user that runs kpbackup read and write permission on this directory",
    errno.EPERM: "give the user that runs kpbackup read and write permission on this directory",
    errno.EROFS: "the file system is mounted read-only",
    errno.ENOTDIR: "a file is in the way of a directory",
    errno.EISDIR: "a directory is in the way of an object: keys cannot be directories of other keys",
    errno.EIO: "the disk reports an error: check it before you rely on this repository",
}
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class LocalBackend:
    """`backend.Backend` on a directory, which the first write creates."""

    capabilities = Capabilities(conditional_put=True, conditional_replace=True, checksums=False)

    def __init__(self, directory: Path, *, lock_wait_s: float = LOCK_WAIT_S) -> None:
        self.name = directory.as_uri()
        self._directory = directory
        self._temporary = directory / TEMPORARY
        self._lock_wait_s = lock_wait_s
        self._swept = False

    def put(self, key: str, chunks: Iterable[bytes], *, size_hint: int = 0) -> ObjectInfo:
        del size_hint  # a file needs no parts
        return self._write(key, chunks, self._rename)

    def put_if_absent(self, key: str, data: bytes) -> ObjectInfo:
        return self._write(key, [data], self._link)

    def replace(self, key: str, data: bytes, *, etag: str) -> ObjectInfo:
        def publish(temporary: Path, path: Path) -> None:
            found = self._etag_of(path)
            if found != etag:
                state = "does not exist any more" if found is None else "was changed by another writer"
                raise errors.PreconditionFailed(f"cannot replace {self._url(key)}: it {state}")
            self._rename(temporary, path)

        return self._write(key, [data], publish)

    def get(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        path = self._path(key)
        with self._reading(key), path.open("rb") as file:
            file.seek(offset)
            left = length
            while left is None or left > 0:
                piece = file.read(PIECE_BYTES if left is None else min(left, PIECE_BYTES))
                if not piece:
                    return
                left = None if left is None else left - len(piece)
                yield piece

    def read(self, key: str, *, limit_bytes: int = backend.READ_LIMIT_BYTES) -> bytes:
        return backend.join(self.get(key), limit_bytes=limit_bytes, what=self._url(key))

    def head(self, key: str) -> ObjectInfo:
        path = self._path(key)
        with self._reading(key), path.open("rb") as file:
            return _info(key, file)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        for key in self._keys(backend.validate_prefix(prefix), after):
            with contextlib.suppress(errors.ObjectMissing):  # deleted meanwhile
                yield self.head(key)

    def list_prefixes(self, prefix: str) -> Iterator[str]:
        for name in self._names(backend.validate_prefix(prefix)):
            if name.endswith("/") and next(self._keys(name), None):  # a crash may leave an empty directory
                yield name

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._translated("delete", key), self._locked():
            try:
                path.unlink()
            except _ABSENT:
                return
            self._drop_empty(path.parent)

    def delete_all(self, keys: Iterable[str]) -> None:
        rest = iter(keys)
        while group := builtins.list(itertools.islice(rest, DELETED_AT_ONCE)):
            paths = {key: self._path(key) for key in group}
            with self._locked():
                left: dict[Path, str] = {}
                for key, path in paths.items():
                    with self._translated("delete", key), contextlib.suppress(*_ABSENT):
                        path.unlink()
                        left[path.parent] = key
                for directory, key in left.items():
                    with self._translated("delete", key):
                        self._drop_empty(directory)

    def verifies_checksums(self, key: str) -> bool:
        backend.validate_key(key)
        return False

    def close(self) -> None:
        """Nothing is held open."""

    # -- writing

    def _write(self, key: str, chunks: Iterable[bytes], publish: Callable[[Path, Path], None]) -> ObjectInfo:
        """Writes a temporary file and gives it its name by `publish(temporary, path)`, under the lock."""
        path = self._path(key)
        with self._translated("store", key):
            _make_directory(self._temporary)
            self._sweep()
            temporary = self._temporary / secrets.token_hex(16)
            file = temporary.open("xb", buffering=0)  # a buffer would fail once more, at close
        try:
            with file:
                fcntl.flock(file, fcntl.LOCK_EX)
                for chunk in chunks:  # its exceptions are the caller's own
                    with self._translated("store", key):
                        _write_all(file, chunk)
                with self._translated("store", key):
                    os.fsync(file.fileno())
                    with temporary.open("rb") as written:
                        info = _info(key, written)
                    with self._locked():
                        _make_directory(path.parent)
                        publish(temporary, path)
                        _sync_directory(path.parent)
        except FileExistsError as exc:
            raise errors.ObjectExists(f"cannot create {self._url(key)}: it exists already") from exc
        finally:
            temporary.unlink(missing_ok=True)
        return info

    @staticmethod
    def _rename(temporary: Path, path: Path) -> None:
        temporary.rename(path)

    @staticmethod
    def _link(temporary: Path, path: Path) -> None:
        path.hardlink_to(temporary)

    @staticmethod
    def _etag_of(path: Path) -> str | None:
        try:
            with path.open("rb") as file:
                return _info("", file).etag
        except _ABSENT:
            return None

    def _drop_empty(self, directory: Path) -> None:
        """Removes directories that a deleted object leaves empty: stores have none, so listings must not show them."""
        while directory != self._directory:
            try:
                directory.rmdir()
            except FileNotFoundError:
                pass  # gone with the one below it
            except OSError as exc:
                if exc.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    break
                raise
            directory = directory.parent
        _sync_directory(directory)

    def _sweep(self) -> None:
        """Removes, once per backend, what crashed writers left."""
        if self._swept:
            return
        self._swept = True
        for entry in builtins.list(os.scandir(self._temporary)):
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                if entry.name == "lock" or time.time() - entry.stat().st_mtime < LEFTOVER_AFTER_S:
                    continue
                with open(entry.path, "rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(entry.path)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Holds the lock of the directory, against threads and processes alike; given up by the kernel at a crash."""
        _make_directory(self._temporary)
        with (self._temporary / "lock").open("ab") as file:
            until = time.monotonic() + self._lock_wait_s
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as exc:
                    if time.monotonic() > until:
                        raise errors.StorageError(
                            f"cannot lock {self.name}: another process has held {TEMPORARY}/lock for {self._lock_wait_s:.0f} s",
                            hint="look for a stopped kpbackup process, or a network file system that hangs",
                        ) from exc
                    time.sleep(LOCK_POLL_S)
            yield

    # -- reading

    def _keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """Keys that start with `prefix` and come after `after`, in order."""
        for name in self._names(prefix):
            if name.endswith("/"):
                if name > after or after.startswith(name):
                    yield from self._keys(name, after)
            elif name > after:
                yield name

    def _names(self, prefix: str) -> builtins.list[str]:
        """Keys and, ending with '/', directories one level below `prefix`, in order.

        A directory sorts as its name with '/', which puts 'a-b' before 'a/b' as stores do.
        """
        above, slash, start = prefix.rpartition("/")
        try:
            with self._translated("list", prefix), os.scandir(self._directory / above) as entries:
                names = [entry.name + "/" * entry.is_dir() for entry in entries]
        except errors.ObjectMissing:
            return []
        hidden = f"{TEMPORARY}/" if not above else ""
        return [above + slash + name for name in sorted(names) if name.startswith(start) and name != hidden]

    # -- names and errors

    def _path(self, key: str) -> Path:
        if backend.validate_key(key).split("/")[0] == TEMPORARY:
            raise errors.StorageError(f"invalid object key {key!r}: {TEMPORARY} is reserved")
        return self._directory / key

    def _url(self, key: str) -> str:
        return f"{self.name}/{key}"

    def _reading(self, key: str) -> contextlib.AbstractContextManager[None]:
        return self._translated("read", key)

    @contextlib.contextmanager
    def _translated(self, doing: str, key: str) -> Iterator[None]:
        """The operating system's errors as ours."""
        try:
            yield
        except FileExistsError:
            raise  # what a create-only write is for: `_write` names it
        except OSError as exc:
            if isinstance(exc, _ABSENT) and doing in ("read", "list"):
                raise errors.ObjectMissing(f"cannot {doing} {self._url(key)}: it does not exist") from exc
            cause = exc.strerror or str(exc)
            raise errors.LocalIOError(f"cannot {doing} {self._url(key)}: {cause}", hint=_HINTS.get(exc.errno or 0, "")) from exc


def _info(key: str, file: BinaryIO) -> ObjectInfo:
    status = os.fstat(file.fileno())
    if status.st_size <= HASHED_BYTES:
        return ObjectInfo(key, status.st_size, hashlib.sha256(file.read()).hexdigest())
    return ObjectInfo(key, status.st_size, f"{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ino:x}")


def _write_all(file: RawIOBase, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) or 0 :]


def _make_directory(directory: Path) -> None:
    """Creates a directory and those above it, each flushed into its parent."""
    if directory.is_dir():
        return
    _make_directory(directory.parent)
    with contextlib.suppress(FileExistsError):
        directory.mkdir()
    _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
