"""A scratch table in which JSON values are made that no expression inside an INSERT makes: see `json_rebuild.Staged`.

What was added is selected by its id with `FIRST` (a value) or `WHOLE` (a document) until `clear`. All of it happens in the
caller's transaction but the table itself, which `prepare` makes before. The schema is the load's scratch schema: whoever ends
the restore drops it. Ids are the session's own, and what a crash may leave under them is overwritten.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from kpbackup.mysql import json_rebuild, quoting, server
from kpbackup.mysql.json_rebuild import Inline, Staged
from kpbackup.mysql.json_types import TypedValue

VALUES = "kpbackup_restore.json_values"
FIRST = f"(SELECT JSON_EXTRACT(value, '$[0]') FROM {VALUES} WHERE id = ?)"
WHOLE = f"(SELECT value FROM {VALUES} WHERE id = ?)"
PORTION = 400  # typed values set in a document by one statement
_SQL_MODE = "ALLOW_INVALID_DATES"


class Stage:
    """The scratch table as one session uses it. Statements under way on the session must have been answered."""

    def __init__(self, connection: server.Connection) -> None:
        self._connection = connection
        self._first = int(connection.value("SELECT CONNECTION_ID()")) << 32
        self._last = self._first

    @staticmethod
    def prepare(connection: server.Connection) -> None:
        """Creates the table unless it is there: before a transaction, which this would end."""
        columns = "id BIGINT UNSIGNED NOT NULL PRIMARY KEY, value JSON, tiny TINYBLOB, medium MEDIUMBLOB, large LONGBLOB"
        connection.execute(f"CREATE TABLE IF NOT EXISTS {VALUES} ({columns}) ENGINE=InnoDB")

    def value(self, staged: Staged) -> int:
        """Makes a value; its id for `FIRST`."""
        if not staged.column:
            return self._insert("value", f"JSON_ARRAY({staged.value})", time_zone=staged.time_zone)
        made = self._insert(staged.column, staged.value)
        self._connection.execute(f"UPDATE {VALUES} SET value = JSON_ARRAY({staged.column}) WHERE id = {made}")
        return made

    def document(self, text: bytes, typed: Sequence[TypedValue]) -> int:
        """Makes a document with all its typed values; its id for `WHOLE`.

        Raises:
            DatabaseError: it does not fit into the server's max_allowed_packet.
        """
        made = self._insert("value", f"CAST(_utf8mb4 x'{text.hex()}' AS JSON)")
        remaining = iter(typed)
        while portion := list(itertools.islice(remaining, PORTION)):
            pairs = ", ".join(f"{quoting.literal(value.path)}, {self._literal(value)}" for value in portion)
            # into a new row: in the same one it would be a partial update, which leaves free space in the document
            made = self._insert("value", f"JSON_SET(value, {pairs}) FROM {VALUES} WHERE id = {made}")
        return made

    def clear(self) -> None:
        """Deletes what was made."""
        if self._last > self._first:
            self._connection.execute(f"DELETE FROM {VALUES} WHERE id BETWEEN {self._first} AND {self._last}")
            self._last = self._first

    def _literal(self, value: TypedValue) -> str:
        made = json_rebuild.rebuild(value)
        if isinstance(made, Inline):
            found = made.parameter
            return made.sql.replace("?", str(found) if isinstance(found, int) else quoting.literal(found))
        return FIRST.replace("?", str(self.value(made)))

    def _insert(self, column: str, select: str, *, time_zone: str = "+00:00") -> int:
        self._last += 1
        before = self._connection.rows("SELECT @@session.sql_mode, @@session.time_zone")[0]
        self._connection.execute("SET SESSION sql_mode = %s, time_zone = %s", (_SQL_MODE, time_zone))
        self._connection.execute(f"REPLACE INTO {VALUES} (id, {column}) SELECT {self._last}, {select}")
        self._connection.execute("SET SESSION sql_mode = %s, time_zone = %s", before)
        return self._last
