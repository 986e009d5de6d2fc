"""Canaries: a small sealed question per recipient, so that a lost key is noticed before it is needed.

The writer seals a random answer to each recipient alone and signs its hash. Whoever has the identity opens it and leaves the
answer beside it: nobody else can know it, so the proof needs no signature, and the machine with the private key no signing key.
What is proven is dated by the canary, not by the proof: at some time after the canary was made its key opened it.

Opening is the reader's job, never the daemon's: the daemon has no identity. A crash leaves a canary without a proof, or nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kpbackup import errors
from kpbackup.model import canonical, codec, manifest
from kpbackup.model.canary import Canary, CanaryProof
from kpbackup.pipeline import encrypt
from kpbackup.repository import keys, layout
from kpbackup.repository.binding import Repository

SHORT_LETTERS = 20  # of a recipient's text: enough to tell a person's few keys apart
CANARY_LIMIT_BYTES = 64 << 10


@dataclass(frozen=True)
class CanaryState:
    """What the canaries of one recipient say. `proven_at`: its key has opened something made then; None when never."""

    recipient: str
    first_at: datetime
    newest_at: datetime
    proven_at: datetime | None

    @property
    def short(self) -> str:
        """The recipient for tables and labels."""
        return short(self.recipient)


def short(recipient: str) -> str:
    return recipient[:SHORT_LETTERS]


def renew(
    repository: Repository, recipients: Iterable[encrypt.Recipient], *, now: datetime, older_than: timedelta = timedelta()
) -> list[Canary]:
    """A new canary for each recipient whose newest one is at least `older_than` old.

    Raises:
        KeyProblem: there is no signing key.
        StorageError.
    """
    made = []
    for recipient in recipients:
        logs = _log(repository, str(recipient))
        newest = repository.read(logs[-1], Canary)[0] if logs else None
        if newest is None or newest.head.created_at + older_than <= now:
            made.append(_make(repository, recipient, newest.head.seq + 1 if newest else 1, now))
    return made


def _make(repository: Repository, recipient: encrypt.Recipient, seq: int, now: datetime) -> Canary:
    answer = secrets.token_hex(32)
    encryptor = encrypt.Encryptor((recipient,))
    sealed = encryptor.encrypt(f"{answer}\n".encode()) + encryptor.flush()
    head = repository.head("canary", key=layout.canary(keys.id_of(str(recipient)), seq), created_at=now, seq=seq)
    payload = manifest.Payload(len(sealed), hashlib.sha256(sealed).hexdigest())
    value = Canary(head, str(recipient), _hash(answer), payload)
    repository.create(value, payload=sealed)
    return value


def open_newest(repository: Repository, identities: Sequence[encrypt.Identity]) -> list[Canary]:
    """Opens the newest canary of each identity and leaves its answer beside it.

    Raises:
        KeyProblem: an identity has no canary, or does not open it.
        IntegrityError: a canary is damaged, or its answer is not the one the writer signed.
    """
    opened = []
    for identity in identities:
        recipient = str(identity.recipient)
        logs = _log(repository, recipient)
        if not logs:
            raise errors.KeyProblem(
                f"{repository.backend.name} has no canary for {short(recipient)}...: nothing was sealed to it to prove it with",
                hint="run `kpbackup keys canary` where backups are made, with this recipient in encryption.recipients",
            )
        opened.append(_open(repository, logs[-1], identity))
    return opened


def _open(repository: Repository, key: str, identity: encrypt.Identity) -> Canary:
    value, offset = repository.read(key, Canary)
    sealed = b"".join(repository.backend.get(key, offset=offset, length=CANARY_LIMIT_BYTES))
    decryptor = encrypt.Decryptor((identity,))
    try:
        answer = (decryptor.decrypt(sealed) + decryptor.finish()).decode(errors="replace").strip()
    except (errors.KeyProblem, errors.IntegrityError) as exc:
        raise type(exc)(f"canary {key}: {exc.message}", hint="run `kpbackup check`; docs/keys.md says what to do") from exc
    if not hmac.compare_digest(_hash(answer), value.answer_sha256):
        raise errors.IntegrityError(f"canary {key} holds another answer than the one that was signed for")
    proof = canonical.dumps(codec.encode(CanaryProof(answer))) + b"\n"
    try:
        repository.backend.put_if_absent(layout.canary_proof(key), proof)
    except errors.ObjectExists:
        pass  # opened before; it has just opened again
    return value


def read_states(repository: Repository) -> tuple[CanaryState, ...]:
    """What all canaries say, in order of their recipients; a damaged canary or a wrong proof proves nothing.

    Raises:
        StorageError.
    """
    stored = [info.key for info in repository.backend.list(layout.CANARIES)]
    logs: dict[str, list[str]] = {}
    for key in stored:
        if not key.endswith(layout.canary_proof("")):
            logs.setdefault(key.rpartition("/")[0], []).append(key)
    proofs = set(stored)
    states = [_state(repository, log, proofs) for log in logs.values()]
    return tuple(sorted((one for one in states if one is not None), key=lambda one: one.recipient))


def problems(repository: Repository) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) of each canary, and each answer, that is not as it was signed."""
    for info in repository.backend.list(layout.CANARIES):
        key = info.key.removesuffix(layout.canary_proof(""))
        try:
            value, offset = repository.read(key, Canary)
            sealed = b"".join(repository.backend.get(key, offset=offset, length=CANARY_LIMIT_BYTES))
        except (errors.IntegrityError, errors.KeyProblem, errors.ObjectMissing) as exc:
            yield info.key, exc.message
            continue
        if info.key != key and not _is_proof(repository, key, value):
            yield info.key, "it is not the answer that was signed for"
        elif info.key == key and (len(sealed), hashlib.sha256(sealed).hexdigest()) != (value.payload.bytes, value.payload.sha256):
            yield key, "its bytes are not those that were signed for"


