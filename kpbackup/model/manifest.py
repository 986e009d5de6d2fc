"""The manifests of repository format 1, as values. `docs/format.md` says what each field promises.

Every manifest starts with the same `Head`: what it is, of which repository, timeline and place. The
signature covers all of it, so no manifest can be moved to another key or repository.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NewType

from kpbackup.model import codec
from kpbackup.model.coordinates import Coordinates

FORMAT_VERSION = 1
SELECTION = "selection"  # the set holds a part of the source: its inventory says which
FILES = "files"  # the bundle has files outside the database: data objects that only its manifest names
KNOWN_FEATURES: frozenset[str] = frozenset({SELECTION, FILES})

TimelineId = NewType("TimelineId", str)
ObjectKey = NewType("ObjectKey", str)


@dataclass(frozen=True)
class Head:
    """`seq` is the place in the log named by kind and timeline; `requires` lists features a reader must know."""

    kind: str
    repository: str
    timeline: str
    seq: int
    key: str
    created_at: datetime
    writer: str
    format: int = FORMAT_VERSION
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoredObject:
    """One data object: size and SHA-256 (hex) of the stored bytes."""

    key: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Sealing:
    """The data key something is sealed to: its recipient (`age1...`) and the id its key objects lie under."""

    key_id: str
    recipient: str


@dataclass(frozen=True)
class FileIdentity:
    """What tells a binlog file from another one of the same name: values of its first events."""

    server_id: int
    created_at: datetime
    first_events_sha256: str


@dataclass(frozen=True)
class RepositoryBinding:
    """`kpbackup.json`: one repository, one source."""

    head: Head
    source: str
    flavour: str


@dataclass(frozen=True)
class Timeline:
    """One unforked history of a source. `fork` is where the parent was left, as far as it is archived."""

    head: Head
    reason: str
    flavour: str
    server_version: str
    server_uuid: str
    parent: str | None = None
    fork: Coordinates | None = None


@dataclass(frozen=True)
class Totals:
    databases: int
    tables: int
    rows: int
    row_bytes: int
    stored_bytes: int


@dataclass(frozen=True)
class Source:
    flavour: str
    version: str
    server_id: int
    server_uuid: str = ""


@dataclass(frozen=True)
class Snapshot:
    """How the consistent point was had: the rung of the lock ladder and how long writes were blocked."""

    rung: str
    locked_ms: int


@dataclass(frozen=True)
class BackupSet:
    """A full backup. `clock` is the source's clock at the consistent point, `coordinates` that point."""

    head: Head
    started_at: datetime
    clock: datetime
    coordinates: Coordinates
    file: FileIdentity
    source: Source
    snapshot: Snapshot
    sealing: Sealing
    inventory: StoredObject
    definitions: tuple[StoredObject, ...]
    objects: tuple[StoredObject, ...]
    totals: Totals
    warnings: int = 0

    @property
    def is_partial(self) -> bool:
        """Whether it was made of a part of the source."""
        return SELECTION in self.head.requires

    @property
    def name(self) -> str:
        """`0001-3`: how users and the command line name a set."""
        return set_name(self.head.timeline, self.head.seq)


@dataclass(frozen=True)
class Observation:
    """At `clock` (the source's) everything committed lay before `position`.

    `binlog_state` is MariaDB's then or a moment later: the last GTID of each pair of domain and server. '' where nobody looked.
    """

    clock: datetime
    position: Coordinates
    binlog_state: str = field(default="", metadata=codec.LATER)


@dataclass(frozen=True)
class Payload:
    """Sealed bytes of a segment: after the manifest in the same object (`key` None), or an object of their own."""

    bytes: int
    sha256: str
    key: str | None = None


@dataclass(frozen=True)
class FileSpan:
    """What a stretch holds of one binlog file: file[start:end). `ends_file`: the source writes nothing more to it."""

    file: str
    identity: FileIdentity
    start: int
    end: int
    ends_file: bool


@dataclass(frozen=True)
class BinlogSegment:
    """A stretch of one binlog file, whole transactions only, linked to the segment before it."""

    head: Head
    start: Coordinates
    end: Coordinates
    file: FileIdentity
    gtids: str
    transactions: int
    first_commit_at: datetime | None
    last_commit_at: datetime | None
    raw_bytes: int
    prefix_bytes: int
    ends_file: bool
    link_before: str
    link: str
    sealing: Sealing
    payload: Payload
    observation: Observation | None = None

    # the names that `Stretch` has, so that chains are made of either

    @property
    def first_seq(self) -> int:
        return self.head.seq

    @property
    def last_seq(self) -> int:
        return self.head.seq

    @property
    def spans(self) -> tuple[FileSpan, ...]:
        return (FileSpan(self.start.file, self.file, self.start.position, self.end.position, self.ends_file),)

    @property
    def payload_bytes(self) -> int:
        return self.payload.bytes

    @property
    def created_at(self) -> datetime:
        return self.head.created_at


