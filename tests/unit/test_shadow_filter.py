"""Which statements are executed in a shadow, which are left out, and which cannot be told apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpbackup import errors
from kpbackup.model.inventory import Definition, Inventory, Table
from kpbackup.model.selection import Narrowed, Selection
from kpbackup.mysql import events, row_events, selecting, shadowing
from kpbackup.mysql.direct_steps import Rows
from kpbackup.mysql.query_event import QueryEvent
from kpbackup.mysql.shadow_filter import ChosenRows, ShadowFilter
from kpbackup.mysql.shadowing import Shadow


def table(schema: str, name: str, *lines: str) -> Table:
    columns = ",\n".join(("  `id` int(11) NOT NULL", *(f"  {line}" for line in lines)))
    return Table(schema, name, "InnoDB", f"CREATE TABLE `{name}` (\n{columns}\n) ENGINE=InnoDB", (), (), transactional=True)


def inventory(*tables: Table, after_rows: tuple[Definition, ...] = ()) -> Inventory:
    names = sorted({one.schema for one in tables})
    made = tuple(Definition("database", name, name, (f"CREATE DATABASE `{name}`",)) for name in names)
    return Inventory({}, made, tables, (), after_rows, ())


WHOLE = inventory(
    table("shop", "orders"), table("shop", "items", "CONSTRAINT `f` FOREIGN KEY (`id`) REFERENCES `orders` (`id`)"),
    table("shop", "notes"), table("logs", "orders"),
)  # fmt: skip


def shadow(whole: Inventory = WHOLE, *only: str) -> Shadow:
    selection = Selection(only or ("shop.orders", "shop.items"))
    return shadowing.shadow(whole, selecting.select(whole, selection), Narrowed(Selection(), selection), "before")


def query(text: str, database: str = "shop") -> QueryEvent:
    return QueryEvent(text.encode(), database, 1, 0, 0, 0, {})


@pytest.mark.parametrize(("text", "executed"), [
    ("ALTER TABLE orders ADD a INT", "ALTER TABLE orders ADD a INT"),
    ("ALTER TABLE shop.orders ADD a INT", "ALTER TABLE `before`.orders ADD a INT"),
    ("ALTER TABLE `shop` . `orders` RENAME COLUMN a TO b, RENAME INDEX c TO d",
     "ALTER TABLE `before` . `orders` RENAME COLUMN a TO b, RENAME INDEX c TO d"),
    ("CREATE INDEX i ON shop.items (id)", "CREATE INDEX i ON `before`.items (id)"),
    ("TRUNCATE orders", "TRUNCATE orders"), ("DROP TABLE orders, shop.items", "DROP TABLE orders, `before`.items"),
    ("SAVEPOINT s", "SAVEPOINT s"),
])  # fmt: skip
def test_executed(text: str, executed: str) -> None:
    found = ShadowFilter(shadow()).choose(query(text), "b.1:4")
    assert found is not None and found.text.decode() == executed
    assert found.database == ("" if text.startswith("SAVEPOINT") else "before")


@pytest.mark.parametrize("text", [
    "ALTER TABLE notes ADD a INT", "ALTER TABLE logs.orders ADD a INT", "CREATE TABLE notes2 LIKE orders",
    "CREATE TRIGGER t BEFORE INSERT ON orders FOR EACH ROW SET NEW.id = 1", "DROP TRIGGER t", "CREATE VIEW v AS SELECT 1",
    "RENAME TABLE notes TO more", "CREATE USER a@b", "GRANT SELECT ON shop.orders TO a@b", "CREATE DATABASE IF NOT EXISTS shop",
    "CREATE DATABASE third", "DROP DATABASE logs", "FLUSH TABLES", "ANALYZE TABLE orders", "DROP PROCEDURE p",
])  # fmt: skip
def test_left_out(text: str) -> None:
    assert ShadowFilter(shadow()).choose(query(text), "b.1:4") is None


@pytest.mark.parametrize("text", [
    "DROP TABLE orders, notes", "RENAME TABLE orders TO aside", "RENAME TABLE notes TO orders", "ALTER TABLE orders RENAME TO a",
    "ALTER TABLE orders RENAME a", "ALTER TABLE notes EXCHANGE PARTITION p WITH TABLE orders", "DROP DATABASE shop",
    "ALTER DATABASE shop CHARACTER SET latin1", "ALTER TABLE orders ADD CONSTRAINT c FOREIGN KEY (id) REFERENCES notes (id)",
    "ALTER TABLE items DROP FOREIGN KEY f", "UPDATE orders SET id = 1", "DELETE FROM notes", "CALL logs.p()",
    "ALTER TABLE orders DISCARD TABLESPACE", "ALTER TABLE orders ENGINE=FEDERATED", "ALTER TABLE shop.orders ADD shop INT",
    "ALTER TABLE orders ADD a INT DEFAULT (logs.f())",
    "SET STATEMENT max_statement_time = 9 FOR ALTER TABLE orders ADD a INT", "CREATE OR REPLACE TABLE orders SELECT * FROM notes",
])  # fmt: skip
def test_not_to_be_told_apart(text: str) -> None:
    with pytest.raises(errors.StepFailed, match="at b.1:4"):
        ShadowFilter(shadow()).choose(query(text), "b.1:4")
    listing = ShadowFilter(shadow(), lists=True)
    assert listing.choose(query(text), "b.1:4") is None and len(listing.refusals) == 1


def test_rows_changed_by_a_statement_elsewhere_count_when_something_reaches_in() -> None:
    away = query("UPDATE orders SET id = 1", "third")
    assert ShadowFilter(shadow(WHOLE, "shop.notes")).choose(replace(away, text=b"UPDATE t SET id = 1"), "") is None
    text = "CREATE TRIGGER t BEFORE INSERT ON logs.orders FOR EACH ROW DELETE FROM shop.notes"
    reached = replace(WHOLE, after_rows=(Definition("trigger", "logs", "t", (text,)),))
    with pytest.raises(errors.StepFailed):
        ShadowFilter(shadow(reached, "shop.notes")).choose(replace(away, text=b"UPDATE t SET id = 1"), "")
    learned = ShadowFilter(shadow(WHOLE, "shop.notes"))
    learned.choose(query(text), "")
    with pytest.raises(errors.StepFailed):
        learned.choose(replace(away, text=b"UPDATE t SET id = 1"), "")


def test_foreign_keys_stay_between_chosen_tables_alone() -> None:
    both = shadow()
    assert [text.count("FOREIGN KEY") for text in (one.create_sql for one in both.inventory.tables)] == [0, 1]
    assert not both.cascades and not both.notes
    cascading = inventory(table("shop", "p"), table("shop", "c", "CONSTRAINT `a` FOREIGN KEY (`id`) REFERENCES `p` (`id`)",
                          "CONSTRAINT `b` FOREIGN KEY (`id`) REFERENCES `p` (`id`) ON DELETE SET NULL"))  # fmt: skip
    alone = shadow(cascading, "shop.c")
    assert "FOREIGN KEY" not in alone.inventory.tables[0].create_sql and alone.cascades == ("shop.c",) and len(alone.notes) == 2
    across = inventory(table("a", "p"), table("b", "c", "CONSTRAINT `x` FOREIGN KEY (`id`) REFERENCES `a`.`p` (`id`)"))
    assert "REFERENCES `p` (`id`)" in shadow(across, "a", "b").inventory.tables[1].create_sql


def event(kind: int, body: bytes) -> bytes:
    return events.seal_event(bytes(4) + bytes([kind]) + bytes(14) + body)


def mapped(number: int, schema: str, name: str) -> Rows:
    names = bytes([len(schema)]) + schema.encode() + b"\0" + bytes([len(name)]) + name.encode() + b"\0"
    return Rows(event(row_events.TABLE_MAP, number.to_bytes(6, "little") + b"\0\0" + names + b"\x01\x03\x00\x01"), False)


def changed(number: int, value: int, *, ends: bool) -> Rows:
    return Rows(event(23, number.to_bytes(6, "little") + bytes([ends, 0]) + b"\x01\xff\x00" + value.to_bytes(4, "little")), ends)


TABLES = {1: ("shop", "orders"), 2: ("shop", "notes"), 3: ("shop", "items"), 4: ("logs", "orders")}


@given(statements=st.lists(st.lists(st.sampled_from(sorted(TABLES)), min_size=1, max_size=6), max_size=4))
def test_of_each_statement_the_rows_of_chosen_tables_come_through_as_a_whole_one(statements: list[list[int]]) -> None:
    chosen, value = {1: "orders", 3: "items"}, 0
    rows = ChosenRows(ShadowFilter(shadow()), None)
    for numbers in statements:
        steps = [mapped(number, *TABLES[number]) for number in sorted(set(numbers), reverse=True)]
        for place, number in enumerate(numbers):
            value += 1
            steps.append(changed(number, value, ends=place == len(numbers) - 1))
        found = [one for step in steps for one in rows.of(step)]
        maps = [one for one in found if one.data[4] == row_events.TABLE_MAP]
        kept = [one for one in found if one.data[4] != row_events.TABLE_MAP]
        wanted = [step for step in steps if step.data[4] != row_events.TABLE_MAP and row_events.table_id(step.data) in chosen]
        assert found[: len(maps)] == maps  # all before the first row
        assert {row_events.table_name(one.data) for one in maps} == {("before", chosen[n]) for n in numbers if n in chosen}
        assert [one.data[27:-4] for one in kept] == [one.data[27:-4] for one in wanted]  # what is behind the flags
        assert [row_events.rows_flags(one.data) & 1 for one in kept] == [0] * (len(kept) - 1) + [1] * bool(kept)
        assert [one.ends_statement for one in kept] == [False] * (len(kept) - 1) + [True] * bool(kept)
        assert all(events.has_valid_crc(one.data) for one in found)


def test_a_table_map_gets_another_database() -> None:
    body = bytes(8) + b"\x04shop\x00\x06orders\x00\x01\x03\x00\x01"
    data = events.seal_event(bytes(4) + b"\x13" + bytes(14) + body)
    found = row_events.in_database(data, "a longer name")
    assert row_events.table_name(found) == ("a longer name", "orders")
    assert events.has_valid_crc(found) and int.from_bytes(found[9:13], "little") == len(found) == len(data) + 9
    assert row_events.parse_table_map(found).types == row_events.parse_table_map(data).types == b"\x03"
