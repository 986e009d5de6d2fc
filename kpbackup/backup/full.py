"""A full backup: one consistent point, every object, all rows, one manifest.

Order (docs/format.md, 'Ordering'): data key, data objects, inventory, manifest, read back. A crash anywhere leaves
data without a manifest, which does not exist for anybody; the next prune removes it after the grace period.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from kpbackup import errors
from kpbackup.backup import source as sources
from kpbackup.backup import writing
from kpbackup.model import canonical, codec, manifest
from kpbackup.model.catalog import Catalog, History
from kpbackup.model.coordinates import Coordinates, after_takeovers
from kpbackup.model.inventory import Bound, ChunkBounds, ChunkRecord, Inventory, Table
from kpbackup.model.selection import Selection
from kpbackup.mysql import (
    changed,
    coordinates,
    cutting,
    definitions,
    follow,
    json_types,
    privileges,
    rows,
    schema,
    scripts,
    selecting,
    server,
    snapshot,
)
from kpbackup.mysql import facts as server_facts
from kpbackup.pipeline import encrypt, pace, pool
from kpbackup.pipeline.process import WorkerProcess
from kpbackup.plan import chain
from kpbackup.repository import catalog as catalogs
from kpbackup.repository import keys, layout, lease, objects
from kpbackup.repository.binding import Repository

DUMP_WORKER = "kpbackup.backup.dump_worker"
FENCE_TRIES = 5  # a set's number is taken at most by one other writer at a time; more means something else is wrong


@dataclass(frozen=True)
class FullRequest:
    """What to back up and how: plain values, no settings object. `progress(done_rows, total_rows)` is called from threads.

    `selection`: what of those databases. `chunk`: how much a chunk of a large table holds. `unless_since`: do nothing when
    another process made a set on this timeline after that moment.
    """

    endpoint: server.Endpoint
    recipients: Sequence[encrypt.AnyRecipient]
    holder: str
    databases: tuple[str, ...] = ()
    selection: Selection = Selection()
    workers: int = 4
    level: int = 1
    max_wait_s: float = 60.0
    bytes_per_second: int | None = None
    chunk: cutting.Size = cutting.Size()
    check: Callable[[], None] = lambda: None
    progress: Callable[[int, int], None] | None = None
    unless_since: datetime | None = None


@dataclass(frozen=True)
class _Point:
    """The consistent point: where, when by the source's clock, how."""

    coordinates: Coordinates
    clock: datetime
    snapshot: manifest.Snapshot
    file: manifest.FileIdentity
    warnings: tuple[str, ...]


def run_full(repository: Repository, request: FullRequest) -> manifest.BackupSet:
    """Takes a full backup and returns its manifest after reading it back from the store.

    Raises:
        LeaseHeld, ServerUnreachable, PrivilegeMissing, ServerUnfit, SnapshotError, StorageError, IntegrityError.
    """
    with lease.acquire(repository, "full", holder=request.holder) as held, server.connect(request.endpoint) as connection:
        facts = server_facts.read_facts(connection)
        rights = privileges.read_privileges(connection)
        sources.require(facts, rights, databases=request.databases)
        catalog = catalogs.read_catalog(repository)
        _refuse_mixture(repository, catalog, request)
        _leave_to_others(catalog, request)
        timeline, takeovers = _timeline(repository, catalog, connection, facts)
        return _Full(repository, request, held, connection, facts, rights, timeline, takeovers).run()


def _refuse_mixture(repository: Repository, catalog: Catalog, request: FullRequest) -> None:
    """A repository is of everything or of a part: what its windows, schedules and retention promise must hold for every set."""
    is_partial = not request.selection.is_everything
    for one in (one for history in catalog.histories for one in history.sets):
        if one.is_partial != is_partial:
            held, wanted = ("a part of the source", "everything") if one.is_partial else ("everything", "a part of the source")
            raise errors.RepositoryError(
                f"cannot back up {wanted} into {repository.backend.name}: its set {one.name} holds {held}",
                hint="give this backup a repository of its own (another prefix), or leave only and exclude as they were",
            )


def _leave_to_others(catalog: Catalog, request: FullRequest) -> None:
    """Raises LeaseHeld when the set that was asked for is there: who waits for a lease may find the work done."""
    since, history = request.unless_since, catalog.current
    made = [one for one in history.sets if since is not None and one.head.created_at > since] if history else []
    if made:
        raise errors.LeaseHeld(f"another process made set {made[-1].name} meanwhile", hint="nothing is missing")


