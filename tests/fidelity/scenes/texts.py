"""Texts and bytes: every character set, every size, what does not belong in a character set and is there all the same."""

from __future__ import annotations

from tests.fidelity.scenes import Kind

DATABASES = ("texts",)
# one character beyond ASCII at least, and a backslash byte where it may follow a lead byte
_SAMPLES = {
    "utf8mb4": "F09F9880E282ACC3A927225C0D0A001A", "utf8mb3": "E282ACC3A9275C22", "latin1": "E9FF80A55C27", "latin2": "B1E65C",
    "latin5": "F0FE", "latin7": "E0FF", "cp1250": "8AE9", "cp1251": "CFF0E8E2E5F2", "cp1256": "C7E4", "cp1257": "E0FE",
    "cp850": "818E", "cp852": "A5A9", "cp866": "8FE0", "koi8r": "F0D2", "koi8u": "F0A4", "hebrew": "E0F9", "greek": "C1F9",
    "tis620": "A1FB", "armscii8": "B2B3", "geostd8": "C0C1", "dec8": "E9FF", "hp8": "C5FE", "swe7": "5B5D", "ascii": "005C271A7F",
    "macce": "8AFF", "macroman": "8AD8", "keybcs2": "818E",
    "gbk": "D6D0B95C", "gb2312": "D6D0CEC4", "gb18030": "D6D08130813995328236", "big5": "A5A4B3A5", "sjis": "93FA965C",
    "cp932": "93FA965C8740", "ujis": "C6FCCBDC8FB0A1", "eucjpms": "C6FCCBDCADA1", "euckr": "C7D1B1DB",
    "utf16": "20ACD83DDE00005C", "utf16le": "AC203DD800DE", "utf32": "0001F6000000005C", "ucs2": "20AC0000", "binary": "00FF5C27",
}
_MYSQL_ONLY = {"gb18030"}


def charsets(kind: Kind) -> list[str]:
    return [name for name in _SAMPLES if not (kind.mariadb and name in _MYSQL_ONLY)]


def statements(kind: Kind) -> list[str]:
    return [
        "CREATE DATABASE texts CHARACTER SET utf8mb4", "USE texts", *_characters(kind), *_spaces(kind), *_sizes(kind), *_bytes(), *_invalid(kind),
        *_collations(kind), *_huge(),
    ]


def _characters(kind: Kind) -> list[str]:
    found = []
    for name in charsets(kind):
        value = f"_{name} x'{_SAMPLES[name]}'"
        found += [
            f"CREATE TABLE c_{name} (id int PRIMARY KEY, c char(20), v varchar(60), t text, m mediumtext) CHARACTER SET {name}",
            f"INSERT INTO c_{name} VALUES (1,{value},{value},{value},{value}),(2,'','','',''),(3,'a  ','a  ','a  ','a  '),(4,NULL,NULL,NULL,NULL)",
        ]
    return found


def _spaces(kind: Kind) -> list[str]:
    padding = "utf8mb4_bin" if kind.mariadb else "utf8mb4_0900_ai_ci"
    return [
        f"CREATE TABLE padded (c char(5) COLLATE {padding}, v varchar(9) COLLATE {padding} NOT NULL, b binary(5), n int, PRIMARY KEY (v))",
        "INSERT INTO padded VALUES ('a ','',x'0100',1),('','a',x'',2),(' ','\\t',x'0000000000',3),('\u00e9\u20ac\U0001f600 ','\\n',x'2020202020',4)",
    ]


def _sizes(kind: Kind) -> list[str]:
    """The lengths at which the encodings of a value change, in each size of type."""
    lengths = (0, 1, 249, 250, 251, 252, 253, 254, 255, 256, 257, 65534, 65535, 65536, 70000, 262143, 1 << 20)
    rows = ",".join(
        f"({n},REPEAT('x',{min(n, 255)}),REPEAT('\u00e9',{min(n, 8000)}),REPEAT(0xFF,{min(n, 255)}),REPEAT('t',{min(n, 65535)}),"
        f"REPEAT(0x00,{min(n, 65535)}),REPEAT('m',{n}),REPEAT(0x5C27,{n // 2}),REPEAT('\U0001f600',{n // 4}),REPEAT(0x1A,{n}))"
        for n in lengths
    )
    return [
        "CREATE TABLE sizes (id int PRIMARY KEY, tt tinytext CHARACTER SET ascii, v varchar(8000), tb tinyblob, t text CHARACTER SET ascii,"
        " b blob, mt mediumtext, mb mediumblob, lt longtext, lb longblob)",
        f"INSERT INTO sizes VALUES {rows}",
        "CREATE TABLE widest (v varchar(16380) CHARACTER SET utf8mb4, n int)", "INSERT INTO widest VALUES (REPEAT('\U0001f600',16380),1)",
        "CREATE TABLE vb (v varbinary(65000), n int)", "INSERT INTO vb VALUES (REPEAT(0x00FF,32500),1),('',2)",
        "CREATE TABLE tiny (a char(0), b varchar(0), c binary(0), d varbinary(0), e char(0) NOT NULL)",
        "INSERT INTO tiny VALUES ('','','','',''),(NULL,NULL,NULL,NULL,'')",
        "CREATE TABLE widest_row (" + ", ".join(f"c{n} tinytext" for n in range(190)) + ", k int)",
        "INSERT INTO widest_row (c0, c189, k) VALUES ('a', 'z', 1), (NULL, '', 2)",
        "CREATE TABLE many_columns (" + ", ".join(f"c{n} int" for n in range(1000)) + ")",
        "INSERT INTO many_columns (c0, c999) VALUES (1, 2), (NULL, NULL)",
    ]


