"""Every column type that is no text, with its extremes."""

from __future__ import annotations

import random
import struct

from tests.fidelity.scenes import Kind

DATABASES = ("values",)
_INTEGERS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}


def statements(kind: Kind) -> list[str]:
    return [
        "CREATE DATABASE `values`", "USE `values`", "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'",
        *_integers(), *_reals(), *_decimals(), *_bits(), *_days(kind), *_times(kind), *_choices(), *_shapes(kind),
        *_documents(kind), *_addresses(kind), *_vectors(kind), *_nothing(),
    ]


def _integers() -> list[str]:
    columns = ", ".join(f"s_{n} {n}, u_{n} {n} unsigned, z_{n} {n} unsigned zerofill, w_{n} {n}(3)" for n in _INTEGERS)
    rows = []
    for pick in (
        lambda bits: (-(1 << bits - 1), 0, 0, -1), lambda bits: ((1 << bits - 1) - 1, (1 << bits) - 1, (1 << bits) - 1, 100),
        lambda bits: (-1, 1, 1, 0), lambda bits: (0, 1 << bits - 1, 1 << bits - 1, -100),
    ):
        rows.append(",".join(str(value) for bits in _INTEGERS.values() for value in pick(bits)))
    values = ",".join(f"({number},{row},{number % 2})" for number, row in enumerate(rows))
    return [f"CREATE TABLE integers (id int PRIMARY KEY, {columns}, flag bool)", f"INSERT INTO integers VALUES {values}"]


def _double(bits: int) -> str:
    return repr(struct.unpack(">d", struct.pack(">Q", bits))[0])


def _reals() -> list[str]:
    """Doubles by their bits: 17 digits in SQL text give exactly that double."""
    source = random.Random(20260915)
    odd = [0, 1 << 63, 1, (1 << 63) + 1, 0x000FFFFFFFFFFFFF, 0x0010000000000000, 0x7FEFFFFFFFFFFFFF, 0xFFEFFFFFFFFFFFFF,
           0x3FB999999999999A, 0x3FF0000000000001, 0x433FFFFFFFFFFFFF]
    odd += [source.getrandbits(63) % 0x7FF0000000000000 | source.getrandbits(1) << 63 for _ in range(60)]
    floats = [0, 1 << 31, 1, 0x80000001, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x3DCCCCCD, 0x4B800001, 0x4B7FFFFF]
    floats += [source.getrandbits(31) % 0x7F800000 | source.getrandbits(1) << 31 for _ in range(60)]
    exact = [repr(struct.unpack(">f", struct.pack(">I", bits))[0]) for bits in floats]
    doubles = ",".join(f"({n},{_double(bits)},{_double(bits)})" for n, bits in enumerate(odd))
    singles = ",".join(f"({n},{text}e0)" if "e" not in text else f"({n},{text})" for n, text in enumerate(exact))
    return [
        "CREATE TABLE doubles (id int PRIMARY KEY, d double, r real)",
        f"INSERT INTO doubles VALUES {doubles.replace('(1,-0.0,-0.0)', '(1,-0e0,-0e0)')}",
        "CREATE TABLE floats (id int PRIMARY KEY, f float)",
        f"INSERT INTO floats VALUES {singles.replace('(1,-0.0e0)', '(1,-0e0)')}",
        "CREATE TABLE scaled (id int PRIMARY KEY, f73 float(7,3), d125 double(12,5), fu float unsigned, du double unsigned zerofill)",
        "INSERT INTO scaled VALUES (1,-9999.999,-9999999.99999,3.4e38,1.5),(2,0.1,0.1,1e-45,0),(3,9999.999,9999999.99999,0,1e300)",
        # a double as a key, and one that is not: the order of rows must not matter
        "CREATE TABLE by_double (d double PRIMARY KEY, f float, KEY (f))",
        "INSERT INTO by_double VALUES (-1e308,1),(1e-308,2),(0.1,0.1),(1e308,3)",
    ]


def _decimals() -> list[str]:
    nines = f"{'9' * 35}.{'9' * 30}"
    tiny = f"0.{'0' * 29}1"
    return [
        "CREATE TABLE decimals (id int PRIMARY KEY, a decimal(65,30), b decimal(65,0), c decimal(9,5) unsigned, d decimal(30,30)"
        ", e decimal(1,0), z decimal(10,2) unsigned zerofill)",
        f"INSERT INTO decimals VALUES (1,{nines},{'9' * 65},9999.99999,0.{'9' * 30},9,1.5),(2,-{nines},-{'9' * 65},0,-0.{'9' * 30},-9,0),"
        f"(3,{tiny},0,0.00001,{tiny},0,99999999.99),(4,-{tiny},-1,1,-{tiny},-1,0.01),(5,-0.0,-0,0,-0.0,-0,0)",
    ]


