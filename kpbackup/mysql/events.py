"""Binlog event framing: where an event begins and ends, whether it is whole, and what the few decoded kinds say.

Only framing, CRC32, format description, rotate, GTID, query headers and heartbeats are decoded. Everything
else, row events and compressed transactions above all, passes through as raw bytes: what is archived is what
the server wrote. Positions are counted here and not taken from the events, whose 32-bit field wraps at 4 GiB.

Every function is pure. Malformed bytes raise IntegrityError; encrypted binlogs raise ServerUnfit.
An event is held in memory whole, so memory is bounded by the largest one (the server's max_allowed_packet).

Sources: MySQL internals manual, 'Binary Log Event' and mysql::serialization (event 42); MariaDB knowledge base,
'Replication protocol', 'Gtid Event'. Times are microseconds since the epoch, of the source's clock.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from kpbackup import errors
from kpbackup.model.gtid import MysqlGtidSet

MAGIC = b"\xfebin"
HEADER = struct.Struct("<IBIIIH")  # timestamp, type, server id, length, next position, flags
HEADER_BYTES = 19
CRC_BYTES = 4
FIRST_POSITION = 4  # right after the magic

QUERY, STOP, ROTATE, FORMAT_DESCRIPTION, XID, INCIDENT, HEARTBEAT, PREVIOUS_GTIDS = 2, 3, 4, 15, 16, 26, 27, 35
MYSQL_GTID, MYSQL_ANONYMOUS_GTID, MYSQL_GTID_TAGGED, XA_PREPARE, TRANSACTION_PAYLOAD, HEARTBEAT_V2 = 33, 34, 42, 38, 40, 41
BINLOG_CHECKPOINT, MARIADB_GTID, MARIADB_GTID_LIST, START_ENCRYPTION, QUERY_COMPRESSED = 161, 162, 163, 164, 165

FLAG_IN_USE = 0x01  # in a format description: the file is not closed; servers clear it when they send
FLAG_ARTIFICIAL = 0x20  # made up for the connection, not in the file

CHECKSUM_NONE, CHECKSUM_CRC32 = 0, 1
CRC_RESIDUE = 0x2144DF1C  # the CRC32 of anything followed by its own CRC32

_U32 = struct.Struct("<I")
GTID_STANDALONE = 0x01
_GTID_TRANSACTIONAL = 0x04
_GTID_KINDS = 0x04 | GTID_STANDALONE | 0x20 | 0x40 | 0x80  # beside it standalone, DDL, XA prepared and XA completed
_U64 = struct.Struct("<Q")
_INTERVAL = struct.Struct("<QQ")  # of a GTID set: first number, the one behind the last
_MARIADB_GTID_ENTRY = struct.Struct("<IIQ")  # domain, server id, number
_LENGTH_OFFSET = 9
_FLAGS_OFFSET = 17
_QUERY_HEAD = struct.Struct("<IIBHH")  # thread id, seconds, length of database name, error, length of status variables
_FDE_CREATED = HEADER_BYTES + 2 + 50  # after the binlog version and the server version
_MYSQL_GTID_HEAD = struct.Struct("<B16sqBqq")
_MARIADB_GTID_HEAD = struct.Struct("<I10xQIB")  # from the header's server id on
_ORIGINAL_FOLLOWS = 1 << 55


class StreamEvent(NamedTuple):
    """One event at its place: file[start:end] are its bytes.

    A format description given again because the stream starts inside a file has start == end == 0.
    """

    file: str
    start: int
    end: int
    type: int
    data: bytes

    @property
    def is_repeated_description(self) -> bool:
        return self.end == 0

    @property
    def is_resumption(self) -> bool:
        """A format description repeated inside a file: what lies before this place was changed or left out."""
        return self.start == self.end != 0


class Heartbeat(NamedTuple):
    """Nothing new: the source is at this position of this file."""

    file: str
    position: int


class Header(NamedTuple):
    timestamp_s: int
    type: int
    server_id: int
    length: int
    next_position: int
    flags: int


class MariadbGtidEvent(NamedTuple):
    """`standalone`: the transaction is the one statement that follows; otherwise this event is its BEGIN. `may_be_joined`: it
    touches transactional tables alone, and is neither a definition nor XA."""

    gtid: str
    standalone: bool
    ddl: bool
    may_be_joined: bool = False


class MysqlGtidEvent(NamedTuple):
    """`gtid` is '' for an anonymous one; `commit_at_us` is the original commit's, None before MySQL 8.0."""

    gtid: str
    commit_at_us: int | None


