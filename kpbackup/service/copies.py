"""Second copies of the repository: bringing them up to date, and what each says of itself, read from the copy alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kpbackup import config, errors
from kpbackup.plan import timeline
from kpbackup.repository import binding
from kpbackup.repository import catalog as catalogs
from kpbackup.repository import copy as copying
from kpbackup.service import opening, trust

if TYPE_CHECKING:
    from kpbackup.repository.binding import Repository
    from kpbackup.storage.backend import Backend

Wrap = Callable[["Backend"], "Backend"]


def bring_up(
    settings: config.Settings,
    origin: Repository,
    name: str,
    *,
    holder: str,
    wrap: Wrap = lambda backend: backend,
    progress: copying.Progress = lambda done, total, unit: None,
) -> copying.Copied:
    """Copies what the copy of this name lacks.

    Raises: as copying.copy.
    """
    return copying.copy(origin, wrap(opening.copy_backend(settings, name)), holder=holder, progress=progress)


class Reader:
    """Reads the copies again and again; manifests never change, so each copy's handle is kept."""

    def __init__(self, settings: config.Settings, origin: Repository) -> None:
        self._settings, self._origin = settings, origin
        self._opened: dict[str, Repository] = {}

    def read(self) -> tuple[trust.Copy, ...]:
        """What every copy says now; one that cannot be read hides no other."""
        return tuple(self._read(one) for one in self._settings.copies)

    def _read(self, wanted: config.CopySettings) -> trust.Copy:
        try:
            copied = self._opened.get(wanted.name) or self._open(wanted.name)
            point = timeline.newest_recovery_point(catalogs.read_catalog(copied))
        except errors.KpbackupError as exc:
            return trust.Copy(wanted.name, wanted.max_age, problem=exc.message)
        return trust.Copy(wanted.name, wanted.max_age, point)

    def _open(self, name: str) -> Repository:
        store = opening.copy_backend(self._settings, name)
        opened = binding.open_repository(store, public_keys=self._origin.public_keys)
        if opened.id != self._origin.id:
            raise errors.RepositoryError(f"{store.name} holds repository {opened.id}, not {self._origin.id}")
        self._opened[name] = opened
        return opened
