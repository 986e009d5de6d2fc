"""Who may open an age file: X25519 recipients and identities, and passphrases (scrypt).

Source: the age specification (c2sp.org/age), "The X25519 recipient type" and "The scrypt
recipient type". A recipient (`age1...`) is public and only seals; an identity
(`AGE-SECRET-KEY-1...`) is secret and only opens. The texts are those of `age-keygen`.

Hybrid (post-quantum) keys are the matter of `age_hybrid`; texts of either kind are read by `age_texts`.

Limits: a passphrase stands alone: the specification forbids mixing it with other recipients. Work factors above
`WORK_FACTOR_LIMIT` are refused, because the file chooses how much memory (2^factor KiB) and time we spend.
Secrets appear in no `repr` and no error. Nothing is written anywhere: a crash leaves nothing behind.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from kpbackup import errors
from kpbackup.pipeline import age_header, bech32

FILE_KEY_BYTES = 16
WORK_FACTOR_LIMIT = 22  # 4 GiB and about 15 seconds: the most `age` itself accepts

KEY_BYTES = 32
_BODY_BYTES = FILE_KEY_BYTES + 16
_SALT_BYTES = 16
_ZERO_NONCE = bytes(12)
_X25519_INFO = b"age-encryption.org/v1/X25519"
_SCRYPT_LABEL = b"age-encryption.org/v1/scrypt"
_WORK_FACTOR = re.compile(r"[1-9][0-9]*\Z")


@dataclass(frozen=True)
class Recipient:
    """A public key: X25519 here, hybrid in a subclass. `str()` is its `age1...` text."""

    public: bytes

    def __str__(self) -> str:
        return bech32.encode("age", self.public)

    def new_identity(self) -> Identity:
        """A fresh identity of this recipient's kind: for a data key, which must not be weaker than what it is sealed to."""
        return Identity.generate()

    def wrap(self, file_key: bytes) -> age_header.Stanza:
        """A stanza that gives `file_key` to this recipient; raises KeyProblem for a low-order public key."""
        ephemeral = X25519PrivateKey.generate()
        share = ephemeral.public_key().public_bytes_raw()
        try:
            secret = ephemeral.exchange(X25519PublicKey.from_public_bytes(self.public))
        except ValueError as exc:
            raise errors.KeyProblem("cannot encrypt to an age recipient: it is a low-order point") from exc
        key = age_header.hkdf(secret, salt=share + self.public, info=_X25519_INFO)
        body = ChaCha20Poly1305(key).encrypt(_ZERO_NONCE, file_key, None)
        return age_header.Stanza(("X25519", age_header.encode_base64(share).decode("ascii")), body)


@dataclass(frozen=True)
class Identity:
    """A secret key: X25519 here, hybrid in a subclass. `reveal()` is the only way to its text."""

    _secret: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> Identity:
        """A fresh identity from the system's random source."""
        return cls(os.urandom(KEY_BYTES))

    @property
    def recipient(self) -> Recipient:
        """The public half."""
        return Recipient(X25519PrivateKey.from_private_bytes(self._secret).public_key().public_bytes_raw())

    def reveal(self) -> str:
        """The secret text, `AGE-SECRET-KEY-1...`."""
        return bech32.encode("age-secret-key-", self._secret).upper()

    def unwrap(self, stanzas: list[age_header.Stanza]) -> bytes | None:
        """The file key if one of the stanzas is for this identity; raises IntegrityError for a malformed X25519 stanza."""
        private = X25519PrivateKey.from_private_bytes(self._secret)
        own = private.public_key().public_bytes_raw()
        for stanza in stanzas:
            if stanza.kind != "X25519":
                continue
            if len(stanza.arguments) != 2:
                raise bad_stanza("X25519", "it must have two arguments")
            share = decode_argument(stanza, size=KEY_BYTES)
            check_body(stanza)
            try:
                secret = private.exchange(X25519PublicKey.from_public_bytes(share))
            except ValueError as exc:
                raise bad_stanza("X25519", "the share is a low-order point") from exc
            key = age_header.hkdf(secret, salt=share + own, info=_X25519_INFO)
            file_key = _open(key, stanza.body)
            if file_key is not None:
                return file_key
        return None


