"""Which rows a chunk reads, how chunks share objects, what is hashed."""

from __future__ import annotations

import hashlib
import json
import random

import pytest

from kpbackup.model.inventory import ChunkBounds, Column, Table
from kpbackup.mysql import ranges, rows, wire


def table(name: str = "t", *, columns: tuple[Column, ...] = (Column("id", "int", "int(11)"),), key: tuple[str, ...] = ("id",),
          estimated_rows: int = 0, estimated_bytes: int = 0) -> Table:
    return Table(schema="s", name=name, engine="InnoDB", create_sql="", columns=columns, key=key, transactional=True,
                 estimated_rows=estimated_rows, estimated_bytes=estimated_bytes)


def test_select_names_columns_quotes_and_orders_by_the_key() -> None:
    asked = table("o`dd", columns=(Column("a", "int", "int"), Column("b`", "time", "time(6)")), key=("b`", "a"))
    assert rows.select_sql(asked, ChunkBounds(), "mariadb") == (
        "SELECT r.`a`, r.`b``` FROM `s`.`o``dd` AS r FORCE INDEX (PRIMARY) ORDER BY r.`b```, r.`a`")
    assert rows.select_sql(asked, ChunkBounds(("10:00:00",), ("11:00:00", "9")), "mysql") == (
        "SELECT r.`a`, CAST(r.`b``` AS CHAR) FROM `s`.`o``dd` AS r FORCE INDEX (PRIMARY)"
        " WHERE r.`b``` >= CAST('10:00:00' AS TIME(6))"
        " AND (r.`b``` < CAST('11:00:00' AS TIME(6)) OR (r.`b``` = CAST('11:00:00' AS TIME(6)) AND r.`a` < 9))"
        " ORDER BY r.`b```, r.`a`")


def test_select_of_a_keyless_table_has_neither_range_nor_order() -> None:
    assert rows.select_sql(table(key=()), ChunkBounds(), "mysql") == "SELECT r.`id` FROM `s`.`t` AS r"


@pytest.mark.parametrize(
    ("data_type", "column_type", "flavour", "expected"),
    [
        ("time", "time", "mysql", "plain"), ("time", "time(1)", "mysql", "char"), ("time", "time(6)", "mariadb", "plain"),
        ("datetime", "datetime(6)", "mysql", "plain"), ("enum", "enum('a','b')", "mysql", "unsigned"),
        ("enum", "enum('','a')", "mariadb", "unsigned"), ("set", "set('','a')", "mysql", "unsigned"),
    ],
)
def test_expressions(data_type: str, column_type: str, flavour: str, expected: str) -> None:
    assert rows.expression_of(Column("c", data_type, column_type), flavour) == expected


def test_frame_header_is_canonical_json() -> None:
    head = rows.frame_header(table("größe", columns=(Column("c", "char", "char(1)", "latin1"),)), "mysql")
    assert head[:8] == b"KPROWS1\n"
    assert int.from_bytes(head[8:12], "little") == len(head) - 12
    header = json.loads(head[12:])
    assert json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == head[12:]
    assert header["table"] == "größe" and header["expressions"] == ["plain"]
    assert header["columns"] == [{"name": "c", "data_type": "char", "column_type": "char(1)", "charset": "latin1"}]


def test_jobs_put_big_chunks_first_and_mix_the_tables() -> None:
    a, b = table("a", estimated_bytes=300 << 20), table("b", estimated_bytes=90 << 20)
    whole = table("whole", estimated_bytes=500 << 20)
    bounds = ranges.equal_ranges(0, 99, 3)
    jobs = rows.group_jobs([*((a, one) for one in bounds), *((b, one) for one in bounds), (whole, rows.OPEN)])
    assert [job[0][0].name for job in jobs] == ["whole", "a", "b", "a", "b", "a", "b"]
    assert all(len(job) == 1 for job in jobs)


def test_small_tables_share_objects() -> None:
    small = [table(f"t{n}", estimated_bytes=16384) for n in range(450)]
    half = [table(f"h{n}", estimated_bytes=3 << 20) for n in range(2)]
    jobs = rows.group_jobs([(one, rows.OPEN) for one in [*small, *half]])
    assert sorted(one.name for job in jobs for one, _ in job) == sorted(one.name for one in [*small, *half])
    assert all(len(job) <= 200 and sum(one.estimated_bytes for one, _ in job) <= 4 << 20 for job in jobs)
    assert len(jobs) == 4  # 3 MiB | 3 MiB and 64 small ones | 200 | 186


def test_an_empty_plan_has_no_jobs() -> None:
    assert rows.group_jobs([]) == []


def _packet(payload: bytes) -> bytes:
    return wire.packet_header(len(payload), 9) + payload


def test_keyed_tally_is_the_hash_of_the_bytes() -> None:
    packets = [_packet(b"\x00" + bytes([n]) * n) for n in range(100)]
    counted, told = rows.RowTally(keyed=True), rows.RowTally(keyed=True)
    for packet in packets:
        counted.update(memoryview(packet))
        told.update(packet, rows=1)
    assert counted.sha256 == told.sha256 == hashlib.sha256(b"".join(packets)).hexdigest()
    assert (counted.rows, counted.row_bytes) == (told.rows, told.row_bytes) == (100, sum(map(len, packets)))


def test_keyless_tally_does_not_care_for_order_but_for_content() -> None:
    payloads = [b"\x00" + bytes([n]) * n for n in range(100)] + [b"\x00same"] * 2
    shuffled = random.Random(4).sample(payloads, len(payloads))
    tallies = []
    for order in (payloads, shuffled, payloads[:-1]):
        tally = rows.RowTally(keyed=False)
        for start in range(0, len(order), 7):
            tally.update(b"".join(map(_packet, order[start : start + 7])))
        tallies.append(tally)
    expected = sum(int.from_bytes(hashlib.sha256(payload).digest(), "big") for payload in payloads) % (1 << 256)
    assert tallies[0].sha256 == tallies[1].sha256 == f"{expected:064x}"
    assert tallies[2].sha256 != tallies[0].sha256
    assert tallies[0].rows == 102


@pytest.mark.parametrize("keyed", [True, False])
def test_a_split_row_is_one_row(keyed: bool) -> None:
    payload = b"\x00" + bytes(0xFFFFFF - 1)
    tally = rows.RowTally(keyed=keyed)
    tally.update(_packet(b"\x00a") + _packet(payload))
    tally.update(_packet(b"rest") + _packet(b"\x00b"))
    assert tally.rows == 3
    if not keyed:
        parts = (b"\x00a", payload + b"rest", b"\x00b")
        assert int(tally.sha256, 16) == sum(int.from_bytes(hashlib.sha256(part).digest(), "big") for part in parts) % (1 << 256)
