"""What every store below a repository promises: a dumb box of named objects.

Idea: the repository relies on these few calls and on nothing else, so that a directory and
any S3 server are the same to it. What stores differ in is data (`Capabilities`), never a name.

Limits: keys are UTF-8, at most 1,000 bytes, parts separated by '/', no empty part, no '.', no
'..', no control characters, no backslash (some servers turn it into '/'). A key cannot also be the "directory" of another one.

After a crash: an object is either whole or absent. What an unfinished `put` leaves is never
listed or readable; each backend says where it lies and what removes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from kpbackup import errors

READ_LIMIT_BYTES = 64 << 20
LONGEST_KEY_BYTES = 1000  # S3 allows 1,024 with the repository's own prefix


@dataclass(frozen=True)
class ObjectInfo:
    """One stored object. `etag` is opaque: equal etags mean nobody replaced the object by other content."""

    key: str
    size_bytes: int
    etag: str


@dataclass(frozen=True)
class Capabilities:
    """What a store honours. `checksums`: it refuses bytes that do not match the checksum sent with them."""

    conditional_put: bool
    conditional_replace: bool
    checksums: bool


class Backend(Protocol):
    """A store of objects. Threads may share one instance.

    Retries: here and nowhere above. Calls are repeated on dropped or refused connections, timeouts,
    HTTP 429, 500, 502, 503, 504 and the like, at most 6 attempts (the first one included) and none
    begun later than 180 s after the first, with growing, jittered waits of 0.25 s to 8 s. A local
    directory is never retried. Callers do not retry; what reaches them is final.

    Errors: every call may raise `errors.StorageError` (refused, failed, out of reach, invalid key) or
    `errors.LocalIOError` (a local disk); the classes below come on top. Messages name store, object
    and cause, hints what to do, neither a secret. Exceptions of a `chunks` iterable pass unchanged.
    """

    @property
    def name(self) -> str:
        """The url, for messages."""

    @property
    def capabilities(self) -> Capabilities:
        """What the kind of store promises; `storage.probe.probe` finds out what this very one does."""

    def put(self, key: str, chunks: Iterable[bytes], *, size_hint: int = 0) -> ObjectInfo:
        """Stores the joined chunks under `key`, over what was there; complete or absent, never half visible.

        Idempotent. `chunks` is read once, as fast as the store takes it; memory stays near two parts
        (16 MiB below 10 GiB). `size_hint` is the expected size in bytes, 0 if unknown; a wrong one costs
        memory, not correctness. Returns when the store has confirmed size, and checksum if it has them.
        If anything fails, also `KeyboardInterrupt` or `chunks`, nothing becomes visible and what was
        sent is discarded. Two writers of one key at one moment: the last one wins, the other may
        be told StorageError.
        """

    def put_if_absent(self, key: str, data: bytes) -> ObjectInfo:
        """Creates `key`, atomically: of any number of writers exactly one succeeds.

        Not blindly retried: when the answer to an attempt was lost, the stored bytes decide; the same
        bytes count as our own earlier success. So writers that race must write different bytes.

        Raises:
            ObjectExists: somebody else's object is there.
        """

    def replace(self, key: str, data: bytes, *, etag: str) -> ObjectInfo:
        """Overwrites `key` if its etag is still `etag`, atomically. Lost answers are settled as in `put_if_absent`.

        Raises:
            PreconditionFailed: it has changed or is gone.
        """

    def get(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The object's bytes from `offset`, at most `length` of them, in pieces of at most 1 MiB.

        Like a slice: a range beyond the end gives less, or nothing. A broken connection is resumed
        where it broke, at most 5 times in a row without progress, and only in the same object.

        Raises (at the first `next`, or later):
            ObjectMissing: at the first `next` only.
            StorageError: also when the body was cut for good, or the object was replaced while it was read.
        """

    def read(self, key: str, *, limit_bytes: int = READ_LIMIT_BYTES) -> bytes:
        """The whole object.

        Raises:
            ObjectMissing; StorageError: it is larger than `limit_bytes`.
        """

    def head(self, key: str) -> ObjectInfo:
        """Size and etag, without the content.

        Raises:
            ObjectMissing.
        """

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key starts with `prefix` (any text, maybe empty), in order of the keys' UTF-8 bytes.

        With `after`, those whose keys come after it; what lies before costs nothing, however much it is.
        Whole objects only. What is written or deleted meanwhile may or may not appear. One exception to the
        order: servers built on directories (SeaweedFS) give what lies below `a/` before `a-b` and others that
        continue `a` with a character before '/'. Siblings of one length, such as padded numbers, are always in order.
        """

    def list_prefixes(self, prefix: str) -> Iterator[str]:
        """The next level below `prefix` in order: what keys starting with it have up to the next '/', that included.

        Servers built on directories may go on giving one whose last object was deleted.
        """

    def delete(self, key: str) -> None:
        """Removes `key`. Idempotent: an absent one is fine."""

    def delete_all(self, keys: Iterable[str]) -> None:
        """Removes many keys, in this order up to about a thousand at a time; absent ones are fine."""

    def verifies_checksums(self, key: str) -> bool:
        """Whether bytes with a wrong checksum are refused; tried out on `key`, which may hold them afterwards."""

    def close(self) -> None:
        """Ends connections. The backend must not be used afterwards."""


def validate_key(key: str) -> str:
    """`key`, if it can be stored everywhere.

    Raises:
        StorageError: it could escape from the prefix, or some store could not keep or list it.
    """
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise errors.StorageError(f"invalid object key {key!r}: empty, '.' and '..' parts are not allowed")
    return _validate_text(key)


def validate_prefix(prefix: str) -> str:
    """`prefix`, if keys can start with it. Raises StorageError."""
    *whole, rest = prefix.split("/")
    if any(part in ("", ".", "..") for part in whole) or rest == "..":
        raise errors.StorageError(f"invalid key prefix {prefix!r}: empty, '.' and '..' parts are not allowed")
    return _validate_text(prefix)


def _validate_text(key: str) -> str:
    if any(ord(character) < 32 or character in "\x7f\\" for character in key):
        raise errors.StorageError(f"invalid object key {key!r}: control characters and backslashes are not allowed")
    try:
        encoded = key.encode()
    except UnicodeEncodeError as exc:
        raise errors.StorageError(f"invalid object key {key!r}: not valid Unicode") from exc
    if len(encoded) > LONGEST_KEY_BYTES:
        raise errors.StorageError(f"invalid object key {key[:60]!r}...: longer than {LONGEST_KEY_BYTES} bytes")
    return key


def join(pieces: Iterable[bytes], *, limit_bytes: int, what: str) -> bytes:
    """The joined pieces. Raises StorageError if they exceed `limit_bytes`; no more than that is kept."""
    joined = bytearray()
    for piece in pieces:
        joined += piece
        if len(joined) > limit_bytes:
            raise errors.StorageError(f"cannot read {what}: it is larger than the {limit_bytes} bytes expected at most")
    return bytes(joined)