@dataclass(frozen=True)
class PassphraseRecipient:
    """Seals with a passphrase. `work_factor` is the base-two logarithm of scrypt's N: 18 needs 256 MiB and about a second."""

    _passphrase: str = field(repr=False)
    work_factor: int = 18

    def __post_init__(self) -> None:
        if not self._passphrase:
            raise errors.KeyProblem("cannot encrypt with a passphrase: it is empty")
        if not 1 <= self.work_factor <= WORK_FACTOR_LIMIT:
            cause = f"work factor {self.work_factor} is not in 1..{WORK_FACTOR_LIMIT}"
            raise errors.UsageError(f"cannot encrypt with a passphrase: {cause}")

    def wrap(self, file_key: bytes) -> age_header.Stanza:
        """A stanza that gives `file_key` to who knows the passphrase."""
        salt = os.urandom(_SALT_BYTES)
        key = _stretch(self._passphrase, salt=salt, work_factor=self.work_factor)
        arguments = ("scrypt", age_header.encode_base64(salt).decode("ascii"), str(self.work_factor))
        return age_header.Stanza(arguments, ChaCha20Poly1305(key).encrypt(_ZERO_NONCE, file_key, None))


@dataclass(frozen=True)
class PassphraseIdentity:
    """Opens with a passphrase."""

    _passphrase: str = field(repr=False)

    def unwrap(self, stanzas: list[age_header.Stanza]) -> bytes | None:
        """The file key if the passphrase is right; raises IntegrityError for a malformed or too costly scrypt stanza."""
        for stanza in stanzas:
            if stanza.kind != "scrypt":
                continue
            if len(stanza.arguments) != 3:
                raise bad_stanza("scrypt", "it must have three arguments")
            salt = decode_argument(stanza, size=_SALT_BYTES)
            check_body(stanza)
            work_factor = _parse_work_factor(stanza.arguments[2])
            return _open(_stretch(self._passphrase, salt=salt, work_factor=work_factor), stanza.body)
        return None


AnyRecipient: TypeAlias = Recipient | PassphraseRecipient
AnyIdentity: TypeAlias = Identity | PassphraseIdentity


def check_together(recipients: Sequence[AnyRecipient]) -> None:
    """Raises KeyProblem unless one file may be sealed to all of these: a passphrase alone, hybrid keys among themselves.

    With an X25519 key beside a hybrid one, a quantum computer would open the file by the weaker of the two.
    """
    if len(recipients) > 1 and any(isinstance(recipient, PassphraseRecipient) for recipient in recipients):
        raise errors.KeyProblem("cannot encrypt: a passphrase must be the only recipient")
    if len({type(recipient) for recipient in recipients}) > 1:
        raise errors.KeyProblem(
            "cannot encrypt: hybrid (age1pq1...) and X25519 recipients are mixed",
            hint="use recipients of one kind: the weaker key would decide who can open the file",
        )


def check_scrypt_alone(stanzas: list[age_header.Stanza]) -> None:
    """Raises IntegrityError if a passphrase stanza has company, which the specification forbids."""
    if len(stanzas) > 1 and any(stanza.kind == "scrypt" for stanza in stanzas):
        raise bad_stanza("scrypt", "a passphrase must be the only recipient")


def _parse_work_factor(text: str) -> int:
    if not _WORK_FACTOR.match(text):
        raise bad_stanza("scrypt", "the work factor is not a plain decimal number")
    # The length first: a number of a million digits is expensive to convert.
    if len(text) > 2 or int(text) > WORK_FACTOR_LIMIT:
        raise errors.IntegrityError(
            f"cannot decrypt: the scrypt work factor of this age file is above the limit of {WORK_FACTOR_LIMIT}",
            hint="if you trust the file, decrypt it with the `age` program and encrypt it again with a smaller factor",
        )
    return int(text)


def _stretch(passphrase: str, *, salt: bytes, work_factor: int) -> bytes:
    scrypt = Scrypt(salt=_SCRYPT_LABEL + salt, length=KEY_BYTES, n=1 << work_factor, r=8, p=1)
    return scrypt.derive(passphrase.encode("utf-8"))


def decode_argument(stanza: age_header.Stanza, *, size: int) -> bytes:
    """The second argument of a stanza; raises IntegrityError unless it is canonical base64 of `size` bytes."""
    try:
        value = age_header.decode_base64(stanza.arguments[1].encode("ascii"))
    except ValueError as exc:
        raise bad_stanza(stanza.kind, str(exc)) from exc
    if len(value) != size:
        raise bad_stanza(stanza.kind, f"its second argument is not {size} bytes long")
    return value


def check_body(stanza: age_header.Stanza) -> None:
    """Raises IntegrityError unless the wrapped file key has its length."""
    # Before any decryption, as the specification asks: it takes away partitioning oracles.
    if len(stanza.body) != _BODY_BYTES:
        raise bad_stanza(stanza.kind, "the wrapped file key has the wrong length")


def _open(key: bytes, body: bytes) -> bytes | None:
    try:
        return ChaCha20Poly1305(key).decrypt(_ZERO_NONCE, body, None)
    except InvalidTag:
        return None


def bad_stanza(kind: str, cause: str) -> errors.IntegrityError:
    """The error for a stanza that the specification does not allow."""
    return errors.IntegrityError(f"cannot decrypt: bad age header: malformed {kind} stanza: {cause}")
