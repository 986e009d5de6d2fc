"""A backup set into an empty target: definitions, rows, indexes, then every chunk read back and compared.

Resumable: a chunk is marked on the target (scratch schema `kpbackup_restore`) in the transaction of its rows, and what is
marked is not sent again. Tables exist before their rows, indexes that can wait come after them. Triggers, views, routines
and events come last, so that none of them can touch a row. Nothing here trusts the load: only what was read back counts.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from kpbackup import errors
from kpbackup.model import canonical, codec
from kpbackup.model.inventory import ChunkRecord, Inventory, Table
from kpbackup.model.manifest import BackupSet, StoredObject
from kpbackup.mysql import accounts, definitions, load, needs, schema, server, tablespaces
from kpbackup.mysql import facts as server_facts
from kpbackup.mysql.quoting import identifier
from kpbackup.pipeline import encrypt, stream
from kpbackup.pipeline.pool import Task, WorkerPool
from kpbackup.pipeline.process import WorkerProcess
from kpbackup.recovery import creating, load_order, way_out
from kpbackup.repository.binding import Repository

LOAD_WORKER = "kpbackup.recovery.load_worker"
DAMAGED_HINT = "run `kpbackup check`; restore from another set, or from another copy of the repository"


@dataclass(frozen=True)
class LoadRequest:
    """`progress(phase, done_rows, total_rows)` is called from threads; phases are 'load' and 'read back'."""

    endpoint: server.Endpoint
    workers: int = 4
    replace_users: bool = False
    write_binlog: bool = False
    progress: Callable[[str, int, int], None] | None = None


@dataclass(frozen=True)
class LoadResult:
    """`busy_s`: how long the workers were busy loading, building indexes and reading back, summed over all of them."""

    rows: int
    chunks: int
    warnings: tuple[str, ...]
    busy_s: dict[str, float]


def read_inventory(repository: Repository, backup_set: BackupSet, data_key: encrypt.Identity) -> Inventory:
    """The set's sealed inventory.

    Raises:
        IntegrityError: it is not the one the manifest was signed for.
    """
    what = f"inventory of set {backup_set.name}"
    with naming(backup_set.inventory.key):
        data = b"".join(stream.unseal(verified_object(repository, backup_set.inventory), (data_key,)))
    return codec.decode(Inventory, canonical.loads(data, what=what), what=what)


def verified_object(repository: Repository, stored: StoredObject) -> Any:
    """The stored bytes of an object, in pieces; at the end size and hash must be the manifest's."""
    tally = stream.Tally(repository.backend.get(stored.key))
    yield from tally
    if (tally.size_bytes, tally.sha256) != (stored.bytes, stored.sha256):
        raise errors.IntegrityError(
            f"object {stored.key} is not the one its manifest was signed for ({tally.size_bytes} bytes, {stored.bytes} expected)",
            hint=DAMAGED_HINT,
        )


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Errors of sealed bytes that cannot be opened name the object: a flipped byte is met by age or zstd before its hash."""
    try:
        yield
    except errors.ObjectMissing as exc:
        raise errors.ObjectMissing(exc.message, hint=exc.hint or DAMAGED_HINT) from exc
    except (errors.IntegrityError, errors.KeyProblem) as exc:
        if key in exc.message:
            raise
        raise errors.IntegrityError(f"object {key} is damaged: {exc.message}", hint=exc.hint or DAMAGED_HINT) from exc


def load_set(
    repository: Repository, backup_set: BackupSet, inventory: Inventory, data_key: encrypt.Identity, request: LoadRequest, *,
    stored_chunks: Sequence[ChunkRecord] = (), renamed: Mapping[str, str] | None = None,
) -> LoadResult:
    """Loads everything in the inventory and proves it by reading it back.

    `stored_chunks` are all chunks of the set where the inventory holds a selection: objects hold several. `renamed` says which
    databases of the chunks have another name in the rest of the inventory.

    Raises:
        IntegrityError: a stored object is damaged. RestoreMismatch: what was read back differs.
        DatabaseError, PrivilegeMissing, ServerUnreachable, ServerUnfit.
    """
    return _Load(repository, backup_set, inventory, data_key, request, stored_chunks or inventory.chunks, renamed or {}).run()


_Work = Callable[[WorkerProcess], int]


class _Load:
    def __init__(
        self,
        repository: Repository,
        backup_set: BackupSet,
        inventory: Inventory,
        data_key: encrypt.Identity,
        request: LoadRequest,
        stored_chunks: Sequence[ChunkRecord],
        renamed: Mapping[str, str],
    ) -> None:
        self.repository, self.backup_set, self.inventory = repository, backup_set, inventory
        self.stored_chunks, self.renamed = stored_chunks, renamed
        self.sources = {target: source for source, target in renamed.items()}
        self.data_key, self.request = data_key, request
        self.tables = {(table.schema, table.name): table for table in inventory.tables}
        self.lock = threading.Lock()
        self.wanted = {(chunk.object_key, chunk.ordinal) for chunk in inventory.chunks}
        self.chunks: dict[tuple[str, str], list[ChunkRecord]] = {}
        for chunk in inventory.chunks:
            self.chunks.setdefault(self._place(chunk), []).append(chunk)
        self.left = Counter({name: len(own) for name, own in self.chunks.items()})
        self.total = sum(chunk.rows for chunk in inventory.chunks)
        self.done = {"load": 0, "read back": 0}
        self.planned = creating.planned(
            inventory.tables, {name: sum(chunk.rows for chunk in own) for name, own in self.chunks.items()}
        )
        self.deferred = self.planned.deferred
        self.busy_s = {"load": 0.0, "index": 0.0, "read_back": 0.0}
        self.to_index: deque[_Work] = deque()
        self.to_read_back: deque[_Work] = deque()
        self.busy_beside = self.held_back = 0  # works under way that build no index; those that were not begun beside one

    def run(self) -> LoadResult:
        warnings: list[str] = []
        start = {
            "endpoint": codec.encode(self.request.endpoint),
            "identity": self.data_key.reveal(),
            "session": {"write_binlog": self.request.write_binlog},
        }
        useful = max(1, min(self.request.workers, len(self.inventory.chunks)))  # no more can ever be busy at once
        with WorkerPool(LOAD_WORKER, start, workers=useful) as workers:  # they start while definitions are made
            with self._session() as connection:
                warnings += self._create_before_rows(connection)
            workers.run([self._next] * self._work())
        with self._session() as connection:
            # of a text that renaming changed a server's opinion says nothing about the source
            version = "" if self.renamed else self.inventory.settings.get("version", "")
            warnings += creating.create(connection, self.inventory.after_rows, self.sources, source_version=version)
            warnings += self._create_accounts(connection)
            self._compare(connection)
        return LoadResult(self.total, len(self.inventory.chunks), tuple(warnings), self.busy_s)

    def _session(self) -> server.Connection:
        connection = server.connect(self.request.endpoint)
        load.prepare_session(connection, write_binlog=self.request.write_binlog)
        return connection

    def _create_before_rows(self, connection: server.Connection) -> list[str]:
        load.prepare_progress(connection)  # first: while it is there, the target is not whole
        warnings = definitions.create(connection, self.inventory.databases)
        tablespaces.create(connection, self.inventory.tablespaces, self.inventory.tables)
        warnings += creating.create(connection, self.inventory.sequences, self.sources)
        return warnings + creating.create_tables(
            connection, self.planned, open_session=self._session, sessions=self.request.workers, sources=self.sources
        )

    def _work(self) -> int:
        """Plans the loading; the number of works that wait."""
        stored = {entry.key: entry for entry in self.backup_set.objects}
        by_object: dict[str, list[ChunkRecord]] = {}
        for chunk in self.inventory.chunks:
            by_object.setdefault(chunk.object_key, []).append(chunk)
        unknown = set(by_object) - set(stored)
        if unknown:
            raise errors.IntegrityError(
                f"the inventory of set {self.backup_set.name} names objects its manifest does not: {sorted(unknown)[0]}"
            )
        whole: dict[str, list[ChunkRecord]] = {}
        for chunk in self.stored_chunks:
            whole.setdefault(chunk.object_key, []).append(chunk)
        self.objects = {key: (stored[key], sorted(whole[key], key=lambda c: c.ordinal)) for key in by_object}
        later_keys = {name: sum(s.count("ADD ") for s in statements) for name, statements in self.deferred.items()}
        self.order = load_order.LoadOrder((self._piece(key, chunks) for key, chunks in by_object.items()), later_keys=later_keys)
        return len(self.objects)

    def _piece(self, key: str, chunks: Sequence[ChunkRecord]) -> load_order.Piece:
        tables = {self._place(chunk) for chunk in chunks}
        table = tables.pop() if len(tables) == 1 else ("", key)
        return load_order.Piece(key, table, sum(c.rows for c in chunks), sum(c.row_bytes for c in chunks))

    def _place(self, chunk: ChunkRecord) -> tuple[str, str]:
        """(schema, table) on the target."""
        return self.renamed.get(chunk.schema, chunk.schema), chunk.table

    def _next(self, worker: WorkerProcess) -> Sequence[Task]:
        """One work: indexes first, for everybody may have to wait for them; then loading; reading back last.

        One that is held back comes again with the next that ends, at the latest with the indexes it was held back for.
        """
        began = time.monotonic()
        with self.lock:
            if not self.to_index and not self.order.has_room(self.busy_beside, began):
                self.held_back += 1
                return []
            piece = None if self.to_index else self.order.take()
            phase = "load" if piece else "index" if self.to_index else "read_back"
            work = partial(self._load_object, piece=piece) if piece else (self.to_index or self.to_read_back).popleft()
            self.busy_beside += phase != "index"
        following = work(worker)
        with self.lock:
            self.busy_s[phase] += time.monotonic() - began
            self.busy_beside -= phase != "index"
            following, self.held_back = following + self.held_back, 0
        return [self._next] * following

    def _load_object(self, worker: WorkerProcess, *, piece: load_order.Piece) -> int:
        """Loads one object; as all works do, returns how many more there are now."""
        began = time.monotonic()
        stored, chunks = self.objects[piece.object_key]
        is_wanted = [(chunk.object_key, chunk.ordinal) in self.wanted for chunk in chunks]
        tables = [self.tables[self._place(chunk)] if take else None for chunk, take in zip(chunks, is_wanted, strict=True)]
        places = [codec.encode(table) if table is not None else None for table in tables]
        with naming(stored.key):
            worker.send({"load": {"tables": places, "chunks": [codec.encode(c) for c in chunks]}})
            for part in verified_object(self.repository, stored):
                worker.send_bytes(part)
            worker.send({"end": True})
            worker.receive()
        loaded = [chunk for chunk, table in zip(chunks, tables, strict=True) if table is not None]
        self._count("load", sum(chunk.rows for chunk in loaded))
        with self.lock:
            self.order.loaded(piece, took_s=time.monotonic() - began)
            return sum(self._after_chunk(chunk) for chunk in loaded)

    def _after_chunk(self, chunk: ChunkRecord) -> int:
        """Once a table's last chunk is in: its indexes, and the reading back of all its chunks."""
        name = self._place(chunk)
        self.left[name] -= 1
        if self.left[name]:
            return 0
        table = self.tables[name]
        self.to_index.append(partial(self._finish_table, table=table))
        # an index added in place leaves the rows alone, so they are read back meanwhile; FULLTEXT may build the table anew
        return 1 + (0 if self._is_rebuilt(table) else self._plan_read_back(table))

    def _is_rebuilt(self, table: Table) -> bool:
        return any("ADD FULLTEXT " in statement for statement in self.deferred[table.schema, table.name])

    def _plan_read_back(self, table: Table) -> int:
        chunks = self.chunks[table.schema, table.name]
        self.to_read_back.extend(partial(self._read_back, table=table, chunk=chunk) for chunk in chunks)
        return len(chunks)

    def _finish_table(self, worker: WorkerProcess, *, table: Table) -> int:
        statements = self.deferred[table.schema, table.name]
        with self.lock:
            self.order.building((table.schema, table.name), time.monotonic())
        with way_out.named(self.sources.get(table.schema, table.schema), table.name):
            if statements:  # else the comparison of all definitions at the end judges this one too
                worker.send({"indexes": {"table": codec.encode(table), "statements": list(statements)}})
                worker.receive()
            worker.send({"analyze": codec.encode(table)})
            worker.receive()
        with self.lock:
            self.order.built((table.schema, table.name))
            return self._plan_read_back(table) if self._is_rebuilt(table) else 0

    def _read_back(self, worker: WorkerProcess, *, table: Table, chunk: ChunkRecord) -> int:
        worker.send({"read_back": {"table": codec.encode(table), "chunk": codec.encode(chunk)}})
        worker.receive()
        with self.lock:
            self.order.read_back(chunk.rows, chunk.row_bytes)
        self._count("read back", chunk.rows)
        return 0

    def _count(self, phase: str, rows: int) -> None:
        with self.lock:
            self.done[phase] += rows
            done = self.done[phase]
        if self.request.progress:
            self.request.progress(phase, done, self.total)

    def _create_accounts(self, connection: server.Connection) -> list[str]:
        """Accounts of the set, never the restore's own, others that exist only when they may be replaced."""
        if not self.inventory.accounts:
            return []  # none were backed up: the right to see them is not needed
        facts = server_facts.read_facts(connection)
        there = accounts.names(connection, facts)
        unfit = needs.without_login(self.inventory.accounts, needs.read_offer(connection, facts))
        own = str(connection.value("SELECT CURRENT_USER()"))
        own_user, _, own_host = own.rpartition("@")
        mine = {name for name in there if name.replace("`", "").replace("'", "") == f"{own_user}@{own_host}"}
        ours = self._own_accounts(connection, there)
        kept, replaced = [], []
        for definition in self.inventory.accounts:
            name = definition.name
            if name in unfit or name in mine or (name in there and name not in ours and not self.request.replace_users):
                continue
            if definition.kind == "account" and name in there:
                replaced.append(definition)
            kept.append(definition)
        for one in replaced:
            kind = "ROLE" if one.statements[0].startswith("CREATE ROLE ") else "USER"
            connection.execute(f"DROP {kind} IF EXISTS {one.name}")
        left_out = sorted({d.name for d in self.inventory.accounts} & there - {one.name for one in replaced})
        warnings = [f"account {name} exists on the target and was left as it is" for name in left_out if name not in unfit]
        warnings += [f"account {name} was left out: the target has no login plugin {plugin}" for name, plugin in unfit.items()]
        return warnings + definitions.create(connection, kept)

    def _own_accounts(self, connection: server.Connection, there: frozenset[str]) -> frozenset[str]:
        """Names of accounts that this restore makes, written down before the first: one of them that is there already
        comes from an interrupted attempt and may lack its grants, so it is made again."""
        scratch = f"{load.SCRATCH_SCHEMA}.accounts"
        columns = "name VARCHAR(400) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY"
        connection.execute(f"CREATE TABLE IF NOT EXISTS {scratch} ({columns}) ENGINE=InnoDB")
        if not connection.value(f"SELECT COUNT(*) FROM {scratch}"):
            connection.execute("START TRANSACTION")
            connection.execute(f"INSERT INTO {scratch} VALUES ('')")  # so that a list without names is a list too
            for name in sorted({definition.name for definition in self.inventory.accounts} - there):
                connection.execute(f"INSERT INTO {scratch} VALUES (%s)", (name,))
            connection.execute("COMMIT")
        return frozenset(str(row[0]) for row in connection.rows(f"SELECT name FROM {scratch}"))

    def _compare(self, connection: server.Connection) -> None:
        """The definitions on the target must be the set's."""
        found = self._found(connection)
        if moved := definitions.moved_counters(self.inventory, found):
            for statement in moved:
                connection.execute(statement)
            found = self._found(connection)
        there = {(d.kind, d.schema, d.name) for d in found.after_rows}
        # what was broken on the source and could not be made here was warned of; all else that is missing has raised
        may_miss = [d for d in self.inventory.after_rows if d.optional or d.kind == "trigger"]
        missed = [d for d in may_miss if (d.kind, d.schema, d.name) not in there]
        wanted = tuple(d for d in self.inventory.after_rows if d not in missed)
        expected = replace(self.inventory, accounts=(), after_rows=wanted)
        actual = replace(found, accounts=())
        differences = definitions.compare(expected, actual)
        if differences:
            objects = (*map(definitions.definition_of, self.inventory.tables), *self.inventory.sequences, *wanted)
            found_out = way_out.of_differences(differences, objects, self.sources)
            without = f"; {found_out}" if found_out else ""
            raise errors.RestoreMismatch(
                f"definitions on {self.request.endpoint.name} differ from set {self.backup_set.name}:"
                f" {'; '.join(differences[:5])}",
                hint=f"compare the servers' versions and settings; the target is not to be used{without}",
            )

    def _found(self, connection: server.Connection) -> Inventory:
        """The databases of the set as they are on the target."""
        names = tuple(d.name for d in self.inventory.databases)
        facts = server_facts.read_facts(connection)
        return schema.read_inventory(connection, facts, databases=names) if names else self.inventory


def drop_scratch(endpoint: server.Endpoint, *, write_binlog: bool = False) -> None:
    """Takes the progress table away: the restore is complete."""
    with server.connect(endpoint) as connection:
        load.prepare_session(connection, write_binlog=write_binlog)
        connection.execute(f"DROP DATABASE IF EXISTS {identifier(load.SCRATCH_SCHEMA)}")
