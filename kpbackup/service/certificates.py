"""When the certificates of source and store expire: looked at, never judged; who trusts them is the connection's own matter.

The source's comes with each probe's session, the store's from a TLS greeting of its own, because a store client shows none.
AWS's own endpoints are left out: nobody who is paged could renew them. Nothing is kept.
"""

from __future__ import annotations

import logging
import socket
import ssl
import urllib.parse
from datetime import datetime

from cryptography import x509

from kpbackup import logs

TIMEOUT_S = 10.0

logger = logging.getLogger(__name__)


def expiry(der: bytes) -> datetime | None:
    """The end of a certificate's validity; None for bytes that are none."""
    try:
        return x509.load_der_x509_certificate(der).not_valid_after_utc
    except ValueError:
        return None


def store_address(endpoint_url: str | None) -> tuple[str, int] | None:
    """Host and port of an https endpoint; None for another one."""
    parts = urllib.parse.urlsplit(endpoint_url or "")
    return (parts.hostname, parts.port or 443) if parts.scheme == "https" and parts.hostname else None


def of_address(host: str, port: int) -> datetime | None:
    """When the certificate served at an address expires; None when it does not answer in TLS, which others notice."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # an expired one, or of an own authority, must be seen too; nothing is sent
    try:
        with (
            socket.create_connection((host, port), TIMEOUT_S) as stream,
            context.wrap_socket(stream, server_hostname=host) as session,
        ):
            found = session.getpeercert(binary_form=True)
    except (OSError, ValueError) as exc:
        logs.event(logger, "certificate_unseen", level=logging.DEBUG, host=host, port=port, reason=type(exc).__name__)
        return None
    return expiry(found) if found else None