def _timeline(
    repository: Repository, catalog: Catalog, connection: server.Connection, facts: server_facts.ServerFacts
) -> tuple[manifest.Timeline, int]:
    """The newest timeline while the source is still on it, else a new one; and how many servers took over on it before."""
    history = catalog.current
    if catalog.repository.flavour != facts.flavour:
        raise errors.RepositoryError(
            f"{repository.backend.name} holds backups of a {catalog.repository.flavour} source, this is {facts.flavour}",
            hint="one repository has one source: use another prefix for this one",
        )
    now = datetime.now(UTC)
    if history is None:
        return _start(repository, facts, _free_number(catalog), "first", None, None, now), 0
    head = sources.archive_head(history, first_link=chain.first_link(repository.id, history.id))
    if head is None:
        return history.timeline, 0
    verdict = sources.judge(connection.endpoint, sources.look(connection, facts), history, head)
    if not verdict.reason:
        return history.timeline, verdict.number
    return _start(repository, facts, _free_number(catalog), verdict.reason, history, head.at, now), 0


def _free_number(catalog: Catalog) -> int:
    """The number after the newest good timeline, past those that somebody took without a signature we trust."""
    taken = {int(one.key.split("/")[1]) for one in catalog.damaged if one.key == layout.timeline(one.key.split("/")[1])}
    number = int(catalog.current.id) + 1 if catalog.current else 1
    while number in taken:
        number += 1
    return number


def _start(
    repository: Repository,
    facts: server_facts.ServerFacts,
    number: int,
    reason: str,
    parent: History | None,
    fork: Coordinates | None,
    now: datetime,
) -> manifest.Timeline:
    try:
        return sources.start_timeline(repository, facts, number=number, reason=reason, parent=parent, fork=fork, now=now)
    except errors.ObjectExists as exc:
        raise errors.LeaseHeld(
            f"another process started timeline {number} of {repository.backend.name} just now",
            hint="run the backup again: it will join that timeline",
        ) from exc


