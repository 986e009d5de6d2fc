"""`kpbackup init`: keys on this machine, an empty repository in the store.

Order: keys first (create-only files), then the repository, so that no repository exists whose keys were never written.
Run again after a failure, it takes up the keys that are there. What the settings name already (recipients, a signing key) is
used and not made: a second source, or keys that came from a Secret. With a passphrase in the settings the identity is sealed with
it and stored in the repository too, before the binding, so that the passphrase and the bucket are all a restore needs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kpbackup import errors
from kpbackup.cli import context, render
from kpbackup.pipeline import encrypt, sign
from kpbackup.service import opening

if TYPE_CHECKING:
    from kpbackup.config import Settings
    from kpbackup.storage.backend import Backend

IDENTITY, RECIPIENTS, SIGNING, PUBLIC = "identity.txt", "recipients.txt", "signing.key", "signing.pub"
SEALED_IDENTITY = "identity.age"


@dataclass(frozen=True)
class _Keys:
    """`identity_file` is None when the settings name recipients: then their identities are the user's matter. `sealed` is the
    identity sealed with the passphrase of the settings."""

    signing: sign.SigningKey
    signing_file: Path
    recipients: tuple[str, ...]
    identity_file: Path | None
    sealed: bytes = b""


def init(
    ctx: typer.Context,
    json: context.JsonOption = False,
    keys: Annotated[str, typer.Option("--keys", help="Directory the new key files are written to.")] = "kpbackup-keys",
) -> None:
    """Create the keys and an empty repository for the source in the settings.

    Writes four files into the directory of --keys unless they are there: identity.txt (private, opens every
    backup), recipients.txt (its public half), signing.key (private, signs what is written) and signing.pub.
    Recipients or a signing key that the settings name already are used instead of new ones. With
    encryption.passphrase_file set, the identity is sealed with the passphrase (identity.age) and stored in the
    repository as well: then restoring needs the bucket and the passphrase, and no key file.
    """
    room = context.of(ctx, json=json)
    backend = opening.backend(room.settings)
    source = room.settings.need_source()
    flavour = _flavour(room)
    _try_store(backend)
    made = _keys(room.settings, Path(keys))
    from kpbackup.repository import binding, sealed_identity

    if made.sealed:
        sealed_identity.store(backend, made.sealed)
    repository = binding.create_repository(
        backend, signing_key=made.signing, source=source.label, flavour=flavour, created_at=datetime.now(UTC)
    )
    _report(room, made, repository.id, backend.name)


def _flavour(room: context.Context) -> str:
    from kpbackup.mysql import facts, server

    with server.connect(opening.source_endpoint(room.settings)) as connection:
        return facts.read_facts(connection).flavour


def _try_store(backend: Backend) -> None:
    """A store that cannot create-only has no fence: found out here, not by hope."""
    from kpbackup.storage import probe

    capabilities = probe.probe(backend)
    if not (capabilities.conditional_put and capabilities.conditional_replace):
        raise errors.StorageError(
            f"{backend.name} does not keep conditional writes: two writers could overwrite each other",
            hint="use a store with If-None-Match and If-Match, or a file:// directory",
        )


def _keys(settings: Settings, directory: Path) -> _Keys:
    """Keys from the settings where those name some, else new ones. A file named there that is to be made here is made."""
    recipients_file, signing_file = settings.encryption.recipients_file, settings.signing.key_file
    has_recipients = settings.encryption.recipients or (recipients_file and not _is_in(directory, recipients_file, RECIPIENTS))
    has_signing_key = signing_file and not _is_in(directory, signing_file, SIGNING)
    try:
        if not (has_recipients and has_signing_key):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        signing = opening.signing_key(settings) if has_signing_key else _new_signing_key(directory)
        place = Path(signing_file) if has_signing_key and signing_file else directory / SIGNING
        if has_recipients:
            return _Keys(signing, place, settings.need_recipients(), None)
        if settings.encryption.passphrase_file:
            recipient, sealed = _new_sealed_recipient(directory, settings.need_passphrase().get_secret_value())
            return _Keys(signing, place, (recipient,), directory / SEALED_IDENTITY, sealed)
        return _Keys(signing, place, (_new_recipient(directory),), directory / IDENTITY)
    except OSError as exc:
        raise errors.LocalIOError(
            f"cannot write keys to {directory}: {exc.strerror}", hint="give a directory of your own with --keys"
        ) from exc


def _is_in(directory: Path, file: str, name: str) -> bool:
    return Path(file).resolve() == (directory / name).resolve()


def _new_signing_key(directory: Path) -> sign.SigningKey:
    signing = sign.SigningKey.parse(_kept(directory / SIGNING, lambda: sign.SigningKey.generate().reveal(), private=True))
    _kept(directory / PUBLIC, lambda: f"untrusted comment: kpbackup signing public key\n{signing.public_key}\n", private=False)
    return signing


def _new_recipient(directory: Path) -> str:
    identity = encrypt.Identity.parse(_key_line(_kept(directory / IDENTITY, _new_identity, private=True)))
    recipient = str(identity.recipient)
    _kept(directory / RECIPIENTS, lambda: f"{recipient}\n", private=False)
    return recipient


def _new_sealed_recipient(directory: Path, passphrase: str) -> tuple[str, bytes]:
    """(the recipient, the sealed identity); one that is there from an interrupted run is opened and used."""
    from kpbackup.repository import sealed_identity

    path = directory / SEALED_IDENTITY
    if not path.exists():
        _create(path, sealed_identity.seal(encrypt.Identity.generate(), passphrase), private=True)
    sealed = path.read_bytes()
    recipient = str(sealed_identity.unseal(sealed, passphrase, what=str(path)).recipient)
    _kept(directory / RECIPIENTS, lambda: f"{recipient}\n", private=False)
    return recipient, sealed


def _new_identity() -> str:
    identity = encrypt.Identity.generate()
    return (
        "# kpbackup identity: opens every backup sealed to it; keep it away from the machine that makes backups\n"
        f"# public key: {identity.recipient}\n{identity.reveal()}\n"
    )


def _key_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.startswith("AGE-SECRET-KEY-")), "")


def _kept(path: Path, make: Callable[[], str], *, private: bool) -> str:
    """The file's text; made create-only first if it is not there."""
    if not path.exists():
        _create(path, make().encode(), private=private)
    return path.read_text()


