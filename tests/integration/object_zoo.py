"""Two databases with an object of every kind, awkward on purpose: what a definition must survive.

Statements for one session, in order. `COMMON` runs on both flavours, then `MARIADB` or `MYSQL`.
"""

from __future__ import annotations

DATABASES = ("odd `db` größe", "shop")

COMMON = (
    "CREATE DATABASE `shop` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
    "CREATE DATABASE `odd ``db`` größe` CHARACTER SET latin1 COLLATE latin1_german1_ci",
    "SET foreign_key_checks = 0, sql_mode = ''",
    "USE shop",
    # the two tables of a cycle, with a composite key, reserved words and an AUTO_INCREMENT ahead of its rows
    "CREATE TABLE `order` (`select` int unsigned NOT NULL AUTO_INCREMENT,"
    " `from` varchar(20) DEFAULT 'it''s \\\\ \"q\"', `line` bigint,"
    " PRIMARY KEY (`select`), KEY (`line`),"
    " CONSTRAINT `to line` FOREIGN KEY (`line`) REFERENCES `line` (`id`) ON DELETE SET NULL)"
    " AUTO_INCREMENT=77 COMMENT='semi; colon AUTO_INCREMENT=5 ''quoted'''",
    "CREATE TABLE `line` (`id` bigint NOT NULL, `part` int NOT NULL, `ord` int unsigned, PRIMARY KEY (`part`, `id`),"
    " UNIQUE (`id`),"
    " FOREIGN KEY (`ord`) REFERENCES `order` (`select`) ON UPDATE CASCADE)",
    "CREATE TABLE `gen` (`id` int PRIMARY KEY, `a` int, `b` int, `v` int GENERATED ALWAYS AS (`a` + 1) VIRTUAL,"
    " `s` varchar(30) GENERATED ALWAYS AS (concat('x', `a`)) STORED, `hid` int INVISIBLE DEFAULT 4,"
    " `d` datetime(6) DEFAULT CURRENT_TIMESTAMP(6),"
    " CONSTRAINT `a is small` CHECK (`a` < 1000), KEY (`v`))",
    "CREATE TABLE `part` (`id` int NOT NULL, `y` int NOT NULL, PRIMARY KEY (`id`, `y`))"
    " PARTITION BY RANGE (`y`) (PARTITION p0 VALUES LESS THAN (2000), PARTITION p1 VALUES LESS THAN MAXVALUE)",
    "CREATE TABLE `ts` (`id` int, `t` timestamp NOT NULL DEFAULT '2024-06-01 12:00:00',"
    " `z` datetime DEFAULT '0000-00-00 00:00:00')",
    "CREATE TABLE `heap` (`i` int) ENGINE=MyISAM",
    "USE `odd ``db`` größe`",
    "CREATE TABLE `tä``ble` (`ключ` varchar(10) NOT NULL, `e` enum('ä','ß','') DEFAULT 'ß', `g` geometry, `j` json,"
    " PRIMARY KEY (`ключ`(5)))"
    " COMMENT='grüß dich'",
    # routines: used by a view of the other database, and made under modes that change how their text reads
    "CREATE FUNCTION `twice`(x int) RETURNS int DETERMINISTIC RETURN x * 2 /* ;; $$ */",
    "SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT'",
    "CREATE PROCEDURE \"an`si\"(INOUT p varchar(20) CHARACTER SET latin1) COMMENT 'has a ; in it' SQL SECURITY INVOKER\n"
    "BEGIN\n  -- a comment; kept\n  SET p = 'back\\' || \"p\";\nEND",
    "SET sql_mode = ''",
    "SET NAMES latin1",
    "CREATE PROCEDURE `from_latin1`() SELECT 'plain text'",
    "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
    "CREATE FUNCTION `grüße`() RETURNS varchar(20) CHARSET utf8mb4 NO SQL RETURN 'größe'",
    "SET NAMES utf8mb4",
    # an object made while its database had another default collation
    "ALTER DATABASE `odd ``db`` größe` COLLATE latin1_bin",
    "CREATE PROCEDURE `under_bin`(x varchar(10)) SELECT x",
    "ALTER DATABASE `odd ``db`` größe` COLLATE latin1_german1_ci",
    "USE shop",
    # views: alphabetical order is the wrong one
    "CREATE VIEW `z_base` AS SELECT `select` AS `id`, `odd ``db`` größe`.`twice`(`select`) AS `two` FROM `order`",
    "CREATE SQL SECURITY INVOKER VIEW `m_mid` AS SELECT * FROM `z_base` WHERE `two` > 2 WITH CASCADED CHECK OPTION",
    "CREATE DEFINER=`nobody here`@`%` VIEW `a_top` AS SELECT `m`.`id`,"
    " 'a ``m_mid`` text' AS `t` FROM `m_mid` `m` JOIN `z_base` USING (`id`)",
    "CREATE TRIGGER `second` BEFORE INSERT ON `gen` FOR EACH ROW SET NEW.b = NEW.b * 2",
    "CREATE TRIGGER `alpha` BEFORE INSERT ON `gen` FOR EACH ROW FOLLOWS `second` SET NEW.b = NEW.b + 1",
    "CREATE TRIGGER `zero` BEFORE INSERT ON `gen` FOR EACH ROW PRECEDES `second` BEGIN IF NEW.b IS NULL THEN SET NEW.b"
    " = 1; END IF; END",
    "SET time_zone = '+05:30'",
    "CREATE EVENT `nightly` ON SCHEDULE EVERY 1 DAY STARTS '2035-01-01 02:00:00' ON COMPLETION PRESERVE DISABLE COMMENT 'grün'"
    " DO DELETE FROM heap WHERE i < 0",
    "SET time_zone = 'SYSTEM'",
    "CREATE EVENT `once` ON SCHEDULE AT '2036-01-01 00:00:00' DO BEGIN DELETE FROM heap; END",
    "SET time_zone = '+00:00'",
    # a view that is broken on the source
    "CREATE TABLE `gone` (`i` int)",
    "CREATE VIEW `broken` AS SELECT * FROM `gone`",
    "DROP TABLE `gone`",
)

