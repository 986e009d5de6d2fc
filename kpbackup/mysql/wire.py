"""The client side of the MySQL protocol where the driver is too slow: raw packets on an authenticated socket.

The driver logs in (accounts, TLS, caching_sha2), then a `WireSocket` takes its socket and speaks prepared statements
by itself: whole row packets pass as memoryviews and are never decoded (why: the values of a result row and of an
INSERT's parameters have the same encoding). The driver's own calls may be used in between, whenever no reply is pending.

Limits: classic protocol with EOF packets (the driver does not offer CLIENT_DEPRECATE_EOF), no compression, one thread
at a time. Memory is the buffer plus, while a large packet passes, that packet (at most 16 MiB).
Every wait ends with a timeout. After an error that is not the server's own answer (lost connection, a sink that
raised) replies are out of step: close the connection. Nothing here outlives the process.

The bytes of single packets are the matter of `packets`, whose names can be had from here too.

Protocol source: "MySQL Client/Server Protocol", sections COM_STMT_PREPARE, COM_STMT_EXECUTE, COM_STMT_CLOSE.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from kpbackup import errors
from kpbackup.mysql import server
from kpbackup.mysql.packets import (
    EOF_LIMIT,
    HEADER_BYTES,
    MAX_PAYLOAD,
    TYPE_LONGLONG,
    UNSIGNED,
    ColumnDefinition,
    OkPacket,
    bitmap_bytes,
    frame_payload,
    packet_header,
    parse_column_definition,
    parse_error,
    parse_ok,
    read_lenenc_bytes,
    read_lenenc_int,
    walk_rows,
)

__all__ = [
    "BUFFER_BYTES",
    "COM_QUERY",
    "COM_STMT_CLOSE",
    "COM_STMT_EXECUTE",
    "COM_STMT_PREPARE",
    "EOF_LIMIT",
    "HEADER_BYTES",
    "LARGEST_BYTES",
    "MAX_PAYLOAD",
    "TIMEOUT_S",
    "TYPE_LONGLONG",
    "UNSIGNED",
    "ColumnDefinition",
    "OkPacket",
    "RowSink",
    "RowTotals",
    "Statement",
    "WireSocket",
    "bitmap_bytes",
    "frame_payload",
    "packet_header",
    "parse_column_definition",
    "parse_error",
    "parse_ok",
    "read_lenenc_bytes",
    "read_lenenc_int",
    "walk_rows",
]

COM_QUERY = b"\x03"
COM_STMT_PREPARE = b"\x16"
COM_STMT_EXECUTE = b"\x17"
COM_STMT_CLOSE = b"\x19"

BUFFER_BYTES = 262_144  # larger ones measured no faster
LARGEST_BYTES = (1 << 30) + (1 << 20)  # servers take and send no more than 1 GiB at once (max_allowed_packet), and a header
TIMEOUT_S = 600.0  # longer than any lock wait a server allows by default (innodb_lock_wait_timeout: 50 s)

_CLIENT_DEPRECATE_EOF = 1 << 24
_CLIENT_COMPRESS = 1 << 5
_TEXT_NULL = 0xFB
_HEADER = struct.Struct("<I")
_HEADER_AND_FIRST = struct.Struct("<IB")
_PREPARED = struct.Struct("<xIHH")

RowSink = Callable[[memoryview], object]


@dataclass(frozen=True)
class Statement:
    """A prepared statement of one session: its id, its result columns, its number of placeholders."""

    id: int
    columns: tuple[ColumnDefinition, ...]
    parameters: int


@dataclass(frozen=True)
class RowTotals:
    """`rows` counts logical rows (a split row once); `row_bytes` the raw packets with their headers.

    `warnings`: how many the server has for the statement, at most 65535; `text_rows("SHOW WARNINGS")` gives them.
    """

    rows: int
    row_bytes: int
    warnings: int = 0


class WireSocket:
    """Packets of one logged-in session, in both directions.

    Commands may be pipelined: `send` several, then read their replies in the same order. Keep the replies of what is
    under way small (OK packets): a server that cannot send stops reading.
    """

    def __init__(
        self, connection: server.Connection, *, buffer_bytes: int = BUFFER_BYTES, timeout_s: float = TIMEOUT_S,
        largest_bytes: int = LARGEST_BYTES,
    ) -> None:
        """Takes the session over; `timeout_s` bounds each single wait for the socket, `largest_bytes` what `packet` joins."""
        raw = connection.raw
        if raw.client_flag & (_CLIENT_DEPRECATE_EOF | _CLIENT_COMPRESS):
            raise errors.InternalError("the driver negotiated a protocol variant that the wire loop does not speak")
        self._name = connection.endpoint.name
        self._socket = raw._sock
        self._timeout_s = timeout_s
        self._largest = largest_bytes
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
            if self._socket.gettimeout() != self._timeout_s:  # the driver's own calls set theirs
                self._socket.settimeout(self._timeout_s)
            for piece in frame_payload(parts):
                self._socket.sendall(piece)
        except OSError as exc:
            self._lost("sending to", exc)

    def packet(self) -> bytes:
        """The payload of the next packet, split ones joined.

        Raises:
            PrivilegeMissing, DatabaseError: it is an ERR packet.
            ServerUnreachable: connection lost or timed out.
            ServerUnfit: it is larger than any server sends; nothing of it is passed on.
        """
        payload, length = self._next_packet()
        if payload[:1] == b"\xff":
            raise parse_error(payload, f"running a statement on {self._name}")
        if length < MAX_PAYLOAD:
            return payload
        pieces, size = [payload], length
        while length == MAX_PAYLOAD:
            payload, length = self._next_packet()
            pieces.append(payload)
            size += length
            if size > self._largest:
                raise self._unexpected(f"a packet of more than {self._largest} bytes")
        return b"".join(pieces)

    def received(self) -> tuple[memoryview, int, int]:
        """(buffer, start, end) of what has come and was not taken yet, after waiting for one whole packet; `skip` takes of it.

        The buffer's bytes may change with the next call of anything here.

        Raises:
            ServerUnreachable: connection lost or timed out.
        """
        if len(self._buffer) > self._size and self._start == self._end:
            self._resize(self._size)  # a large packet made it grow
        self._fill(HEADER_BYTES)
        length = _HEADER.unpack_from(self._buffer, self._start)[0] & MAX_PAYLOAD
        self._fill(HEADER_BYTES + length)
        return self._view, self._start, self._end

    def skip(self, size: int) -> None:
        """Takes the first `size` bytes of what was received: whole packets."""
        self._start += size

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

    def execute_select(self, statement: Statement) -> list[bytes]:
        """Starts a prepared SELECT without parameters; the payloads of its column definition packets. `stream_rows` must follow.

        Raises as `packet`.
        """
        self.send(COM_STMT_EXECUTE, struct.pack("<IBI", statement.id, 0, 1))
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

        The packets' sequence numbers are set to 0 (`walk_rows` says why).
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
                return RowTotals(rows=rows, row_bytes=row_bytes, warnings=self._finish_rows())

    def text_rows(self, sql: str) -> list[tuple[bytes | None, ...]]:
        """The few small rows of a statement, as text. Raises as `packet`."""
        self.send(COM_QUERY, sql.encode())
        try:
            return self._text_rows()
        except (ValueError, IndexError) as exc:
            raise self._unexpected(str(exc)) from exc

    def _text_rows(self) -> list[tuple[bytes | None, ...]]:
        columns = len(self._definitions(read_lenenc_int(self.packet(), 0)[0]))
        found = []
        while (row := self.packet())[:1] != b"\xfe" or len(row) >= EOF_LIMIT:
            values, position = list[bytes | None](), 0
            for _ in range(columns):
                if row[position] == _TEXT_NULL:
                    value, position = None, position + 1
                else:
                    value, position = read_lenenc_bytes(row, position)
                values.append(value)
            found.append(tuple(values))
        return found

    def _finish_rows(self) -> int:
        """Takes the packet that ends the rows and lets go of a buffer that a large row made grow; the number of warnings."""
        last, _ = self._next_packet()
        if last[:1] == b"\xff":
            raise parse_error(last, f"reading rows from {self._name}")
        if last[:1] != b"\xfe" or len(last) >= EOF_LIMIT:
            raise self._unexpected(f"a row starting {last[:1].hex()}")
        if len(self._buffer) > self._size and self._start == self._end:
            self._resize(self._size)
        return int.from_bytes(last[1:3], "little")

    def _pass_split_row(self, sink: RowSink) -> int:
        """Bytes of one row made of several packets, handed over packet by packet."""
        row_bytes = 0
        length = MAX_PAYLOAD
        while length == MAX_PAYLOAD:
            self._fill(HEADER_BYTES)
            length = _HEADER.unpack_from(self._buffer, self._start)[0] & MAX_PAYLOAD
            self._fill(HEADER_BYTES + length)
            self._buffer[self._start + 3] = 0
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

    def _unexpected(self, what: str) -> errors.ServerUnfit:
        return errors.ServerUnfit(
            f"unexpected reply of {self._name}: {what}",
            hint="is something between that is not the database server itself? else report it as a defect of kpbackup",
        )
