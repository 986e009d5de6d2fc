"""age v1 encryption of a stream: `Encryptor` seals, `Decryptor` opens; the public `age` program does both as well.

Source: the age specification (c2sp.org/age), "Payload". Idea: a header wraps a fresh file key for
each recipient; the payload is cut into 64 KiB chunks, each sealed with ChaCha20-Poly1305 under a
nonce made of its number and a last-chunk mark. So a flipped, cut, swapped or extended file is an
error (IntegrityError), and each chunk can be released once its own tag is checked.

Limits: memory stays flat (one chunk held back, plus what a call is given); binary files only;
age says who may read, not who wrote: that is `sign`. An object serves one stream and one thread,
and after an error it only repeats that error.

After a crash there is nothing to resume: the output lacks its last chunk, so that no reader takes
it for whole. Secrets live in memory only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from kpbackup import errors
from kpbackup.pipeline import age_header
from kpbackup.pipeline.age_keys import (
    FILE_KEY_BYTES,
    AnyIdentity,
    AnyRecipient,
    Identity,
    PassphraseIdentity,
    PassphraseRecipient,
    Recipient,
    check_scrypt_alone,
    check_together,
)

__all__ = [
    "AnyIdentity",
    "AnyRecipient",
    "Decryptor",
    "Encryptor",
    "Identity",
    "PassphraseIdentity",
    "PassphraseRecipient",
    "Recipient",
]

CHUNK_BYTES = 64 * 1024
TAG_BYTES = 16
NONCE_BYTES = 16

Buffer: TypeAlias = bytes | bytearray | memoryview


class _Pieces:
    """Cuts a stream into pieces of one size and always holds back the last: only its end shows that it is the last."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held = bytearray()

    def push(self, data: Buffer) -> list[Buffer]:
        """The pieces that are now known not to be the last. Views of `data` where possible, to save copies."""
        view = memoryview(data)
        size = self._size
        if len(self._held) + len(view) <= size:
            self._held += view
            return []
        pieces: list[Buffer] = []
        place = 0
        if self._held:
            place = size - len(self._held)
            self._held += view[:place]
            pieces.append(bytes(self._held))
        stop = place + (len(view) - place - 1) // size * size
        pieces += [view[start : start + size] for start in range(place, stop, size)]
        self._held = bytearray(view[stop:])
        return pieces

    def rest(self) -> bytes:
        """The last piece: empty only if nothing was ever pushed."""
        return bytes(self._held)


class _Stream:
    """The payload cipher of one file: numbers the chunks and marks the last."""

    def __init__(self, file_key: bytes, nonce: bytes) -> None:
        self._cipher = ChaCha20Poly1305(age_header.hkdf(file_key, salt=nonce, info=b"payload"))
        self.number = 0

    def _nonce(self, *, last: bool) -> bytes:
        nonce = self.number.to_bytes(11, "big") + (b"\x01" if last else b"\x00")
        self.number += 1
        return nonce

    def seal(self, chunk: Buffer, *, last: bool) -> bytes:
        return self._cipher.encrypt(self._nonce(last=last), chunk, None)

    def open(self, chunk: Buffer, *, last: bool) -> bytes:
        number = self.number
        if len(chunk) < TAG_BYTES:
            raise errors.IntegrityError(f"cannot decrypt: the age file is cut off in or before chunk {number}")
        try:
            plain = self._cipher.decrypt(self._nonce(last=last), chunk, None)
        except InvalidTag as exc:
            cause = "changed, or the file is cut off or extended here" if last else "changed, moved, or marked as the last"
            raise errors.IntegrityError(f"cannot decrypt: bad tag of chunk {number} of the age file: {cause}") from exc
        if last and not plain and number:
            raise errors.IntegrityError(f"cannot decrypt: the last chunk {number} of the age file is empty but not the only one")
        return plain


