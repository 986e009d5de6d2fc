"""Typed values inside MySQL's JSON: the types every way through text loses come back, by the restore and by hand.

What is compared is the server's own view of each document: its text, the type of every value in it, and its storage size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration import scenario
from tests.integration.scenario import Scene
from tests.integration.test_reader import dump_plain, run_client, run_reader
from tests.servers.database import Server
from tests.servers.mysql97 import mysql97_server

VALUES = (
    "CAST('1.10' AS DECIMAL(3,2))", "CAST('123456789012345678901234567890.5' AS DECIMAL(40,1))", "CAST(0 AS DECIMAL(5,0))",
    "CAST(-0.001 AS DECIMAL(9,3))", "CAST(18446744073709551615 AS UNSIGNED)", "CAST(7 AS UNSIGNED)", "DATE'2024-02-29'",
    "TIME'-838:59:58.000001'", "TIMESTAMP'2024-02-29 23:59:59.999999'", "FROM_BASE64('AP8nIlw=')", "x''",
    "CAST('a' AS BINARY(4))", "b'101'", "1.5e300", "-0e0", "'1.10'", "NULL", "TRUE", "ST_GeomFromText('POINT(1 2)')",
    "1714550000000", "4294967295", "4294967296", "9223372036854775807", "-4294967296", "CAST(4294967296 AS UNSIGNED)",
)
COLUMNS = {
    "tiny TINYBLOB": "'t'", "medium MEDIUMBLOB": "'m'", "large LONGBLOB": "'l'", "plain BLOB": "'p'",
    "bits BIT(13)": "b'1010101'", "at TIMESTAMP(6) NULL": "'1999-12-31 23:00:00.5'", "zero DATE": "'0000-00-00'",
    "zeros DATETIME(3)": "'2024-02-30 01:02:03.004'",
}
# of a DECIMAL the size is not compared: unused words of its integer part are not kept
EACH = "JSON_ARRAYAGG(JSON_ARRAY(n, JSON_TYPE(v), IF(JSON_TYPE(v) = 'DECIMAL', 0, JSON_STORAGE_SIZE(v))))"
EVERY_TYPE = f"""SELECT id, CAST(j AS CHAR), JSON_TYPE(j), JSON_STORAGE_SIZE(j),
  (SELECT {EACH} FROM JSON_TABLE(j, '$**.*' COLUMNS (n FOR ORDINALITY, v JSON PATH '$')) AS m),
  (SELECT {EACH} FROM JSON_TABLE(j, '$**[*]' COLUMNS (n FOR ORDINALITY, v JSON PATH '$')) AS e)
  FROM typed.docs ORDER BY id"""
NESTED = (
    f"""JSON_OBJECT('a', JSON_OBJECT('"', {VALUES[0]}, '\\\\', JSON_ARRAY({VALUES[7]}, JSON_OBJECT('ü.', {VALUES[9]}))),"""
    f" '', {VALUES[8]}, 'plain', 'text')"
)


def create(source: Server) -> None:
    kinds = [column.split()[0] for column in COLUMNS]
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})"
    source.execute(
        "CREATE DATABASE typed", "USE typed", "SET sql_mode = '', time_zone = '+00:00'",
        "CREATE TABLE docs (id INT AUTO_INCREMENT PRIMARY KEY, j JSON, k JSON,"
        " INDEX by_a ((CAST(LEFT(j->>'$.a', 40) AS CHAR(40)))), CHECK (JSON_TYPE(k) IN ('OBJECT', 'DECIMAL', 'NULL')))",
        "CREATE TABLE keyless (j JSON)", f"CREATE TABLE kinds ({', '.join(COLUMNS)})",
        f"INSERT INTO kinds VALUES ({', '.join(COLUMNS.values())})",
        *(f"INSERT INTO docs (j) VALUES (JSON_EXTRACT(JSON_ARRAY({value}), '$[0]'))" for value in VALUES),
        *(f"INSERT INTO docs (j) SELECT JSON_OBJECT('a', {kind}, 'b', JSON_ARRAY({kind}, 'x', {kind})) FROM kinds"
          for kind in kinds),
        f"INSERT INTO docs (j, k) VALUES (JSON_ARRAY({', '.join(VALUES)}), JSON_OBJECT('a', {VALUES[0]}, 'a b', {VALUES[6]}))",
        f"INSERT INTO docs (j, k) VALUES ({NESTED}, JSON_EXTRACT(JSON_ARRAY({VALUES[0]}), '$[0]'))",
        "INSERT INTO docs (j) VALUES ('{}'), ('[]'), (NULL), ('{\"a\": [1, \"x\", {\"b\": null}]}')",
        # more values than one statement sets
        f"INSERT INTO docs (j) {numbers.format(900)} SELECT JSON_ARRAYAGG(CAST(i / 4 AS DECIMAL(9,2))) FROM n",
        # more rows than one statement inserts, typed ones among them
        f"INSERT INTO docs (j) {numbers.format(700)}"
        " SELECT IF(i % 3, JSON_OBJECT('a', i), JSON_OBJECT('a', CAST(i / 8 AS DECIMAL(9,3)))) FROM n",
        "INSERT INTO keyless SELECT j FROM docs WHERE id < 40",
    )


def view(server: Server) -> list[tuple[Any, ...]]:
    return scenario.rows(server, EVERY_TYPE)


def differing(source: Server, target: Server) -> list[Any]:
    """Rows whose view differs."""
    return [(one, other) for one, other in zip(view(source), view(target), strict=True) if one != other]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, mysql97_programs: Path) -> Iterator[tuple[Server, Server]]:
    top = tmp_path_factory.mktemp("typed")
    with mysql97_server(top / "source", server_id=41) as source, mysql97_server(top / "target", server_id=42) as target:
        create(source)
        target.execute("SET GLOBAL event_scheduler = OFF")
        yield source, target


def test_the_source_holds_what_is_to_be_kept(pair: tuple[Server, Server]) -> None:
    shown = str(view(pair[0]))
    for kind in ("DECIMAL", "UNSIGNED INTEGER", "DATE", "TIME", "DATETIME", "BLOB", "BIT", "DOUBLE", "STRING"):
        assert kind in shown


def test_types_come_back_and_the_replay_goes_on(tmp_path: Path, pair: tuple[Server, Server]) -> None:
    source, target = pair
    scene = Scene(tmp_path / "scene", source=source, target=target)
    scene.ok("init", "--keys", str(scene.keys))
    assert scene.ok("backup", "full")["warnings"] == 0
    later = "UPDATE typed.docs SET j = JSON_SET(j, '$.later', TIME'01:02:03.5') WHERE JSON_TYPE(j) = 'OBJECT' AND id % 2"
    source.execute(later)
    scene.ok("backup", "incremental")
    scene.restore("--to", "latest")
    assert differing(source, target) == []
    assert scenario.truth(target) == scenario.truth(source)
    assert "kpbackup_restore" not in scenario.databases(target)


def test_types_come_back_by_hand(tmp_path: Path, pair: tuple[Server, Server]) -> None:
    """The reader keeps types and texts; BLOBs come back as VARBINARY and a DECIMAL's size may differ, as its docstring says."""
    source, target = pair
    scenario.wipe(target)
    create_sql = [scenario.rows(source, f"SHOW CREATE TABLE typed.{name}")[0][1] for name in ("docs", "keyless", "kinds")]
    target.execute("CREATE DATABASE typed", "USE typed", "SET sql_mode = ''", *create_sql)
    read = run_reader(dump_plain(source, "typed", tmp_path))
    assert (read.returncode, read.stderr) == (0, b"")
    loaded = run_client(target, read.stdout)
    assert (loaded.returncode, loaded.stderr) == (0, b"")
    found, expected = view(target), view(source)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        same_text = "base64:type" in str(one[1]) or one[:2] == other[:2]
        assert same_text and one[2] == other[2] and types_of(one) == types_of(other), (one, other)


def types_of(row: tuple[Any, ...]) -> list[list[str]]:
    return [[kind for _, kind, _ in json.loads(cell)] if cell else [] for cell in row[4:]]
