"""The head file: what this machine has seen of the repository, kept where the store cannot reach it.

    {"links": {"0001": "5f.."}, "logs": {"timelines/0001/segments": 120, ...}, "repository": "0f6d..", "written_at": "..."}

Written by each backup, whole and by rename, so a crash leaves the old one or the new one. Numbers only ever grow.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from kpbackup import errors
from kpbackup.model import canonical, codec
from kpbackup.model.catalog import Catalog
from kpbackup.model.heads import Heads
from kpbackup.model.manifest import BackupSet, BinlogSegment, Compacted, Page
from kpbackup.repository import layout
from kpbackup.repository.binding import Repository
from kpbackup.repository.heads import Missing, compare

LARGEST_BYTES = 1 << 20
_turn = threading.Lock()  # the daemon's jobs record side by side


def read(path: str) -> Heads:
    """The head in a file.

    Raises:
        LocalIOError: it cannot be read.
        IntegrityError: it is no head file.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_BYTES)
    except OSError as exc:
        raise errors.LocalIOError(
            f"cannot read the head file {path}: {exc.strerror}", hint="each backup writes it (repository.head_file)"
        ) from exc
    return codec.decode(Heads, canonical.loads(content, what=f"head file {path}"), what=f"head file {path}")


def write(path: str, heads: Heads, *, now: datetime) -> None:
    """Puts a head into a file.

    Raises:
        LocalIOError.
    """
    document = {**codec.encode(heads), "written_at": canonical.time_text(now)}
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(canonical.dumps(document) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, target)
    except OSError as exc:
        raise errors.LocalIOError(
            f"cannot write the head file {path}: {exc.strerror}",
            hint="repository.head_file must lie in a directory that this user may write to",
        ) from exc


def record(path: str | None, written: Sequence[BackupSet | BinlogSegment | Page | Compacted], *, now: datetime) -> None:
    """Adds what a run has just written, oldest first; without a file nothing is kept.

    Raises:
        LocalIOError; RepositoryError: the file belongs to another repository.
    """
    if path is None or not written:
        return
    repository = written[0].head.repository
    places = [place for one in written if (place := layout.place(one.head.key)) is not None]
    links = {one.head.timeline: one.link for one in written if isinstance(one, BinlogSegment)}
    with _turn:
        before = read(path) if Path(path).exists() else Heads(repository)
        _refuse_foreign(path, before, repository)
        write(path, before.advanced(places, links), now=now)


def expect(path: str | None, repository: Repository, catalog: Catalog) -> None:
    """Passes when the store shows everything that the head file knows; without a file it passes.

    Raises:
        IntegrityError: newest entries were removed, or the store serves an older state.
        RepositoryError: the file belongs to another repository.
    """
    if path is None or not Path(path).exists():
        return
    missing = compare(repository, catalog, read(path))
    if missing:
        raise errors.IntegrityError(
            f"the store shows less than {path} knows: {told(missing)}",
            hint="newest entries were removed, or the store serves an older state: nothing is written on top of that; "
            "`kpbackup check --expect-head` tells more, docs/security.md what to do",
        )


def told(missing: Iterable[Missing]) -> str:
    """What is missing, in words."""
    return "; ".join(f"{one.log} {one.first} to {one.last}: {one.what}" for one in missing)


def _refuse_foreign(path: str, found: Heads, repository: str) -> None:
    """Raises RepositoryError when a head file is not of this repository."""
    if found.repository != repository:
        raise errors.RepositoryError(
            f"the head file {path} is of repository {found.repository}, this is {repository}",
            hint="give each repository a head file of its own (repository.head_file)",
        )
