"""Keys of every kind: none, composite, strings, 64 bits, fulltext, spatial, descending, functional, invisible; foreign keys in circles."""

from __future__ import annotations

from tests.fidelity.scenes import Kind

DATABASES = ("keys", "keys other")


def statements(kind: Kind) -> list[str]:
    return [
        "CREATE DATABASE `keys`", "CREATE DATABASE `keys other`", "USE `keys`", "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO', foreign_key_checks = 0",
        *_primary(), *_counters(), *_secondary(kind), *_foreign(),
    ]


def _primary() -> list[str]:
    return [
        "CREATE TABLE keyless (n int, t text)", "INSERT INTO keyless VALUES (1,'a'),(1,'a'),(NULL,NULL),(2,''),(1,'a')",
        "CREATE TABLE keyless_unique (n int NOT NULL, t varchar(9), UNIQUE KEY (n), UNIQUE KEY t (t))",
        "INSERT INTO keyless_unique VALUES (3,NULL),(-1,NULL),(0,'x')",
        # the primary key comes last and makes the columns of another key NOT NULL, whose place it has by then
        "CREATE TABLE late_primary (x int, `y NOT NULL` enum(' NOT NULL','b'), z int, UNIQUE KEY z (z), UNIQUE KEY x (x), UNIQUE KEY xy (x, `y NOT NULL`),"
        " KEY v (z, x) COMMENT 'it''s', PRIMARY KEY (x, `y NOT NULL`))",
        "INSERT INTO late_primary VALUES (1,'b',NULL),(2,'b',NULL),(3,' NOT NULL',7)",
        "CREATE TABLE late_primary_memory (x int DEFAULT 5, y int, UNIQUE KEY y (y), UNIQUE KEY x (x), PRIMARY KEY (x)) ENGINE=MEMORY",
        "INSERT INTO late_primary_memory VALUES (1,2)",
        "CREATE TABLE null_unique (n int, UNIQUE (n))", "INSERT INTO null_unique VALUES (NULL),(NULL),(1)",
        "CREATE TABLE negative (id bigint PRIMARY KEY, v int)",
        "INSERT INTO negative VALUES (-9223372036854775808,1),(-1,2),(0,3),(9223372036854775807,4)",
        "CREATE TABLE unsigned_key (id bigint unsigned PRIMARY KEY, v int)",
        "INSERT INTO unsigned_key VALUES (0,1),(9223372036854775808,2),(18446744073709551615,3)",
        "CREATE TABLE decimal_key (d decimal(30,10), f varchar(3), PRIMARY KEY (d, f))",
        "INSERT INTO decimal_key VALUES (-1.5,'a'),(0,''),(12345678901234567890.0123456789,'z')",
        "CREATE TABLE composite (a varchar(10) COLLATE utf8mb4_bin, b int, c date, v int, PRIMARY KEY (c, a, b))",
        "INSERT INTO composite VALUES ('b',2,'2024-01-01',1),('b',1,'2024-01-01',2),('',0,'0000-00-00',3),('B',1,'2024-01-01',NULL)",
        "CREATE TABLE string_key (k varchar(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY, v int)",
        "INSERT INTO string_key VALUES ('',1),('a''b\\\\',2),('\U0001f600',3),('Z',4),('\u00e9\u00e9',5),('z z',6)",
        "CREATE TABLE prefix_key (t text, v int, PRIMARY KEY (t(5)))", "INSERT INTO prefix_key VALUES ('abcde',1),('abcdd and more',2)",
        "CREATE TABLE late_key (a int, b int, id int, PRIMARY KEY (id))", "INSERT INTO late_key VALUES (1,2,3),(4,5,-6)",
    ]