def header(data: bytes) -> Header:
    """The 19 bytes every event starts with.

    Raises:
        IntegrityError: cut, or its length is not the event's.
    """
    if len(data) < HEADER_BYTES:
        raise errors.IntegrityError(f"binlog event of {len(data)} bytes is shorter than its header")
    found = HEADER.unpack_from(data)
    if found[3] != len(data):
        raise errors.IntegrityError(f"binlog event says it has {found[3]} bytes, it has {len(data)}")
    return Header._make(found)


def has_valid_crc(data: bytes) -> bool:
    """Whether the last four bytes are the CRC32 of all before them."""
    return len(data) > CRC_BYTES and zlib.crc32(data) == CRC_RESIDUE


def check_crc(data: bytes, where: str) -> None:
    """Raises IntegrityError, naming `where`, when the event's CRC32 is wrong."""
    if not has_valid_crc(data):
        raise errors.IntegrityError(
            f"binlog event at {where} fails its CRC32 check",
            hint="does the position lie between two events? else the binlog is damaged",
        )


def seal_event(body: bytes, *, crc: bool = True) -> bytes:
    """An event made or changed by us: the length is set and, if asked, the CRC32 appended."""
    fixed = bytearray(body)
    _U32.pack_into(fixed, _LENGTH_OFFSET, len(body) + (CRC_BYTES if crc else 0))
    return bytes(fixed) + (_U32.pack(zlib.crc32(fixed)) if crc else b"")


def checksum_algorithm(description: bytes) -> int:
    """What a format description says about the events after it: CHECKSUM_NONE or CHECKSUM_CRC32.

    Raises:
        IntegrityError: cut, damaged, or another algorithm.
    """
    if len(description) < _FDE_CREATED + 10:
        raise errors.IntegrityError("format description event is cut")
    algorithm = description[-CRC_BYTES - 1]
    if algorithm not in (CHECKSUM_NONE, CHECKSUM_CRC32):
        raise errors.IntegrityError(f"binlog checksum algorithm {algorithm} is unknown")
    check_crc(description, "the format description")  # it carries one whatever the algorithm
    return algorithm


def without_in_use(description: bytes) -> bytes:
    """The format description of a closed file: the IN_USE flag cleared, the CRC right for that.

    The CRC in a file is always the one of the cleared flag, so only the flag changes.
    """
    flags = description[_FLAGS_OFFSET] & ~FLAG_IN_USE
    return description[:_FLAGS_OFFSET] + bytes([flags]) + description[_FLAGS_OFFSET + 1 :]


def as_repeated(description: bytes) -> bytes:
    """The format description as a source sends it when it starts inside a file.

    No position of its own and no creation time: a replica takes the latter as 'the source restarted' and drops
    its temporary tables.
    """
    body = bytearray(without_in_use(description)[:-CRC_BYTES])
    _U32.pack_into(body, 13, 0)
    _U32.pack_into(body, _FDE_CREATED, 0)
    return seal_event(bytes(body))


def event_body(data: bytes, crc: bool) -> bytes:
    """What lies between header and CRC."""
    return data[HEADER_BYTES : len(data) - CRC_BYTES] if crc else data[HEADER_BYTES:]


def artificial_event(
    kind: int, body: bytes, *, server_id: int, next_position: int = 0, flags: int = 0, crc: bool = True
) -> bytes:
    """An event that is in no file: timestamp 0."""
    return seal_event(HEADER.pack(0, kind, server_id, 0, next_position & 0xFFFFFFFF, flags) + body, crc=crc)


def rotate_target(data: bytes) -> tuple[str, int]:
    """(next file, position in it) of a ROTATE event, with or without CRC."""
    body = event_body(data, has_valid_crc(data))
    if len(body) < 9:
        raise errors.IntegrityError("rotate event is cut")
    return body[8:].decode("utf-8", "surrogateescape"), int.from_bytes(body[:8], "little")


