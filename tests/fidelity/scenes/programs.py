"""Views on views on functions, triggers in their order, events of all states, routines of odd modes, packages."""

from __future__ import annotations

from tests.fidelity.scenes import Kind

DATABASES = ("programs", "programs latin", "views", "zz_base")
_TRIGGER_KINDS = [f"{time} {event}" for time in ("BEFORE", "AFTER") for event in ("INSERT", "UPDATE", "DELETE")]


def statements(kind: Kind) -> list[str]:
    return [
        "CREATE DATABASE programs CHARACTER SET utf8mb4", "CREATE DATABASE `programs latin` CHARACTER SET latin1 COLLATE latin1_german1_ci",
        "CREATE DATABASE `views`", "CREATE DATABASE zz_base", "USE programs", "CREATE TABLE t (id int PRIMARY KEY, a int, b varchar(50), c int)",
        "INSERT INTO t VALUES (1,2,'x',3)", *_routines(kind), *_views(kind), *_triggers(kind), *_events(), *_of_other_characters(),
        *(_mariadb() if kind.mariadb else _mysql()),
        *_at_other_times(kind),
    ]


def _routines(kind: Kind) -> list[str]:
    returned = "'back\\' || \"p\""
    return [
        "CREATE FUNCTION plain(x int) RETURNS int DETERMINISTIC RETURN x * 2 /* ;; $$ // */",
        "CREATE FUNCTION typed(a decimal(10,3) unsigned, b enum('x','y''z'), c varchar(20) CHARACTER SET latin1, d json) RETURNS varchar(90)"
        " CHARSET utf8mb3 COLLATE utf8mb3_bin NOT DETERMINISTIC READS SQL DATA SQL SECURITY INVOKER COMMENT 'it''s \\\\ \"q\" ; \u20ac'"
        " RETURN concat(a, b, c)",
        "CREATE FUNCTION no_sql() RETURNS bigint unsigned NO SQL RETURN 18446744073709551615",
        "CREATE FUNCTION writes() RETURNS int MODIFIES SQL DATA BEGIN INSERT INTO t (id) VALUES (99); RETURN 1; END",
        "CREATE PROCEDURE params(IN a int, OUT b text, INOUT `c d` datetime(6)) BEGIN DECLARE v int DEFAULT 5; DECLARE CONTINUE HANDLER FOR NOT FOUND SET v = 0;"
        " label: LOOP SET v = v - 1; IF v < 1 THEN LEAVE label; END IF; END LOOP label; SELECT v, '--', '#', '/* x */' INTO b, b, b; END",
        "CREATE PROCEDURE empty_one() BEGIN END",
        # a byte that is no text, as a client that converts nothing sends it
        "CREATE PROCEDURE of_bytes() SELECT _latin1'\udce9?'", "CREATE FUNCTION a_byte() RETURNS varchar(9) DETERMINISTIC RETURN HEX(_latin1'\udce9')",
        "CREATE TRIGGER sets_a_byte BEFORE UPDATE ON t FOR EACH ROW SET NEW.b = _latin1'\udce9'",
        "CREATE EVENT with_a_byte ON SCHEDULE EVERY 1 DAY STARTS '2031-01-01' DO SET @a = _latin1'\udce9'",
        "CREATE PROCEDURE kept_comments()\nBEGIN\n  -- a comment; kept\n  # another\n  /* and\n     one more */\n  SELECT 1; /* tail */\nEND",
        "CREATE PROCEDURE versioned() SELECT /*!50000 1 + */ 1 /*! + 1 */",
        "CREATE PROCEDURE calls_missing() BEGIN CALL nobody(); SELECT * FROM no_table; END",
        "CREATE DEFINER=`no body`@`%` PROCEDURE other_definer() SELECT CURRENT_USER()",
        "SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT'",
        f"CREATE PROCEDURE \"an`si\"(INOUT p varchar(20)) COMMENT 'has a ; in it'\nBEGIN\n  SET p = {returned};\nEND",
        "SET sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,ONLY_FULL_GROUP_BY,HIGH_NOT_PRECEDENCE,IGNORE_SPACE'",
        "CREATE FUNCTION moded() RETURNS int DETERMINISTIC RETURN NOT 1 BETWEEN -5 AND 5",
        "SET sql_mode = 'ALLOW_INVALID_DATES,PAD_CHAR_TO_FULL_LENGTH,NO_UNSIGNED_SUBTRACTION,REAL_AS_FLOAT'",
        "CREATE PROCEDURE moded_too() SELECT 1", "SET sql_mode = ''",
        "SET NAMES latin1", "CREATE PROCEDURE from_latin1() SELECT 'plain text'", "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
        "CREATE FUNCTION `gr\u00fc\u00dfe`() RETURNS varchar(20) CHARSET utf8mb4 NO SQL RETURN 'gr\u00f6\u00dfe'", "SET NAMES utf8mb4",
        "CREATE PROCEDURE `long " + "\u20ac" * 59 + "`() SELECT 1",
        "CREATE PROCEDURE body_of_64k() BEGIN " + "SELECT 'a long body of a procedure; it has many statements';" * 1200 + " END",
        "USE `programs latin`", "CREATE FUNCTION inherits(x varchar(10)) RETURNS varchar(10) DETERMINISTIC RETURN x",
        "CREATE PROCEDURE quoted_dollar() SELECT '$$', ';;', '//', '~~', '%%', 'DELIMITER ;'", "USE programs",
    ]


