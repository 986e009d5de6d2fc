"""Large tables whose keys are no even integers: a backup cuts them evenly, and a restore brings every row back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kpbackup import config
from kpbackup.backup.full import run_full
from kpbackup.model import manifest
from kpbackup.mysql import cutting
from kpbackup.recovery import loading
from kpbackup.repository import keys
from kpbackup.service import opening
from tests.integration import scenario
from tests.integration.scenario import Scene
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.mysql97 import mysql97_server

ROWS = 2000
CHUNK = cutting.Size(rows=300, bytes=1 << 20)
_DIGITS = "(SELECT 0 n UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5" \
          " UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)"
_NUMBERS = "SELECT a.n + 10*b.n + 100*c.n + 1000*d.n AS i FROM " + ", ".join(
    f"{_DIGITS} {name}" for name in "abc") + ", (SELECT 0 n UNION ALL SELECT 1) d"
# a count in the background, begun before the last rows, could be noted after that of ANALYZE: hence STATS_AUTO_RECALC=0
TABLES = (
    "CREATE DATABASE big", "USE big",
    "CREATE TABLE named (region VARCHAR(20) COLLATE utf8mb4_unicode_ci, day DATE, no DECIMAL(12,2), v VARCHAR(40) CHARACTER SET"
    " latin1, PRIMARY KEY (region, day, no), KEY (day)) STATS_AUTO_RECALC=0",
    "INSERT INTO named SELECT CONCAT(ELT(1 + i MOD 3, 'Ärzte', 'zug', 'Zürich'), i MOD 7), '2024-01-01' + INTERVAL i MOD 50 DAY,"
    f" i / 100, REPEAT(CHAR(65 + i MOD 26), 40) FROM ({_NUMBERS}) q",
    "CREATE TABLE outlier (id BIGINT PRIMARY KEY, v VARCHAR(40) CHARACTER SET latin1) STATS_AUTO_RECALC=0",
    f"INSERT INTO outlier SELECT i, REPEAT('x', 40) FROM ({_NUMBERS}) q",
    "INSERT INTO outlier VALUES (9223372036854775807, '')",
    "CREATE TABLE locked (k BINARY(16) PRIMARY KEY, v LONGBLOB) ENGINE=MyISAM",
    f"INSERT INTO locked SELECT UNHEX(LEFT(SHA2(i, 256), 32)), REPEAT('y', 4000) FROM ({_NUMBERS}) q",
    "ANALYZE TABLE named, outlier, locked",
)  # fmt: skip


@pytest.mark.parametrize("flavour", ["mariadb", "mysql"])
def test_keys_of_every_kind_are_cut_and_come_back(
    flavour: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if flavour == "mysql":
        request.getfixturevalue("mysql97_programs")
    start = mariadb_server if flavour == "mariadb" else mysql97_server
    with start(tmp_path / "source", server_id=61) as source, start(
        tmp_path / "target", server_id=62, options=("--event-scheduler=OFF",)
    ) as target:
        source.execute("SET sql_mode=''", *TABLES)
        scene = Scene(tmp_path / "scene", source=source, target=target)
        scene.ok("init", "--keys", str(scene.keys))
        assert_cut_evenly(scene, full_backup(scene))
        scene.restore("--to", "latest")
        assert scenario.truth(target) == scenario.truth(source)
        assert_same(source, target)


def settings_of(scene: Scene) -> config.Settings:
    return config.load(scene.argv()[4], {})


def full_backup(scene: Scene) -> manifest.BackupSet:
    settings = settings_of(scene)
    request = replace(opening.full_request(settings, holder="test"), chunk=CHUNK)
    made = run_full(opening.writing_repository(settings), request)
    assert made.totals.rows == 3 * ROWS + 1
    return made


def assert_cut_evenly(scene: Scene, made: manifest.BackupSet) -> None:
    settings = settings_of(scene)
    repository = opening.reading_repository(settings)
    data_key = keys.open_data_key(repository, made.sealing, opening.identities(settings))
    chunks = loading.read_inventory(repository, made, data_key).chunks
    for table in ("named", "outlier", "locked"):
        sizes = [chunk.rows for chunk in chunks if chunk.table == table]
        assert len(sizes) > 6 and max(sizes) <= CHUNK.rows + 1, (table, sizes)
    assert len({chunk.object_key for chunk in chunks}) == len(chunks)


def assert_same(source: Server, target: Server) -> None:
    """By a sum of hashes that does not depend on any order or collation."""
    texts = {"named": "CONCAT_WS('|', region, day, no, v)", "outlier": "CONCAT_WS('|', id, v)", "locked": "CONCAT(HEX(k), v)"}
    for table, text in texts.items():
        sql = f"SELECT COUNT(*), SUM(CRC32({text})), BIT_XOR(CRC32({text})) FROM big.{table}"
        assert scenario.rows(source, sql) == scenario.rows(target, sql)
