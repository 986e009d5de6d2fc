"""What the bench plays on: one source with its data, one S3 server, a fresh target for each restore, kpbackup's settings.

Both database servers get the same options. A target is a new server on a new data directory, so no restore profits from the one
before. Loading the data and making keys are not measured.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pymysql

from bench import shapes
from bench.measure import BenchFailed
from demo import data, objects
from tests.servers import database, mariadb, s3

SEED = 42  # of demo.data.Generator
BUCKET = "bench"
STORE, FILES = "in-s3", "in-files"  # kpbackup's two repositories
SERVER_OPTIONS = (
    "--innodb-buffer-pool-size=2G",  # the data fits, as on a server of its own
    "--innodb-log-file-size=1G",
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-doublewrite=0",
    "--innodb-flush-method=O_DIRECT",  # the server's own default; the tests' servers skip fsync
    "--max-allowed-packet=64M",
)
MEDIUM_MB = 1600
BIG_TABLE_SHARE = 0.05  # of all bytes: such tables are copied for the memory run at twice the data
KPBACKUP = str(Path(sys.executable).with_name("kpbackup"))


def chosen_size(name: str, rows_mb: int | None) -> data.Size:
    """A named size, or the medium one with its log tables cut or grown to about `rows_mb` megabytes in all."""
    if rows_mb is None:
        return data.SIZES[name]
    medium = data.SIZES["medium"]
    share = rows_mb / MEDIUM_MB
    return replace(
        medium, log_copies=max(1, round(medium.log_copies * share)), command_copies=max(1, round(medium.command_copies * share))
    )


class Stage:
    """The running servers and the directory everything lies in."""

    def __init__(self, directory: Path, source: database.Server, store: s3.S3Server) -> None:
        self.directory = directory
        self.source = source
        self.store = store
        self.environ = {"PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin", "HOME": str(directory), "LC_ALL": "C.UTF-8"}
        self.kpbackup_environ = self.environ | store.environ()
        self.identity, self.recipient = _age_key(directory)
        self._targets = itertools.count(1)
        self._store_bucket = store.create_bucket(BUCKET)

    def load(self, size: data.Size) -> None:
        """Fills the source."""
        with self.session(self.source) as connection:
            data.load(connection, size)
            objects.create(connection)
            shapes.load(connection, size.log_copies / data.SIZES["medium"].log_copies)
            with connection.cursor() as cursor:
                for table in self.tables(self.source):
                    cursor.execute(f"ANALYZE TABLE `{data.DATABASE}`.`{table}`")

    def double(self) -> list[str]:
        """Copies the big tables within the database; their names."""
        rows = self.tables(self.source)
        limit = sum(size for _, size in rows.values()) * BIG_TABLE_SHARE
        big = [name for name, (_, size) in rows.items() if size > limit]
        with self.session(self.source) as connection, connection.cursor() as cursor:
            cursor.execute("SET SESSION sql_log_bin = 0, SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO'")
            cursor.execute(f"USE `{data.DATABASE}`")
            for name in big:
                cursor.execute(f"CREATE TABLE `{name}_again` LIKE `{name}`")
                cursor.execute(f"INSERT INTO `{name}_again` SELECT * FROM `{name}`")
                cursor.execute(f"ANALYZE TABLE `{name}_again`")
        return big

    def tables(self, server: database.Server) -> dict[str, tuple[int, int]]:
        """Base tables: estimated rows, bytes of data and indexes."""
        with self.session(server) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT table_name, table_rows, data_length + index_length FROM information_schema.tables"
                " WHERE table_schema = %s AND table_type = 'BASE TABLE' ORDER BY table_name", (data.DATABASE,),
            )
            return {str(name): (int(rows or 0), int(size or 0)) for name, rows, size in cursor.fetchall()}

    def fingerprint(self, server: database.Server) -> dict[str, str]:
        """What a restore must bring back: a checksum of every table, and how many objects of each kind there are."""
        found = {}
        with self.session(server) as connection, connection.cursor() as cursor:
            cursor.execute("SET NAMES utf8mb4")
            for table in self.tables(server):
                cursor.execute(_checksum(cursor, table))
                found[table] = str((cursor.fetchone() or ("",))[-1])
            for kind, column in _OBJECTS.items():
                cursor.execute(f"SELECT COUNT(*) FROM information_schema.{kind} WHERE {column} = %s", (data.DATABASE,))
                found[f"{kind} (count)"] = str((cursor.fetchone() or ("",))[0])
        return found

    @contextlib.contextmanager
    def target(self) -> Iterator[database.Server]:
        """An empty server; its directory is removed at the end."""
        number = next(self._targets)
        directory = self.directory / f"target-{number}"
        try:
            with mariadb.mariadb_server(directory, server_id=1000 + number, options=SERVER_OPTIONS) as server:
                yield server
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    @contextlib.contextmanager
    def session(self, server: database.Server) -> Iterator[pymysql.Connection[pymysql.cursors.Cursor]]:
        """A session of root for the bench's own questions."""
        connection = pymysql.connect(unix_socket=str(server.socket), user="root", autocommit=True, charset="utf8mb4")
        with connection:
            yield connection

    def new_repository(self, name: str) -> Path:
        """The repository STORE or FILES, with keys of its own; the settings file of the machine that makes backups."""
        directory = self.directory / name
        directory.mkdir()
        settings = directory / "backup.yaml"
        settings.write_text(self._settings(name, self.source, group="source"))
        argv = [KPBACKUP, "--config", str(settings), "init", "--keys", str(directory / "keys"), "--json"]
        made = subprocess.run(argv, env=self.kpbackup_environ, cwd=directory, capture_output=True, text=True)
        if made.returncode:
            raise BenchFailed(f"kpbackup init failed: {made.stderr}")
        keys = json.loads(made.stdout)
        (directory / "keys.json").write_text(made.stdout)
        settings.write_text(
            self._settings(name, self.source, group="source")
            + f"encryption: {{recipients: [{keys['recipient']}]}}\n"
            + f"signing: {{key_file: '{keys['signing_key_file']}', public_keys: [{keys['public_key']}]}}\n"
        )
        return settings

    def restore_settings(self, name: str, target: database.Server) -> Path:
        """The settings file of the machine that restores into `target`."""
        keys = json.loads((self.directory / name / "keys.json").read_text())
        settings = self.directory / name / "restore.yaml"
        settings.write_text(
            self._settings(name, target, group="target")
            + f"encryption: {{identity_file: '{keys['identity_file']}'}}\nsigning: {{public_keys: [{keys['public_key']}]}}\n"
        )
        return settings

    def _settings(self, name: str, server: database.Server, *, group: str) -> str:
        login = f"{{host: {server.host}, port: {server.port}, user: root}}"
        where = f"source: {login}\n" if group == "source" else f"recovery: {{target: {login}}}\n"
        if name == FILES:
            return where + f"repository: {{url: 'file://{self.directory / name / 'repository'}'}}\n"
        return where + f"repository: {{url: 's3://{BUCKET}/{name}', endpoint_url: '{self.store.endpoint_url}'}}\n"


