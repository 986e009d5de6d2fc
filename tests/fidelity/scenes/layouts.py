"""Many tables, many partitions, other engines, table options."""

from __future__ import annotations

from tests.fidelity.scenes import WHOLE, Kind

DATABASES = ("layouts", "thousand")


def statements(kind: Kind) -> list[str]:
    return [
        "CREATE DATABASE thousand", "CREATE DATABASE layouts", "USE layouts", *_thousand(), *_partitions(kind), *_engines(kind), *_options(kind),
        *_special_tables(kind),
    ]


def _thousand() -> list[str]:
    """A thousand tables where everything is asked for: they take longer than all the rest."""
    found = []
    for number in range(1000 if WHOLE else 60):
        found.append(f"CREATE TABLE thousand.t{number} (id int PRIMARY KEY, v varchar(20), KEY (v))")
        if number % 3 == 0:
            found.append(f"INSERT INTO thousand.t{number} VALUES ({number},'x{number}')")
    return found


def _partitions(kind: Kind) -> list[str]:
    thousand = ", ".join(f"PARTITION p{n} VALUES LESS THAN ({n * 10})" for n in range(1, 1000))
    return [
        "CREATE TABLE thousand_parts (id int NOT NULL, v varchar(20), PRIMARY KEY (id)) PARTITION BY RANGE (id)"
        f" ({thousand}, PARTITION rest VALUES LESS THAN MAXVALUE)",
        "INSERT INTO thousand_parts WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) SELECT i * 11, CONCAT('v', i) FROM n",
        "CREATE TABLE by_range (id int, d date NOT NULL, KEY (d)) PARTITION BY RANGE (to_days(d)) (PARTITION a VALUES LESS THAN (730000) COMMENT 'it''s',"
        " PARTITION b VALUES LESS THAN (740000), PARTITION z VALUES LESS THAN MAXVALUE)",
        "INSERT INTO by_range VALUES (1,'1990-01-01'),(2,'2020-05-05'),(3,'2999-01-01')",
        "CREATE TABLE by_range_columns (a int, b varchar(9), c datetime) PARTITION BY RANGE COLUMNS (a, b, c) (PARTITION p0 VALUES LESS THAN (5,'m','2024-01-01'),"
        " PARTITION p1 VALUES LESS THAN (5,MAXVALUE,'2024-01-01'), PARTITION p2 VALUES LESS THAN (MAXVALUE,MAXVALUE,MAXVALUE))",
        "INSERT INTO by_range_columns VALUES (1,'a',NULL),(5,'z','2024-01-01'),(NULL,NULL,NULL)",
        "CREATE TABLE by_list (id int, g int) PARTITION BY LIST (g) (PARTITION a VALUES IN (1,2,NULL), PARTITION b VALUES IN (3)"
        f"{', PARTITION rest DEFAULT' if kind.mariadb else ''})",
        "INSERT INTO by_list VALUES (1,1),(2,NULL),(3,3)",
        "CREATE TABLE by_list_columns (c varchar(20), d date) PARTITION BY LIST COLUMNS (c) (PARTITION a VALUES IN ('x','\u00e9'), PARTITION b VALUES IN (NULL,'y'))",
        "INSERT INTO by_list_columns VALUES ('x','2024-01-01'),(NULL,NULL),('\u00e9',NULL)",
        "CREATE TABLE by_hash (id int, v int) PARTITION BY HASH (id * 2 + 1) PARTITIONS 7", "INSERT INTO by_hash VALUES (1,1),(2,2),(-3,3),(NULL,4)",
        "CREATE TABLE by_linear_hash (id int) PARTITION BY LINEAR HASH (id) PARTITIONS 5", "INSERT INTO by_linear_hash VALUES (1),(2),(300)",
        "CREATE TABLE by_key (k varchar(20) PRIMARY KEY, v int) PARTITION BY KEY () PARTITIONS 4", "INSERT INTO by_key VALUES ('a',1),('b',2),('\u20ac',3)",
        "CREATE TABLE by_linear_key (a int, b int) PARTITION BY LINEAR KEY ALGORITHM=2 (a, b) PARTITIONS 3", "INSERT INTO by_linear_key VALUES (1,2),(3,4)",
        "CREATE TABLE by_old_key (a int, b varchar(9)) PARTITION BY KEY ALGORITHM=1 (a, b) PARTITIONS 3", "INSERT INTO by_old_key VALUES (1,'a'),(3,'b')",
        "CREATE TABLE sub (id int, d date) PARTITION BY RANGE (year(d)) SUBPARTITION BY HASH (to_days(d)) SUBPARTITIONS 2"
        " (PARTITION a VALUES LESS THAN (2000), PARTITION z VALUES LESS THAN MAXVALUE)",
        "INSERT INTO sub VALUES (1,'1999-01-01'),(2,'2024-01-01'),(3,NULL)",
        "CREATE TABLE sub_named (id int, d date) PARTITION BY RANGE (year(d)) SUBPARTITION BY KEY (id) (PARTITION a VALUES LESS THAN (2000) (SUBPARTITION s0 COMMENT 'x',"
        " SUBPARTITION s1), PARTITION z VALUES LESS THAN MAXVALUE (SUBPARTITION s2, SUBPARTITION s3))",
        "INSERT INTO sub_named VALUES (1,'1999-01-01'),(2,'2024-01-01')",
        "CREATE TABLE parts_counter (id int NOT NULL AUTO_INCREMENT, g int NOT NULL, u int, PRIMARY KEY (id, g), UNIQUE KEY (g, u), KEY (u)) AUTO_INCREMENT=500"
        " PARTITION BY HASH (g) PARTITIONS 3",
        "INSERT INTO parts_counter (g, u) VALUES (1,1),(2,1),(3,NULL)",
        *([
            "CREATE TABLE parts_myisam (id int, v text) ENGINE=MyISAM PARTITION BY HASH (id) PARTITIONS 3", "INSERT INTO parts_myisam VALUES (1,'a'),(2,NULL)",
            "CREATE TABLE parts_aria (id int, v text) ENGINE=Aria PARTITION BY RANGE (id) (PARTITION a VALUES LESS THAN (10), PARTITION b VALUES LESS THAN (20))",
            "INSERT INTO parts_aria VALUES (1,'a'),(15,NULL)",
        ] if kind.mariadb else []),
        # constants of bytes that are no text, which MySQL shows as `?` to whoever wants UTF-8
        "CREATE TABLE bytes (a varchar(5) CHARACTER SET latin1 CHECK (a <> _latin1 x'e9'), e varchar(9) CHARACTER SET latin1 AS (CONCAT(a, _latin1 x'e9')) STORED)",
        "INSERT INTO bytes (a) VALUES ('x'), ('?'), (NULL)",
        "CREATE VIEW of_bytes AS SELECT _latin1 x'e9' AS a, CONCAT(_latin1 x'e9', a, '?') AS `it's` FROM bytes WHERE a <> 'é' OR e IS NULL",
    ]


