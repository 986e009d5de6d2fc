"""What stands between an application and its users: a Service, the front end's nginx, an Ingress. All over real sockets.

Each forwards a request to the first ready address it is given and answers 503 when there is none, 502 when that does not answer.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.servers.kubernetes.cluster import Cluster
from tests.servers.kubernetes.store import Refused

Address = tuple[str, int]
Route = Callable[[str], list[Address]]
PASSED_ON = ("Authorization", "Content-Type", "Accept")


class Proxy(ThreadingHTTPServer):
    """Forwards by path. A path for which `page(path)` has something is answered with that at once."""

    daemon_threads = True

    def __init__(self, route: Route, page: Callable[[str], bytes | None] = lambda path: None) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.route, self.page = route, page
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, name="proxy", daemon=True).start()

    @property
    def address(self) -> Address:
        return "127.0.0.1", int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}"

    def end(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that went away


class _Forward(BaseHTTPRequestHandler):
    server: Proxy

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        page = self.server.page(self.path)
        if page is not None:
            self._reply(200, "text/html; charset=utf-8", page)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        there = self.server.route(self.path)
        if not there:
            self._reply(503, "text/html", b"no endpoints")
            return
        connection = http.client.HTTPConnection(*there[0], timeout=60)
        try:
            headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            self._reply(answer.status, answer.headers.get("Content-Type", ""), answer.read())
        except OSError:
            self._reply(502, "text/html", b"bad gateway")
        finally:
            connection.close()

    do_POST = do_GET

    def _reply(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def front_end(backend: Route) -> Proxy:
    """nginx with the pages: what is not under /api/ is answered 200 with index.html, whatever the back end does."""
    return Proxy(backend, lambda path: None if path.startswith("/api/") else b"<!doctype html><title>KubePolaris</title>")


@contextmanager
def service(cluster: Cluster, namespace: str, name: str) -> Iterator[Proxy]:
    """The Service's address as it is inside a cluster, reachable from here."""
    yield from _running(Proxy(lambda path: cluster.workloads.behind(namespace, name)))


@contextmanager
def ingress(cluster: Cluster, namespace: str) -> Iterator[Proxy]:
    """What the Ingress controller serves for the namespace: the public address."""
    yield from _running(Proxy(lambda path: _by_ingress(cluster, namespace, path)))


def _running(proxy: Proxy) -> Iterator[Proxy]:
    try:
        yield proxy
    finally:
        proxy.end()


def _by_ingress(cluster: Cluster, namespace: str, path: str) -> list[Address]:
    try:
        found = cluster.list("Ingress", namespace)
    except Refused:
        return []
    paths = [one for each in found for rule in each["spec"].get("rules", ()) for one in rule["http"]["paths"]]
    fitting = sorted((one for one in paths if path.startswith(one["path"])), key=lambda one: -len(one["path"]))
    return cluster.workloads.behind(namespace, fitting[0]["backend"]["service"]["name"]) if fitting else []
