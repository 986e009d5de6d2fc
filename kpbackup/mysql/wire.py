"""The client side of the MySQL protocol where the driver is too slow: raw packets on an authenticated socket.

The driver logs in (accounts, TLS, caching_sha2), then a `WireSocket` takes its socket and speaks prepared statements
by itself: whole row packets pass as memoryviews and are never decoded (why: the values of a result row and of an
INSERT's parameters have the same encoding). The driver's own calls may be used in between, whenever no reply is pending.

Limits: classic protocol with EOF packets (the driver does not offer CLIENT_DEPRECATE_EOF), no compression, one thread
at a time. Memory is the buffer plus, while a large packet passes, that packet (at most 16 MiB).
Every wait ends with a timeout. After an error that is not the server's own answer (lost connection, a sink that
raised) replies are out of step: close the connection. Nothing here outlives the process.

Protocol source: "MySQL Client/Server Protocol", sections packets, COM_STMT_PREPARE, COM_STMT_EXECUTE, binary rows.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import pymysql

from kpbackup import errors
from kpbackup.mysql import server

COM_QUERY = b"\x03"
COM_STMT_PREPARE = b"\x16"
COM_STMT_EXECUTE = b"\x17"
COM_STMT_CLOSE = b"\x19"

MAX_PAYLOAD = 0xFFFFFF  # a packet of exactly this length is continued by the next one
HEADER_BYTES = 4
EOF_LIMIT = 9  # a payload fe shorter than this is EOF, a longer one an 8-byte length
BUFFER_BYTES = 262_144  # larger ones measured no faster
TIMEOUT_S = 600.0  # longer than any lock wait a server allows by default (innodb_lock_wait_timeout 50 s, twice retried)

TYPE_LONGLONG = 8
UNSIGNED = 0x8000

_CLIENT_DEPRECATE_EOF = 1 << 24
_CLIENT_COMPRESS = 1 << 5
_HEADER = struct.Struct("<I")
_HEADER_AND_FIRST = struct.Struct("<IB")
_PREPARED = struct.Struct("<xIHH")
_COLUMN_TAIL = struct.Struct("<HIBHB")

RowSink = Callable[[memoryview], object]


@dataclass(frozen=True)
class ColumnDefinition:
    """What a server says of a result column. `charset` is the collation id of the result, 63 for binary."""

    name: str
    charset: int
    type: int
    flags: int
    length: int
    decimals: int


@dataclass(frozen=True)
class Statement:
    """A prepared statement of one session: its id, its result columns, its number of placeholders."""

    id: int
    columns: tuple[ColumnDefinition, ...]
    parameters: int


@dataclass(frozen=True)
class RowTotals:
    """`rows` counts logical rows (a split row once); `row_bytes` the raw packets with their headers."""

    rows: int
    row_bytes: int


@dataclass(frozen=True)
class OkPacket:
    """The server's answer to a statement without rows."""

    affected_rows: int
    last_insert_id: int
    status: int
    warnings: int


def read_lenenc_int(data: bytes | memoryview, offset: int) -> tuple[int, int]:
    """(value, offset after it) of a length-encoded integer.

    Raises:
        ValueError: NULL (fb), an unknown prefix, or the data ends within it.
    """
    if offset >= len(data):
        raise ValueError("length-encoded integer beyond the end of its packet")
    first = data[offset]
    if first < 0xFB:
        return first, offset + 1
    width = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first)
    if width is None:
        raise ValueError(f"no length-encoded integer starts with {first:#x}")
    end = offset + 1 + width
    if end > len(data):
        raise ValueError("length-encoded integer beyond the end of its packet")
    return int.from_bytes(data[offset + 1 : end], "little"), end


def read_lenenc_bytes(data: bytes | memoryview, offset: int) -> tuple[bytes, int]:
    """(bytes, offset after them) of a length-encoded string. Raises ValueError as `read_lenenc_int`."""
    length, start = read_lenenc_int(data, offset)
    if start + length > len(data):
        raise ValueError("length-encoded string beyond the end of its packet")
    return bytes(data[start : start + length]), start + length


