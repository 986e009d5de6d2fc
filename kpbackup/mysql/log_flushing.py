"""When a server writes its redo log and binlog: at each commit, or for a while once a second.

What is relaxed may lose the newest transactions in a crash of the server, and the two logs may then disagree: whoever relaxes
must know afterwards whether it crashed (`recovery.durability`). `settle` sets back and flushes what was written meanwhile.
Needs the right to set global variables, and RELOAD.
"""

from __future__ import annotations

from dataclasses import dataclass

from kpbackup.mysql.facts import ServerFacts
from kpbackup.mysql.server import Connection

_REDO, _BINLOG = "innodb_flush_log_at_trx_commit", "sync_binlog"


@dataclass(frozen=True)
class Flushing:
    """The values of `innodb_flush_log_at_trx_commit` and `sync_binlog`; 0: once a second, or when the system likes to."""

    redo: int
    binlog: int

    @classmethod
    def read(cls, connection: Connection, facts: ServerFacts) -> Flushing:
        """Of a server without a binlog that value is told as 0: it means nothing."""
        redo, binlog = connection.row(f"SELECT @@GLOBAL.{_REDO}, @@GLOBAL.{_BINLOG}") or (0, 0)
        return cls(int(redo), int(binlog) if facts.log_bin else 0)

    @property
    def is_relaxed(self) -> bool:
        return not self.redo and not self.binlog

    def apply(self, connection: Connection) -> None:
        """Gives the server these values. A binlog that is not flushed anyway is left alone."""
        if self.binlog:
            _set(connection, _BINLOG, self.binlog)
        _set(connection, _REDO, self.redo)

    def relax(self, connection: Connection) -> None:
        """Of a server that has these values."""
        if self.binlog:
            _set(connection, _BINLOG, 0)
        _set(connection, _REDO, 0)

    def settle(self, connection: Connection) -> None:
        """Gives a relaxed server these values again; all that was committed before is flushed when this returns."""
        if self.binlog:
            _set(connection, _BINLOG, self.binlog)
            connection.execute("FLUSH LOCAL BINARY LOGS")  # closes the file that was written to, which flushes it
        _set(connection, _REDO, 1)  # MariaDB is told by this value how to flush, also by FLUSH itself
        connection.execute("FLUSH LOCAL ENGINE LOGS")
        _set(connection, _REDO, self.redo)


def _set(connection: Connection, name: str, value: int) -> None:
    connection.execute(f"SET GLOBAL {name} = {value}")
