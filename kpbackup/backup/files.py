"""Files of the application outside its database, from mounted paths: sealed, in packs that `age -d | zstd -d | tar x` opens.

A pack is a tar of at most `PACK_FILES` entries or about `PACK_BYTES`; its last member is an inventory of the pack, a line of JSON
for each entry with size and SHA-256. Nothing is ever held but one piece of a file, the inventory of one pack, and the names of
one folder.

What is kept of what moves while it is read: a file as long as it was when it was opened (a recording that grows comes back up to
there); of one that shrank what was left; one that vanished is left out. Each is marked in the inventory and counted. Symbolic
links are kept as links and never followed. Sockets, pipes and devices are left out. What may not be read is an error. Hard links
become files of their own. Owners are kept as numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kpbackup import errors
from kpbackup.backup import writing
from kpbackup.model.manifest import FileSet, StoredObject
from kpbackup.pipeline import encrypt
from kpbackup.repository import applications, keys
from kpbackup.repository.binding import Repository

PACK_BYTES = 256 << 20
PACK_FILES = 10_000
PIECE_BYTES = 1 << 20
_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class Found:
    """One thing in a folder, as it was when the folder was looked at. `name` is its path below the root, with the root's own."""

    name: str
    leaf: str
    folder: int  # descriptor
    status: os.stat_result


class _Count:
    """What went into all packs so far."""

    def __init__(self) -> None:
        self.files = self.size_bytes = self.warnings = 0


def store(repository: Repository, roots: Sequence[str], recipients: Sequence[encrypt.AnyRecipient], now: datetime) -> FileSet:
    """Everything below the roots, sealed and stored.

    Raises:
        LocalIOError: a root is not there, or something in it may not be read.
        StorageError, KeyProblem.
    """
    for root in roots:
        if not os.path.isdir(root):
            raise errors.LocalIOError(
                f"application.files: {root} is no folder that can be read here", hint="is the volume mounted? nothing was stored"
            )
    sealing = keys.new_data_key(repository, recipients)
    attempt = writing.new_attempt(repository, applications.FILES, sealing, now)
    count, packs = _Count(), list[StoredObject]()
    source = _Peekable(found for root in roots for found in walk(root))
    while source.has_more:
        packs.append(attempt.seal(f"{len(packs) + 1:06d}", _pack(source, count)))
    return FileSet(now, sealing, tuple(packs), count.files, count.size_bytes, count.warnings)


class _Peekable:
    def __init__(self, found: Iterator[Found]) -> None:
        self._found = found
        self._next = next(found, None)

    @property
    def has_more(self) -> bool:
        return self._next is not None

    def __next__(self) -> Found:
        """The folder's descriptor of what is given stays open until the next call."""
        assert self._next is not None
        return self._next

    def advance(self) -> None:
        self._next = next(self._found, None)


def walk(root: str) -> Iterator[Found]:
    """Everything below `root` but folders, by name. A folder that vanishes meanwhile is empty; links are not followed.

    Raises:
        LocalIOError: a folder may not be read.
    """

    def failed(exc: OSError) -> None:
        if not isinstance(exc, FileNotFoundError):
            raise _unreadable(str(exc.filename), exc)

    top = os.path.normpath(root)
    for folder, folders, names, descriptor in os.fwalk(top, onerror=failed, follow_symlinks=False):
        folders.sort()
        linked = [name for name in folders if _is_link(name, descriptor)]  # fwalk names them among the folders
        for name in sorted([*names, *linked]):
            try:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield Found(os.path.join(folder, name).lstrip("/"), name, descriptor, status)


def _is_link(name: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _pack(source: _Peekable, count: _Count) -> Iterator[bytes]:
    """One tar: entries until it is full, then their inventory."""
    inventory: list[dict[str, Any]] = []
    size = 0
    while source.has_more and len(inventory) < PACK_FILES and size < PACK_BYTES:
        found = next(source)
        entry: dict[str, Any] = {"path": found.name}
        inventory.append(entry)
        for piece in _member(found, entry):
            size += len(piece)
            yield piece
        count.warnings += bool(entry.keys() & {"left_out", "shrank", "grew"})
        if "left_out" not in entry:
            count.files += 1
            count.size_bytes += entry["size"]
        source.advance()
    lines = b"".join(json.dumps(entry).encode() + b"\n" for entry in inventory)
    header = tarfile.TarInfo(applications.PACK_INVENTORY)
    header.size = len(lines)
    yield _header(header) + lines + _padding(len(lines)) + bytes(2 * _BLOCK)


def _member(found: Found, entry: dict[str, Any]) -> Iterator[bytes]:
    """The tar member of one file or link; what is left out gives nothing and says so in `entry`."""
    if stat.S_ISLNK(found.status.st_mode):
        yield from _link(found, entry)
    elif not stat.S_ISREG(found.status.st_mode):
        entry["left_out"] = "no file"
    else:
        with _opened(found) as descriptor:
            if descriptor is None:
                entry["left_out"] = "vanished"
            else:
                yield from _file(found, descriptor, entry)


@contextmanager
def _opened(found: Found) -> Iterator[int | None]:
    """A descriptor of the very file that was looked at, None when it is not there any more."""
    try:
        descriptor = os.open(found.leaf, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=found.folder)
    except FileNotFoundError:
        yield None
        return
    except OSError as exc:
        raise _unreadable(found.name, exc) from exc
    try:
        yield descriptor if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    finally:
        os.close(descriptor)


def _file(found: Found, descriptor: int, entry: dict[str, Any]) -> Iterator[bytes]:
    status = os.fstat(descriptor)
    header = _info(found.name, status)
    header.size = status.st_size
    yield _header(header)
    digest, left = hashlib.sha256(), status.st_size
    while left:
        try:
            piece = os.read(descriptor, min(PIECE_BYTES, left))
        except OSError as exc:
            raise _unreadable(found.name, exc) from exc
        if not piece:
            break
        digest.update(piece)
        left -= len(piece)
        yield piece
    entry |= {"size": status.st_size - left, "sha256": digest.hexdigest()}
    if left:
        entry["shrank"] = True
        yield from (bytes(min(PIECE_BYTES, left - at)) for at in range(0, left, PIECE_BYTES))
    elif os.fstat(descriptor).st_size > status.st_size:
        entry["grew"] = True
    yield _padding(status.st_size)


def _link(found: Found, entry: dict[str, Any]) -> Iterator[bytes]:
    try:
        target = os.readlink(found.leaf, dir_fd=found.folder)
    except OSError:  # gone, or another thing by now
        entry["left_out"] = "vanished"
        return
    header = _info(found.name, found.status)
    header.type, header.linkname = tarfile.SYMTYPE, target
    entry |= {"link": target, "size": 0}
    yield _header(header)


def _info(name: str, status: os.stat_result) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.mode, header.mtime = stat.S_IMODE(status.st_mode), status.st_mtime
    header.uid, header.gid = status.st_uid, status.st_gid
    return header


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def _unreadable(name: str, exc: OSError) -> errors.LocalIOError:
    return errors.LocalIOError(
        f"application.files: {name} cannot be read: {exc.strerror}",
        hint="let kpbackup read it (fsGroup, or a read-only mount with the right owner), or leave the path out",
    )