def _views(kind: Kind) -> list[str]:
    return [
        "USE `views`", "CREATE FUNCTION shout(x varchar(50)) RETURNS varchar(50) DETERMINISTIC RETURN upper(x)",
        "CREATE TABLE zz_base.t (id int PRIMARY KEY, `a``b` varchar(20), n decimal(10,2))", "INSERT INTO zz_base.t VALUES (1,'x',1.5)",
        "CREATE VIEW zz_base.v AS SELECT * FROM zz_base.t", "CREATE VIEW z_first AS SELECT id, shout(`a``b`) AS loud, n FROM zz_base.t",
        "CREATE VIEW m_second AS SELECT loud, count(*) AS c, sum(n) AS s FROM z_first GROUP BY loud HAVING c > 0 ORDER BY loud DESC LIMIT 5",
        "CREATE VIEW a_third (`x y`, `select`) AS SELECT m.c, 'a ''quoted'' \\\\ text' FROM m_second m LEFT JOIN z_first USING (loud)",
        "CREATE ALGORITHM=MERGE SQL SECURITY INVOKER VIEW b_merge AS SELECT * FROM zz_base.t WHERE n > 0 WITH CASCADED CHECK OPTION",
        "CREATE ALGORITHM=TEMPTABLE VIEW c_temp AS SELECT DISTINCT n FROM zz_base.t",
        "CREATE DEFINER=`nobody here`@`%` VIEW d_definer AS SELECT * FROM b_merge WITH LOCAL CHECK OPTION",
        "CREATE VIEW e_union AS SELECT 1 AS one, NULL AS two UNION ALL SELECT id, `a``b` FROM zz_base.t",
        "CREATE VIEW f_cte AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT i, row_number() OVER (ORDER BY i DESC) AS r FROM n",
        "CREATE VIEW g_literals AS SELECT 1.0 AS a, 1e5 AS b, x'41' AS c, b'101' AS d, DATE'2024-01-01' AS e, _latin1'x' COLLATE latin1_bin AS f, 'it''s' AS g,"
        " -1 AS h, 18446744073709551615 AS i, NULL AS j, true AS k, '\U0001f600' AS l, interval(1,2,3) AS m",
        "CREATE VIEW h_same_name AS SELECT t.id FROM zz_base.t t JOIN programs.t u ON t.id = u.id",
        "CREATE VIEW i_json AS SELECT json_extract('{\"a\": 1}', '$.a') AS j, CASE WHEN 1 THEN 'x' ELSE 'y' END AS k, (SELECT max(id) FROM zz_base.t) AS m",
        "CREATE VIEW `j ``odd`` \u00e9` AS SELECT `a``b` AS `c``d` FROM zz_base.t",
        "SET NAMES latin1", "CREATE VIEW k_latin AS SELECT 'plain' AS a", "SET NAMES utf8mb4 COLLATE utf8mb4_bin", "CREATE VIEW l_bin AS SELECT 'x' = 'X' AS a",
        "SET NAMES utf8mb4", "CREATE VIEW m_system AS SELECT table_name FROM information_schema.tables",
        "SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT'", "CREATE VIEW n_ansi AS SELECT \"a`b\" || 'x' AS \"c\" FROM zz_base.t", "SET sql_mode = ''",
        "CREATE VIEW o_function AS SELECT programs.plain(id) AS x FROM zz_base.t",
        "USE programs",
    ]


