"""Where a definition names a database, and where the same word is something else."""

from __future__ import annotations

import pytest

from kpbackup import errors
from kpbackup.model.inventory import Definition, Inventory
from kpbackup.mysql import renaming, statements

SHOP = {"shop": "shop 2", "a`b": "c"}


@pytest.mark.parametrize(("text", "renamed"), [
    ("select `shop`.`orders`.`id` from `shop`.`orders`", "select `shop 2`.`orders`.`id` from `shop 2`.`orders`"),
    ("SELECT id FROM shop . orders, other.orders", "SELECT id FROM `shop 2` . orders, other.orders"),
    ("SELECT * FROM `a``b`.t JOIN shops.t JOIN SHOP.t", "SELECT * FROM `c`.t JOIN shops.t JOIN SHOP.t"),
    ("CREATE DEFINER=`shop`@`%` VIEW v AS SELECT 1", None),
    ("SELECT 'shop.orders', @shop -- shop.orders\n + 1 /* shop.t */", None),
    ("FOREIGN KEY (`a`) REFERENCES `shop`.`p` (`id`)", "FOREIGN KEY (`a`) REFERENCES `shop 2`.`p` (`id`)"),
    ("CALL shop.p('shop')", "CALL `shop 2`.p('shop')"),
])  # fmt: skip
def test_a_database_is_renamed_and_nothing_else(text: str, renamed: str | None) -> None:
    assert renaming.Rewriter(SHOP, fold=False).text(text, what="x") == (renamed or text)


@pytest.mark.parametrize("text", [
    "SELECT shop.id FROM orders shop", "SELECT shop.id FROM crm.shop", "SELECT shop FROM t", "DECLARE shop INT",
    "PREPARE s FROM 'DELETE FROM shop.orders'", "SELECT 1 FROM information_schema.tables WHERE table_schema = 'shop'",
])  # fmt: skip
def test_what_is_not_sure_is_refused(text: str) -> None:
    with pytest.raises(errors.TargetRefused, match="cannot rename in view a.b surely"):
        renaming.Rewriter(SHOP, fold=False).text(text, what="view a.b")


def test_case_and_quotes_are_those_of_the_server() -> None:
    folded = renaming.Rewriter(SHOP, fold=True)
    assert folded.text("SELECT 1 FROM SHOP.t", what="x") == "SELECT 1 FROM `shop 2`.t"
    ansi = folded.text('SELECT "shop.t" FROM "shop".t', what="x", sql_mode=statements.SQL_MODE_ANSI_QUOTES)
    assert ansi == 'SELECT "shop.t" FROM `shop 2`.t'


@pytest.mark.parametrize(("names", "kind"), [
    ({"none": "x"}, errors.UsageError), ({"shop": "mysql"}, errors.UsageError), ({"shop": "crm"}, errors.UsageError),
    ({"shop": "x" * 65}, errors.UsageError), ({"new": "x"}, errors.TargetRefused), ({"pack": "x"}, errors.TargetRefused),
])  # fmt: skip
def test_names_that_cannot_be(names: dict[str, str], kind: type[errors.KpbackupError]) -> None:
    databases = tuple(Definition("database", one, one, (f"CREATE DATABASE `{one}`",)) for one in ("shop", "crm", "new", "pack"))
    inventory = Inventory({}, databases, (), (), (Definition("package", "shop", "pack", ("CREATE PACKAGE pack AS END",)),), ())
    with pytest.raises(kind):
        renaming.rename(inventory, names)
    swapped = renaming.rename(inventory, {"shop": "crm", "crm": "shop"})
    assert [one.name for one in swapped.databases] == ["crm", "shop", "new", "pack"]