def _bytes() -> list[str]:
    every = bytes(range(256)).hex()
    return [
        "CREATE TABLE every_byte (id int PRIMARY KEY, l text CHARACTER SET latin1, b blob, v varbinary(256), f binary(255))",
        f"INSERT INTO every_byte VALUES (1,_latin1 x'{every}',x'{every}',x'{every}',x'{every[:510]}')",
        "CREATE TABLE single_bytes (b varbinary(1) PRIMARY KEY, n int)",
        "INSERT INTO single_bytes VALUES " + ",".join(f"(x'{byte:02x}',{byte})" for byte in range(256)),
        "CREATE TABLE byte_keys (b binary(3), v varbinary(20), n int, PRIMARY KEY (b, v))",
        "INSERT INTO byte_keys VALUES (x'000000','',1),(x'0000FF',x'00',2),(x'FFFFFF',x'FFFE00',3)",
        "CREATE TABLE blob_key (b blob, t text, n int, PRIMARY KEY (b(20), t(10)))",
        "INSERT INTO blob_key VALUES (x'',  '', 1),(x'00FF','\u20ac',2)",
    ]


def _invalid(kind: Kind) -> list[str]:
    """Bytes that are no text in the column's character set: a change of type put them there, or an older server."""
    found = []
    for name, data in (("gbk", "81FFB9"), ("sjis", "81FF93"), ("utf8mb4", "C328FFF0"), ("big5", "A5FF"), ("ujis", "8FA1FF"), ("ascii", "80FF")):
        found += [f"CREATE TABLE i_{name} (id int PRIMARY KEY, v varbinary(20), t blob)", f"INSERT INTO i_{name} VALUES (1,x'{data}',x'{data}')"]
        mode = "" if kind.mariadb else ""
        found += [f"SET sql_mode = '{mode}'",
                  f"ALTER TABLE i_{name} MODIFY v varchar(20) CHARACTER SET {name}, MODIFY t text CHARACTER SET {name}"]
    return found


def _collations(kind: Kind) -> list[str]:
    mine = ("latin1_german2_ci", "utf8mb4_unicode_520_ci", "utf8mb4_bin", "utf16_bin", "latin1_general_cs", "utf8mb3_general_ci")
    own = ("utf8mb4_nopad_bin", "utf8mb4_unicode_nopad_ci", "utf8mb4_uca1400_swedish_as_cs") if kind.mariadb else \
        ("utf8mb4_0900_as_cs", "utf8mb4_ja_0900_as_cs_ks", "utf8mb4_0900_bin", "gb18030_unicode_520_ci")
    found = []
    for number, collation in enumerate((*mine, *own)):
        charset = collation.split("_")[0]
        found += [
            f"CREATE TABLE l{number} (k varchar(30) COLLATE {collation} NOT NULL PRIMARY KEY, other varchar(9), same varchar(9) COLLATE {collation},"
            f" spelled varchar(9) CHARACTER SET {charset}, bin varchar(9) CHARACTER SET {charset} COLLATE {charset}_bin, KEY (other))"
            f" CHARACTER SET {charset} COLLATE {collation}",
            f"INSERT INTO l{number} VALUES ('b','x','y','z','q'),('A','X','Y',NULL,''),('',NULL,'','','')",
        ]
    return found


def _huge() -> list[str]:
    """Packets end at 16 MiB: values around it, and up to 32 MiB."""
    return [
        "CREATE TABLE huge (id int PRIMARY KEY, b longblob, t longtext)",
        "INSERT INTO huge VALUES (1, REPEAT(x'00', 16777215), 'a')",
        "INSERT INTO huge VALUES (2, REPEAT(x'FF', 16777216), NULL)",
        "INSERT INTO huge VALUES (3, 'z', REPEAT('\u00e9', 8388600))",
        "INSERT INTO huge VALUES (4, REPEAT(x'5C', 33554432), REPEAT('\U0001f600', 4194304))",
    ]
