"""Connections to a source or a target, and what kind of server it is.

The only place where a login happens. Results come as tuples of str, bytes, int, Decimal, None; bytes in a text that are no
UTF-8 come as lone surrogates, and go back as the same bytes. A broken connection is an error for the caller to decide about;
retried is only a login that is one too many for a moment.
"""

from __future__ import annotations

import codecs
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pymysql
from pymysql.constants import ER

from kpbackup import errors

CONNECT_TIMEOUT_S = 10
_LOSSLESS = "utf_8_surrogateescape"  # the driver names its codec and has no place for how to treat errors
READ_TIMEOUT_S = 3600  # a long ALTER on a target is not a hang; the wire loops set their own
GOODBYE_S = 1.0
USED_UP_WAIT_S = 2.0
USED_UP_PAUSE_S = 0.05
_QUIT = b"\x01\x00\x00\x00\x01"  # COM_QUIT


@dataclass(frozen=True)
class Tls:
    """Asked for (any of the first two), TLS is required, and `verify` says what of the server is verified: its name and chain
    (`identity`), the chain (`ca`), nothing (`none`); without a `ca_file` against the authorities this machine trusts. Not asked
    for, TLS is used when offered, unverified. The certificate is the client's own."""

    required: bool = False
    ca_file: str | None = None
    verify: str = "identity"
    certificate_file: str | None = None
    key_file: str | None = None


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens and who logs in. `repr` hides the password."""

    host: str
    port: int = 3306
    user: str = "root"
    password: str = field(default="", repr=False)
    tls: Tls = Tls()

    @property
    def name(self) -> str:
        """`user@host:port`, for messages."""
        return f"{self.user}@{self.host}:{self.port}"


class Connection:
    """One session. `raw` is the driver's connection, for the wire loops of this package alone."""

    def __init__(self, endpoint: Endpoint, raw: Any) -> None:
        self.endpoint = endpoint
        self.raw = raw

    def rows(self, sql: str, args: Sequence[object] | None = None) -> list[tuple[Any, ...]]:
        """All rows of a statement.

        Raises:
            PrivilegeMissing, DatabaseError, ServerUnreachable.
        """
        try:
            with self.raw.cursor() as cursor:
                cursor.execute(sql, args)
                return list(cursor.fetchall())
        except pymysql.MySQLError as exc:
            raise translate(exc, f"running {sql.split()[0]!r} on {self.endpoint.name}", sql=sql) from exc

    def certificate_expiry(self) -> datetime | None:
        """When the server's certificate expires; None without TLS."""
        connected = getattr(self.raw, "_sock", None)
        if not isinstance(connected, ssl.SSLSocket) or not (found := connected.getpeercert(binary_form=True)):
            return None
        from cryptography import x509  # the driver loads it only for some logins

        return x509.load_der_x509_certificate(found).not_valid_after_utc

    def row(self, sql: str, args: Sequence[object] | None = None) -> tuple[Any, ...] | None:
        """The first row, or None."""
        found = self.rows(sql, args)
        return found[0] if found else None

    def value(self, sql: str, args: Sequence[object] | None = None) -> Any:
        """The first column of the first row, or None."""
        found = self.row(sql, args)
        return found[0] if found else None

    def execute(self, sql: str, args: Sequence[object] | None = None) -> None:
        """Runs a statement whose result does not matter."""
        self.rows(sql, args)

    def close(self) -> None:
        """Ends the session and waits a moment for the server to have ended it too: until then it counts among the account's
        connections, and the next one could be one too many."""
        self._leave(wait_s=GOODBYE_S)

    def hang_up(self) -> None:
        """Ends the session at once, also in the middle of an answer."""
        self._leave(wait_s=0)

    def _leave(self, *, wait_s: float) -> None:
        stream, deadline = self.raw._sock, time.monotonic() + wait_s
        try:
            if stream is not None:
                stream.settimeout(GOODBYE_S)
                stream.sendall(_QUIT)
                while time.monotonic() < deadline and stream.recv(65536):
                    pass
        except (OSError, ValueError):
            pass  # the server has already hung up, or does not answer: closed is closed
        self.raw._force_close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        if kind is None:
            self.close()
        else:
            self.hang_up()


_PRIVILEGE_NUMBERS = {
    ER.DBACCESS_DENIED_ERROR, ER.SPECIFIC_ACCESS_DENIED_ERROR, ER.TABLEACCESS_DENIED_ERROR,
    ER.COLUMNACCESS_DENIED_ERROR, ER.PROCACCESS_DENIED_ERROR, 1698,
}
_USED_UP_NUMBERS = {ER.TOO_MANY_USER_CONNECTIONS, ER.USER_LIMIT_REACHED}
_LOST_NUMBERS = {1053, 2003, 2006, 2013, 2014, 2055}  # the first one: the server is being shut down


