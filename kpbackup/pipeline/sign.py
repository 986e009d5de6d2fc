"""Ed25519 signatures in the minisign format: who wrote a document, as age does not say.

Source: the minisign manual, "Signature format", "Public key format", "Secret key format"; the
public `minisign` program checks our signatures and reads our keys, and the other way round.

    signature   untrusted comment: ...             (free text, protected by nothing)
                base64("ED" + key id + Ed25519 over BLAKE2b-512 of the data)
                trusted comment: ...
                base64(Ed25519 over the 64 signature bytes + the trusted comment)
    public key  base64("Ed" + key id + 32 bytes), so that it starts with "RW"
    secret key  base64("Ed" + kdf + "B2" + salt 32 + opslimit u64 + memlimit u64 + body 104)
    its body    key id 8 + seed 32 + public 32 + BLAKE2b-256 checksum 32, xored with scrypt's output if there is a password

Limits: the data is held whole (documents of megabytes, never data objects). `reveal` writes secret
keys without password, as `minisign -G -W`; keys with password are read. Legacy "Ed" signatures
(over the data itself) are accepted but not written. Secrets appear in no `repr` and no error.
Nothing is written anywhere: a crash leaves nothing behind.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from kpbackup import errors

_UNTRUSTED = "untrusted comment: "
_TRUSTED = "trusted comment: "
_KEY_MARK = b"Ed"
_HASHED_MARK = b"ED"
_LEGACY_MARK = b"Ed"
_KDF_NONE = b"\x00\x00"
_KDF_SCRYPT = b"Sc"
_CHECKSUM_MARK = b"B2"
_KEY_ID_BYTES = 8
_SIGNATURE_BYTES = 64
_CHECKSUM_BYTES = 32
_SECRET_KEY = struct.Struct("<2s2s2s32sQQ104s")
_PUBLIC_KEY = struct.Struct("<2s8s32s")
_SIGNATURE = struct.Struct("<2s8s64s")
_COMMENT_LIMIT_BYTES = 8000  # minisign reads at most 8192 with its prefix
_SCRYPT_MEMORY_LIMIT_BYTES = 1 << 30  # what minisign itself uses; the key file must not choose more
_SCRYPT_PARALLEL_LIMIT = 16


@dataclass(frozen=True)
class PublicKey:
    """Checks signatures; `str()` is its one-line `RW...` text."""

    identifier: bytes
    public: bytes

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """The key of a `.pub` file or of its one line `RW...`; raises KeyProblem."""
        raw = _decode_key(text, what="public key", size=_PUBLIC_KEY.size)
        mark, identifier, public = _PUBLIC_KEY.unpack(raw)
        if mark != _KEY_MARK:
            raise errors.KeyProblem("cannot read a minisign public key: unknown algorithm")
        return cls(identifier, public)

    def __str__(self) -> str:
        return _encode(_PUBLIC_KEY.pack(_KEY_MARK, self.identifier, self.public))

    @property
    def key_id(self) -> str:
        """16 hex digits, as `minisign` prints them."""
        return _key_id(self.identifier)


@dataclass(frozen=True)
class SigningKey:
    """Makes signatures. `reveal()` is the only way to its text."""

    identifier: bytes
    _seed: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> SigningKey:
        """A fresh key with a random key id, from the system's random source."""
        return cls(os.urandom(_KEY_ID_BYTES), os.urandom(32))

    @classmethod
    def parse(cls, text: str, password: str | None = None) -> SigningKey:
        """The key of a minisign secret key file; a password costs seconds and 1 GiB, as in `minisign`. Raises KeyProblem."""
        raw = _decode_key(text, what="secret key", size=_SECRET_KEY.size)
        mark, kdf, checksum_mark, salt, opslimit, memlimit, body = _SECRET_KEY.unpack(raw)
        if mark != _KEY_MARK or checksum_mark != _CHECKSUM_MARK or kdf not in (_KDF_NONE, _KDF_SCRYPT):
            raise errors.KeyProblem("cannot read a minisign secret key: unknown algorithm")
        if kdf == _KDF_SCRYPT:
            if password is None:
                raise errors.KeyProblem("cannot read a minisign secret key: it is protected by a password and none is given")
            mask = _stretch(password, salt=salt, opslimit=opslimit, memlimit=memlimit, size=len(body))
            body = bytes(left ^ right for left, right in zip(body, mask, strict=True))
        identifier, seed, public, checksum = body[:8], body[8:40], body[40:72], body[72:]
        wanted = hashlib.blake2b(mark + body[:72], digest_size=_CHECKSUM_BYTES).digest()
        # minisign leaves the checksum zero in a key without password.
        unchecked = kdf == _KDF_NONE and not any(checksum)
        if not unchecked and not hmac.compare_digest(wanted, checksum):
            cause = "the password is wrong" if kdf == _KDF_SCRYPT else "its checksum is wrong"
            raise errors.KeyProblem(f"cannot read a minisign secret key: {cause}")
        key = cls(identifier, seed)
        if key.public_key.public != public:
            raise errors.KeyProblem("cannot read a minisign secret key: its public half does not belong to its secret half")
        return key

    @property
    def public_key(self) -> PublicKey:
        """The public half, with the same key id."""
        return PublicKey(self.identifier, Ed25519PrivateKey.from_private_bytes(self._seed).public_key().public_bytes_raw())

    def reveal(self) -> str:
        """The secret key file, two lines, without password: `minisign -S -W` takes it."""
        body = self.identifier + self._seed + self.public_key.public + bytes(_CHECKSUM_BYTES)
        raw = _SECRET_KEY.pack(_KEY_MARK, _KDF_NONE, _CHECKSUM_MARK, bytes(32), 0, 0, body)
        return f"{_UNTRUSTED}kpbackup secret key {self.public_key.key_id}\n{_encode(raw)}\n"

    def signature(self, data: bytes) -> bytes:
        """The bare 64-byte Ed25519 signature of `data`."""
        return Ed25519PrivateKey.from_private_bytes(self._seed).sign(data)