def outlived(repository: Repository, before: datetime) -> Iterator[str]:
    """Keys of canaries made before that moment, with their answers, that prove nothing any more: all but the newest of each
    recipient and the newest that was opened."""
    stored = {info.key for info in repository.backend.list(layout.CANARIES)}
    logs: dict[str, list[str]] = {}
    for key in sorted(stored):
        if not key.endswith(layout.canary_proof("")):
            logs.setdefault(key.rpartition("/")[0], []).append(key)
    for log in logs.values():
        opened = [key for key in log if layout.canary_proof(key) in stored]
        for key in log[:-1]:
            value = _read(repository, key)
            if key not in opened[-1:] and value is not None and value.head.created_at < before:
                yield from (one for one in (layout.canary_proof(key), key) if one in stored)


def _state(repository: Repository, log: Sequence[str], stored: set[str]) -> CanaryState | None:
    first, newest = _read(repository, log[0]), _read(repository, log[-1])
    ends = [one for one in (first, newest) if one is not None]
    if not ends:
        return None
    proven_at = None
    for key in reversed(log):
        if layout.canary_proof(key) in stored and (proven := _read(repository, key)) and _is_proof(repository, key, proven):
            proven_at = proven.head.created_at
            break
    return CanaryState(ends[-1].recipient, ends[0].head.created_at, ends[-1].head.created_at, proven_at)


def _read(repository: Repository, key: str) -> Canary | None:
    try:
        return repository.read(key, Canary)[0]
    except (errors.IntegrityError, errors.KeyProblem, errors.ObjectMissing):
        return None  # `check` reports it


def _is_proof(repository: Repository, key: str, value: Canary) -> bool:
    name = layout.canary_proof(key)
    try:
        found = codec.decode(CanaryProof, canonical.loads(repository.backend.read(name), what=name), what=name)
    except (errors.IntegrityError, errors.ObjectMissing):
        return False
    return hmac.compare_digest(_hash(found.answer), value.answer_sha256)


def _log(repository: Repository, recipient: str) -> list[str]:
    """Keys of a recipient's canaries, oldest first."""
    found = (info.key for info in repository.backend.list(layout.canaries(keys.id_of(recipient))))
    return [key for key in found if not key.endswith(layout.canary_proof(""))]


def _hash(answer: str) -> str:
    return hashlib.sha256(answer.encode()).hexdigest()
