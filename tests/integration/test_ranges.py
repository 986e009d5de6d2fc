"""Ranges of keys of every kind on real servers: whatever the collation, each row is in exactly one of them."""

from __future__ import annotations

import dataclasses
import itertools
import string
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kpbackup.model.inventory import Bound, ChunkBounds, Table
from kpbackup.mysql import cutting, ranges, rows, server
from tests.integration.dumping import flavour_of, read_chunk, reading_socket, row_payloads, tables_of
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.mysql97 import mysql97_server

COLLATIONS = {
    "mariadb": (
        "utf8mb4_general_ci", "utf8mb4_unicode_ci", "utf8mb4_bin", "utf8mb4_unicode_520_nopad_ci", "utf8mb4_uca1400_as_cs",
        "utf8mb4_turkish_ci", "utf8mb4_nopad_bin", "latin1_german2_ci", "latin1_swedish_ci", "cp1251_general_cs",
        "gbk_chinese_ci", "sjis_japanese_ci", "utf16_unicode_ci", "utf32_general_ci", "ucs2_bin", "tis620_thai_ci",
    ),
    "mysql": (
        "utf8mb4_0900_ai_ci", "utf8mb4_0900_as_cs", "utf8mb4_ja_0900_as_cs_ks", "utf8mb4_0900_bin", "utf8mb4_general_ci",
        "utf8mb4_unicode_520_ci", "utf8mb4_bin", "utf8mb4_de_pb_0900_ai_ci", "latin1_german2_ci", "gb18030_chinese_ci",
        "gbk_chinese_ci", "sjis_japanese_ci", "utf16le_general_ci", "utf32_unicode_ci", "ucs2_bin", "cp1251_general_cs",
    ),
}
LETTERS = [*"aAbBzZ09 '\\%\t\0", "ä", "Ä", "ß", "ss", "é", "e\u0301", "İ", "ı", "ﬁ", "Æ", "ae", "漢", "字", "😀", "ก", "\u200d"]
_EPOCH = datetime(1971, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module", params=["mariadb", "mysql"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of either flavour, one for all tests of this module."""
    directory: Path = tmp_path_factory.mktemp("ranges")
    if request.param == "mysql":
        request.getfixturevalue("mysql97_programs")
    start = mariadb_server if request.param == "mariadb" else mysql97_server
    with start(directory / request.param, server_id=71) as found:
        found.execute("CREATE DATABASE k")
        yield found


def _characters(collation: str) -> st.SearchStrategy[tuple[str, str]]:
    charset = collation.partition("_")[0]
    texts = st.lists(st.sampled_from(LETTERS), max_size=6).map("".join)
    utf8 = texts.map(lambda text: f"_utf8mb4 x'{text.encode().hex()}'")
    kind = st.sampled_from(["varchar(20)", "char(20)"])
    return kind.flatmap(lambda type_: utf8.map(lambda value: (f"{type_} CHARACTER SET {charset} COLLATE {collation}", value)))


def _moment(seconds: float) -> str:
    return f"'{(_EPOCH + timedelta(seconds=seconds)).strftime('%Y-%m-%d %H:%M:%S.%f')}'"


def kinds(flavour: str) -> dict[str, st.SearchStrategy[str]]:
    """Column type -> its values as SQL."""
    moments = st.floats(0, 2_000_000_000).map(_moment)
    found = {
        "int": st.integers(-(1 << 31), (1 << 31) - 1).map(str),
        "bigint unsigned": st.one_of(st.integers(0, 9), st.integers(0, (1 << 64) - 1)).map(str),
        "tinyint": st.integers(-2, 2).map(str),
        "decimal(12,4)": st.decimals(-99999999, 99999999, places=4).map(str),
        "decimal(5,0) unsigned zerofill": st.integers(0, 99999).map(str),
        "date": st.one_of(moments.map(lambda text: text[:11] + "'"), st.just("'0000-00-00'"), st.just("'2024-02-00'")),
        "datetime(6)": moments, "datetime": moments, "timestamp(3)": moments,
        "time(6)": st.integers(-838 * 3600, 838 * 3600).map(lambda s: f"SEC_TO_TIME({s}.000017)"),
        "binary(4)": st.binary(max_size=4).map(lambda b: f"x'{b.hex()}'"),
        "varbinary(9)": st.binary(max_size=9).map(lambda b: f"x'{b.hex()}'"),
        "enum('b','a','c')": st.sampled_from(["'a'", "'b'", "'c'"]),
    }
    if flavour == "mariadb":
        found["uuid"] = st.uuids().map(lambda one: f"'{one}'")
        found["inet6"] = st.ip_addresses(v=6).map(lambda one: f"'{one}'")
    return found


@st.composite
def filled_tables(draw: st.DrawFn, flavour: str) -> list[str]:
    """Statements that make table k.t: a key of one to three columns, and rows."""
    plain = kinds(flavour)
    columns: list[str] = []
    values: list[st.SearchStrategy[str]] = []
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            collation = draw(st.sampled_from(COLLATIONS[flavour]))
            column, _ = draw(_characters(collation))
            columns.append(column)
            values.append(_characters(collation).map(lambda pair: pair[1]))
        else:
            columns.append(draw(st.sampled_from(sorted(plain))))
            values.append(plain[columns[-1]])
    names = [f"`k{number}`" for number in range(len(columns))]
    listed = ", ".join(f"{name} {column} NOT NULL" for name, column in zip(names, columns, strict=True))
    inserted = draw(st.lists(st.tuples(*values), min_size=1, max_size=60))
    return [
        "DROP TABLE IF EXISTS k.t", f"CREATE TABLE k.t ({listed}, v INT, PRIMARY KEY ({', '.join(names)}))",
        "INSERT IGNORE INTO k.t VALUES " + ", ".join(f"({', '.join(row)}, {n})" for n, row in enumerate(inserted)),
    ]


def walk(connection: server.Connection, table: Table, *, step: int) -> list[ChunkBounds]:
    bounds: list[Bound | None] = [None]
    while (following := cutting.next_bound(connection, table, bounds[-1], rows=step)) is not None:
        bounds.append(following)
    return [ChunkBounds(lower, upper) for lower, upper in itertools.pairwise([*bounds, None])]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data(), step=st.integers(1, 7))
