"""Stored segments opened again: the sealed payload fetched, checked against its manifest, unsealed.

Needs the identity. Whoever reads to the end has proven the payload; an altered one raises on the way.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from kpbackup import errors
from kpbackup.model import manifest
from kpbackup.pipeline import encrypt, stream
from kpbackup.repository import keys, payloads
from kpbackup.repository.binding import Repository

_HINT = "run `kpbackup check`; restore to a point before this segment, or from another copy of the repository"


class SegmentReader:
    """Opens segments of one repository; data keys are unwrapped once each."""

    def __init__(self, repository: Repository, identities: Sequence[encrypt.AnyIdentity]) -> None:
        self._repository = repository
        self._identities = identities
        self._own = threading.local()
        self._opened: dict[str, encrypt.Identity] = {}

    def plaintext(self, segment: manifest.BinlogSegment) -> Iterator[bytes]:
        """The segment's readable binlog file, in pieces (`segment.prefix_bytes` of them are not the file's own).

        Raises:
            IntegrityError: the stored bytes are not those the manifest was signed for.
            KeyProblem, ObjectMissing, StorageError.
        """
        sealed = stream.Tally(self._payloads.read(segment))
        plain = 0
        try:
            for piece in stream.unseal(sealed, (self._identity(segment.sealing),)):
                plain += len(piece)
                yield piece
        except errors.ObjectMissing as exc:
            raise errors.ObjectMissing(exc.message, hint=exc.hint or _HINT) from exc
        except (errors.IntegrityError, errors.KeyProblem) as exc:
            if segment.sealing.key_id not in self._opened:
                raise  # the data key's own trouble, told as such
            raise _damaged(segment, exc.message) from exc  # met by age or zstd before the hash is complete
        self.check_payload(segment, sealed)
        if plain != segment.prefix_bytes + segment.raw_bytes:
            raise _damaged(segment, f"it holds {plain} bytes, its manifest says {segment.prefix_bytes + segment.raw_bytes}")

    def check_payload(self, segment: manifest.BinlogSegment, sealed: stream.Tally) -> None:
        """Raises IntegrityError when the sealed bytes that were read are not those the manifest was signed for."""
        if (sealed.size_bytes, sealed.sha256) != (segment.payload.bytes, segment.payload.sha256):
            raise _damaged(segment, "its payload is not the one its manifest was signed for")

    def sealed(self, segment: manifest.BinlogSegment) -> Iterator[bytes]:
        """The stored bytes of the payload, for somebody else to unseal with `identity`: unchecked."""
        return self._payloads.read(segment)

    @property
    def _payloads(self) -> payloads.Payloads:
        if not hasattr(self._own, "payloads"):  # it keeps its place in a compacted object: one for each thread
            self._own.payloads = payloads.Payloads(self._repository)
        found: payloads.Payloads = self._own.payloads
        return found

    def identity(self, segment: manifest.BinlogSegment) -> encrypt.Identity:
        """The data key that opens the segment. Raises KeyProblem, ObjectMissing, IntegrityError, StorageError."""
        return self._identity(segment.sealing)

    def _identity(self, sealing: manifest.Sealing) -> encrypt.Identity:
        if sealing.key_id not in self._opened:
            self._opened[sealing.key_id] = keys.open_data_key(self._repository, sealing, self._identities)
        return self._opened[sealing.key_id]


def _damaged(segment: manifest.BinlogSegment, why: str) -> errors.IntegrityError:
    where = f" (payload {segment.payload.key})" if segment.payload.key else ""
    return errors.IntegrityError(
        f"segment {segment.head.key}{where} is damaged: {why}",
        hint=_HINT,
    )