def _bits() -> list[str]:
    widths = (*range(1, 18), 31, 32, 33, 63, 64)
    columns = ", ".join(f"b{width} bit({width})" for width in widths)
    rows = [[0 for _ in widths], [(1 << w) - 1 for w in widths], [1 << w - 1 for w in widths], [w % (1 << w) for w in widths]]
    values = ",".join(f"({number},{','.join(map(str, row))})" for number, row in enumerate(rows))
    return [
        f"CREATE TABLE bits (id int PRIMARY KEY, {columns})", f"INSERT INTO bits VALUES {values}", "INSERT INTO bits (id) VALUES (9)",
        "CREATE TABLE by_bit (b bit(9), n bit(64), PRIMARY KEY (b))", "INSERT INTO by_bit VALUES (0,0),(257,1),(511,~0)",
        "CREATE TABLE bits_myisam (id int PRIMARY KEY, b bit(3), c bit(17)) ENGINE=MyISAM",
        "INSERT INTO bits_myisam VALUES (1,7,131071),(2,0,NULL),(3,NULL,5)",
    ]


def _days(kind: Kind) -> list[str]:
    latest = "2106-02-07 06:28:15" if kind.mariadb and kind.version >= (11, 5) else "2038-01-19 03:14:07"
    return [
        "CREATE TABLE days (id int PRIMARY KEY, y year, da date, dt datetime, dt1 datetime(1), dt3 datetime(3), dt6 datetime(6),"
        " ts timestamp NULL, ts2 timestamp(2) NULL, ts6 timestamp(6) NULL)",
        "INSERT INTO days VALUES (1,0,'0000-00-00','0000-00-00 00:00:00',0,0,0,0,0,0),"
        "(2,1901,'0001-01-01','0001-01-01 00:00:00','1000-01-01 00:00:00.1','1000-01-01','1000-01-01',"
        " '1970-01-01 00:00:01','1970-01-01 00:00:01','1970-01-01 00:00:01.000001'),"
        "(3,2155,'9999-12-31','9999-12-31 23:59:59','9999-12-31 23:59:59.9','9999-12-31 23:59:59.999','9999-12-31 23:59:59.999999',"
        f" '{latest}','{latest}.99','{latest}.999999'),"
        # partial and impossible dates, which a permissive server has stored
        "(4,2000,'2024-00-00','2024-00-00 01:02:03','2024-05-00','2024-05-00','2024-05-00 23:59:59.5',NULL,NULL,NULL),"
        "(5,1970,'2024-02-31','2024-02-31 12:13:14','2023-02-29','2023-06-31','2023-11-31 01:02:03.000004',NULL,NULL,NULL),"
        "(6,2069,'0000-01-01','0000-05-01 00:00:00','0000-00-01','0000-01-00','0000-00-00 00:00:00.000001',NULL,NULL,NULL),"
        # the hours that a change of clocks takes away and gives twice
        "(7,2024,'2024-03-31','2024-03-31 02:30:00','2024-03-31 02:30:00','2024-10-27 02:30:00','2024-10-27 02:30:00',"
        " '2024-03-31 01:30:00','2024-10-27 00:30:00','2024-10-27 01:30:00')",
        "INSERT INTO days (id) VALUES (8)",
        "CREATE TABLE by_day (d date, t datetime(6), n int, PRIMARY KEY (d, t))",
        "INSERT INTO by_day VALUES ('0000-00-00',0,1),('2024-00-00','2024-05-00 00:00:00.5',2),('9999-12-31','9999-12-31',3)",
        "CREATE TABLE stamped (id int PRIMARY KEY, a timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,"
        " b timestamp(6) NOT NULL DEFAULT '1971-01-01 00:00:00.123456', c datetime(3) DEFAULT CURRENT_TIMESTAMP(3)"
        " ON UPDATE CURRENT_TIMESTAMP(3))",
        "INSERT INTO stamped VALUES (1,'2001-02-03 04:05:06','2001-02-03 04:05:06.7','1999-12-31 23:59:59.999')",
    ]


