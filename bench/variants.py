"""The command lines that compete, kpbackup's first.

Each does its whole job as a user would run it; where a peer has no such thing, it is not asked for it (mydumper does not
encrypt, neither it nor mariadb-dump stores to S3 or reads back what it loaded). Nobody writes the restore to the target's binlog.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measure import BenchFailed, Programs
from bench.stage import KPBACKUP, Stage
from demo import data
from tests.servers import database, mariadb

REPOSITORY = "kpbackup"
THREADS = 4
CHUNK_ROWS = 500_000  # mydumper reads a table with one thread otherwise
Build = Callable[[Stage, database.Server], Programs]


@dataclass(frozen=True)
class Variant:
    """`is_goal` marks what the goal is measured against: `mariadb-dump | zstd | age` at zstd's own level, 3, and its restore."""

    name: str
    label: str
    build: Build
    programs: tuple[str, ...] = ()
    is_goal: bool = False


def _dump(stage: Stage) -> list[str]:
    return [
        mariadb.find("mariadb-dump"), "--no-defaults", "-h127.0.0.1", f"-P{stage.source.port}", "-uroot", "--single-transaction",
        "--routines", "--triggers", "--events", "--max-allowed-packet=64M", "--default-character-set=utf8mb4",
        "--databases", data.DATABASE,
    ]


def _client(target: database.Server) -> list[str]:
    return [
        mariadb.find("mariadb"), "--no-defaults", "-h127.0.0.1", f"-P{target.port}", "-uroot", "--max-allowed-packet=64M",
        "--default-character-set=utf8mb4", "--init-command=SET SESSION sql_log_bin=0",
    ]


def dump_file(stage: Stage, level: int, *, sealed: bool = True) -> Path:
    return stage.directory / f"dump-{level}.sql.zst{'.age' if sealed else ''}"


def _piped_dump(level: int) -> Build:
    def build(stage: Stage, _: database.Server) -> Programs:
        argvs = [_dump(stage), ["zstd", "-q", f"-{level}", "-T0"], ["age", "-r", stage.recipient]]
        return Programs(argvs, sink=dump_file(stage, level))

    return build


def _kpbackup_backup(stage: Stage, _: database.Server) -> Programs:
    settings = stage.directory / REPOSITORY / "backup.yaml"
    return Programs([[KPBACKUP, "--config", str(settings), "backup", "full", "--json"]], sink=answer(stage))


def _mydumper(stage: Stage, _: database.Server) -> Programs:
    output = stage.directory / "mydumper"
    shutil.rmtree(output, ignore_errors=True)
    return Programs([[
        "mydumper", "-h", "127.0.0.1", "-P", str(stage.source.port), "-u", "root", "-B", data.DATABASE, "-G", "-E", "-R",
        "-t", str(THREADS), "-r", str(CHUNK_ROWS), "--compress", "-o", str(output), "-v", "1",
    ]])


def _kpbackup_restore(stage: Stage, target: database.Server) -> Programs:
    settings = stage.restore_settings(REPOSITORY, target)
    argv = [KPBACKUP, "--config", str(settings), "restore", "database", "--to", "latest", "--yes", "--json"]
    return Programs([argv], sink=answer(stage))


def _plain_load(stage: Stage, target: database.Server) -> Programs:
    return Programs([["zstd", "-dqc"], _client(target)], source=dump_file(stage, 3, sealed=False))


def _sealed_load(stage: Stage, target: database.Server) -> Programs:
    argvs = [["age", "-d", "-i", str(stage.identity)], ["zstd", "-dqc"], _client(target)]
    return Programs(argvs, source=dump_file(stage, 3))


def _myloader(stage: Stage, target: database.Server) -> Programs:
    return Programs([[
        "myloader", "-h", "127.0.0.1", "-P", str(target.port), "-u", "root", "-d", str(stage.directory / "mydumper"),
        "-t", str(THREADS), "-v", "1",
    ]])


BACKUPS = (
    Variant("kpbackup", "`kpbackup backup full` to S3", _kpbackup_backup),
    Variant(
        "dump-zstd3", "`mariadb-dump \\| zstd -3 -T0 \\| age` to a file", _piped_dump(3), ("mariadb-dump", "zstd", "age"),
        is_goal=True,
    ),
    Variant(
        "dump-zstd1", "`mariadb-dump \\| zstd -1 -T0 \\| age` to a file", _piped_dump(1), ("mariadb-dump", "zstd", "age"),
    ),
    Variant("mydumper", f"`mydumper --compress -t {THREADS}` to files, not encrypted", _mydumper, ("mydumper",)),
)
RESTORES = (
    Variant("kpbackup", "`kpbackup restore database`, read back and compared", _kpbackup_restore),
    Variant("zstd-mariadb", "`zstd -d \\| mariadb`", _plain_load, ("mariadb", "zstd"), is_goal=True),
    Variant("age-zstd-mariadb", "`age -d \\| zstd -d \\| mariadb`", _sealed_load, ("mariadb", "zstd", "age")),
    Variant("myloader", f"`myloader -t {THREADS}`, not encrypted", _myloader, ("myloader",)),
)


def answer(stage: Stage) -> Path:
    """Where kpbackup's JSON answer goes."""
    return stage.directory / "answer.json"


def output_bytes(variant: Variant, stage: Stage) -> int:
    """What a backup variant stored."""
    if variant.name == "kpbackup":
        return int(json.loads(answer(stage).read_text())["stored_bytes"])
    if variant.name == "mydumper":
        return sum(path.stat().st_size for path in (stage.directory / "mydumper").iterdir())
    return dump_file(stage, 3 if variant.name == "dump-zstd3" else 1).stat().st_size


def installed(variants: Sequence[Variant], without: Sequence[str]) -> list[Variant]:
    """Those to run.

    Raises:
        BenchFailed: a program is missing and was not left out by name.
    """
    kept = [variant for variant in variants if variant.name not in without]
    for variant in kept:
        for program in variant.programs:
            if shutil.which(program) is None:
                raise BenchFailed(
                    f"{program} is not installed: run `make setup-bench`, or leave it out with --without {variant.name}"
                )
    return kept
