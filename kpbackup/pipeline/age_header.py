"""The textual header of an age v1 file: reading it strictly, writing it, and its MAC.

Source: the age specification (c2sp.org/age), "Encrypted file format". Idea: a version line,
one or more stanzas that each wrap the same 16-byte file key, and a MAC over all of it.
The parser accepts exactly the grammar of the specification, because every tolerated
variant would be a second spelling of the same header.

Limits: a header is at most `HEADER_LIMIT_BYTES` long (thousands of recipients), so that a file
without end mark cannot fill the memory. Armored (PEM-like) files are recognised and refused.
Pure functions: a crash leaves nothing behind.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kpbackup import errors

VERSION_LINE = b"age-encryption.org/v1\n"
HEADER_LIMIT_BYTES = 1 << 20

_COLUMNS = 64
_MAC_LINE_BYTES = len("--- ") + 43 + 1
_ARGUMENT = re.compile(rb"[\x21-\x7e]+\Z")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*\Z")
# Enough to recognise an armored file behind a little white space before calling it "no age file".
_VERDICT_BYTES = 64


@dataclass(frozen=True)
class Stanza:
    """One recipient's wrapping of the file key: `arguments[0]` is the recipient type."""

    arguments: tuple[str, ...]
    body: bytes

    @property
    def kind(self) -> str:
        return self.arguments[0]


def hkdf(secret: bytes, *, salt: bytes, info: bytes) -> bytes:
    """The 32-byte HKDF-SHA-256 key the specification derives everywhere."""
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=info).derive(secret)


def encode_base64(data: bytes) -> bytes:
    """Unpadded canonical base64."""
    return base64.b64encode(data).rstrip(b"=")


def decode_base64(text: bytes) -> bytes:
    """The bytes of unpadded canonical base64; raises ValueError for any other spelling."""
    if not _BASE64.match(text):
        raise ValueError("not base64")
    try:
        data = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
    if encode_base64(data) != text:
        raise ValueError("base64 is not canonical")
    return data


def mac(header_before_mac: bytes, file_key: bytes) -> bytes:
    """HMAC-SHA-256 over the header up to and including the three dashes."""
    return hmac.digest(hkdf(file_key, salt=b"", info=b"header"), header_before_mac, hashlib.sha256)


def build(stanzas: list[Stanza], file_key: bytes) -> bytes:
    """The whole header, ready to be written in front of the payload nonce."""
    parts = [VERSION_LINE]
    for stanza in stanzas:
        parts.append(("-> " + " ".join(stanza.arguments) + "\n").encode("ascii"))
        body = encode_base64(stanza.body)
        # One line more than full ones: the last must be shorter than 64 columns, if need be empty.
        parts += [body[start : start + _COLUMNS] + b"\n" for start in range(0, len(body) + 1, _COLUMNS)]
    parts.append(b"---")
    unsigned = b"".join(parts)
    return unsigned + b" " + encode_base64(mac(unsigned, file_key)) + b"\n"


def find_end(buffer: bytes | bytearray, *, complete: bool) -> int | None:
    """The length of the header at the start of `buffer`, or None if more bytes are needed.

    `complete` says that no more will come. Raises IntegrityError as soon as it cannot be an age file.
    """
    _check_version(buffer, complete=complete)
    start = buffer.find(b"\n---", 0, HEADER_LIMIT_BYTES)
    if start >= 0:
        end = buffer.find(b"\n", start + 1, start + 1 + _MAC_LINE_BYTES)
        if end >= 0:
            return end + 1
        if len(buffer) > start + _MAC_LINE_BYTES:
            raise _bad_header("the MAC line is too long")
    elif len(buffer) >= HEADER_LIMIT_BYTES:
        raise _bad_header(f"it does not end within {HEADER_LIMIT_BYTES} bytes")
    if complete:
        raise _bad_header("the file is cut off inside the header")
    return None


def _check_version(buffer: bytes | bytearray, *, complete: bool) -> None:
    if buffer.startswith(VERSION_LINE):
        return
    if not complete and (len(buffer) < _VERDICT_BYTES):
        return
    start = bytes(buffer[:1024]).lstrip()
    if start.upper().startswith(b"-----BEGIN AGE ENCRYPTED FILE-----"):
        raise errors.IntegrityError(
            "cannot decrypt: the age file is armored (PEM-like text), which kpbackup does not read",
            hint="decrypt it with the `age` program, which reads both forms",
        )
    if VERSION_LINE.startswith(bytes(buffer)):
        raise _bad_header("the file is cut off inside the version line")
    if start.startswith(b"age-encryption.org/"):
        raise _bad_header("unsupported version, only v1 is known")
    raise errors.IntegrityError("cannot decrypt: this is not an age v1 file")


def parse(header: bytes) -> tuple[list[Stanza], bytes]:
    """The stanzas and the MAC of a whole header (as delimited by `find_end`).

    Raises IntegrityError for anything the grammar does not allow. The MAC is not checked here:
    that needs the file key (`check_mac`).
    """
    if not header.startswith(VERSION_LINE) or not header.endswith(b"\n"):
        raise _bad_header("malformed version line")
    lines = header[len(VERSION_LINE) : -1].split(b"\n")
    stanzas: list[Stanza] = []
    place = 0
    while place < len(lines) - 1:
        stanza, place = _parse_stanza(lines, place)
        stanzas.append(stanza)
    if place != len(lines) - 1 or not lines[-1].startswith(b"--- "):
        raise _bad_header("malformed MAC line")
    if not stanzas:
        raise _bad_header("it names no recipient")
    try:
        tag = decode_base64(lines[-1][len(b"--- ") :])
    except ValueError as exc:
        raise _bad_header(f"malformed MAC: {exc}") from exc
    if len(tag) != hashlib.sha256().digest_size:
        raise _bad_header("the MAC has the wrong length")
    return stanzas, tag


def _parse_stanza(lines: list[bytes], place: int) -> tuple[Stanza, int]:
    if not lines[place].startswith(b"-> "):
        raise _bad_header("a stanza does not start with '-> '")
    arguments = lines[place][3:].split(b" ")
    if not all(_ARGUMENT.match(argument) for argument in arguments):
        raise _bad_header("a stanza has an empty argument or one with forbidden characters")
    body = b""
    for place in range(place + 1, len(lines) - 1):  # noqa: B020, PLR1704 - the place walks on
        line = lines[place]
        if len(line) > _COLUMNS:
            raise _bad_header("a stanza has a line longer than 64 columns")
        body += line
        if len(line) < _COLUMNS:
            break
    else:
        raise _bad_header("a stanza lacks its final short line")
    try:
        return Stanza(tuple(argument.decode("ascii") for argument in arguments), decode_base64(body)), place + 1
    except ValueError as exc:
        raise _bad_header(f"malformed stanza body: {exc}") from exc


def check_mac(header: bytes, tag: bytes, file_key: bytes) -> None:
    """Returns if the MAC of the header is right, raises IntegrityError if not."""
    unsigned = header[: header.rindex(b"\n---") + len(b"\n---")]
    if not hmac.compare_digest(mac(unsigned, file_key), tag):
        raise _bad_header("its MAC is wrong: the header was changed after it was written")


def _bad_header(cause: str) -> errors.IntegrityError:
    return errors.IntegrityError(f"cannot decrypt: bad age header: {cause}")
