"""The growing end of an archive: segments and observations, each at the next number of its log, each read back.

The number is the fence: when another archiver took it, this one stops with LeaseHeld, and what it holds is fetched again by
the next run. A call that failed in the store may be repeated: it writes the very same manifest, so an answer that was lost
is no second segment.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kpbackup import errors
from kpbackup.backup import writing
from kpbackup.backup.backlog import Sealed, Spool
from kpbackup.backup.source import ArchiveHead
from kpbackup.model import manifest
from kpbackup.model.catalog import History
from kpbackup.pipeline import stream
from kpbackup.plan import chain
from kpbackup.repository import keys, layout
from kpbackup.repository.binding import Repository

INLINE_BYTES = 64 << 20  # larger payloads become a data object of their own: a single put must stay small


@dataclass(frozen=True)
class _Ready:
    """A manifest made for one sealed segment, and the payload that goes into the same object."""

    sealed: Sealed
    segment: manifest.BinlogSegment
    inline: bytes


class SegmentLog:
    """Continues `history` after `head`."""

    def __init__(self, repository: Repository, history: History, head: ArchiveHead) -> None:
        self._repository, self._timeline = repository, history.id
        started_at = history.timeline.head.created_at
        self.end, self.seq, self.link = head.at, head.seq, head.link
        self._month_of = history.newest.get("segments", (0, started_at))[1]
        self._observed, self._observed_at = history.newest.get("observations", (0, started_at))
        self._stored_key = ""  # id of the data key whose key object is known to be stored
        self._ready: _Ready | None = None
        self._waiting: manifest.ObservationManifest | None = None

    def append(self, sealed: Sealed, observation: manifest.Observation | None) -> manifest.BinlogSegment:
        """Stores one segment. After a StorageError, call it again with the same one: its first `observation` stays.

        Raises:
            LeaseHeld: another archiver stored this number.
        """
        if self._ready is None or self._ready.sealed is not sealed:
            self._ready = self._prepare(sealed, observation)
        made, self._waiting = self._ready.segment, None
        self._create(made, f"stored segment {made.head.seq}", payload=self._ready.inline)
        self._ready = None
        self.end, self.seq, self.link, self._month_of = made.end, made.head.seq, made.link, made.head.created_at
        return made

    def observe(self, observation: manifest.Observation) -> manifest.ObservationManifest:
        """Stores an observation by itself. After a StorageError, call it again with the same one.

        Raises:
            LeaseHeld: another archiver stored this number.
        """
        if self._waiting is None or self._waiting.observation != observation:
            self._waiting = self._observation(observation)
        made = self._waiting
        self._create(made, "observed the source")
        self._waiting = None
        self._observed, self._observed_at = made.head.seq, made.head.created_at
        return made

    def _create(self, value: Any, doing: str, *, payload: bytes = b"") -> None:
        try:
            self._repository.create(value, payload=payload)
        except errors.ObjectExists as exc:
            raise errors.LeaseHeld(
                f"another archiver {doing} of {self._repository.backend.name} meanwhile",
                hint="nothing is lost; run `kpbackup backup incremental` again",
            ) from exc

    def _prepare(self, sealed: Sealed, observation: manifest.Observation | None) -> _Ready:
        """The payload first when it is large, then the manifest."""
        facts, spool, seq = sealed.facts, sealed.spool, self.seq + 1
        now = max(datetime.now(UTC), self._month_of)
        self._store_key(spool.key)
        tally = stream.Tally(spool.pieces())
        inline = b"".join(tally) if spool.size_bytes <= INLINE_BYTES else b""
        payload = manifest.Payload(tally.size_bytes, tally.sha256) if inline else self._store_payload(spool, now)
        key = layout.log_entry(self._timeline, "segments", month_of=self._month_of, seq=seq)
        segment = manifest.BinlogSegment(
            head=self._repository.head("segment", key=key, created_at=now, timeline=self._timeline, seq=seq),
            start=facts.start,
            end=facts.end,
            file=facts.identity,
            gtids=facts.gtid_set,
            transactions=facts.transactions,
            first_commit_at=facts.first_commit_at,
            last_commit_at=facts.last_commit_at,
            raw_bytes=facts.raw_bytes,
            prefix_bytes=facts.prefix_bytes,
            ends_file=facts.ends_file,
            link_before=self.link,
            link=chain.next_link(self.link, seq=seq, payload_sha256=payload.sha256, start=facts.start, end=facts.end),
            sealing=spool.key.sealing,
            payload=payload,
            observation=observation,
        )
        return _Ready(sealed, segment, inline)

    def _store_key(self, key: keys.FreshKey) -> None:
        if key.sealing.key_id != self._stored_key:
            keys.store_data_key(self._repository, key)
            self._stored_key = key.sealing.key_id

    def _store_payload(self, spool: Spool, now: datetime) -> manifest.Payload:
        attempt = writing.new_attempt(self._repository, self._timeline, spool.key.sealing, now)
        stored = attempt.store(layout.data_object(attempt.prefix, 0), spool.pieces(), size_hint=spool.size_bytes)
        return manifest.Payload(stored.bytes, stored.sha256, stored.key)

    def _observation(self, observation: manifest.Observation) -> manifest.ObservationManifest:
        seq, now = self._observed + 1, max(datetime.now(UTC), self._observed_at)
        key = layout.log_entry(self._timeline, "observations", month_of=self._observed_at, seq=seq)
        head = self._repository.head("observation", key=key, created_at=now, timeline=self._timeline, seq=seq)
        return manifest.ObservationManifest(head=head, observation=observation, head_seq=self.seq, head_link=self.link)
