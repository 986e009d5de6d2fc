"""Data keys: a fresh age identity per set or archive run, stored only as key objects sealed to the recipients.

A key object is an age file whose content is the identity's one line, so two `age -d` commands open anything.
The writer forgets the identity when the run ends; it needs only the public half to seal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from kpbackup import errors
from kpbackup.model import manifest
from kpbackup.pipeline import encrypt
from kpbackup.repository import layout
from kpbackup.repository.binding import Repository


@dataclass(frozen=True)
class FreshKey:
    """A data key whose private half is forgotten already: what manifests say of it, and its key object, still to be stored."""

    sealing: manifest.Sealing
    sealed: bytes


def make_data_key(recipients: Sequence[encrypt.AnyRecipient]) -> FreshKey:
    """A new data key. It must be stored before anything sealed to it is named in a manifest."""
    if not recipients:
        raise errors.KeyProblem(
            "there is no recipient to seal to", hint="set encryption.recipients to the age1... line `kpbackup init` printed"
        )
    identity = encrypt.Identity.generate()
    recipient = str(identity.recipient)
    key_id = hashlib.sha256(recipient.encode()).hexdigest()[:32]
    encryptor = encrypt.Encryptor(recipients)
    sealed = encryptor.encrypt(identity.reveal().encode() + b"\n") + encryptor.flush()
    return FreshKey(manifest.Sealing(key_id=key_id, recipient=recipient), sealed)


def store_data_key(repository: Repository, fresh: FreshKey) -> None:
    """Stores the key object of a new data key, confirmed; may be repeated after a failure."""
    key = layout.key_object(fresh.sealing.key_id, 1)
    try:
        repository.backend.put_if_absent(key, fresh.sealed)
    except errors.ObjectExists:
        if repository.backend.read(key) != fresh.sealed:
            raise  # its name is the hash of a key nobody else has: this cannot be chance


def new_data_key(repository: Repository, recipients: Sequence[encrypt.AnyRecipient]) -> manifest.Sealing:
    """A new data key, its key object stored and confirmed; only the public half is returned."""
    fresh = make_data_key(recipients)
    store_data_key(repository, fresh)
    return fresh.sealing


def open_data_key(
    repository: Repository, sealing: manifest.Sealing, identities: Sequence[encrypt.AnyIdentity]
) -> encrypt.Identity:
    """The identity that `sealing` names, opened with one of `identities`.

    Raises:
        KeyProblem: none of the identities opens any of its key objects.
        IntegrityError: the key objects are gone, damaged, or hold another key than the signed manifest names.
    """
    keys = [info.key for info in repository.backend.list(layout.key_objects(sealing.key_id))]
    if not keys:
        raise errors.IntegrityError(
            f"key object {layout.key_objects(sealing.key_id)} is missing from {repository.backend.name}",
            hint="without it the data sealed to it cannot be opened; look for another copy of the repository",
        )
    problem: errors.KpbackupError | None = None
    for key in reversed(keys):  # the newest rewrap first
        try:
            return _open(repository, key, sealing, identities)
        except (errors.KeyProblem, errors.IntegrityError) as exc:
            problem = problem or exc
    assert problem is not None
    raise problem


def _open(
    repository: Repository, key: str, sealing: manifest.Sealing, identities: Sequence[encrypt.AnyIdentity]
) -> encrypt.Identity:
    decryptor = encrypt.Decryptor(identities)
    try:
        text = decryptor.decrypt(repository.backend.read(key))
        text += decryptor.finish()
    except errors.KeyProblem as exc:
        raise errors.KeyProblem(
            f"no identity given opens {key}: {exc.message}",
            hint="give the identity file `kpbackup init` wrote (encryption.identity_file)",
        ) from exc
    except errors.IntegrityError as exc:
        raise errors.IntegrityError(f"key object {key} is damaged: {exc}") from exc
    try:
        identity = encrypt.Identity.parse(text.decode().strip())
    except (errors.KeyProblem, UnicodeDecodeError) as exc:
        raise errors.IntegrityError(f"key object {key} holds no data key: {exc}") from exc
    if str(identity.recipient) != sealing.recipient:
        raise errors.IntegrityError(f"key object {key} holds another key than the signed manifest names")
    return identity
