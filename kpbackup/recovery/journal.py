"""The journal of a recovery: numbered, create-only entries under `recoveries/<run>/` in the repository.

It is what `--resume` continues from and the evidence that stays: plan, each step with its times, result, achieved RPO
and measured RTO. Entries are signed when a signing key is at hand. A machine that only restores has none; then an
entry is the canonical JSON line alone, and whoever reads it is told that it is unsigned.
A number that is taken means that another process resumed the same run: this one stops.
"""

from __future__ import annotations

import difflib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from kpbackup import errors
from kpbackup.model import canonical, codec, manifest
from kpbackup.repository import layout, objects
from kpbackup.repository.binding import Repository


@dataclass(frozen=True)
class Entry:
    """One read entry. `signed` is False when nobody vouches for it."""

    record: manifest.RecoveryRecord
    signed: bool

    @property
    def event(self) -> str:
        return self.record.event

    @property
    def fields(self) -> dict[str, str]:
        return self.record.fields

    @property
    def at(self) -> datetime:
        return self.record.head.created_at


class Journal:
    """An open journal: the entries so far, and `write` to add one."""

    def __init__(self, repository: Repository, run: str, entries: tuple[Entry, ...] = ()) -> None:
        self.repository, self.run, self.entries = repository, run, entries

    def write(self, event: str, fields: Mapping[str, object] | None = None) -> Entry:
        """Adds an entry.

        Raises:
            LeaseHeld: another process wrote to this run meanwhile.
            StorageError: the store does not take it.
        """
        seq = len(self.entries) + 1
        key = layout.recovery_entry(self.run, seq)
        head = self.repository.head("recovery", key=key, created_at=datetime.now(UTC), seq=seq)
        texts = {name: str(value) for name, value in (fields or {}).items()}
        record = manifest.RecoveryRecord(head=head, run=self.run, event=event, fields=texts)
        try:
            if self.repository.signing_key is not None:
                self.repository.create(record)
            else:
                self.repository.backend.put_if_absent(key, canonical.dumps(codec.encode(record)) + b"\n")
        except errors.ObjectExists as exc:
            raise errors.LeaseHeld(
                f"another process continues recovery {self.run}", hint="wait for it; see `kpbackup recoveries`"
            ) from exc
        entry = Entry(record, self.repository.signing_key is not None)
        self.entries += (entry,)
        return entry

    @property
    def is_of_selection(self) -> bool:
        """Whether the run restores a part of its set."""
        return bool(self.entries) and "selection" in self.entries[0].fields

    def last(self, event: str, **fields: str) -> Entry | None:
        """The newest entry of this event with these fields."""
        for entry in reversed(self.entries):
            if entry.event == event and all(entry.fields.get(name) == value for name, value in fields.items()):
                return entry
        return None


def new_journal(repository: Repository, now: datetime) -> Journal:
    return Journal(repository, f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}")


def open_journal(repository: Repository, run: str) -> Journal:
    """The journal of an earlier run.

    Raises:
        UsageError: there is no such run.
        IntegrityError: an entry is damaged, foreign or missing.
    """
    keys = [info.key for info in repository.backend.list(layout.recovery(run))]
    if not keys:
        raise errors.UsageError(f"there is no recovery {run!r} in {repository.backend.name}", hint=_near(repository, run))
    entries = tuple(_read(repository, key) for key in keys)
    if [entry.record.head.seq for entry in entries] != list(range(1, len(entries) + 1)):
        raise errors.IntegrityError(f"the journal of recovery {run} has missing entries", hint="start a new restore")
    return Journal(repository, run, entries)


def _near(repository: Repository, run: str) -> str:
    """Which one may have been meant."""
    runs = list_runs(repository)
    if not runs:
        return "no recovery was begun yet; `kpbackup restore --to latest` begins one"
    near = [one for one in runs if one.startswith(run)] or difflib.get_close_matches(run, runs, n=1)
    told = f"did you mean {near[-1]}?" if near else f"the newest is {runs[-1]};"
    return f"{told} `kpbackup recoveries` lists them"


def list_runs(repository: Repository) -> list[str]:
    """All runs, oldest first."""
    return sorted(prefix.split("/")[1] for prefix in repository.backend.list_prefixes(layout.RECOVERIES))


def _read(repository: Repository, key: str) -> Entry:
    data = repository.backend.read(key)
    if data.startswith(b"{"):
        document, signed = canonical.loads(data, what=key), False
    else:
        document, signed = objects.parse(data, key=key, public_keys=repository.public_keys).document, True
    record = codec.decode(manifest.RecoveryRecord, document, what=key)
    if record.head.key != key or record.head.repository != repository.id:
        raise errors.IntegrityError(f"journal entry {key} belongs elsewhere")
    return Entry(record, signed)
