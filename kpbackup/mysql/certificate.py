"""A certificate made for one replay: the target's replica connects with TLS although nobody gave us a certificate.

The private key never leaves this process but for the moment in which OpenSSL reads it: it takes keys from files alone, so
the key lies in a file that only we can read and that is gone before anybody is served.

What it protects: whoever listens on the network learns nothing. What it does not: the target cannot verify it (it has
no way to know it beforehand), so somebody who can change packets on the way could stand in between. Where that is to be
feared, replay by the direct path: there kpbackup connects to the target, and `tls.ca_file` verifies the target.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kpbackup import errors

VALID = timedelta(days=30)  # longer than any replay; clocks of two machines may differ by hours
_SKEW = timedelta(days=1)


def server_context() -> ssl.SSLContext:
    """A context of the side that is connected to, with a new key and certificate.

    Raises:
        LocalIOError: no temporary file can be written.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        descriptor, path = tempfile.mkstemp(prefix="kpbackup-")  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(_key_and_certificate())
            context.load_cert_chain(path)
        finally:
            os.unlink(path)
    except OSError as exc:
        raise errors.LocalIOError(
            f"cannot make a certificate for the replay: {exc.strerror or exc}", hint="is the temporary directory writable?"
        ) from exc
    return context


def _key_and_certificate() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kpbackup replay")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - _SKEW).not_valid_after(now + VALID)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + made.public_bytes(serialization.Encoding.PEM)
