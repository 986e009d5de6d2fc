"""TLS and passwords of our own port. Files are read again when they change, so that a renewed certificate needs no restart.

A changed file that cannot be used leaves the certificate before in use and is logged: a half-written renewal must not take
monitoring down. A password or token file that cannot be read lets nobody in.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import os
import ssl
import threading
from datetime import datetime

from cryptography import x509

from kpbackup import errors, logs

LARGEST_SECRET_BYTES = 4096

logger = logging.getLogger(__name__)


class Certificate:
    """A certificate and its key, in files."""

    def __init__(self, certificate_file: str, key_file: str) -> None:
        """Raises SettingsError when they cannot be used."""
        self._files = (certificate_file, key_file)
        self._guard = threading.Lock()
        self._seen = self._stamps()
        try:
            self._context = self._load()
        except (OSError, ssl.SSLError) as exc:
            raise errors.SettingsError(
                f"cannot use service.tls: {certificate_file}, {key_file}: {exc}",
                hint="both are PEM files, and the key belongs to the certificate",
            ) from exc

    def context(self) -> ssl.SSLContext:
        """The context for the next connection."""
        with self._guard:
            stamps = self._stamps()
            if stamps != self._seen:
                self._seen = stamps
                try:
                    self._context = self._load()
                    logs.event(logger, "certificate_reloaded", file=self._files[0])
                except (OSError, ssl.SSLError) as exc:
                    logs.event(logger, "certificate_not_reloaded", level=logging.ERROR, file=self._files[0], error=exc)
            return self._context

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(*self._files)
        return context

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        """What changes when a file is replaced or written; zeros while one is away."""
        found = []
        for path in self._files:
            try:
                status = os.stat(path)
                found.append((status.st_mtime_ns, status.st_ino))
            except OSError:
                found.append((0, 0))
        return tuple(found)


def expiry(certificate_file: str) -> datetime | None:
    """When the first certificate of a PEM file expires; None when it cannot be read."""
    try:
        with open(certificate_file, "rb") as file:
            return x509.load_pem_x509_certificate(file.read()).not_valid_after_utc
    except (OSError, ValueError):
        return None


class Access:
    """Who may read what is not for probes: basic authentication, a bearer token, or either."""

    def __init__(self, user: str, password_file: str | None, token_file: str | None) -> None:
        self._user, self._password_file, self._token_file = user, password_file, token_file
        self.challenge = 'Basic realm="kpbackup", charset="UTF-8"' if password_file else 'Bearer realm="kpbackup"'

    def allows(self, header: str | None) -> bool:
        """Judges the value of an Authorization header."""
        scheme, _, given = (header or "").strip().partition(" ")
        if scheme.lower() == "bearer" and self._token_file is not None:
            return _equal(given.strip().encode("utf-8", "replace"), _secret(self._token_file))
        if scheme.lower() == "basic" and self._password_file is not None:
            try:
                decoded = base64.b64decode(given.strip(), validate=True)
            except (binascii.Error, ValueError):
                return False
            password = _secret(self._password_file)
            return password is not None and _equal(decoded, self._user.encode() + b":" + password)
        return False


def _equal(given: bytes, wanted: bytes | None) -> bool:
    return wanted is not None and hmac.compare_digest(given, wanted)


def _secret(path: str) -> bytes | None:
    """A secret's bytes without the trailing newline; None when there is none, and then nobody is let in."""
    try:
        with open(path, "rb") as file:
            return file.read(LARGEST_SECRET_BYTES).removesuffix(b"\n").removesuffix(b"\r") or None
    except OSError as exc:
        logs.event(logger, "secret_file_unreadable", level=logging.ERROR, path=path, error=exc)
        return None
