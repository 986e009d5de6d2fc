"""Writing one attempt's objects: data first, each confirmed and hashed on the way, never under a used name."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from kpbackup.model.manifest import Sealing, StoredObject
from kpbackup.pipeline import age_texts, encrypt, stream
from kpbackup.repository import layout
from kpbackup.repository.binding import Repository


@dataclass(frozen=True)
class Attempt:
    """One attempt at a set or a large segment: a prefix nobody else writes under, and the data key to seal to."""

    repository: Repository
    prefix: str
    sealing: Sealing

    def store(self, key: str, sealed: Iterable[bytes], *, size_hint: int = 0) -> StoredObject:
        """Stores sealed bytes; returns what the store confirmed."""
        tally = stream.Tally(sealed)
        self.repository.backend.put(key, tally, size_hint=size_hint)
        return StoredObject(key, tally.size_bytes, tally.sha256)

    def seal(self, name: str, plain: Iterable[bytes]) -> StoredObject:
        """Seals and stores a named object (inventory, definitions)."""
        return self.store(layout.named_object(self.prefix, name), stream.seal(plain, self.recipients))

    @property
    def recipients(self) -> Sequence[encrypt.AnyRecipient]:
        return (age_texts.parse_recipient(self.sealing.recipient),)


def new_attempt(repository: Repository, timeline: str, sealing: Sealing, now: datetime) -> Attempt:
    return Attempt(repository, layout.attempt(timeline, now, secrets.token_hex(4)), sealing)
