"""The public age test vectors: each is read as it must be, or refused without releasing one unverified byte."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kpbackup import errors
from kpbackup.pipeline import age_texts, encrypt

VECTORS = sorted((Path(__file__).parent / "age").iterdir())
SEALED_CHUNK_BYTES = 65536 + 16
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Vector:
    expect: str
    payload: str
    file_key: bytes
    identities: tuple[str, ...]
    passphrases: tuple[str, ...]
    armored: bool
    body: bytes

    @classmethod
    def read(cls, path: Path) -> Vector:
        head, _, body = path.read_bytes().partition(b"\n\n")
        pairs = [line.split(": ", 1) for line in head.decode().splitlines()]
        facts = dict(pairs)
        if "compressed" in facts:
            assert facts["compressed"] == "zlib"
            body = zlib.decompress(body)
        return cls(
            expect=facts["expect"],
            payload=facts.get("payload", EMPTY_SHA256),
            file_key=bytes.fromhex(facts["file key"]),
            identities=tuple(value for key, value in pairs if key == "identity"),
            passphrases=tuple(value for key, value in pairs if key == "passphrase"),
            armored=facts.get("armored") == "yes",
            body=body,
        )

    @property
    def supported(self) -> bool:
        return not self.armored

    def keys(self) -> list[encrypt.AnyIdentity]:
        keys: list[encrypt.AnyIdentity] = [encrypt.PassphraseIdentity(text) for text in self.passphrases]
        return keys + [age_texts.parse_identity(text) for text in self.identities]


def decrypt(body: bytes, keys: list[encrypt.AnyIdentity], *, step: int) -> tuple[bytes, errors.KpbackupError | None]:
    """What was released, and the error that ended it."""
    decryptor = encrypt.Decryptor(keys)
    released = b""
    try:
        for start in range(0, len(body), step):
            released += decryptor.decrypt(body[start : start + step])
        released += decryptor.finish()
    except errors.KpbackupError as exc:
        return released, exc
    return released, None


def steps(body: bytes) -> list[int]:
    return [len(body) or 1, SEALED_CHUNK_BYTES, 9973, *([1] if len(body) < 4000 else [])]


def verified_chunks(vector: Vector) -> list[bytes]:
    """The chunks whose tag is right in their place, found without the code under test."""
    start = vector.body.index(b"\n", vector.body.index(b"\n---") + 1) + 1
    nonce, payload = vector.body[start : start + 16], vector.body[start + 16 :]
    key = HKDF(algorithm=hashes.SHA256(), length=32, salt=nonce, info=b"payload").derive(vector.file_key)
    chunks: list[bytes] = []
    for number, place in enumerate(range(0, len(payload), SEALED_CHUNK_BYTES)):
        for mark in (b"\x00", b"\x01"):
            try:
                piece = payload[place : place + SEALED_CHUNK_BYTES]
                chunks.append(ChaCha20Poly1305(key).decrypt(number.to_bytes(11, "big") + mark, piece, None))
                break
            except InvalidTag:
                continue
        else:
            break
    return chunks


def test_the_vectors_are_there() -> None:
    read = [Vector.read(path) for path in VECTORS]
    assert {vector.expect for vector in read} == {"success", "header failure", "payload failure", "armor failure", "no match"}
    assert sum(vector.supported for vector in read) >= 54


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.name)
def test_vector(path: Path) -> None:
    vector = Vector.read(path)
    if not vector.supported:
        return refused(vector)
    for step in steps(vector.body):
        released, error = decrypt(vector.body, vector.keys(), step=step)
        if vector.expect == "success":
            assert error is None
            assert hashlib.sha256(released).hexdigest() == vector.payload
        elif vector.expect == "payload failure":
            assert isinstance(error, errors.IntegrityError)
            chunks = verified_chunks(vector)
            assert released in [b"".join(chunks[:count]) for count in range(len(chunks) + 1)]
        else:
            assert isinstance(error, errors.KeyProblem if vector.expect == "no match" else errors.IntegrityError)
            assert released == b""


def refused(vector: Vector) -> None:
    """Armored files, which we do not read, are refused and the reason is said."""
    released, error = decrypt(vector.body, [encrypt.Identity.generate()], step=len(vector.body))
    assert released == b""
    assert isinstance(error, errors.IntegrityError)
    cause = "armored" if vector.body.lstrip().startswith(b"-----BEGIN") else "not an age v1 file"
    assert cause in error.message


def test_high_work_factor_is_refused_by_name() -> None:
    vector = Vector.read(Path(__file__).parent / "age" / "scrypt_work_factor_23")
    _, error = decrypt(vector.body, vector.keys(), step=len(vector.body))
    assert error is not None
    assert "work factor" in error.message
    assert "22" in error.message
