"""A simulated source with its archive: real binlog bytes, real links, no server. For tests of chains, timelines and cuts.

Whatever was done to the source is remembered in `transactions`, the plain truth that plans and cuts are judged by.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from kpbackup.model import manifest as m
from kpbackup.model.catalog import Catalog, Damaged, History
from kpbackup.model.coordinates import Coordinates
from kpbackup.mysql import events
from kpbackup.plan import chain
from kpbackup.recovery.binlog import SegmentReader
from kpbackup.repository import layout

REPOSITORY = "0f6d4c1e-5a43-4f0e-9c7b-2f1d6a8e9b00"
T0 = datetime(2026, 4, 30, 23, 59, 50, tzinfo=UTC)
UUIDS = {11: "11111111-1111-1111-1111-111111111111", 12: "22222222-2222-2222-2222-222222222222"}
SEALING = m.Sealing("0" * 32, "age1x")
EMPTY = m.StoredObject("data/x", 1, "00" * 32)
DOMAIN = 1


@dataclass(frozen=True)
class Txn:
    """One committed transaction. `number` counts those of its source from 1; `stamp` is what its events say."""

    number: int
    file: str
    start: int
    end: int
    gtid: str
    stamp: datetime


@dataclass
class BinlogFile:
    name: str
    identity: m.FileIdentity
    data: bytearray
    closed: str = ""  # '', 'rotate' or 'crash'


@dataclass
class Source:
    """A source, its binlogs, and what was backed up of it on one timeline."""

    flavour: str = "mariadb"
    timeline: str = "0001"
    server_id: int = 11
    now: datetime = T0
    repository: str = REPOSITORY
    first_file: int = 1
    number: int = 0
    before: tuple[int, int] | None = None  # (server id, last number) of what it was restored from
    files: list[BinlogFile] = field(default_factory=list)
    transactions: list[Txn] = field(default_factory=list)
    sets: list[m.BackupSet] = field(default_factory=list)
    segments: list[m.BinlogSegment] = field(default_factory=list)
    observed: list[m.Observation] = field(default_factory=list)
    observation: m.ObservationManifest | None = None
    plain: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.started = self.now
        self._open_file()

    # -- the source

    def wait(self, seconds: float = 0.0) -> None:
        self.now += timedelta(seconds=seconds, microseconds=1)

    def commit(self, size: int = 10, *, stamp: datetime | None = None) -> Txn:
        """`stamp` is a time set by the session, which need not be the clock's."""
        self.wait()
        self.number += 1
        file = self.files[-1]
        stamp = stamp or self.now
        stamp = stamp if self.flavour == "mysql" else stamp.replace(microsecond=0)
        start = len(file.data)
        file.data += self._gtid_event(stamp) + self._event(events.XID, b"\0" * 8 + b"x" * size, stamp)
        done = Txn(self.number, file.name, start, len(file.data), self.gtid(self.number), stamp)
        self.transactions.append(done)
        return done

    def flush(self) -> None:
        """The next file, announced."""
        self.wait()
        self.files[-1].data += self._event(events.ROTATE, (4).to_bytes(8, "little") + b"binlog.next", self.now)
        self.files[-1].closed = "rotate"
        self._open_file()

    def crash(self) -> None:
        """The next file, not announced."""
        self.wait()
        self.files[-1].closed = "crash"
        self._open_file()

    def gtid(self, number: int) -> str:
        return f"{DOMAIN}-{self.server_id}-{number}" if self.flavour == "mariadb" else f"{UUIDS[self.server_id]}:{number}"

    def state(self, number: int) -> str:
        """Executed set or position after this transaction."""
        inherited = self.before[1] if self.before else 0
        if self.flavour == "mariadb":
            if number > inherited:
                return self.gtid(number)
            return f"{DOMAIN}-{self.before[0]}-{inherited}" if self.before and inherited else ""
        parts = [_interval(UUIDS[self.before[0]], 1, inherited)] if self.before else []
        return ",".join(part for part in (*parts, _interval(UUIDS[self.server_id], inherited + 1, number)) if part)

    @property
    def here(self) -> Coordinates:
        return Coordinates(self.files[-1].name, len(self.files[-1].data), self.state(self.number))

    def place(self, file: str, position: int) -> tuple[int, int]:
        """Sorts places in this source's binlogs."""
        return [one.name for one in self.files].index(file), position

    # -- what is backed up

    def back_up(self) -> m.BackupSet:
        self.wait()
        seq = len(self.sets) + 1
        previous = self.sets[-1].head.created_at if self.sets else self.started
        made = m.BackupSet(
            self._head("set", "sets", seq, previous), self.now, self.now, self.here, self.files[-1].identity,
            m.Source(self.flavour, "10.11.19", self.server_id), m.Snapshot("backup_stage", 1), SEALING, EMPTY, (), (),
            m.Totals(1, 1, 1, 1, 1),
        )
        self.sets.append(made)
        return made

    def archive(self, *, most: int = 2, only: int | None = None) -> None:
        """One pass; a segment ends after `most` transactions. With `only`, it is killed after so many segments."""
        self.wait()
        seen = m.Observation(self.now, self.here)
        spans = list(self._spans(most))
        for count, (file, start, end, ends_file) in enumerate(spans, 1):
            if only is not None and count > only:
                return
            self._store(file, start, end, ends_file=ends_file, seen=seen if count == len(spans) else None)
        self.observed.append(seen)
        if not spans:
            seq = self.observation.head.seq + 1 if self.observation else 1
            previous = self.observation.head.created_at if self.observation else self.started
            self.observation = m.ObservationManifest(
                self._head("observation", "observations", seq, previous), seen, len(self.segments), self._link()
            )

    def history(self) -> History:
        heads = {"sets": [one.head for one in self.sets], "segments": [one.head for one in self.segments]}
        return History(
            self.manifest(), tuple(self.sets), tuple(self.segments), self.observation, None, (), (),
            {log: (len(found), found[-1].created_at) for log, found in heads.items() if found},
        )

    def manifest(self) -> m.Timeline:
        head = dataclasses.replace(self._head("timeline", "sets", 0, self.started), key=layout.timeline(self.timeline))
        return m.Timeline(head, "first", self.flavour, "10.11.19", "")

    def manifests(self) -> list[tuple[Any, bytes]]:
        """Everything of this timeline as it is stored: (manifest, payload), in the order it was made."""
        logs: list[Any] = [*self.sets, *self.segments, *([self.observation] if self.observation else [])]
        found = sorted(logs, key=lambda one: one.head.created_at)
        return [(self.manifest(), b""), *((one, self.plain.get(one.head.key, b"")) for one in found)]

    def restored(self, number: int, *, wait: float = 1.0) -> Source:
        """Another server that goes on after transaction `number`: the next timeline."""
        return Source(
            self.flavour, f"{int(self.timeline) + 1:04d}", self.server_id + 1, self.now + timedelta(seconds=wait),
            repository=self.repository, number=number, before=(self.server_id, number),
        )

    # -- inside

    def _open_file(self) -> None:
        name = f"binlog.{self.first_file + len(self.files):06d}"
        created = self.now.replace(microsecond=0)
        kind = b"10.11.19-MariaDB-log" if self.flavour == "mariadb" else b"9.7.4"
        body = struct.pack("<H50sIB", 4, kind, int(created.timestamp()), 19) + bytes(30) + b"\x01"
        description = self._event(events.FORMAT_DESCRIPTION, body, created)
        identity = m.FileIdentity(self.server_id, created, hashlib.sha256(name.encode() + description).hexdigest())
        self.files.append(BinlogFile(name, identity, bytearray(events.MAGIC + description)))

    def _event(self, kind: int, body: bytes, stamp: datetime) -> bytes:
        return events.seal_event(events.HEADER.pack(int(stamp.timestamp()), kind, self.server_id, 0, 0, 0) + body)

    def _gtid_event(self, stamp: datetime) -> bytes:
        if self.flavour == "mariadb":
            return self._event(events.MARIADB_GTID, struct.pack("<QIB", self.number, DOMAIN, 0) + bytes(6), stamp)
        uuid = bytes.fromhex(UUIDS[self.server_id].replace("-", ""))
        commit_us = (stamp - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        body = struct.pack("<B16sqBQQ", 0, uuid, self.number, 2, 0, 0) + commit_us.to_bytes(7, "little")
        return self._event(events.MYSQL_GTID, body, stamp)

    def _spans(self, most: int) -> Iterator[tuple[BinlogFile, int, int, bool]]:
        """(file, start, end, ends file) of what is not archived yet, as the segmenter cuts it."""
        at, skip_file = self._archived()
        for file in self.files[at[0] + skip_file :]:
            start = at[1] if file is self.files[at[0]] and not skip_file else 0
            ends = [t.end for t in self.transactions if t.file == file.name and t.end > start]
            for end in ends[most - 1 :: most]:
                yield file, start, end, False
                start = end
            if start < len(file.data) or file.closed:
                yield file, start, len(file.data), bool(file.closed)

    def _archived(self) -> tuple[tuple[int, int], bool]:
        if self.segments:
            end = self.segments[-1].end
            return self.place(end.file, end.position), self.segments[-1].ends_file
        first = self.sets[0].coordinates
        return self.place(first.file, first.position), False

    def _store(self, file: BinlogFile, start: int, end: int, *, ends_file: bool, seen: m.Observation | None) -> None:
        seq = len(self.segments) + 1
        held = [t for t in self.transactions if t.file == file.name and start <= t.start and t.end <= end]
        before = self.segments[-1].end.gtid if self.segments else self.sets[0].coordinates.gtid
        after = self.state(held[-1].number) if held else before
        first, last = Coordinates(file.name, start, before), Coordinates(file.name, end, after)
        prefix = bytes(file.data[: 4 + int.from_bytes(file.data[13:17], "little")]) if start else b""
        content = prefix + bytes(file.data[start:end])
        payload = m.Payload(len(content), hashlib.sha256(content + self.timeline.encode()).hexdigest())
        link = chain.next_link(self._link(), seq=seq, payload_sha256=payload.sha256, start=first, end=last)
        previous = self.segments[-1].head.created_at if self.segments else self.started
        stored = m.BinlogSegment(
            self._head("segment", "segments", seq, previous), first, last, file.identity, self._gtids(held), len(held),
            min((t.stamp for t in held), default=None), max((t.stamp for t in held), default=None), end - start, len(prefix),
            ends_file, self._link(), link, SEALING, payload, seen,
        )
        self.segments.append(stored)
        self.plain[stored.head.key] = content

    def _gtids(self, held: list[Txn]) -> str:
        if not held:
            return ""
        if self.flavour == "mariadb":
            return held[-1].gtid
        return _interval(UUIDS[self.server_id], held[0].number, held[-1].number)

    def _link(self) -> str:
        return self.segments[-1].link if self.segments else chain.first_link(self.repository, self.timeline)

    def _head(self, kind: str, log: str, seq: int, previous: datetime) -> m.Head:
        key = layout.log_entry(self.timeline, log, month_of=previous, seq=seq)
        return m.Head(kind, self.repository, self.timeline, seq, key, self.now, "kpbackup test")


def _interval(uuid: str, first: int, last: int) -> str:
    if first > last:
        return ""
    return f"{uuid}:{first}" if first == last else f"{uuid}:{first}-{last}"


def catalog(*sources: Source, damaged: tuple[Damaged, ...] = ()) -> Catalog:
    head = m.Head("repository", REPOSITORY, "", 0, layout.BINDING, T0, "kpbackup test")
    binding = m.RepositoryBinding(head, "db:3306", sources[0].flavour)
    return Catalog(binding, tuple(source.history() for source in sources), damaged)


class MemoryReader(SegmentReader):
    """Segments of simulated sources, straight from memory; remembers which were read."""

    def __init__(self, *sources: Source) -> None:
        self._plain = {key: content for source in sources for key, content in source.plain.items()}
        self.read: list[int] = []

    def plaintext(self, segment: m.BinlogSegment) -> Iterator[bytes]:
        self.read.append(segment.head.seq)
        yield self._plain[segment.head.key]
