"""Whether a planted secret is readable: in an object of the bucket, in its key, or in anything kpbackup printed.

Searched for in any case of letters, as text, UTF-16, hex and base64 (whatever the neighbours). So that finding nothing means
something, the search is first tried on objects that hold a secret in each of these forms.

Limits: a secret in some other wrapping would be missed, so objects that begin as zstd or gzip streams count as leaks too: what
is compressed must be encrypted.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from demo import planted
from demo.narrator import DemoFailed

AGE_HEADER = b"age-encryption.org/v1\n"
_STREAMS = (b"\x28\xb5\x2f\xfd", b"\x1f\x8b")  # zstd, gzip


@dataclass(frozen=True)
class Searched:
    """What was looked through."""

    objects: int
    sealed: int
    stored_bytes: int


def in_bucket(client: Any, bucket: str) -> tuple[Searched, list[str]]:
    """What was searched, and one line per leak."""
    leaks, objects, sealed, stored = [], 0, 0, 0
    for key, body in _objects(client, bucket):
        objects += 1
        stored += len(body)
        sealed += body.startswith(AGE_HEADER)
        if body.startswith(_STREAMS):
            leaks.append(f"object {key} is compressed but not encrypted")
        leaks += [f"object {key}: {form}" for form in forms_found(body)]
        leaks += [f"key {key}: {form}" for form in forms_found(key.encode())]
    return Searched(objects, sealed, stored), leaks


def prove_search(client: Any, bucket: str) -> int:
    """Puts a secret into the bucket in each form, finds every one, takes them out again; returns how many forms there are.

    Raises:
        DemoFailed: the search is blind to one.
    """
    forms = _forms(planted.SECRET_TABLE)
    for name, body in forms.items():
        client.put_object(Bucket=bucket, Key=f"control/{name}", Body=b"x" + body + b"y")
    leaks = in_bucket(client, bucket)[1]
    for name in forms:
        if not any(f"control/{name}:" in leak for leak in leaks):
            raise DemoFailed(f"the search does not find a secret written as {name}")
        client.delete_object(Bucket=bucket, Key=f"control/{name}")
    return len(forms)


def forms_found(body: bytes) -> list[str]:
    """The forms in which the marker is readable in these bytes."""
    lower = body.lower()
    found = []
    for spelling in (planted.MARKER, planted.MARKER.lower()):
        for name, form in _forms(spelling).items():
            text = body if name.startswith("base64") else lower  # base64 tells letters apart
            if (form if name.startswith("base64") else form.lower()) in text and name not in found:
                found.append(name)
    return found


def _forms(text: str) -> dict[str, bytes]:
    raw = text.encode()
    forms = {"text": raw, "utf-16": text.encode("utf-16-le"), "hex": raw.hex().encode()}
    for shift in range(3):  # where in its group of three the text begins; the first and last group depend on the neighbours
        encoded = base64.b64encode(b"\0" * shift + raw)
        forms[f"base64-{shift}"] = encoded[4 if shift else 0 : len(raw) // 3 * 4]
    return forms


def _objects(client: Any, bucket: str) -> Iterator[tuple[str, bytes]]:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", ()):
            with client.get_object(Bucket=bucket, Key=entry["Key"])["Body"] as body:
                yield str(entry["Key"]), body.read()