def heartbeat_position(data: bytes) -> tuple[str, int]:
    """(file, position) of a heartbeat, kind 27 or 41. The position of kind 27 is 32 bits wide."""
    body = event_body(data, has_valid_crc(data))
    if len(data) < HEADER_BYTES:
        raise errors.IntegrityError("heartbeat event is cut")
    if data[4] == HEARTBEAT:
        return body.decode("utf-8", "surrogateescape"), _U32.unpack_from(data, 13)[0]
    name, position, at = "", 0, 0
    while at + 1 < len(body) and body[at]:
        field, length = body[at], body[at + 1]
        value = body[at + 2 : at + 2 + length]
        if field == 1:
            name = value.decode("utf-8", "surrogateescape")
        elif field == 2:
            position = _lenenc(value)
        at += 2 + length
    return name, position


def query_text(data: bytes, limit: int = 64) -> bytes:
    """The first `limit` bytes of a QUERY event's statement (also MariaDB's compressed kind)."""
    try:
        _, _, database_bytes, _, status_bytes = _QUERY_HEAD.unpack_from(data, HEADER_BYTES)
        start = HEADER_BYTES + _QUERY_HEAD.size + status_bytes + database_bytes + 1
        text = data[start : len(data) - CRC_BYTES] if has_valid_crc(data) else data[start:]
        if data[4] == QUERY:
            return text[:limit]
        length_bytes = text[0] & 0x07
        return zlib.decompressobj().decompress(text[1 + length_bytes :], limit)
    except (struct.error, IndexError, zlib.error) as exc:
        raise errors.IntegrityError(f"query event is malformed: {exc}") from exc


def query_database(data: bytes) -> str:
    """The default database of a QUERY event's session, '' for none."""
    try:
        _, _, database_bytes, _, status_bytes = _QUERY_HEAD.unpack_from(data, HEADER_BYTES)
    except struct.error as exc:
        raise errors.IntegrityError("query event is cut") from exc
    start = HEADER_BYTES + _QUERY_HEAD.size + status_bytes
    return data[start : start + database_bytes].decode("utf-8", "surrogateescape")


def mariadb_gtid_numbers(data: bytes) -> tuple[int, int, int, int]:
    """(server id, sequence number, domain, flags) of event 162."""
    try:
        return _MARIADB_GTID_HEAD.unpack_from(data, 5)
    except struct.error as exc:
        raise errors.IntegrityError("MariaDB GTID event is cut") from exc


def mariadb_gtid_head(data: bytes) -> tuple[str, int]:
    """(GTID, flags) of event 162."""
    server_id, seq, domain, flags = mariadb_gtid_numbers(data)
    return f"{domain}-{server_id}-{seq}", flags


def mariadb_gtid(data: bytes) -> MariadbGtidEvent:
    """Event 162."""
    gtid, flags = mariadb_gtid_head(data)
    return MariadbGtidEvent(
        gtid, standalone=bool(flags & GTID_STANDALONE), ddl=bool(flags & 0x20),
        may_be_joined=flags & _GTID_KINDS == _GTID_TRANSACTIONAL,
    )


def at_place_of(data: bytes, other: bytes) -> bytes:
    """An event with the time and the position of another one."""
    crc = has_valid_crc(data)
    body = data[: len(data) - CRC_BYTES] if crc else data
    return seal_event(other[:4] + body[4:13] + other[13:17] + body[17:], crc=crc)


def mysql_gtid(data: bytes) -> MysqlGtidEvent:
    """Events 33, 34 (anonymous) and 42 (tagged)."""
    try:
        if data[4] == MYSQL_GTID_TAGGED:
            return _tagged_gtid(data)
        _, uuid, number, _, _, _ = _MYSQL_GTID_HEAD.unpack_from(data, HEADER_BYTES)
    except (struct.error, IndexError, UnicodeDecodeError) as exc:
        raise errors.IntegrityError(f"MySQL GTID event is malformed: {exc}") from exc
    gtid = "" if data[4] == MYSQL_ANONYMOUS_GTID else f"{_uuid_text(uuid)}:{number}"
    return MysqlGtidEvent(gtid, _commit_time(data, HEADER_BYTES + _MYSQL_GTID_HEAD.size))


