"""The web server of daemon and exporter: it shows what is known and never starts work.

It takes plain functions and imports neither recovery nor backup nor repository. Nothing secret is served, nothing is accepted but
GET and HEAD; a client that is silent for REQUEST_TIMEOUT_S is hung up on. A crash of the process leaves nothing behind.
"""

from __future__ import annotations

import bisect
import itertools
import json
import logging
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from kpbackup import errors, logs
from kpbackup.service import guard

REQUEST_TIMEOUT_S = 10.0  # a probe or a scrape takes milliseconds; more is a client that hangs
MAX_QUERY_FIELDS = 10
OPEN_PATHS = "/api/health"  # probes carry no secret, and nothing there is worth one
POLL_S = 0.2  # how soon the server sees that it is closed

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What one path says now."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Took:
    """Answers that took at most each bound of Latency.BOUNDS_S, the last entry being all; and the sum of their seconds."""

    counts: tuple[int, ...]
    sum_s: float


Query = Mapping[str, str]
Page = Callable[[Query], Answer]
Pages = Mapping[str, Page]


class Latency:
    """How long answers took, by path: the counts of a histogram. Safe to use from any thread."""

    BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def add(self, path: str, seconds: float) -> None:
        with self._guard:
            counts = self._counts.setdefault(path, [0] * (len(self.BOUNDS_S) + 1))
            counts[bisect.bisect_left(self.BOUNDS_S, seconds)] += 1
            self._sums[path] = self._sums.get(path, 0.0) + seconds

    def read(self) -> dict[str, Took]:
        """Path -> what its answers took."""
        with self._guard:
            return {path: Took(tuple(itertools.accumulate(counts)), self._sums[path]) for path, counts in self._counts.items()}


def json_answer(status: int, document: Mapping[str, Any]) -> Answer:
    return Answer(status, "application/json", json.dumps(document).encode() + b"\n")


def text_answer(text: str) -> Answer:
    return Answer(200, "text/plain; charset=utf-8", text.encode())


def alive(query: Query) -> Answer:
    """What /api/health/live says: this process answers, whatever has become of source and store."""
    return json_answer(200, {"alive": True})


class WebServer:
    """Listens from the moment it is made; serves in threads of its own until closed. Use as a context manager."""

    def __init__(
        self,
        address: tuple[str, int],
        pages: Pages,
        *,
        latency: Latency | None = None,
        certificate: guard.Certificate | None = None,
        access: guard.Access | None = None,
    ) -> None:
        """Binds `address`; port 0 takes a free one. What answers take is added to `latency`. With a `certificate` it speaks TLS
        alone; `access` decides who may see what is not for probes.

        Raises:
            SettingsError: the address is taken, not allowed, or none of this machine.
        """
        try:
            self._server = _server(address, pages, latency or Latency(), certificate, access)
        except (OSError, OverflowError) as exc:
            raise errors.SettingsError(
                f"cannot listen on {address[0]}:{address[1]} (service.listen): {getattr(exc, 'strerror', None) or exc}",
                hint="is another kpbackup running here? set service.listen to a free address, such as 127.0.0.1:8081",
            ) from exc
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_S,), name="http", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> WebServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _server(
    address: tuple[str, int],
    pages: Pages,
    took: Latency,
    certificate: guard.Certificate | None,
    guarded: guard.Access | None,
) -> ThreadingHTTPServer:
    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        daemon_threads = True
        block_on_close = False  # a silent client must not hold up the end

        def finish_request(self, request: Any, client_address: Any) -> None:
            if certificate is not None:  # in the client's own thread: one that is silent holds nobody else up
                request.settimeout(REQUEST_TIMEOUT_S)
                request = certificate.context().wrap_socket(request, server_side=True)
            try:
                super().finish_request(request, client_address)
            finally:
                if certificate is not None:
                    request.close()

        def handle_error(self, request: Any, client_address: Any) -> None:
            exc = sys.exc_info()[1]
            hung_up = isinstance(exc, OSError)  # resets and time-outs are everyday; anything else is a defect of a page
            logs.event(logger, "request_failed", level=logging.DEBUG if hung_up else logging.ERROR, error=exc)

    class Handler(_Handler):
        known = pages
        latency = took
        access = guarded

    return Server(address, Handler)


class _Handler(BaseHTTPRequestHandler):
    known: Pages = {}
    latency = Latency()
    access: guard.Access | None = None
    timeout = REQUEST_TIMEOUT_S
    server_version = "kpbackup"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        began = time.monotonic()
        answer = self._found()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)
        path = self.path.partition("?")[0]
        self.latency.add(path if path in self.known else "other", time.monotonic() - began)

    def _found(self) -> Answer:
        path, _, query = self.path.partition("?")
        page = self.known.get(path)
        if page is None:
            return json_answer(404, {"error": "not found", "paths": sorted(self.known)})
        if self.access is not None and not path.startswith(OPEN_PATHS) and not self.access.allows(self.headers["Authorization"]):
            refusal = json_answer(401, {"error": "not allowed: user and password, or a token, are needed"})
            return replace(refusal, headers=(("WWW-Authenticate", self.access.challenge),))
        try:
            fields = dict(urllib.parse.parse_qsl(query, max_num_fields=MAX_QUERY_FIELDS))
        except ValueError:
            return json_answer(400, {"error": f"more than {MAX_QUERY_FIELDS} query fields"})
        return page(fields)

    def log_message(self, format: str, *args: Any) -> None:
        logs.event(logger, "request_answered", level=logging.DEBUG, client=self.client_address[0], request=format % args)
