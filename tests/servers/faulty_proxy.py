"""A TCP proxy before a real HTTP server that spoils chosen answers: cuts, stalls, drops or replaces them.

Idea: the server behind it is real and carries requests out; only what the client gets to see is spoilt. Faults are
taken in order, one per request that matches; everything else passes. One client connection sends one request at a time.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """Hits the next request that starts with `request` (say b"PUT /bucket/key").

    `answer`: sent instead of asking the server. Otherwise the server is asked, and of its final answer the first
    `after_bytes` (head included) pass; then the connection is closed, or with `stalls` kept open in silence.
    """

    request: bytes
    after_bytes: int = 0
    stalls: bool = False
    answer: bytes = b""


def refusal(status: int, code: str) -> bytes:
    """An S3 error answer."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    head = f"HTTP/1.1 {status} No\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


class FaultyProxy:
    """Listens on a free port of 127.0.0.1. `requests` holds the first line of every request that came."""

    def __init__(self, target_port: int) -> None:
        self.requests: list[bytes] = []
        self._target_port = target_port
        self._faults: list[Fault] = []
        self._guard = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def plan(self, faults: Sequence[Fault]) -> None:
        """Sets the faults to come and forgets the requests seen."""
        with self._guard:
            self._faults = list(faults)
            self.requests.clear()

    def pending(self) -> list[Fault]:
        """Faults that have not hit yet."""
        with self._guard:
            return list(self._faults)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        with self._guard:
            for connection in self._open:
                _hang_up(connection)

    def _accept(self) -> None:
        threads = []
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target_port))
                with self._guard:
                    self._open += [client, server]
                relay = _Relay(self, client, server)
                threads += [threading.Thread(target=relay.requests), threading.Thread(target=relay.answers)]
                for thread in threads[-2:]:
                    thread.start()
        with self._guard:
            for connection in self._open:
                _hang_up(connection)
        for thread in threads:
            thread.join()

    def take(self, request: bytes) -> Fault | None:
        """The fault for a request, used up; None for a continuation or an unharmed request."""
        if request.split(b" ", 1)[0] not in (b"GET", b"PUT", b"HEAD", b"POST", b"DELETE"):
            return None
        with self._guard:
            self.requests.append(request.split(b"\r\n", 1)[0])
            for fault in self._faults:
                if request.startswith(fault.request):
                    self._faults.remove(fault)
                    return fault
        return None


class _Relay:
    """One client connection and its connection to the server."""

    def __init__(self, proxy: FaultyProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._fault: Fault | None = None
        self._passed = 0

    def requests(self) -> None:
        with self._client, self._server:
            with contextlib.suppress(OSError):  # a client that was killed resets its connection
                self._pass_on()
            _hang_up(self._server)  # or whoever waits for its answer waits on, for closing wakes nobody
            _hang_up(self._client)

    def _pass_on(self) -> None:
        while data := self._client.recv(65_536):
            if fault := self._proxy.take(data):
                if fault.answer:
                    self._client.sendall(fault.answer)
                    return
                self._fault, self._passed = fault, 0
            self._server.sendall(data)

    def answers(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._server.recv(65_536):
                for piece in self._spoilt(data):
                    self._client.sendall(piece)
        _hang_up(self._client)

    def _spoilt(self, data: bytes) -> Iterator[bytes]:
        fault = self._fault
        if fault is None or data.startswith(b"HTTP/1.1 100"):
            yield data
            return
        left = max(0, fault.after_bytes - self._passed)
        self._passed += len(data)
        yield data[:left]
        if left < len(data) and not fault.stalls:
            _hang_up(self._client)


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def faulty_proxy(target_port: int) -> Iterator[FaultyProxy]:
    """A proxy before 127.0.0.1:`target_port`, without faults yet."""
    proxy = FaultyProxy(target_port)
    try:
        yield proxy
    finally:
        proxy.close()