def _create(path: Path, content: bytes, *, private: bool) -> None:
    """Writes a new file, on the disk when this returns; one that appeared meanwhile stays."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
    except FileExistsError:
        return
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _report(room: context.Context, made: _Keys, repository: str, url: str) -> None:
    identity = made.identity_file.resolve() if made.identity_file else None
    signing_file = made.signing_file.resolve()
    document = {
        "repository": repository,
        "url": url,
        "recipient": made.recipients[0],
        "recipients": made.recipients,
        "public_key": str(made.signing.public_key),
        "identity_file": str(identity) if identity else None,
        "signing_key_file": str(signing_file),
    }
    known = "the holders of the recipients in the settings"
    room.printer.show(
        document,
        render.Fields(
            [("repository", f"{repository} at {url}"), ("identity", identity or known), ("signing key", signing_file)]
        ),
        *([(_KEEP_PASSPHRASE if made.sealed else _KEEP_IT).format(identity)] if identity else []),
        "Put into the settings:\n\n"
        f"encryption:\n  recipients: [{', '.join(made.recipients)}]\n"
        f"signing:\n  key_file: {signing_file}\n  public_keys: [{made.signing.public_key}]",
    )


_KEEP_IT = """
The identity {} opens every backup, and nothing else does. Copy it to two safe places
away from this machine and delete it here: making backups does not need it, restoring does.
"""

_KEEP_PASSPHRASE = """
The identity {} is sealed with your passphrase and lies in the repository too: passphrase and bucket
open every backup. Take encryption.passphrase_file out of the settings of this machine: making backups does not need it.
"""
