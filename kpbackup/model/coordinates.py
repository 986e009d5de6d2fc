"""Where a server stands in its binlog."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Coordinates:
    """`gtid` is MySQL's executed set or MariaDB's binlog position, '' when the server has none."""

    file: str
    position: int
    gtid: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.position}"


def order(at: Coordinates) -> tuple[int, int]:
    """Sorts places in the binlogs of one server: it numbers its files in order."""
    number = at.file.rpartition(".")[2]
    return int(number) if number.isdecimal() else 0, at.position
