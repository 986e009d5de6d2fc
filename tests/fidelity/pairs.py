"""Two servers of one kind for the fidelity suite, with all their engines and login plugins, and a scene played on one of them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql

from tests.fidelity import judge
from tests.fidelity.scenes import Kind
from tests.servers import mariadb118, plugins
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.mysql97 import mysql97_server

COMMON = ("--max-allowed-packet=134217728", "--event-scheduler=OFF", "--log-bin-trust-function-creators=ON")
_ROOM_BYTES = 4 << 30
_PLUGINS = ("auth_ed25519", "ha_archive", "ha_blackhole")


def options(kind: Kind) -> list[str]:
    """What the scenes need of a server, source and target alike."""
    if not kind.mariadb:
        return [*COMMON, "--plugin-load-add=auth_socket.so", "--partial-revokes=ON"]
    if kind.name == "mariadb":
        return [*COMMON, *plugins.options(plugins.installed_mariadb(), _PLUGINS)]
    return [*COMMON, *plugins.options(mariadb118.plugins(), (*_PLUGINS, "auth_parsec"))]


@contextmanager
def memory() -> Iterator[Path]:
    """A folder for servers and repositories, in memory where there is room: nothing here tries what a disk does."""
    shm = Path("/dev/shm")
    roomy = shm.is_dir() and os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > _ROOM_BYTES
    with tempfile.TemporaryDirectory(prefix="kpb-", dir=shm if roomy else None, ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextmanager
def server(kind: Kind, directory: Path, *, server_id: int, more: Iterable[str] = ()) -> Iterator[Server]:
    """A fresh server of the kind."""
    starts = {"mariadb": mariadb_server, "mariadb118": mariadb118.mariadb118_server, "mysql97": mysql97_server}
    with starts[kind.name](directory, server_id=server_id, options=[*options(kind), *more]) as running:
        yield running


def play(running: Server, statements: Iterable[str]) -> None:
    """Runs the statements in one session of root as the scenes expect it; each of them must succeed."""
    with (
        pymysql.connect(
            host=running.host, port=running.port, user="root", charset="utf8mb4", autocommit=True, max_allowed_packet=1 << 30
        ) as connection,
        connection.cursor() as cursor,
    ):
        connection.encoding = judge.LOSSLESS  # bytes that are no text too
        cursor.execute("SET time_zone = '+00:00', sql_mode = ''")
        for statement in statements:
            try:
                cursor.execute(statement)
            except pymysql.MySQLError as exc:
                raise AssertionError(f"{exc}: {statement[:500]}") from exc