def _of_other_characters() -> list[str]:
    """Names beyond ASCII in sessions of another character set."""
    found = [
        "CREATE PROCEDURE short_names(a varchar(9) CHARACTER SET utf8 COLLATE utf8_bin) BEGIN /* the CHARACTER SET of a */ SET CHARACTER SET DEFAULT;"
        " DO a COLLATE utf8_general_ci; END",
        "CREATE TABLE of_names (id int)", "CREATE TABLE `of \u0436\u0434` (id int)",
    ]
    for charset in ("cp1251", "latin1", "gbk", "binary"):
        name = f"`{charset} \u0434\u0436`"
        comment = "COMMENT '\u0434; it''s'" if charset != "gbk" else ""  # an odd number of bytes, which the server itself loses there
        found += [
            f"SET NAMES {charset}", f"CREATE EVENT {name} ON SCHEDULE EVERY 1 YEAR STARTS '2035-01-01' {comment} DO SELECT '\u0434'",
            f"CREATE PROCEDURE {name}() {comment} SELECT '\u0434'", f"CREATE FUNCTION {name}(a int) RETURNS int DETERMINISTIC RETURN a",
            f"CREATE TRIGGER {name} BEFORE INSERT ON of_names FOR EACH ROW SET @a = '\u0434'",
            f"CREATE TRIGGER `{charset} in utf8` AFTER INSERT ON `of_names` FOR EACH ROW SET @a = '\u0434'",
            f"CREATE VIEW {name} AS SELECT '\u0434' AS a",
        ]
    return [
        *found, "SET NAMES utf8mb4",
        # it opens only in sessions of its own collation
        "SET collation_connection = ucs2_general_ci",
        "CREATE VIEW of_its_collation AS SELECT lpad(hex(id), 4, '0') AS h FROM t", "SET NAMES utf8mb4",
        # character sets that only servers know; in the first, the punctuation of ASCII is letters
        "SET character_set_client = swe7", "CREATE FUNCTION swedish(a int) RETURNS int DETERMINISTIC RETURN length('[~}\\\\|') + a",
        "SET NAMES dec8", "CREATE PROCEDURE digital() SELECT '\u00e9'", "SET NAMES utf8mb4",
    ]


