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
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kpbackup import errors
from kpbackup.cli import context, render
from kpbackup.pipeline import age_texts, encrypt, sign
from kpbackup.service import founding, opening

if TYPE_CHECKING:
    from kpbackup.config import Settings
    from kpbackup.repository.binding import Repository

IDENTITY, RECIPIENTS, SIGNING, PUBLIC = "identity.txt", "recipients.txt", "signing.key", "signing.pub"
SEALED_IDENTITY = "identity.age"


@dataclass(frozen=True)
class Keys:
    """`identity_file` is None when the settings name recipients: then their identities are the user's matter. `sealed` is the
    identity sealed with the passphrase of the settings. Either `signing_file` or `secret` says where the signing key is."""

    signing: sign.SigningKey
    signing_file: Path | None
    recipients: tuple[str, ...]
    identity_file: Path | None
    sealed: bytes = b""
    secret: str | None = None


def init(
    ctx: typer.Context,
    json: context.JsonOption = False,
    keys: Annotated[str, typer.Option("--keys", help="Directory the new key files are written to.")] = "kpbackup-keys",
    secret: Annotated[
        str | None,
        typer.Option("--secret", metavar="NAME", help="In a pod: keep the signing key in this Secret, made unless it is there."),
    ] = None,
    if_missing: Annotated[
        bool, typer.Option("--if-missing", help="Succeed when the repository is there already and the signing key fits.")
    ] = False,
) -> None:
    """Create the keys and an empty repository for the source in the settings.

    Writes four files into the directory of --keys unless they are there: identity.txt (private, opens every
    backup), recipients.txt (its public half), signing.key (private, signs what is written) and signing.pub.
    Recipients or a signing key that the settings name already are used instead of new ones. With
    encryption.passphrase_file set, the identity is sealed with the passphrase (identity.age) and stored in the
    repository as well: then restoring needs the bucket and the passphrase, and no key file.
    With --secret no file is written; recipients must be in the settings, since a private identity is never made in a cluster.
    """
    room = context.of(ctx, json=json)
    made, repository = begin(room.settings, Path(keys), secret=secret, if_missing=if_missing)
    _report(room, made, repository)


def begin(
    settings: Settings, keys: Path, *, secret: str | None = None, if_missing: bool = False
) -> tuple[Keys, Repository]:
    """All of it but what is said. Raises what `init` ends with."""
    backend = opening.backend(settings)
    source = settings.need_source()
    flavour = founding.flavour(settings)
    founding.try_store(backend)
    made = _cluster_keys(settings, secret) if secret else _keys(settings, keys)
    if made.sealed:
        from kpbackup.repository import sealed_identity

        sealed_identity.store(backend, made.sealed)
    return made, founding.create(backend, signing_key=made.signing, source=source.label, flavour=flavour, if_missing=if_missing)


def _keys(settings: Settings, directory: Path) -> Keys:
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
            return Keys(signing, place, settings.need_recipients(), None)
        if settings.encryption.passphrase_file:
            recipient, sealed = _new_sealed_recipient(directory, settings.need_passphrase().get_secret_value())
            return Keys(signing, place, (recipient,), directory / SEALED_IDENTITY, sealed)
        return Keys(signing, place, (_new_recipient(directory),), directory / IDENTITY)
    except OSError as exc:
        raise errors.LocalIOError(
            f"cannot write keys to {directory}: {exc.strerror}", hint="give a directory of your own with --keys"
        ) from exc


def _cluster_keys(settings: Settings, secret: str) -> Keys:
    from kpbackup.service import cluster, signing_secret

    recipients = settings.need_recipients()
    found = cluster.in_cluster(os.environ)
    if found is None:
        raise errors.UsageError(
            "--secret works inside a Kubernetes pod with a service account",
            hint="elsewhere use --keys and make the Secret yourself",
        )
    return Keys(signing_secret.kept_signing_key(found, secret), None, recipients, None, secret=secret)


def _is_in(directory: Path, file: str, name: str) -> bool:
    return Path(file).resolve() == (directory / name).resolve()


def _new_signing_key(directory: Path) -> sign.SigningKey:
    signing = sign.SigningKey.parse(_kept(directory / SIGNING, lambda: sign.SigningKey.generate().reveal(), private=True))
    _kept(directory / PUBLIC, lambda: f"untrusted comment: kpbackup signing public key\n{signing.public_key}\n", private=False)
    return signing


def _new_recipient(directory: Path) -> str:
    identity = age_texts.parse_identity(_key_line(_kept(directory / IDENTITY, _new_identity, private=True)))
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


def document(made: Keys, repository: Repository) -> dict[str, Any]:
    """What `--json` answers."""
    return {
        "repository": repository.id,
        "url": repository.backend.name,
        "recipient": made.recipients[0],
        "recipients": made.recipients,
        "public_key": str(made.signing.public_key),
        "identity_file": str(made.identity_file.resolve()) if made.identity_file else None,
        "signing_key_file": str(made.signing_file.resolve()) if made.signing_file else None,
        "signing_secret": made.secret,
    }


def _report(room: context.Context, made: Keys, repository: Repository) -> None:
    told = document(made, repository)
    identity, signing_file = told["identity_file"], told["signing_key_file"]
    known = "the holders of the recipients in the settings"
    room.printer.show(
        told,
        render.Fields(
            [
                ("repository", f"{repository.id} at {repository.backend.name}"),
                ("identity", identity or known),
                ("signing key", signing_file or f"Secret {made.secret}"),
            ]
        ),
        *([(_KEEP_PASSPHRASE if made.sealed else _KEEP_IT).format(identity)] if identity else []),
        *([_SETTINGS.format(", ".join(made.recipients), signing_file, made.signing.public_key)] if signing_file else []),
    )


_KEEP_IT = """
The identity {} opens every backup, and nothing else does. Copy it to two safe places
away from this machine and delete it here: making backups does not need it, restoring does.
"""

_KEEP_PASSPHRASE = """
The identity {} is sealed with your passphrase and lies in the repository too: passphrase and bucket
open every backup. Take encryption.passphrase_file out of the settings of this machine: making backups does not need it.
"""
_SETTINGS = """Put into the settings:

encryption:
  recipients: [{}]
signing:
  key_file: {}
  public_keys: [{}]"""
