"""Archives of any length, quickly: real signed manifests with right links, in a directory, without a server.

The payloads are random bytes, so nothing here can be replayed: these archives are for catalogues, plans, pages and prune.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from kpbackup.model import manifest as m
from kpbackup.model.coordinates import Coordinates
from kpbackup.pipeline import sign
from kpbackup.plan import chain
from kpbackup.repository import binding, layout, objects
from kpbackup.repository.binding import Repository
from kpbackup.storage import open_backend

SERVER = 11
DAY = timedelta(days=1)


@contextmanager
def in_memory(key: sign.SigningKey, created_at: datetime, *, page_rows: int) -> Iterator[Repository]:
    """An empty repository, in memory where there is such a file system: thousands of small objects, each forced to disk, would
    take minutes."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        made = binding.create_repository(
            open_backend((Path(directory) / "r").as_uri()), signing_key=key, source="db", flavour="mariadb", created_at=created_at
        )
        yield replace(made, page_rows=page_rows)


@dataclass
class Growing:
    """A timeline of `repository` (a directory) that grows: a segment every `step` from `start` on, a file every `per_file`."""

    repository: Repository
    start: datetime
    step: timedelta
    per_file: int = 60
    payload_bytes: int = 300
    timeline: str = "0001"
    segments: int = 0
    sets: int = 0
    seed: int = 1
    keep: bool = True
    with_data: bool = False  # sets name a data object that is there
    large_every: int = 0  # each so-and-so-many-th segment has a payload in a data object of its own
    totals: Callable[[int], m.Totals] = lambda seq: m.Totals(1, 1, 1, 1, 1)  # noqa: E731 - of set number so and so
    took: timedelta = timedelta()  # by each set
    made: list[m.BinlogSegment] = field(default_factory=list)
    keys: dict[str, m.Sealing] = field(default_factory=dict)  # all that were used, by their ids

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._directory = Path(self.repository.backend.name.removeprefix("file://"))
        self._signer = self.repository.need_signing_key()
        self._takeovers = 0
        self._file = 1
        self._position = 4_000
        self._gtid = 0
        self._written_by = SERVER  # the last transaction
        self._month_of = self._set_month_of = self.now = self.start
        self._link = chain.first_link(self.repository.id, self.timeline)
        self._write(m.Timeline(
            self.repository.head("timeline", key=layout.timeline(self.timeline), created_at=self.start, timeline=self.timeline),
            "first", "mariadb", "10.11.19", "",
        ))

    def back_up(self) -> m.BackupSet:
        """A set at the end of the archive."""
        self.sets += 1
        key = layout.log_entry(self.timeline, "sets", month_of=self._set_month_of, seq=self.sets)
        self._set_month_of = self.now
        inventory = m.StoredObject("data/x/y", 1, "00" * 32)
        if self.with_data:
            inventory = self._data_object(self._random.randbytes(self.payload_bytes), "inventory")
        made = m.BackupSet(
            self.repository.head("set", key=key, created_at=self.now, timeline=self.timeline, seq=self.sets),
            self.now - self.took, self.now,
            self._here(), self._identity(), m.Source("mariadb", "10.11.19", SERVER), m.Snapshot("backup_stage", 1),
            self._sealing(f"{self.sets:08x}"), inventory, (), (), self.totals(self.sets),
        )
        self._write(made)
        return made

    def grow(self, count: int, *, sets_every: timedelta | None = None) -> None:
        """So many more segments; with `sets_every`, also a set at every such interval."""
        for _ in range(count):
            before = self.now
            self.now += self.step
            self._segment()
            if sets_every is not None and (before - self.start) // sets_every != (self.now - self.start) // sets_every:
                self.back_up()

    def take_over(self) -> None:
        """From here on the archive goes on in the files of another server that holds exactly what is archived."""
        self._takeovers, self._file, self._position = self._takeovers + 1, 7, 4_000

    def observe(self, seq: int) -> None:
        key = layout.log_entry(self.timeline, "observations", month_of=self.start if seq == 1 else self.now, seq=seq)
        head = self.repository.head("observation", key=key, created_at=self.now, timeline=self.timeline, seq=seq)
        self._write(m.ObservationManifest(head, m.Observation(self.now, self._here()), self.segments, self._link))

    # -- inside

    def _here(self) -> Coordinates:
        number = f"{self._takeovers}/" if self._takeovers else ""
        gtid = f"1-{self._written_by}-{self._gtid}" if self._gtid else ""
        return Coordinates(f"{number}binlog.{self._file:06d}", self._position, gtid)

    def _identity(self) -> m.FileIdentity:
        told = b"%d %d" % (self._takeovers, self._file)
        return m.FileIdentity(SERVER + self._takeovers, self.start, hashlib.sha256(told).hexdigest())

    def _sealing(self, of_set: str = "0" * 8) -> m.Sealing:
        """A data key for each set, and one a day for the segments of this timeline."""
        day = (self.now - self.start) // DAY
        sealing = m.Sealing(f"{self.timeline:0>8}{of_set}{day:016x}", f"age1day{day}")
        return self.keys.setdefault(sealing.key_id, sealing)

    def _segment(self) -> None:
        self.segments += 1
        seq, before = self.segments, self._here()
        ends_file = seq % self.per_file == 0
        if self._position == 0:
            before = replace(before, position=0)
        self._gtid += 10
        self._written_by = SERVER + self._takeovers
        self._position += 1_000
        end = self._here()
        sealed = self._random.randbytes(self.payload_bytes)
        is_large = self.large_every and seq % self.large_every == 0
        stored = self._data_object(sealed, f"segment-{seq}") if is_large else None
        payload = m.Payload(len(sealed), hashlib.sha256(sealed).hexdigest(), stored.key if stored else None)
        link = chain.next_link(self._link, seq=seq, payload_sha256=payload.sha256, start=before, end=end)
        key = layout.log_entry(self.timeline, "segments", month_of=self._month_of, seq=seq)
        made = m.BinlogSegment(
            self.repository.head("segment", key=key, created_at=self.now, timeline=self.timeline, seq=seq), before, end,
            self._identity(), end.gtid, 10, self.now - self.step, self.now - timedelta(seconds=1), 1_000, 0, ends_file,
            self._link, link, self._sealing(), payload, m.Observation(self.now, end) if seq % 10 == 0 else None,
        )
        self._write(made, b"" if stored else sealed)
        self._link, self._month_of = link, self.now
        if ends_file:
            self._file, self._position = self._file + 1, 0
        if self.keep:
            self.made.append(made)

    def _data_object(self, data: bytes, name: str) -> m.StoredObject:
        key = layout.named_object(layout.attempt(self.timeline, self.now, f"{self.sets:06x}"), name)
        path = self._directory / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return m.StoredObject(key, len(data), hashlib.sha256(data).hexdigest())

    def _write(self, value: Any, payload: bytes = b"") -> None:
        path = self._directory / value.head.key
        try:
            path.write_bytes(objects.assemble(value, self._signer) + payload)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(objects.assemble(value, self._signer) + payload)


def payload_of(repository: Repository, segment: m.BinlogSegment) -> Iterator[bytes]:
    """The small object's payload, straight from the file."""
    path = Path(repository.backend.name.removeprefix("file://")) / segment.head.key
    data = path.read_bytes()
    yield data[len(data) - segment.payload.bytes :]
