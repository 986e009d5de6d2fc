"""A small Kubernetes API server over TLS for tests: create and get, with 409, 403 and 404 as the real one answers.

Limits: no admission, no controllers, no watch. What is stored must be what Kubernetes' own schemas take, misspelt fields
included, so that a test does not pass on a document that a real server would refuse. No real API server was run.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kpbackup.service.cluster import Cluster

TOKEN = "KPTEST-service-account-token"
VERSION = "1.34"


class ApiServer:
    """`objects` maps paths to what is stored; `forbidden` holds path prefixes the account may not touch."""

    def __init__(self, account: Path) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.forbidden: list[str] = []
        self.requests: list[str] = []
        self.account = account
        self.guard = threading.Lock()
        account.mkdir(parents=True)
        (account / "token").write_text(TOKEN)
        (account / "namespace").write_text("backups")
        key = _certificate(account)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(account / "ca.crt", key)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def cluster(self) -> Cluster:
        return Cluster(f"https://127.0.0.1:{self.port}", "backups", self.account)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, method: str, path: str, token: str, body: bytes) -> tuple[int, dict[str, Any]]:
        self.requests.append(f"{method} {path}")
        if token != f"Bearer {TOKEN}":
            return 401, {"kind": "Status", "code": 401}
        if any(path.startswith(prefix) for prefix in self.forbidden):
            return 403, {"kind": "Status", "code": 403}
        with self.guard:
            if method == "GET":
                found = self.objects.get(path)
                return (200, found) if found is not None else (404, {"kind": "Status", "code": 404})
            document = json.loads(body)
            kubernetes_validate.validate(document, VERSION, strict=True)
            name = document["metadata"].get("name") or f"{document['metadata']['generateName']}{len(self.objects):05d}"
            if f"{path}/{name}" in self.objects:
                return 409, {"kind": "Status", "code": 409}
            self.objects[f"{path}/{name}"] = document
            return 201, document

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805  the handler's own self is another
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._do("GET")

            def do_POST(self) -> None:
                self._do("POST")

            def _do(self, method: str) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, document = server.answer(method, self.path, self.headers.get("Authorization", ""), body)
                data = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


def _certificate(directory: Path) -> Path:
    """`ca.crt`, which is also the server's own certificate, and its key; the key's path."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test-apiserver")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (directory / "ca.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    path = directory / "server.key"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@contextmanager
def api_server(directory: Path) -> Iterator[ApiServer]:
    """An API server whose service account (token, namespace, authority) lies in `directory`."""
    server = ApiServer(directory / "serviceaccount")
    try:
        yield server
    finally:
        server.close()
