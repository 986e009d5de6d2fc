"""The second tier, behind an application that is serving again: into a shadow, then row by row to its place.

1. load: the tables of the second tier come into the schema `kpbackup_second` and are proven by reading them back;
2. replay: to the very cut that the essential tables stand at, by the direct path, under GTIDs of the target's own;
3. move: ranges of rows are copied to the living tables, each range compared with what it was copied from, in one transaction.

The living tables were set to give numbers above all that come (`keep_apart`), before anybody could write to them. So nothing
is taken from the application at any moment; old rows appear range by range. All of it is in the target's own binlog: a chain of
backups that begins in between misses nothing.

What a crash leaves: the shadow and the progress of each of the three, in the same transactions; `--resume` goes on there.
"""

from __future__ import annotations

from collections.abc import Mapping

from kpbackup import errors
from kpbackup.model.inventory import Table
from kpbackup.mysql import facts as server_facts
from kpbackup.mysql import load, server
from kpbackup.mysql.quoting import identifier, qualified
from kpbackup.mysql.tiering import SECOND_SCHEMA, SecondTier
from kpbackup.recovery import database, proof, shadow_replay
from kpbackup.recovery.journal import Journal
from kpbackup.recovery.planning import RecoveryPlan
from kpbackup.recovery.steps import RecoveryRequest

RANGE_ROWS = 5_000  # an INSERT of the application may wait for one range
ATTEMPTS = 10
DEADLOCK, LOCK_WAIT = 1213, 1205
_MOVED = f"{load.SCRATCH_SCHEMA}.moved"


def keep_apart(endpoint: server.Endpoint, second: SecondTier, starts: Mapping[str, int]) -> None:
    """The living, empty tables give numbers from `starts` on. Repeatable while nobody else writes."""
    with server.connect(endpoint) as connection:
        load.prepare_session(connection, write_binlog=False)
        for table in second.tables:
            if _is_there(connection, table.schema, table.name):
                name = qualified(table.schema, table.name)
                connection.execute(f"ALTER TABLE {name} AUTO_INCREMENT = {starts[table.name]}")


def run(plan: RecoveryPlan, request: RecoveryRequest, journal: Journal, starts: Mapping[str, int]) -> dict[str, str]:
    """Everything that is left to do of the second tier; figures for the journal.

    Raises:
        RestoreMismatch, IntegrityError, StepFailed, PrivilegeMissing, DatabaseError, ServerUnreachable.
    """
    second = plan.second
    assert second is not None
    with server.connect(request.endpoint) as connection:
        facts = server_facts.read_facts(connection)
    if journal.last("second_loaded") is None:
        done = database.load_into(plan, request, second.shadow.inventory, second.shadow.renamed, write_binlog=True)
        journal.write("second_loaded", done)
    if journal.last("second_replayed") is None:
        figures = shadow_replay.run(plan, request, journal, facts, second.shadow, prefix="second_")
        if plan.cut.segments:
            with server.connect(request.endpoint) as target:
                database.check_grouped(plan, request, target)
        journal.write("second_replayed", figures)
    if journal.last("second_moved") is None:
        rows = _move(request, second, starts)
        journal.write("second_moved", {"tables": len(second.tables), "rows": rows})
    with server.connect(request.endpoint) as connection:
        load.prepare_session(connection)
        for name in (SECOND_SCHEMA, load.SCRATCH_SCHEMA):
            connection.execute(f"DROP DATABASE IF EXISTS {identifier(name)}")
    moved = journal.last("second_moved")
    return {"rows": moved.fields["rows"]} if moved is not None else {}


def _move(request: RecoveryRequest, second: SecondTier, starts: Mapping[str, int]) -> int:
    """Copies everything; the number of rows."""
    with server.connect(request.endpoint) as connection:
        load.prepare_session(connection)
        connection.execute("SET SESSION foreign_key_checks = 1")  # the application may have deleted what a row belongs to
        connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {_MOVED} (name VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY,"
            " up_to DECIMAL(20) NOT NULL, `rows` BIGINT NOT NULL) ENGINE=InnoDB"
        )
        there = [table for table in second.tables if _is_there(connection, SECOND_SCHEMA, table.name)]
        movers = [_Mover(connection, request, table) for table in there]
        for mover in movers:  # all before the first row is moved
            mover.judge(starts[mover.table.name])
        return sum(mover.move() for mover in movers)