def sign(data: bytes, key: SigningKey, *, trusted_comment: str) -> str:
    """The signature of `data`, four lines, each ending in a line feed.

    `trusted_comment` is signed as well: one line of at most 8000 bytes; raises UsageError for any other.
    """
    _check_comment(trusted_comment)
    signature = key.signature(hashlib.blake2b(data).digest())
    over_all = key.signature(signature + trusted_comment.encode("utf-8"))
    return (
        f"{_UNTRUSTED}signature of kpbackup key {key.public_key.key_id}\n"
        f"{_encode(_SIGNATURE.pack(_HASHED_MARK, key.identifier, signature))}\n"
        f"{_TRUSTED}{trusted_comment}\n"
        f"{_encode(over_all)}\n"
    )


def verify(data: bytes, signature_text: str, keys: Iterable[PublicKey]) -> str:
    """The trusted comment, if one of `keys` signed `data` and the comment. Raises as `verify_by`."""
    return verify_by(data, signature_text, keys)[0]


def verify_by(data: bytes, signature_text: str, keys: Iterable[PublicKey]) -> tuple[str, PublicKey]:
    """(the trusted comment, the one of `keys` that signed `data` and the comment).

    Raises IntegrityError if the signature is malformed or wrong, KeyProblem if no key has its key id.
    """
    mark, identifier, signature, comment, over_all = _parse_signature(signature_text)
    candidates = [key for key in keys if key.identifier == identifier]
    if not candidates:
        raise errors.KeyProblem(
            f"cannot verify a signature: it was made with key {_key_id(identifier)}, which is none of the trusted keys",
            hint="if you trust its owner, add that public key to the trusted ones",
        )
    message = hashlib.blake2b(data).digest() if mark == _HASHED_MARK else data
    for key in candidates:
        public = Ed25519PublicKey.from_public_bytes(key.public)
        try:
            public.verify(signature, message)
            public.verify(over_all, signature + comment.encode("utf-8"))
        except InvalidSignature:
            continue
        return comment, key
    raise errors.IntegrityError(
        f"cannot verify a signature: that of key {_key_id(identifier)} does not fit the data or its trusted comment"
    )


