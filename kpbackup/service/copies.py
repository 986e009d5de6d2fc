"""Second copies of the repository: bringing them up to date, and what each says of itself, read from the copy alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kpbackup import config, errors
from kpbackup.plan import timeline
from kpbackup.repository import binding, reports
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

    The copy then holds a report of it.

    Raises: as copying.copy.
    """
    started_at, store = datetime.now(UTC), wrap(opening.copy_backend(settings, name))
    done = copying.copy(origin, store, holder=holder, progress=progress)
    copied = binding.open_repository(store, public_keys=origin.public_keys, signing_key=origin.signing_key)
    figures = {"manifests": done.manifests, "objects": done.objects, "bytes": done.bytes, "problems": len(done.problems)}
    reports.leave(copied, "copy", started_at=started_at, passed=not done.problems, figures=figures)
    return done


class Reader:
    """Reads the copies again and again; manifests never change, so each copy's handle is kept."""

    def __init__(self, settings: config.Settings, origin: Repository) -> None:
        self._settings, self._origin = settings, origin
        self._opened: dict[str, Repository] = {}
        self._reports: dict[str, dict[str, reports.Left | None]] = {}

    def read(self) -> tuple[trust.Copy, ...]:
        """What every copy says now; one that cannot be read hides no other."""
        return tuple(self._read(one) for one in self._settings.copies)

    def _read(self, wanted: config.CopySettings) -> trust.Copy:
        try:
            copied = self._opened.get(wanted.name) or self._open(wanted.name)
            point = timeline.newest_recovery_point(catalogs.read_catalog(copied))
            last = reports.read_latest(copied, self._reports.setdefault(wanted.name, {})).get("copy")
        except errors.KpbackupError as exc:
            return trust.Copy(wanted.name, wanted.max_age, problem=exc.message)
        passed = last.passed.report.head.created_at if last is not None and last.passed is not None else None
        return trust.Copy(wanted.name, wanted.max_age, point, copied_at=passed)

    def _open(self, name: str) -> Repository:
        store = opening.copy_backend(self._settings, name)
        opened = binding.open_repository(store, public_keys=self._origin.public_keys)
        if opened.id != self._origin.id:
            raise errors.RepositoryError(f"{store.name} holds repository {opened.id}, not {self._origin.id}")
        self._opened[name] = opened
        return opened
