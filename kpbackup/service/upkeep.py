"""Keeping the archive small while it grows: catalogue pages and joined segments, as soon as they are due.

The daemon looks every quarter of an hour, `kpbackup backup incremental` after each pass. The lease `compaction` keeps two of them
from the same work; what is left half done by a crash is done by the next one (repository/compact.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kpbackup.model.catalog import Catalog, History
from kpbackup.repository import compact, lease
from kpbackup.service import head_file

if TYPE_CHECKING:
    from kpbackup.repository.binding import Repository

ROLE = "compaction"


def due(catalog: Catalog, now: datetime, *, page_rows: int) -> tuple[History, ...]:
    """The timelines on which something is to be written or joined."""
    return tuple(history for history in catalog.histories if compact.is_due(history, now, page_rows=page_rows))


def run(repository: Repository, timelines: Sequence[History], *, holder: str, head_path: str | None) -> compact.Upkeep:
    """Does what is due on these timelines, and enters it in the head file.

    Raises:
        LeaseHeld: another process does it now. IntegrityError, StorageError, LocalIOError.
    """
    done = compact.Upkeep()
    with lease.acquire(repository, ROLE, holder=holder) as held:
        for history in timelines:
            done += compact.run(repository, history.id, datetime.now(UTC), check=held.check)
    head_file.record(head_path, done.written, now=datetime.now(UTC))
    return done
