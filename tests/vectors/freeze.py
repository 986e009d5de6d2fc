"""Makes the frozen repository of format 1 in `tests/vectors/format/repository-1`, once: a vector is never made again.

    python -m tests.vectors.freeze

It stands for the repositories that users have: whatever a later version changes, it must list, check and restore this one.
`expected.json` holds what was in the source, asked by plain SQL. The keys in it open nothing else.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from tests.integration.scenario import Scene, rows
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server

HOME = Path(__file__).parent / "format" / "repository-1"
QUERIES = (
    "SELECT id, name, HEX(photo), price, made, note FROM shop.goods ORDER BY id",
    "SELECT id, goods_id, amount, at FROM shop.orders ORDER BY id",
    "SELECT * FROM shop.totals ORDER BY 1",
)


def content(server: Server) -> dict[str, list[list[str | None]]]:
    """What the queries answer, as text."""
    return {sql: [[None if value is None else str(value) for value in row] for row in rows(server, sql)] for sql in QUERIES}


def fill(server: Server) -> None:
    server.execute(
        "CREATE DATABASE shop CHARACTER SET utf8mb4",
        "CREATE TABLE shop.goods (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(100) NOT NULL, photo BLOB, price DECIMAL(10,2),"
        " made DATETIME(6), note TEXT, INDEX by_name (name))",
        "CREATE TABLE shop.orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, goods_id INT NOT NULL, amount INT NOT NULL,"
        " at TIMESTAMP NOT NULL DEFAULT '2026-01-01 00:00:00', FOREIGN KEY (goods_id) REFERENCES shop.goods (id))",
        "CREATE VIEW shop.totals AS SELECT goods_id, SUM(amount) AS amount FROM shop.orders GROUP BY goods_id",
        "INSERT INTO shop.goods (name, photo, price, made, note) VALUES"
        " ('Grüße', X'00FF10', 12.34, '2024-02-29 23:59:59.999999', NULL), ('茶', NULL, -0.01, NULL, 'two\\nlines')",
        "INSERT INTO shop.orders (goods_id, amount) SELECT 1 + seq % 2, seq FROM shop.seq_1_to_50",
    )


def freeze(directory: Path) -> None:
    with (
        mariadb_server(directory / "source", server_id=11) as source,
        mariadb_server(directory / "target", server_id=12) as target,
    ):
        scene = Scene(directory / "scene", source=source, target=target)
        scene.settings["source"]["name"] = "vector"
        scene.ok("init", "--keys", str(scene.keys))
        fill(source)
        scene.ok("backup", "full")
        for note in ("first", "second"):
            source.execute(f"INSERT INTO shop.goods (name) VALUES ('{note}')")
            scene.ok("backup", "incremental")
        scene.ok("backup", "incremental")  # nothing new: an observation
        middle = content(source)
        scene.ok("pin", "0001-1", "--reason", "a vector")
        scene.ok("keys", "canary")
        scene.ok("keys", "canary", "--check")
        source.execute("RESET MASTER", "DELETE FROM shop.orders WHERE amount > 40")
        scene.ok("backup", "full")  # timeline 0002
        source.execute("UPDATE shop.goods SET note = 'after' WHERE id = 2")
        scene.ok("backup", "incremental")
        scene.restore("--to", "latest")  # leaves a journal
        end = content(source)
        shutil.copytree(scene.repository, HOME / "repository", ignore=shutil.ignore_patterns("leases", "probes", ".kpbackup-tmp"))
        shutil.copytree(scene.keys, HOME / "keys")
        (HOME / "expected.json").write_text(json.dumps({"0001": middle, "0002": end}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    if HOME.exists():
        sys.exit(f"{HOME} is there: a vector is never made again")
    with tempfile.TemporaryDirectory(prefix="freeze-") as scratch:
        freeze(Path(scratch))