class Encryptor:
    """Turns one plaintext stream into one age file: `encrypt` repeatedly, then `flush` once, and join what they return.

    `recipients` are any number of `Recipient`s or exactly one `PassphraseRecipient`; each can open the file alone.
    Raises KeyProblem if there is none, a passphrase has company, or hybrid keys are mixed with others. A passphrase costs
    its scrypt time here.
    """

    def __init__(self, recipients: Sequence[AnyRecipient]) -> None:
        if not recipients:
            raise errors.KeyProblem("cannot encrypt: no recipient is given")
        check_together(recipients)
        file_key = os.urandom(FILE_KEY_BYTES)
        nonce = os.urandom(NONCE_BYTES)
        self._start = age_header.build([recipient.wrap(file_key) for recipient in recipients], file_key) + nonce
        self._stream = _Stream(file_key, nonce)
        self._pieces = _Pieces(CHUNK_BYTES)
        self._finished = False

    def encrypt(self, data: Buffer) -> bytes:
        """The next bytes of the age file (maybe none). Best fed with 256 KiB or more at a time."""
        self._check_open()
        sealed = [self._take_start()]
        sealed += [self._stream.seal(piece, last=False) for piece in self._pieces.push(data)]
        return b"".join(sealed)

    def flush(self) -> bytes:
        """The last bytes of the age file; without them no reader accepts it."""
        self._check_open()
        self._finished = True
        return self._take_start() + self._stream.seal(self._pieces.rest(), last=True)

    def _take_start(self) -> bytes:
        start, self._start = self._start, b""
        return start

    def _check_open(self) -> None:
        if self._finished:
            raise errors.InternalError("cannot encrypt: the stream is already finished")


class Decryptor:
    """Turns one age file back into its plaintext: `decrypt` repeatedly, then `finish` once, and join what they return.

    Only bytes whose tag was checked are ever returned. Before `finish` has returned, they may still be
    a mere beginning: act on the whole only after it. Raises IntegrityError for bytes that are not what was
    written, KeyProblem if none of `identities` opens the file.
    """

    def __init__(self, identities: Sequence[AnyIdentity]) -> None:
        if not identities:
            raise errors.KeyProblem("cannot decrypt: no identity is given")
        self._identities = tuple(identities)
        self._start: bytearray | None = bytearray()
        self._stream: _Stream | None = None
        self._pieces = _Pieces(CHUNK_BYTES + TAG_BYTES)
        self._failure: errors.KpbackupError | None = None

    def decrypt(self, data: Buffer) -> bytes:
        """The next verified plaintext bytes (maybe none)."""
        self._check_usable()
        try:
            return self._decrypt(data)
        except errors.KpbackupError as exc:
            self._failure = exc
            raise

    def finish(self) -> bytes:
        """The last verified plaintext bytes. Raises IntegrityError if the file does not end here."""
        self._check_usable()
        try:
            if self._stream is None:
                self._read_start(complete=True)
            if self._stream is None:
                raise errors.IntegrityError("cannot decrypt: the age file is cut off after its header")
            plain = self._stream.open(self._pieces.rest(), last=True)
        except errors.KpbackupError as exc:
            self._failure = exc
            raise
        self._failure = errors.InternalError("cannot decrypt: the stream is already finished")
        return plain

    def _decrypt(self, data: Buffer) -> bytes:
        if self._stream is None:
            assert self._start is not None
            self._start += data
            data = self._read_start(complete=False)
            if self._stream is None:
                return b""
        stream = self._stream
        plain = [stream.open(piece, last=False) for piece in self._pieces.push(data)]
        return plain[0] if len(plain) == 1 else b"".join(plain)

    def _read_start(self, *, complete: bool) -> bytes:
        """Reads header and nonce once they are there; returns what follows them."""
        start = self._start
        assert start is not None
        end = age_header.find_end(start, complete=complete)
        if end is None or len(start) < end + NONCE_BYTES:
            return b""
        header = bytes(start[:end])
        stanzas, tag = age_header.parse(header)
        file_key = self._unwrap(stanzas)
        age_header.check_mac(header, tag, file_key)
        self._stream = _Stream(file_key, bytes(start[end : end + NONCE_BYTES]))
        self._start = None
        return bytes(start[end + NONCE_BYTES :])

    def _unwrap(self, stanzas: list[age_header.Stanza]) -> bytes:
        check_scrypt_alone(stanzas)
        for identity in self._identities:
            file_key = identity.unwrap(stanzas)
            if file_key is not None:
                return file_key
        if stanzas[0].kind == "scrypt":
            given = any(isinstance(identity, PassphraseIdentity) for identity in self._identities)
            cause = "the passphrase is wrong" if given else "the age file asks for a passphrase"
            raise errors.KeyProblem(f"cannot decrypt: {cause}")
        kinds = ", ".join(sorted({stanza.kind for stanza in stanzas}))
        raise errors.KeyProblem(
            f"cannot decrypt: none of {len(self._identities)} given identities opens this age file of {len(stanzas)} recipients",
            hint=f"find the identity it was sealed to; kpbackup knows X25519, mlkem768x25519 and scrypt, this has: {kinds[:200]}",
        )

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise self._failure
