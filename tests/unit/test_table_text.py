"""Two versions of MariaDB print one definition in two ways; to compare them, both are brought into one."""

from __future__ import annotations

import re

import pytest

from kpbackup import errors
from kpbackup.mysql import schema, table_text


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("  `a` int(11) INVISIBLE DEFAULT 4,", "  `a` int(11) DEFAULT 4 INVISIBLE,"),
        ("  `a` bigint(20) NOT NULL INVISIBLE AUTO_INCREMENT", "  `a` bigint(20) NOT NULL AUTO_INCREMENT INVISIBLE"),
        ("  `a` binary(4) DEFAULT 'ab\\0''',", "  `a` binary(4) DEFAULT x'61620027',"),
        ("  `d` char(9) AS (concat(convert(dayname('s)') using utf8mb3),'x'))", "  `d` char(9) AS (concat(dayname('s)'),'x'))"),
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
        ("  `a` char(9) AS (convert(`b` using latin1))", "  `a` char(9) AS (`b`)"),
        ("  `a` char(4) DEFAULT 'ab',", "  `a` char(4) DEFAULT x'6162',"),
    ],
)
def test_what_is_different_stays_different(one: str, other: str) -> None:
    assert schema.comparable(one) != schema.comparable(other)


LINES = "CREATE TABLE `t` (\n  {line}\n) ENGINE=InnoDB"


@pytest.mark.parametrize(
    ("printed", "creatable"),
    [
        ("`a` int(11),\n  `b` int(11) NOT NULL", "`a` int(11) DEFAULT NULL,\n  `b` int(11) NOT NULL"),
        (
            "`a``x DEFAULT ` enum('NOT NULL',' DEFAULT ') COMMENT 'a COMMENT ''b'",
            "`a``x DEFAULT ` enum('NOT NULL',' DEFAULT ') DEFAULT NULL COMMENT 'a COMMENT ''b'",
        ),
        ("`a` int(11) CHECK (`a` > 0),\n  `b` text NOT NULL", "`a` int(11) DEFAULT NULL CHECK (`a` > 0),\n  `b` text NOT NULL"),
        ("`a` timestamp NULL ON UPDATE current_timestamp()", "`a` timestamp NULL DEFAULT NULL ON UPDATE current_timestamp()"),
        ("`a` int(11) GENERATED ALWAYS AS (1) VIRTUAL", "`a` int(11) GENERATED ALWAYS AS (1) VIRTUAL"),
        ("`a` int(11) DEFAULT NULL,\n  KEY `k` (`a`)", "`a` int(11) DEFAULT NULL,\n  KEY `k` (`a`)"),
        (
            "`a` decimal(9,0) unsigned AUTO_INCREMENT COMMENT ' AUTO_INCREMENT',\n  `b` int(11) NOT NULL AUTO_INCREMENT",
            "`a` decimal(9,0) unsigned AUTO_INCREMENT NULL COMMENT ' AUTO_INCREMENT',\n  `b` int(11) NOT NULL AUTO_INCREMENT",
        ),
    ],
)
def test_mariadbs_columns_without_default_get_the_one_they_act_by(printed: str, creatable: str) -> None:
    assert table_text.creatable(LINES.format(line=printed), flavour="mariadb") == LINES.format(line=creatable)
    assert table_text.after_creation(LINES.format(line=creatable)) == ()


def test_mysqls_columns_without_default_lose_it_again() -> None:
    columns = ("`a` int", "`b``c` varchar(9) COMMENT ' DEFAULT '", "`d` text", "`e` int NOT NULL", "`g` int DEFAULT NULL")
    text = LINES.format(line=",\n  ".join(columns))
    assert table_text.creatable(text, flavour="mysql") == text
    assert table_text.after_creation(text) == ("ALTER TABLE `t` ALTER `a` DROP DEFAULT, ALTER `b``c` DROP DEFAULT",)