def _engines(kind: Kind) -> list[str]:
    engines = ["MyISAM", "MEMORY", "ARCHIVE", "BLACKHOLE", "CSV", *(["Aria"] if kind.mariadb else [])]
    found = []
    for engine in engines:
        key = "" if engine in ("CSV", "ARCHIVE") else "PRIMARY KEY"
        text = "varchar(90)" if engine == "MEMORY" else "text"
        found += [
            f"CREATE TABLE e_{engine} (id int NOT NULL {key}, v varchar(30) NOT NULL, t {text} NOT NULL, d double NOT NULL, dt datetime NOT NULL) ENGINE={engine}",
            f"INSERT INTO e_{engine} VALUES (1,'it''s, \"q\"','line\\nline\\\\','0.1','2024-01-01'),(2,'','\u20ac','-0','0000-00-00')",
        ]
    found += [
        *(sql for engine in ("MyISAM", *(["Aria"] if kind.mariadb else [])) for sql in (
            f"CREATE TABLE asleep_{engine} (id int PRIMARY KEY, a int, b text, KEY (a), UNIQUE (id, a), FULLTEXT (b)) ENGINE={engine}",
            f"INSERT INTO asleep_{engine} VALUES (1,2,'words here'),(2,NULL,NULL)", f"ALTER TABLE asleep_{engine} DISABLE KEYS",
            f"INSERT INTO asleep_{engine} VALUES (3,2,'more')")),
        "CREATE TABLE asleep_empty (id int, KEY (id)) ENGINE=MyISAM", "ALTER TABLE asleep_empty DISABLE KEYS",
        "CREATE TABLE one (id int) ENGINE=MyISAM", "CREATE TABLE two (id int) ENGINE=MyISAM", "INSERT INTO one VALUES (1)", "INSERT INTO two VALUES (2),(3)",
        "CREATE TABLE merged (id int) ENGINE=MRG_MyISAM UNION=(one,two) INSERT_METHOD=LAST",
        "CREATE TABLE deleted_holes (id int PRIMARY KEY, v varchar(30)) ENGINE=MyISAM DELAY_KEY_WRITE=1",
        "INSERT INTO deleted_holes VALUES (1,'a'),(2,'b'),(3,'c')", "DELETE FROM deleted_holes WHERE id = 2",
        "CREATE TABLE archive_counter (id int AUTO_INCREMENT, v int, KEY (id)) ENGINE=ARCHIVE", "INSERT INTO archive_counter (v) VALUES (5),(6)",
        "CREATE TABLE archive_keyed (id int AUTO_INCREMENT PRIMARY KEY, v int) ENGINE=ARCHIVE AUTO_INCREMENT=7",
        "INSERT INTO archive_keyed (v) VALUES (5),(6)", "INSERT INTO archive_keyed VALUES (40,7)",
        "CREATE TABLE archive_empty (id int AUTO_INCREMENT PRIMARY KEY, v int) ENGINE=ARCHIVE AUTO_INCREMENT=7",
    ]
    return found