def _times(kind: Kind) -> list[str]:
    columns = ", ".join(f"t{digits} time({digits})" for digits in range(7))
    edge = "838:59:58" if kind.mariadb else "838:59:59"
    texts = [
        "00:00:00", "-00:00:01", "838:59:59", "-838:59:59", "-00:00:00.000001", "-00:00:00.9", "837:59:59.999999", "838:00:00.000001",
        f"{edge}.000000", "-838:00:00.1", "-838:00:00.000001", "23:59:59.123456", "100:00:00.5",
    ]
    if kind.mariadb:
        texts += ["838:59:59.999999", "-838:59:59.999999", "838:59:58.999999"]
    else:
        texts += ["838:59:58.999999", "-838:59:58.999999"]
    rows = ",".join(f"({number},{','.join([repr(text)] * 7)})" for number, text in enumerate(texts))
    return [f"CREATE TABLE times (id int PRIMARY KEY, {columns})", f"INSERT IGNORE INTO times VALUES {rows}",
            "INSERT INTO times (id) VALUES (99)",
            "CREATE TABLE by_time (t time(6) PRIMARY KEY, n int)",
            "INSERT INTO by_time VALUES ('-838:00:00.5',1),('-00:00:00.000001',2),('0',3),('838:00:00.000001',4)"]


def _choices() -> list[str]:
    wide = "\u20ac\u20ac"  # no server shows members beyond U+FFFF as they are: see `choices_beyond`
    many = ",".join(f"'m{number}'" for number in range(64))
    long = ",".join(f"'value {number}'" for number in range(700))
    return [
        "CREATE TABLE choices (id int PRIMARY KEY, plain enum('a','b''c','d,e','\\\\','',' '), s set('r','g','b'),"
        " latin enum('\u00e9','e','\u00fc') CHARACTER SET latin1, latin_s set('\u00e9','\u00f6') CHARACTER SET latin1,"
        f" emoji enum('{wide}','\u20ac','x'), emoji_s set('{wide}','\u20ac'),"
        " wide enum('\u20ac','b') CHARACTER SET utf16,"
        f" many set({many}), long_one enum({long}), bin enum('A','a') COLLATE utf8mb4_bin)",
        f"INSERT INTO choices VALUES (1,'a','','\u00e9','','{wide}','','\u20ac',0,'value 0','A'),"
        f"(2,'b''c','r,b','e','\u00e9','\u20ac','{wide}','b',18446744073709551615,'value 699','a'),"
        f"(3,'d,e','r,g,b','\u00fc','\u00e9,\u00f6','x','{wide},\u20ac','b',9223372036854775808,'value 255','a'),"
        "(4,'\\\\','g','e','','x','','b',1,'value 256','A'),(5,'','g','e','','x','','b',1,'value 254','A')",
        # what a permissive server keeps for a wrong value: index 0, beside a member ''
        "INSERT IGNORE INTO choices VALUES (6,'nonsense','nonsense','?','?','?','?','?',0,'?','?')",
        "INSERT INTO choices (id) VALUES (7)",
        "CREATE TABLE choices_beyond (id int PRIMARY KEY, e enum('\U0001f600','b'), s set('a','\U0001f601'), plain enum('?'))",
        "INSERT INTO choices_beyond VALUES (1,1,2,1),(2,2,3,NULL)",
        "CREATE TABLE by_choice (e enum('z','a','') NOT NULL, s set('x','y') NOT NULL, n int, PRIMARY KEY (e, s))",
        "INSERT IGNORE INTO by_choice VALUES ('z','',1),('a','x,y',2),('','y',3),('wrong','x',4)",
    ]


