"""Row events as the BINLOG statements that execute them: whole statements of the source, or parts of a large one."""

from __future__ import annotations

import binascii
from collections.abc import Iterator

from kpbackup.mysql import events as binlog_events
from kpbackup.mysql import row_events
from kpbackup.mysql.direct_steps import Rows

_STATEMENT_ENDS_AT = binlog_events.HEADER_BYTES + 6


class RowPieces:
    """Row events gathered for BINLOG statements: whole statements, or parts of a large one, each with its table maps."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._maps: list[bytes] = []
        self._piece: list[bytes] = []
        self._size = 0
        self._has_rows = False

    def add(self, step: Rows) -> Iterator[list[bytes]]:
        is_map = step.data[4] == row_events.TABLE_MAP
        if self._has_rows and self._size + len(step.data) > self._limit:
            if self._maps:
                self._piece[-1] = ending(self._piece[-1])
            yield from self.flush()
            self._piece = list(self._maps)
            self._size = sum(map(len, self._maps))
        if is_map:
            self._maps.append(step.data)
        self._piece.append(step.data)
        self._size += len(step.data)
        self._has_rows = self._has_rows or not is_map
        if step.ends_statement:
            self._maps = []

    def flush(self) -> Iterator[list[bytes]]:
        if self._piece:
            yield self._piece
        self._piece, self._size, self._has_rows = [], 0, False


def ending(data: bytes) -> bytes:
    """The row event as the last one of its statement."""
    body = bytearray(data[: -binlog_events.CRC_BYTES])
    body[_STATEMENT_ENDS_AT] |= row_events.STATEMENT_ENDS
    return binlog_events.seal_event(bytes(body))


def binlog(events: list[bytes]) -> bytes:
    return b"BINLOG '" + binascii.b2a_base64(b"".join(events), newline=False) + b"'"