def parse_column_definition(payload: bytes) -> ColumnDefinition:
    """The definition in a column definition packet (protocol 4.1: six names, then a fixed tail).

    Raises:
        ValueError: the packet is cut or of another kind.
    """
    offset = 0
    names = []
    for _ in range(6):  # catalog, schema, table, original table, name, original name
        text, offset = read_lenenc_bytes(payload, offset)
        names.append(text)
    tail_bytes, offset = read_lenenc_int(payload, offset)
    if tail_bytes < _COLUMN_TAIL.size or offset + tail_bytes > len(payload):
        raise ValueError("column definition packet is cut")
    charset, length, kind, flags, decimals = _COLUMN_TAIL.unpack_from(payload, offset)
    return ColumnDefinition(
        name=names[4].decode("utf-8", "surrogateescape"), charset=charset, type=kind, flags=flags, length=length,
        decimals=decimals,
    )


def parse_ok(payload: bytes) -> OkPacket:
    """The content of an OK packet. Raises ValueError when it is something else."""
    if payload[:1] != b"\x00":
        raise ValueError(f"expected an OK packet, got one starting {payload[:1].hex() or 'with nothing'}")
    affected, offset = read_lenenc_int(payload, 1)
    inserted, offset = read_lenenc_int(payload, offset)
    if offset + 4 > len(payload):
        raise ValueError("OK packet is cut")
    status, warnings = struct.unpack_from("<HH", payload, offset)
    return OkPacket(affected_rows=affected, last_insert_id=inserted, status=status, warnings=warnings)


def parse_error(payload: bytes, doing: str) -> errors.KpbackupError:
    """The server's ERR packet as one of our errors; `doing` says what was attempted."""
    number = int.from_bytes(payload[1:3], "little")
    text = payload[3:]
    if text[:1] == b"#":  # '#' and five characters of SQLSTATE, absent before the handshake
        text = text[6:]
    return server.translate(pymysql.err.OperationalError(number, text.decode("utf-8", "replace")), doing)


def packet_header(length: int, sequence: int) -> bytes:
    """The four bytes before a payload: u24 length, u8 sequence number."""
    return _HEADER.pack(length | (sequence & 0xFF) << 24)


def frame_payload(parts: Sequence[bytes | bytearray | memoryview]) -> Iterable[bytes | memoryview]:
    """The pieces to send for one payload given in parts: small ones joined, large ones split at 0xFFFFFF bytes."""
    total = sum(len(part) for part in parts)
    if total < MAX_PAYLOAD:
        yield b"".join((packet_header(total, 0), *parts))
        return
    sequence = 0
    room = min(total, MAX_PAYLOAD)
    left = total - room
    yield packet_header(room, sequence)
    full = room == MAX_PAYLOAD
    for part in parts:
        view = memoryview(part).cast("B")
        while len(view):
            if room == 0:
                sequence += 1
                room = min(left, MAX_PAYLOAD)
                left -= room
                full = room == MAX_PAYLOAD
                yield packet_header(room, sequence)
            yield view[:room]
            taken = min(room, len(view))
            view, room = view[taken:], room - taken
    if full:  # an empty packet says that the full one before it was the last
        yield packet_header(0, sequence + 1)


def walk_rows(buffer: bytearray | bytes, position: int, end: int) -> tuple[int, int]:
    """(position after the last whole plain row, number of rows passed): the tight loop over row headers.

    Stops before anything that is not a complete, unsplit binary row (those start with 00): an EOF or ERR packet,
    a split row, a row of which only a part lies before `end`.
    """
    rows = 0
    unpack = _HEADER_AND_FIRST.unpack_from
    limit = end - HEADER_BYTES - 1
    while position <= limit:
        head, first = unpack(buffer, position)
        length = head & MAX_PAYLOAD
        following = position + HEADER_BYTES + length
        if first or following > end or length == MAX_PAYLOAD:
            break
        position = following
        rows += 1
    return position, rows