def _triggers(kind: Kind) -> list[str]:
    found = [f"CREATE TRIGGER `{when.lower()}` {when} ON t FOR EACH ROW SET @seen = 'it''s; {when}'" for when in _TRIGGER_KINDS]
    return [
        *found, "CREATE TABLE u (id int PRIMARY KEY, n int)", "INSERT INTO u VALUES (1,1)",
        "CREATE TRIGGER m BEFORE INSERT ON u FOR EACH ROW SET NEW.n = NEW.n * 2",
        "CREATE TRIGGER a BEFORE INSERT ON u FOR EACH ROW FOLLOWS m SET NEW.n = NEW.n + 1",
        "CREATE TRIGGER z BEFORE INSERT ON u FOR EACH ROW PRECEDES m BEGIN IF NEW.n IS NULL THEN SET NEW.n = 1; END IF; END",
        "CREATE TRIGGER b BEFORE INSERT ON u FOR EACH ROW PRECEDES a SET NEW.n = NEW.n - 3",
        "CREATE DEFINER=`gone away`@`10.%` TRIGGER definer AFTER INSERT ON u FOR EACH ROW SET @a = 1",
        "SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'", "CREATE TRIGGER moded AFTER UPDATE ON u FOR EACH ROW SET @\"x\" = 'back\\'", "SET sql_mode = ''",
        "SET NAMES latin1", "CREATE TRIGGER latin BEFORE DELETE ON u FOR EACH ROW SET @a = 'x'", "SET NAMES utf8mb4",
        # in a database that is not among those whose dumps are compared
        "CREATE DATABASE lessened", "CREATE TABLE lessened.t (id int PRIMARY KEY, n int)",
        "CREATE TRIGGER lessened.column_gone BEFORE INSERT ON lessened.t FOR EACH ROW SET NEW.n = 1", "ALTER TABLE lessened.t DROP n",
        "CREATE TRIGGER second_before BEFORE DELETE ON u FOR EACH ROW PRECEDES latin SET @b = '\u20ac \U0001f600'",
    ]


def _events() -> list[str]:
    return [
        "CREATE EVENT enabled ON SCHEDULE EVERY 1 DAY STARTS '2035-01-01 02:00:00' ENDS '2036-01-01' COMMENT 'gr\u00fcn; it''s' DO DELETE FROM t WHERE id < 0",
        "CREATE EVENT disabled ON SCHEDULE EVERY '1:30' MINUTE_SECOND STARTS '2035-01-01' ON COMPLETION PRESERVE DISABLE DO BEGIN DELETE FROM t; END",
        "CREATE EVENT on_replica ON SCHEDULE EVERY 3 MONTH STARTS '2035-01-01' DISABLE ON SLAVE DO SELECT 1",
        "CREATE EVENT once ON SCHEDULE AT '2036-01-01 00:00:00' DO SELECT 'a;b'",
        # their time is over, and only because no scheduler runs they are still there
        "SET timestamp = 1", "CREATE EVENT past ON SCHEDULE AT '2001-01-01 00:00:00' DO SELECT 1",
        "CREATE EVENT past_kept ON SCHEDULE AT '2001-01-01 00:00:00' ON COMPLETION PRESERVE DO SELECT 1",
        "CREATE EVENT past_end ON SCHEDULE EVERY 1 DAY STARTS '2000-01-01' ENDS '2001-01-01' DO SELECT 1", "SET timestamp = DEFAULT",
        "CREATE EVENT once_kept ON SCHEDULE AT '2036-01-01 00:00:00' ON COMPLETION PRESERVE DO SELECT 1",
        "SET time_zone = '+05:30'", "CREATE EVENT zoned ON SCHEDULE EVERY 1 WEEK STARTS '2035-06-01 00:00:00' DO SELECT 1",
        "SET time_zone = 'SYSTEM'", "CREATE EVENT of_system ON SCHEDULE EVERY 1 WEEK STARTS '2035-06-01 00:00:00' DO SELECT 1", "SET time_zone = '+00:00'",
        "CREATE DEFINER=`who`@`nowhere` EVENT definer ON SCHEDULE EVERY 1 HOUR STARTS '2035-01-01' DISABLE DO SELECT 1",
        "SET sql_mode = 'ANSI_QUOTES'", "CREATE EVENT moded ON SCHEDULE EVERY 1 HOUR STARTS '2035-01-01' DO SELECT \"id\" FROM t", "SET sql_mode = ''",
    ]