class _Mover:
    """Copies one table's rows from the shadow to their place, range by range of its primary key."""

    def __init__(self, connection: server.Connection, request: RecoveryRequest, table: Table) -> None:
        self.table = table
        self._connection, self._request = connection, request
        self._columns = _columns(connection, SECOND_SCHEMA, table.name)
        self._key = identifier(table.key[0])
        self._from, self._to = qualified(SECOND_SCHEMA, table.name), qualified(table.schema, table.name)

    def judge(self, start: int) -> None:
        """Raises RestoreMismatch unless the two have the same columns and numbers that lie apart."""
        what = f"table {self.table.schema}.{self.table.name}"
        living = _columns(self._connection, self.table.schema, self.table.name)
        if living != self._columns:
            raise errors.RestoreMismatch(
                f"cannot move rows to {what}: its columns are not those it had at the cut",
                hint=f"the rows are in {SECOND_SCHEMA}: change the table there in the same way, then resume",
            )
        highest = self._connection.value(f"SELECT MAX({self._key}) FROM {self._from}")
        if highest is not None and int(highest) >= start:
            raise errors.RestoreMismatch(
                f"cannot move rows to {what}: the backup gave number {highest}, the application may give those from {start} on",
                hint=f"the rows are in {SECOND_SCHEMA}: move them by hand; next time give recovery.tiers.room more",
            )

    def move(self) -> int:
        """Goes on where it stopped; the number of rows moved in all."""
        found = self._connection.row(f"SELECT up_to, `rows` FROM {_MOVED} WHERE name = %s", (self.table.name,))
        last, rows = (int(found[0]), int(found[1])) if found else (None, 0)
        while (up_to := self._end_of_range(last)) is not None:
            rows += self._range(last, up_to, rows)
            last = up_to
            if self._request.progress:
                self._request.progress("move", rows, max(rows, self.table.estimated_rows))
        return rows

    def _end_of_range(self, last: int | None) -> int | None:
        where = "" if last is None else f" WHERE {self._key} > {last}"
        keys = f"SELECT {self._key} AS k FROM {self._from}{where} ORDER BY {self._key} LIMIT {RANGE_ROWS}"
        end = self._connection.value(f"SELECT MAX(k) FROM ({keys}) AS keys_")
        return None if end is None else int(end)

    def _range(self, last: int | None, up_to: int, before: int) -> int:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._copy(last, up_to, before)
            except errors.DatabaseError as exc:
                self._connection.execute("ROLLBACK")
                if exc.number not in (DEADLOCK, LOCK_WAIT) or attempt == ATTEMPTS:
                    raise errors.StepFailed(
                        f"rows of {self.table.schema}.{self.table.name} up to {self._key} {up_to} cannot be moved to their place:"
                        f" {exc.message}",
                        hint="did the application delete what they belong to, or give a value that must be unique? put that right"
                        f" there or in {SECOND_SCHEMA}, then resume",
                    ) from exc
        raise errors.InternalError("a range was neither moved nor refused")

    def _copy(self, last: int | None, up_to: int, before: int) -> int:
        where = f"{self._key} <= {up_to}" + ("" if last is None else f" AND {self._key} > {last}")
        names = ", ".join(map(identifier, self._columns))
        self._connection.execute("START TRANSACTION")
        self._connection.execute(f"INSERT INTO {self._to} ({names}) SELECT {names} FROM {self._from} WHERE {where}")
        sums = [proof.row_sum(self._connection, table, self._columns, where) for table in (self._from, self._to)]
        if sums[0] != sums[1]:
            self._connection.execute("ROLLBACK")
            raise errors.RestoreMismatch(
                f"rows of {self.table.schema}.{self.table.name} up to {self._key} {up_to} did not arrive as they were",
                hint=f"is a trigger on the table, or did the application give numbers itself? the rows are in {SECOND_SCHEMA}",
            )
        rows = sums[0][0]
        self._connection.execute(f"REPLACE INTO {_MOVED} VALUES (%s, %s, %s)", (self.table.name, up_to, before + rows))
        self._connection.execute("COMMIT")
        return rows


def _is_there(connection: server.Connection, schema: str, name: str) -> bool:
    sql = "SELECT 1 FROM information_schema.tables WHERE table_schema = %s AND table_name = %s"
    return connection.row(sql, (schema, name)) is not None


def _columns(connection: server.Connection, schema: str, name: str) -> list[str]:
    """The stored columns in their order, generated ones left out."""
    rows = connection.rows(
        "SELECT column_name, extra FROM information_schema.columns WHERE table_schema = %s AND table_name = %s"
        " ORDER BY ordinal_position", (schema, name),
    )  # fmt: skip
    return [str(column) for column, extra in rows if not proof.is_generated(str(extra))]
