"""The application at work: a thread that logs operations and typed commands, and logins, one transaction after the other.

As in the real one, what is logged is committed apart from what is logged about.

`pause()` returns between two transactions, so that what the server holds then is exactly known. When the server dies the
writer ends and keeps the reason in `failure`: whoever did not expect that asks `check()`.
"""

from __future__ import annotations

import threading
from typing import Any

import pymysql

from demo import data, objects, truth

_LOG = (
    "INSERT INTO operation_logs (user_id, username, method, path, module, action, cluster_id, cluster_name, request_body,"
    " status_code, success, client_ip, duration, created_at)"
    " VALUES (1, 'admin', 'POST', %s, 'workload', 'scale', 1, %s, %s, 200, 1, '10.0.0.7', %s, NOW(3))"
)
_COMMAND = (
    "INSERT INTO terminal_commands (session_id, `timestamp`, raw_input, parsed_cmd, exit_code, created_at)"
    " VALUES (%s, NOW(3), %s, %s, 0, NOW(3))"
)
_LOGIN = "UPDATE users SET last_login_at = NOW(3), last_login_ip = '10.0.0.7' WHERE id = 1"
# sessions of other clusters: those of the victim are gone after the accident
_SESSIONS = (
    "SELECT s.id FROM terminal_sessions s JOIN clusters c ON c.id = s.cluster_id WHERE c.name <> %s ORDER BY s.id LIMIT 10"
)
END_TIMEOUT_S = 30.0


class Writer:
    """Writes as the application's own account from `start()` to `abandon()` or to the server's death."""

    def __init__(self, port: int, *, per_second: float = 25.0) -> None:
        self.transactions = 0
        self.failure: pymysql.MySQLError | None = None
        self._port = port
        self._interval_s = 1 / per_second
        self._sessions: list[int] = []
        self._turn = threading.Lock()  # held during a transaction, and by whoever paused the writer
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def pause(self) -> None:
        """Returns when the last transaction is committed and no other will begin before `resume()`.

        Raises:
            RuntimeError: the writer has failed.
        """
        self._turn.acquire()
        self.check()

    def resume(self) -> None:
        self._turn.release()

    def abandon(self) -> None:
        """Ends after the current transaction, or with the process."""
        self._ended.set()

    def wait_end(self) -> None:
        """Returns when the writer has noticed that its server died."""
        self._thread.join(END_TIMEOUT_S)

    def wait_for(self, transactions: int) -> None:
        """Returns when so many more transactions are committed.

        Raises:
            RuntimeError: the writer has failed.
        """
        wanted = self.transactions + transactions
        while self.transactions < wanted:
            self.check()
            self._ended.wait(self._interval_s)

    def check(self) -> None:
        """Raises RuntimeError if the server did not take a transaction."""
        if self.failure is not None:
            raise RuntimeError(f"the application could not write: {self.failure}")

    def _run(self) -> None:
        try:
            with truth.connect(self._port, user=objects.APPLICATION, password=objects.APPLICATION_PASSWORD) as connection:
                connection.select_db(data.DATABASE)
                connection.query("SET SESSION time_zone = '+08:00'")
                with connection.cursor() as cursor:
                    cursor.execute(_SESSIONS, (data.VICTIM,))
                    self._sessions = [int(key) for (key,) in cursor.fetchall()]
                while not self._ended.is_set():
                    with self._turn:
                        self._write(connection)
                    self._ended.wait(self._interval_s)
        except pymysql.MySQLError as exc:
            self.failure = exc

    def _write(self, connection: pymysql.Connection[Any]) -> None:
        number = self.transactions // 2
        session = self._sessions[number % len(self._sessions)]
        typed = f"kubectl scale deploy/app-{number} --replicas={number % 7} # 扩容 🚀\r"
        with connection.cursor() as cursor:
            connection.begin()
            path = f"/api/v1/clusters/1/deployments/default/app-{number}/scale"
            cursor.execute(_LOG, (path, data.VICTIM, f'{{"replicas":{number % 7}}}', number % 900))
            cursor.execute(_COMMAND, (session, typed, typed.strip()))
            connection.commit()
            self.transactions += 1
            cursor.execute(_LOGIN)
            self.transactions += 1
