"""Rewrapping: every data key sealed anew to today's recipients, so that a rotated key needs no upload of data.

A rewrap opens the newest key object of each data key and writes the next number beside it, create-only. Data and manifests stay
as they are. Older key objects stay too: a recipient that was removed opens what it always could, for removing is not revoking
(docs/keys.md). It needs an identity, and credentials that may put.

A crash leaves some data keys rewrapped; the next run finds those done by the hash in their comment and goes on with the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kpbackup import errors
from kpbackup.pipeline import age_header, encrypt
from kpbackup.repository import keys, layout
from kpbackup.repository.binding import Repository

WORKERS = 8  # each is a small GET and a small PUT
TRIES = 3  # another rewrap at the same time may take a number


@dataclass(frozen=True)
class DataKey:
    """A data key and its newest key object. `recipients` is how many that one is sealed to."""

    key_id: str
    newest: str
    recipients: int


@dataclass(frozen=True)
class Rewrapped:
    """What a run did: key objects written now, data keys that were right already, and what does not open, with the cause."""

    written: int
    current: int
    unopened: tuple[tuple[str, str], ...]


def list_data_keys(repository: Repository) -> list[DataKey]:
    """Every data key of the repository, in order of their ids; nothing is opened.

    Raises:
        IntegrityError: a newest key object is no age file.
    """
    newest = _newest(repository)
    with ThreadPoolExecutor(WORKERS) as pool:
        counts = pool.map(lambda key: _recipients(repository, key), newest.values())
    return [DataKey(key_id, key, count) for (key_id, key), count in zip(newest.items(), counts, strict=True)]


def rewrap(
    repository: Repository,
    identities: Sequence[encrypt.AnyIdentity],
    recipients: Sequence[encrypt.Recipient],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Rewrapped:
    """Seals every data key to `recipients`; those that are already are left alone.

    Raises:
        KeyProblem: recipients that cannot be used together.
        StorageError.
    """
    encrypt.Encryptor(recipients)  # what is wrong with them is said before anything is written
    ids = list(_newest(repository))
    written = current = 0
    unopened: list[tuple[str, str]] = []
    with ThreadPoolExecutor(WORKERS) as pool:
        outcomes = pool.map(lambda key_id: _rewrap_one(repository, key_id, identities, recipients), ids)
        for done, (key_id, outcome) in enumerate(zip(ids, outcomes, strict=True), start=1):
            if isinstance(outcome, errors.KpbackupError):
                unopened.append((key_id, outcome.message))
            elif outcome:
                written += 1
            else:
                current += 1
            progress(done, len(ids))
    return Rewrapped(written, current, tuple(unopened))


def _rewrap_one(
    repository: Repository, key_id: str, identities: Sequence[encrypt.AnyIdentity], recipients: Sequence[encrypt.Recipient]
) -> bool | errors.KpbackupError:
    """True when a key object was written, False when the newest is right, the error when none can be opened."""
    for _ in range(TRIES):
        names = [info.key for info in repository.backend.list(layout.key_objects(key_id))]
        opened = _open_any(repository, names, identities)
        if isinstance(opened, errors.KpbackupError):
            return opened
        identity, sealed_to, key = opened
        if key == names[-1] and sealed_to == keys.digest(recipients):
            return False
        number = layout.key_object_number(names[-1]) + 1
        data = keys.sealed_to(identity, recipients)
        try:
            repository.backend.put_if_absent(layout.key_object(key_id, number), data)
        except errors.ObjectExists:
            continue  # another rewrap was faster: look at what it wrote
        if repository.backend.read(layout.key_object(key_id, number)) != data:
            raise errors.IntegrityError(
                f"{layout.key_object(key_id, number)} reads back differently from what was written",
                hint="do not trust this store; the older key objects are untouched",
            )
        return True
    raise errors.LeaseHeld(
        f"another process keeps rewrapping {layout.key_objects(key_id)}", hint="run `kpbackup keys rewrap` again when it is done"
    )


def _open_any(
    repository: Repository, names: Sequence[str], identities: Sequence[encrypt.AnyIdentity]
) -> tuple[encrypt.Identity, str, str] | errors.KpbackupError:
    """(data key, hash of its recipients, key object) of the newest one that opens."""
    problem: errors.KpbackupError = errors.IntegrityError("its key objects are gone")
    for key in reversed(names):
        try:
            return (*keys.open_key_object(repository, key, identities), key)
        except (errors.KeyProblem, errors.IntegrityError) as exc:
            problem = exc
    return problem


def _newest(repository: Repository) -> dict[str, str]:
    """Id -> its newest key object: listings are in key order."""
    return {info.key.split("/")[1]: info.key for info in repository.backend.list(layout.KEYS)}


def _recipients(repository: Repository, key: str) -> int:
    data = repository.backend.read(key)
    end = age_header.find_end(data, complete=True)
    return len(age_header.parse(data[:end])[0])