def translate(exc: pymysql.MySQLError, doing: str, *, sql: str = "") -> errors.KpbackupError:
    """The driver's error as one of ours; the SQL text itself is never quoted (it may hold values)."""
    number, text = (exc.args + (0, ""))[:2] if len(exc.args) >= 2 else (0, str(exc))
    if number in _PRIVILEGE_NUMBERS:
        return errors.PrivilegeMissing(f"{doing}: {text}", hint="grant the privilege named; `kpbackup doctor` prints the GRANT")
    if number in _LOST_NUMBERS or isinstance(exc, pymysql.err.InterfaceError):
        return errors.ServerUnreachable(f"{doing}: connection lost ({number} {text})", hint="is the server still running?")
    return errors.DatabaseError(f"{doing}: error {number}: {text}", number=int(number or 0))


def _logged_in(**login: Any) -> _Session:
    """The driver's session. When the account has used up its connections, one that was just closed may still count."""
    deadline = time.monotonic() + USED_UP_WAIT_S
    while True:
        try:
            return _Session(**login)
        except pymysql.MySQLError as exc:
            if not exc.args or exc.args[0] not in _USED_UP_NUMBERS or time.monotonic() > deadline:
                raise
            time.sleep(USED_UP_PAUSE_S)


class _Session(pymysql.connections.Connection):
    """The driver's connection, without its habit of loading every CA certificate for a context that verifies none.

    That took 65 ms of processor time for each connection, and a backup opens a dozen.
    """

    def _create_ssl_ctx(self, sslp: Any) -> ssl.SSLContext:
        if sslp:
            context: ssl.SSLContext = super()._create_ssl_ctx(sslp)  # type: ignore[misc]  # the stubs leave it out
            return context
        return _unverified()


def connect(endpoint: Endpoint, *, database: str | None = None, read_timeout_s: float = READ_TIMEOUT_S) -> Connection:
    """An open session: utf8mb4, autocommit on, time zone UTC, sql_mode as the server has it.

    Raises:
        ServerUnreachable: no answer, wrong password, TLS refused.
    """
    try:
        raw = _logged_in(
            host=endpoint.host, port=endpoint.port, user=endpoint.user,
            password=endpoint.password.encode(),  # given text, pymysql would send it in latin1
            database=database, charset="utf8mb4", autocommit=True, connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=int(read_timeout_s), write_timeout=int(read_timeout_s), ssl=_tls_context(endpoint.tls),
            max_allowed_packet=1 << 30, init_command="SET time_zone='+00:00'",
        )
    except (pymysql.MySQLError, OSError) as exc:
        detail = exc.args[-1] if exc.args else exc
        hint = "check host, port, user and password_file, and that the server accepts connections from here"
        if "CERTIFICATE_VERIFY_FAILED" in str(detail):
            hint = "name the authority of its certificate in tls.ca_file, and the host as the certificate does (tls.verify)"
        raise errors.ServerUnreachable(f"cannot connect to {endpoint.name}: {detail}", hint=hint) from exc
    raw.encoding = _LOSSLESS
    return Connection(endpoint, raw)


def _lossless(name: str) -> codecs.CodecInfo | None:
    if name != _LOSSLESS:
        return None

    def encode(text: str, _: str = "") -> tuple[bytes, int]:
        return text.encode("utf-8", "surrogateescape"), len(text)

    def decode(data: Any, _: str = "") -> tuple[str, int]:
        return bytes(data).decode("utf-8", "surrogateescape"), len(data)

    return codecs.CodecInfo(encode, decode, name=name)


codecs.register(_lossless)


def _tls_context(tls: Tls) -> ssl.SSLContext | None:
    if not (tls.required or tls.ca_file or tls.certificate_file):
        return None
    file = tls.ca_file
    try:
        context = _unverified() if tls.verify == "none" else ssl.create_default_context(cafile=file)
        context.check_hostname = tls.verify == "identity"
        if tls.certificate_file:
            file = tls.certificate_file
            context.load_cert_chain(tls.certificate_file, tls.key_file)
    except (OSError, ssl.SSLError) as exc:
        raise errors.SettingsError(
            f"cannot use the TLS file {file}: {exc}", hint="tls.ca_file, certificate_file and key_file are PEM files"
        ) from exc
    return context


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