def _shapes(kind: Kind) -> list[str]:
    kinds = ("geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geometrycollection")
    columns = ", ".join(f"g_{name} {name}" for name in kinds)
    texts = (
        "POINT(1e308 -5e-324)", "POINT(-0 0)", "LINESTRING(0 0,1.5 -2.25,3 3)", "POLYGON((0 0,4 0,4 4,0 4,0 0),(1 1,2 1,2 2,1 2,1 1))",
        "MULTIPOINT((1 1),(2 2))", "MULTILINESTRING((0 0,1 1),(2 2,3 3))", "MULTIPOLYGON(((0 0,1 0,1 1,0 0)),((5 5,6 5,6 6,5 5)))",
        "GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))",
    )
    one = ",".join(f"ST_GeomFromText('{text}')" for text in texts)
    other = ",".join(f"ST_GeomFromText('{text}',3857)" for text in texts) if kind.mariadb else one
    return [
        f"CREATE TABLE shapes (id int PRIMARY KEY, {columns})", f"INSERT INTO shapes VALUES (1,{one})", f"INSERT INTO shapes VALUES (2,{other})",
        "INSERT INTO shapes (id) VALUES (3)",
        *([] if kind.mariadb else [
            "INSERT INTO shapes (id, g_geometry, g_point) VALUES (4, ST_GeomFromText('POINT(10 20)', 4326), ST_GeomFromText('POINT(-90 180)', 4326))",
            "CREATE TABLE located (id int PRIMARY KEY, p point NOT NULL SRID 4326, m point SRID 3857, z geometry SRID 0, SPATIAL KEY (p))",
            "INSERT INTO located VALUES (1, ST_SRID(POINT(10,20),4326), ST_SRID(POINT(1,2),3857), POINT(1,2))",
        ]),
        *(["CREATE TABLE located (id int PRIMARY KEY, p point REF_SYSTEM_ID=4326 NOT NULL, SPATIAL KEY (p))",
           "INSERT INTO located VALUES (1, ST_GeomFromText('POINT(10 20)', 4326)), (2, ST_GeomFromText('POINT(-1 1)'))"] if kind.mariadb else []),
        "CREATE TABLE collections (id int PRIMARY KEY, g geometrycollection)",
        "INSERT INTO collections VALUES (1, ST_GeomFromText('GEOMETRYCOLLECTION(GEOMETRYCOLLECTION(POINT(0 0)))')),"
        " (2, ST_GeomFromText('GEOMETRYCOLLECTION EMPTY'))",
    ]


def _documents(kind: Kind) -> list[str]:
    texts = (
        "{}", "[]", "null", "true", "\"\"", "0", "-1", "18446744073709551615", "-9223372036854775808", "1.5e300", "5e-324", "0.1",
        '{"b": [1, 2.5, "x", null, true], "a": {"c": {}}}', '{"": "", " ": " "}', '["\\u0000", "\\"\\\\\\/\\b\\f\\n\\r\\t"]',
        '["\U0001f600", "\\ud83d\\ude00", "\u20ac"]', '[[[[[[[[1]]]]]]]]',
    )
    rows = ",".join(f"({number},'{one}')" for number, one in enumerate(text.replace("\\", "\\\\") for text in texts))
    found = ["CREATE TABLE documents (id int PRIMARY KEY, j json)", f"INSERT INTO documents VALUES {rows}",
             "INSERT INTO documents VALUES (100, NULL), (101, CONCAT('[\"', REPEAT('\u00e9', 400000), '\"]'))"]
    if kind.mariadb:
        return [*found, "INSERT INTO documents VALUES (102, '  { \"kept\" :  [ 1.10 , 1.10 ] , \"kept\" : 2 }  ')",
                "CREATE TABLE documents_own (id int PRIMARY KEY, j longtext CHARACTER SET latin1 COLLATE latin1_bin CHECK (json_valid(j)), k longtext CHECK (json_valid(k)))",
                "INSERT INTO documents_own VALUES (1, '{\"\u00e9\": 1}', '[1]')"]
    return [*found, *_typed_documents(), "CREATE TABLE documents_indexed (id int PRIMARY KEY, j json, KEY ((CAST(j->'$.zip' AS UNSIGNED ARRAY))),"
                    " v varchar(20) AS (j->>'$.name') VIRTUAL, KEY (v))",
            "INSERT INTO documents_indexed (id, j) VALUES (1, '{\"zip\": [1, 2, 3], \"name\": \"x\"}'), (2, '{\"zip\": []}')"]


