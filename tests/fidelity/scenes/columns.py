"""What a column can be beside its type: generated, invisible, with expressions as defaults, checked, compressed."""

from __future__ import annotations

from tests.fidelity.scenes import Kind

DATABASES = ("columns",)


def statements(kind: Kind) -> list[str]:
    return [
        "CREATE DATABASE `columns` CHARACTER SET utf8mb4", "USE `columns`", "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'",
        *_generated(kind), *_defaults(kind), *_invisible(kind), *_checks(kind), *_comments(), *(_mariadb() if kind.mariadb else _mysql()),
    ]


def _generated(kind: Kind) -> list[str]:
    not_null = "" if kind.mariadb else " NOT NULL"
    return [
        "CREATE TABLE computed (v0 int AS (id * 2), id int PRIMARY KEY, a varchar(20), s varchar(40) AS (concat('<', a, '>')) STORED,"
        f" v varchar(40) GENERATED ALWAYS AS (upper(`s`)) VIRTUAL{' COMMENT' if kind.mariadb else not_null + ' COMMENT'} 'it''s (virtual)', last int,"
        " KEY on_stored (s), KEY on_virtual (v), KEY on_both (v0, last), UNIQUE KEY on_mixed (id, v0))",
        "INSERT INTO computed (id, a, last) VALUES (-1,'x',1),(0,'',NULL),(5,'\u00e9''\\\\',3)",
        "CREATE TABLE generated_many (id int PRIMARY KEY, j json, d datetime, y int AS (year(d)) STORED, n varchar(50) AS (json_unquote(json_extract(j, '$.n'))),"
        " c decimal(20,6) AS (y / 7) STORED, f double AS (y / 7.3e0) STORED, b tinyint(1) AS (y > 2000) VIRTUAL, i int AS (if(y is null, 'a' = 'b', 3)),"
        " m varbinary(16) AS (unhex(hex(n))) STORED, u varchar(30) CHARACTER SET latin1 AS (concat(n)) STORED)",
        "INSERT INTO generated_many (id, j, d) VALUES (1, '{\"n\": \"name\"}', '2024-05-06 07:08:09'), (2, NULL, NULL), (3, '{}', '1999-01-01')",
        "CREATE TABLE generated_all (a int AS (1 + 1) VIRTUAL, b int AS (a * 2) STORED, c int)", "INSERT INTO generated_all (c) VALUES (1), (NULL)",
        "CREATE TABLE generated_myisam (id int, a int AS (id + 1) STORED, KEY (a)) ENGINE=MyISAM", "INSERT INTO generated_myisam (id) VALUES (1),(2)",
        "CREATE TABLE generated_parts (id int, y int AS (id % 4) STORED NOT NULL, KEY (id)) PARTITION BY HASH (y) PARTITIONS 3"
        if not kind.mariadb else
        "CREATE TABLE generated_parts (id int, y int AS (id % 4) STORED, KEY (id)) PARTITION BY HASH (y) PARTITIONS 3",
        "INSERT INTO generated_parts (id) VALUES (1),(2),(3),(99)",
        # a stored value that its expression would not give today: it was written under another sql_mode
        "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO,NO_UNSIGNED_SUBTRACTION'",
        "CREATE TABLE generated_modes (id int PRIMARY KEY, a int unsigned, b bigint AS (a - 5) STORED)", "INSERT INTO generated_modes (id, a) VALUES (1, 9)",
        "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'",
    ]


