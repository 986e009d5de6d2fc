"""A new repository for the source in the settings: for `init`, and for a daemon that begins beside a new database.

Order: the source is asked for its kind and the store is tried before anything is written. Two that do it at once: one creates,
the other finds it there. A crash leaves an empty prefix or a whole repository.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kpbackup import config, errors, logs
from kpbackup.mysql import facts, server
from kpbackup.pipeline import sign
from kpbackup.repository import binding, layout
from kpbackup.service import opening
from kpbackup.storage import probe

if TYPE_CHECKING:
    from kpbackup.repository.binding import Repository
    from kpbackup.storage.backend import Backend

logger = logging.getLogger(__name__)


def flavour(settings: config.Settings) -> str:
    """`mariadb` or `mysql`: what the source says.

    Raises:
        ServerUnreachable: it does not answer.
    """
    with server.connect(opening.source_endpoint(settings)) as connection:
        return facts.read_facts(connection).flavour


def try_store(backend: Backend) -> None:
    """Raises StorageError for a store that cannot create-only: it has no fence. Found out here, not by hope."""
    capabilities = probe.probe(backend)
    if not (capabilities.conditional_put and capabilities.conditional_replace):
        raise errors.StorageError(
            f"{backend.name} does not keep conditional writes: two writers could overwrite each other",
            hint="use a store with If-None-Match and If-Match, or a file:// directory",
        )


def exists(backend: Backend) -> bool:
    return any(info.key == layout.BINDING for info in backend.list(layout.BINDING))


def create(backend: Backend, *, signing_key: sign.SigningKey, source: str, flavour: str, if_missing: bool = False) -> Repository:
    """A new repository; with `if_missing` the one that is there, if the key fits.

    Raises:
        RepositoryError: there is one already.
        KeyProblem, IntegrityError: there is one, of another key.
    """
    try:
        return binding.create_repository(
            backend, signing_key=signing_key, source=source, flavour=flavour, created_at=datetime.now(UTC)
        )
    except errors.RepositoryError:
        if not (if_missing and exists(backend)):
            raise
        return binding.open_repository(backend, public_keys=(), signing_key=signing_key)


def ensure(settings: config.Settings) -> None:
    """Creates the repository of the settings unless it is there. Raises as `create`, `flavour` and `try_store` do."""
    backend, key = opening.backend(settings), opening.signing_key(settings)
    if exists(backend):
        return
    kind = flavour(settings)
    try_store(backend)
    made = create(backend, signing_key=key, source=settings.need_source().label, flavour=kind, if_missing=True)
    logs.event(logger, "repository_created", repository=backend.name, id=made.id)