def _options(kind: Kind) -> list[str]:
    found = [
        *(f"CREATE TABLE row_{name} (id int PRIMARY KEY, v varchar(200), t text) ROW_FORMAT={name}" for name in ("DYNAMIC", "COMPACT", "REDUNDANT", "COMPRESSED")),
        *(f"INSERT INTO row_{name} VALUES (1,REPEAT('x',200),REPEAT('y',9000)),(2,NULL,NULL)" for name in ("DYNAMIC", "COMPACT", "REDUNDANT", "COMPRESSED")),
        "CREATE TABLE key_block (id int PRIMARY KEY, t text) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4", "INSERT INTO key_block VALUES (1,REPEAT('z',5000))",
        "CREATE TABLE myisam_fixed (id int, c char(10)) ENGINE=MyISAM ROW_FORMAT=FIXED CHECKSUM=1 PACK_KEYS=1 MIN_ROWS=10 MAX_ROWS=1000 AVG_ROW_LENGTH=50",
        "INSERT INTO myisam_fixed VALUES (1,'a')",
        "CREATE TABLE stats (id int PRIMARY KEY, v int, KEY (v)) STATS_PERSISTENT=1 STATS_AUTO_RECALC=0 STATS_SAMPLE_PAGES=30", "INSERT INTO stats VALUES (1,1)",
        "CREATE TABLE own_charset (a varchar(9), b varchar(9) CHARACTER SET latin1, c varchar(9) CHARACTER SET utf8mb3, d varchar(9) COLLATE utf8mb4_bin)"
        " CHARACTER SET cp1251 COLLATE cp1251_bin",
        "INSERT INTO own_charset VALUES (_cp1251 x'CFF0','\u00e9','\u20ac','\U0001f600')",
        "CREATE TABLE collated (a varchar(9)) COLLATE=utf8mb4_unicode_ci COMMENT='own'",
    ]
    if kind.mariadb:
        found += [
            "CREATE TABLE page_compressed (id int PRIMARY KEY, t text) PAGE_COMPRESSED=1 PAGE_COMPRESSION_LEVEL=3", "INSERT INTO page_compressed VALUES (1,REPEAT('x',9000))",
            "CREATE TABLE aria_options (id int, c char(9)) ENGINE=Aria ROW_FORMAT=PAGE TRANSACTIONAL=0 PAGE_CHECKSUM=0", "INSERT INTO aria_options VALUES (1,'a')",
            "CREATE TABLE aria_transactional (id int PRIMARY KEY) ENGINE=Aria TRANSACTIONAL=1", "INSERT INTO aria_transactional VALUES (1)",
            # options that no engine knows: a table keeps them for an engine to come
            "SET SESSION sql_mode='IGNORE_BAD_TABLE_OPTIONS'",
            "CREATE TABLE unknown_options (id int PRIMARY KEY future=1, v varchar(40) DEFAULT ' /* `x`=1 */' COMMENT 'it''s' `odd`='a''b */ c', KEY k (v) far='x')"
            " ENGINE=InnoDB PAGE_COMPRESSED=0 later='\\\\ é' ever=7 COMMENT=' /* `y`=2 */'",
            "INSERT INTO unknown_options (id) VALUES (1)",
            "CREATE TABLE unknown_beside_key (id int PRIMARY KEY early=1, v int, KEY (v)) ENGINE=InnoDB later=1", "INSERT INTO unknown_beside_key VALUES (1,2)",
            "CREATE TABLE last_number (id bigint unsigned AUTO_INCREMENT PRIMARY KEY) ENGINE=MEMORY",
            "INSERT INTO last_number VALUES (18446744073709551615), (3)", "ALTER TABLE last_number PARTITION BY KEY ()",
            "CREATE TABLE not_transactional (id int) ENGINE=MyISAM TRANSACTIONAL=0", "INSERT INTO not_transactional VALUES (1)",
            "CREATE TABLE unknown_parts (id int) ENGINE=MyISAM once='1' PARTITION BY HASH (id) PARTITIONS 2", "INSERT INTO unknown_parts VALUES (1),(2)",
            "SET SESSION sql_mode=''",
        ]
    else:
        found += [
            "CREATE TABLE page_compressed (id int PRIMARY KEY, t text) COMPRESSION='zlib'", "INSERT INTO page_compressed VALUES (1,REPEAT('x',9000))",
            "CREATE TABLE autoextend (id int PRIMARY KEY) AUTOEXTEND_SIZE=4M",
            "CREATE TABLE in_system (id int PRIMARY KEY, v int) TABLESPACE innodb_system", "INSERT INTO in_system VALUES (1,1)",
            "CREATE TABLE own_file (id int PRIMARY KEY) TABLESPACE innodb_file_per_table",
            "CREATE TABLESPACE shared ADD DATAFILE 'a.ibd'", "CREATE TABLESPACE `of ``8 KiB` ADD DATAFILE 'b.ibd' FILE_BLOCK_SIZE=8192",
            "CREATE TABLESPACE in_steps AUTOEXTEND_SIZE=4M", "CREATE TABLESPACE unused",
            "CREATE TABLE in_shared (id int PRIMARY KEY) TABLESPACE shared COMMENT=' TABLESPACE `x`'", "INSERT INTO in_shared VALUES (1)",
            "CREATE TABLE beside_it (id int PRIMARY KEY) TABLESPACE shared",
            "CREATE TABLE in_8_kib (id int PRIMARY KEY, t text) TABLESPACE `of ``8 KiB` ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8", "INSERT INTO in_8_kib VALUES (1,'x')",
            "CREATE TABLE in_more (id int PRIMARY KEY) TABLESPACE in_steps",
            # columns keep the character set of a table that changed its own, and know that they did not ask for it
            "CREATE TABLE of_before (id int PRIMARY KEY, a varchar(20) DEFAULT 'x' COMMENT 'a, \\'b`', b text, c enum('p,','q\\''), KEY (a), UNIQUE KEY (b(9)))"
            " DEFAULT CHARSET=latin1",
            "ALTER TABLE of_before DEFAULT CHARSET=utf16",
            "ALTER TABLE of_before ADD COLUMN d varchar(9), ADD COLUMN e varchar(9) AS (CONCAT(a, _latin1 x'e9')) STORED, ADD COLUMN f char(5) CHARACTER SET latin1",
            "ALTER TABLE of_before DEFAULT CHARSET=utf8mb4 COLLATE utf8mb4_bin", "ALTER TABLE of_before ADD COLUMN g varchar(9), ALTER d DROP DEFAULT",
            "INSERT INTO of_before (id, a, b, c, d, f, g) VALUES (1, 'é', 'ü', 'p,', '€', 'ß', '😀'), (2, 'k', NULL, 'q\\'', NULL, 'l', NULL)",
            "CREATE TABLE bytes_in_a_key (a varchar(5) CHARACTER SET latin1, b varchar(9) CHARACTER SET koi8r DEFAULT (CONCAT(_koi8r x'd1')), KEY ((CONCAT(a, _latin1 x'df'))))",
            "INSERT INTO bytes_in_a_key (a) VALUES ('x')",
            "CREATE TABLE of_a_select SELECT CONVERT('é' USING latin1) AS a, CAST('я' AS CHAR(3) CHARACTER SET koi8r) AS b",
        ]
    return found


