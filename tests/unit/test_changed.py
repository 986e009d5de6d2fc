"""Which statements of the binlog make the rows of a running backup doubtful."""

from __future__ import annotations

import struct

import pytest

from kpbackup import errors
from kpbackup.model.inventory import Inventory, Table
from kpbackup.mysql import events
from kpbackup.mysql.changed import Watch, explained, feed_event, refuse
from kpbackup.mysql.events import StreamEvent

KNOWN = [("bank", "account"), ("bank", "transfer")]


def watch(*statements: str, databases: tuple[str, ...] = ()) -> Watch:
    found = Watch(databases, KNOWN)
    for statement in statements:
        found.feed(statement, database="bank")
    return found


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE account ADD x INT", "DROP TABLE bank.account", "DROP TABLE IF EXISTS fresh, account", "TRUNCATE account",
        "TRUNCATE TABLE `bank`.`account`", "RENAME TABLE account TO a2, transfer TO account, a2 TO transfer",
        "RENAME TABLE fresh TO account", "RENAME TABLE other.x TO bank.account", "ALTER TABLE fresh RENAME TO account",
        "ALTER TABLE fresh RENAME account", "CREATE OR REPLACE TABLE account (i INT)", "CREATE INDEX i ON account (money)",
        "DROP INDEX i ON ACCOUNT", "DROP DATABASE bank", "CREATE DATABASE more", "CREATE VIEW v AS SELECT 1",
        "CREATE TRIGGER t BEFORE INSERT ON fresh FOR EACH ROW SET @a = 1", "CREATE PROCEDURE p() SELECT 1", "DROP EVENT e",
        "CREATE USER u", "GRANT SELECT ON bank.* TO u", "SET STATEMENT max_statement_time=1 FOR DROP TABLE account",
        "/*!50000 DROP TABLE account */", "DROP TABLE Account", "CREATE SEQUENCE s", "INSTALL SONAME 'x'",
    ],
)
def test_what_changes_definitions_is_told(statement: str) -> None:
    assert len(watch(statement).changes) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "BEGIN", "COMMIT", "SAVEPOINT `a`", "XA START 'x'", "INSERT INTO account VALUES (1)", "# Dum", "FLUSH TABLES",
        "ANALYZE TABLE account", "OPTIMIZE TABLE account", "CREATE TEMPORARY TABLE account (i INT)",
        "DROP /*!40005 TEMPORARY */ TABLE IF EXISTS `account`", "CREATE TABLE mysql.account (i INT)",
    ],
)
def test_what_changes_none_passes(statement: str) -> None:
    found = watch(statement)
    found.pass_point()
    assert found.changes == []


def test_new_tables_come_and_go() -> None:
    found = watch(
        "DROP TABLE IF EXISTS report", "CREATE TABLE report LIKE account", "ALTER TABLE report ADD x INT", "TRUNCATE report",
        "CREATE TABLE IF NOT EXISTS account (i INT)", "RENAME TABLE report TO bank.report_old", "CREATE TABLE `Report` (i INT)",
    )
    assert found.changes == []
    tables = [Table("bank", name, "InnoDB", "", (), (), transactional=True) for name in ("account", "report", "report_old", "x")]
    kept = found.settled(Inventory({}, (), tuple(tables), (), (), ()))
    assert [table.name for table in kept.tables] == ["account", "x"]


@pytest.mark.parametrize(
    ("statements", "there"),
    [
        (("CREATE TABLE report (i INT)",), ["CREATE TABLE bank.report"]),
        (("CREATE TABLE report (i INT)", "TRUNCATE report", "DROP TABLE report"), []),
        (("CREATE TABLE a (i INT)", "RENAME TABLE a TO c", "CREATE TABLE a (i INT)", "DROP TABLE a"),
         ["CREATE TABLE bank.c"]),
        (("DROP TABLE IF EXISTS report",), []),
    ],
)
def test_a_new_table_that_is_there_at_the_point_is_missing_in_the_set(statements: tuple[str, ...], there: list[str]) -> None:
    found = watch(*statements)
    assert found.changes == []
    found.pass_point()
    assert found.changes == there


def test_databases_that_are_not_backed_up_do_not_matter() -> None:
    assert watch("DROP TABLE other.x, other.y", "DROP DATABASE other", databases=("Bank",)).changes == []
    found = watch("RENAME TABLE other.x TO BANK.account", "DROP TABLE account", databases=("Bank",))
    assert found.changes == ["RENAME TABLE other.x, BANK.account", "DROP TABLE bank.account"]


def test_the_error_names_a_few() -> None:
    refuse([])
    with pytest.raises(errors.SnapshotError, match=r"while the backup ran: a; b; c and 2 more") as caught:
        refuse("abcde")
    assert "run the backup again" in caught.value.hint


def test_what_a_worker_met_is_explained() -> None:
    for number in (1412, 1146, 1054, 1205):
        assert isinstance(explained(errors.DatabaseError("reading", number=number)), errors.SnapshotError)
    other = errors.DatabaseError("reading", number=1317)
    assert explained(other) is other


@pytest.mark.parametrize("status", [b"", b"\xfa\x01\x02"])
def test_a_statement_is_read_out_of_its_event_whatever_stands_before_it(status: bytes) -> None:
    """`fa` is a status variable that nobody knows yet: what a newer server writes must not end its backups."""
    found = Watch((), KNOWN)
    for text in (b"BEGIN", b"DROP TABLE account", b"DROP TABLE gone"):
        body = struct.pack("<IIBHH", 1, 0, 4, 0, len(status)) + status + b"bank\0" + text
        head = events.HEADER.pack(1, events.QUERY, 1, 0, 0, 0)
        feed_event(found, StreamEvent("binlog.000001", 4, 99, events.QUERY, events.seal_event(head + body)))
    assert found.changes == ["DROP TABLE bank.account"]