def _counters() -> list[str]:
    return [
        "CREATE TABLE counter (id int unsigned AUTO_INCREMENT PRIMARY KEY, v int) AUTO_INCREMENT=1000000",
        "INSERT INTO counter VALUES (0,1),(5,2)",
        "CREATE TABLE counter_empty (id int AUTO_INCREMENT PRIMARY KEY) AUTO_INCREMENT=77",
        "CREATE TABLE counter_deleted (id int AUTO_INCREMENT PRIMARY KEY)", "INSERT INTO counter_deleted VALUES (1),(900)",
        "DELETE FROM counter_deleted WHERE id = 900",
        "CREATE TABLE counter_full (id tinyint AUTO_INCREMENT PRIMARY KEY)", "INSERT INTO counter_full VALUES (127)",
        "CREATE TABLE counter_big (id bigint unsigned AUTO_INCREMENT PRIMARY KEY)",
        "INSERT INTO counter_big VALUES (18446744073709551614)",
        "CREATE TABLE counter_negative (id int AUTO_INCREMENT PRIMARY KEY)", "INSERT INTO counter_negative VALUES (-5),(0)",
        "CREATE TABLE counter_second (a int NOT NULL, id int AUTO_INCREMENT, PRIMARY KEY (a), KEY (id), UNIQUE (a, id)) AUTO_INCREMENT=50",
        "INSERT INTO counter_second (a) VALUES (3),(1)",
        "CREATE TABLE counter_myisam (g int NOT NULL, id int NOT NULL AUTO_INCREMENT, PRIMARY KEY (g, id)) ENGINE=MyISAM",
        "INSERT INTO counter_myisam (g) VALUES (1),(1),(2)",
        "SET auto_increment_increment = 10, auto_increment_offset = 3",
        "CREATE TABLE counter_offset (id int AUTO_INCREMENT PRIMARY KEY, v int)", "INSERT INTO counter_offset (v) VALUES (1),(2)",
        "SET auto_increment_increment = 1, auto_increment_offset = 1",
    ]


