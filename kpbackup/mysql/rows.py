"""The fast row path out of a server: which SELECT reads a chunk, its rows as a chunk frame, chunks that share an object.

A chunk is a range of the primary key (`ranges`; where it is cut: `cutting`). The same SELECT serves the dump and the
reading back on a restored target: it names its columns and its order, so equal tables give equal bytes, and a chunk's
hash judges both. Rows are never decoded (`wire`).

Limits: a keyless table is one chunk and comes in
no particular order, so its hash is a sum over its rows. A frame cut by an error or a crash has no EOF packet and no
totals: no reader takes it for whole. After an error of `stream_chunk` close the connection.

Format: `docs/format.md`, "Row chunks".
"""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from kpbackup import errors
from kpbackup.model.inventory import ChunkBounds, Column, Table
from kpbackup.mysql import json_types, quoting, ranges, server, versioned, wire

MAGIC = b"KPROWS1\n"
PLAIN, CHAR, UNSIGNED, JSON_TEXT = "plain", "char", "unsigned", "json"
EOF_PACKET = wire.packet_header(5, 0) + b"\xfe\x00\x00\x00\x00"  # the same for every server: warnings and status are not rows

SMALL_TABLE_BYTES = 4 << 20  # an object holds so much of small tables
SMALL_TABLES = 200  # or so many of them

NET_WRITE_TIMEOUT_S = 3600  # a store that stalls for minutes must not cost the dump
IDLE_TIMEOUT_S = 28_800  # a session waits for its next chunk while others work
LOCK_WAIT_TIMEOUT_S = 300  # shorter than the wire's own timeout, so that the server says what is wrong

_FIRST_COLUMN_SEQUENCE = 2  # the packet before it is the column count
_HEADER = struct.Struct("<I")
_SUM_MODULUS = 1 << 256

OPEN = ChunkBounds()
Job = tuple[tuple[Table, ChunkBounds], ...]
Sink = Callable[[bytes | memoryview], object]


@dataclass(frozen=True)
class ChunkTotals:
    """What one chunk holds: the figures of a ChunkRecord, which says what they cover.

    `unkept`: for each JSON column how many typed values cannot be written back (`json_types`); a chunk's bytes do not hold it.
    """

    rows: int
    row_bytes: int
    sha256: str
    unkept: dict[str, int] = field(default_factory=dict, compare=False)