def _defaults(kind: Kind) -> list[str]:
    uuid = "(uuid())"
    return [
        "CREATE TABLE defaults (id int PRIMARY KEY, a varchar(30) DEFAULT 'it''s \\\\ \"q\" \u00e9 \\n \\0 %', b int NOT NULL DEFAULT '-5', c decimal(6,3) DEFAULT '1.500',"
        " d bit(5) DEFAULT b'10101', e enum('x','y''z') DEFAULT 'y''z', f set('p','q') DEFAULT 'p,q', g timestamp DEFAULT '2001-01-01 12:00:00',"
        " h datetime(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6), i binary(4) DEFAULT 'ab', j varbinary(9) DEFAULT x'00FF27',"
        f" k date DEFAULT '0000-00-00', l time(3) DEFAULT '-10:00:00.500', m year DEFAULT 1999, n char(3) DEFAULT '', o float DEFAULT 1.5e-7, p varchar(36) DEFAULT {uuid},"
        " q int DEFAULT (1 + 2 * 3), r json DEFAULT (json_object('a', 1)), s double NOT NULL, t text DEFAULT ('abc'), u bool DEFAULT true, v varchar(9) DEFAULT NULL,"
        " w bigint unsigned DEFAULT 18446744073709551615, x varchar(20) CHARACTER SET latin1 DEFAULT '\u00fc')",
        "INSERT INTO defaults (id, s) VALUES (1, -0e0)",
        "INSERT INTO defaults (id, a, s, p, h) VALUES (2, NULL, 0.1, NULL, NULL)",
        "SET sql_mode = ''", "CREATE TABLE zero_defaults (a timestamp NOT NULL DEFAULT '0000-00-00 00:00:00', b date NOT NULL DEFAULT '2024-00-00', c int)",
        "INSERT INTO zero_defaults VALUES ('0000-00-00 00:00:00','2024-00-00',1)",
        "CREATE TABLE no_default (a int NOT NULL, b timestamp NOT NULL, c varchar(9) NOT NULL, d timestamp NULL)",
        "INSERT INTO no_default VALUES (1, '2020-01-01', '', NULL)",
    ]


def _invisible(kind: Kind) -> list[str]:
    return [
        "CREATE TABLE invisible (id int PRIMARY KEY, hid int INVISIBLE DEFAULT 4, h2 varchar(9) INVISIBLE, v int AS (hid + 1) VIRTUAL INVISIBLE, z int)",
        "INSERT INTO invisible (id, hid, h2, z) VALUES (1,2,'x',3),(2,NULL,NULL,NULL)",
        "CREATE TABLE invisible_key (id bigint INVISIBLE AUTO_INCREMENT PRIMARY KEY, t text)", "INSERT INTO invisible_key (t) VALUES ('a'),('b')",
    ]


def _checks(kind: Kind) -> list[str]:
    off = [] if kind.mariadb else ["ALTER TABLE checked ADD CONSTRAINT asleep CHECK (a <> 99) NOT ENFORCED"]
    return [
        "CREATE TABLE checked (id int PRIMARY KEY, a int CHECK (a > 0), b varchar(20), CONSTRAINT `named one` CHECK (b <> 'it''s' and a < 1000), CHECK (id <> 13))",
        *off,
        "INSERT INTO checked VALUES (1,1,'x'),(2,NULL,NULL)",
        # rows that break a check which came later, or was looked away from: they come back as they are
        *(["SET check_constraint_checks = 0", "INSERT INTO checked VALUES (13, -5, 'it''s')", "SET check_constraint_checks = 1"] if kind.mariadb
          else ["INSERT INTO checked VALUES (99,99,'not enforced')"]),
        "CREATE TABLE json_checked (id int PRIMARY KEY, j longtext CHECK (json_valid(j)))", "INSERT INTO json_checked VALUES (1,'{}')",
    ]


def _comments() -> list[str]:
    return [
        "CREATE TABLE commented (id int PRIMARY KEY COMMENT 'a ; b -- c /* d */ it''s \\\\ \"q\"', b int COMMENT '\U0001f600 \u00e9\\n\\t\\0 %s',"
        " c int COMMENT 'ENGINE=MyISAM AUTO_INCREMENT=5 ) COLLATE utf8mb4_bin', KEY k (b) COMMENT 'key ''comment''')"
        " COMMENT='AUTO_INCREMENT=99 ''COMMENT=''x'' PARTITION BY \\n)'",
        "INSERT INTO commented VALUES (1,2,3)",
        "CREATE TABLE long_comments (id int COMMENT '" + "\u20ac" * 1024 + "') COMMENT='" + "\u00e9" * 2048 + "'",
    ]


