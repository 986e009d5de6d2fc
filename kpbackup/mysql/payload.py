"""MySQL's compressed transactions looked into: TRANSACTION_PAYLOAD as the events that it holds.

Inside they have no CRC32; they get one here, and their length with it, so that they are events like all others. They are
decompressed as they are asked for: memory is bounded by the largest event, not by the transaction.

Source: MySQL internals manual, 'Transaction_payload_event'.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

import zstandard

from kpbackup import errors
from kpbackup.mysql import events
from kpbackup.mysql.events import StreamEvent
from kpbackup.mysql.packets import read_lenenc_int

_ENDS, _SIZE, _COMPRESSION = 0, 1, 2
_ZSTD, _PLAIN = 0, 255


def unpacked(stream: Iterable[StreamEvent]) -> Iterator[StreamEvent]:
    """The same events, each compressed transaction replaced by what it holds (all at the payload's place).

    Raises:
        IntegrityError: a payload is damaged. ServerUnfit: compressed in a way that is not known.
    """
    for event in stream:
        if event.type == events.TRANSACTION_PAYLOAD:
            yield from contents(event)
        else:
            yield event


def contents(event: StreamEvent) -> Iterator[StreamEvent]:
    """The events in one TRANSACTION_PAYLOAD."""
    where = f"the compressed transaction at {event.file}:{event.start}"
    body = events.event_body(event.data, events.has_valid_crc(event.data))
    try:
        compression, at = _fields(body)
        reader = _opened(compression, body[at:], where)
        while head := _exactly(reader, events.HEADER_BYTES):
            length = int.from_bytes(head[9:13], "little")
            data = events.seal_event(head + _exactly(reader, length - events.HEADER_BYTES))
            yield StreamEvent(event.file, event.start, event.end, data[4], data)
    except (zstandard.ZstdError, IndexError, ValueError) as exc:
        raise errors.IntegrityError(f"{where} is damaged: {exc}") from exc


def _fields(body: bytes) -> tuple[int, int]:
    """(kind of compression, where the payload begins): fields of type, length, value, the type being 0 at their end."""
    compression, at = _ZSTD, 0
    while True:
        kind, at = read_lenenc_int(body, at)
        if kind == _ENDS:
            return compression, at
        length, at = read_lenenc_int(body, at)
        if kind == _COMPRESSION:
            compression, _ = read_lenenc_int(body, at)
        at += length


def _opened(compression: int, data: bytes, where: str) -> io.BufferedIOBase | zstandard.ZstdDecompressionReader:
    if compression == _ZSTD:
        return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
    if compression == _PLAIN:
        return io.BytesIO(data)
    raise errors.ServerUnfit(f"{where} is compressed in a way ({compression}) that this version of kpbackup does not know")


def _exactly(reader: io.BufferedIOBase | zstandard.ZstdDecompressionReader, count: int) -> bytes:
    """`count` bytes, b'' at the end of the data."""
    found = b""
    while len(found) < count:
        piece = reader.read(count - len(found))
        if not piece:
            if found:
                raise ValueError("it ends within an event")
            break
        found += piece
    return found
