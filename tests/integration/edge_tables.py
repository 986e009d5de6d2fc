"""Tables of every column type with the values that break dumps, for MariaDB and for MySQL, as plain SQL.

`statements(flavour)` creates and fills them in the schema `edge`; `fingerprints` reads every column back by SQL that
shares no code with the program.
"""

from __future__ import annotations

import os
import random
from typing import Any

import pymysql

SCHEMA = "edge"
_CHARSETS = {
    "mariadb": ("utf8mb4", "utf8mb3", "latin1", "cp1251", "gbk", "sjis", "utf16", "utf16le", "utf32", "ucs2", "ascii"),
    "mysql": ("utf8mb4", "utf8mb3", "latin1", "cp1251", "gbk", "gb18030", "sjis", "utf16", "utf16le", "utf32", "ucs2", "ascii"),
}
_TEXTS = {
    "utf8mb4": "_utf8mb4 x'F09F9880E282ACC3A927225C0D0A001A'",
    "utf8mb3": "_utf8mb4 x'E282ACC3A92725'", "latin1": "_latin1 x'E9FF80A5'",
    "cp1251": "_cp1251 x'CFF0E8E2E5F2'", "gbk": "_gbk x'D6D0B95C'", "gb18030": "_gb18030 x'D6D08130813995328236'",
    "sjis": "_sjis x'93FA965C'", "utf16": "_utf16 x'20ACD83DDE00005C'", "utf16le": "_utf16le x'AC203DD800DE'",
    "utf32": "_utf32 x'0001F6000000005C'", "ucs2": "_ucs2 x'20AC0000'", "ascii": "_ascii x'005C271A'",
}


def statements(flavour: str) -> list[str]:
    """Everything in order; run in one session."""
    return [
        f"CREATE DATABASE {SCHEMA} CHARACTER SET utf8mb4", f"USE {SCHEMA}", "SET time_zone = '+00:00'", "SET NAMES utf8mb4",
        "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'",
        *_numbers(), *_times(), *_texts(flavour), *_bytes(), *_choices(), *_places(flavour), *_special(flavour), *_layouts(),
    ]


def _numbers() -> list[str]:
    integers = ("tinyint", "smallint", "mediumint", "int", "bigint")
    widths = (8, 16, 24, 32, 64)
    columns = [f"{name}_s {name}, {name}_u {name} unsigned, {name}_z {name} unsigned zerofill" for name in integers]
    lowest = [f"{-(1 << width - 1)},0,0" for width in widths]
    highest = [f"{(1 << width - 1) - 1},{(1 << width) - 1},{(1 << width) - 1}" for width in widths]
    return [
        f"CREATE TABLE numbers (id int NOT NULL AUTO_INCREMENT PRIMARY KEY, {', '.join(columns)}, flag bool, f float,"
        " fu float unsigned, f73 float(7,3), d double, dec30 decimal(65,30), dec0 decimal(65,0), dec95 decimal(9,5) unsigned,"
        " b1 bit(1), b13 bit(13), b64 bit(64))",
        f"INSERT INTO numbers VALUES (0,{','.join(lowest)},0,-3.4028234e38,0,-9999.999,-1.7976931348623157e308,"
        f"-{'9' * 35}.{'9' * 30},-{'9' * 65},0,0,0,0)",
        f"INSERT INTO numbers VALUES (-7,{','.join(highest)},1,3.4028234e38,3.4e38,9999.999,1.7976931348623157e308,"
        f"{'9' * 35}.{'9' * 30},{'9' * 65},9999.99999,1,8191,18446744073709551615)",
        "INSERT INTO numbers (id,f,fu,d,dec30) VALUES (2147483647,16777217,0.1,5e-324,0.000000000000000000000000000001),"
        "(3,-0e0,1e-38,-0e0,-0.1),(4,1.17549435e-38,1.4e-45,2.2250738585072014e-308,1),(5,0.1,0.3,0.1,0.1)",
        "INSERT INTO numbers (id) VALUES (6)",
    ]


def _times() -> list[str]:
    return [
        "CREATE TABLE times (id int PRIMARY KEY, da date, dt datetime, dt3 datetime(3), dt6 datetime(6), ts timestamp NULL,"
        " ts6 timestamp(6) NULL, ti time, ti1 time(1), ti6 time(6), y year)",
        "INSERT INTO times VALUES (1,'0000-00-00','0000-00-00 00:00:00','0000-00-00','0000-00-00','0000-00-00','0000-00-00',"
        "'-838:59:59','-838:59:59','-838:59:59',0),"
        "(2,'9999-12-31','9999-12-31 23:59:59','9999-12-31 23:59:59.999','9999-12-31 23:59:59.999999','2038-01-19 03:14:07',"
        "'2038-01-19 03:14:07.999999','838:59:59','838:59:58.9','838:59:58.999999',2155),"
        "(3,'2024-00-00','2024-05-00 01:02:03','2024-02-31','2024-02-31 12:13:14.151617','1970-01-01 00:00:01',"
        "'1970-01-01 00:00:01.000001','00:00:00','-00:00:00.1','-00:00:00.000001',1901),"
        "(4,'1000-01-01','0001-01-01','2024-06-01 00:00:00.5','2024-06-01','2024-03-31 02:30:00','2024-10-27 02:30:00',"
        "'-00:00:01','837:59:59.9','838:00:00.000001',2024)",
        "INSERT INTO times (id) VALUES (5)",
    ]