def group_jobs(chunks: Iterable[tuple[Table, ChunkBounds]]) -> list[Job]:
    """Jobs of one object each: big chunks alone, small tables together; biggest first, neighbours of different tables.

    `chunks` holds all chunks of each table, one after the other. Workers that take jobs in this order are mostly in
    different tables, here and when the objects are loaded.
    """
    large: list[tuple[int, int, Job]] = []
    small: list[tuple[Table, ChunkBounds]] = []
    for table, pairs in itertools.groupby(chunks, key=lambda pair: pair[0]):
        own = list(pairs)
        if len(own) == 1 and table.estimated_bytes <= SMALL_TABLE_BYTES:
            small += own
        else:
            large += [(turn, -(table.estimated_bytes // len(own)), (pair,)) for turn, pair in enumerate(own)]
    large.sort(key=lambda entry: entry[:2])
    return [job for _, _, job in large] + _packed(small)


def _packed(small: Sequence[tuple[Table, ChunkBounds]]) -> list[Job]:
    jobs: list[Job] = []
    current: list[tuple[Table, ChunkBounds]] = []
    current_bytes = 0
    for table, bounds in sorted(small, key=lambda entry: -entry[0].estimated_bytes):
        if current and (len(current) == SMALL_TABLES or current_bytes + table.estimated_bytes > SMALL_TABLE_BYTES):
            jobs.append(tuple(current))
            current, current_bytes = [], 0
        current.append((table, bounds))
        current_bytes += table.estimated_bytes
    if current:
        jobs.append(tuple(current))
    return jobs


class RowTally:
    """Counts and hashes the rows of one chunk: feed it whole raw row packets in the order they came.

    `rows`, `row_bytes` and `sha256` are then what a ChunkRecord says. A row split over packets may be split over calls.
    """

    def __init__(self, *, keyed: bool) -> None:
        self.rows = 0
        self.row_bytes = 0
        self._ordered = hashlib.sha256() if keyed else None
        self._sum = 0
        self._split = hashlib.sha256()
        self._within = False  # the next packet continues a split row

    @property
    def sha256(self) -> str:
        """64 hex digits: the hash over all bytes, or (keyless) the sum over the rows' own hashes modulo 2**256."""
        return self._ordered.hexdigest() if self._ordered else f"{self._sum:064x}"

    def update(self, view: bytes | memoryview, *, rows: int | None = None) -> None:
        """Takes packets, headers included. Whoever knows how many `rows` they end saves a keyed chunk the counting."""
        self.row_bytes += len(view)
        if self._ordered is None:
            self._add_rows(view)
            return
        self._ordered.update(view)
        self.rows += self._count(view) if rows is None else rows

    def _count(self, view: bytes | memoryview) -> int:
        position, end, rows = 0, len(view), 0
        while position < end:
            length = _HEADER.unpack_from(view, position)[0] & wire.MAX_PAYLOAD
            position += wire.HEADER_BYTES + length
            rows += length != wire.MAX_PAYLOAD
        return rows

    def _add_rows(self, view: bytes | memoryview) -> None:
        position, end = 0, len(view)
        while position < end:
            length = _HEADER.unpack_from(view, position)[0] & wire.MAX_PAYLOAD
            payload = view[position + wire.HEADER_BYTES : position + wire.HEADER_BYTES + length]
            position += wire.HEADER_BYTES + length
            if self._within or length == wire.MAX_PAYLOAD:
                self._split.update(payload)
                self._within = length == wire.MAX_PAYLOAD
                if self._within:
                    continue
                digest, self._split = self._split.digest(), hashlib.sha256()
            else:
                digest = hashlib.sha256(payload).digest()
            self._sum = (self._sum + int.from_bytes(digest, "big")) % _SUM_MODULUS
            self.rows += 1


def session_settings(flavour: str) -> str:
    """The SET statement for a session that reads rows: raw bytes, UTC, nothing of the server's own taste.

    `sql_select_limit` and `sql_mode` (PAD_CHAR_TO_FULL_LENGTH) could cut or pad rows in silence.
    """
    no_limit = f"max_execution_time=0, {json_types.SESSION_SETTINGS}"
    if flavour == "mariadb":
        no_limit = "max_statement_time=0, idle_transaction_timeout=0, idle_readonly_transaction_timeout=0"
    return (
        "SET SESSION character_set_results=binary, time_zone='+00:00', sql_mode='', sql_big_selects=1,"
        f" sql_select_limit=18446744073709551615, net_write_timeout={NET_WRITE_TIMEOUT_S},"
        f" lock_wait_timeout={LOCK_WAIT_TIMEOUT_S}, wait_timeout={IDLE_TIMEOUT_S}, {no_limit}"
    )


def open_session(connection: server.Connection, flavour: str) -> None:
    """Makes a session fit for `stream_chunk`. A snapshot, if wanted, is opened after it, never before."""
    connection.execute(session_settings(flavour))
    connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")


def expression_of(column: Column, flavour: str, *, typed: bool = True) -> str:
    """How a column is read so that it can be written back exactly: plain, char, unsigned or json.

    TIME with a fraction on MySQL: as a parameter it is refused beyond 838:00:00, as text it is not. ENUM and SET: as
    text the error value, index 0, cannot be told from a member '', nor members that their collation takes for equal.
    JSON whose types are not kept (`typed` is off): as what its text says, which is what comes back.
    """
    if column.data_type == "json" and not typed:
        return JSON_TEXT
    if column.data_type == "time" and "(" in column.column_type and flavour == "mysql":
        return CHAR
    if column.data_type in ("enum", "set"):
        return UNSIGNED
    return PLAIN


def select_sql(table: Table, bounds: ChunkBounds, flavour: str) -> str:
    """The SELECT of a chunk."""
    lists = [json_types.list_expression(name, number) for number, name in enumerate(table.json_types)]
    columns = ", ".join([*(_select_item(table, column, flavour) for column in table.columns), *lists])
    past = " FOR SYSTEM_TIME ALL" if table.history else ""
    sql = f"SELECT {columns} FROM {quoting.qualified(table.schema, table.name)}{past} AS r"
    if not table.key:
        return sql
    condition = ranges.within(table, bounds, alias="r.")
    where = f" WHERE {condition}" if condition else ""
    order = ", ".join(f"r.{quoting.identifier(name)}" for name in table.key)
    return f"{sql} FORCE INDEX (PRIMARY){where} ORDER BY {order}"


def _select_item(table: Table, column: Column, flavour: str) -> str:
    name = f"r.{quoting.identifier(column.name)}"
    if column.name in table.history[1:]:
        return versioned.end_expression(name)
    casts = {
        PLAIN: name, CHAR: f"CAST({name} AS CHAR)", UNSIGNED: f"CAST({name} AS UNSIGNED)",
        JSON_TEXT: f"CAST(CAST({name} AS CHAR) AS JSON)",
    }
    return casts[_expression(table, column, flavour)]


def _expression(table: Table, column: Column, flavour: str) -> str:
    return expression_of(column, flavour, typed=column.name in table.json_types)


def frame_header(table: Table, flavour: str) -> bytes:
    """The head of a chunk frame: magic, length, canonical JSON."""
    header = {
        "schema": table.schema,
        "table": table.name,
        "columns": [
            {"name": c.name, "data_type": c.data_type, "column_type": c.column_type, "charset": c.charset} for c in table.columns
        ],
        "expressions": [_expression(table, column, flavour) for column in table.columns],
        "time_zone": "+00:00",
    }
    if table.json_types:
        header["json_types"] = list(table.json_types)
    if table.history:
        header["history"] = list(table.history)
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return MAGIC + _HEADER.pack(len(text)) + text


def stream_chunk(socket: wire.WireSocket, table: Table, bounds: ChunkBounds, flavour: str, sink: Sink) -> ChunkTotals:
    """Writes one chunk frame to `sink` and returns what it holds. The session is one made by `open_session`.

    Views given to `sink` are valid only until it returns.

    Raises:
        PrivilegeMissing, DatabaseError (1412: the table was altered; 1317: the query was killed), ServerUnreachable.
    """
    tally = RowTally(keyed=bool(table.key))

    def take(view: memoryview) -> None:
        tally.update(view, rows=0)  # the wire counts them
        sink(view)

    statement = socket.prepare(select_sql(table, bounds, flavour))
    definitions = socket.execute_select(statement)
    sink(frame_header(table, flavour) + _framed(definitions))
    totals = socket.stream_rows(take)
    sink(EOF_PACKET)
    unkept = _unkept(socket, table, totals.warnings) if table.json_types and totals.warnings else {}
    socket.close_statement(statement)
    return ChunkTotals(rows=totals.rows, row_bytes=totals.row_bytes, sha256=tally.sha256, unkept=unkept)


def _unkept(socket: wire.WireSocket, table: Table, count: int) -> dict[str, int]:
    """What the warnings of a chunk's SELECT say; any of another kind, or unseen, may mean that a type list was cut."""
    texts = [(int(number or 0), (text or b"").decode()) for _, number, text in socket.text_rows("SHOW WARNINGS")]
    found = json_types.unkept(table.json_types, (text for _, text in texts))
    if sum(found.values()) < len(texts):
        number, text = next(one for one in texts if one[0] != json_types.TRUNCATED_VALUE)
        raise errors.ServerUnfit(
            f"cannot read the typed JSON values of {table.schema}.{table.name}: warning {number}: {text}",
            hint="raise max_allowed_packet on the source to more than its largest JSON document, and run the backup again",
        )
    if len(texts) < count:
        raise errors.ServerUnfit(
            f"cannot tell what {count} warnings about JSON values of {table.schema}.{table.name} say: {len(texts)} are shown",
            hint="SET GLOBAL max_error_count = 65535 on the source, and run the backup again",
        )
    return dict(found)


def _framed(definitions: Sequence[bytes]) -> bytes:
    """The definitions as the server sent them: the sequence numbers are the protocol's."""
    return b"".join(
        wire.packet_header(len(payload), number) + payload
        for number, payload in enumerate(definitions, _FIRST_COLUMN_SEQUENCE)
    )
