"""Which sets come back in two tiers, and from which number on the application may give its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kpbackup import errors
from kpbackup.model.inventory import ChunkBounds, ChunkRecord, Column, Definition, Inventory, Table
from kpbackup.model.selection import Selection
from kpbackup.mysql import tiering
from kpbackup.mysql.tiering import Tiers
from kpbackup.recovery import profile


def table(name: str, *keys: str, kind: str = "bigint unsigned", number: str = "", option: str = " AUTO_INCREMENT") -> Table:
    lines = ",\n".join((f"  `id` {kind} NOT NULL{option}", "  PRIMARY KEY (`id`)", *(f"  {key}" for key in keys)))
    counter = f" AUTO_INCREMENT={number}" if number else ""
    text = f"CREATE TABLE `{name}` (\n{lines}\n) ENGINE=InnoDB{counter} DEFAULT CHARSET=utf8"
    column = Column("id", kind.split()[0].split("(")[0], kind)
    return Table("shop", name, "InnoDB", text, (column,), ("id",), transactional=True)


def to(parent: str) -> str:
    return f"CONSTRAINT `fk_{parent}` FOREIGN KEY (`id`) REFERENCES `{parent}` (`id`)"


def chunk(name: str) -> ChunkRecord:
    return ChunkRecord("shop", name, ChunkBounds(), "object", 0, 5, 100, "")


def inventory(*tables: Table, after_rows: tuple[Definition, ...] = ()) -> Inventory:
    database = Definition("database", "shop", "shop", ("CREATE DATABASE `shop`",))
    return Inventory({}, (database,), tables, (), after_rows, (), tuple(chunk(one.name) for one in tables))


USERS, SESSIONS = table("users"), table("sessions", to("users"), number="41")
COMMANDS = table("commands", to("sessions"), number="7")
TIERS = Tiers(("shop.sessions", "shop.commands", "shop.none*"), room=100)


def test_rows_are_told_apart_and_parents_come_first() -> None:
    found = tiering.split(inventory(COMMANDS, USERS, SESSIONS), TIERS)
    assert found is not None
    assert [one.table for one in found.essential.chunks] == ["users"] and len(found.essential.tables) == 3
    assert {one.table for one in found.shadow.inventory.chunks} == {"sessions", "commands"}
    assert found.names == ["shop.sessions", "shop.commands"]
    assert not found.shadow.cascades and "REFERENCES `users`" not in str(found.shadow.inventory.tables)
    assert "REFERENCES `sessions`" in str(found.shadow.inventory.tables)
    assert found.starts({"sessions": 3}) == {"sessions": 41 + 30 + 100, "commands": 107}
    assert tiering.split(inventory(USERS), TIERS) is None


@pytest.mark.parametrize(("kind", "fits"), [
    ("bigint", True), ("int(10) unsigned", True), ("smallint(6)", False), ("tinyint(3) unsigned", False),
])  # fmt: skip
def test_numbers_must_fit(kind: str, fits: bool) -> None:
    found = tiering.split(inventory(table("sessions", kind=kind)), replace(TIERS, room=20_000))
    assert found is not None
    if fits:
        assert found.starts({}) == {"sessions": 20_001}
        return
    with pytest.raises(errors.TargetRefused, match="no room for 20000 more numbers"):
        found.starts({})


TRIGGER = Definition("trigger", "shop", "tr", ("CREATE TRIGGER tr BEFORE INSERT ON `sessions` FOR EACH ROW SET NEW.id = 1",))


@pytest.mark.parametrize(("whole", "said"), [
    (inventory(table("carts", to("sessions")), SESSIONS), "essential table shop.carts has a foreign key to shop.sessions"),
    (inventory(table("sessions", option="")), "shop.sessions has no AUTO_INCREMENT primary key"),
    (inventory(replace(SESSIONS, key=("id", "more"))), "shop.sessions has no AUTO_INCREMENT primary key"),
    (inventory(replace(SESSIONS, history=("a", "b"))), "keeps its history"),
    (inventory(replace(SESSIONS, transactional=False)), "has no transactions"),
    (inventory(table("sessions", to("sessions"))), "leads back to itself"),
    (inventory(table("sessions", to("commands")), COMMANDS), "leads back to itself"),
    (inventory(SESSIONS, after_rows=(TRIGGER,)), "shop.sessions has the trigger tr"),
    (replace(inventory(SESSIONS), selection=Selection(("shop",))), "a part of its source"),
])  # fmt: skip
def test_what_cannot_come_back_apart(whole: Inventory, said: str) -> None:
    with pytest.raises(errors.TargetRefused, match=said) as caught:
        tiering.split(whole, TIERS)
    assert "--one-phase" in caught.value.hint


def test_the_tables_that_the_shipped_profile_lets_come_later_do() -> None:
    found = profile.load("kubepolaris")
    texts = (Path(__file__).parents[2] / "demo" / "schema.sql").read_text().split("CREATE TABLE ")[1:]
    tables = []
    for text in texts:
        name = text.split("`")[1]
        create = "CREATE TABLE " + text[: text.index("\n)")] + "\n) ENGINE=InnoDB"
        column = Column("id", "bigint", "bigint unsigned")
        tables.append(Table(found.database, name, "InnoDB", create, (column,), ("id",), transactional=True))
    whole = replace(inventory(*tables), databases=(Definition("database", found.database, found.database, ("CREATE",)),))
    second = tiering.split(whole, Tiers(tuple(f"{found.database}.{name}" for name in found.second_tier)))
    assert second is not None and set(found.second_tier) == {table.name for table in second.tables}
    assert not second.shadow.cascades
    assert second.names.index("kubepolaris.terminal_sessions") < second.names.index("kubepolaris.terminal_commands")