def test_every_row_is_in_exactly_one_range(source: Server, data: st.DataObject, step: int) -> None:
    flavour = flavour_of(source)
    source.execute("SET NAMES utf8mb4", "SET sql_mode=''", *data.draw(filled_tables(flavour)))
    table = tables_of(source, "k")["t"]
    if not ranges.bound_columns(table):
        return  # begins with the ENUM: the next test is about it
    whole, totals = read_chunk(source, table)
    with reading_socket(source) as (connection, socket):
        chunks = walk(connection, table, step=step)
        found: list[bytes] = []
        for bounds in chunks:
            frame = bytearray()
            rows.stream_chunk(socket, table, bounds, flavour, frame.extend)
            found.append(bytes(frame))
    joined = [row for chunk in found for row in row_payloads(chunk)]
    assert joined == row_payloads(whole)
    if len(ranges.bound_columns(table)) == len(table.key):  # else several rows may share a bound
        assert all(len(row_payloads(chunk)) <= step + 1 + cutting.CANDIDATES for chunk in found)
    assert_deleted_one_by_one(source, table, chunks, [len(row_payloads(chunk)) for chunk in found], totals.rows)


def assert_deleted_one_by_one(
    source: Server, table: Table, chunks: list[ChunkBounds], counts: list[int], total: int
) -> None:
    """What a resumed load deletes by a chunk's range are the chunk's rows."""
    with source.connect() as connection:
        connection.execute("SET NAMES utf8mb4")
        connection.execute("SET SESSION sql_mode='NO_AUTO_VALUE_ON_ZERO', time_zone='+00:00'")
        for bounds, count in zip(chunks, counts, strict=True):
            condition = ranges.within(table, bounds)
            connection.execute(f"DELETE FROM k.t{f' WHERE {condition}' if condition else ''}")
            total -= count
            assert connection.value("SELECT COUNT(*) FROM k.t") == total


@pytest.mark.parametrize(
    "key", ["e enum('a','b') NOT NULL, PRIMARY KEY (e)", "t text NOT NULL, PRIMARY KEY (t(9))", "f float PRIMARY KEY"]
)
def test_keys_that_cannot_be_cut_are_one_chunk(source: Server, key: str) -> None:
    source.execute("DROP TABLE IF EXISTS k.t", f"CREATE TABLE k.t ({key})")
    table = dataclasses.replace(tables_of(source, "k")["t"], estimated_rows=7 * cutting.Size().rows)
    with source.connect() as connection:
        assert cutting.planned(connection, table) == [rows.OPEN]


