"""The stand-alone reader: a dump, public tools, the database's own client, and the same tables again.

The reader runs as in a disaster: `python3 -I -S`, so that neither kpbackup nor any installed package is in reach.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
from pathlib import Path

import pytest

from kpbackup.mysql import rows
from kpbackup.pipeline.encrypt import Identity
from kpbackup.repository import reader
from tests.integration import edge_tables
from tests.integration.dumping import dump_object, dump_worker, flavour_of, tables_of
from tests.servers import mariadb as mariadb_programs
from tests.servers import mysql97 as mysql97_programs
from tests.servers.database import Server

READER = Path(reader.__file__)
_EVERY_BYTE = bytes(range(256)).hex()
# The widest TIME differs: MySQL has no fraction beside 838:59:59.
_WIDEST_TIME = {"mariadb": "-838:59:59.999999", "mysql": "-838:59:58.999999"}


def run_reader(plain: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """What `python3 reader-1.py ARGUMENTS` makes of one object's plaintext."""
    command = [sys.executable, "-I", "-S", str(READER), *arguments]
    return subprocess.run(command, input=plain, capture_output=True, timeout=300, check=False)


def run_client(target: Server, sql: bytes) -> subprocess.CompletedProcess[bytes]:
    """The database's own client, fed with SQL."""
    program = mariadb_programs.find("mariadb") if target.product == "MariaDB" else mysql97_programs.program("mysql")
    command = [program, "--no-defaults", f"--host={target.host}", f"--port={target.port}", "--protocol=TCP", "--user=root",
               "--binary-mode", "--max-allowed-packet=1G"]
    return subprocess.run(command, input=sql, capture_output=True, timeout=300, check=False)


def dump_plain(source: Server, schema: str, directory: Path) -> bytes:
    """All tables of a schema in one object, opened again by the public programs age and zstd."""
    identity = Identity.generate()
    key = directory / "data.key"
    key.write_text(identity.reveal() + "\n")
    with dump_worker(source.endpoint, identity.recipient) as worker:
        sealed, _ = dump_object(worker, [(table, rows.OPEN) for table in tables_of(source, schema).values()])
    opened = subprocess.run(["age", "-d", "-i", str(key)], input=sealed, stdout=subprocess.PIPE, timeout=300, check=True)
    return subprocess.run(["zstd", "-dc"], input=opened.stdout, stdout=subprocess.PIPE, timeout=300, check=True).stdout


def create_tables(source: Server, target: Server) -> None:
    target.execute(
        "CREATE DATABASE edge CHARACTER SET utf8mb4", "USE edge", "SET sql_mode=''",
        *(table.create_sql for table in tables_of(source, "edge").values()),
    )


