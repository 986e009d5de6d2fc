"""Where a server stands in its binlog.

The source may become another server (a failover to a replica), which numbers its files anew. So the archive's name of a file is
the server's own, preceded by the number of takeovers on its timeline before it: `binlog.000007`, then `1/binlog.000003`. Binlog
names hold no slash. A server is asked by its own names alone (`mysql/follow.py` translates).
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Coordinates:
    """`gtid` is MySQL's executed set or MariaDB's binlog position, '' when the server has none."""

    file: str
    position: int
    gtid: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.position}"


def order(at: Coordinates) -> tuple[int, int, int]:
    """Sorts places in the binlogs of one timeline: a server numbers its files in order, and one follows another."""
    number = at.file.rpartition(".")[2]
    return takeovers(at.file), int(number) if number.isdecimal() else 0, at.position


def takeovers(file: str) -> int:
    """How often another server had taken over before this file was written."""
    number, slash, _ = file.partition("/")
    return int(number) if slash and number.isdecimal() else 0


def own_name(file: str) -> str:
    """What the server itself calls the file."""
    return file.rpartition("/")[2]


def archive_name(file: str, number: int) -> str:
    """The archive's name of a file that its server calls `file`, after `number` takeovers."""
    return f"{number}/{file}" if number else file


def after_takeovers(at: Coordinates, number: int) -> Coordinates:
    """A server's own coordinates as the archive names them."""
    return replace(at, file=archive_name(at.file, number))