def _special_tables(kind: Kind) -> list[str]:
    if not kind.mariadb:
        return []
    return [
        "CREATE SEQUENCE s_plain", "CREATE SEQUENCE s_all START WITH 100 INCREMENT BY 5 MINVALUE 10 MAXVALUE 400 CACHE 3 CYCLE", "SELECT NEXTVAL(s_all)",
        "CREATE SEQUENCE s_down INCREMENT BY -1 MINVALUE -3 MAXVALUE -1 NOCACHE", "SELECT NEXTVAL(s_down), NEXTVAL(s_down), NEXTVAL(s_down)",
        "CREATE SEQUENCE s_set START WITH 50", "ALTER SEQUENCE s_set RESTART WITH 7", "CREATE SEQUENCE s_cycled MAXVALUE 3 CYCLE NOCACHE",
        "SELECT NEXTVAL(s_cycled), NEXTVAL(s_cycled), NEXTVAL(s_cycled), NEXTVAL(s_cycled)",
        "CREATE SEQUENCE s_myisam ENGINE=MyISAM", "SELECT NEXTVAL(s_myisam)", "CREATE SEQUENCE s_aria ENGINE=Aria COMMENT='it''s'",
        "CREATE SEQUENCE s_rows ROW_FORMAT=REDUNDANT COMMENT='ROW_FORMAT=FIXED'",
        "CREATE TABLE s_table (next_not_cached_value bigint(21) NOT NULL, minimum_value bigint(21) NOT NULL, maximum_value bigint(21) NOT NULL, start_value bigint(21)"
        " NOT NULL, increment bigint(21) NOT NULL, cache_size bigint(21) unsigned NOT NULL, cycle_option tinyint(1) unsigned NOT NULL, cycle_count bigint(21) NOT NULL)"
        " SEQUENCE=1", "SELECT NEXTVAL(s_table)",
        # used up long before the values that were reserved
        "CREATE SEQUENCE s_over MAXVALUE 5 CACHE 2", "INSERT INTO s_over VALUES (11,1,5,1,1,2,0,0)",
        "CREATE SEQUENCE s_big START WITH 9223372036854775000 INCREMENT BY 1000", "CREATE SEQUENCE s_zero INCREMENT BY 0",
        *(["CREATE SEQUENCE s_unsigned AS bigint unsigned START WITH 18446744073709551000 MAXVALUE 18446744073709551614",
           "CREATE SEQUENCE s_tiny AS tinyint", "SELECT NEXTVAL(s_tiny)"] if kind.version >= (11, 5) else []),
    ]