def test_mysqls_columns_take_the_character_set_of_a_former_table_over() -> None:
    columns = (
        "`a` text CHARACTER SET latin1",
        "`b` varchar(9) CHARACTER SET utf16 NOT NULL DEFAULT 'x,\\'y' COMMENT ' CHARACTER SET koi8r'",
        "`c` enum('a,','b''') CHARACTER SET latin1 DEFAULT NULL",
        "`d` char(5) CHARACTER SET latin1 COLLATE latin1_bin DEFAULT NULL",
        "`e` varchar(9) CHARACTER SET latin1 GENERATED ALWAYS AS (concat(`a`,_latin1'\\n')) VIRTUAL",
        "`f` varchar(9)",
        "KEY `k` (`a`(3))",
    )
    begin, end = "CREATE TABLE `t` (\n  " + ",\n  ".join(columns) + "\n) ENGINE=InnoDB", "COMMENT=' DEFAULT CHARSET=x'"
    for own, back in (("utf8mb3", "utf8mb3"), ("utf8mb4 COLLATE=utf8mb4_bin", "utf8mb4, DEFAULT COLLATE=utf8mb4_bin")):
        text = f"{begin} DEFAULT CHARSET={own} {end}"
        a, b, c, e = (re.sub(" CHARACTER SET (latin1|utf16)", "", columns[number]) for number in (0, 1, 2, 4))
        assert table_text.creatable(text, flavour="mysql") == text
        assert table_text.after_creation(text) == (
            f"ALTER TABLE `t` DEFAULT CHARSET=latin1, MODIFY {a}, MODIFY {c}, MODIFY {e}",
            f"ALTER TABLE `t` DEFAULT CHARSET=utf16, MODIFY {b}",
            f"ALTER TABLE `t` DEFAULT CHARSET={back}",
            "ALTER TABLE `t` ALTER `f` DROP DEFAULT",
        )


def test_bytes_that_are_no_text_become_hexadecimal() -> None:
    printed = "select _latin1'\udce9' AS `it's \udce9`,concat('é','a\udcff\\'') AS `'`,_koi8r'\udcd1'"
    assert table_text.with_bytes_in_hex(printed) == (
        "select _latin1 x'e9' AS `it's \udce9`,concat('é',x'61ff27') AS `'`,_koi8r x'd1'"
    )


def test_a_definition_whose_quotes_do_not_close_is_refused() -> None:
    with pytest.raises(errors.IntegrityError, match="quotes that do not close"):
        table_text.creatable("CREATE TABLE `t` (\n  `e` int(11) 'b\n) ENGINE=InnoDB", flavour="mariadb")


@pytest.mark.parametrize(
    ("printed", "executed"),
    [
        ("`a` int(11) /* `X`=1 */,\n  `b` int(11) NOT NULL", "`a` int(11) `X`=1,\n  `b` int(11) NOT NULL"),
        ("`a` text /* `od``d`='it\\'s */' `Y`=no */", "`a` text `od``d`='it\\'s */' `Y`=no"),
        ("`a` text `known`=1 /* `x`='' */ `more`=2", "`a` text `known`=1 `x`='' `more`=2"),
        ("`a /* `` b` int DEFAULT ' /* `c`=1 */'", ""),
        ("`a` varbinary(9) /*M!100301 COMPRESSED*/ COMMENT ' /* `c`=1 */'", ""),
        ("`a` int /* `c` */", ""),
    ],
)
def test_options_unknown_to_the_engine_are_kept(printed: str, executed: str) -> None:
    text = LINES.format(line=printed)
    assert table_text.with_unknown_options(text) == (LINES.format(line=executed or printed), bool(executed))
    options = text + " /* TRANSACTIONAL=0 */ COMMENT='c' /* `Z`='1' */"
    assert table_text.with_unknown_options(options)[0].endswith("ENGINE=InnoDB TRANSACTIONAL=0 COMMENT='c' `Z`='1'")