def _parse_signature(text: str) -> tuple[bytes, bytes, bytes, str, bytes]:
    lines = text.removesuffix("\n").split("\n")
    if len(lines) != 4 or not lines[0].startswith(_UNTRUSTED) or not lines[2].startswith(_TRUSTED):
        raise errors.IntegrityError("cannot verify a signature: it is no minisign signature of four lines")
    try:
        raw, over_all = _decode(lines[1]), _decode(lines[3])
    except ValueError as exc:
        raise errors.IntegrityError("cannot verify a signature: it is not base64") from exc
    if len(raw) != _SIGNATURE.size or len(over_all) != _SIGNATURE_BYTES:
        raise errors.IntegrityError("cannot verify a signature: it has the wrong length")
    mark, identifier, signature = _SIGNATURE.unpack(raw)
    if mark not in (_HASHED_MARK, _LEGACY_MARK):
        raise errors.IntegrityError("cannot verify a signature: unknown algorithm")
    return mark, identifier, signature, lines[2][len(_TRUSTED) :], over_all


def _check_comment(comment: str) -> None:
    try:
        size = len(comment.encode("utf-8"))
    except UnicodeEncodeError as exc:
        raise errors.UsageError("cannot sign: the trusted comment is no valid text") from exc
    if any(ord(letter) < 32 and letter != "\t" for letter in comment) or size > _COMMENT_LIMIT_BYTES:
        raise errors.UsageError(f"cannot sign: the trusted comment must be one line of at most {_COMMENT_LIMIT_BYTES} bytes")


def _stretch(password: str, *, salt: bytes, opslimit: int, memlimit: int, size: int) -> bytes:
    """scrypt with the parameters libsodium derives from its two limits (`crypto_pwhash_scryptsalsa208sha256`, pickparams)."""
    block = 8
    opslimit = max(opslimit, 32768)
    bound = opslimit // (block * 4) if opslimit < memlimit // 32 else memlimit // (block * 128)
    power = 1
    while power < 63 and (1 << power) <= bound // 2:
        power += 1
    parallel = 1 if opslimit < memlimit // 32 else min(opslimit // 4 >> power, 0x3FFFFFFF) // block
    if (128 * block << power) > _SCRYPT_MEMORY_LIMIT_BYTES or not 1 <= parallel <= _SCRYPT_PARALLEL_LIMIT:
        raise errors.KeyProblem("cannot read a minisign secret key: it asks for more memory or time than minisign itself uses")
    return Scrypt(salt=salt, length=size, n=1 << power, r=block, p=parallel).derive(password.encode("utf-8"))


def _decode_key(text: str, *, what: str, size: int) -> bytes:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and lines[0].startswith(_UNTRUSTED.rstrip()):
        lines = lines[1:]
    if len(lines) != 1:
        raise errors.KeyProblem(f"cannot read a minisign {what}: {len(lines)} keys found where one is expected")
    try:
        raw = _decode(lines[0])
    except ValueError:
        # `from None`: the cause may quote a secret.
        raise errors.KeyProblem(f"cannot read a minisign {what}: it is not base64") from None
    if len(raw) != size:
        raise errors.KeyProblem(f"cannot read a minisign {what}: it is {len(raw)} bytes long, {size} are expected")
    return raw


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(text: str) -> bytes:
    """Canonical padded base64; raises ValueError."""
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise ValueError("not base64") from exc
    if _encode(data) != text:
        raise ValueError("base64 is not canonical")
    return data


def _key_id(identifier: bytes) -> str:
    return f"{int.from_bytes(identifier, 'little'):016X}"