def _mariadb() -> list[str]:
    return [
        "CREATE TABLE compressed_columns (id int PRIMARY KEY, a text COMPRESSED, b varchar(500) COMPRESSED CHARACTER SET latin1, c blob COMPRESSED=zlib,"
        " d mediumtext COMPRESSED, e varbinary(900) COMPRESSED DEFAULT 'x')",
        "INSERT INTO compressed_columns VALUES (1,REPEAT('\u00e9a',5000),REPEAT('b',500),REPEAT(x'00FF',9000),'','y'),(2,NULL,NULL,NULL,NULL,NULL)",
        "CREATE TABLE compressed_myisam (id int, a text COMPRESSED) ENGINE=MyISAM", "INSERT INTO compressed_myisam VALUES (1,REPEAT('x',900))",
        "CREATE SEQUENCE feeds START WITH 5 INCREMENT BY 3",
        "CREATE TABLE fed (id bigint NOT NULL DEFAULT (NEXT VALUE FOR feeds) PRIMARY KEY, t int)", "INSERT INTO fed (t) VALUES (1),(2)",
        "CREATE TABLE uuid_default (u uuid DEFAULT uuid() PRIMARY KEY, i inet6 DEFAULT '::1', n int)",
        "INSERT INTO uuid_default (u, n) VALUES ('123e4567-e89b-12d3-a456-426655440000', 1)",
        "CREATE TABLE field_check (id int, b int DEFAULT (id + 1) CHECK (b <> id), c int GENERATED ALWAYS AS (b + 1) PERSISTENT)",
        "INSERT INTO field_check (id) VALUES (1),(NULL)",
        "CREATE TABLE all_computed (a int AS (1) STORED, b int AS (a + 1) VIRTUAL, KEY (a), KEY b (b))", "INSERT INTO all_computed VALUES (),()",
        "CREATE TABLE all_virtual (a varchar(9) AS (concat('x', 1)) VIRTUAL, b int AS (2 + 3) VIRTUAL) ENGINE=MyISAM", "INSERT INTO all_virtual VALUES (),(),()",
        "CREATE TABLE filenames (a varchar(90), b varchar(90) AS (convert(convert(a using filename) using utf8mb3)) VIRTUAL)",
        "INSERT INTO filenames (a) VALUES ('a@002d')",
        "CREATE TABLE refed (p geometry REF_SYSTEM_ID=4326, q point REF_SYSTEM_ID=3857)",
    ]


def _mysql() -> list[str]:
    return [
        "CREATE TABLE attributes (id int PRIMARY KEY, c varchar(9) STORAGE MEMORY) SECONDARY_ENGINE_ATTRIBUTE='{\"k\": \"v\"}'",
        "INSERT INTO attributes VALUES (1,'x')",
        "CREATE TABLE without_default (a int, b varchar(9) COMMENT 'it''s DEFAULT ', c timestamp NULL, d text, e json, f point, g enum(' DEFAULT ','b'),"
        " h int NOT NULL, i int DEFAULT (1), j int AS (a + 1), `k``l NOT NULL` bit(3), l vector(3), m decimal(9,2) CHECK (m > 0), n year INVISIBLE)",
        "ALTER TABLE without_default ALTER a DROP DEFAULT, ALTER b DROP DEFAULT, ALTER c DROP DEFAULT, ALTER d DROP DEFAULT, ALTER g DROP DEFAULT,"
        " ALTER e DROP DEFAULT, ALTER f DROP DEFAULT, ALTER `k``l NOT NULL` DROP DEFAULT, ALTER l DROP DEFAULT, ALTER m DROP DEFAULT, ALTER n DROP DEFAULT",
        "INSERT INTO without_default (a, b, c, d, e, f, g, h, `k``l NOT NULL`, l, m, n) VALUES (1,'x',NULL,'y','{}',NULL,'b',2,b'1',NULL,NULL,2001)",
        "CREATE TABLE not_secondary (id int PRIMARY KEY, b int NOT SECONDARY)",
        "INSERT INTO not_secondary VALUES (1,2)",
        "CREATE TABLE explicit_charset (a varchar(9), b varchar(9) CHARACTER SET utf8mb4, c varchar(9) COLLATE utf8mb4_bin, d varchar(9) CHARACTER SET utf8mb4"
        " COLLATE utf8mb4_bin, e varchar(9) AS (concat(a, 'x')) VIRTUAL, f enum('a','b'), g set('x') CHARACTER SET utf8mb4) COLLATE utf8mb4_bin",
        "INSERT INTO explicit_charset (a, b, c, d, f, g) VALUES ('A','b','C','d','b','x')",
    ]
