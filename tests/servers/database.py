"""What a MariaDB and a MySQL server have in common: a data directory, a port, a root without password.

`restart()` keeps port and data; `kill()` is kill -9. The data directory is `directory/data`, the log `directory/server.log`.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pymysql

from kpbackup.mysql import server
from tests.servers import exercised, ports
from tests.servers.process import ServerFailed, ServerProcess

PURGE_TIMEOUT_S = 120.0
START_ATTEMPTS = 3  # a port can be taken between looking and listening

CommandLine = Callable[["Paths", int], list[str]]


class Paths:
    """Where one server keeps its things.

    The socket lies in a short directory, because its path may have 107 bytes; so do temporary tables, because MariaDB names
    them by process number alone, and containers that share /tmp have the same numbers.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.log = directory / "server.log"
        self.short = Path(tempfile.mkdtemp(prefix="kpb-", dir="/tmp"))
        self.socket = self.short / "socket"

    def options(self, port: int) -> list[str]:
        """The options that say where a server keeps its things and listens."""
        return [
            f"--datadir={self.data}", f"--socket={self.socket}", f"--pid-file={self.short}/pid", f"--tmpdir={self.short}",
            f"--port={port}", "--bind-address=127.0.0.1",
        ]


class Server:
    """A running database server.

    `command_line(paths, port)` gives the argument vector without the options of the caller; those come last and win.
    """

    def __init__(self, product: str, paths: Paths, *, command_line: CommandLine, server_id: int, options: Sequence[str],
                 environ: Mapping[str, str] | None = None) -> None:
        self.product = product
        self.paths = paths
        self.server_id = server_id
        self.options = tuple(options)
        self._environ = environ
        self.host = "127.0.0.1"
        self.port = 0
        self.version = ""
        self._command_line = command_line
        self._process: ServerProcess | None = None

    @property
    def endpoint(self) -> server.Endpoint:
        """root, no password, over TCP."""
        return server.Endpoint(host=self.host, port=self.port)

    @property
    def socket(self) -> Path:
        return self.paths.socket

    @property
    def data_directory(self) -> Path:
        return self.paths.data

    @property
    def pid(self) -> int:
        return self._started().pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.is_running

    def connect(self, *, database: str | None = None) -> server.Connection:
        """A session of root."""
        return server.connect(self.endpoint, database=database)

    def execute(self, *statements: str, database: str | None = None) -> None:
        """Runs statements as root, autocommitted, in one session."""
        with self.connect(database=database) as connection:
            for statement in statements:
                connection.execute(statement)

    def purge_binlogs(self, *, before: str) -> None:
        """PURGE BINARY LOGS TO `before`, until they are gone: MariaDB keeps a file, with a warning alone, while recovery from
        a crash would still need it or a dump thread that has lost its reader still holds it.

        Raises:
            ServerFailed: they are still there after PURGE_TIMEOUT_S.
        """
        deadline = time.monotonic() + PURGE_TIMEOUT_S
        with self.connect() as connection:
            while connection.rows("SHOW BINARY LOGS")[0][0] != before:
                if time.monotonic() > deadline:
                    raise ServerFailed(f"{self.product} does not purge its binlogs up to {before}")
                connection.execute(f"PURGE BINARY LOGS TO '{before}'")
                time.sleep(0.02)

    def start(self) -> None:
        """Starts the server and returns when root can log in.

        Raises:
            ServerFailed: with the end of the server's log.
        """
        for attempt in range(1, START_ATTEMPTS + 1):
            port = self.port or ports.free_port()
            try:
                self._start_on(port)
                return
            except ServerFailed as failure:
                is_clash = "Address already in use" in str(failure)
                if not is_clash or self.port or attempt == START_ATTEMPTS:
                    raise

    def stop(self) -> None:
        """An orderly shutdown."""
        self._started().stop()

    def kill(self) -> None:
        """kill -9."""
        self._started().kill()

    def restart(self, *, options: Sequence[str] | None = None) -> None:
        """Up again on the same port and data, orderly stopped before if need be; `options` replace the earlier ones."""
        if self.is_running:
            self.stop()
        if options is not None:
            self.options = tuple(options)
        self.start()

    def _start_on(self, port: int) -> None:
        argv = [*self._command_line(self.paths, port), *self.options]
        self._process = ServerProcess(argv, log=self.paths.log, cwd=self.paths.directory, env=self._environ)
        self._process.wait_until(lambda: self._answers(port), what=f"{self.product} on port {port}")
        self.port = port
        exercised.record(self.product, self.version)

    def _answers(self, port: int) -> bool:
        # by the socket file and not by the port: on a port somebody else's server could answer
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:  # the driver forgets to close one that is refused
            try:
                stream.connect(str(self.paths.socket))
                login = pymysql.Connection(unix_socket="socket", user="root", read_timeout=5, defer_connect=True)
                login.connect(stream)
            except (pymysql.MySQLError, OSError):
                return False
            with login, login.cursor() as cursor:
                cursor.execute("SELECT VERSION(), @@port")
                version, listens_on = cursor.fetchone() or ("", 0)
        self.version = version.split("-")[0]
        return int(listens_on) == port

    def _started(self) -> ServerProcess:
        if self._process is None:
            raise RuntimeError(f"{self.product} was never started")
        return self._process


@contextmanager
def running(
    product: str, directory: Path, *, template: Path, command_line: CommandLine, server_id: int, options: Sequence[str],
    environ: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A server on a copy of `template`, killed at the end; what it wrote stays in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = Paths(directory)
    database = Server(product, paths, command_line=command_line, server_id=server_id, options=options, environ=environ)
    try:
        if not paths.data.exists():
            shutil.copytree(template, paths.data, symlinks=True)
        database.start()
        yield database
    finally:
        if database._process is not None:
            database.kill()
        shutil.rmtree(paths.short, ignore_errors=True)
