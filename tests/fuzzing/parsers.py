"""The parsers of bytes from outside, each with real inputs to start from and what it may raise.

A parser answers, or refuses with an error of ours (InternalError is none). `refusals` are what else it promises to raise, because
its callers say what was being read. Anything else is a defect, and so is taking forever.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import zstandard

from kpbackup import config, errors
from kpbackup.model import canonical, codec, gtid, heads, manifest
from kpbackup.mysql import (
    account_statements,
    binlog_file,
    events,
    frame,
    json_types,
    packets,
    payload,
    query_event,
    replica_session,
    row_events,
    server,
    statements,
    table_text,
    wire,
)
from kpbackup.pipeline import age_header, age_texts, compress, encrypt, sign, stream
from kpbackup.recovery import profile
from kpbackup.repository import keys, objects
from kpbackup.service import guard
from kpbackup.service import http as web
from tests.vectors.vector import HOME, Vector

REPOSITORY = HOME / "repository"
VECTOR = Vector(REPOSITORY)
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Parser:
    parse: Callable[[bytes], object]
    originals: tuple[bytes, ...]
    refusals: tuple[type[Exception], ...] = ()

    def feed(self, data: bytes) -> None:
        """Raises what must not happen."""
        refusals: tuple[type[Exception], ...] = (errors.KpbackupError, *self.refusals)
        try:
            self.parse(data)
        except errors.InternalError:
            raise
        except refusals:
            pass


# -- what is stored


def _objects(prefix: str) -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in VECTOR.files(prefix))


def _opened(prefix: str, kind: type[Any]) -> bytes:
    """The plaintext of the first segment of the frozen repository."""
    repository = VECTOR.repository()
    path = VECTOR.files(prefix)[0]
    value, offset = repository.read(VECTOR.key_of(path), kind)
    identity = keys.open_data_key(repository, value.sealing, VECTOR.identities)
    return b"".join(stream.unseal((path.read_bytes()[offset:],), (identity,)))


def _rows() -> bytes:
    """The plaintext of a data object with rows."""
    repository = VECTOR.repository()
    path = VECTOR.files("timelines/0001/sets/")[0]
    backup_set, _ = repository.read(VECTOR.key_of(path), manifest.BackupSet)
    identity = keys.open_data_key(repository, backup_set.sealing, VECTOR.identities)
    sealed = (REPOSITORY / backup_set.objects[0].key).read_bytes()
    return b"".join(stream.unseal((sealed,), (identity,)))


def _read_manifest(data: bytes) -> object:
    return objects.parse(data, key="timelines/0001/sets/2026-11/0000000001", public_keys=VECTOR.public_keys)


def _decoded_as(*kinds: type[Any]) -> Callable[[bytes], object]:
    def parse(data: bytes) -> object:
        document = canonical.loads(data, what="it")
        for kind in kinds:
            try:
                return codec.decode(kind, document, what="it")
            except errors.IntegrityError:
                continue
        return None

    return parse


def _decrypt(data: bytes) -> object:
    decryptor = encrypt.Decryptor(VECTOR.identities)
    return decryptor.decrypt(data) + decryptor.finish()


def _decompress(data: bytes) -> object:
    unpack = compress.Decompressor()
    size = sum(len(piece) for piece in unpack.decompress(data))
    unpack.finish()
    return size


def _signature(data: bytes) -> object:
    return sign.verify(b"text", data.decode("utf-8", "replace"), VECTOR.public_keys)


def _frames(data: bytes) -> object:
    reader, blocks = frame.FrameReader((data[:100], data[100:])), 0
    while reader.next_frame() is not None:
        blocks += sum(1 for _ in reader.blocks())
    return blocks


BINLOG = _opened("timelines/0001/segments/", manifest.BinlogSegment)
EVENTS = tuple(bytes(one.data) for one in binlog_file.read_file((BINLOG,), file="binlog.000001"))
MANIFESTS = tuple(data.split(b"\n")[4] for data in _objects("timelines/") if data.count(b"\n") >= 5)
SEALED = _objects("data/")[0]
AGE_HEADER = SEALED[: age_header.find_end(SEALED, complete=True)]
_PAGE = (
    b'{"head":{"created_at":"2026-11-27T00:00:00Z","format":1,"key":"timelines/0001/pages/0/0000000001","kind":"page",'
    b'"repository":"x","requires":[],"seq":1,"timeline":"0001"},"rows":{"bytes":10,"encoding":"zstd","sha256":"00"},"stretch":{"first_seq":1,"last_seq":8}}'
)
STORED = {
    "signed manifest": Parser(_read_manifest, _objects("timelines/")),
    "manifest of any kind": Parser(
        _decoded_as(manifest.BackupSet, manifest.BinlogSegment, manifest.Timeline, manifest.Pin, manifest.Compacted), MANIFESTS
    ),
    "catalogue page": Parser(_decoded_as(manifest.Page, manifest.BinlogSegment), (*MANIFESTS, _PAGE)),
    "head file": Parser(_decoded_as(heads.Heads), (b'{"links":{},"logs":{"timelines":1},"repository":"x"}',)),
    "minisign": Parser(_signature, _objects("reader-1.py.minisig")),
    "signing public key": Parser(lambda data: sign.PublicKey.parse(data.decode("utf-8", "replace")),
                                 ((HOME / "keys" / "signing.pub").read_bytes(),)),
    "age header": Parser(age_header.parse, (AGE_HEADER,)),
    "age recipient": Parser(lambda data: age_texts.parse_recipient(data.decode("utf-8", "replace")),
                            tuple(str(one.recipient).encode() for one in VECTOR.identities)),
    "age file": Parser(_decrypt, _objects("keys/")),
    "zstd": Parser(_decompress, (b"\x28\xb5\x2f\xfd\x04\x58\x29\x00\x00kpbackup", zstandard.compress(b"kpbackup" * 50))),
    "rows of a chunk": Parser(_frames, (_rows(),)),
}


# -- what a server sends


def _counted(data: bytes) -> object:
    """A table map, and rows of that table behind it."""
    size = int.from_bytes(data[9:13], "little") if len(data) > 13 else 0
    table = row_events.parse_table_map(data[:size])
    rows = data[size:]
    if len(rows) < events.HEADER_BYTES or rows[4] not in row_events._KINDS:
        return None
    counter = row_events.RowCounter(table)
    return counter.at_most(rows), counter.count(rows), row_events.uncompressed(rows)


def _unpacked(data: bytes) -> object:
    return sum(1 for _ in payload.contents(events.StreamEvent("binlog.000001", 4, 4 + len(data), data[4], data)))


def _query(data: bytes) -> object:
    query = query_event.parse(data)
    return query.invoker, [query_event.assignments(query, mariadb=flavour) for flavour in (True, False)]


def _answers(data: bytes) -> object:
    """A server's answer to a statement, and after it to a prepared SELECT."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data[:8192])
        theirs.shutdown(socket.SHUT_WR)
        link = wire.WireSocket(
            server.Connection(server.Endpoint(host="x"), SimpleNamespace(client_flag=0, _sock=ours)),
            buffer_bytes=512, timeout_s=5,
        )
        link.text_rows("SELECT 1")
        return link.stream_rows(lambda view: None)


