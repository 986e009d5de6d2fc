"""Which keys of a definition may wait, in the spelling of MariaDB 10.11 and MySQL 9.7."""

from __future__ import annotations

import pytest

from kpbackup.mysql import indexes

PLAIN = """CREATE TABLE `audit` (
  `id` bigint(20) NOT NULL AUTO_INCREMENT,
  `who` varchar(100) NOT NULL COMMENT 'a, KEY `x` (`y`)',
  `at` datetime(6) DEFAULT NULL,
  `text` longtext DEFAULT NULL CHECK (json_valid(`text`)),
  `place` point NOT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `one` (`who`,`at`),
  KEY `who` (`who`(10) DESC,`at`) USING BTREE COMMENT 'it''s, fast',
  SPATIAL KEY `place` (`place`),
  FULLTEXT KEY `words` (`text`),
  FULLTEXT KEY `more` (`text`,`who`)
) ENGINE=InnoDB AUTO_INCREMENT=17 DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci"""


def with_lines(*lines: str, options: str = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4") -> str:
    return "CREATE TABLE `t` (\n" + ",\n".join("  " + line for line in lines) + "\n) " + options


ID = ("`id` int NOT NULL", "`a` int NOT NULL", "`b` int DEFAULT NULL")


def test_every_ordinary_key_waits_and_fulltext_keys_come_one_at_a_time() -> None:
    found = indexes.defer(PLAIN)
    assert found.create_sql == """CREATE TABLE `audit` (
  `id` bigint(20) NOT NULL AUTO_INCREMENT,
  `who` varchar(100) NOT NULL COMMENT 'a, KEY `x` (`y`)',
  `at` datetime(6) DEFAULT NULL,
  `text` longtext DEFAULT NULL CHECK (json_valid(`text`)),
  `place` point NOT NULL,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB AUTO_INCREMENT=17 DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci"""
    assert found.statements == (
        "ALTER TABLE `audit` ADD FULLTEXT KEY `words` (`text`)",
        "ALTER TABLE `audit` ADD FULLTEXT KEY `more` (`text`,`who`)",
        "ALTER TABLE `audit` ADD UNIQUE KEY `one` (`who`,`at`), ADD KEY `who` (`who`(10) DESC,`at`) USING BTREE"
        " COMMENT 'it''s, fast', ADD SPATIAL KEY `place` (`place`)",
    )
    assert found.reason == ""


@pytest.mark.parametrize(
    ("create_sql", "reason"),
    [
        (with_lines(*ID, "PRIMARY KEY (`id`)", "KEY `f` (`a`)",
                    "CONSTRAINT `f` FOREIGN KEY  (`a`) REFERENCES `other` (`id`)"), "foreign key"),
        (with_lines(*ID, "PRIMARY KEY (`id`)", "KEY `k` (`a`)", options="ENGINE=MyISAM"), "InnoDB"),
        (with_lines(*ID, "PRIMARY KEY (`id`)", "KEY `k` (`a`)", options="ENGINE=InnoDB WITH SYSTEM VERSIONING"), "history"),
        (with_lines(*ID, "KEY `k` (`a`)").replace("\n  ", "\n\t"), "laid out"),
        ("CREATE SEQUENCE `s` start with 1", "laid out"),
    ],
)
def test_some_tables_keep_all_their_keys(create_sql: str, reason: str) -> None:
    found = indexes.defer(create_sql)
    assert (found.create_sql, found.statements) == (create_sql, ())
    assert reason in found.reason


def test_foreign_keys_of_a_table_wait_for_its_keys() -> None:
    foreign = ("CONSTRAINT `g` FOREIGN KEY (`b`) REFERENCES `far`.`away` (`id`) ON DELETE SET NULL",
               "CONSTRAINT `f` FOREIGN KEY (`a`) REFERENCES `other` (`id`)")
    check = "CONSTRAINT `c` CHECK (`a` > 0)"
    found = indexes.defer(with_lines(*ID, "PRIMARY KEY (`id`)", "KEY `a` (`a`)", "KEY `b` (`b`)", *foreign, check))
    assert found.create_sql == with_lines(*ID, "PRIMARY KEY (`id`)", check)
    assert found.statements == (f"ALTER TABLE `t` ADD KEY `a` (`a`), ADD KEY `b` (`b`), ADD {foreign[0]}, ADD {foreign[1]}",)


def test_foreign_keys_of_virtual_columns_come_last() -> None:
    foreign = ("CONSTRAINT `g` FOREIGN KEY (`v`) REFERENCES `other` (`id`)",
               "CONSTRAINT `f` FOREIGN KEY (`a`) REFERENCES `other` (`id`)")
    virtual = "`v` int(11) GENERATED ALWAYS AS (`a` + 1) VIRTUAL"
    found = indexes.defer(with_lines(*ID, virtual, "PRIMARY KEY (`id`)", "KEY `a` (`a`)", "KEY `v` (`v`)", *foreign))
    assert found.statements == (
        f"ALTER TABLE `t` ADD KEY `a` (`a`), ADD KEY `v` (`v`), ADD {foreign[1]}", f"ALTER TABLE `t` ADD {foreign[0]}",
    )


def test_foreign_keys_stay_where_no_key_waits() -> None:
    create_sql = with_lines(*ID, "PRIMARY KEY (`id`)", "CONSTRAINT `f` FOREIGN KEY (`id`) REFERENCES `other` (`id`)")
    assert indexes.defer(create_sql) == indexes.Deferral(create_sql, ())


def test_a_referenced_table_keeps_its_keys() -> None:
    assert indexes.defer(PLAIN, referenced=True).statements == ()


@pytest.mark.parametrize(
    ("lines", "waits"),
    [
        # the key of the counter stays, and with it what stands before it in the same rank
        (("`n` int NOT NULL AUTO_INCREMENT", "`a` int", "PRIMARY KEY (`a`)", "KEY `x` (`a`)", "KEY `n` (`n`)", "KEY `y` (`a`)"),
         ["KEY `y` (`a`)"]),
        (("`n` int NOT NULL AUTO_INCREMENT", "PRIMARY KEY (`n`,`a`)", "KEY `x` (`n`)"), ["KEY `x` (`n`)"]),
        # without a primary key a unique one may be the clustered index
        ((*ID, "UNIQUE KEY `u` (`a`)", "KEY `x` (`b`)"), ["KEY `x` (`b`)"]),
        # functional, hash and vector keys stay, and so do the keys before them
        ((*ID, "PRIMARY KEY (`id`)", "KEY `x` (`b`)", "KEY `f` ((`a` + 1))", "KEY `y` (`b`)"), ["KEY `y` (`b`)"]),
        ((*ID, "PRIMARY KEY (`id`)", "UNIQUE KEY `h` (`b`) USING HASH"), []),
        ((*ID, "PRIMARY KEY (`id`)", "VECTOR KEY `v` (`b`)"), []),
        # what the servers add to a line
        ((*ID, "PRIMARY KEY (`id`)", "KEY `i` (`a`) /*!80000 INVISIBLE */"), ["KEY `i` (`a`) /*!80000 INVISIBLE */"]),
        ((*ID, "PRIMARY KEY (`id`)", "KEY `i` (`a`) IGNORED"), ["KEY `i` (`a`) IGNORED"]),
        ((*ID, "PRIMARY KEY (`id`)", "FULLTEXT KEY `n` (`a`) /*!50100 WITH PARSER `ngram` */ "),
         ["FULLTEXT KEY `n` (`a`) /*!50100 WITH PARSER `ngram` */ "]),
        ((*ID, "PRIMARY KEY (`id`)", "KEY `a``b,c` (`a``(`)"), ["KEY `a``b,c` (`a``(`)"]),
    ],
)
def test_only_keys_that_can_come_back_in_place_wait(lines: tuple[str, ...], waits: list[str]) -> None:
    found = indexes.defer(with_lines(*lines))
    added = [part for statement in found.statements for part in statement.removeprefix("ALTER TABLE `t` ADD ").split(", ADD ")]
    assert added == waits
    assert found.create_sql == with_lines(*(line for line in lines if line not in waits))


def test_unique_keys_of_a_partitioned_table_stay() -> None:
    create_sql = with_lines(*ID, "PRIMARY KEY (`id`)", "UNIQUE KEY `u` (`id`,`a`)", "KEY `x` (`b`)") + (
        "\n PARTITION BY RANGE (`id`)\n(PARTITION `p0` VALUES LESS THAN (10) ENGINE = InnoDB)"
    )
    assert indexes.defer(create_sql).statements == ("ALTER TABLE `t` ADD KEY `x` (`b`)",)


def test_referenced_tables_are_found_with_and_without_schema() -> None:
    create_sql = with_lines(
        *ID, "CONSTRAINT `f` FOREIGN KEY (`a`) REFERENCES `par``ent` (`id`) ON DELETE CASCADE",
        "CONSTRAINT `g` FOREIGN KEY (`b`) REFERENCES `far`.`away` (`id`)",
    )
    assert indexes.referenced_tables("here", create_sql) == {("here", "par`ent"), ("far", "away")}


def test_definitions_differ_by_more_than_the_counter() -> None:
    assert indexes.same_definition(PLAIN, PLAIN.replace(" AUTO_INCREMENT=17", ""))
    assert indexes.same_definition(PLAIN.replace("=17", "=99"), PLAIN)
    assert not indexes.same_definition(PLAIN, PLAIN.replace("`who`(10)", "`who`(11)"))
    assert not indexes.same_definition(PLAIN, PLAIN.replace("COMMENT 'a, ", "COMMENT 'a AUTO_INCREMENT=17, "))


def test_document_ids_of_ones_own_come_with_the_table() -> None:
    """InnoDB refuses to add the index FTS_DOC_ID_INDEX later."""
    keys = ("UNIQUE KEY `FTS_DOC_ID_INDEX` (`FTS_DOC_ID`)", "FULLTEXT KEY `t` (`t`)")
    found = indexes.defer(with_lines("`FTS_DOC_ID` bigint unsigned NOT NULL", "`t` text", *keys))
    assert found.statements == ()
    assert "document ids" in found.reason
