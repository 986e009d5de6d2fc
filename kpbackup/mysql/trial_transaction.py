"""A transaction made up to try a replay with: one row into a scratch table, as a source of the archive's kind would log it.

It begins with the archive's own format description, so what the target takes here it takes in the replay. Pure.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator

from kpbackup.mysql import events, row_events
from kpbackup.mysql.events import StreamEvent

FILE = "kpbackup-trial.000001"
COLUMN = "a INT PRIMARY KEY"  # what the scratch table must be made with, in InnoDB
VALUE = 42

_DOMAIN = 0xFFFFFFF0  # MariaDB: of no source
_TABLE_ID = struct.pack("<IH", 1, 0)
_LONG = 3
_WRITE_ROWS_V1, _WRITE_ROWS_V2 = 23, 30


def transaction(description: bytes, *, mariadb: bool, with_gtid: bool, number: int, schema: str, table: str) -> list[StreamEvent]:
    """The stream: the description and one transaction. `number` must be greater at each trial on one target."""
    plain = events.without_in_use(description)
    crc = events.checksum_algorithm(plain) == events.CHECKSUM_CRC32
    found = [StreamEvent(FILE, events.FIRST_POSITION, events.FIRST_POSITION + len(plain), events.FORMAT_DESCRIPTION, plain)]
    for kind, body in _bodies(mariadb, with_gtid, number, schema.encode(), table.encode()):
        start = found[-1].end
        end = start + events.HEADER_BYTES + len(body) + (events.CRC_BYTES if crc else 0)
        head = events.HEADER.pack(1, kind, 0x3FFFFFFF, 0, end, 0)
        found.append(StreamEvent(FILE, start, end, kind, events.seal_event(head + body, crc=crc)))
    return found


def _bodies(mariadb: bool, with_gtid: bool, number: int, schema: bytes, table: bytes) -> Iterator[tuple[int, bytes]]:
    if mariadb:
        yield events.MARIADB_GTID, struct.pack("<QIB", number, _DOMAIN, 0x04) + bytes(6)
    else:
        kind = events.MYSQL_GTID if with_gtid else events.MYSQL_ANONYMOUS_GTID
        yield kind, struct.pack("<B16sqBqq", 0, uuid.uuid4().bytes if with_gtid else bytes(16), int(with_gtid), 2, 0, 1)
        yield events.QUERY, struct.pack("<IIBHH", 0, 0, 0, 0, 0) + b"\0BEGIN"
    names = bytes([len(schema)]) + schema + b"\0" + bytes([len(table)]) + table + b"\0"
    yield row_events.TABLE_MAP, _TABLE_ID + b"\x01\x00" + names + bytes([1, _LONG, 0, 0])
    flags = struct.pack("<H", row_events.STATEMENT_ENDS)
    extra = b"" if mariadb else b"\x02\x00"
    row = bytes([1, 0xFF, 0xFE]) + struct.pack("<i", VALUE)
    yield _WRITE_ROWS_V1 if mariadb else _WRITE_ROWS_V2, _TABLE_ID + flags + extra + row
    yield events.XID, bytes(8)
