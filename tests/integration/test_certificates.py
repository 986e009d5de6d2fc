"""When certificates expire, seen on real TLS: a server's own, and that of an https endpoint."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from kpbackup.service import certificates, watching
from tests.integration.deployment import deploy, until
from tests.integration.test_daemon import running
from tests.servers import ports
from tests.servers.database import Server
from tests.servers.kubernetes.tls import write_certificate


def test_the_exporter_shows_when_the_source_s_certificate_expires(tmp_path: Path, mysql97: Server) -> None:
    """MySQL makes a certificate for ten years by itself."""
    made = deploy(tmp_path / "deployment", mysql97)
    made.settings["source"]["tls"] = {"required": True}
    with running(made, verb="exporter") as exporter:
        endpoint = f"{mysql97.host}:{mysql97.port}"
        name = "kpbackup_certificate_expiry_timestamp_seconds"
        until(lambda: exporter.metric(name, endpoint=endpoint), what="the certificate's end")
        years = (exporter.metric(name, endpoint=endpoint) or 0) - datetime.now(UTC).timestamp()
        assert 9.9 * 365 < years / 86400 < 10.1 * 365
        exporter.stop()


def test_a_connection_without_tls_has_none(mariadb: Server) -> None:
    skew, until_ = watching.probe(mariadb.endpoint)
    assert until_ is None and abs(skew) < timedelta(seconds=5)


def test_an_endpoint_of_one_s_own_is_looked_at_although_nobody_trusts_it(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        found = certificates.of_address("127.0.0.1", server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert found is not None and timedelta(hours=23) < found - datetime.now(UTC) < timedelta(hours=25)
    assert certificates.of_address("127.0.0.1", ports.free_port()) is None


def test_only_https_endpoints_are_looked_at() -> None:
    assert certificates.store_address("https://minio.example.com") == ("minio.example.com", 443)
    assert certificates.store_address("https://[::1]:9000/x") == ("::1", 9000)
    assert certificates.store_address("http://minio:9000") is None and certificates.store_address(None) is None
    assert certificates.expiry(b"nonsense") is None