ACCOUNTS = (
    "CREATE ROLE `reader`, `writer`",
    "GRANT SELECT ON shop.* TO `reader`",
    "GRANT `reader` TO `writer`",
    "CREATE USER `app`@`10.%` IDENTIFIED BY 'KP''s \\\\ secret' REQUIRE SSL WITH MAX_QUERIES_PER_HOUR 9 ACCOUNT LOCK",
    "CREATE USER `o'dd`@`localhost` IDENTIFIED BY 'x'",
    "GRANT SELECT (`a`), INSERT (`b`) ON shop.gen TO `app`@`10.%`",
    "GRANT EXECUTE ON FUNCTION `odd ``db`` größe`.`twice` TO `app`@`10.%` WITH GRANT OPTION",
    "GRANT `writer` TO `app`@`10.%` WITH ADMIN OPTION",
    "GRANT PROCESS ON *.* TO `o'dd`@`localhost`",
    "GRANT ALL ON `sh\\_%`.* TO `o'dd`@`localhost`",
)

MARIADB = (
    "USE shop",
    "CREATE SEQUENCE `seq` START WITH 100 INCREMENT BY 5 MINVALUE 10 MAXVALUE 400 CACHE 3 CYCLE",
    "SELECT NEXTVAL(`seq`)",
    "CREATE SEQUENCE `down` INCREMENT BY -1 MINVALUE -3 MAXVALUE -1 NOCACHE",
    "SELECT NEXTVAL(`down`), NEXTVAL(`down`), NEXTVAL(`down`)",
    "CREATE SEQUENCE `restarted` START WITH 50",
    "ALTER SEQUENCE `restarted` RESTART WITH 7",
    "CREATE TABLE `from_seq` (`id` bigint DEFAULT NEXTVAL(`seq`) PRIMARY KEY, `u` uuid, `i` inet6)",
    "CREATE TABLE `versioned` (`id` int PRIMARY KEY) WITH SYSTEM VERSIONING",
    "SET sql_mode = 'ORACLE'",
    "CREATE PACKAGE `pack` AS FUNCTION f RETURN INT; END",
    "CREATE PACKAGE BODY `pack` AS FUNCTION f RETURN INT AS BEGIN RETURN 1; END; END",
    "SET sql_mode = ''",
    "SET DEFAULT ROLE `writer` FOR `app`@`10.%`",
    "GRANT SELECT ON shop.z_base TO PUBLIC",
)

MYSQL = (
    "USE shop",
    "CREATE TABLE `expr` (`id` int PRIMARY KEY, `x` int DEFAULT (1 + 1), `v` vector(3), KEY ((`x` * 2)))",
    "SET SESSION sql_generate_invisible_primary_key = 1",
    "CREATE TABLE `hidden_key` (`x` int)",
    "SET SESSION sql_generate_invisible_primary_key = 0",
    "ALTER USER `app`@`10.%` DEFAULT ROLE `writer`",
    'ALTER USER `o\'dd`@`localhost` ATTRIBUTE \'{"team": "größe"}\'',
)
