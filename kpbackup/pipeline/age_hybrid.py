"""Hybrid (post-quantum) age keys: MLKEM768-X25519, so that what is stored today stays closed to a quantum computer of tomorrow.

Source: the age specification (c2sp.org/age), "The MLKEM768-X25519 hybrid post-quantum recipient type": HPKE in base mode with
HKDF-SHA256 and ChaCha20Poly1305. They are `age1pq1...` and `AGE-SECRET-KEY-PQ-1...`, as of `age-keygen -pq` (age 1.3 and later).

Limits: a recipient is a text of 1,959 letters; a file sealed to such a key must not be sealed to an X25519 key as well, or the
weaker one decides. Loaded only when such a key is met, because its library costs start-up time. Nothing is written anywhere.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from kpbackup import errors
from kpbackup.pipeline import age_header, age_keys, bech32

KIND = "mlkem768x25519"
RECIPIENT_PREFIX = "age1pq"
IDENTITY_PREFIX = "AGE-SECRET-KEY-PQ-"

_INFO = b"age-encryption.org/mlkem768x25519"
_ML_KEM_PUBLIC_BYTES = 1184
_PUBLIC_BYTES = _ML_KEM_PUBLIC_BYTES + 32
_ML_KEM_SEED_BYTES = 64
_ENCAPSULATED_BYTES = 1120
_SEED_BYTES = 32
_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)


@dataclass(frozen=True)
class HybridRecipient(age_keys.Recipient):
    """A public hybrid key; `str()` is its `age1pq1...` text."""

    def __str__(self) -> str:
        return bech32.encode(RECIPIENT_PREFIX, self.public)

    def new_identity(self) -> HybridIdentity:
        """A fresh hybrid identity."""
        return HybridIdentity.generate()

    def wrap(self, file_key: bytes) -> age_header.Stanza:
        """A stanza that gives `file_key` to this recipient; raises KeyProblem for a public key that is none."""
        try:
            public = hpke.MLKEM768X25519PublicKey(
                MLKEM768PublicKey.from_public_bytes(self.public[:_ML_KEM_PUBLIC_BYTES]),
                X25519PublicKey.from_public_bytes(self.public[_ML_KEM_PUBLIC_BYTES:]),
            )
            sealed = _SUITE.encrypt(file_key, public, _INFO)
        except ValueError as exc:
            raise errors.KeyProblem("cannot encrypt to a hybrid age recipient: it is no valid key") from exc
        share = age_header.encode_base64(sealed[:_ENCAPSULATED_BYTES]).decode("ascii")
        return age_header.Stanza((KIND, share), sealed[_ENCAPSULATED_BYTES:])


@dataclass(frozen=True)
class HybridIdentity(age_keys.Identity):
    """A secret hybrid key: a seed of 32 bytes. `reveal()` is the only way to its text."""

    @classmethod
    def generate(cls) -> HybridIdentity:
        """A fresh identity from the system's random source."""
        return cls(os.urandom(_SEED_BYTES))

    @property
    def recipient(self) -> HybridRecipient:
        """The public half."""
        ml_kem, x25519 = self._halves()
        return HybridRecipient(ml_kem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw())

    def reveal(self) -> str:
        """The secret text, `AGE-SECRET-KEY-PQ-1...`."""
        return bech32.encode(IDENTITY_PREFIX.lower(), self._secret).upper()

    def unwrap(self, stanzas: list[age_header.Stanza]) -> bytes | None:
        """The file key if one of the stanzas is for this identity; raises IntegrityError for a malformed hybrid stanza."""
        ml_kem, x25519 = self._halves()
        private = hpke.MLKEM768X25519PrivateKey(ml_kem, x25519)
        for stanza in stanzas:
            if stanza.kind != KIND:
                continue
            if len(stanza.arguments) != 2:
                raise age_keys.bad_stanza(KIND, "it must have two arguments")
            share = age_keys.decode_argument(stanza, size=_ENCAPSULATED_BYTES)
            age_keys.check_body(stanza)
            try:  # the library calls this a wrong tag, the specification an error
                x25519.exchange(X25519PublicKey.from_public_bytes(share[-32:]))
            except ValueError as exc:
                raise age_keys.bad_stanza(KIND, "the share is a low-order point") from exc
            try:
                return _SUITE.decrypt(share + stanza.body, private, _INFO)
            except InvalidTag:
                continue
        return None

    def _halves(self) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
        """The ML-KEM and the X25519 key that the seed expands to (draft-ietf-hpke-pq, "MLKEM768-X25519")."""
        expanded = hashlib.shake_256(self._secret).digest(_ML_KEM_SEED_BYTES + 32)
        return (
            MLKEM768PrivateKey.from_seed_bytes(expanded[:_ML_KEM_SEED_BYTES]),
            X25519PrivateKey.from_private_bytes(expanded[_ML_KEM_SEED_BYTES:]),
        )


def parse_recipient(word: str) -> HybridRecipient:
    """The recipient written as `age1pq1...`; raises KeyProblem."""
    try:
        prefix, public = bech32.decode(word)
    except ValueError as exc:
        raise errors.KeyProblem(f"cannot read a hybrid age recipient: {exc}", hint="it looks like age1pq1...") from exc
    if prefix != RECIPIENT_PREFIX or len(public) != _PUBLIC_BYTES:
        raise errors.KeyProblem("cannot read a hybrid age recipient: it is no such key", hint="it looks like age1pq1...")
    recipient = HybridRecipient(public)
    recipient.wrap(bytes(age_keys.FILE_KEY_BYTES))  # finds a bad key now, not in the middle of a backup
    return recipient


def parse_identity(word: str) -> HybridIdentity:
    """The identity written as `AGE-SECRET-KEY-PQ-1...`; raises KeyProblem."""
    try:
        prefix, seed = bech32.decode(word)
    except ValueError as exc:
        raise errors.KeyProblem(f"cannot read a hybrid age identity: {exc}", hint="it looks like AGE-SECRET-KEY-PQ-1...") from exc
    if prefix != IDENTITY_PREFIX or len(seed) != _SEED_BYTES:
        raise errors.KeyProblem("cannot read a hybrid age identity: it is none", hint="it looks like AGE-SECRET-KEY-PQ-1...")
    return HybridIdentity(seed)