def encode_integers(values: Sequence[int]) -> bytes:
    """The parameter part of COM_STMT_EXECUTE for BIGINT values, signed or (from 2**63 on) unsigned."""
    if not values:
        return b""
    unsigned = [value >= 1 << 63 for value in values]
    types = b"".join(struct.pack("<H", TYPE_LONGLONG | (UNSIGNED if high else 0)) for high in unsigned)
    data = b"".join(struct.pack("<Q" if high else "<q", value) for value, high in zip(values, unsigned, strict=True))
    return bytes((len(values) + 7) // 8) + b"\x01" + types + data


class WireSocket:
    """Packets of one logged-in session, in both directions.

    Commands may be pipelined: `send` several, then read their replies in the same order. Keep the replies of what is
    under way small (OK packets): a server that cannot send stops reading.
    """

    def __init__(
        self, connection: server.Connection, *, buffer_bytes: int = BUFFER_BYTES, timeout_s: float = TIMEOUT_S
    ) -> None:
        """Takes the session over; `timeout_s` bounds each single wait for the socket."""
        raw = connection.raw
        if raw.client_flag & (_CLIENT_DEPRECATE_EOF | _CLIENT_COMPRESS):
            raise errors.InternalError("the driver negotiated a protocol variant that the wire loop does not speak")
        self._name = connection.endpoint.name
        self._socket = raw._sock
        self._timeout_s = timeout_s
        self._socket.settimeout(timeout_s)
        self._size = max(buffer_bytes, 64)
        self._buffer = bytearray(self._size)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0

    def send(self, *parts: bytes | bytearray | memoryview) -> None:
        """Sends one command whose payload is `parts` in order (the command byte first), of any size.

        Raises:
            ServerUnreachable: the connection broke or the server does not take the bytes.
        """
        try:
            self._socket.settimeout(self._timeout_s)  # the driver's own calls set theirs
            for piece in frame_payload(parts):
                self._socket.sendall(piece)
        except OSError as exc:
            self._lost("sending to", exc)

    def packet(self) -> bytes:
        """The payload of the next packet, split ones joined.

        Raises:
            PrivilegeMissing, DatabaseError: it is an ERR packet.
            ServerUnreachable: connection lost or timed out.
        """
        payload, length = self._next_packet()
        if payload[:1] == b"\xff":
            raise parse_error(payload, f"running a statement on {self._name}")
        if length < MAX_PAYLOAD:
            return payload
        pieces = [payload]
        while length == MAX_PAYLOAD:
            payload, length = self._next_packet()
            pieces.append(payload)
        return b"".join(pieces)

    def read_ok(self) -> OkPacket:
        """The reply to a statement without rows. Raises as `packet`."""
        payload = self.packet()
        try:
            return parse_ok(payload)
        except ValueError as exc:
            raise self._unexpected(str(exc)) from exc

    def prepare(self, sql: str) -> Statement:
        """A prepared statement; close it with `close_statement`. Raises as `packet`."""
        self.send(COM_STMT_PREPARE, sql.encode())
        reply = self.packet()
        if reply[:1] != b"\x00" or len(reply) < _PREPARED.size:
            raise self._unexpected("no answer to COM_STMT_PREPARE")
        statement_id, column_count, parameter_count = _PREPARED.unpack_from(reply)
        self._definitions(parameter_count)
        columns = self._definitions(column_count)
        try:
            parsed = tuple(parse_column_definition(payload) for payload in columns)
        except ValueError as exc:
            raise self._unexpected(str(exc)) from exc
        return Statement(id=statement_id, columns=parsed, parameters=parameter_count)

    def close_statement(self, statement: Statement) -> None:
        """Frees the statement on the server, which does not reply."""
        self.send(COM_STMT_CLOSE, _HEADER.pack(statement.id))

    def execute_select(self, statement: Statement, int_params: Sequence[int] = ()) -> list[bytes]:
        """Starts a prepared SELECT; the payloads of its column definition packets. `stream_rows` must follow.

        Raises as `packet`.
        """
        self.send(COM_STMT_EXECUTE, struct.pack("<IBI", statement.id, 0, 1), encode_integers(int_params))
        reply = self.packet()
        try:
            count, _ = read_lenenc_int(reply, 0)
        except ValueError as exc:
            raise self._unexpected(str(exc)) from exc
        if count == 0:
            raise self._unexpected("the statement gives no rows")
        return self._definitions(count)

    def stream_rows(self, sink: RowSink) -> RowTotals:
        """Passes every row packet of the running SELECT, headers included, to `sink`; the EOF packet is taken off.

        A view holds one or more whole packets and is valid only until `sink` returns. A row split over several packets
        comes in order, maybe over several calls, and counts once.

        Raises:
            DatabaseError: the server gave up in the middle (killed query, changed definition 1412).
            ServerUnreachable: connection lost, timed out or closed.
        """
        rows = row_bytes = 0
        while True:
            position, passed = walk_rows(self._buffer, self._start, self._end)
            if passed:
                rows += passed
                row_bytes += self._hand_over(sink, position)
            self._fill(HEADER_BYTES + 1)
            head, first = _HEADER_AND_FIRST.unpack_from(self._buffer, self._start)
            length = head & MAX_PAYLOAD
            if length == MAX_PAYLOAD and not first:
                rows += 1
                row_bytes += self._pass_split_row(sink)
            elif not first:
                self._fill(HEADER_BYTES + length)
            else:
                self._finish_rows()
                return RowTotals(rows=rows, row_bytes=row_bytes)

    def _finish_rows(self) -> None:
        """Takes the packet that ends the rows and lets go of a buffer that a large row made grow."""
        last, _ = self._next_packet()
        if last[:1] == b"\xff":
            raise parse_error(last, f"reading rows from {self._name}")
        if last[:1] != b"\xfe" or len(last) >= EOF_LIMIT:
            raise self._unexpected(f"a row starting {last[:1].hex()}")
        if len(self._buffer) > self._size and self._start == self._end:
            self._resize(self._size)

    def _pass_split_row(self, sink: RowSink) -> int:
        """Bytes of one row made of several packets, handed over packet by packet."""
        row_bytes = 0
        length = MAX_PAYLOAD
        while length == MAX_PAYLOAD:
            self._fill(HEADER_BYTES)
            length = _HEADER.unpack_from(self._buffer, self._start)[0] & MAX_PAYLOAD
            self._fill(HEADER_BYTES + length)
            row_bytes += self._hand_over(sink, self._start + HEADER_BYTES + length)
        return row_bytes

    def _hand_over(self, sink: RowSink, position: int) -> int:
        """Gives the bytes up to `position` to the sink; their number."""
        with self._view[self._start : position] as view:
            sink(view)
        size = position - self._start
        self._start = position
        return size

    def _definitions(self, count: int) -> list[bytes]:
        """The payloads of `count` definition packets; none when the count is 0, else an EOF packet ends them."""
        if count == 0:
            return []
        found = [self.packet() for _ in range(count)]
        end = self.packet()
        if end[:1] != b"\xfe" or len(end) >= EOF_LIMIT:
            raise self._unexpected("no EOF packet after the column definitions")
        return found

    def _next_packet(self) -> tuple[bytes, int]:
        """(payload, its length) of the next single packet."""
        self._fill(HEADER_BYTES)
        length = _HEADER.unpack_from(self._buffer, self._start)[0] & MAX_PAYLOAD
        self._fill(HEADER_BYTES + length)
        begin = self._start + HEADER_BYTES
        payload = bytes(self._view[begin : begin + length])
        self._start = begin + length
        return payload, length

    def _fill(self, need: int) -> None:
        """Receives until `need` unread bytes lie in the buffer, which grows if it must."""
        if self._end - self._start >= need:
            return
        if need > len(self._buffer):
            self._resize(need + self._size)
        elif self._start:
            kept = self._end - self._start
            self._view[:kept] = self._view[self._start : self._end]
            self._start, self._end = 0, kept
        while self._end - self._start < need:
            try:
                received = self._socket.recv_into(self._view[self._end :])
            except OSError as exc:
                self._lost("reading from", exc)
            if not received:
                self._lost("reading from", EOFError("the server closed the connection"))
            self._end += received

    def _resize(self, size: int) -> None:
        kept = self._end - self._start
        fresh = bytearray(size)
        fresh[:kept] = self._view[self._start : self._end]
        self._buffer, self._view = fresh, memoryview(fresh)
        self._start, self._end = 0, kept

    def _lost(self, doing: str, exc: Exception) -> NoReturn:
        cause = f"no answer for {self._timeout_s:g} s" if isinstance(exc, TimeoutError) else str(exc)
        raise errors.ServerUnreachable(
            f"{doing} {self._name}: {cause}", hint="is the server still running, and the network between whole?"
        ) from exc

    def _unexpected(self, what: str) -> errors.InternalError:
        return errors.InternalError(f"unexpected reply of {self._name}: {what}")