def _secondary(kind: Kind) -> list[str]:
    ignored = "IGNORED" if kind.mariadb else "INVISIBLE"
    found = [
        "CREATE TABLE secondary (id int PRIMARY KEY, a int, b varchar(50), c text, d varchar(20) CHARACTER SET latin1, g point NOT NULL,"
        " KEY down (a DESC, b ASC), KEY part (b(3), c(7) DESC), UNIQUE KEY u (d, a), FULLTEXT KEY words (c), FULLTEXT KEY both_words (b, c)"
        f" COMMENT 'it''s \\\\ \"full\"', SPATIAL KEY place (g), KEY hidden (a) {ignored}, KEY noted (a, id) COMMENT 'AUTO_INCREMENT=3;',"
        " KEY treed (b) USING BTREE, KEY sized (d) KEY_BLOCK_SIZE=4, KEY again (a DESC, b ASC))",
        "INSERT INTO secondary VALUES (1,5,'abc','some words here','d',ST_GeomFromText('POINT(1 2)')),"
        "(2,NULL,NULL,NULL,NULL,ST_GeomFromText('POINT(3 4)'))",
        "CREATE TABLE long_key (v varchar(768), w varchar(3072) CHARACTER SET latin1, KEY (v), KEY (w)) ROW_FORMAT=DYNAMIC",
        "INSERT INTO long_key VALUES (REPEAT('\U0001f600',768), REPEAT('x',3072))",
        "CREATE TABLE unique_order (id int, a int NOT NULL, b int, UNIQUE KEY z (b), KEY m (a), UNIQUE KEY y (a), PRIMARY KEY (id), UNIQUE KEY x (a, b),"
        " KEY l (b))",
        "INSERT INTO unique_order VALUES (1,2,3),(2,3,NULL)",
        "CREATE TABLE memory_hash (id int, v varchar(9), PRIMARY KEY (id) USING HASH, KEY h (v) USING HASH, KEY b (v) USING BTREE) ENGINE=MEMORY",
        "INSERT INTO memory_hash VALUES (1,'a'),(2,NULL)",
        "CREATE TABLE doc_id (FTS_DOC_ID bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, t text, FULLTEXT (t))",
        "INSERT INTO doc_id (t) VALUES ('one two'),('three')",
        "CREATE TABLE myisam_full (id int PRIMARY KEY, t text, n varchar(50), FULLTEXT KEY (t), KEY (n), UNIQUE KEY u (n)) ENGINE=MyISAM",
        "INSERT INTO myisam_full VALUES (1,'some text','a'),(2,NULL,NULL)",
    ]
    if kind.mariadb:
        return [
            *found,
            # a geometry column that came later is empty in rows that were there, and cannot be given that value
            "CREATE TABLE late_geometry (id int PRIMARY KEY, a point NOT NULL, t text)",
            "INSERT INTO late_geometry VALUES (1,ST_GeomFromText('POINT(1 2)'),'x'),(2,ST_GeomFromText('POINT(3 4)'),NULL)",
            "ALTER TABLE late_geometry ADD b geometry NOT NULL, ADD c point",
            "INSERT INTO late_geometry VALUES (3,ST_GeomFromText('POINT(5 6)'),'z',ST_GeomFromText('LINESTRING(1 1,2 2)'),NULL),"
            "(4,ST_GeomFromText('POINT(5 6)'),'',ST_GeomFromText('POINT(9 9)'),ST_GeomFromText('POINT(8 8)'))",
            "ALTER TABLE late_geometry ADD d point NOT NULL AFTER id",
            "INSERT INTO late_geometry (id, d, a, b) VALUES (5,ST_GeomFromText('POINT(5 5)'),ST_GeomFromText('POINT(5 6)'),ST_GeomFromText('POINT(9 9)'))",
            # foreign keys of virtual columns, and one of a plain one beside them
            "CREATE TABLE virtual_child (c int, v int AS (c + 1) VIRTUAL, s int, KEY s (s), CONSTRAINT virt FOREIGN KEY (v) REFERENCES self (id),"
            " CONSTRAINT plain FOREIGN KEY (s) REFERENCES self (id))",
            "INSERT INTO virtual_child (c, s) VALUES (0, 1), (7, 9)",
            # foreign keys to a column that their parent does not have, because it was made after them
            "CREATE TABLE zz_child (id int PRIMARY KEY, p int, s int, KEY (p), KEY (s), CONSTRAINT gone FOREIGN KEY (p) REFERENCES columnless (`no such`))",
            "INSERT INTO zz_child VALUES (1,5,6)", "CREATE TABLE columnless (id int PRIMARY KEY)", "INSERT INTO columnless VALUES (1)",
            "CREATE TABLE null_counter (f tinyint AUTO_INCREMENT NULL COMMENT 'it''s AUTO_INCREMENT', s int, KEY (f))",
            "INSERT INTO null_counter VALUES (NULL,1),(127,2),(NULL,3),(0,4)",
            "CREATE TABLE null_counters (s int, `f AUTO_INCREMENT` bigint(20) unsigned zerofill AUTO_INCREMENT NULL INVISIBLE, UNIQUE KEY (`f AUTO_INCREMENT`)) ENGINE=MyISAM",
            "INSERT INTO null_counters (s, `f AUTO_INCREMENT`) VALUES (1,NULL),(2,5),(3,NULL)",
            "CREATE TABLE long_unique (id int PRIMARY KEY, b blob, t text, UNIQUE (b), UNIQUE KEY tt (t))",
            "INSERT INTO long_unique VALUES (1,REPEAT('x',5000),'a'),(2,NULL,NULL)",
            "CREATE TABLE periods (id int, s date, e date, PERIOD FOR p (s, e), v int, PRIMARY KEY (id, p WITHOUT OVERLAPS))",
            "INSERT INTO periods VALUES (1,'2024-01-01','2024-06-01',1),(1,'2024-06-01','9999-12-31',2),(2,'2000-01-01','2000-01-02',3)",
            "CREATE TABLE period_only (id int PRIMARY KEY, s datetime(6), e datetime(6), PERIOD FOR app_time (s, e), UNIQUE KEY u (id, app_time WITHOUT OVERLAPS))",
            "INSERT INTO period_only VALUES (1,'2024-01-01','2024-01-01 00:00:00.000001')",
        ]
    return [*found, *_mysql()]