def _packets(*payloads: bytes) -> bytes:
    return b"".join(packets.packet_header(len(one), number) + one for number, one in enumerate(payloads, 1))


def _sql(data: bytes) -> object:
    text = data.decode("utf-8", "surrogateescape")
    statements.read(text, database="shop")
    return [account_statements.named_accounts(text, mariadb=flavour) for flavour in (True, False)]


_COLUMN = b"\x03def\x04shop\x01t\x01t\x02id\x02id\x0c\x3f\x00\x0b\x00\x00\x00\x03\x03\x42\x00\x00\x00"
_EOF = b"\xfe\x00\x00\x02\x00"
_ANSWER = _packets(b"\x01", _COLUMN, _EOF, b"\x0242", _EOF, b"\x00\x00\x2a\x00\x00\x00", _EOF)
_TABLE_MAPS = tuple(one for one in EVENTS if one[4] == 19)
_ROWS = tuple(one for one in EVENTS if one[4] in row_events._KINDS)
_STATEMENTS = (
    b"GRANT SELECT, INSERT (a) ON `shop`.* TO 'u'@'%' IDENTIFIED BY 'x' WITH GRANT OPTION",
    b"CREATE OR REPLACE DEFINER=`a`@`b` SQL SECURITY INVOKER VIEW v AS SELECT '/*' /*! 1 */ -- x\n FROM t",
    b"ALTER USER IF EXISTS u@h, 'v' ACCOUNT LOCK", b"RENAME TABLE a.b TO c.d, e TO f", b"DROP TABLE IF EXISTS `a``b`, c /* x */",
)
_CREATE = (
    b"CREATE TABLE `t` (\n  `id` int(11) NOT NULL AUTO_INCREMENT COMMENT 'a,b''c',\n  `e` enum('a','b') DEFAULT 'a',\n"
    b"  PRIMARY KEY (`id`),\n  KEY `k` (`e`)\n) ENGINE=InnoDB PAGE_CHECKSUM=1 DEFAULT CHARSET=utf8mb4 STATS_PERSISTENT=1"
)
_REFUSED = (ValueError,)
SENT = {
    "binlog": Parser(lambda data: list(binlog_file.read_file((data,), file="binlog.000001")), (BINLOG,)),
    "event header": Parser(events.header, EVENTS),
    "format description": Parser(events.checksum_algorithm, EVENTS),
    "rotate": Parser(events.rotate_target, EVENTS),
    "heartbeat": Parser(events.heartbeat_position, EVENTS),
    "query text": Parser(events.query_text, EVENTS),
    "query database": Parser(events.query_database, EVENTS),
    "MariaDB GTID event": Parser(events.mariadb_gtid, EVENTS),
    "MySQL GTID event": Parser(events.mysql_gtid, EVENTS),
    "query": Parser(_query, EVENTS),
    "table map": Parser(row_events.parse_table_map, EVENTS),
    "row events": Parser(_counted, tuple(a + b for a in _TABLE_MAPS for b in _ROWS)),
    "compressed transaction": Parser(lambda data: _unpacked(data if len(data) > 23 else bytes(24)), tuple(
        events.seal_event(bytes(4) + bytes([40]) + bytes(14) + b"\x02\x01\xff\x01\x01\x28\x00" + one) for one in EVENTS)),
    "MySQL GTID set": Parser(
        lambda data: gtid.MysqlGtidSet.parse(data.decode("utf-8", "replace")),
        (b"3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7,4e11fa47-71ca-11e1-9e33-c80aa9429562:tag:9",), _REFUSED,
    ),
    "MariaDB GTID position": Parser(
        lambda data: gtid.MariadbGtidPosition.parse(data.decode("utf-8", "replace")), (b"0-1-2,1-11-45",), _REFUSED
    ),
    "column definition": Parser(packets.parse_column_definition, (_COLUMN,), _REFUSED),
    "OK packet": Parser(packets.parse_ok, (b"\x00\x01\x00\x02\x00\x00\x00",), _REFUSED),
    "error packet": Parser(lambda data: packets.parse_error(data, "asking"), (b"\xff\x15\x04#28000Access denied",)),
    "answers on the wire": Parser(_answers, (_ANSWER, _packets(b"\xff\x15\x04#28000Access denied"))),
    "statements": Parser(_sql, _STATEMENTS),
    "table definition": Parser(lambda data: table_text.in_one_order(
        table_text.creatable(data.decode("utf-8", "surrogateescape"), flavour="mariadb")), (_CREATE,)),
    "typed JSON": Parser(lambda data: json_types.typed_values(*data.partition(b"|")[::2]),
                         (b'[1.0, {"a": "x"}]|[1d,.1b252', b'{"a": [1, 2]}|[1i,[2u', b'"2026-01-01"|d')),
}


