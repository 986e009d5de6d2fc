"""Binlog files as byte streams: what identifies one, and the events in one read back from storage.

A segment's plaintext is itself a binlog file, so the same reader serves both. Nothing is decoded beyond
framing and CRC32; a damaged, cut or encrypted file is an error, never a shorter file.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
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
    position, crc = (start_position, True) if prefix_bytes else (events.FIRST_POSITION, True)
    new, checked = tuple.__new__, zlib.crc32
    is_first = True
    for data in _events(chunks, file):
        kind, length = data[4], len(data)
        if kind == events.FORMAT_DESCRIPTION:
            crc = events.checksum_algorithm(events.without_in_use(data)) == events.CHECKSUM_CRC32
        elif crc and checked(data) != events.CRC_RESIDUE:
            events.check_crc(data, f"{file}:{position}")
        if is_first and prefix_bytes:
            yield StreamEvent(file, 0, 0, kind, data)
        else:
            yield new(StreamEvent, (file, position, position + length, kind, data))
            position += length
        is_first = False


def _events(chunks: Iterable[bytes], file: str) -> Iterator[bytes]:
    """The bytes of each event: the loop that every replay and search spends its time in."""
    length_at = _LENGTH.unpack_from
    source = iter(chunks)
    buffer = _at_least(source, b"", len(events.MAGIC))
    if buffer[: len(events.MAGIC)] != events.MAGIC:
        raise errors.IntegrityError(f"segment of {file} does not start with the binlog magic")
    at = len(events.MAGIC)
    while True:
        end = len(buffer)
        wanted = events.HEADER_BYTES
        while end - at >= events.HEADER_BYTES:
            wanted = length_at(buffer, at + _LENGTH_OFFSET)[0]
            if wanted < events.HEADER_BYTES:
                raise errors.IntegrityError(f"binlog event of {file} has a length of {wanted} bytes")
            if end - at < wanted:
                break
            yield buffer[at : at + wanted]
            at += wanted
            wanted = events.HEADER_BYTES
        buffer, at = _at_least(source, buffer[at:], wanted), 0
        if not buffer:
            return


def _at_least(source: Iterator[bytes], begun: bytes, wanted: int) -> bytes:
    """`begun` and what follows it, at least `wanted` bytes; b'' at the end of the data, IntegrityError if it ends before."""
    pieces, size = [begun], len(begun)
    while size < wanted:
        piece = next(source, None)
        if piece is None:
            if size:
                raise errors.IntegrityError("binlog segment ends inside an event")
            break
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)