def test_a_bound_that_cannot_be_stated_is_passed_over(source: Server) -> None:
    """An impossible date is a value like any other to the table, but not to MySQL's comparison with it."""
    source.execute(
        "DROP TABLE IF EXISTS k.t", "CREATE TABLE k.t (d date PRIMARY KEY)", "SET sql_mode='ALLOW_INVALID_DATES'",
        "INSERT INTO k.t VALUES ('2024-01-01'), ('2024-02-28'), ('2024-02-31'), ('2024-03-01'), ('2024-03-02'), ('2024-04-01')",
    )
    table = tables_of(source, "k")["t"]
    with reading_socket(source) as (connection, _):
        expected = "2024-02-31" if flavour_of(source) == "mariadb" else "2024-03-01"
        assert cutting.next_bound(connection, table, None, rows=2) == (expected,)
        chunks = walk(connection, table, step=1)
    parts = [row_payloads(read_chunk(source, table, bounds)[0]) for bounds in chunks]
    assert sum(parts, []) == row_payloads(read_chunk(source, table)[0])
    assert len(parts) > 1


def test_integers_are_cut_at_equal_widths_only_where_they_lie_close(source: Server) -> None:
    filled = "WITH RECURSIVE n(i) AS (SELECT -450 UNION ALL SELECT i + 1 FROM n WHERE i < 449) SELECT i FROM n"
    source.execute("DROP TABLE IF EXISTS k.t", "CREATE TABLE k.t (id bigint PRIMARY KEY)", f"INSERT INTO k.t {filled}")
    table = dataclasses.replace(tables_of(source, "k")["t"], estimated_rows=900, estimated_bytes=9 * cutting.Size().bytes)

    def sizes(chunks: list[ChunkBounds] | None) -> list[int]:
        assert chunks is not None
        return [len(row_payloads(read_chunk(source, table, bounds)[0])) for bounds in chunks]

    with reading_socket(source) as (connection, _):
        assert sizes(cutting.planned(connection, table)) == [100] * 9
        source.execute("INSERT INTO k.t VALUES (9223372036854775807)")
        assert cutting.planned(connection, table) is None
        assert sizes(walk(connection, table, step=cutting.rows_wanted(table, 0))) == [100, *[101] * 7, 94]


def test_a_walk_passes_each_row_once(source: Server) -> None:
    """The server goes to the bound and reads on from there, whatever came before."""
    digits = " CROSS JOIN ".join(f"(SELECT {' UNION ALL SELECT '.join(string.digits)}) d{n}" for n in range(3))
    source.execute(
        "DROP TABLE IF EXISTS k.t", "CREATE TABLE k.t (a varchar(9), b int, c decimal(4,1), PRIMARY KEY (a, b, c))",
        f"INSERT INTO k.t SELECT CONCAT('k', d0.`0`), d1.`0`, d2.`0` FROM {digits}",
    )
    table = tables_of(source, "k")["t"]
    with source.connect() as connection:
        bound = cutting.next_bound(connection, table, None, rows=700)
        assert bound is not None
        connection.execute("FLUSH STATUS")
        assert cutting.next_bound(connection, table, bound, rows=100) is not None
        read = sum(int(row[1]) for row in connection.rows("SHOW SESSION STATUS LIKE 'Handler_read_%'"))
    assert 100 <= read < 100 + cutting.CANDIDATES + 30


@given(nth=st.integers(0, 10_000), estimated_rows=st.integers(0, 1 << 40), estimated_bytes=st.integers(0, 1 << 50))
def test_chunks_of_a_walk_grow_when_the_estimates_were_too_low(nth: int, estimated_rows: int, estimated_bytes: int) -> None:
    table = Table("k", "t", "InnoDB", "", (), ("id",), True, estimated_rows, estimated_bytes)
    first, later = cutting.rows_wanted(table, 0), cutting.rows_wanted(table, nth)
    assert 1 <= first <= cutting.Size().rows
    assert later == first << nth // (2 * cutting.pieces_wanted(table))
