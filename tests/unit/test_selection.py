"""Which names a selection means, and which statements of the binlog have surely nothing to do with it."""

from __future__ import annotations

import pytest

from kpbackup import errors
from kpbackup.model.coordinates import Coordinates
from kpbackup.model.inventory import Column, Definition, Inventory, Table
from kpbackup.model.selection import Narrowed, Selection, fault
from kpbackup.mysql import selecting, statements
from kpbackup.mysql.transactions import Kind, Transaction
from kpbackup.recovery import selected_replay

DONE = Transaction("b.1", 4, 9, "0-1-7", 0, Kind.STATEMENT)


def table(schema: str, name: str, more: str = "") -> Table:
    create = f"CREATE TABLE `{name}` (\n  `id` int(11) NOT NULL,\n  PRIMARY KEY (`id`){more}\n) ENGINE=InnoDB"
    return Table(schema, name, "InnoDB", create, (Column("id", "int", "int(11)"),), ("id",), True)


WHOLE = Inventory(
    settings={}, databases=tuple(Definition("database", name, name, ()) for name in ("shop", "logs", "crm")),
    tables=(table("shop", "orders"), table("shop", "notes"), table("logs", "orders"), table("crm", "people")),
    sequences=(), after_rows=(), accounts=(Definition("account", "", "`a`@`b`", ("CREATE USER",)),),
)  # fmt: skip


@pytest.mark.parametrize(("only", "exclude", "taken"), [
    ((), ("logs",), {"shop.orders", "shop.notes", "crm.people"}),
    (("shop",), (), {"shop.orders", "shop.notes"}),
    (("shop.*",), ("shop.n?tes",), {"shop.orders"}),
    (("*.orders", "crm"), ("logs.*",), {"shop.orders", "crm.people"}),
    (("s?op.o*s",), (), {"shop.orders"}),
])  # fmt: skip
def test_patterns(only: tuple[str, ...], exclude: tuple[str, ...], taken: set[str]) -> None:
    found = selecting.select(WHOLE, Selection(only, exclude)).inventory
    assert {f"{one.schema}.{one.name}" for one in found.tables} == taken
    assert {one.name for one in found.databases} == {name.split(".")[0] for name in taken}
    assert found.accounts == ()


def test_dots_and_signs_of_regular_expressions_are_plain() -> None:
    assert Selection(("a+b.c[d]",)).takes("a+b", "c[d]") and not Selection(("a.b",)).takes("axb", "")
    assert Selection(("my?db.t",)).takes("my.db", "t")
    assert [bool(fault(one)) for one in ("a", "a.b", "*", "", ".b", "a.")] == [False, False, False, True, True, True]


ABOUT, NOTHING_TO_DO, REFUSED = True, False, None


@pytest.mark.parametrize(("sql", "database", "answer"), [
    # of shop.orders alone
    ("ALTER TABLE orders ADD c INT", "shop", ABOUT),
    ("DROP TABLE shop.orders", "crm", ABOUT),
    ("TRUNCATE orders", "shop", ABOUT),
    ("CREATE TRIGGER t BEFORE INSERT ON orders FOR EACH ROW SET NEW.id = 1", "shop", ABOUT),
    ("ALTER TABLE orders ADD c INT", "logs", NOTHING_TO_DO),
    ("CREATE TABLE new (id INT)", "shop", NOTHING_TO_DO),
    ("ALTER TABLE people RENAME TO persons", "crm", NOTHING_TO_DO),
    ("CREATE PROCEDURE p() DELETE FROM orders", "shop", NOTHING_TO_DO),
    ("DROP DATABASE logs", "shop", NOTHING_TO_DO),
    ("GRANT SELECT ON shop.orders TO a", "", NOTHING_TO_DO),
    ("DROP TABLE orders, notes", "shop", REFUSED),
    ("RENAME TABLE orders TO old, new TO orders", "shop", REFUSED),
    ("ALTER TABLE crm.people RENAME TO shop.orders", "crm", REFUSED),
    ("ALTER TABLE notes RENAME orders", "shop", REFUSED),
    ("ALTER TABLE notes EXCHANGE PARTITION p WITH TABLE orders", "shop", REFUSED),
    ("ALTER TABLE orders ADD FOREIGN KEY (id) REFERENCES notes (id)", "shop", REFUSED),
    ("DROP TRIGGER t", "shop", REFUSED),
    ("DROP DATABASE shop", "shop", REFUSED),
    ("UPDATE orders SET id = 1", "shop", REFUSED),
])  # fmt: skip
def test_statements_beside_one_table(sql: str, database: str, answer: bool | None) -> None:
    assert judged(Selection(("shop.orders",)), sql, database) is answer


@pytest.mark.parametrize(("sql", "database", "answer"), [
    ("RENAME TABLE orders TO old", "shop", ABOUT),
    ("CREATE TABLE c (id INT REFERENCES orders (id))", "shop", ABOUT),
    ("DROP TRIGGER t", "shop", ABOUT),
    ("CREATE PROCEDURE p() SELECT 1", "shop", ABOUT),
    ("DROP DATABASE shop", "", ABOUT),
    ("RENAME TABLE logs.orders TO logs.old", "crm", NOTHING_TO_DO),
    ("CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO DELETE FROM people", "crm", NOTHING_TO_DO),
    ("RENAME TABLE shop.orders TO logs.gone", "shop", REFUSED),
    ("CREATE TABLE shop.c LIKE logs.orders", "logs", REFUSED),
    ("ALTER TABLE shop.orders ADD c INT", "logs", ABOUT),
    ("CREATE PROCEDURE logs.p() SELECT 1", "shop", REFUSED),
])  # fmt: skip
def test_statements_beside_a_whole_database(sql: str, database: str, answer: bool | None) -> None:
    assert judged(Selection(("shop",)), sql, database) is answer


def judge_of(selection: Selection) -> selected_replay.Judge:
    chosen = Narrowed(Selection(), selection)
    return selected_replay.Judge(Coordinates("b.1", 4), chosen, WHOLE, selecting.select(WHOLE, selection))


def judged(selection: Selection, sql: str, database: str) -> bool | None:
    touched = selected_replay.Touched()
    touched.statements.append((statements.read(sql, database=database), database))
    judge = judge_of(selection)
    try:
        return judge.is_replayed(DONE, touched)
    except errors.UnreachableTarget as exc:
        assert "--to-position" in exc.hint
        return None


def test_a_database_made_since_is_known() -> None:
    selection = Selection((), ("logs",))
    judge = judge_of(selection)
    for sql, database in (("CREATE DATABASE fresh", ""), ("RENAME TABLE logs.orders TO fresh.orders", "logs")):
        touched = selected_replay.Touched()
        touched.statements.append((statements.read(sql, database=database), database))
        if database:
            with pytest.raises(errors.UnreachableTarget):
                judge.is_replayed(DONE, touched)
        else:
            assert judge.is_replayed(DONE, touched)
