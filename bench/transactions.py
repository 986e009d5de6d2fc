"""Many small transactions on a source, as an application writes them: three rows inserted and one changed in each.

Eight tables of KubePolaris's widest kind of row take turns. Made in the server, by a procedure; the same for both flavours.
"""

from __future__ import annotations

import time

from tests.servers.database import Server

SCHEMA = "work"
TABLES = 8
COUNT = 100_000

_TABLE = (
    "(id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, user_id BIGINT UNSIGNED, method VARCHAR(10), path VARCHAR(500),"
    " module VARCHAR(50), body TEXT, status_code BIGINT, duration BIGINT, created_at DATETIME(3), KEY (user_id),"
    " KEY (created_at))"
)


def create(server: Server) -> None:
    """The tables, with a few rows each, and the procedure."""
    statements = [f"CREATE DATABASE {SCHEMA}", f"USE {SCHEMA}"]
    for number in range(TABLES):
        rows = f"INSERT INTO log{number} (user_id, duration) VALUES (1, 0), (2, 0), (3, 0)"  # one of them is changed each time
        statements += [f"CREATE TABLE log{number} {_TABLE}", rows]
    server.execute(*statements)
    for number in range(TABLES):
        server.execute(f"USE {SCHEMA}", _procedure(number))


def _procedure(number: int) -> str:
    row = (
        "(n % 97, 'POST', CONCAT('/api/v1/clusters/', n % 31, '/namespaces/default/pods/', n), 'workload',"
        " CONCAT('{\"name\": \"pod-', n, '\", \"image\": \"', REPEAT(LPAD(HEX(n * 40503), 32, '7'), 4),"
        " '\"}'), 200, n % 1000, NOW(3))"
    )
    columns = "(user_id, method, path, module, body, status_code, duration, created_at)"
    return (
        f"CREATE PROCEDURE work{number}(IN count INT) BEGIN DECLARE n INT DEFAULT 0; WHILE n < count DO START TRANSACTION;"
        f" INSERT INTO log{number} {columns} VALUES {row}, {row}, {row};"
        f" UPDATE log{number} SET duration = duration + 1, module = 'changed' WHERE id = 1 + n % 3; COMMIT;"
        " SET n = n + 1; END WHILE; END"
    )


def commit(server: Server, count: int = COUNT) -> float:
    """`count` transactions, the tables taking turns by the thousand; how long it took in seconds."""
    began = time.monotonic()
    step = 1000
    with server.connect(database=SCHEMA) as connection:
        for done in range(0, count, step):
            connection.execute(f"CALL work{done // step % TABLES}({min(step, count - done)})")
    return time.monotonic() - began
