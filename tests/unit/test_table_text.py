"""Two versions of MariaDB print one definition in two ways; to compare them, both are brought into one."""

from __future__ import annotations

import pytest

from kpbackup.mysql import schema, table_text


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("  `a` int(11) INVISIBLE DEFAULT 4,", "  `a` int(11) DEFAULT 4 INVISIBLE,"),
        ("  `a` bigint(20) NOT NULL INVISIBLE AUTO_INCREMENT", "  `a` bigint(20) NOT NULL AUTO_INCREMENT INVISIBLE"),
        ("  `a` binary(4) DEFAULT 'ab\\0''',", "  `a` binary(4) DEFAULT x'61620027',"),
        ("  `e` varbinary(9) /*M!100301 COMPRESSED*/ DEFAULT 'x',", "  `e` varbinary(9) /*M!100301 COMPRESSED*/ DEFAULT x'78',"),
    ],
)
def test_the_same_in_both_ways(older: str, newer: str) -> None:
    assert table_text.in_one_order(older) == table_text.in_one_order(newer)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("  `a` int(11) INVISIBLE DEFAULT 4,", "  `a` int(11) DEFAULT 4,"),
        ("  `a` int(11) COMMENT 'x INVISIBLE y',", "  `a` int(11) COMMENT 'x y INVISIBLE',"),
        ("  `a` binary(4) DEFAULT 'ab',", "  `a` binary(4) DEFAULT 'ac',"),
        ("  `a` char(4) DEFAULT 'ab',", "  `a` char(4) DEFAULT x'6162',"),
    ],
)
def test_what_is_different_stays_different(one: str, other: str) -> None:
    assert schema.comparable(one) != schema.comparable(other)