def _texts(flavour: str) -> list[str]:
    charsets = _CHARSETS[flavour]
    columns = ", ".join(
        f"c_{name} char(20) CHARACTER SET {name}, v_{name} varchar(60) CHARACTER SET {name}, t_{name} text CHARACTER SET {name}"
        for name in charsets
    )
    values = ",".join(f"{_TEXTS[name]},{_TEXTS[name]},{_TEXTS[name]}" for name in charsets)
    spaces = ",".join(["'a  '"] * 3 * len(charsets))
    empty = ",".join(["''"] * 3 * len(charsets))
    return [
        f"CREATE TABLE texts (id int PRIMARY KEY, {columns})", f"INSERT INTO texts VALUES (1,{values})",
        f"INSERT INTO texts VALUES (2,{spaces}), (3,{empty})", "INSERT INTO texts (id) VALUES (4)",
    ]


def _bytes() -> list[str]:
    every = bytes(range(256)).hex()
    rows = ",".join(
        f"({number},x'{every[:16]}',REPEAT(x'{every}',{repeat}),REPEAT(x'{every}',{repeat}),x'{every[: 2 * length]}')"
        for number, (repeat, length) in enumerate([(1, 0), (255, 1), (256, 250), (257, 251), (5000, 252), (0, 255)], start=1)
    )
    return [
        "CREATE TABLE byte_strings (id int PRIMARY KEY, b binary(8), bl longblob, m mediumblob, ti tinyblob, vb varbinary(300))",
        f"INSERT INTO byte_strings (id, b, bl, m, ti) VALUES {rows}", "UPDATE byte_strings SET vb = ti",
        "INSERT INTO byte_strings (id) VALUES (9)",
    ]


def _choices() -> list[str]:
    return [
        "CREATE TABLE choices (id int PRIMARY KEY, plain enum('a','b''c','d,e'), hollow enum('','a','\\\\x'), s set('r','g','b'),"
        " latin enum('\u00e9','e') CHARACTER SET latin1, many set(" + ",".join(f"'m{i}'" for i in range(64)) + "))",
        "INSERT INTO choices VALUES (1,1,1,0,1,0),(2,'b''c',2,'r,b','e',18446744073709551615),(3,'d,e','\\\\x','r,g,b',1,1)",
        "INSERT IGNORE INTO choices VALUES (4,'nonsense','nonsense','',1,1)",  # index 0, beside a real ''
        "INSERT INTO choices (id) VALUES (5)",
    ]


def _places(flavour: str) -> list[str]:
    srid = "SRID 4326" if flavour == "mysql" else ""
    located = "ST_SRID(POINT(10,20),4326)" if flavour == "mysql" else "ST_GeomFromText('POINT(10 20)',4326)"
    return [
        f"CREATE TABLE places (id int PRIMARY KEY, g geometry, p point {srid}, pl polygon, gc geometrycollection)",
        f"INSERT INTO places VALUES (1,ST_GeomFromText('LINESTRING(0 0,1.5 -2.25,1e308 5e-324)'),{located},"
        "ST_GeomFromText('POLYGON((0 0,4 0,4 4,0 4,0 0),(1 1,2 1,2 2,1 2,1 1))'),"
        "ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),MULTIPOINT(1 1,2 2))',3857))",
        "INSERT INTO places (id) VALUES (2)",
    ]


def _special(flavour: str) -> list[str]:
    document = r"""'{"b": [1, 1.5e300, "\\u20ac\\"\\\\", null, true, 18446744073709551615], "a": {"\\ud83d\\ude00": {}}}'"""
    if flavour == "mysql":
        return [
            "CREATE TABLE special (id int PRIMARY KEY, j json, v3 vector(3), v vector(2000))",
            f"INSERT INTO special VALUES (1,{document},x'0000008001000000FFFF7F7F',NULL),"
            f"(2,'[]',NULL,TO_VECTOR('[{','.join(['0.5'] * 2000)}]')),(3,'\"x\"',NULL,NULL),(4,'null',NULL,NULL)",
            f"INSERT INTO special (id, j) VALUES (5, CONCAT('[\"', REPEAT('{chr(0xE9)}', 300000), '\"]')), (6, NULL)",
        ]
    return [
        "CREATE TABLE special (id int PRIMARY KEY, j json, u uuid, i6 inet6, i4 inet4)",
        f"INSERT INTO special VALUES (1,{document},'123e4567-e89b-12d3-a456-426655440000','2001:db8::ff00:42:8329','192.0.2.33'),"
        "(2,'[]','00000000-0000-0000-0000-000000000000','::','0.0.0.0'),"
        "(3,'\"x\"','ffffffff-ffff-ffff-ffff-ffffffffffff','::ffff:1.2.3.4','255.255.255.255')",
        "INSERT INTO special (id) VALUES (4)",
    ]