@pytest.mark.parametrize("pair", ["mariadb_pair", "mysql97_pair"])
def test_every_value_comes_back(pair: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source, target = request.getfixturevalue(pair)
    widest = _WIDEST_TIME[flavour_of(source)]
    source.execute(
        *edge_tables.statements(flavour_of(source)),
        "CREATE TABLE extra (id int PRIMARY KEY, ti time(6), l varchar(300) CHARACTER SET latin1, z year, f float)",
        f"INSERT INTO extra VALUES (1,'{widest}',x'{_EVERY_BYTE}',0,1000.00006103515625e0), (2,'00:00:00.5','',1,-1e-45)",
    )
    create_tables(source, target)
    read = run_reader(dump_plain(source, "edge", tmp_path))
    assert (read.returncode, read.stderr) == (0, b"")
    loaded = run_client(target, read.stdout)
    assert (loaded.returncode, loaded.stderr) == (0, b"")
    expected, found = edge_tables.fingerprints(source.port), edge_tables.fingerprints(target.port)
    assert len(expected) > 60
    assert [name for name in expected if expected[name] != found.get(name)] == []


@pytest.fixture
def shop(mariadb: Server, tmp_path: Path) -> bytes:
    """The plaintext of one object with three small tables."""
    mariadb.execute(
        "CREATE DATABASE shop", "CREATE TABLE shop.orders (id int PRIMARY KEY, t varchar(100))",
        "INSERT INTO shop.orders SELECT seq, REPEAT('x', 90) FROM shop.seq_1_to_200",
        "CREATE TABLE shop.empty (id int PRIMARY KEY)",
        "CREATE TABLE shop.items (id int PRIMARY KEY, d double)", "INSERT INTO shop.items VALUES (1,-0e0),(2,NULL)",
    )
    return dump_plain(mariadb, "shop", tmp_path)


def test_list(shop: bytes) -> None:
    assert run_reader(shop, "list").stdout.decode().splitlines() == ["shop.empty 0", "shop.items 2", "shop.orders 200"]
    assert run_reader(shop, "list", "--table", "shop.items").stdout == b"shop.items 2\n"


def test_one_table_into_another_database(shop: bytes, mariadb: Server) -> None:
    mariadb.execute("CREATE DATABASE `co``py`", "CREATE TABLE `co``py`.items LIKE shop.items")
    read = run_reader(shop, "--table", "shop.items", "--into", "co`py")
    assert read.returncode == 0 and b"orders" not in read.stdout
    assert run_client(mariadb, read.stdout).returncode == 0
    with mariadb.connect() as connection:
        assert connection.rows("CHECKSUM TABLE `co``py`.items")[0][1] == connection.rows("CHECKSUM TABLE shop.items")[0][1]


def test_statements_keep_to_the_size_asked_for(shop: bytes) -> None:
    whole = run_reader(shop).stdout
    small = run_reader(shop, "sql", "--max-bytes", "1000").stdout
    statements = [statement for statement in small.split(b";\n") if statement.startswith(b"INSERT")]
    assert whole.count(b"INSERT") == 2 < len(statements)
    assert max(map(len, statements)) <= 1000
    assert small.count(b"_binary x'") == whole.count(b"_binary x'") == 200


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.999])
def test_input_that_ends_early_fails_here_and_in_the_client(shop: bytes, mariadb: Server, share: float) -> None:
    cut = shop[: int(len(shop) * share)]
    read = run_reader(cut)
    assert read.returncode == 1
    assert read.stderr.startswith(b"kpbackup reader: error: ") and b"Traceback" not in read.stderr
    mariadb.execute("DELETE FROM shop.orders", "DELETE FROM shop.items")
    loaded = run_client(mariadb, read.stdout)
    assert loaded.returncode != 0 and b"rows are missing" in loaded.stderr
    assert run_reader(cut, "list").returncode == 1


def test_input_that_is_something_else(shop: bytes) -> None:
    other_zone = shop.replace(b"+00:00", b"+01:00")
    for wrong in (b"age-encryption.org/v1\n", b"\x28\xb5\x2f\xfd zstd", shop + b"x", shop + shop[8:], other_zone):
        read = run_reader(wrong)
        assert read.returncode == 1 and b"Traceback" not in read.stderr, read.stderr
    assert b"decrypted and decompressed" in run_reader(b"age-encryption.org/v1\n").stderr


def test_no_flipped_byte_makes_it_crash(shop: bytes) -> None:
    refused = 0
    for position in range(0, len(shop), 13):
        damaged = bytearray(shop)
        damaged[position] ^= 0x55
        source = reader.Source(io.BytesIO(damaged))
        try:
            for chunk in reader.chunks(source):
                rows_found = reader.read_rows(source)
                for statement in reader.insert_statements(chunk, rows_found, schema=chunk.schema, max_bytes=1000):
                    assert statement.endswith(");\n")
        except reader.NotWhole:
            refused += 1
    assert refused > 10  # within a value every byte is as good as another; the inventory's hash judges those


def test_it_stops_when_nobody_reads(shop: bytes) -> None:
    many = shop * 200
    command = [sys.executable, "-I", "-S", str(READER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdout.close()
        try:
            process.stdin.write(many)
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has already gone, as it should
        assert b"stopped reading" in process.stderr.read()
    assert process.returncode == 1


def test_it_needs_nothing_but_an_old_python() -> None:
    source = READER.read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= set(sys.stdlib_module_names)
