"""In which order the objects of a set are loaded: always the table whose end is farthest away.

A table's rows may be loaded by several workers, its indexes are then built by one. So the largest table must not come last,
or everybody waits while one worker builds its indexes; and workers that can choose should be in different tables, because
within one they wait for each other's page splits. Both follow from one rule: take an object of the table with the most time
left, counting what is still to load as shared among those who are in it. A heap finds that table: ten thousand tables are as
many objects, and whoever takes one must not look at every table.

While indexes are built, no more workers go on beside them than are needed to end with them (`has_room`): each takes processor
time away from the one session that builds, and on a target of few cores it would then build alone at the end.

Not thread-safe: the caller holds a lock.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# Measured on MariaDB 10.11, microseconds of one core. Only their proportions matter.
LOAD_ROW_US = 6.0
LOAD_BYTE_US = 0.007
INDEX_ENTRY_US = 0.9
READ_BACK_SHARE = 0.15  # of the time for loading the same rows
# How much of the above a worker does in a second at least when it waits for nothing but the server: where four share two cores
# it is about 300,000, by reckoning. Loading that is much slower waits for the store or the network, and no index waits for those.
LEAST_SPEED_US = 100_000.0


@dataclass(frozen=True)
class Piece:
    """One stored object: `table` is the one all its rows go to, or a name of its own when it holds several small ones."""

    object_key: str
    table: tuple[str, str]
    rows: int
    row_bytes: int

    @property
    def load_us(self) -> float:
        return _load_us(self.rows, self.row_bytes)


def _load_us(rows: int, row_bytes: int) -> float:
    return rows * LOAD_ROW_US + row_bytes * LOAD_BYTE_US


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


@dataclass
class _Build:
    began_s: float
    index_us: float


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
        self._left_us = sum(table.left_us for table in self._in_order)
        self._read_back_us = self._left_us * READ_BACK_SHARE
        self._builds: dict[tuple[str, str], _Build] = {}
        self._loaded_us = self._loading_s = 0.0

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

    def loaded(self, piece: Piece, *, took_s: float = 0.0) -> None:
        table = self._tables[piece.table]
        table.busy -= 1
        table.left_us -= piece.load_us
        self._again(table)
        self._left_us -= piece.load_us
        self._loaded_us += piece.load_us
        self._loading_s += took_s

    def read_back(self, rows: int, row_bytes: int) -> None:
        """So many rows were read back."""
        self._read_back_us -= _load_us(rows, row_bytes) * READ_BACK_SHARE

    def building(self, table: tuple[str, str], now_s: float) -> None:
        """A worker begins to build the table's indexes; `built` when they are done."""
        if table in self._tables:  # else it is small
            self._builds[table] = _Build(now_s, self._tables[table].index_us)

    def built(self, table: tuple[str, str]) -> None:
        self._builds.pop(table, None)

    def has_room(self, beside: int, now_s: float) -> bool:
        """Whether another worker should load or read back while `beside` others do."""
        speed = self._loaded_us / self._loading_s if self._loading_s else LEAST_SPEED_US
        build_speed = max(speed, LEAST_SPEED_US)
        lefts = (build.index_us - (now_s - build.began_s) * build_speed for build in self._builds.values())
        longest_s = max(lefts, default=0.0) / build_speed
        if longest_s <= 0:  # also when it should have ended long ago: nobody waits for a wrong estimate
            return True
        others_us = max(self._left_us, 0.0) + self._read_back_us
        return beside < max(math.ceil(others_us / speed / longest_s), 1)

    def _again(self, table: _Table) -> None:
        if table.waiting:
            heapq.heappush(self._longest, (-table.end_us(), table.nth))
