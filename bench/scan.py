"""`python -m bench.scan PORT DATABASE`: a prepared SELECT of all rows of each table, discarded: the least one can ask of it."""

from __future__ import annotations

import sys

from kpbackup.mysql import server, wire
from kpbackup.mysql.quoting import identifier


def main() -> None:
    port, database = int(sys.argv[1]), sys.argv[2]
    connection = server.connect(server.Endpoint("127.0.0.1", port), database=database)
    tables = [str(row[0]) for row in connection.rows("SHOW FULL TABLES WHERE Table_type = 'BASE TABLE'")]
    connection.execute("SET SESSION character_set_results = binary")
    socket = wire.WireSocket(connection)
    for table in tables:
        statement = socket.prepare(f"SELECT * FROM {identifier(table)}")
        socket.execute_select(statement)
        socket.stream_rows(lambda view: None)
        socket.close_statement(statement)


if __name__ == "__main__":
    main()
