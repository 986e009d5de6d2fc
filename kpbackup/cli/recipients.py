"""`kpbackup keys add`, `remove` and `signing`: key files on this machine. The repository is not touched.

Recipients are kept in encryption.recipients_file, which is rewritten whole (comments stay) and put in place by rename. A crash
leaves the old file or the new one. Settings files are the user's: nothing is written into one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kpbackup import errors
from kpbackup.cli import context, render
from kpbackup.pipeline import age_texts, encrypt, sign

if TYPE_CHECKING:
    from kpbackup.config import Settings

RecipientArgument = Annotated[str | None, typer.Argument(metavar="[RECIPIENT]", help="The public half of an identity, age1...")]


def add(
    ctx: typer.Context,
    recipient: RecipientArgument = None,
    new_identity: Annotated[
        str | None, typer.Option("--new-identity", metavar="FILE", help="Make an identity in FILE and add its recipient.")
    ] = None,
    hybrid: Annotated[bool, typer.Option("--hybrid", help="Make a post-quantum identity (age1pq1...; age 1.3).")] = False,
    json: context.JsonOption = False,
) -> None:
    """Add a recipient to encryption.recipients_file: from now on backups are sealed to it too.

    What is stored already stays as it is until `kpbackup keys rewrap`, which needs an identity that opens it.
    """
    room = context.of(ctx, json=json)
    if (recipient is None) == (new_identity is None):
        raise errors.UsageError("give a recipient or --new-identity FILE, one of them", hint="kpbackup keys add age1...")
    if hybrid and new_identity is None:
        raise errors.UsageError("--hybrid goes with --new-identity", hint="kpbackup keys add --new-identity FILE --hybrid")
    path, present = _file(room.settings), _present(room.settings)
    given = str(age_texts.parse_recipient(recipient)) if recipient is not None else ""
    added = given or _make_identity(str(new_identity), hybrid=hybrid)
    if added in present:
        raise errors.UsageError(f"{added} is a recipient already", hint="`kpbackup keys list` shows all")
    encrypt.Encryptor([age_texts.parse_recipient(text) for text in (*present, added)])  # refuses kinds that do not mix
    _rewrite(path, lambda lines: [*lines, added])
    _show(room, (*present, added), added=added, identity=new_identity)


def remove(ctx: typer.Context, recipient: RecipientArgument = None, json: context.JsonOption = False) -> None:
    """Remove a recipient from encryption.recipients_file: key objects made from now on are not sealed to it.

    This is not revocation: what that identity could open so far it still can, for copies of key objects may be anywhere.
    When an identity was stolen, take a new full backup after this, and treat what was stored before as read.
    """
    room = context.of(ctx, json=json)
    if recipient is None:
        raise errors.UsageError("the recipient to remove is missing", hint="`kpbackup keys list` shows all")
    path, present = _file(room.settings), _present(room.settings)
    filed = [line.strip() for line in _read(path)]
    if recipient not in filed:
        told = "it is in encryption.recipients of the settings" if recipient in present else "it is no recipient"
        raise errors.UsageError(f"{recipient} is not in {path}: {told}", hint="`kpbackup keys list` shows all")
    rest = tuple(text for text in present if text != recipient)
    if not rest:
        raise errors.UsageError(f"{recipient} is the last recipient: nothing could be sealed", hint="add another one first")
    _rewrite(path, lambda lines: [line for line in lines if line.strip() != recipient])
    _show(room, rest, removed=recipient)


def signing(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where the new signing key goes; its public half into FILE.pub.")],
    json: context.JsonOption = False,
) -> None:
    """Make a new signing key to rotate to; docs/keys.md has the order of the steps.

    First every reader trusts both public keys, then the writer signs with the new one, then the old one is retired.
    """
    room = context.of(ctx, json=json)
    key = sign.SigningKey.generate()
    _create(Path(file), key.reveal(), private=True)
    _create(Path(f"{file}.pub"), f"untrusted comment: kpbackup signing public key\n{key.public_key}\n", private=False)
    document = {"signing_key_file": str(Path(file).resolve()), "public_key": str(key.public_key)}
    room.printer.show(
        document,
        render.Fields([("signing key", document["signing_key_file"]), ("public key", document["public_key"])]),
        "Add the public key to signing.public_keys of every machine that reads, then name the file in signing.key_file.",
    )


def _present(settings: Settings) -> tuple[str, ...]:
    if not settings.encryption.recipients and not _file(settings).exists():
        return ()  # the first one is added
    try:
        return settings.need_recipients()
    except errors.SettingsError:
        return ()  # an empty file


def _file(settings: Settings) -> Path:
    path = settings.encryption.recipients_file
    if path is None:
        raise errors.SettingsError(
            "encryption.recipients_file is not set: recipients in the settings themselves are not written by kpbackup",
            hint="change encryption.recipients by hand, or move them into a file and name that",
        )
    return Path(path)


def _read(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except OSError as exc:
        raise errors.LocalIOError(f"cannot read {path}: {exc.strerror}", hint="name a file this user may read and write") from exc


def _rewrite(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    lines = change(_read(path))
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, path.stat().st_mode & 0o777 if path.exists() else 0o644)
        os.replace(name, path)
    except OSError as exc:
        raise errors.LocalIOError(
            f"cannot write {path}: {exc.strerror}",
            hint="in Kubernetes the file comes from a ConfigMap: change that; else name a file this user may write",
        ) from exc


def _make_identity(file: str, *, hybrid: bool) -> str:
    from kpbackup.pipeline.age_hybrid import HybridIdentity

    identity = HybridIdentity.generate() if hybrid else encrypt.Identity.generate()
    _create(Path(file), f"# public key: {identity.recipient}\n{identity.reveal()}\n", private=True)
    return str(identity.recipient)


def _create(path: Path, text: str, *, private: bool) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
    except FileExistsError as exc:
        raise errors.UsageError(f"{path} is there already", hint="a key file is never overwritten: name another one") from exc
    except OSError as exc:
        raise errors.LocalIOError(f"cannot write {path}: {exc.strerror}", hint="name a file in a directory of your own") from exc
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _show(
    room: context.Context, recipients: tuple[str, ...], *, added: str | None = None, removed: str | None = None,
    identity: str | None = None,
) -> None:
    told = [f"{len(recipients)} recipients: key objects made from now on are sealed to them"]
    if added:
        told.append("what is stored already is sealed to it by `kpbackup keys rewrap`, where an identity is")
    if removed:
        told.append("it still opens what it could open before: removing is not revoking (docs/keys.md)")
    if identity:
        told.append(f"keep {Path(identity).resolve()} away from the machine that makes backups")
    room.printer.show(
        {"recipients": recipients, "added": added, "removed": removed, "identity_file": identity}, "; ".join(told)
    )
