"""`kpbackup init`: keys on this machine, an empty repository in the store.

Order: keys first (create-only files), then the repository, so that no repository exists whose keys were never written.
Run again after a failure, it takes up the keys that are there.
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
    from kpbackup.storage.backend import Backend

IDENTITY, RECIPIENTS, SIGNING, PUBLIC = "identity.txt", "recipients.txt", "signing.key", "signing.pub"


@dataclass(frozen=True)
class _Keys:
    signing: sign.SigningKey
    recipient: str
    directory: Path


def init(
    ctx: typer.Context,
    json: context.JsonOption = False,
    keys: Annotated[str, typer.Option("--keys", help="Directory the new key files are written to.")] = "kpbackup-keys",
) -> None:
    """Create the keys and an empty repository for the source in the settings.

    Writes four files into the directory of --keys unless they are there: identity.txt (private, opens every
    backup), recipients.txt (its public half), signing.key (private, signs what is written) and signing.pub.
    """
    room = context.of(ctx, json=json)
    backend = opening.backend(room.settings)
    source = room.settings.need_source()
    flavour = _flavour(room)
    _try_store(backend)
    made = _keys(Path(keys))
    from kpbackup.repository import binding

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


def _keys(directory: Path) -> _Keys:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        identity = encrypt.Identity.parse(_key_line(_kept(directory / IDENTITY, _new_identity, private=True)))
        recipient = str(identity.recipient)
        _kept(directory / RECIPIENTS, lambda: f"{recipient}\n", private=False)
        signing = sign.SigningKey.parse(_kept(directory / SIGNING, lambda: sign.SigningKey.generate().reveal(), private=True))
        _kept(
            directory / PUBLIC, lambda: f"untrusted comment: kpbackup signing public key\n{signing.public_key}\n", private=False
        )
    except OSError as exc:
        raise errors.LocalIOError(
            f"cannot write keys to {directory}: {exc.strerror}", hint="give a directory of your own with --keys"
        ) from exc
    return _Keys(signing, recipient, directory)


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
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
    except FileExistsError:
        return path.read_text()
    with os.fdopen(handle, "w") as file:
        text = make()
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return text


def _report(room: context.Context, made: _Keys, repository: str, url: str) -> None:
    where = made.directory.resolve()
    document = {
        "repository": repository,
        "url": url,
        "keys": str(where),
        "recipient": made.recipient,
        "public_key": str(made.signing.public_key),
        "identity_file": str(where / IDENTITY),
        "signing_key_file": str(where / SIGNING),
    }
    room.printer.show(
        document,
        render.Fields(
            [("repository", f"{repository} at {url}"), ("identity", where / IDENTITY), ("signing key", where / SIGNING)]
        ),
        f"\nThe identity {where / IDENTITY} opens every backup, and nothing else does. Copy it to two safe places\n"
        "away from this machine and delete it here: making backups does not need it, restoring does.\n\n"
        "Put into the settings:\n\n"
        f"encryption:\n  recipients: [{made.recipient}]\n"
        f"signing:\n  key_file: {where / SIGNING}\n  public_keys: [{made.signing.public_key}]",
    )