def gtids_before(data: bytes, *, crc: bool = True) -> str:
    """What a file's second event says was executed before the file: MySQL's set (35), MariaDB's binlog state (163).

    Of MariaDB's GTIDs the last one of a domain is the domain's last.

    Raises:
        IntegrityError: it is another event, or malformed.
    """
    body = event_body(data, crc)
    try:
        if data[4] == PREVIOUS_GTIDS:
            return str(_mysql_set(body))
        if data[4] == MARIADB_GTID_LIST:
            count = _U32.unpack_from(body)[0] & 0x0FFFFFFF
            found = (_MARIADB_GTID_ENTRY.unpack_from(body, 4 + n * _MARIADB_GTID_ENTRY.size) for n in range(count))
            return ",".join(f"{domain}-{server_id}-{seq}" for domain, server_id, seq in found)
    except (struct.error, IndexError, UnicodeDecodeError, ValueError) as exc:
        raise errors.IntegrityError(f"the list of GTIDs that a binlog file begins with is malformed: {exc}") from exc
    raise errors.IntegrityError(f"a binlog file begins with an event of kind {data[4]} instead of a list of GTIDs")


def _mysql_set(body: bytes) -> MysqlGtidSet:
    """Byte 7 tells the form: 1 has tags, and a number of entries in bytes 1 to 6."""
    is_tagged = len(body) >= 8 and body[7] == 1
    count = int.from_bytes(body[1:7] if is_tagged else body[:8], "little")
    at, found = 8, {}
    for _ in range(count):
        uuid, tag, at = body[at : at + 16], "", at + 16
        if len(uuid) < 16:
            raise IndexError("set is cut")
        if is_tagged:
            length, at = _varint(body, at)
            tag, at = body[at : at + length].decode("ascii"), at + length
        intervals, at = _U64.unpack_from(body, at)[0], at + 8
        pairs = [_INTERVAL.unpack_from(body, at + 16 * n) for n in range(intervals)]
        found[(_uuid_text(uuid), tag)] = [(first, behind - 1) for first, behind in pairs]
        at += 16 * intervals
    return MysqlGtidSet.of(found)


def _commit_time(data: bytes, at: int) -> int | None:
    """Seven bytes, and seven more for the original commit when the top bit says so."""
    if at + 7 > len(data) - CRC_BYTES:
        return None  # MySQL 5.7 has no times here
    immediate = int.from_bytes(data[at : at + 7], "little")
    if immediate & _ORIGINAL_FOLLOWS:
        return int.from_bytes(data[at + 7 : at + 14], "little")
    return immediate


def _tagged_gtid(data: bytes) -> MysqlGtidEvent:
    _, at = _varint(data, HEADER_BYTES)  # version of the encoding
    size, at = _varint(data, at)  # of the whole message
    end = HEADER_BYTES + size
    if end > len(data):
        raise IndexError("message is cut")
    _, at = _varint(data, at)  # last field that a reader must know
    uuid, tag, number, immediate, original = b"", "", 0, 0, None
    while at < end:
        field, at = _varint(data, at)
        if field == 1:
            parts = bytearray()
            for _ in range(16):
                value, at = _varint(data, at)
                parts.append(value & 0xFF)
            uuid = bytes(parts)
        elif field == 3:
            length, at = _varint(data, at)
            tag, at = data[at : at + length].decode("ascii"), at + length
        else:
            value, at = _varint(data, at)
            if field == 2:
                number = value >> 1  # zigzag; numbers are positive
            elif field == 6:
                immediate = value
            elif field == 7:
                original = value
    gtid = ":".join(part for part in (_uuid_text(uuid), tag, str(number)) if part)
    return MysqlGtidEvent(gtid, original if original is not None else immediate)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """mysql::serialization: as many bytes follow the first as it ends in 1 bits; the rest is a little-endian number."""
    first = data[at]
    extra = 0
    while extra < 8 and first >> extra & 1:
        extra += 1
    raw = data[at : at + extra + 1]
    if len(raw) <= extra:
        raise IndexError("number is cut")
    value = int.from_bytes(raw[1:], "little") if extra == 8 else int.from_bytes(raw, "little") >> (extra + 1)
    return value, at + extra + 1


def _lenenc(value: bytes) -> int:
    width = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(value[0]) if value else None
    return int.from_bytes(value[1 : 1 + width], "little") if width else int.from_bytes(value[:1], "little")


def _uuid_text(uuid: bytes) -> str:
    text = uuid.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def refuse_encrypted(data: bytes, where: str) -> None:
    if data[4] == START_ENCRYPTION:
        raise errors.ServerUnfit(
            f"binlog {where} is encrypted by the server", hint="switch encrypt_binlog off; kpbackup encrypts what it stores"
        )
