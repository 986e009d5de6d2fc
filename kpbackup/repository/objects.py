"""Signed manifests as stored objects: four minisign lines, one line of canonical JSON, then maybe a payload.

`sed -n 1,4p`, `sed -n 5p` and `minisign -V` are enough to judge one. Nothing here knows what a manifest
means; it only guarantees that what is returned was signed by a trusted key for exactly this place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from kpbackup import errors
from kpbackup.model import canonical, codec, manifest
from kpbackup.pipeline import sign
from kpbackup.repository import trust
from kpbackup.storage import backend as storage

HEAD_BYTES = 16 * 1024  # the first read of an object whose manifest length is not known: most manifests fit
MANIFEST_LIMIT_BYTES = 256 << 20

T = TypeVar("T")


@dataclass(frozen=True)
class Signed:
    """A verified manifest: its JSON value, and where a payload would start in the object."""

    document: dict[str, Any]
    payload_offset: int


def trusted_comment(head: manifest.Head) -> str:
    """The place a manifest was signed for, readable beside `minisign -V`."""
    return f"kpbackup {head.kind} repository {head.repository} timeline {head.timeline or '-'} seq {head.seq} key {head.key}"


def assemble(value: Any, key: sign.SigningKey) -> bytes:
    """The signature lines and the JSON line of a manifest dataclass (its `head` says where it belongs)."""
    line = canonical.dumps(codec.encode(value)) + b"\n"
    return sign.sign(line, key, trusted_comment=trusted_comment(value.head)).encode() + line


def parse(data: bytes, *, key: str, public_keys: Sequence[sign.PublicKey]) -> Signed:
    """The verified manifest at the start of `data`, an object read from `key`.

    Raises:
        IntegrityError: cut, altered, moved from another key, or not a manifest.
        KeyProblem: signed by a key that is not trusted.
        RepositoryError: a format or feature this version does not know.
    """
    lines = data.split(b"\n", 5)
    if len(lines) < 6:
        raise errors.IntegrityError(f"manifest {key} is cut short", hint="run `kpbackup check` to see which windows it costs")
    line = lines[4] + b"\n"
    try:
        signature = b"\n".join(lines[:4]).decode() + "\n"
    except UnicodeDecodeError as exc:
        raise errors.IntegrityError(f"manifest {key} has no signature") from exc
    try:
        comment, signer = sign.verify_by(line, signature, public_keys)
    except (errors.IntegrityError, errors.KeyProblem) as exc:
        raise type(exc)(f"manifest {key}: {exc.message}", hint=exc.hint) from exc
    document = canonical.loads(line, what=f"manifest {key}")
    head = _head(document, key)
    if head.key != key or comment != trusted_comment(head):
        raise errors.IntegrityError(f"manifest {key} was signed for {head.key}: it was moved or copied here")
    trust.refuse_after_retirement(signer, key=key, repository=head.repository)
    return Signed(document, sum(len(part) + 1 for part in lines[:5]))


def _head(document: dict[str, Any], key: str) -> manifest.Head:
    head = codec.decode(manifest.Head, document.get("head"), what=f"manifest {key}")
    unknown = sorted(set(head.requires) - manifest.KNOWN_FEATURES)
    if head.format != manifest.FORMAT_VERSION or unknown:
        needs = f"format {head.format}" + (f" with {', '.join(unknown)}" if unknown else "")
        raise errors.RepositoryError(
            f"manifest {key} needs {needs}, which this version does not know", hint="use a newer kpbackup"
        )
    return head


def read(
    backend: storage.Backend, key: str, kind: type[T], *, public_keys: Sequence[sign.PublicKey], repository: str | None = None
) -> tuple[T, int]:
    """(manifest of type `kind`, payload offset) of the object at `key`.

    Raises:
        ObjectMissing, StorageError; and what parse() raises; IntegrityError for another repository's manifest.
    """
    return judge(read_head(backend, key), key, kind, public_keys=public_keys, repository=repository)


def judge(
    data: bytes, key: str, kind: type[T], *, public_keys: Sequence[sign.PublicKey], repository: str | None = None
) -> tuple[T, int]:
    """As read(), of an object whose beginning, or all of it, is `data`."""
    found = parse(data, key=key, public_keys=public_keys)
    value = codec.decode(kind, found.document, what=f"manifest {key}")
    head = value.head  # type: ignore[attr-defined]
    if repository is not None and head.repository != repository:
        raise errors.IntegrityError(f"manifest {key} belongs to repository {head.repository}, not to {repository}")
    return value, found.payload_offset


def line(data: bytes) -> bytes:
    """The JSON line of a manifest object that was judged, without its newline."""
    return data.split(b"\n", 5)[4]


def read_head(backend: storage.Backend, key: str) -> bytes:
    """The beginning of a manifest object, nothing judged: from its start to at least the end of its fifth line, or all of it."""
    data, wanted = b"", HEAD_BYTES
    while len(data) < MANIFEST_LIMIT_BYTES:
        data += b"".join(backend.get(key, offset=len(data), length=wanted - len(data)))
        if data.count(b"\n") >= 5 or len(data) < wanted:
            return data
        wanted = min(wanted * 8, MANIFEST_LIMIT_BYTES)
    raise errors.IntegrityError(f"manifest {key} does not end within {MANIFEST_LIMIT_BYTES} bytes")


def create(backend: storage.Backend, value: Any, key: sign.SigningKey, *, payload: bytes = b"") -> None:
    """Writes a manifest at its own key, create-only, and reads it back. The very same object there already is our own
    earlier success, whose answer was lost: so a failed call may be repeated with the same value.

    Raises:
        ObjectExists: the place is taken by another: the fence held, reload and redo.
        IntegrityError: the store returned other bytes than were written.
    """
    data = assemble(value, key) + payload
    try:
        backend.put_if_absent(value.head.key, data)
    except errors.ObjectExists:
        if not _is_stored(backend, value.head.key, data, len(data) - len(payload)):
            raise
        return
    if not _is_stored(backend, value.head.key, data, len(data) - len(payload)):
        raise errors.IntegrityError(
            f"{value.head.key} reads back differently from what was written to {backend.name}",
            hint="do not trust this store; nothing was counted as a success",
        )


def _is_stored(backend: storage.Backend, key: str, data: bytes, manifest_bytes: int) -> bool:
    """Whether the object begins with the manifest in `data` and is as long: the manifest holds the payload's hash."""
    stored = b"".join(backend.get(key, offset=0, length=manifest_bytes))
    return stored == data[:manifest_bytes] and backend.head(key).size_bytes == len(data)
