"""The server side of one replica's connection: packets, login, and the small answers before the stream.

Speaks just what the I/O threads of MariaDB 10.11/11.8 and MySQL 9.7 say. One account with a random password,
checked by mysql_native_password (MariaDB) or the fast path of caching_sha2_password (MySQL): neither needs TLS to
keep the password secret. With a TLS context nobody logs in without TLS; without one the events cross the network in the
clear.

Protocol source: "MySQL Client/Server Protocol", connection phase and text result sets.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import socket
import ssl
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

HANDSHAKE_TIMEOUT_S = 30.0
SEND_TIMEOUT_S = 600.0  # a replica that takes nothing for this long is taken for dead; it will come back

COM_QUIT, COM_QUERY, COM_PING, COM_BINLOG_DUMP, COM_REGISTER_REPLICA = 0x01, 0x03, 0x0E, 0x12, 0x15

_MAX_PAYLOAD = 0xFFFFFF
# long password, found rows, long flag, database, 4.1 protocol, transactions, secure connection, plugin, lenenc login data
_CAPABILITIES = 0x1 | 0x2 | 0x4 | 0x8 | 0x200 | 0x2000 | 0x8000 | 0x80000 | 0x200000
_LENENC_LOGIN, _TLS = 0x200000, 0x800
_TLS_REQUEST_BYTES = 32  # the login packet, cut off before the user's name
_UTF8 = 33
_VARCHAR = 253
_OK = b"\x00\x00\x00\x02\x00\x00\x00"
_EOF = b"\xfe\x00\x00\x02\x00"
_DUMP = struct.Struct("<IHI")


@dataclass(frozen=True)
class Account:
    """The one-time login of the target's I/O thread. MySQL allows 32 characters of password here."""

    user: str = field(default_factory=lambda: "kpbackup_" + secrets.token_hex(4))
    password: str = field(default_factory=lambda: secrets.token_hex(15), repr=False)


@dataclass(frozen=True)
class Persona:
    """What the source says of itself. `server_id` and `server_uuid` must not be the target's."""

    flavour: str
    version: str
    server_id: int
    server_uuid: str
    gtid_mode: str


@dataclass(frozen=True)
class DumpRequest:
    file: str
    position: int


