"""'Restoring without kpbackup': the commands of docs/format.md, run exactly as they stand there."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pymysql
import pytest

from kpbackup import config
from kpbackup.plan import retention
from kpbackup.repository import catalog, compact, prune
from kpbackup.service import opening
from tests.servers.database import Server

ROOT = Path(__file__).parents[2]
TABLES = ("shop.orders", "shop.kinds", "shop.late")


def commands() -> str:
    """The script of the documentation."""
    text = (ROOT / "docs" / "format.md").read_text()
    section = text[text.index("\n## Restoring without kpbackup") :]
    found = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


def session(server: Server) -> pymysql.cursors.Cursor:
    return pymysql.connect(host="127.0.0.1", port=server.port, user="root", autocommit=True, charset="utf8mb4").cursor()


@pytest.fixture
def kpbackup(tmp_path: Path, mariadb_pair: tuple[Server, Server]) -> Callable[..., None]:
    settings = tmp_path / "kpbackup.yaml"
    keys = tmp_path / "keys"
    settings.write_text(f"""
source: {{host: 127.0.0.1, port: {mariadb_pair[0].port}, user: root}}
repository: {{url: "file://{tmp_path}/repository"}}
encryption: {{recipients_file: {keys}/recipients.txt}}
signing: {{key_file: {keys}/signing.key, public_keys_file: {keys}/signing.pub}}
""")

    def run(*words: str) -> None:
        program = [str(ROOT / ".venv" / "bin" / "kpbackup"), "--config", str(settings), *words]
        done = subprocess.run(program, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    run("init", "--keys", str(keys))
    return run


def write_before(source: pymysql.cursors.Cursor) -> None:
    source.execute("CREATE DATABASE shop")
    columns = "id INT AUTO_INCREMENT PRIMARY KEY, who VARCHAR(80), price FLOAT, note BLOB, KEY (who)"
    source.execute(f"CREATE TABLE shop.orders ({columns})")
    rows = [(f"管理员 {n}", n / 3, bytes(range(256))) for n in range(700)]
    source.executemany("INSERT INTO shop.orders (who, price, note) VALUES (%s, %s, %s)", rows)
    source.execute("CREATE TABLE shop.kinds (kind ENUM('', 'a;b', 'DELIMITER') NOT NULL, j JSON)")
    source.execute("""INSERT INTO shop.kinds VALUES ('a;b', '{"a": [1, "\\\\"", null]}'), ('', NULL)""")
    source.execute("CREATE VIEW shop.dear AS SELECT id, price FROM shop.orders WHERE price > 100")
    source.execute("CREATE TRIGGER shop.upper_who BEFORE INSERT ON shop.orders FOR EACH ROW SET NEW.who = UPPER(NEW.who)")
    source.execute("CREATE PROCEDURE shop.p() BEGIN DECLARE x INT; SET x = 1; /* kept; */ SELECT x; END")


def write_after(source: pymysql.cursors.Cursor) -> None:
    source.execute("INSERT INTO shop.orders (who, price) VALUES ('after the set', 1.1)")
    source.execute("FLUSH BINARY LOGS")
    source.execute("CREATE TABLE shop.late (x INT)")
    source.execute("INSERT INTO shop.late VALUES (1), (2)")


@pytest.mark.parametrize("form", ["small objects", "pages and joined objects"])
def test_the_documented_commands_bring_the_same_database_back(
    form: str, tmp_path: Path, mariadb_pair: tuple[Server, Server], kpbackup: Callable[..., None]
) -> None:
    source, target = map(session, mariadb_pair)
    write_before(source)
    kpbackup("backup", "full")
    write_after(source)
    kpbackup("backup", "incremental")
    checksums = {table: checksum(source, table) for table in TABLES}
    time.sleep(1.1)  # the source stamps whole seconds: what follows must be in a later one
    source.execute("SELECT UTC_TIMESTAMP()")
    row = source.fetchone()
    assert row is not None
    until = str(row[0])
    source.execute("DELETE FROM shop.orders")
    kpbackup("backup", "incremental")

    if form != "small objects":
        join_and_prune(tmp_path)
    copy = tmp_path / "copy"  # as the document says: the repository copied to a directory
    shutil.copytree(tmp_path / "repository", copy)
    target.execute("SET GLOBAL gtid_strict_mode = 0")  # as the document says
    done = by_hand(copy, tmp_path / "keys", mariadb_pair[1], UNTIL=until)
    assert done.returncode == 0, done.stderr
    assert {table: checksum(target, table) for table in TABLES} == checksums
    for what in ("VIEW shop.dear", "TRIGGER shop.upper_who", "PROCEDURE shop.p", "TABLE shop.orders"):
        assert definition(source, what) == definition(target, what)


def test_the_documented_commands_refuse_a_changed_object(
    tmp_path: Path, mariadb_pair: tuple[Server, Server], kpbackup: Callable[..., None]
) -> None:
    write_before(session(mariadb_pair[0]))
    kpbackup("backup", "full")
    (stored,) = (tmp_path / "repository" / "data").glob("*/*/000000")
    data = bytearray(stored.read_bytes())
    data[len(data) // 2] ^= 1
    stored.write_bytes(data)
    done = by_hand(tmp_path / "repository", tmp_path / "keys", mariadb_pair[1])
    assert done.returncode != 0
    assert "FAILED" in done.stdout + done.stderr
    target = session(mariadb_pair[1])
    assert target.execute("SHOW DATABASES LIKE 'shop'") == 0


def join_and_prune(directory: Path) -> None:
    """Days later: the small objects are gone but for the newest."""
    opened = opening.writing_repository(config.load(directory / "kpbackup.yaml", {}))
    repository = dataclasses.replace(opened, page_rows=2)
    later = datetime.now(UTC) + timedelta(days=2)
    assert compact.run(repository, "0001", later).objects
    prune.execute(repository, catalog.read_catalog(repository), retention.NOTHING, retention.Policy(), later + timedelta(days=2))
    assert len(list((directory / "repository" / "timelines" / "0001" / "segments").glob("*/*"))) == 1


def by_hand(repository: Path, keys: Path, target: Server, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs the documented commands in a copy of a repository."""
    environment = {
        **os.environ, "IDENTITY": str(keys / "identity.txt"), "PUBLIC_KEY": str(keys / "signing.pub"),
        "SQL": f"mariadb --no-defaults -h127.0.0.1 -P{target.port} -uroot", **more,
    }
    script = ["bash", "-c", commands()]
    return subprocess.run(script, cwd=repository, env=environment, capture_output=True, text=True, check=False)


def checksum(cursor: pymysql.cursors.Cursor, table: str) -> object:
    cursor.execute(f"CHECKSUM TABLE {table}")
    return cursor.fetchone()


def definition(cursor: pymysql.cursors.Cursor, what: str) -> object:
    cursor.execute(f"SHOW CREATE {what}")
    row = cursor.fetchone()
    assert row is not None
    return row[:4] if "TRIGGER" in what else row
