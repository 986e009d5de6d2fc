"""Pins: holding a backup set against retention, by a signed entry in a log of its timeline; the newest entry for a set decides.

Written under the lease `prune`, so that no prune carries out a plan that did not know of the pin. Only the set itself is held:
it restores its own moment. A crash leaves the entry, or nothing.
"""

from __future__ import annotations

from datetime import datetime

from kpbackup import errors
from kpbackup.model import manifest
from kpbackup.repository import catalog as catalogs
from kpbackup.repository import lease
from kpbackup.repository.binding import Repository


def write(repository: Repository, name: str, *, pinned: bool, reason: str, holder: str, now: datetime) -> bool:
    """Pins the set (`0001-3`), or unpins it; False when it was so already.

    Raises:
        UsageError: there is no such set; one that was released cannot be pinned any more.
        LeaseHeld: a prune is running. KeyProblem, StorageError.
    """
    with lease.acquire(repository, "prune", holder=holder) as held:
        for history in catalogs.read_catalog(repository).histories:
            for backup_set in history.sets:
                if backup_set.name != name:
                    continue
                if (backup_set.head.seq in history.pinned) == pinned:
                    return False
                seq, key = catalogs.next_place(history, "pins")
                created_at = max(now, history.newest["pins"][1]) if "pins" in history.newest else now
                head = repository.head("pin", key=key, created_at=created_at, timeline=history.id, seq=seq)
                held.check()
                repository.create(manifest.Pin(head=head, set_seq=backup_set.head.seq, pinned=pinned, reason=reason))
                return True
    raise errors.UsageError(
        f"there is no set {name!r} in this repository", hint="`kpbackup list` shows their names, such as 0001-3"
    )
