"""Files of the application put back below a directory, each compared with the hash it was stored with.

Nothing is written outside that directory: names with `..` or from the root are refused, and every folder on the way is opened
without following links, those that lie there already included. A link that leads out of the directory is left out and told. A
file takes its name when it is whole, so that a crash leaves only names that begin with `.kpbackup-`; the next run writes all
again. Owners stay those of whoever restores; set-uid bits are dropped.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import posixpath
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from kpbackup import errors
from kpbackup.model.manifest import ApplicationManifest, FileSet, StoredObject
from kpbackup.pipeline import encrypt, stream
from kpbackup.recovery.steps import RecoveryRequest
from kpbackup.repository import applications, keys
from kpbackup.repository.binding import Repository

PIECE_BYTES = 1 << 20
UNFINISHED = ".kpbackup-"
_PERMISSIONS = 0o777


@dataclass
class _Restored:
    files: int = 0
    links: int = 0
    size_bytes: int = 0
    left_out: int = 0
    links_to_make: list[tuple[str, str]] = field(default_factory=list)


def restore(request: RecoveryRequest, found: ApplicationManifest, directory: str) -> dict[str, str]:
    """Everything of the bundle's files below `directory`, under the paths they had; figures for the journal.

    Raises:
        StepFailed: the bundle has no files. LocalIOError: the directory cannot be written. IntegrityError, KeyProblem.
    """
    if found.files is None:
        raise errors.StepFailed(
            f"application bundle {found.name} holds no files",
            hint="unset recovery.deploy.files_directory, or set application.files where backups are made",
        )
    identity = keys.open_data_key(request.repository, found.files.sealing, request.identities)
    done = _Restored()
    with _opened_root(directory) as root:
        for pack in found.files.objects:
            _restore_pack(request.repository, pack, identity, root, done)
        for name, target in done.links_to_make:  # last: nothing is written through a link of ours
            _make_link(root, name, target, done, request.warn)
    _judge_count(found.files, done)
    told = {"files_restored": done.files, "links_restored": done.links, "links_left_out": done.left_out}
    return {name: str(value) for name, value in (*told.items(), ("file_bytes", done.size_bytes))}


def _judge_count(stored: FileSet, done: _Restored) -> None:
    there = done.files + done.links + done.left_out
    if there != stored.count:
        what = f"{there} files came back, {stored.count} were stored"
        raise errors.IntegrityError(what, hint="run `kpbackup check --read-data 100%`")


def _restore_pack(
    repository: Repository, pack: StoredObject, identity: encrypt.Identity, root: int, done: _Restored
) -> None:
    """One pack: its files written as they come, then judged by the inventory at its end, then named."""
    tally = stream.Tally(repository.backend.get(pack.key))
    written: dict[str, tuple[str, str]] = {}  # path -> (name it has until it is judged, sha256)
    inventory: list[dict[str, Any]] = []
    content = io.BufferedReader(_Stream(stream.unseal(tally, (identity,))), PIECE_BYTES)
    with tarfile.open(fileobj=content, mode="r|", errorlevel=2, errors="surrogateescape") as archive:
        for member in archive:
            if member.name == applications.PACK_INVENTORY:
                inventory = [json.loads(line) for line in _content(archive, member).read().splitlines()]
            elif member.issym():
                done.links_to_make.append((_judged(member.name), member.linkname))
            elif member.isreg():
                written[member.name] = _write(archive, member, root, len(written))
            else:
                raise errors.IntegrityError(f"{pack.key} holds {member.name!r}, which is neither a file nor a link")
    while content.read(PIECE_BYTES):
        pass  # only the end proves that the object is whole
    if (tally.size_bytes, tally.sha256) != (pack.bytes, pack.sha256):
        raise errors.IntegrityError(f"{pack.key}: its bytes are not those that were signed for")
    for entry in inventory:
        if "link" not in entry and "left_out" not in entry:
            _name(root, entry, written, done)


class _Stream(io.RawIOBase):
    """Pieces as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._held = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._held:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._held = piece
        size = min(len(buffer), len(self._held))
        buffer[:size], self._held = self._held[:size], self._held[size:]
        return size


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    found = archive.extractfile(member)
    assert found is not None
    return found