def _checksum(cursor: pymysql.cursors.Cursor, table: str) -> str:
    """A statement whose last column tells the content of a table.

    CHECKSUM TABLE looks at every bit, but changes from call to call where a generated column is stored (MariaDB 10.11).
    """
    cursor.execute(
        "SELECT column_name, generation_expression FROM information_schema.columns WHERE table_schema = %s AND table_name = %s",
        (data.DATABASE, table),
    )
    columns = cursor.fetchall()
    if not any(expression for _, expression in columns):
        return f"CHECKSUM TABLE `{data.DATABASE}`.`{table}`"
    texts = ", ".join(f"QUOTE(`{name}`)" for name, _ in columns)
    return f"SELECT CONCAT(COUNT(*), '/', SUM(CRC32(CONCAT_WS(',', {texts})))) FROM `{data.DATABASE}`.`{table}`"


_OBJECTS = {
    "statistics": "table_schema", "views": "table_schema", "triggers": "trigger_schema", "routines": "routine_schema",
    "events": "event_schema", "referential_constraints": "constraint_schema",
}


@contextlib.contextmanager
def open_stage(directory: Path) -> Iterator[Stage]:
    """Source and store up."""
    with mariadb.mariadb_server(directory / "source", server_id=1, options=SERVER_OPTIONS) as source, \
            s3.s3_server(directory / "store") as store:
        yield Stage(directory, source, store)


def _age_key(directory: Path) -> tuple[Path, str]:
    """The peers' own age identity and its recipient."""
    path = directory / "peer-identity.txt"
    subprocess.run(["age-keygen", "-o", str(path)], check=True, capture_output=True)
    recipient = subprocess.run(["age-keygen", "-y", str(path)], check=True, capture_output=True, text=True).stdout.strip()
    return path, recipient
