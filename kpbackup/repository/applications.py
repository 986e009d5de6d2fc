"""Application bundles in the repository: a log of its own, manifest and sealed bundle in one object.

It stands beside the timelines: a fork of the database is none of the application. After a crash between key object and
manifest nothing exists for a reader.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from kpbackup import errors
from kpbackup.model import codec, manifest
from kpbackup.model.application import Bundle
from kpbackup.pipeline import age_texts, encrypt, stream
from kpbackup.repository import keys, layout
from kpbackup.repository.binding import Repository
from kpbackup.storage import locks

LARGEST_BYTES = 64 << 20
FILES = "application"  # in the place of a timeline in the keys of file packs
PACK_INVENTORY = ".kpbackup-inventory.jsonl"  # the last member of each pack
FENCE_TRIES = 5


def digest(repository: Repository, bundle: Bundle) -> str:
    """Equal for equal applications. The signature in it keeps whoever reads the store from trying passwords on it."""
    content = codec.encode(bundle)
    for name in ("taken_at", "cluster_version", "schema_fingerprint"):
        content.pop(name)
    text = json.dumps(content, sort_keys=True).encode()
    signed = repository.need_signing_key().signature(b"kpbackup application\n" + hashlib.sha256(text).digest())
    return hashlib.sha256(signed).hexdigest()


def store(
    repository: Repository, bundle: Bundle, recipients: Sequence[encrypt.AnyRecipient], files: manifest.FileSet | None = None
) -> manifest.ApplicationManifest:
    """Seals and stores a bundle, and reads its manifest back. `files` are stored already.

    Raises:
        KeyProblem, StorageError, IntegrityError; LeaseHeld when others keep taking the next number.
    """
    sealing = keys.new_data_key(repository, recipients)
    plain = json.dumps(codec.encode(bundle), sort_keys=True).encode()
    sealed = b"".join(stream.seal((plain,), (age_texts.parse_recipient(sealing.recipient),)))
    payload = manifest.Payload(len(sealed), hashlib.sha256(sealed).hexdigest())
    for _ in range(FENCE_TRIES):
        listed = _keys(repository)
        seq = _seq(listed[-1]) + 1 if listed else 1
        head = repository.head("application", key=layout.application(seq), created_at=datetime.now(UTC), seq=seq)
        if files is not None:
            head = replace(head, requires=(manifest.FILES,))
        made = manifest.ApplicationManifest(
            head=head, taken_at=bundle.taken_at, sealing=sealing, payload=payload, digest=digest(repository, bundle),
            objects=len(bundle.objects), files=files,
        )
        try:
            repository.create(made, payload=sealed)
        except errors.ObjectExists:
            continue
        return made
    raise errors.LeaseHeld(
        f"other writers keep taking the next bundle number of {repository.backend.name}", hint="see which processes write there"
    )


def newest(repository: Repository) -> manifest.ApplicationManifest | None:
    """The newest bundle's manifest."""
    listed = _keys(repository)
    return repository.read(listed[-1], manifest.ApplicationManifest)[0] if listed else None


def all_manifests(repository: Repository) -> list[manifest.ApplicationManifest]:
    """Every bundle's manifest, oldest first. Raises IntegrityError when one is damaged."""
    return [repository.read(key, manifest.ApplicationManifest)[0] for key in _keys(repository)]


def readable(repository: Repository) -> Iterator[manifest.ApplicationManifest]:
    """Those manifests that are as they were signed; `problems` tells of the others."""
    for key in _keys(repository):
        try:
            yield repository.read(key, manifest.ApplicationManifest)[0]
        except (errors.IntegrityError, errors.KeyProblem, errors.ObjectMissing):
            continue


def in_force(manifests: Sequence[manifest.ApplicationManifest], at: datetime) -> manifest.ApplicationManifest | None:
    """The newest bundle taken at or before `at`; before the first one was taken, the first; None without any."""
    before = [one for one in manifests if one.taken_at <= at]
    return before[-1] if before else (manifests[0] if manifests else None)


def read_bundle(repository: Repository, found: manifest.ApplicationManifest, identities: Sequence[encrypt.AnyIdentity]) -> Bundle:
    """The bundle, opened.

    Raises:
        IntegrityError: the stored bytes are not those the manifest was signed for.
        KeyProblem: no identity opens it.
    """
    _, offset = repository.read(found.head.key, manifest.ApplicationManifest)
    sealed = b"".join(repository.backend.get(found.head.key, offset=offset, length=found.payload.bytes))
    if (len(sealed), hashlib.sha256(sealed).hexdigest()) != (found.payload.bytes, found.payload.sha256):
        raise errors.IntegrityError(
            f"application bundle {found.head.key} is damaged: its payload is not the one its manifest was signed for",
            hint="use another bundle (`kpbackup list` shows them), or another copy of the repository",
        )
    opened = keys.open_data_key(repository, found.sealing, identities)
    document: Any = json.loads(b"".join(stream.unseal((sealed,), (opened,))))
    return codec.decode(Bundle, document, what=f"application bundle {found.head.key}")


def delete(repository: Repository, released: Sequence[manifest.ApplicationManifest]) -> int:
    """Deletes bundles; the manifest first, so that a crash leaves nothing that looks whole. How many objects went.

    Files that no bundle names any more are data without a manifest: a later prune deletes them.
    """
    deleted = 0
    going = {one.head.key for one in released}
    kept = {one.files.sealing.key_id for one in all_manifests(repository) if one.files and one.head.key not in going}
    held = locks.locked(repository.backend, [one.head.key for one in released], datetime.now(UTC))  # they wait for a later prune
    for one in (one for one in released if one.head.key not in held):
        key_ids = [one.sealing.key_id, *([one.files.sealing.key_id] if one.files else [])]
        objects = [info.key for key in key_ids if key not in kept for info in repository.backend.list(layout.key_objects(key))]
        for key in (one.head.key, *objects):
            repository.backend.delete(key)
            deleted += 1
    return deleted


def problems(repository: Repository, identities: Sequence[encrypt.AnyIdentity]) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) of each bundle that is not as it was signed; with identities each is opened too."""
    for key in _keys(repository):
        try:
            found, offset = repository.read(key, manifest.ApplicationManifest)
            sealed = b"".join(repository.backend.get(key, offset=offset))
            if (len(sealed), hashlib.sha256(sealed).hexdigest()) != (found.payload.bytes, found.payload.sha256):
                yield key, "its bytes are not those that were signed for"
            elif identities:
                read_bundle(repository, found, identities)
        except (errors.IntegrityError, errors.KeyProblem, errors.ObjectMissing) as exc:
            yield key, exc.message


def file_attempts(repository: Repository) -> set[str]:
    """Prefixes of all packs of files that a bundle names."""
    found = [one.files.objects for one in all_manifests(repository) if one.files]
    return {packed.key.rpartition("/")[0] + "/" for objects in found for packed in objects}


def _keys(repository: Repository) -> list[str]:
    return sorted(info.key for info in repository.backend.list(layout.APPLICATIONS))


def _seq(key: str) -> int:
    return int(key[-layout.SEQ_DIGITS :])