def _layouts() -> list[str]:
    """Tables whose shape is special rather than their values; random bytes make rows of all sizes."""
    source = random.Random(20260501)
    sizes = [0, 1, 249, 250, 251, 252, 253, 65535, 65536, 70000, 300_000, *(source.randrange(2000) for _ in range(300))]
    mixed = ",".join(f"({number},{number % 7},x'{os.urandom(size).hex()}')" for number, size in enumerate(sizes, start=1))
    return [
        "CREATE TABLE `odd ``name` (`the ``id` int NOT NULL, `hidden, col` int INVISIBLE,"
        " twice int GENERATED ALWAYS AS (`the ``id` * 2) VIRTUAL,"
        " kept varchar(20) GENERATED ALWAYS AS (concat('n', `the ``id`)) STORED,"
        " `\u20ac` varchar(9), PRIMARY KEY (`the ``id`), KEY kept (kept))",
        "INSERT INTO `odd ``name` (`the ``id`, `hidden, col`, `\u20ac`) VALUES (0, 5, 'x'), (1, NULL, NULL), (-1, 7, '\u20ac')",
        "CREATE TABLE composite (a varchar(10) COLLATE utf8mb4_bin, b int, v int, PRIMARY KEY (a, b))",
        "INSERT INTO composite VALUES ('b',2,1),('b',1,2),('',0,3),('B',1,NULL)",
        "CREATE TABLE keyless (n int, t text)",
        "INSERT INTO keyless VALUES (1,'a'),(1,'a'),(NULL,NULL),(2,''),(1,'a')",
        "CREATE TABLE plain_engine (id int PRIMARY KEY, t varchar(30)) ENGINE=MyISAM",
        "INSERT INTO plain_engine VALUES (1,'x'),(0,NULL)",
        "CREATE TABLE nothing (id int PRIMARY KEY)",
        "CREATE TABLE mixed (id int PRIMARY KEY, k int, data longblob)", f"INSERT INTO mixed VALUES {mixed}",
    ]


_TEXT_TYPES = {
    "char", "varchar", "tinytext", "text", "mediumtext", "longtext", "binary", "varbinary", "tinyblob", "blob", "mediumblob",
    "longblob", "geometry", "point", "polygon", "geometrycollection", "geomcollection", "vector", "json",
}

def fingerprints(port: int) -> dict[str, list[Any]]:
    """For each `table.column` of the schema, generated and invisible ones too: SHA-2 of every value, in sorted order.

    For each table also its CHECKSUM TABLE, and its rows' hashes so that values cannot change places.
    """
    found: dict[str, list[Any]] = {}
    with pymysql.connect(host="127.0.0.1", port=port, user="root", charset="utf8mb4", autocommit=True) as connection:
        cursor = connection.cursor()
        cursor.execute("SET time_zone = '+00:00', sql_mode = '', max_statement_time = 0" if _is_mariadb(cursor) else
                       "SET time_zone = '+00:00', sql_mode = ''")
        cursor.execute(
            "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = %s"
            " ORDER BY table_name, ordinal_position", (SCHEMA,),
        )
        tables: dict[str, list[str]] = {}
        for table, column, kind in cursor.fetchall():
            expression = _sha2(f"`{column.replace('`', '``')}`", kind)
            cursor.execute(f"SELECT {expression} FROM {_name(table)}")
            found[f"{table}.{column}"] = sorted(str(value) for (value,) in cursor.fetchall())
            tables.setdefault(table, []).append(expression)
        for table, expressions in tables.items():
            cursor.execute(f"SELECT SHA2(CONCAT_WS(',', {', '.join(expressions)}), 256) FROM {_name(table)}")
            found[f"{table} rows"] = sorted(str(value) for (value,) in cursor.fetchall())
            cursor.execute(f"CHECKSUM TABLE {_name(table)}")
            found[f"{table} checksum"] = [row[1] for row in cursor.fetchall()]
    return found


def _is_mariadb(cursor: Any) -> bool:
    cursor.execute("SELECT VERSION()")
    return "MariaDB" in cursor.fetchone()[0]


def _name(table: str) -> str:
    return f"{SCHEMA}.`{table.replace('`', '``')}`"


def _sha2(column: str, kind: str) -> str:
    """The SHA-2 of a column's exact value; 'NULL' is no hash."""
    if kind in _TEXT_TYPES:
        exact = f"HEX({column})"
    elif kind in ("float", "double"):  # as FLOAT the text would be rounded
        exact = f"CAST({column} AS DOUBLE)"
    elif kind in ("enum", "set", "bit"):  # the text of index 0 is that of a member ''
        exact = f"{column} + 0"
    else:
        exact = column
    return f"COALESCE(SHA2(CONCAT({exact}), 256), 'NULL')"
