"""zstd compression of a stream, with memory that stays flat in both directions.

Source: RFC 8878 (frame and block layout). `Compressor` writes one frame with content checksum.
`Decompressor` walks the frames block by block: a block never holds more than 128 KiB of output,
whereas a few kilobytes of input taken together may unpack to hundreds of megabytes (a table
full of equal rows does so honestly). Concatenated frames are read as one stream.

Limits: no dictionaries; windows above 128 MiB are refused. An object serves one stream and one thread.
After a crash the frame lacks its last block, and `finish` refuses it.
"""

from __future__ import annotations

from collections.abc import Iterator

import zstandard

from kpbackup import errors

WINDOW_LIMIT_BYTES = 128 << 20

_MAGIC = 0xFD2FB528
_SKIPPABLE_MAGIC = 0x184D2A50
_MAGIC_BYTES = 4
_BLOCK_HEADER_BYTES = 3
_BLOCK_LIMIT_BYTES = 128 << 10
_RLE_BLOCK = 1
_RESERVED_BLOCK = 3
_DICTIONARY_ID_BYTES = (0, 1, 2, 4)
_CONTENT_SIZE_BYTES = (0, 2, 4, 8)


class Compressor:
    """Turns one stream into one zstd frame: `compress` repeatedly, `flush` once, and join what they return."""

    def __init__(self, level: int = 1) -> None:
        tables = {"window_log": 18, "hash_log": 14, "min_match": 6} if level == 1 else {}
        # measured on row packets with four workers on two cores: smaller tables than the level's own stay in the processor's
        # cache (an eighth less time), and shorter matches find the repeated short values of rows (3 percent fewer bytes)
        parameters = zstandard.ZstdCompressionParameters.from_level(level, write_checksum=True, **tables)
        self._object = zstandard.ZstdCompressor(compression_params=parameters).compressobj()

    def compress(self, data: bytes | bytearray | memoryview) -> bytes:
        """The next compressed bytes (maybe none)."""
        return self._object.compress(data)

    def flush(self) -> bytes:
        """The last compressed bytes, with the checksum over the content."""
        return self._object.flush()


class Decompressor:
    """Turns zstd frames back into their content: `decompress` repeatedly, then `finish` once.

    Raises IntegrityError for anything that is no zstd frame, fails its checksum or is cut off.
    """

    def __init__(self) -> None:
        self._factory = zstandard.ZstdDecompressor(max_window_size=WINDOW_LIMIT_BYTES)
        self._object: zstandard.ZstdDecompressionObj | None = None
        self._checksum_bytes = 0
        self._last_block_seen = False
        self._skip_bytes = 0
        self._buffer = bytearray()

    def decompress(self, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """The next pieces of content, none empty, none above 1 MiB. Exhaust the iterator before the next call."""
        self._buffer += data
        place = 0
        try:
            while True:
                size = self._next_part_bytes(place)
                if size is None or place + size > len(self._buffer):
                    break
                part = bytes(self._buffer[place : place + size])
                place += size
                content = self._take(part)
                if content:
                    yield content
        finally:
            del self._buffer[:place]

    def finish(self) -> None:
        """Returns if the content ended with a whole frame, raises IntegrityError if it is cut off."""
        if self._object is not None or self._buffer or self._skip_bytes:
            raise errors.IntegrityError("cannot decompress: the zstd frame is cut off")

    def _next_part_bytes(self, place: int) -> int | None:
        """How long the next part (frame header, block with its header, checksum) is; None if its own header is still cut."""
        here = self._buffer[place : place + 8]
        if self._skip_bytes:
            return min(self._skip_bytes, len(self._buffer) - place) or None
        if self._object is None:
            return self._frame_header_bytes(here)
        if self._last_block_seen:
            return self._checksum_bytes
        if len(here) < _BLOCK_HEADER_BYTES:
            return None
        header = int.from_bytes(here[:_BLOCK_HEADER_BYTES], "little")
        kind, size = header >> 1 & 3, header >> 3
        if kind == _RESERVED_BLOCK or size > _BLOCK_LIMIT_BYTES:
            raise errors.IntegrityError("cannot decompress: bad zstd block header")
        return _BLOCK_HEADER_BYTES + (1 if kind == _RLE_BLOCK else size)

    def _frame_header_bytes(self, here: bytearray) -> int | None:
        if len(here) < _MAGIC_BYTES:
            return None
        magic = int.from_bytes(here[:_MAGIC_BYTES], "little")
        if magic & ~0xF == _SKIPPABLE_MAGIC:
            return 8
        if magic != _MAGIC:
            raise errors.IntegrityError("cannot decompress: this is not zstd data")
        if len(here) < _MAGIC_BYTES + 1:
            return None
        descriptor = here[_MAGIC_BYTES]
        single_segment = descriptor >> 5 & 1
        size_flag = descriptor >> 6
        size_bytes = 1 if single_segment and not size_flag else _CONTENT_SIZE_BYTES[size_flag]
        return _MAGIC_BYTES + 1 + (1 - single_segment) + _DICTIONARY_ID_BYTES[descriptor & 3] + size_bytes

    def _take(self, part: bytes) -> bytes:
        """Feeds one whole part to the decoder and keeps track of where in the frame we are."""
        if self._skip_bytes:
            self._skip_bytes -= len(part)
            return b""
        if self._object is None:
            if int.from_bytes(part[:_MAGIC_BYTES], "little") != _MAGIC:
                self._skip_bytes = int.from_bytes(part[4:8], "little")
                return b""
            self._object = self._factory.decompressobj()
            self._checksum_bytes = 4 * (part[_MAGIC_BYTES] >> 2 & 1)
            self._last_block_seen = False
            return self._feed(part)
        frame_ends = self._last_block_seen or (part[0] & 1 == 1 and not self._checksum_bytes)
        self._last_block_seen = self._last_block_seen or part[0] & 1 == 1
        content = self._feed(part)
        if frame_ends:
            if not self._object.eof:
                raise errors.IntegrityError("cannot decompress: the zstd frame does not end where its blocks do")
            self._object = None
        return content

    def _feed(self, part: bytes) -> bytes:
        assert self._object is not None
        try:
            return self._object.decompress(part)
        except zstandard.ZstdError as exc:
            raise errors.IntegrityError(f"cannot decompress: {exc}") from exc
