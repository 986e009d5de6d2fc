"""Binlog files as byte streams: what identifies one, and the events in one read back from storage.

A segment's plaintext is itself a binlog file, so the same reader serves both. Nothing is decoded beyond
framing and CRC32; a damaged, cut or encrypted file is an error, never a shorter file.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from kpbackup import errors
from kpbackup.model.manifest import FileIdentity
from kpbackup.mysql import events
from kpbackup.mysql.events import StreamEvent

_LENGTH = struct.Struct("<I")
_LENGTH_OFFSET = 9


@dataclass(frozen=True)
class FileHead:
    """The beginning of a binlog file: its format description as sent (IN_USE cleared) and what identifies it."""

    file: str
    description: bytes
    identity: FileIdentity


def file_head(file: str, first_events: Iterable[bytes]) -> FileHead:
    """The head of a binlog file from its first two events (format description; GTID list or previous GTIDs).

    Raises:
        IntegrityError: there are no such events, or they are damaged.
        ServerUnfit: the file is encrypted.
    """
    first = list(first_events)[:2]
    if not first or first[0][4] != events.FORMAT_DESCRIPTION:
        raise errors.IntegrityError(f"binlog file {file} does not start with a format description")
    described = events.without_in_use(first[0])
    events.checksum_algorithm(described)
    events.refuse_encrypted(first[-1], file)
    digest = hashlib.sha256(events.MAGIC + described)
    if len(first) == 2 and first[1][4] in (events.PREVIOUS_GTIDS, events.MARIADB_GTID_LIST):
        digest.update(first[1])
    found = events.header(described)
    created_at = datetime.fromtimestamp(found.timestamp_s, UTC)
    return FileHead(file, described, FileIdentity(found.server_id, created_at, digest.hexdigest()))


def read_file(chunks: Iterable[bytes], *, file: str, start_position: int = 0, prefix_bytes: int = 0) -> Iterator[StreamEvent]:
    """The events of a binlog file or of a segment's plaintext, each checked.

    `start_position` and `prefix_bytes` are the segment's. With a prefix, the first event is the repeated format description.

    Raises:
        IntegrityError: not a binlog, a damaged event, or it ends inside an event.
    """
    feed = _Bytes(chunks)
    if feed.take(len(events.MAGIC)) != events.MAGIC:
        raise errors.IntegrityError(f"segment of {file} does not start with the binlog magic")
    position, crc = (start_position, True) if prefix_bytes else (events.FIRST_POSITION, True)
    is_first = True
    while head := feed.peek(events.HEADER_BYTES):
        kind, length = head[4], _LENGTH.unpack_from(head, _LENGTH_OFFSET)[0]
        if length < events.HEADER_BYTES:
            raise errors.IntegrityError(f"binlog event at {file}:{position} has a length of {length} bytes")
        data = feed.take(length)
        if kind == events.FORMAT_DESCRIPTION:
            crc = events.checksum_algorithm(events.without_in_use(data)) == events.CHECKSUM_CRC32
        elif crc:
            events.check_crc(data, f"{file}:{position}")
        if is_first and prefix_bytes:
            yield StreamEvent(file, 0, 0, kind, data)
        else:
            yield StreamEvent(file, position, position + length, kind, data)
            position += length
        is_first = False


class _Bytes:
    """Takes exact numbers of bytes from chunks of any size."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = bytearray()
        self._at = 0

    def peek(self, count: int) -> bytes:
        """The next `count` bytes, b'' at the end of the data; IntegrityError if it ends within them."""
        if not self._fill(count):
            return b""
        return bytes(self._buffer[self._at : self._at + count])

    def take(self, count: int) -> bytes:
        found = self.peek(count)
        if len(found) < count:
            raise errors.IntegrityError("binlog segment ends inside an event")
        self._at += count
        return found

    def _fill(self, count: int) -> bool:
        while len(self._buffer) - self._at < count:
            chunk = next(self._chunks, None)
            if chunk is None:
                if len(self._buffer) > self._at:
                    raise errors.IntegrityError("binlog segment ends inside an event")
                return False
            if self._at:
                del self._buffer[: self._at]
                self._at = 0
            self._buffer += chunk
        return True
