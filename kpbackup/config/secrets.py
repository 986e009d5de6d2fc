"""Reads the files that settings name for passwords and keys, when a command needs them and not before.

What is read is wrapped in `SecretStr` at once. Error texts name the file and the key, never its content.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

import pydantic

from kpbackup import errors

LARGEST_FILE_BYTES = 1 << 20  # a key file is a few hundred bytes; anything larger is the wrong file


def password(given: pydantic.SecretStr | None, path: str | None, *, key: str) -> pydantic.SecretStr:
    """The password given directly, else the file's content without one trailing newline, else the empty one.

    Raises:
        SettingsError: the file cannot be read.
    """
    if given is not None:
        return given
    if path is None:
        return pydantic.SecretStr("")
    try:
        text = _read(path)
    except (OSError, UnicodeDecodeError) as exc:
        hint = "name a file that this user may read"
        raise errors.SettingsError(f"{key}: cannot read {path}: {_reason(exc)}", hint=hint) from exc
    return pydantic.SecretStr(text.removesuffix("\n").removesuffix("\r"))


def key_bytes(path: str, *, key: str) -> pydantic.SecretBytes:
    """The whole content of a private key file, which may be sealed and so no text.

    Raises:
        KeyProblem: it cannot be read.
    """
    try:
        return pydantic.SecretBytes(_read_bytes(path))
    except OSError as exc:
        hint = "bring the key to this machine, readable for this user"
        raise errors.KeyProblem(f"{key}: cannot read {path}: {_reason(exc)}", hint=hint) from exc


def key_text(path: str, *, key: str) -> pydantic.SecretStr:
    """The whole text of a private key file.

    Raises:
        KeyProblem: it cannot be read.
    """
    try:
        return pydantic.SecretStr(_read(path))
    except (OSError, UnicodeDecodeError) as exc:
        hint = "bring the key to this machine, readable for this user"
        raise errors.KeyProblem(f"{key}: cannot read {path}: {_reason(exc)}", hint=hint) from exc


def key_lines(path: str, *, key: str, check: Callable[[str], str]) -> tuple[str, ...]:
    """The public keys in a file, one per line; comments and empty lines are skipped, each is judged by `check`.

    Raises:
        KeyProblem: the file cannot be read, or a line is wrong.
    """
    lines = key_text(path, key=key).get_secret_value().splitlines()
    found = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith(("#", "untrusted comment:")):
            continue
        try:
            found.append(check(text))
        except ValueError as exc:
            raise errors.KeyProblem(f"{key}: line {number} of {path}: {exc}") from exc
    return tuple(found)


def exposed(path: str) -> bool:
    """True when every user of the machine may read the file. False when it cannot be looked at."""
    try:
        return bool(stat.S_IMODE(os.stat(path).st_mode) & stat.S_IROTH)
    except OSError:
        return False  # reading it will say so, if it is read at all


def present(path: str) -> bool:
    """True when the file is there and holds something; whether it may be read is said by whoever reads it."""
    try:
        return os.stat(path).st_size > 0
    except OSError:
        return False


def _read(path: str) -> str:
    return _read_bytes(path).decode()


def _read_bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        content = file.read(LARGEST_FILE_BYTES + 1)
    if len(content) > LARGEST_FILE_BYTES:
        raise OSError(0, "larger than 1 MiB, so not a key or password")
    return content


def _reason(exc: OSError | UnicodeDecodeError) -> str:
    return (exc.strerror or str(exc)) if isinstance(exc, OSError) else "not text"
