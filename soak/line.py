"""The network line to a database: a TCP relay that drops connections, goes silent for a while, or passes everything on late.

A fault hits as soon as so many bytes have come back from the server, whatever the connection. What is lost is lost on both sides:
client and server see a reset, as behind a router that forgot them. A relay knows nothing of the protocol.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Literal

from tests.servers.database import Server

Kind = Literal["", "drop", "stall", "delay"]
STALL_S = 8.0  # longer than any retry pause, shorter than the time-outs: what waits goes on
LATE_S = 0.01
PIECE_BYTES = 16_384


class Line:
    """Listens on a free port of 127.0.0.1, `port`; passes on to `server`, which may restart."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._guard = threading.Lock()
        self._open: list[socket.socket] = []
        self._kind: Kind = ""
        self._left = 0
        self.has_struck = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def set(self, kind: Kind, *, after_bytes: int = 0) -> None:
        """The fault to come; "" for none."""
        with self._guard:
            self._kind, self._left, self.has_struck = kind, after_bytes, False

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()

    def _accept(self) -> None:
        threads: list[threading.Thread] = []
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threads.append(threading.Thread(target=self._serve, args=(client,)))
                threads[-1].start()
        self._hang_up()
        for thread in threads:
            thread.join()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                server = socket.create_connection((self._server.host, self._server.port))
            except OSError:
                return  # it is down: so is the line
            with server:
                with self._guard:
                    self._open += [client, server]
                there = threading.Thread(target=self._pass, args=(client, server), kwargs={"counts": False})
                there.start()
                self._pass(server, client, counts=True)
                there.join()

    def _pass(self, from_: socket.socket, to: socket.socket, *, counts: bool) -> None:
        with contextlib.suppress(OSError):
            while data := from_.recv(PIECE_BYTES):
                self._strike(len(data) if counts else 0)
                to.sendall(data)
        for end in (from_, to):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _strike(self, size_bytes: int) -> None:
        with self._guard:
            self._left -= size_bytes
            kind = self._kind if self._left <= 0 else ""
            self.has_struck = self.has_struck or bool(kind)
            if kind in ("drop", "stall"):
                self._kind = ""  # once
        if kind == "drop":
            self._hang_up()
        elif kind:
            time.sleep(STALL_S if kind == "stall" else LATE_S)

    def _hang_up(self) -> None:
        with self._guard:
            ends, self._open = self._open, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
