"""Three more tables beside KubePolaris's, each of another shape: many narrow rows, long texts, blobs. Made in the server.

Deterministic: every value comes from the row's number. Texts are words with numbers in them, so that they compress as logs do;
blobs are hashes, so that they do not.
"""

from __future__ import annotations

from typing import Any

import pymysql

from demo import data

NARROW_ROWS, WIDE_ROWS, BLOB_ROWS = 1_500_000, 10_000, 1_500
_TEXT_WORDS, _BLOB_HASHES = 600, 2_000

_TABLES = (
    "CREATE TABLE bench_narrow (id BIGINT AUTO_INCREMENT PRIMARY KEY, item INT UNSIGNED NOT NULL, amount DECIMAL(12,2) NOT NULL,"
    " made_at DATETIME NOT NULL, is_open TINYINT(1) NOT NULL, KEY (item), KEY (made_at))",
    "CREATE TABLE bench_wide (id INT PRIMARY KEY, title VARCHAR(80) NOT NULL, body LONGTEXT NOT NULL)",
    "CREATE TABLE bench_blobs (id INT PRIMARY KEY, content LONGBLOB NOT NULL)",
)


def load(connection: pymysql.Connection[Any], share: float) -> None:
    """Makes and fills the tables; `share` scales the numbers of rows."""
    narrow, wide, blobs = (max(1, round(rows * share)) for rows in (NARROW_ROWS, WIDE_ROWS, BLOB_ROWS))
    with connection.cursor() as cursor:
        cursor.execute(f"USE `{data.DATABASE}`")
        cursor.execute("SET SESSION sql_log_bin = 0, SESSION group_concat_max_len = 16777216")
        for statement in _TABLES:
            cursor.execute(statement)
        cursor.execute(
            "INSERT INTO bench_narrow SELECT seq, CRC32(seq) MOD 20000, (CRC32(seq + 7) MOD 1000000) / 100,"
            f" '2026-01-01' + INTERVAL seq * 7 SECOND, seq MOD 3 = 0 FROM seq_1_to_{narrow}"
        )
        cursor.execute(f"CREATE TEMPORARY TABLE words AS SELECT seq, MD5(seq) AS word FROM seq_1_to_{_BLOB_HASHES}")
        cursor.execute(f"CREATE TEMPORARY TABLE rows_of AS SELECT seq FROM seq_1_to_{max(wide, blobs)}")
        cursor.execute(
            "INSERT INTO bench_wide SELECT r.seq, CONCAT('document ', r.seq), (SELECT GROUP_CONCAT("
            f"CONCAT('line ', w.seq, ' of ', r.seq, ' ', LEFT(MD5(r.seq + w.seq), 4)) ORDER BY w.seq SEPARATOR '\\n')"
            f" FROM seq_1_to_{_TEXT_WORDS} w) FROM rows_of r WHERE r.seq <= {wide}"
        )
        cursor.execute(
            "INSERT INTO bench_blobs SELECT r.seq, (SELECT UNHEX(GROUP_CONCAT(MD5(CONCAT(r.seq, w.word)) ORDER BY w.seq"
            f" SEPARATOR '')) FROM words w) FROM rows_of r WHERE r.seq <= {blobs}"
        )
        cursor.execute("DROP TEMPORARY TABLE words, rows_of")
        cursor.execute("SET SESSION sql_log_bin = 1")
