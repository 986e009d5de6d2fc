"""The command lines that compete, kpbackup's first.

Each does its whole job as a user would run it; where a peer has no such thing, it is not asked for it (mydumper does not
encrypt, no peer reads back what it loaded). Like is compared with like: files with files, and what goes to S3 goes through
the same uploader. Nobody writes the restore to the target's binlog.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measure import BenchFailed, Programs
from bench.stage import BUCKET, FILES, KPBACKUP, STORE, Stage
from demo import data
from tests.servers import database, mariadb

THREADS = 4
CHUNK_ROWS = 500_000  # mydumper reads a table with one thread otherwise
Build = Callable[[Stage, database.Server], Programs]


@dataclass(frozen=True)
class Variant:
    """`goal`: how many times as fast as this one kpbackup is to be; None where nothing was promised."""

    name: str
    label: str
    build: Build
    programs: tuple[str, ...] = ()
    goal: float | None = None


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


def _sealing_dump(stage: Stage, level: int) -> list[list[str]]:
    return [_dump(stage), ["zstd", "-q", f"-{level}", "-T0"], ["age", "-r", stage.recipient]]


def _piped_dump(level: int) -> Build:
    def build(stage: Stage, _: database.Server) -> Programs:
        return Programs(_sealing_dump(stage, level), sink=dump_file(stage, level))

    return build


def _kpbackup_backup(repository: str) -> Build:
    def build(stage: Stage, _: database.Server) -> Programs:
        settings = stage.directory / repository / "backup.yaml"
        return Programs([[KPBACKUP, "--config", str(settings), "backup", "full", "--json"]], sink=answer(stage))

    return build


def mydumper_folder(stage: Stage, *, compress: bool) -> Path:
    return stage.directory / ("mydumper" if compress else "mydumper-plain")


def _mydumper_argv(stage: Stage, *, compress: bool) -> list[str]:
    output = mydumper_folder(stage, compress=compress)
    shutil.rmtree(output, ignore_errors=True)
    return [
        "mydumper", "-h", "127.0.0.1", "-P", str(stage.source.port), "-u", "root", "-B", data.DATABASE, "-G", "-E", "-R",
        "-t", str(THREADS), "-r", str(CHUNK_ROWS), *(["--compress"] if compress else []), "-o", str(output), "-v", "1",
    ]


def _mydumper(*, compress: bool) -> Build:
    return lambda stage, _: Programs([_mydumper_argv(stage, compress=compress)])


def _uploader(stage: Stage, key: str) -> list[str]:
    return [sys.executable, "-m", "bench.upload", f"s3://{BUCKET}/peers", stage.store.endpoint_url, key]


def _piped_upload(level: int) -> Build:
    def build(stage: Stage, _: database.Server) -> Programs:
        return Programs([*_sealing_dump(stage, level), _uploader(stage, f"dump-{level}")])

    return build


def _mydumper_upload(stage: Stage, _: database.Server) -> Programs:
    made = shlex.join(_mydumper_argv(stage, compress=True))
    folder = shlex.quote(str(mydumper_folder(stage, compress=True)))
    return Programs([["sh", "-c", f"{made} && {shlex.join(_uploader(stage, 'mydumper'))} {folder}/*"]])


def _scan(stage: Stage, _: database.Server) -> Programs:
    return Programs([[sys.executable, "-m", "bench.scan", str(stage.source.port), data.DATABASE]])


def _kpbackup_restore(repository: str) -> Build:
    def build(stage: Stage, target: database.Server) -> Programs:
        settings = stage.restore_settings(repository, target)
        argv = [KPBACKUP, "--config", str(settings), "restore", "database", "--to", "latest", "--yes", "--json"]
        return Programs([argv], sink=answer(stage))

    return build


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


_DUMP = ("mariadb-dump", "zstd", "age")
BACKUPS = (
    Variant("kpbackup", "`kpbackup backup full`", _kpbackup_backup(FILES)),
    Variant("dump-zstd1", "`mariadb-dump \\| zstd -1 -T0 \\| age`", _piped_dump(1), _DUMP, goal=2.5),
    Variant("dump-zstd3", "`mariadb-dump \\| zstd -3 -T0 \\| age`", _piped_dump(3), _DUMP, goal=2.5),
    Variant(
        "mydumper", f"`mydumper --compress -t {THREADS}`, not encrypted", _mydumper(compress=True), ("mydumper",), goal=2.0
    ),
    Variant(
        "mydumper-plain", f"`mydumper -t {THREADS}`, neither compressed nor encrypted", _mydumper(compress=False), ("mydumper",),
        goal=1.3,
    ),
    Variant("scan", "one prepared `SELECT` of all rows, discarded", _scan),
)
UPLOADS = (
    Variant("kpbackup", "`kpbackup backup full`", _kpbackup_backup(STORE)),
    Variant("dump-zstd1", "`mariadb-dump \\| zstd -1 -T0 \\| age \\| upload`", _piped_upload(1), _DUMP, goal=2.5),
    Variant("dump-zstd3", "`mariadb-dump \\| zstd -3 -T0 \\| age \\| upload`", _piped_upload(3), _DUMP, goal=2.5),
    Variant(
        "mydumper", f"`mydumper --compress -t {THREADS}`, then upload, not encrypted", _mydumper_upload, ("mydumper",), goal=2.0
    ),
)
RESTORES = (
    Variant("kpbackup", "`kpbackup restore database`, read back and compared", _kpbackup_restore(FILES)),
    Variant("zstd-mariadb", "`zstd -d \\| mariadb`", _plain_load, ("mariadb", "zstd"), goal=3.5),
    Variant("age-zstd-mariadb", "`age -d \\| zstd -d \\| mariadb`", _sealed_load, ("mariadb", "zstd", "age"), goal=3.5),
    Variant("myloader", f"`myloader -t {THREADS}`, not encrypted", _myloader, ("myloader",), goal=1.7),
)

RESTORE_FROM_S3 = Variant("kpbackup", "`kpbackup restore database` from S3", _kpbackup_restore(STORE))


def answer(stage: Stage) -> Path:
    """Where kpbackup's JSON answer goes."""
    return stage.directory / "answer.json"


def read_back_share(stage: Stage) -> float:
    """Of kpbackup's last restore: the workers' time for reading back over that for loading and indexes."""
    details = json.loads(answer(stage).read_text())["details"]
    return float(details["read_back_busy_s"]) / (float(details["load_busy_s"]) + float(details["index_busy_s"]))


def output_bytes(variant: Variant, stage: Stage) -> int:
    """What a backup variant stored."""
    if variant.name == "kpbackup":
        return int(json.loads(answer(stage).read_text())["stored_bytes"])
    if variant.name.startswith("mydumper"):
        folder = mydumper_folder(stage, compress=variant.name == "mydumper")
        return sum(path.stat().st_size for path in folder.iterdir())
    if variant.name == "scan":
        return 0
    return dump_file(stage, int(variant.name[-1])).stat().st_size


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
