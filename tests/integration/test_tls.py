"""TLS on every side: to the database, to the S3 server, on our own port; and who may read what is served there."""

from __future__ import annotations

import dataclasses
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from kpbackup import config, errors
from kpbackup.mysql import server as mysql
from kpbackup.service import certificates, guard, http
from kpbackup.storage import open_backend
from tests.integration.deployment import until
from tests.servers.certificates import Authority
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.s3 import S3Server

USER, PASSWORD, TOKEN = "prometheus", "p:ss wörd", "0123456789abcdef"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


# -- the database


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Server]:
    """MariaDB with a certificate for 127.0.0.1, and an account that asks for the client's."""
    made = authority.issue("database")
    options = (f"--ssl-ca={authority.file}", f"--ssl-cert={made.certificate}", f"--ssl-key={made.key}")
    with mariadb_server(tmp_path_factory.mktemp("tls") / "server", server_id=251, options=options) as server:
        server.execute("CREATE USER careful@'%' REQUIRE X509")
        yield server


def version(server: Server, tls: mysql.Tls, *, user: str = "root", host: str = "") -> str:
    """The TLS version of a session, "" without TLS."""
    endpoint = dataclasses.replace(server.endpoint, tls=tls, user=user, host=host or server.endpoint.host)
    with mysql.connect(endpoint) as connection:
        row = connection.row("SHOW STATUS LIKE 'Ssl_version'")
        assert row is not None
        return str(row[1])


def test_asked_for_tls_verifies_the_servers_identity(tls_server: Server, authority: Authority, tmp_path: Path) -> None:
    known, other = str(authority.file), str(Authority(tmp_path, "another").file)
    assert version(tls_server, mysql.Tls(ca_file=known)).startswith("TLS")
    for refused in (mysql.Tls(ca_file=other), mysql.Tls(required=True)):
        with pytest.raises(errors.ServerUnreachable, match="CERTIFICATE_VERIFY_FAILED") as told:
            version(tls_server, refused)
        assert "tls.ca_file" in told.value.hint
    with pytest.raises(errors.ServerUnreachable, match="(?i)hostname mismatch"):
        version(tls_server, mysql.Tls(ca_file=known), host="localhost")
    assert version(tls_server, mysql.Tls(ca_file=known, verify="ca"), host="localhost").startswith("TLS")
    assert version(tls_server, mysql.Tls(required=True, verify="none")).startswith("TLS")
    with pytest.raises(errors.SettingsError, match="cannot use the TLS file"):
        version(tls_server, mysql.Tls(ca_file=str(tmp_path / "absent.pem")))


def test_a_client_certificate(tls_server: Server, authority: Authority) -> None:
    known, own = str(authority.file), authority.issue("client")
    with pytest.raises(errors.ServerUnreachable, match="Access denied"):
        version(tls_server, mysql.Tls(ca_file=known), user="careful")
    shown = mysql.Tls(ca_file=known, certificate_file=str(own.certificate), key_file=str(own.key))
    assert version(tls_server, shown, user="careful").startswith("TLS")


def test_the_expiry_of_the_databases_certificate_is_known(tls_server: Server, authority: Authority) -> None:
    endpoint = dataclasses.replace(tls_server.endpoint, tls=mysql.Tls(ca_file=str(authority.file)))
    with mysql.connect(endpoint) as connection:
        expires = connection.certificate_expiry()
    assert expires is not None and abs((expires - authority.issue("same-age").expires).total_seconds()) < 600


# -- the store


@pytest.fixture
def tls_store(s3: S3Server, authority: Authority) -> Iterator[tuple[str, datetime]]:
    """(https address, expiry of its certificate) of the S3 server behind a proxy that ends TLS."""
    made = authority.issue("store")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, context, s3.port), daemon=True).start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}", made.expires


def _accept(listener: socket.socket, context: ssl.SSLContext, port: int) -> None:
    while True:
        try:
            plain, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_proxy, args=(plain, context, port), daemon=True).start()


def _proxy(plain: socket.socket, context: ssl.SSLContext, port: int) -> None:
    try:
        with context.wrap_socket(plain, server_side=True) as client, socket.create_connection(("127.0.0.1", port)) as behind:
            back = threading.Thread(target=_pump, args=(behind, client), daemon=True)
            back.start()
            _pump(client, behind)
            back.join()
    except OSError:
        pass  # a client that does not trust us hangs up


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_a_private_s3_server_is_verified_by_its_authority(
    tls_store: tuple[str, datetime], s3_bucket: str, aws_environment: None, authority: Authority, tmp_path: Path
) -> None:
    url, expires = tls_store
    trusted = open_backend(f"s3://{s3_bucket}/tls", endpoint_url=url, ca_file=str(authority.file))
    trusted.put_if_absent("probes/tls", b"over TLS")
    assert trusted.read("probes/tls") == b"over TLS"
    for ca_file in (None, str(Authority(tmp_path, "another").file)):
        with pytest.raises(errors.StorageError, match="TLS failed"):
            open_backend(f"s3://{s3_bucket}/tls", endpoint_url=url, ca_file=ca_file).read("probes/tls")
    assert certificates.of_endpoint(url) == expires
    assert certificates.of_endpoint(url.replace("https", "http")) is None


