"""A bank under fire: transfers in several threads, tables that come and go, long queries. What must hold can always be checked.

Every transfer is one transaction: two balances and one row that says what was moved. So at any consistent point the sum of
all balances is what it was, and every balance is its first value less what its transfers took.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

from kpbackup import errors
from kpbackup.mysql import server
from tests.integration import scenario
from tests.servers.database import Server

ACCOUNTS = 50
OPENING = 1000
DEADLOCK = 1213
LOCK_WAIT_TIMEOUT = 1205  # a clock that jumps ends waits too
Work = Callable[[server.Connection, random.Random], None]
PATIENCE_S = 180.0
BALLAST_ROWS = 4_000
_DIGITS = "(SELECT 0 d UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7)"


def create(source: Server, *, ballast_rows: int = BALLAST_ROWS) -> None:
    """The schema, with some megabytes beside the accounts, so that a dump takes a moment."""
    source.execute(
        "CREATE DATABASE bank", "USE bank",
        "CREATE TABLE account (id INT PRIMARY KEY, money INT NOT NULL, moved INT NOT NULL DEFAULT 0, KEY (money))",
        "CREATE TABLE transfer (id BIGINT AUTO_INCREMENT PRIMARY KEY, payer INT, payee INT, amount INT)",
        "CREATE TABLE ballast (id INT AUTO_INCREMENT PRIMARY KEY, pad VARCHAR(1100) NOT NULL, hits INT NOT NULL DEFAULT 0)",
        "INSERT INTO account (id, money) VALUES " + ", ".join(f"({n}, {OPENING})" for n in range(ACCOUNTS)),
        "INSERT INTO ballast (pad) SELECT REPEAT(CHAR(65 + a.d), 900 + b.d) FROM "
        + ", ".join(f"{_DIGITS} {name}" for name in "abcd") + f" LIMIT {ballast_rows}",
    )


def broken_promises(at: Server) -> list[Any]:
    """What does not add up on this server; [] is right."""
    moved = (
        "SELECT a.id, a.money, a.moved, COALESCE(p.n, 0) + COALESCE(q.n, 0), COALESCE(q.total, 0) - COALESCE(p.total, 0)"
        " FROM bank.account a LEFT JOIN (SELECT payer, COUNT(*) n, SUM(amount) total FROM bank.transfer GROUP BY payer) p"
        " ON p.payer = a.id LEFT JOIN (SELECT payee, COUNT(*) n, SUM(amount) total FROM bank.transfer GROUP BY payee) q"
        " ON q.payee = a.id"
    )
    rows = scenario.rows(at, moved)
    wrong: list[Any] = [row for row in rows if row[1] != OPENING + row[4] or row[2] != row[3]]
    total = sum(row[1] for row in rows)
    return wrong if total == ACCOUNTS * OPENING else [f"the sum is {total}", *wrong]


class Fire:
    """The workload, in threads, from entering to leaving; a thread that failed makes leaving fail.

    `pause_s` lies between two transfers of one thread; `reports` makes tables come and go, `queries` keeps a long one running;
    with `survives` a server that goes away is waited for. `rest_s` lies between two rounds of tables that come and go; it and
    `pause_s` may be changed at any time.
    """

    def __init__(
        self, at: Server, *, writers: int = 3, pause_s: float = 0.005, reports: bool = True, queries: bool = True,
        survives: bool = False,
    ) -> None:
        self._at, self.pause_s, self._survives = at, pause_s, survives
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self.transfers = 0
        self.rest_s = 1.0
        work: list[Work] = [self._transfers] * writers
        work += [self._reports] * reports + [self._queries] * queries
        self._threads = [threading.Thread(target=self._run, args=(one, number)) for number, one in enumerate(work)]

    def __enter__(self) -> Fire:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in self._threads), "the workload hangs"
        assert not self._failures, self._failures

    @property
    def has_failed(self) -> bool:
        """A thread of it ended by an error, which leaving will raise."""
        return bool(self._failures)

    def _run(self, work: Work, number: int) -> None:
        place = random.Random(number)
        while not self._stop.is_set():
            try:
                with self._at.connect(database="bank") as connection:
                    while not self._stop.wait(self.pause_s):
                        self._once(work, connection, place)
            except errors.ServerUnreachable as exc:
                if not self._survives:
                    self._failures.append(exc)
                    return
                self._stop.wait(0.05)
            except errors.KpbackupError as exc:
                self._failures.append(exc)
                return

    def _once(self, work: Work, connection: server.Connection, place: random.Random) -> None:
        try:
            work(connection, place)
        except errors.DatabaseError as exc:
            if exc.number != DEADLOCK and not (self._survives and exc.number == LOCK_WAIT_TIMEOUT):
                raise
            connection.execute("ROLLBACK")

    def _transfers(self, connection: server.Connection, place: random.Random) -> None:
        payer, payee = place.sample(range(ACCOUNTS), 2)
        amount = place.randint(1, 90)
        connection.execute("BEGIN")
        for one, change in sorted(((payer, -amount), (payee, amount))):
            connection.execute("UPDATE account SET money = money + %s, moved = moved + 1 WHERE id = %s", (change, one))
        connection.execute("INSERT INTO transfer (payer, payee, amount) VALUES (%s, %s, %s)", (payer, payee, amount))
        connection.execute("UPDATE ballast SET hits = hits + 1 WHERE id = %s", (place.randint(1, BALLAST_ROWS),))
        connection.execute("COMMIT")
        self.transfers += 1

    def _reports(self, connection: server.Connection, place: random.Random) -> None:
        """A table of its own that comes and goes, as applications make them; longer away than there."""
        for statement in (
            "DROP TABLE IF EXISTS report, report_old", "CREATE TABLE report (id INT PRIMARY KEY, money INT)",
            "INSERT INTO report SELECT id, money FROM account", "ALTER TABLE report ADD note VARCHAR(20) DEFAULT 'x'",
            "RENAME TABLE report TO report_old", "TRUNCATE TABLE report_old", "DROP TABLE report_old",
        ):
            connection.execute(statement)
        self._stop.wait(self.rest_s * (1.0 + place.random()))

    def _queries(self, connection: server.Connection, place: random.Random) -> None:
        connection.execute(f"SELECT SLEEP({place.random():.2f}) FROM ballast WHERE id = 1")
