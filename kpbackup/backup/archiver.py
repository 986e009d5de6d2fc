"""The archiver: the source's binlog from where the archive ends to now, as sealed, signed, linked segments.

The resume position comes from the bucket alone, so any process may go on after a crash of another. What is spooled
on local disk is sealed already and is lost without harm: the next pass fetches it from the source again.
The number of a segment is its fence: two archivers at once lose work, never order.
A pass has one connection to the source at a time: what is asked of it is asked one after the other.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO

from kpbackup import errors
from kpbackup.backup import source as sources
from kpbackup.backup import writing
from kpbackup.model import manifest
from kpbackup.model.catalog import History
from kpbackup.model.coordinates import Coordinates
from kpbackup.mysql import binlog_file, coordinates, follow, privileges, segmenter, server
from kpbackup.mysql import facts as server_facts
from kpbackup.pipeline import compress, encrypt, stream
from kpbackup.plan import chain
from kpbackup.repository import catalog as catalogs
from kpbackup.repository import keys, layout, lease
from kpbackup.repository.binding import Repository

SPOOL_MEMORY_BYTES = 4 << 20  # smaller sealed segments never touch the disk
INLINE_BYTES = 64 << 20  # larger payloads become a data object of their own: a single put must stay small
PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class ArchiveRequest:
    """One pass. `segment_bytes` is how much raw binlog a segment holds before it ends at the next boundary."""

    endpoint: server.Endpoint
    recipients: Sequence[encrypt.AnyRecipient]
    holder: str
    segment_bytes: int = 64 << 20


@dataclass(frozen=True)
class ArchiveResult:
    """What a pass stored: the segments, or none and one observation. `observed` moves the recovery point."""

    segments: tuple[manifest.BinlogSegment, ...]
    observed: manifest.Observation


class _Spool:
    """A segment on its way: plaintext is written in, sealed bytes lie in a temporary file."""

    def __init__(self, recipient: encrypt.Recipient) -> None:
        self.file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=SPOOL_MEMORY_BYTES)  # noqa: SIM115 - closed by _Pass
        self.size_bytes = 0
        self._compressor = compress.Compressor()
        self._encryptor = encrypt.Encryptor((recipient,))

    def write(self, data: bytes) -> None:
        self._put(self._encryptor.encrypt(self._compressor.compress(data)))

    def finish(self) -> None:
        self._put(self._encryptor.encrypt(self._compressor.flush()) + self._encryptor.flush())

    def pieces(self) -> Iterator[bytes]:
        self.file.seek(0)
        while piece := self.file.read(PIECE_BYTES):
            yield piece

    def _put(self, data: bytes) -> None:
        self.size_bytes += len(data)
        try:
            self.file.write(data)
        except OSError as exc:
            raise errors.LocalIOError(
                f"cannot spool a binlog segment in {tempfile.gettempdir()}: {exc.strerror}",
                hint="free space there, or set TMPDIR; nothing archived so far is lost",
            ) from exc


def run_incremental(repository: Repository, request: ArchiveRequest) -> ArchiveResult:
    """Archives everything up to now and returns what was stored, each manifest read back.

    Raises:
        ChainBroken: no full backup yet, or the archive cannot go on (purged, reset, forked).
        LeaseHeld, ServerUnreachable, PrivilegeMissing, ServerUnfit, StorageError, IntegrityError, LocalIOError.
    """
    with lease.acquire(repository, "archive", holder=request.holder) as held:
        with server.connect(request.endpoint) as connection:
            facts = server_facts.read_facts(connection)
            sources.require(facts, privileges.read_privileges(connection))
            history = _current(repository)
            head = sources.archive_head(history, first_link=chain.first_link(repository.id, history.id))
            if head is None:
                raise _no_full(repository)
            clock = server_facts.clock(connection)  # before the position: docs/format.md, 'Observation'
            observed = manifest.Observation(clock, coordinates.read_coordinates(connection, facts))
            binlogs = coordinates.list_binlogs(connection)
        reason = sources.broken(request.endpoint, facts, history, head, binlogs=binlogs)
        if reason:
            raise sources.chain_broken(reason, history, head, request.endpoint.name)
        return _Pass(repository, request, held, facts, history, head, observed, binlogs).run()


def _current(repository: Repository) -> History:
    history = catalogs.read_catalog(repository).current
    if history is None:
        raise _no_full(repository)
    return history


def _no_full(repository: Repository) -> errors.ChainBroken:
    return errors.ChainBroken(
        f"there is no full backup in {repository.backend.name} to continue from", hint="run `kpbackup backup full` first"
    )


class _Pass:
    """One pass from the archive's head to the observed position."""

    def __init__(
        self,
        repository: Repository,
        request: ArchiveRequest,
        held: lease.Lease,
        facts: server_facts.ServerFacts,
        history: History,
        head: sources.ArchiveHead,
        observed: manifest.Observation,
        binlogs: list[tuple[str, int]],
    ) -> None:
        self.repository, self.request, self.held, self.facts = repository, request, held, facts
        self.timeline, self.head, self.observed = history.timeline, head, observed
        self.binlogs = binlogs
        self.link, self.seq = head.link, head.seq
        newest = history.newest.get("segments")
        self.month_of = newest[1] if newest else history.timeline.head.created_at
        self.stored: list[manifest.BinlogSegment] = []

    def run(self) -> ArchiveResult:
        if self._at_end(self.head.at):
            self._observe()
            return ArchiveResult((), self.observed)
        sealing = keys.new_data_key(self.repository, self.request.recipients)
        recipient = encrypt.Recipient.parse(sealing.recipient)
        with contextlib.ExitStack() as files:
            waiting: tuple[segmenter.SegmentFacts, _Spool] | None = None
            for piece, spool in self._pieces(recipient, files):
                if waiting is not None:
                    self._store(*waiting, sealing, None)
                waiting = (piece, spool)
            if waiting is not None:  # the last one carries the observation: one object fewer
                self._store(*waiting, sealing, self.observed if self._at_end(waiting[0].end) else None)
        if not self.stored:
            self._observe()
        elif not self._at_end(self.stored[-1].end):
            raise errors.ChainBroken(
                f"the source's binlog ended at {self.stored[-1].end}, before its own position {self.observed.position}",
                hint="what was archived is kept; run `kpbackup backup incremental` again",
            )
        return ArchiveResult(tuple(self.stored), self.observed)

    def _at_end(self, at: Coordinates) -> bool:
        position = self.observed.position
        return (at.file, at.position) == (position.file, position.position)

    def _pieces(
        self, recipient: encrypt.Recipient, files: contextlib.ExitStack
    ) -> Iterator[tuple[segmenter.SegmentFacts, _Spool]]:
        start, file_head = self._start()
        opened: list[_Spool] = []

        def open_sink(file: str, position: int) -> _Spool:
            opened.append(_Spool(recipient))
            files.callback(opened[-1].file.close)
            return opened[-1]

        events = follow.follow(self.request.endpoint, flavour=self.facts.flavour, start=start, until=self.observed.position)
        found = segmenter.segments(
            events,
            flavour=self.facts.flavour,
            start=start,
            head=file_head,
            max_bytes=self.request.segment_bytes,
            open_sink=open_sink,
        )
        for piece in found:
            spool = opened.pop(0)
            spool.finish()
            yield piece, spool

    def _start(self) -> tuple[Coordinates, binlog_file.FileHead | None]:
        """Where the stream begins: right after the head, or at the beginning of the file after one that ended."""
        at = self.head.at
        if self.head.ends_file:
            names = [name for name, _ in self.binlogs]
            at = Coordinates(names[names.index(at.file) + 1], 0, at.gtid)
            return at, None
        return at, follow.read_head(self.request.endpoint, flavour=self.facts.flavour, file=at.file)

    def _store(
        self, piece: segmenter.SegmentFacts, spool: _Spool, sealing: manifest.Sealing, observed: manifest.Observation | None
    ) -> None:
        """One segment: payload first when it is large, then the manifest at the next number, read back."""
        self.held.check()
        seq, now = self.seq + 1, max(datetime.now(UTC), self.month_of)
        key = layout.log_entry(self.timeline.head.timeline, "segments", month_of=self.month_of, seq=seq)
        tally = stream.Tally(spool.pieces())
        inline = b"".join(tally) if spool.size_bytes <= INLINE_BYTES else b""
        payload = manifest.Payload(tally.size_bytes, tally.sha256) if inline else self._store_payload(spool, sealing, now)
        link = chain.next_link(self.link, seq=seq, payload_sha256=payload.sha256, start=piece.start, end=piece.end)
        segment = manifest.BinlogSegment(
            head=self.repository.head("segment", key=key, created_at=now, timeline=self.timeline.head.timeline, seq=seq),
            start=piece.start,
            end=piece.end,
            file=piece.identity,
            gtids=piece.gtid_set,
            transactions=piece.transactions,
            first_commit_at=piece.first_commit_at,
            last_commit_at=piece.last_commit_at,
            raw_bytes=piece.raw_bytes,
            prefix_bytes=piece.prefix_bytes,
            ends_file=piece.ends_file,
            link_before=self.link,
            link=link,
            sealing=sealing,
            payload=payload,
            observation=observed,
        )
        try:
            self.repository.create(segment, payload=inline)
        except errors.ObjectExists as exc:
            raise errors.LeaseHeld(
                f"another archiver stored segment {seq} of {self.repository.backend.name} meanwhile",
                hint="nothing is lost; run `kpbackup backup incremental` again",
            ) from exc
        spool.file.close()
        self.link, self.seq, self.month_of = link, seq, now
        self.stored.append(segment)

    def _store_payload(self, spool: _Spool, sealing: manifest.Sealing, now: datetime) -> manifest.Payload:
        attempt = writing.new_attempt(self.repository, self.timeline.head.timeline, sealing, now)
        stored = attempt.store(layout.data_object(attempt.prefix, 0), spool.pieces(), size_hint=spool.size_bytes)
        return manifest.Payload(stored.bytes, stored.sha256, stored.key)

    def _observe(self) -> None:
        """Writes the observation of a pass that stored no segment."""
        self.held.check()
        history = catalogs.read_history(self.repository, self.timeline.head.timeline)
        seq, key = catalogs.next_place(history, "observations")
        now = max(datetime.now(UTC), history.newest.get("observations", (0, self.timeline.head.created_at))[1])
        head = self.repository.head("observation", key=key, created_at=now, timeline=history.id, seq=seq)
        value = manifest.ObservationManifest(head=head, observation=self.observed, head_seq=self.seq, head_link=self.link)
        try:
            self.repository.create(value)
        except errors.ObjectExists as exc:
            raise errors.LeaseHeld(
                f"another archiver observed the source of {self.repository.backend.name} meanwhile",
                hint="nothing is lost; run `kpbackup backup incremental` again",
            ) from exc
