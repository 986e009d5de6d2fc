"""Sums over restored tables (`recovery.proof`): taken in parts by several sessions, they are what one pass gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from kpbackup.mysql import server
from kpbackup.recovery import proof
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.mysql97 import mysql97_server

ROWS = proof.PART_ROWS * 3 // 2  # more than one part
TABLES = (
    "CREATE TABLE p.large (id BIGINT PRIMARY KEY, n INT, t VARCHAR(20) CHARACTER SET latin1)",
    "CREATE TABLE p.kinds (id INT UNSIGNED PRIMARY KEY, a DECIMAL(30,10), b DATETIME(6), c TIME(3), d TEXT CHARACTER SET utf8mb4,"
    " e VARBINARY(20), f DOUBLE, g FLOAT, h BIT(13), i ENUM('x', 'y'), j JSON, k YEAR, l CHAR(4) CHARACTER SET utf16)",
    "CREATE TABLE p.mixed (a VARCHAR(9) CHARACTER SET latin1, b TEXT COLLATE utf8mb4_bin, c CHAR(9) COLLATE utf8mb4_unicode_ci,"
    " d TEXT CHARACTER SET ucs2, e VARCHAR(9) CHARACTER SET gbk, f VARBINARY(9))",
    "CREATE TABLE p.keyless (a INT, b TEXT)",
    "CREATE TABLE p.`empty one` (id INT PRIMARY KEY)",
)
VALUES = (
    "(1, '-12345678901234567890.0123456789', '2026-01-02 03:04:05.678901', '-837:59:59.5', '漢字 😀', x'00ff7c27', 0.1, 1.5,"
    " b'101', 'y', '{\"a\": 1}', 2026, 'äb')",
    "(7, NULL, NULL, NULL, '', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    "(4000000000, 0, '0001-01-01', '0', '|', '|', -1e300, 0, 0, 'x', '[]', 1901, '')",
)


@pytest.fixture(scope="module", params=["mariadb", "mysql"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if request.param == "mysql":
        request.getfixturevalue("mysql97_programs")
    start = mariadb_server if request.param == "mariadb" else mysql97_server
    with start(tmp_path_factory.mktemp("proof") / request.param, server_id=73) as found:
        found.execute("CREATE DATABASE p", *TABLES)
        with found.connect() as connection:
            connection.execute("INSERT INTO p.large VALUES (-5, NULL, NULL), (0, 1, 'ä')")
            while int(connection.value("SELECT COUNT(*) FROM p.large")) < ROWS:
                highest = connection.value("SELECT MAX(id) FROM p.large")
                connection.execute(f"INSERT INTO p.large SELECT id + 6 + {highest}, id MOD 97, CONCAT('row ', id) FROM p.large")
            for values in VALUES:
                connection.execute(f"INSERT INTO p.kinds VALUES {values}")
            connection.execute("INSERT INTO p.mixed VALUES ('ä', '漢😀', 'ß', '漢', '字', x'ff00'), (NULL, 'e', '', 'e', '', '')")
            connection.execute("INSERT INTO p.keyless VALUES (1, 'a'), (1, 'a'), (NULL, '')")
            connection.rows("ANALYZE TABLE p.large")
        yield found


def _in_one_pass(connection: server.Connection, name: str, one: proof.TableProof) -> tuple[int, str]:
    """The sum as it is defined: every value cast, one statement, the rows of all parts."""
    schema, _, table = name.partition(".")
    values = ", ".join(
        f"CASE WHEN `{column}` IS NULL THEN {_marker(name, column, one)} ELSE CAST(`{column}` AS BINARY) END" if one.null
        else f"ISNULL(`{column}`), CAST(`{column}` AS BINARY)"
        for column in one.columns
    )  # fmt: skip
    ((rows, total),) = connection.rows(
        f"SELECT COUNT(*), COALESCE(SUM(CRC32(CONCAT_WS('|', {values}))), 0) FROM `{schema}`.`{table}`"
    )
    return int(rows), str(int(total))


def _marker(table: str, column: str, one: proof.TableProof) -> str:
    """What stands for NULL, as bytes in the column's character set."""
    wide = {("p.kinds", "l"): "utf16", ("p.mixed", "d"): "ucs2"}.get((table, column), "utf8mb4")
    return f"CAST(CONVERT('{one.null}' USING {wide}) AS BINARY)"


def test_parts_add_up_to_the_sum_of_one_pass(target: Server) -> None:
    taken = proof.take(target.endpoint, {})
    assert set(taken) == {"p.large", "p.kinds", "p.mixed", "p.keyless", "p.empty one"}
    with target.connect() as connection:
        connection.execute("SET SESSION sql_mode = ''")
        for name, one in taken.items():
            assert (one.rows, one.total) == _in_one_pass(connection, name, one), name
    assert taken["p.large"].rows >= ROWS
    assert proof.differences(target.endpoint, taken, leave_out=()) == []


def test_sums_of_an_older_version_in_the_journal_still_hold(target: Server) -> None:
    """Those had a flag beside every value for NULL."""
    taken = {name: replace(one, null="") for name, one in proof.take(target.endpoint, {}).items()}
    with target.connect() as connection:
        connection.execute("SET SESSION sql_mode = ''")
        older = {name: replace(one, total=_in_one_pass(connection, name, one)[1]) for name, one in taken.items()}
    assert proof.differences(target.endpoint, older, leave_out=()) == []


@pytest.mark.parametrize(
    ("change", "back", "told"),
    [
        ("DELETE FROM p.large WHERE id = -5", "INSERT INTO p.large VALUES (-5, NULL, NULL)", "of its"),
        ("UPDATE p.large SET t = 'a' WHERE id = 0", "UPDATE p.large SET t = 'ä' WHERE id = 0", "p.large: restored rows have"),
        ("UPDATE p.kinds SET e = '' WHERE id = 7", "UPDATE p.kinds SET e = NULL WHERE id = 7", "p.kinds: restored rows have"),
        ("ALTER TABLE p.keyless DROP COLUMN a", None, "has lost the column a"),
    ],
)
def test_every_change_is_seen(target: Server, change: str, back: str | None, told: str) -> None:
    before = proof.take(target.endpoint, {})
    target.execute(change)
    (found,) = proof.differences(target.endpoint, before, leave_out=())
    assert told in found
    if back is not None:
        target.execute(back)
        assert proof.differences(target.endpoint, before, leave_out=()) == []


def test_rows_above_the_highest_key_and_left_out_columns_do_not_count(target: Server) -> None:
    before = proof.take(target.endpoint, {"large": ["t"]})
    assert before["p.large"].columns == ("id", "n")
    target.execute(
        "INSERT INTO p.large SELECT MAX(id) + 1, 1, 'new' FROM p.large", "UPDATE p.large SET t = 'other' WHERE id = 0",
        "INSERT INTO p.`empty one` VALUES (1)",
    )
    assert proof.differences(target.endpoint, before, leave_out=()) == []
    forged = {**before, "p.large": replace(before["p.large"], rows=1)}
    assert proof.differences(target.endpoint, forged, leave_out=["large"]) == []
