"""What a store really does, found out by trying: `doctor` asks before anything relies on it.

Limits: each probe writes two small objects with new random names below `probes/` and leaves them,
since a writer may not be allowed to delete; `probes/` may be emptied at any time.
"""

from __future__ import annotations

import secrets

from kpbackup import errors
from kpbackup.storage.backend import Backend, Capabilities

PREFIX = "probes/"


def probe(backend: Backend) -> Capabilities:
    """The capabilities of this very store.

    A store that ignores a condition is told apart from one that refuses it: both count as not capable.

    Raises:
        StorageError: it cannot be written to at all.
    """
    name = PREFIX + secrets.token_hex(16)
    backend.put(f"{name}-condition", [b"probe"])
    return Capabilities(
        conditional_put=_puts_conditionally(backend, f"{name}-condition"),
        conditional_replace=_replaces_conditionally(backend, f"{name}-condition"),
        checksums=backend.verifies_checksums(f"{name}-checksum"),
    )


def _puts_conditionally(backend: Backend, key: str) -> bool:
    """Whether an existing object is safe from create-only writes."""
    try:
        backend.put_if_absent(key, b"must not be stored")
    except errors.ObjectExists:
        return True
    except errors.NotSupported:
        pass
    return False


def _replaces_conditionally(backend: Backend, key: str) -> bool:
    """Whether a stale etag is refused, and the current one accepted."""
    try:
        first = backend.head(key)
        second = backend.replace(key, b"replaced once", etag=first.etag)
        if second.etag == first.etag:
            return False
        backend.replace(key, b"must not be stored", etag=first.etag)
    except errors.PreconditionFailed:
        return backend.read(key) == b"replaced once"
    except errors.NotSupported:
        pass
    return False
