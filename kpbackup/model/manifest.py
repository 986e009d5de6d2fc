"""The manifests of repository format 1, as values. `docs/format.md` says what each field promises.

Every manifest starts with the same `Head`: what it is, of which repository, timeline and place. The
signature covers all of it, so no manifest can be moved to another key or repository.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NewType

from kpbackup.model.coordinates import Coordinates

FORMAT_VERSION = 1
KNOWN_FEATURES: frozenset[str] = frozenset()

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
    def name(self) -> str:
        """`0001-3`: how users and the command line name a set."""
        return set_name(self.head.timeline, self.head.seq)


@dataclass(frozen=True)
class Observation:
    """At `clock` (the source's) everything committed lay before `position`."""

    clock: datetime
    position: Coordinates


@dataclass(frozen=True)
class Payload:
    """Sealed bytes of a segment: after the manifest in the same object (`key` None), or an object of their own."""

    bytes: int
    sha256: str
    key: str | None = None


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


def set_name(timeline: str, seq: int) -> str:
    return f"{timeline}-{seq}"