class ReplicaSession:
    """One connection. Every method raises OSError (EOFError at its end) when the replica is gone."""

    def __init__(
        self, connected: socket.socket, persona: Persona, account: Account, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self._socket = connected
        self._tls = tls
        self._persona = persona
        self._account = account
        self._sequence = 0
        self.heartbeat_s = 1.0
        connected.settimeout(HANDSHAKE_TIMEOUT_S)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Ends the connection, also under a thread that is sending."""
        try:
            # not the method of a TLS socket: it forgets its cipher first, and a thread that is sending would go on in the clear
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            pass  # the replica was faster
        self._socket.close()

    def login(self) -> bool:
        """Greets and checks the login; False when it was refused."""
        nonce = bytes(secrets.choice(range(0x30, 0x7B)) for _ in range(20))  # no zero byte, no '$'
        is_mariadb = self._persona.flavour == "mariadb"
        plugin = b"mysql_native_password" if is_mariadb else b"caching_sha2_password"
        offered = _CAPABILITIES | (_TLS if self._tls is not None else 0)
        self._write(
            b"\x0a" + self._persona.version.encode() + b"\0" + struct.pack("<I", 1) + nonce[:8] + b"\0"
            + struct.pack("<HBHHB", offered & 0xFFFF, _UTF8, 2, offered >> 16, 21) + bytes(10)
            + nonce[8:] + b"\0" + plugin + b"\0"
        )
        login = self._read()
        if self._tls is not None:
            if len(login) != _TLS_REQUEST_BYTES:
                self.refuse(3159, "HY000", "Connections using insecure transport are prohibited")
                return False
            self._socket = self._tls.wrap_socket(self._socket, server_side=True)
            login = self._read()
        user, answer = _parse_login(login)
        expected = (_native_answer if is_mariadb else _sha2_answer)(self._account.password.encode(), nonce)
        if user != self._account.user or not hmac.compare_digest(answer, expected):
            self.refuse(1045, "28000", "Access denied")
            return False
        if not is_mariadb:
            self._write(b"\x01\x03")  # fast authentication succeeded
        self._write(_OK)
        return True

    def until_dump(self) -> DumpRequest | None:
        """Answers what comes before the stream; None when the replica says goodbye instead of asking for it."""
        while True:
            request = self._read()
            command = request[0] if request else COM_QUIT
            if command == COM_QUIT:
                return None
            if command == COM_BINLOG_DUMP and len(request) > _DUMP.size:
                position, _, _ = _DUMP.unpack_from(request, 1)
                return DumpRequest(request[1 + _DUMP.size :].decode("utf-8", "surrogateescape"), position)
            if command == COM_QUERY:
                self._answer(request[1:].decode("utf-8", "replace"))
            elif command in (COM_PING, COM_REGISTER_REPLICA):
                self._write(_OK)
            else:
                self.refuse(1047, "08S01", "Unknown command")

    def begin_stream(self) -> None:
        """From now on only events go out, for as long as they take."""
        self._socket.settimeout(SEND_TIMEOUT_S)

    def send_events(self, events: Iterable[bytes]) -> None:
        """Sends events, each as one packet (a large one split)."""
        parts: list[bytes] = []
        for event in events:
            left, start = len(event) + 1, 0
            while True:
                room = min(left, _MAX_PAYLOAD)
                parts.append(struct.pack("<I", room | self._sequence << 24))
                self._sequence = (self._sequence + 1) & 0xFF
                taken = room if start else room - 1
                if not start:
                    parts.append(b"\0")
                parts.append(event[start : start + taken] if start or taken < len(event) else event)
                start, left = start + taken, left - room
                if room < _MAX_PAYLOAD:
                    break
        self._socket.sendall(b"".join(parts))

    def refuse(self, number: int, state: str, text: str) -> None:
        """An ERR packet."""
        self._write(b"\xff" + struct.pack("<H", number) + b"#" + state.encode() + text.encode()[:500])

    def _answer(self, sql: str) -> None:
        found = _NANOSECONDS.search(sql)
        if found:
            # half of what was asked, at most a second: a beat must come before the replica loses patience
            self.heartbeat_s = min(max(int(found[1]) / 2e9, 0.1), 1.0)
        row = self._row_for(" ".join(sql.upper().split()))
        if row is None:
            self._write(_OK)
            return
        self._write(bytes([len(row)]))
        for number in range(len(row)):
            name = _lenenc(f"c{number}".encode())
            tail = b"\x0c" + struct.pack("<HIBHB", _UTF8, 255, _VARCHAR, 0, 0) + b"\0\0"
            self._write(b"\x03def\0\0\0" + name + b"\0" + tail)
        self._write(_EOF)
        self._write(b"".join(_lenenc(value.encode()) for value in row))
        self._write(_EOF)

    def _row_for(self, sql: str) -> tuple[str, ...] | None:
        """The one row that answers a statement; None: OK is enough."""
        own = self._persona
        if not sql.startswith(("SELECT", "SHOW")):
            return None
        if "UNIX_TIMESTAMP" in sql:
            return (str(int(time.time())),)
        if "LIKE 'SERVER_ID'" in sql:
            return ("server_id", str(own.server_id))
        answers = {
            "BINLOG_CHECKSUM": "CRC32", "GTID_DOMAIN_ID": "0", "SERVER_ID": str(own.server_id), "SERVER_UUID": own.server_uuid,
            "GTID_MODE": own.gtid_mode, "COLLATION_SERVER": "utf8mb4_general_ci", "TIME_ZONE": "SYSTEM",
        }
        return next(((value,) for name, value in answers.items() if name in sql), None)

    def _read(self) -> bytes:
        head = self._exactly(4)
        self._sequence = (head[3] + 1) & 0xFF
        return self._exactly(int.from_bytes(head[:3], "little"))

    def _exactly(self, count: int) -> bytes:
        found = bytearray()
        while len(found) < count:
            piece = self._socket.recv(count - len(found))
            if not piece:
                raise EOFError("the replica closed the connection")
            found += piece
        return bytes(found)

    def _write(self, payload: bytes) -> None:
        self._socket.sendall(struct.pack("<I", len(payload) | self._sequence << 24) + payload)
        self._sequence = (self._sequence + 1) & 0xFF


_NANOSECONDS = re.compile(r"heartbeat_period\s*=\s*(\d+)", re.IGNORECASE)


def _lenenc(value: bytes) -> bytes:
    return bytes([len(value)]) + value  # every answer is shorter than 251 bytes


def _parse_login(packet: bytes) -> tuple[str, bytes]:
    """(user, authentication data) of a handshake response; ('', b'') when it is none."""
    if len(packet) < 34:
        return "", b""  # an SSLRequest, which was not offered
    capabilities = int.from_bytes(packet[:4], "little")
    user, _, rest = packet[32:].partition(b"\0")
    if not rest or (capabilities & _LENENC_LOGIN and rest[0] > 250):
        return "", b""
    return user.decode("utf-8", "replace"), rest[1 : 1 + rest[0]]


def _native_answer(password: bytes, nonce: bytes) -> bytes:
    """As mysql_native_password demands it; the secret is random and used once."""
    once = _sha1(password)
    return _xor(once, _sha1(nonce + _sha1(once)))


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()


def _sha2_answer(password: bytes, nonce: bytes) -> bytes:
    once = hashlib.sha256(password).digest()
    return _xor(once, hashlib.sha256(hashlib.sha256(once).digest() + nonce).digest())


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