def _mariadb() -> list[str]:
    return [
        "SET sql_mode = 'ORACLE'",
        "CREATE PACKAGE pack AS\n  -- spec comment\n  FUNCTION f RETURN INT;\n  PROCEDURE p(a IN VARCHAR2, b OUT INT);\nEND",
        "CREATE PACKAGE BODY pack AS v INT := 5; FUNCTION f RETURN INT AS BEGIN RETURN v; END; PROCEDURE p(a IN VARCHAR2, b OUT INT) AS BEGIN b := 1; END;"
        " BEGIN v := 7; END",
        "CREATE PACKAGE ended AS FUNCTION f RETURN INT; END ended", "CREATE PACKAGE BODY ended AS FUNCTION f RETURN INT AS BEGIN RETURN 1; END; END  `ended`",
        "CREATE PACKAGE only_spec COMMENT 'it''s' AS PROCEDURE q; END",
        "CREATE PROCEDURE oracle_proc(a IN INT, b OUT VARCHAR2) AS x INT := 5; BEGIN b := 'a' || a; <<lab>> FOR i IN 1 .. 3 LOOP x := x + i; END LOOP; END",
        "CREATE FUNCTION ended_func(a INT) RETURN INT AS BEGIN RETURN a; END ended_func;",
        "CREATE FUNCTION oracle_func(a NUMBER) RETURN VARCHAR2 NO SQL IS BEGIN RETURN a || 'x'; EXCEPTION WHEN OTHERS THEN RETURN NULL; END",
        "CREATE VIEW oracle_view AS SELECT 'a' || 'b' AS c FROM t", "SET sql_mode = ''",
        "SET sql_mode = 'MSSQL'", "CREATE PROCEDURE mssql() SELECT 1", "SET sql_mode = ''",
        "CREATE AGGREGATE FUNCTION total(x int) RETURNS int NO SQL BEGIN DECLARE s int DEFAULT 0; DECLARE CONTINUE HANDLER FOR NOT FOUND RETURN s;"
        " LOOP FETCH GROUP NEXT ROW; SET s = s + x; END LOOP; END",
        "CREATE VIEW aggregates AS SELECT total(id) AS s FROM t",
        "CREATE PROCEDURE rows_types() BEGIN DECLARE r ROW TYPE OF t; DECLARE x TYPE OF t.a DEFAULT 1; FOR rec IN (SELECT * FROM t) DO SET x = rec.id; END FOR; END",
    ]


def _mysql() -> list[str]:
    return [
        "CREATE LIBRARY lib COMMENT 'it''s' LANGUAGE JAVASCRIPT AS $$ export function f(n) { return n; } $$",
        "CREATE VIEW lateral_view AS SELECT t.id, d.x FROM t, LATERAL (SELECT t.id + 1 AS x) d",
        "CREATE VIEW table_view AS SELECT * FROM JSON_TABLE('[1,2]', '$[*]' COLUMNS (v int PATH '$')) j",
        "CREATE VIEW values_view AS SELECT * FROM (VALUES ROW(1,'a'), ROW(2,'b')) v(x, y)",
        "CREATE VIEW except_view AS (SELECT id FROM t) EXCEPT (SELECT 5) INTERSECT (SELECT 6)",
    ]


def _at_other_times(kind: Kind) -> list[str]:
    """Objects made while their database had another default collation."""
    return [
        "USE `programs latin`", "ALTER DATABASE `programs latin` COLLATE latin1_bin", "CREATE PROCEDURE under_bin(x varchar(10)) SELECT x",
        "CREATE TABLE t (id int PRIMARY KEY, v varchar(9))", "CREATE TRIGGER under_bin BEFORE INSERT ON t FOR EACH ROW SET NEW.v = 'x'",
        "CREATE EVENT under_bin ON SCHEDULE EVERY 1 DAY STARTS '2035-01-01' DO SELECT 'x'",
        "ALTER DATABASE `programs latin` COLLATE latin1_german1_ci", "USE programs",
    ]
