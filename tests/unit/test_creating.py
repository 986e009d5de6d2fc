"""How tables are made before their rows: which keys wait, and which tables may be made beside each other."""

from __future__ import annotations

from kpbackup.model.inventory import Column, Table
from kpbackup.recovery import creating

KEYED = (
    "CREATE TABLE `{name}` (\n  `id` int(11) NOT NULL,\n  `n` int(11) NOT NULL,\n"
    "  PRIMARY KEY (`id`),\n  KEY `n` (`n`){more}\n) {end}"
)
INNODB = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"


def table(name: str, *, engine: str = "InnoDB", more: str = "") -> Table:
    columns = tuple(Column(one, "int", "int(11)", None, None) for one in ("id", "n"))
    create_sql = KEYED.format(name=name, more=more, end=INNODB.replace("InnoDB", engine))
    return Table(
        schema="s", name=name, engine=engine, create_sql=create_sql, columns=columns, key=("id",),
        transactional=engine == "InnoDB", estimated_rows=0, estimated_bytes=0,
    )


MANY = [table(f"t{number:03}") for number in range(creating.MANY_TABLES + 1)]
CHILD = table("child", more=",\n  CONSTRAINT `c` FOREIGN KEY (`n`) REFERENCES `parent` (`id`)")


def test_keys_of_small_tables_wait_where_tables_are_few_and_not_where_they_are_many() -> None:
    few = creating.planned(MANY[:-1], {("s", one.name): 1 for one in MANY})
    many = creating.planned(MANY, {("s", one.name): 1 for one in MANY})
    assert all(few.deferred.values()) and len(few.in_order) == creating.MANY_TABLES and not few.apart
    assert not any(many.deferred.values()) and len(many.apart) == len(MANY) and not many.in_order


def test_keys_of_a_table_with_many_rows_wait_always() -> None:
    rows = {("s", one.name): 1 for one in MANY} | {("s", "t001"): creating.FEW_ROWS + 1}
    found = creating.planned(MANY, rows)
    assert [name for name, statements in found.deferred.items() if statements] == [("s", "t001")]
    (without,) = (one for one in found.apart if one.name == "t001")
    assert "KEY `n`" not in without.statements[0]


def test_a_table_without_chunks_has_its_keys_from_the_start() -> None:
    assert not creating.planned(MANY[:1], {}).deferred["s", "t000"]


def test_what_foreign_keys_tie_together_and_other_engines_are_made_in_order() -> None:
    whole = [*MANY, CHILD, table("parent"), table("other", engine="Aria")]
    found = creating.planned(whole, {("s", one.name): 1 for one in whole} | {("s", "parent"): 1_000_000})
    assert [one.name for one in found.in_order] == ["parent", "other"]
    # the foreign key comes later with the keys it needs, in an ALTER of its own: until then nothing ties the table
    assert "child" in [one.name for one in found.apart] and "FOREIGN KEY" in found.deferred["s", "child"][0]
    tied = creating.planned([*MANY, CHILD, table("parent")], {("s", "parent"): 1})  # no rows: made whole
    assert [one.name for one in tied.in_order] == ["child", "parent"]


def test_a_key_to_columns_that_are_gone_comes_before_its_parent() -> None:
    """The server takes such a key only while the parent is not there."""
    orphan = table("orphan", more=",\n  CONSTRAINT `c` FOREIGN KEY (`n`) REFERENCES `a parent` (`lost`)")
    found = creating.planned([table("a parent"), orphan], {("s", "a parent"): 1, ("s", "orphan"): 1})
    assert [one.name for one in found.in_order] == ["orphan", "a parent"]
    assert "REFERENCES `a parent` (`lost`)" in found.in_order[0].statements[0] and not found.deferred["s", "orphan"]