class _Full:
    """One attempt, from the open source session to the committed manifest."""

    def __init__(
        self,
        repository: Repository,
        request: FullRequest,
        held: lease.Lease,
        connection: server.Connection,
        facts: server_facts.ServerFacts,
        rights: privileges.Privileges,
        timeline: manifest.Timeline,
        takeovers: int,
    ) -> None:
        self.repository, self.request, self.held = repository, request, held
        self.connection, self.facts, self.rights, self.timeline = connection, facts, rights, timeline
        self.takeovers = takeovers  # on the timeline, before this source
        self.started_at = datetime.now(UTC)
        sealing = keys.new_data_key(repository, request.recipients)
        self.attempt = writing.new_attempt(repository, timeline.head.timeline, sealing, self.started_at)
        self.stored: dict[int, manifest.StoredObject] = {}
        self.chunks: dict[int, list[ChunkRecord]] = {}
        self.unkept: Counter[tuple[str, str, str]] = Counter()  # typed JSON values by schema, table and column
        self.numbers = itertools.count()  # of data objects
        self.counting, self.done_rows = threading.Lock(), 0

    def run(self) -> manifest.BackupSet:
        try:
            with (
                pace.shared() as line,
                pool.WorkerPool(DUMP_WORKER, self._start_message(line), workers=self.request.workers) as workers,
            ):
                start = coordinates.read_coordinates(self.connection, self.facts)
                inventory = self._read_definitions()
                point = self._dump(workers, inventory)
            after = self._read_definitions()  # the one to keep: its AUTO_INCREMENT values are not behind the rows
            end = coordinates.read_coordinates(self.connection, self.facts)
        except errors.DatabaseError as exc:
            raise changed.explained(exc) from exc
        finally:
            self.connection.close()
        return self._commit(self._unchanged(inventory, after, start=start, point=point.coordinates, end=end), point)

    def _unchanged(
        self, before: Inventory, after: Inventory, *, start: Coordinates, point: Coordinates, end: Coordinates
    ) -> Inventory:
        """What the set holds. Raises SnapshotError when the rows may be of other tables than the definitions."""
        watch = changed.Watch(self.request.databases, changed.names_in(before))
        changed.watch_between(self.request.endpoint, watch, flavour=self.facts.flavour, start=start, point=point, until=end)
        changed.refuse(watch.changes)
        kept = watch.settled(after)
        changed.refuse(definitions.compare(before, kept, values=False))
        return kept

    def _read_definitions(self) -> Inventory:
        selection = self.request.selection
        found = schema.read_inventory(self.connection, self.facts, databases=self.request.databases, selection=selection)
        if selection.is_everything:
            return found
        selected = selecting.select(found, selection)
        warnings = (*found.warnings, *selected.notes)
        return replace(selected.inventory, accounts=found.accounts, selection=selection, warnings=warnings)

    def _start_message(self, line: str) -> dict[str, Any]:
        message = {
            "endpoint": codec.encode(self.request.endpoint),
            "recipients": [self.attempt.sealing.recipient],
            "level": self.request.level,
        }
        limit = self.request.bytes_per_second
        return {**message, "pace": {"path": line, "bytes_per_second": limit}} if limit else message

    def _dump(self, workers: pool.WorkerPool, inventory: Inventory) -> _Point:
        """All rows. Non-transactional tables are copied while the point is still held, the others after it."""
        with_rows = [table for table in inventory.tables if table.holds_rows]
        plan = {table: cutting.planned(self.connection, table, self.request.chunk) for table in with_rows}
        total = sum(table.estimated_rows for table in inventory.tables)
        under_lock = self._tasks({table: found for table, found in plan.items() if not table.transactional}, total_rows=total)
        free = self._tasks({table: found for table, found in plan.items() if table.transactional}, total_rows=total)
        with snapshot.hold_consistent_point(
            self.connection, self.facts, self.rights, inventory.tables, max_wait_s=self.request.max_wait_s
        ) as point:
            point.settle(lambda: workers.ask_all({"snapshot": True}))
            workers.run(under_lock, check=self._check)
            released = point.release()
        file = self._file_identity(released.coordinates.file)
        workers.run(free, check=self._check)
        how = manifest.Snapshot(rung=point.rung, locked_ms=round(released.locked_s * 1000))
        return _Point(released.coordinates, released.clock, how, file, released.warnings)

    def _file_identity(self, file: str) -> manifest.FileIdentity:
        """Reads the binlog in place of the coordinator, so that never more than one connection comes on top of the workers'."""
        self.connection.close()
        identity = follow.file_identity(self.request.endpoint, flavour=self.facts.flavour, file=file)
        self.connection = server.connect(self.request.endpoint)
        return identity

    def _check(self) -> None:
        """Raises when the lease is lost or the caller wants to end; workers may be waiting, so they cannot notice."""
        self.held.check()
        self.request.check()

    def _tasks(self, plan: dict[Table, list[ChunkBounds] | None], *, total_rows: int) -> list[pool.Task]:
        """One task an object; their numbers keep neighbours in different tables (the load goes by them), but the largest
        come first, so that the small ones fill the time in which the last large ones end. Tables that are cut by a walk
        begin it now; their objects follow."""
        pairs = [(table, bounds) for table, found in plan.items() for bounds in found or ()]
        pieces = Counter(table for table, _ in pairs)
        groups = [(next(self.numbers), group) for group in rows.group_jobs(pairs)]
        groups.sort(key=lambda entry: -sum(table.estimated_bytes // pieces[table] for table, _ in entry[1]))
        walks = [
            partial(self._cut, table=table, lower=None, nth=0, total_rows=total_rows)
            for table, found in plan.items() if found is None
        ]
        return [*walks, *(partial(self._dump_object, number=n, group=group, total_rows=total_rows) for n, group in groups)]

    def _cut(self, worker: WorkerProcess, *, table: Table, lower: Bound | None, nth: int, total_rows: int) -> Sequence[pool.Task]:
        """One step of a walk: the chunk from `lower` to where the worker says it ends, and the next step, are further tasks."""
        wanted = {"table": codec.encode(table), "lower": lower, "rows": cutting.rows_wanted(table, nth, self.request.chunk)}
        worker.send({"cut": wanted})
        answer = worker.receive()
        assert isinstance(answer, dict)
        upper = tuple(answer["cut"]) if answer["cut"] is not None else None
        chunk = [(table, ChunkBounds(lower, upper))]
        following: list[pool.Task] = [partial(self._dump_object, number=next(self.numbers), group=chunk, total_rows=total_rows)]
        if upper is not None:
            following.append(partial(self._cut, table=table, lower=upper, nth=nth + 1, total_rows=total_rows))
        return following

    def _dump_object(
        self, worker: WorkerProcess, *, number: int, group: Sequence[tuple[Table, ChunkBounds]], total_rows: int
    ) -> Sequence[pool.Task]:
        """One object: the worker reads and seals the group's chunks, this thread stores what comes."""
        self.held.check()
        worker.send({"dump": [{"table": codec.encode(table), "bounds": codec.encode(bounds)} for table, bounds in group]})
        key = layout.data_object(self.attempt.prefix, number)
        summary: dict[str, Any] = {}
        self.stored[number] = self.attempt.store(key, _sealed_bytes(worker, summary))
        records = [
            codec.decode(ChunkRecord, {**chunk, "object_key": key}, what="dump worker's summary") for chunk in summary["chunks"]
        ]
        self.chunks[number] = records
        for one in summary["chunks"]:
            self.unkept.update({(one["schema"], one["table"], column): count for column, count in one["unkept"].items()})
        if self.request.progress:
            with self.counting:
                self.done_rows += sum(record.rows for record in records)
                done = self.done_rows
            self.request.progress(done, max(total_rows, done))
        return ()

    def _commit(self, inventory: Inventory, point: _Point) -> manifest.BackupSet:
        chunks = tuple(record for number in sorted(self.chunks) for record in self.chunks[number])
        warnings = (*inventory.warnings, *point.warnings, *json_types.warnings(self.unkept))
        complete = replace(inventory, chunks=chunks, warnings=warnings)
        definitions = tuple(
            self.attempt.seal(name, (text.encode("utf-8", "surrogateescape"),))
            for name, text in scripts.definitions_text(complete).items()
        )
        sealed_inventory = self.attempt.seal("inventory", (canonical.dumps(codec.encode(complete)),))
        self.held.check()
        for _ in range(FENCE_TRIES):
            backup_set = self._manifest(complete, point, definitions, sealed_inventory)
            try:
                self.repository.create(backup_set)
            except errors.ObjectExists:
                continue
            return objects.read(
                self.repository.backend,
                backup_set.head.key,
                manifest.BackupSet,
                public_keys=self.repository.public_keys,
                repository=self.repository.id,
            )[0]
        raise errors.LeaseHeld(
            f"other writers keep taking the next set number of {self.repository.backend.name}",
            hint="see which processes write to this repository; nothing was committed",
        )

    def _manifest(
        self,
        inventory: Inventory,
        point: _Point,
        definitions: tuple[manifest.StoredObject, ...],
        sealed_inventory: manifest.StoredObject,
    ) -> manifest.BackupSet:
        history = catalogs.read_history(self.repository, self.timeline.head.timeline)
        seq, key = catalogs.next_place(history, "sets")
        created_at = max(datetime.now(UTC), history.newest.get("sets", (0, self.started_at))[1])
        data = tuple(self.stored[number] for number in sorted(self.stored))
        totals = manifest.Totals(
            databases=len(inventory.databases),
            tables=len(inventory.tables),
            rows=sum(c.rows for c in inventory.chunks),
            row_bytes=sum(c.row_bytes for c in inventory.chunks),
            stored_bytes=sum(o.bytes for o in (*data, *definitions, sealed_inventory)),
        )
        head = self.repository.head("set", key=key, created_at=created_at, timeline=history.id, seq=seq)
        return manifest.BackupSet(
            head=head if inventory.selection.is_everything else replace(head, requires=(manifest.SELECTION,)),
            started_at=self.started_at,
            clock=point.clock,
            coordinates=after_takeovers(point.coordinates, self.takeovers),
            file=point.file,
            source=manifest.Source(self.facts.flavour, self.facts.version_string, self.facts.server_id, self.facts.server_uuid),
            snapshot=point.snapshot,
            sealing=self.attempt.sealing,
            inventory=sealed_inventory,
            definitions=definitions,
            objects=data,
            totals=totals,
            warnings=len(inventory.warnings),
        )


def _sealed_bytes(worker: WorkerProcess, summary: dict[str, Any]) -> Iterator[bytes]:
    """What the worker seals for one object; its summary is filled in when the object is complete."""
    while True:
        message = worker.receive()
        if isinstance(message, bytes):
            yield message
        elif "done" in message:
            summary.update(message["done"])
            return
        else:
            raise errors.InternalError(f"unexpected message from a dump worker: {sorted(message)}")
