"""A set of more tables than are made one after the other: several sessions make them, and they are as on the source."""

from __future__ import annotations

from pathlib import Path

import pytest

from kpbackup import errors
from kpbackup.model.inventory import Definition
from kpbackup.mysql import server
from kpbackup.recovery import creating
from tests.integration import scenario
from tests.integration.scenario import Scene
from tests.servers.database import Server


def test_hundreds_of_tables_come_back_as_they_were(tmp_path: Path, mariadb_pair: tuple[Server, Server]) -> None:
    source, target = mariadb_pair
    source.execute("CREATE DATABASE many", "USE many", *(
        statement
        for number in range(creating.MANY_TABLES)
        for statement in (
            f"CREATE TABLE t{number:03} (id INT PRIMARY KEY, n INT, UNIQUE KEY (n, id), KEY (n))",
            f"INSERT INTO t{number:03} SELECT seq, seq % 3 FROM seq_1_to_{1 + number % 5}",
        )
    ))  # fmt: skip
    source.execute(
        "USE many", "CREATE TABLE large (id INT PRIMARY KEY, n INT, text VARCHAR(20), KEY (n), FULLTEXT KEY (text))",
        f"INSERT INTO large SELECT seq, seq, CONCAT('word ', seq) FROM seq_1_to_{creating.FEW_ROWS + 1}",
        "CREATE TABLE parent (id INT PRIMARY KEY)", "INSERT INTO parent VALUES (1)",
        "CREATE TABLE child (id INT PRIMARY KEY, n INT, FOREIGN KEY (n) REFERENCES parent (id))",
        "INSERT INTO child VALUES (1, 1)",
    )  # fmt: skip
    scene = Scene(tmp_path / "scene", source=source, target=target)
    scene.ok("init", "--keys", str(scene.keys))
    scene.ok("backup", "full")
    scene.restore("--to", "latest")
    assert scenario.truth(target) == scenario.truth(source)
    assert scenario.definitions(target) == scenario.definitions(source)


def test_sessions_beside_each_other_make_what_is_missing_and_name_what_they_cannot(mariadb: Server) -> None:
    mariadb.execute("CREATE DATABASE s", "CREATE TABLE s.t03 (other INT)")
    made = tuple(Definition("table", "s", f"t{number:02}", (f"CREATE TABLE `t{number:02}` (id INT)",)) for number in range(9))
    opened = []

    def open_session() -> server.Connection:
        opened.append(server.connect(mariadb.endpoint))
        return opened[-1]

    with server.connect(mariadb.endpoint) as connection:
        def create(*more: Definition) -> list[str]:
            tables = creating.PlannedTables((), (*made, *more), {})
            return creating.create_tables(connection, tables, open_session=open_session, sessions=3, sources={})

        assert create() == []
        assert len(opened) == 3
        names = [row[0] for row in connection.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 's'")]
        assert sorted(names) == [one.name for one in made]
        assert connection.rows("SHOW COLUMNS FROM s.t03")[0][0] == "other"  # it was there
        assert create() == [] and len(opened) == 3  # nothing is missing: nobody logs in
        with pytest.raises(errors.DatabaseError, match=r"cannot create table s\.odd"):
            create(Definition("table", "s", "odd", ("CREATE TABLE `odd` (id NOTYPE)",)))
