"""When the certificates of the endpoints around us expire: asked now and then, so that nobody learns it from an outage.

A certificate is read, not verified: whoever connects to work does that. Limits: stores without an endpoint_url (Amazon renews its
own) and stores behind a proxy are not asked; what cannot be asked is left out.
"""

from __future__ import annotations

import socket
import ssl
from datetime import datetime
from urllib.parse import urlsplit

from cryptography import x509

from kpbackup import config
from kpbackup.service import guard

TIMEOUT_S = 10.0


def of_endpoint(url: str | None) -> datetime | None:
    """Of an https:// url; None for any other, and when it cannot be asked."""
    split = urlsplit(url or "")
    if split.scheme != "https" or not split.hostname:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((split.hostname, split.port or 443), TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=split.hostname) as connected,
        ):
            found = connected.getpeercert(binary_form=True)
            return x509.load_der_x509_certificate(found).not_valid_after_utc if found else None
    except (OSError, ValueError):
        return None


def read(settings: config.Settings) -> dict[str, datetime]:
    """Endpoint (`store`, `service`, `copy NAME`) -> when its certificate expires, where known. The source's probe asks it."""
    found: dict[str, datetime | None] = {}
    if settings.repository is not None:
        found["store"] = of_endpoint(settings.repository.endpoint_url)
    for copy in settings.copies:
        found[f"copy {copy.name}"] = of_endpoint(copy.endpoint_url)
    if settings.service.tls.certificate_file is not None:
        found["service"] = guard.expiry(settings.service.tls.certificate_file)
    return {endpoint: at for endpoint, at in found.items() if at is not None}