def _judged(name: str) -> str:
    """The name, if it stays below the directory."""
    parts = name.split("/")
    if name.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\0" in name:
        raise errors.IntegrityError(f"a stored file is named {name!r}, which leads out of the directory", hint="who wrote it?")
    return name


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, root: int, number: int) -> tuple[str, str]:
    folder, _, leaf = _judged(member.name).rpartition("/")
    unfinished = f"{UNFINISHED}{number}"  # the same in every run: what a crash left is written over
    digest, content = hashlib.sha256(), _content(archive, member)
    with _folder(root, folder) as place:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with _told(member.name), open(os.open(unfinished, flags, 0o600, dir_fd=place), "wb") as out:
            while piece := content.read(PIECE_BYTES):
                digest.update(piece)
                out.write(piece)
            out.flush()
            os.fchmod(out.fileno(), member.mode & _PERMISSIONS)
            os.utime(out.fileno(), (member.mtime, member.mtime))
            os.fsync(out.fileno())
    return unfinished, digest.hexdigest()


def _name(root: int, entry: dict[str, Any], written: dict[str, tuple[str, str]], done: _Restored) -> None:
    """Gives a written file its name, if it is what the inventory says."""
    path = entry["path"]
    if path not in written:
        raise errors.IntegrityError(f"file {path!r} is in the inventory of its pack and not in the pack")
    unfinished, sha256 = written[path]
    folder, _, leaf = path.rpartition("/")
    with _folder(root, folder) as place, _told(path):
        if entry.get("shrank"):
            sha256 = _cut(place, unfinished, entry["size"])
        if sha256 != entry["sha256"]:
            raise errors.IntegrityError(f"file {path!r} is not what was stored")
        os.rename(unfinished, leaf, src_dir_fd=place, dst_dir_fd=place)
    done.files += 1
    done.size_bytes += entry["size"]


def _cut(place: int, name: str, size: int) -> str:
    """Takes away what filled the pack up where the file had shrunk; the hash of the rest."""
    status = os.stat(name, dir_fd=place, follow_symlinks=False)
    os.chmod(name, 0o600, dir_fd=place)
    with open(os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place), "r+b") as file:
        file.truncate(size)
        digest = hashlib.sha256()
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
        os.fchmod(file.fileno(), status.st_mode & _PERMISSIONS)
        os.utime(file.fileno(), ns=(status.st_mtime_ns, status.st_mtime_ns))
    return digest.hexdigest()


def _make_link(root: int, name: str, target: str, done: _Restored, warn: Callable[[str], None]) -> None:
    folder, _, leaf = name.rpartition("/")
    leads_to = posixpath.normpath(posixpath.join(folder, target))
    if target.startswith("/") or leads_to == ".." or leads_to.startswith("../"):
        warn(f"the link {name} leads out of the restored files, to {target}: it was left out")
        done.left_out += 1
        return
    unfinished = f"{UNFINISHED}link"
    with _folder(root, folder) as place, _told(name):
        try:
            os.unlink(unfinished, dir_fd=place)
        except FileNotFoundError:
            pass
        os.symlink(target, unfinished, dir_fd=place)
        os.rename(unfinished, leaf, src_dir_fd=place, dst_dir_fd=place)
    done.links += 1


@contextmanager
def _opened_root(directory: str) -> Iterator[int]:
    with _told(directory):
        os.makedirs(directory, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _folder(root: int, path: str) -> Iterator[int]:
    """The folder below the root, made if need be; no part of it may be a link."""
    descriptor = os.dup(root)
    try:
        with _told(path):
            for part in path.split("/") if path else ():
                try:
                    os.mkdir(part, dir_fd=descriptor)
                except FileExistsError:
                    pass
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise errors.LocalIOError(
            f"recovery.deploy.files_directory: {name} cannot be written: {exc.strerror}",
            hint="check room and rights; a link where a folder must be is refused",
        ) from exc