# -- who connects, and what is configured


_LISTENER = socket.create_server(("127.0.0.1", 0))


def _replica(data: bytes) -> object:
    """What a replica sends before the stream; its login is not asked for, so that this gets further."""
    theirs = socket.create_connection(_LISTENER.getsockname())
    ours, _ = _LISTENER.accept()
    with theirs:
        theirs.sendall(data[:8192])
        theirs.shutdown(socket.SHUT_WR)
        persona = replica_session.Persona("mariadb", "10.11.19-MariaDB", 5, "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "OFF")
        session = replica_session.ReplicaSession(ours, persona, replica_session.Account())
        with closing(session):
            return session.until_dump()


class _Requests:
    """A web server whose handler is given connected sockets, in this thread."""

    def __init__(self) -> None:
        pages: web.Pages = {"/": lambda query: web.text_answer("here"), "/api/health": web.alive}
        self._directory = tempfile.TemporaryDirectory()
        secret = Path(self._directory.name) / "secret"
        secret.write_bytes(b"a secret that no fuzzer guesses\n")
        self._server = web.WebServer(("127.0.0.1", 0), pages, access=guard.Access("user", str(secret), str(secret)))

    def take(self, data: bytes) -> object:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(data[:8192])
            theirs.shutdown(socket.SHUT_WR)
            self._server._server.finish_request(ours, ("x", 0))
            ours.shutdown(socket.SHUT_WR)
            answer = theirs.recv(65_536)
        if b"\r\n\r\nhere" in answer:
            raise AssertionError("somebody without the secret was let in")
        return answer


class _Settings:
    """Settings from one file, written anew."""

    def __init__(self) -> None:
        self._file = tempfile.NamedTemporaryFile(suffix=".yaml")  # noqa: SIM115 - it lives as long as the process

    def load(self, data: bytes) -> object:
        self._file.seek(0)
        self._file.truncate()
        self._file.write(data)
        self._file.flush()
        return config.load(self._file.name, {})


_SETTINGS = (
    b"timezone: Asia/Shanghai\nrepository:\n  url: s3://b/p\n  lock: {mode: compliance, days: 3}\nschedule:\n  full: 0 2 * * *\n"
    b"archive: {continuous: true, interval: 5s}\nobjectives: {rpo: 1h, rto: 30m}\nservice: {listen: '127.0.0.1:8080'}\n"
)
_REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic eA==\r\n\r\n", b"HEAD /?a=b HTTP/1.0\r\n\r\n",
    b"GET /api/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
)
_COMMANDS = tuple(
    packets.packet_header(len(one), 0) + one
    for one in (
        b"\x03SELECT UNIX_TIMESTAMP()", b"\x15" + bytes(18), b"\x03SET @master_heartbeat_period=2000000000", b"\x0e",
        b"\x12\x04\x00\x00\x00\x00\x00\x05\x00\x00\x00binlog.000001",
    )
)
_LOGIN = bytes.fromhex("85a67f000000000121") + bytes(23) + b"kp\0\x14" + bytes(20)
GIVEN = {
    "HTTP request": Parser(_Requests().take, _REQUESTS),
    "commands of a replica": Parser(_replica, (*_COMMANDS, b"".join(_COMMANDS)), (OSError, EOFError)),
    "login of a replica": Parser(replica_session._parse_login, (_LOGIN,)),
    "settings": Parser(_Settings().load, (b"source: {host: h, user: u}\nretention: {days: 3}\n", _SETTINGS)),
    "verification profile": Parser(lambda data: profile.parse(data, what="it"), (
        (ROOT / "kpbackup" / "profiles" / "generic.yaml").read_bytes(),)),
}
PARSERS: dict[str, Parser] = STORED | SENT | GIVEN