# -- our own port


@pytest.fixture
def access(tmp_path: Path) -> guard.Access:
    (tmp_path / "password").write_text(PASSWORD + "\n", encoding="utf-8")
    (tmp_path / "token").write_text(TOKEN + "\n", encoding="utf-8")
    return guard.Access(USER, str(tmp_path / "password"), str(tmp_path / "token"))


def pages() -> http.Pages:
    return {"/": lambda query: http.text_answer("the page"), "/metrics": lambda query: http.text_answer("m 1"),
            "/api/health": lambda query: http.json_answer(200, {"status": "healthy"})}  # fmt: skip


def status(url: str, authority: Authority | None = None, *, header: str = "") -> int:
    request = urllib.request.Request(url, headers={"Authorization": header} if header else {})
    context = ssl.create_default_context(cafile=str(authority.file)) if authority else None
    try:
        with urllib.request.urlopen(request, timeout=60, context=context) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        with refused:
            if refused.code == 401:
                assert refused.headers["WWW-Authenticate"].startswith("Basic ")
            return refused.code


def test_our_port_speaks_tls_and_takes_a_renewed_certificate_without_a_restart(authority: Authority, tmp_path: Path) -> None:
    made = authority.issue("service-1", days=10)
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.write_bytes(made.certificate.read_bytes())
    key.write_bytes(made.key.read_bytes())
    with http.WebServer(("127.0.0.1", 0), pages(), certificate=guard.Certificate(str(certificate), str(key))) as web:
        web.start()
        url = f"https://127.0.0.1:{web.port}"
        assert status(f"{url}/metrics", authority) == 200
        assert certificates.of_endpoint(url) == made.expires == guard.expiry(str(certificate))
        with socket.create_connection(("127.0.0.1", web.port)):  # a client that says nothing
            assert status(f"{url}/", authority) == 200, "holds nobody else up"
        key.write_bytes(b"half of a new key")
        assert status(f"{url}/", authority) == 200, "a renewal that is half written changes nothing"
        renewed = authority.issue("service-2", days=50)
        key.write_bytes(renewed.key.read_bytes())
        certificate.write_bytes(renewed.certificate.read_bytes())
        until(lambda: certificates.of_endpoint(url) == renewed.expires, what="the renewed certificate")
        with pytest.raises(OSError):
            status(url.replace("https", "http"))


def test_a_certificate_that_cannot_be_used_is_told_at_the_start(tmp_path: Path, authority: Authority) -> None:
    one, other = authority.issue("one"), authority.issue("other")
    with pytest.raises(errors.SettingsError, match="cannot use service.tls"):
        guard.Certificate(str(one.certificate), str(other.key))


def test_page_and_metrics_ask_for_a_password_or_token_and_health_does_not(access: guard.Access, tmp_path: Path) -> None:
    import base64

    def basic(user: str, password: str) -> str:
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    with http.WebServer(("127.0.0.1", 0), pages(), access=access) as web:
        web.start()
        url = f"http://127.0.0.1:{web.port}"
        assert status(f"{url}/api/health") == 200
        for path in ("/", "/metrics"):
            refused = ("", basic(USER, "wrong"), basic("x", PASSWORD), "Bearer wrong", "Basic ???", f"Digest {TOKEN}", "Bearer ")
            for wrong in refused:
                assert status(url + path, header=wrong) == 401, wrong
            for right in (basic(USER, PASSWORD), f"Bearer {TOKEN}", f"bearer {TOKEN}"):
                assert status(url + path, header=right) == 200
        (tmp_path / "token").write_text("rotated\n", encoding="utf-8")
        assert status(f"{url}/metrics", header=f"Bearer {TOKEN}") == 401
        assert status(f"{url}/metrics", header="Bearer rotated") == 200
        (tmp_path / "token").unlink()
        assert status(f"{url}/metrics", header="Bearer rotated") == 401


def test_every_known_expiry_is_read(authority: Authority, tls_store: tuple[str, datetime], tmp_path: Path) -> None:
    made, (url, expires) = authority.issue("own"), tls_store
    path = tmp_path / "settings.yaml"
    path.write_text(
        f"repository: {{url: 's3://bucket/a', endpoint_url: '{url}'}}\n"
        f"copies: [{{name: offsite, url: 's3://bucket/b', endpoint_url: '{url}'}}]\n"
        f"service: {{tls: {{certificate_file: {made.certificate}, key_file: {made.key}}}}}\n",
        encoding="utf-8",
    )
    found = certificates.read(config.load(path, {}))
    assert found == {"store": expires, "copy offsite": expires, "service": made.expires}