def _typed_documents() -> list[str]:
    """Values that JSON text does not tell from strings and doubles."""
    values = (
        "CAST(1.10 AS DECIMAL(3,2))", f"CAST('{'9' * 35}.{'9' * 30}' AS DECIMAL(65,30))", "CAST('-0.1' AS DECIMAL(2,1))", "CAST(7 AS UNSIGNED)",
        "CAST('2024-02-29' AS DATE)", "CAST('-838:59:58.999999' AS TIME(6))", "CAST('9999-12-31 23:59:59.999999' AS DATETIME(6))",
        "CAST(x'00FF27225C' AS BINARY)", "UNHEX('')", "1.5e0", "'1.10'", "'2024-02-29'", "NULL", "TRUE",
    )
    pairs = ", ".join(f"'k{number} \"\u20ac', {value}" for number, value in enumerate(values))
    return [
        "CREATE TABLE documents_typed (id int PRIMARY KEY, j json, k json)",
        *(f"INSERT INTO documents_typed VALUES ({number}, CAST({value} AS JSON), JSON_ARRAY({value}))" for number, value in enumerate(values[:7])),
        f"INSERT INTO documents_typed VALUES (100, JSON_OBJECT({pairs}), JSON_ARRAY({', '.join(values)}))",
        f"INSERT INTO documents_typed VALUES (101, JSON_ARRAY(JSON_OBJECT('a', JSON_ARRAY({', '.join(values)})), 1, JSON_OBJECT({pairs})), NULL)",
        "INSERT INTO documents_typed VALUES (102, '{\"plain\": [1.10, \"2024-02-29\"]}', NULL)",
        "CREATE TABLE documents_bit (b bit(12), l longblob, t timestamp NULL)", "INSERT INTO documents_bit VALUES (2565, x'00FF', '2024-01-01 00:00:00')",
        "INSERT INTO documents_typed SELECT 103, JSON_ARRAY(b, l, t), JSON_OBJECT('b', b, 'l', l, 't', t) FROM documents_bit",
    ]


def _addresses(kind: Kind) -> list[str]:
    if not kind.mariadb:
        return []
    return [
        "CREATE TABLE addresses (id int PRIMARY KEY, u uuid, i4 inet4, i6 inet6, KEY (u), KEY (i6))",
        "INSERT INTO addresses VALUES (1,'00000000-0000-0000-0000-000000000000','0.0.0.0','::'),"
        "(2,'ffffffff-ffff-ffff-ffff-ffffffffffff','255.255.255.255','ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'),"
        "(3,'123e4567-e89b-12d3-a456-426655440000','192.0.2.33','::ffff:1.2.3.4'),"
        "(4,'018e4b6c-1b7d-7a3e-8c5f-2f4d6a8b9c0d','127.0.0.1','fe80::1'),(5,NULL,NULL,NULL)",
        "CREATE TABLE by_uuid (u uuid PRIMARY KEY, n int)", "INSERT INTO by_uuid SELECT uuid, id FROM (SELECT u AS uuid, id FROM addresses"
        " WHERE u IS NOT NULL) x",
        "CREATE TABLE by_inet (a inet6, b inet4, n int, PRIMARY KEY (a, b))",
        "INSERT INTO by_inet VALUES ('::1','1.1.1.1',1),('::','1.1.1.1',2),('ff::','0.0.0.0',3)",
    ]


def _vectors(kind: Kind) -> list[str]:
    if not kind.has_vectors:
        return []
    size = 2000 if kind.mariadb else 16383  # a row of MariaDB has 65,535 bytes
    long = struct.pack(f"<{size}f", *(number / 7 for number in range(size))).hex()
    indexed = [
        "CREATE TABLE vectors_indexed (id int PRIMARY KEY, v vector(3) NOT NULL, w int, VECTOR KEY near (v) M=8 DISTANCE=cosine)",
        "INSERT INTO vectors_indexed VALUES (1,x'0000803f0000000000000000',1),(2,x'000080bf01000000ffff7f5e',2)",
        "CREATE TABLE vectors_euclid (id int PRIMARY KEY, v vector(2) NOT NULL, VECTOR (v))",
        "INSERT INTO vectors_euclid VALUES (1,x'0000803f00000000')",
    ]
    return [
        f"CREATE TABLE vectors (id int PRIMARY KEY, a vector(1), b vector(3), c vector({size}))",
        f"INSERT INTO vectors VALUES (1,x'00000080',x'0000008001000000ffff7f5e',x'{long}'),(2,x'0000803f',NULL,NULL),(3,NULL,NULL,NULL)",
        *(indexed if kind.mariadb else []),
    ]


def _nothing() -> list[str]:
    return [
        "CREATE TABLE nothing (id int PRIMARY KEY, t text, f float, d date, e enum('a'), b bit(3), j json)",
        "CREATE TABLE only_nulls (a int, b text, c datetime(6), d decimal(5,2), e blob)",
        "INSERT INTO only_nulls VALUES (NULL,NULL,NULL,NULL,NULL),(NULL,NULL,NULL,NULL,NULL)",
    ]
