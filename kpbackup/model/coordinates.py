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
