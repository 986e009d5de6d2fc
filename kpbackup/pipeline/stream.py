"""Sealing and unsealing a stream: zstd, then age; with counting and cutting on the way.

Idea: iterators of bytes in, iterators of bytes out, so that any number of steps stay within a few
megabytes. Compressed first because encrypted bytes do not shrink. What `seal` writes, `age -d | zstd -d` reads.

Limits: a generator that is not exhausted has checked nothing: an interrupted `unseal` has
proven only the bytes it gave. After a crash the output lacks its last chunk and `unseal` refuses it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from kpbackup.pipeline import compress, encrypt

# One step's worth of input: large enough for speed, small enough that a huge chunk is not held three times over.
_STEP_BYTES = 1 << 20


def seal(chunks: Iterable[bytes], recipients: Sequence[encrypt.AnyRecipient], *, level: int = 1) -> Iterator[bytes]:
    """The sealed form of the joined `chunks`: one zstd frame in one age file. Raises KeyProblem for bad recipients."""
    compressor = compress.Compressor(level=level)
    encryptor = encrypt.Encryptor(recipients)
    for chunk in chunks:
        for step in _steps(chunk):
            sealed = encryptor.encrypt(compressor.compress(step))
            if sealed:
                yield sealed
    yield encryptor.encrypt(compressor.flush()) + encryptor.flush()


def unseal(chunks: Iterable[bytes], identities: Sequence[encrypt.AnyIdentity]) -> Iterator[bytes]:
    """The content of one sealed object, in pieces of at most 1 MiB, each released after its tag is checked.

    Raises IntegrityError (changed, cut, extended) or KeyProblem (no identity fits).
    Only the end of the iteration proves that the object is whole.
    """
    decryptor = encrypt.Decryptor(identities)
    decompressor = compress.Decompressor()
    for chunk in chunks:
        for step in _steps(chunk):
            yield from decompressor.decompress(decryptor.decrypt(step))
    yield from decompressor.decompress(decryptor.finish())
    decompressor.finish()


def _steps(chunk: bytes) -> Iterator[bytes | memoryview]:
    if len(chunk) <= _STEP_BYTES:
        yield chunk
        return
    view = memoryview(chunk)
    for start in range(0, len(view), _STEP_BYTES):
        yield view[start : start + _STEP_BYTES]


class Tally:
    """Passes `chunks` on unchanged while it counts them. Read `size_bytes` and `sha256` after (or while) it is iterated, once."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._hash = hashlib.sha256()
        self._size_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._hash.update(chunk)
            self._size_bytes += len(chunk)
            yield chunk

    @property
    def size_bytes(self) -> int:
        """Bytes passed so far."""
        return self._size_bytes

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes passed so far, in lower-case hex."""
        return self._hash.hexdigest()
