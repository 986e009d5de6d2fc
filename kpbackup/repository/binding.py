"""The repository itself: creating it, opening it, and the handle every other module of this room takes."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import resources
from typing import Any, TypeVar

from kpbackup import __version__, errors
from kpbackup.model import manifest
from kpbackup.pipeline import sign
from kpbackup.repository import layout, objects, trust
from kpbackup.storage import backend as storage

READER_VERSION = "1"

T = TypeVar("T")


@dataclass(frozen=True)
class Repository:
    """An open repository. Without `signing_key` it can only be read.

    `verified` holds manifests read before, by key and etag: they never change, and a process that runs for days reads them often.
    `stretches` holds what pages stand for, by key, for the same reason.
    `page_rows` is 1,024 in every repository; tests of what takes a million segments make it smaller.
    """

    backend: storage.Backend
    binding: manifest.RepositoryBinding
    public_keys: tuple[sign.PublicKey, ...]
    signing_key: sign.SigningKey | None = None
    verified: dict[tuple[str, str], Any] = field(default_factory=dict, compare=False, repr=False)
    stretches: dict[str, list[manifest.Stretch]] = field(default_factory=dict, compare=False, repr=False)
    page_rows: int = layout.PAGE_ROWS

    @property
    def id(self) -> str:
        return self.binding.head.repository

    def head(self, kind: str, *, key: str, created_at: datetime, timeline: str = "", seq: int = 0) -> manifest.Head:
        return manifest.Head(
            kind=kind,
            repository=self.id,
            timeline=timeline,
            seq=seq,
            key=key,
            created_at=created_at,
            writer=f"kpbackup {__version__}",
        )

    def create(self, value: Any, *, payload: bytes = b"") -> None:
        """Signs `value` and writes it at its own key, create-only; see objects.create()."""
        objects.create(self.backend, value, self.need_signing_key(), payload=payload)

    def read(self, key: str, kind: type[T]) -> tuple[T, int]:
        """(verified manifest, payload offset); see objects.read()."""
        return objects.read(self.backend, key, kind, public_keys=self.public_keys, repository=self.id)

    def judge(self, data: bytes, key: str, kind: type[T]) -> tuple[T, int]:
        """As read(), of an object that was fetched already."""
        return objects.judge(data, key, kind, public_keys=self.public_keys, repository=self.id)

    def need_signing_key(self) -> sign.SigningKey:
        if self.signing_key is None:
            raise errors.KeyProblem(
                f"writing to {self.backend.name} needs a signing key",
                hint="set signing.key_file to the file `kpbackup init` made",
            )
        return self.signing_key


def open_repository(
    backend: storage.Backend, *, public_keys: Sequence[sign.PublicKey], signing_key: sign.SigningKey | None = None
) -> Repository:
    """The repository at `backend`.

    Raises:
        RepositoryError: there is none.
        IntegrityError, KeyProblem: its binding is damaged or signed by a key that is not trusted.
    """
    retired = [key for key in public_keys if isinstance(key, trust.RetiredKey)]
    if signing_key is not None and any(key.public == signing_key.public_key.public for key in retired):
        raise errors.KeyProblem(
            f"the signing key {signing_key.public_key} is retired (signing.retired): what it signs now, nobody would believe",
            hint="sign with the new key: signing.key_file",
        )
    if signing_key is not None and public_keys and signing_key.public_key not in public_keys:
        raise errors.KeyProblem(
            f"the signing key {signing_key.public_key} is not among the trusted public keys: what it signs, nobody would believe",
            hint="add it to signing.public_keys (or signing.public_keys_file), or give the signing key that belongs to them",
        )
    keys = tuple(public_keys) + ((signing_key.public_key,) if signing_key else ())
    if not keys:
        raise errors.KeyProblem(
            f"nothing in {backend.name} can be verified without a signing public key",
            hint="set signing.public_keys (or signing.public_keys_file) to the keys `kpbackup init` printed",
        )
    try:
        binding, _ = objects.read(backend, layout.BINDING, manifest.RepositoryBinding, public_keys=keys)
    except errors.ObjectMissing as exc:
        raise errors.RepositoryError(
            f"there is no kpbackup repository at {backend.name}", hint="check repository.url, or create one with `kpbackup init`"
        ) from exc
    return Repository(backend, binding, keys, signing_key)


def create_repository(
    backend: storage.Backend, *, signing_key: sign.SigningKey, source: str, flavour: str, created_at: datetime
) -> Repository:
    """A new repository at `backend`, with the stand-alone reader and its signature beside the binding.

    Raises:
        RepositoryError: one exists already; nothing is changed.
    """
    head = manifest.Head(
        kind="repository",
        repository=str(uuid.uuid4()),
        timeline="",
        seq=0,
        key=layout.BINDING,
        created_at=created_at,
        writer=f"kpbackup {__version__}",
    )
    binding = manifest.RepositoryBinding(head=head, source=source, flavour=flavour)
    repository = Repository(backend, binding, (signing_key.public_key,), signing_key)
    exists = errors.RepositoryError(
        f"there is a repository at {backend.name} already", hint="use another prefix for another source; nothing was changed"
    )
    if any(info.key == layout.BINDING for info in backend.list(layout.BINDING)):
        raise exists
    store_reader(repository)  # before the binding, which is what makes a repository exist
    try:
        repository.create(binding)
    except errors.ObjectExists as exc:
        raise exists from exc
    return repository


def store_reader(repository: Repository) -> None:
    """Puts this version's stand-alone reader into the repository, create-only; one that is there already stays."""
    text = resources.files("kpbackup.repository").joinpath("reader.py").read_bytes()
    key = layout.reader(READER_VERSION)
    signature = sign.sign(text, repository.need_signing_key(), trusted_comment=f"kpbackup reader {READER_VERSION}")
    for name, data in ((layout.signature(key), signature.encode()), (key, text)):
        try:
            repository.backend.put_if_absent(name, data)
        except errors.ObjectExists:
            continue  # left by an interrupted init: good if it is by the same key
    stored = repository.backend.read(key), repository.backend.read(layout.signature(key)).decode(errors="replace")
    try:
        sign.verify(*stored, (repository.need_signing_key().public_key,))
    except (errors.IntegrityError, errors.KeyProblem) as exc:
        raise errors.RepositoryError(
            f"{key} at {repository.backend.name} is another key's: {exc.message}",
            hint="an init with other keys was interrupted here: run it with those keys, or use another prefix",
        ) from exc
