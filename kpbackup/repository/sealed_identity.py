"""Identities sealed with a passphrase and kept in the repository: for small set-ups that have no safe place for a key file.

Such an object is what `age -p` makes of an identity file, so that `age -d` and the passphrase open it without kpbackup. Making
backups needs the recipient alone, never the passphrase. Whoever can read the bucket can try passphrases: scrypt makes each try
cost about a second and 256 MiB, which protects a long passphrase and no short one.

They are written create-only before the repository is made; a crash leaves at most one that nothing is sealed to.
"""

from __future__ import annotations

from kpbackup import errors
from kpbackup.pipeline import age_header, age_texts, encrypt
from kpbackup.repository import keys, layout
from kpbackup.storage import backend as storage

SHORTEST_PASSPHRASE = 16  # five or six random words: what a second a try protects for good


def seal(identity: encrypt.Identity, passphrase: str) -> bytes:
    """The age file that the passphrase opens.

    Raises:
        KeyProblem: the passphrase is too short to be tried out safely by anybody who has the file.
    """
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise errors.KeyProblem(
            f"the passphrase has {len(passphrase)} characters, {SHORTEST_PASSPHRASE} are needed",
            hint="whoever can read the bucket can try passphrases: take five or more random words",
        )
    encryptor = encrypt.Encryptor((encrypt.PassphraseRecipient(passphrase),))
    text = f"# public key: {identity.recipient}\n{identity.reveal()}\n"
    return encryptor.encrypt(text.encode()) + encryptor.flush()


def is_sealed(data: bytes) -> bool:
    """Whether these are the bytes of an age file and not an identity in the clear."""
    return data.startswith(age_header.VERSION_LINE)


def unseal(data: bytes, passphrase: str, *, what: str) -> encrypt.Identity:
    """The identity in an age file.

    Raises:
        KeyProblem: the passphrase is wrong, or it holds no identity.
        IntegrityError: it is damaged.
    """
    decryptor = encrypt.Decryptor((encrypt.PassphraseIdentity(passphrase),))
    try:
        text = decryptor.decrypt(data) + decryptor.finish()
        return age_texts.parse_identity(text.decode(errors="replace"))
    except (errors.KeyProblem, errors.IntegrityError) as exc:
        raise type(exc)(f"{what}: {exc.message}", hint="check the passphrase (encryption.passphrase_file)") from exc


def store(backend: storage.Backend, sealed: bytes) -> None:
    """Puts a sealed identity under the next free number, unless these very bytes are there already."""
    stored = [info.key for info in backend.list(layout.IDENTITIES)]
    if any(backend.read(name) == sealed for name in stored):
        return
    key = layout.sealed_identity(len(stored) + 1)
    backend.put_if_absent(key, sealed)
    keys.expect_stored(backend, key, sealed)  # nothing else opens what is sealed to it


def open_stored(backend: storage.Backend, passphrase: str) -> tuple[encrypt.Identity, ...]:
    """Every stored identity that the passphrase opens.

    Raises:
        KeyProblem: there is none, or it opens none of them.
    """
    found: list[encrypt.Identity] = []
    problem = errors.KeyProblem(
        f"{backend.name} holds no identity sealed with a passphrase", hint="name the identity itself: encryption.identity_file"
    )
    for info in backend.list(layout.IDENTITIES):
        try:
            found.append(unseal(backend.read(info.key), passphrase, what=info.key))
        except (errors.KeyProblem, errors.IntegrityError) as exc:
            problem = errors.KeyProblem(exc.message, hint=exc.hint)
    if not found:
        raise problem
    return tuple(found)
