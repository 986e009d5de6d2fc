"""How bounds are spelt, which columns they can hold, and equal widths."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpbackup import errors
from kpbackup.model.inventory import Bound, ChunkBounds, Column, Table
from kpbackup.mysql import cutting, ranges

TEXT = Column("t", "varchar", "varchar(9)", "utf8mb4", "utf8mb4_bin")
BYTES = Column("b", "varbinary", "varbinary(9)")
NUMBER = Column("n", "bigint", "bigint(20) unsigned")
MONEY = Column("m", "decimal", "decimal(10,2) unsigned")
KIND = Column("e", "enum", "enum('a')", "utf8mb4", "utf8mb4_bin")


def table(*columns: Column, primary: str | None = None, estimated_rows: int = 0, estimated_bytes: int = 0) -> Table:
    key = tuple(column.name for column in columns)
    names = primary or ",".join(f"`{name}`" for name in key)
    create_sql = f"CREATE TABLE `t` (\n  ...,\n  PRIMARY KEY ({names})\n) ENGINE=InnoDB"
    return Table("s", "t", "InnoDB", create_sql, columns, key, True, estimated_rows, estimated_bytes)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (table(NUMBER, TEXT, BYTES, MONEY), "ntbm"), (table(NUMBER, KIND, TEXT), "n"), (table(KIND, NUMBER), ""),
        (table(NUMBER, TEXT, primary="`n`,`t`(4)"), ""), (table(NUMBER, TEXT, primary="`n`,`t` DESC"), ""),
        (table(Column("f", "float", "float")), ""), (table(Column("y", "year", "year(4)")), ""), (table(), ""),
    ],
)
def test_columns_that_a_bound_holds(asked: Table, expected: str) -> None:
    assert "".join(column.name for column in ranges.bound_columns(asked)) == expected


def test_values_are_stated_in_the_columns_own_type() -> None:
    asked = table(TEXT, BYTES, NUMBER, MONEY)
    bound = ("C3A9", "00FF", "18446744073709551615", "0.50")
    assert ranges.equal_to(asked, bound, alias="r.") == (
        "r.`t` = CONVERT(_binary x'c3a9' USING utf8mb4) COLLATE utf8mb4_bin AND r.`b` = _binary x'00ff'"
        " AND r.`n` = 18446744073709551615 AND r.`m` = CAST('0.50' AS DECIMAL(10,2))"
    )
    assert ranges.after(asked, bound[:1]) == "`t` > CONVERT(_binary x'c3a9' USING utf8mb4) COLLATE utf8mb4_bin"
    assert ranges.within(asked, ChunkBounds()) == ""


def test_a_value_cannot_leave_its_quotes() -> None:
    day = table(Column("d", "date", "date"))
    assert ranges.within(day, ChunkBounds(("' OR 1 -- \\",))) == r"`d` >= CAST(''' OR 1 -- \\' AS DATE)"


@pytest.mark.parametrize("bound", [("x",), ("zz", "1"), (), ("1 OR 1",), ("zz",)])
def test_bounds_of_another_table_are_refused(bound: Bound) -> None:
    for asked in (table(NUMBER), table(TEXT), table(KIND)):
        with pytest.raises(errors.IntegrityError):
            ranges.within(asked, ChunkBounds(lower=bound))


def test_a_message_shows_no_text_of_the_application() -> None:
    assert ranges.shown(table(NUMBER), ChunkBounds(("5",), None)) == " (5 <= n)"
    pair = table(NUMBER, MONEY)
    assert ranges.shown(pair, ChunkBounds(("5", "0.50"), ("9", "1.00"))) == " ((5, 0.50) <= (n, m) < (9, 1.00))"
    assert ranges.shown(pair, ChunkBounds()) == ""
    assert ranges.shown(table(NUMBER, TEXT), ChunkBounds(("5", "7365637265740A"), None)) == ""


@given(lowest=st.integers(-(1 << 63), (1 << 64) - 1), width=st.integers(0, 1 << 64), pieces=st.integers(1, 50))
def test_equal_ranges_cover_every_key_once(lowest: int, width: int, pieces: int) -> None:
    highest = min(lowest + width, (1 << 64) - 1)
    found = ranges.equal_ranges(lowest, highest, pieces)
    assert 1 <= len(found) <= pieces
    assert found[0].lower is None and found[-1].upper is None
    for before, after in itertools.pairwise(found):
        assert after.lower is not None and before.upper == after.lower
        assert lowest < int(after.lower[0]) <= highest


@pytest.mark.parametrize(("row_count", "size", "expected"), [(0, 0, 1), (250_000, 1, 1), (250_001, 1, 2), (1, (64 << 20) + 1, 2)])
def test_pieces_by_rows_or_bytes(row_count: int, size: int, expected: int) -> None:
    assert cutting.pieces_wanted(table(NUMBER, estimated_rows=row_count, estimated_bytes=size)) == expected
