"""In which order the objects of a set are loaded: always the table whose end is farthest away.

A table's rows may be loaded by several workers, its indexes are then built by one. So the largest table must not come last,
or everybody waits while one worker builds its indexes; and workers that can choose should be in different tables, because
within one they wait for each other's page splits. Both follow from one rule: take an object of the table with the most time
left, counting what is still to load as shared among those who are in it. Not thread-safe: the caller holds a lock.

A heap finds that table: ten thousand tables are as many objects, and whoever takes one must not look at every table.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# Measured on MariaDB 10.11, microseconds of one core. Only their proportions matter.
LOAD_ROW_US = 6.0
LOAD_BYTE_US = 0.007
INDEX_ENTRY_US = 0.9


@dataclass(frozen=True)
class Piece:
    """One stored object: `table` is the one all its rows go to, or a name of its own when it holds several small ones."""

    object_key: str
    table: tuple[str, str]
    rows: int
    row_bytes: int

    @property
    def load_us(self) -> float:
        return self.rows * LOAD_ROW_US + self.row_bytes * LOAD_BYTE_US


class _Table:
    def __init__(self, nth: int, pieces: list[Piece], index_us: float) -> None:
        self.nth = nth
        self.waiting = deque(pieces)
        self.busy = 0
        self.left_us = sum(piece.load_us for piece in pieces)
        self.index_us = index_us

    def end_us(self) -> float:
        """How long the table would take from now on with one more worker in it."""
        return self.left_us / (self.busy + 1) + self.index_us


class LoadOrder:
    """`take` an object to load, say `loaded` when it is in. `later_keys` counts each table's keys that are built afterwards."""

    def __init__(self, pieces: Iterable[Piece], *, later_keys: Mapping[tuple[str, str], int]) -> None:
        by_table: dict[tuple[str, str], list[Piece]] = {}
        for piece in pieces:
            by_table.setdefault(piece.table, []).append(piece)
        self._tables = {
            table: _Table(nth, found, sum(p.rows for p in found) * later_keys.get(table, 0) * INDEX_ENTRY_US)
            for nth, (table, found) in enumerate(by_table.items())
        }
        self._in_order = list(self._tables.values())
        self._longest = [(-table.end_us(), table.nth) for table in self._in_order]
        heapq.heapify(self._longest)

    def take(self) -> Piece | None:
        """The next object; None when none waits."""
        while self._longest:
            end_us, nth = heapq.heappop(self._longest)
            table = self._in_order[nth]
            if table.waiting and -end_us == table.end_us():  # else an entry of before: the table has a newer one, or no need
                table.busy += 1
                piece = table.waiting.popleft()
                self._again(table)
                return piece
        return None

    def loaded(self, piece: Piece) -> None:
        table = self._tables[piece.table]
        table.busy -= 1
        table.left_us -= piece.load_us
        self._again(table)

    def _again(self, table: _Table) -> None:
        if table.waiting:
            heapq.heappush(self._longest, (-table.end_us(), table.nth))