@dataclass(frozen=True)
class Stretch:
    """Segments that follow one another without a break, summed up.

    `spans` are the files they lie in, in order. `gtids` is what they contain (MariaDB: the last GTID of each domain), `writers`
    the pairs domain-server_id seen at their borders. `observation` is the newest one that lies in them. `created_at` and
    `last_key` are those of the last segment: the next one's key is built from them. `key_ids` are the data keys they are sealed
    to, `data_keys` the data objects of those too large to carry their payload.
    """

    first_seq: int
    last_seq: int
    start: Coordinates
    end: Coordinates
    spans: tuple[FileSpan, ...]
    link_before: str
    link: str
    gtids: str
    writers: tuple[str, ...]
    transactions: int
    raw_bytes: int
    payload_bytes: int
    first_commit_at: datetime | None
    last_commit_at: datetime | None
    observation: Observation | None
    created_at: datetime
    last_key: str
    key_ids: tuple[str, ...]
    data_keys: tuple[str, ...]

    @property
    def ends_file(self) -> bool:
        return self.spans[-1].ends_file


@dataclass(frozen=True)
class Rows:
    """The payload of a page: `count` manifests, each its own line of JSON, in one zstd frame of `bytes` bytes."""

    count: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Page:
    """A page of the catalogue: `rows` are the manifests of 1,024 segments (level 0) or of 1,024 pages of the level below.

    `head.seq` counts the pages of a level from 1.
    """

    head: Head
    level: int
    stretch: Stretch
    rows: Rows


@dataclass(frozen=True)
class Member:
    """A segment's whole sealed payload inside a compacted object. `link` is the segment's."""

    seq: int
    offset: int
    bytes: int
    sha256: str
    link: str


@dataclass(frozen=True)
class Compacted:
    """Sealed payloads of following segments, one after the other in one data object. `head.seq` is the first one's number.

    `level` 1 joins what was stored within an hour, 2 within a day.
    """

    head: Head
    level: int
    object: StoredObject
    members: tuple[Member, ...]


@dataclass(frozen=True)
class ObservationManifest:
    """A pass that found nothing new. `head_link` is the link of segment `head_seq`, the newest one then."""

    head: Head
    observation: Observation
    head_seq: int
    head_link: str


@dataclass(frozen=True)
class Anchor:
    """Segments below `first_seq` are released by retention; `link_before` is the link the first kept one follows."""

    head: Head
    first_seq: int
    link_before: str


@dataclass(frozen=True)
class Tombstone:
    """A set is released: its manifest is deleted now, `keys` after the grace period."""

    head: Head
    set_seq: int
    keys: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Pin:
    """A set is held against retention, or (`pinned` False) no longer; the newest entry for a set decides."""

    head: Head
    set_seq: int
    pinned: bool
    reason: str = ""


@dataclass(frozen=True)
class FileSet:
    """Files of the application outside its database, as they were at `taken_at`: packs, and how much is in them.

    `count` are files and links, `bytes` their content, `warnings` those that moved while they were read, or could not be kept.
    """

    taken_at: datetime
    sealing: Sealing
    objects: tuple[StoredObject, ...]
    count: int
    bytes: int
    warnings: int = 0


@dataclass(frozen=True)
class ApplicationManifest:
    """The application beside the database, as it was at `taken_at`; the sealed bundle follows in the same object.

    `digest` is equal when nothing changed; only a holder of the signing key can tell what it is of.
    """

    head: Head
    taken_at: datetime
    sealing: Sealing
    payload: Payload
    digest: str
    objects: int
    files: FileSet | None = None

    @property
    def name(self) -> str:
        """`7`: how users and the command line name a bundle."""
        return str(self.head.seq)


@dataclass(frozen=True)
class RecoveryRecord:
    """One entry of a recovery's journal: see recovery/run.py for the events and their fields."""

    head: Head
    run: str
    event: str
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What `check` or `copy` (`verb`) did with this store and found in it. `figures` are counts; they name nothing."""

    head: Head
    verb: str
    started_at: datetime
    passed: bool
    figures: dict[str, int]


def set_name(timeline: str, seq: int) -> str:
    return f"{timeline}-{seq}"
