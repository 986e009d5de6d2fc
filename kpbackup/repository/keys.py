"""Data keys: a fresh age identity per set or archive run, stored only as key objects sealed to the recipients.

A key object is an age file whose content is the identity's one line (after a comment), so two `age -d` commands open anything.
The writer forgets the identity when the run ends; it needs only the public half to seal. The comment is a hash of the recipients:
age files do not say whom they are sealed to, and a rewrap must know what it has done already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from kpbackup import errors
from kpbackup.model import manifest
from kpbackup.pipeline import age_texts, encrypt
from kpbackup.repository import layout
from kpbackup.repository.binding import Repository
from kpbackup.storage import Backend

_COMMENT = "# sealed to "


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
    first = recipients[0]
    identity = first.new_identity() if isinstance(first, encrypt.Recipient) else encrypt.Identity.generate()
    recipient = str(identity.recipient)
    return FreshKey(manifest.Sealing(key_id=id_of(recipient), recipient=recipient), sealed_to(identity, recipients))


def store_data_key(repository: Repository, fresh: FreshKey) -> None:
    """Stores the key object of a new data key, and reads it back: without it all that is sealed to the key is lost. May be
    repeated after a failure.

    Raises:
        ObjectExists: another is there. IntegrityError: the store confirmed it and does not have it, or has other bytes.
    """
    key = layout.key_object(fresh.sealing.key_id, 1)
    try:
        repository.backend.put_if_absent(key, fresh.sealed)
    except errors.ObjectExists:
        if repository.backend.read(key) != fresh.sealed:
            raise  # its name is the hash of a key nobody else has: this cannot be chance
    else:
        expect_stored(repository.backend, key, fresh.sealed)


def expect_stored(backend: Backend, key: str, data: bytes) -> None:
    """Raises IntegrityError unless the store gives back exactly `data`, which it has just confirmed."""
    try:
        found = backend.read(key, limit_bytes=len(data))
    except errors.ObjectMissing:
        found = b""
    if found != data:
        raise errors.IntegrityError(
            f"{key} was confirmed by {backend.name} and {'reads back differently' if found else 'is not there'}",
            hint="do not trust this store; nothing was counted as a success",
        )


def new_data_key(repository: Repository, recipients: Sequence[encrypt.AnyRecipient]) -> manifest.Sealing:
    """A new data key, its key object stored and confirmed; only the public half is returned."""
    fresh = make_data_key(recipients)
    store_data_key(repository, fresh)
    return fresh.sealing


def id_of(recipient: str) -> str:
    """What key objects and canaries of a recipient lie under: 32 hex digits of its hash."""
    return hashlib.sha256(recipient.encode()).hexdigest()[:32]


def sealed_to(identity: encrypt.Identity, recipients: Sequence[encrypt.AnyRecipient]) -> bytes:
    """The bytes of a key object that gives `identity` to all `recipients`."""
    text = f"{_COMMENT}{digest(recipients)}\n{identity.reveal()}\n"
    encryptor = encrypt.Encryptor(recipients)
    return encryptor.encrypt(text.encode()) + encryptor.flush()


def digest(recipients: Sequence[encrypt.AnyRecipient]) -> str:
    """A hash of the recipients, whatever their order."""
    texts = sorted(str(one) if isinstance(one, encrypt.Recipient) else "passphrase" for one in recipients)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


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
    identity, _ = open_key_object(repository, key, identities)
    if str(identity.recipient) != sealing.recipient:
        raise errors.IntegrityError(f"key object {key} holds another key than the signed manifest names")
    return identity


def open_key_object(
    repository: Repository, key: str, identities: Sequence[encrypt.AnyIdentity]
) -> tuple[encrypt.Identity, str]:
    """(the data key, the hash of the recipients it was sealed to; '' in one of an early version).

    Raises:
        KeyProblem: none of the identities opens it.
        IntegrityError: it is damaged, or lies under another id than its own.
        ObjectMissing.
    """
    decryptor = encrypt.Decryptor(identities)
    try:
        text = decryptor.decrypt(repository.backend.read(key))
        text += decryptor.finish()
    except errors.KeyProblem as exc:
        raise errors.KeyProblem(
            f"no identity given opens {key}: {exc.message}",
            hint="give an identity it was sealed to (encryption.identity_file); docs/keys.md says what to do when a key is lost",
        ) from exc
    except errors.IntegrityError as exc:
        raise errors.IntegrityError(f"key object {key} is damaged: {exc}") from exc
    try:
        lines = text.decode()
        identity = age_texts.parse_identity(lines)
    except (errors.KeyProblem, UnicodeDecodeError) as exc:
        raise errors.IntegrityError(f"key object {key} holds no data key: {exc}") from exc
    if layout.key_objects(id_of(str(identity.recipient))) != key.rpartition("/")[0] + "/":
        raise errors.IntegrityError(f"key object {key} holds another key than the one it lies under")
    comment = lines.partition("\n")[0]
    return identity, comment.removeprefix(_COMMENT) if comment.startswith(_COMMENT) else ""