def _mysql() -> list[str]:
    return [
        "CREATE TABLE functional (id int PRIMARY KEY, a int, b varchar(20), j json, KEY f ((a + 1)), UNIQUE KEY g ((lower(b)) DESC, a),"
        " KEY h ((CAST(j->'$.t' AS CHAR(20) ARRAY))), KEY plain (a))",
        "INSERT INTO functional VALUES (1,2,'X','{\"t\": [\"a\"]}'),(2,NULL,NULL,NULL)",
        "CREATE TABLE parsed (id int PRIMARY KEY, t text, FULLTEXT KEY (t) WITH PARSER ngram)", "INSERT INTO parsed VALUES (1, '\u65e5\u672c\u8a9e')",
        "SET SESSION sql_generate_invisible_primary_key = 1", "CREATE TABLE hidden_key (x int, y text)",
        "INSERT INTO hidden_key VALUES (1,'a'),(1,'a'),(2,NULL)", "SET SESSION sql_generate_invisible_primary_key = 0",
        # foreign keys to keys that are not unique, and to a part of one: of servers before 8.4, or of who was asked for them
        "SET SESSION restrict_fk_on_non_standard_key = OFF",
        "CREATE TABLE many (id int PRIMARY KEY, a int, b int, KEY (a, b))", "INSERT INTO many VALUES (1,2,3),(4,2,5)",
        "CREATE TABLE of_many (id int PRIMARY KEY, a int, b int, CONSTRAINT of_part FOREIGN KEY (a) REFERENCES many (a), CONSTRAINT of_own FOREIGN KEY (b) REFERENCES of_many (a))",
        "INSERT INTO of_many VALUES (1,2,2),(2,2,NULL)", "SET SESSION restrict_fk_on_non_standard_key = ON",
    ]


def _foreign() -> list[str]:
    return [
        "CREATE TABLE self (id int PRIMARY KEY, parent int, CONSTRAINT up FOREIGN KEY (parent) REFERENCES self (id) ON DELETE CASCADE)",
        "INSERT INTO self VALUES (1,2),(2,1),(3,3),(4,NULL)",
        "CREATE TABLE one (id int PRIMARY KEY, other int, KEY mine (other), CONSTRAINT `to \"two\"` FOREIGN KEY (other) REFERENCES two (id)"
        " ON UPDATE CASCADE ON DELETE SET NULL)",
        "CREATE TABLE two (id int PRIMARY KEY, a int, b int, UNIQUE KEY ab (a, b), FOREIGN KEY (id) REFERENCES three (id) ON DELETE RESTRICT)",
        "CREATE TABLE three (id int PRIMARY KEY, a int, b int, KEY (a), FOREIGN KEY (id) REFERENCES one (id) ON UPDATE NO ACTION,"
        " CONSTRAINT pair FOREIGN KEY (a, b) REFERENCES two (a, b))",
        "INSERT INTO one VALUES (1,1),(2,NULL)", "INSERT INTO two VALUES (1,5,6),(2,NULL,7)", "INSERT INTO three VALUES (1,5,6),(2,NULL,NULL)",
        "INSERT INTO three VALUES (9,9,9)",  # an orphan, from a time when nobody looked: it comes back too
        "CREATE TABLE `keys other`.`child` (id int PRIMARY KEY, p int, FOREIGN KEY (p) REFERENCES `keys`.self (id))",
        "INSERT INTO `keys other`.child VALUES (1,1),(2,NULL)",
        "CREATE TABLE text_parent (c varchar(20) CHARACTER SET latin1 PRIMARY KEY)",
        "CREATE TABLE text_child (c varchar(20) CHARACTER SET latin1, KEY (c), FOREIGN KEY (c) REFERENCES text_parent (c))",
        "INSERT INTO text_parent VALUES ('\u00e9')", "INSERT INTO text_child VALUES ('\u00e9'),(NULL)",
        "CREATE TABLE missing_parent (id int PRIMARY KEY, p int, CONSTRAINT lost FOREIGN KEY (p) REFERENCES not_there (id))",
        "INSERT INTO missing_parent VALUES (1,5)",
    ]
