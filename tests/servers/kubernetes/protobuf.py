"""Secrets as the Helm engine sends them: it keeps its releases in Kubernetes' protobuf form and knows no other.

A message is a series of (field number, value); only the fields that a Secret needs are read. The envelope is `k8s\\0` and a
`runtime.Unknown`, as Kubernetes' documentation of alternate representations says.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator

from tests.servers.kubernetes.resources import Object

MAGIC = b"k8s\0"
_VARINT, _BYTES = 0, 2


def secret(body: bytes) -> Object:
    """The Secret in a request's body.

    Raises:
        ValueError: it is something else.
    """
    if not body.startswith(MAGIC):
        raise ValueError("no envelope of Kubernetes' protobuf form")
    envelope = dict(_fields(body[len(MAGIC) :]))
    kind = {number: value.decode() for number, value in _fields(envelope[1])}
    if kind != {1: "v1", 2: "Secret"}:
        raise ValueError(f"only Secrets are understood in this form, not {kind}")
    found: Object = {"apiVersion": "v1", "kind": "Secret", "metadata": {}, "data": {}}
    for number, value in _fields(envelope[2]):
        if number == 1:
            found["metadata"] = _metadata(value)
        elif number == 2:
            entry = dict(_fields(value))
            found["data"][entry[1].decode()] = base64.b64encode(entry.get(2, b"")).decode()
        elif number == 3:
            found["type"] = value.decode()
    return found


def _metadata(message: bytes) -> Object:
    metadata: Object = {}
    for number, value in _fields(message):
        if number in (1, 2, 3, 6):
            name = {1: "name", 2: "generateName", 3: "namespace", 6: "resourceVersion"}[number]
            if value:
                metadata[name] = value.decode()
        elif number in (11, 12):
            entry = dict(_fields(value))
            metadata.setdefault("labels" if number == 11 else "annotations", {})[entry[1].decode()] = entry.get(2, b"").decode()
    return metadata


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Field numbers and the bytes of their values; numbers are left out."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        if tag & 7 == _VARINT:
            _, place = _varint(message, place)
        elif tag & 7 == _BYTES:
            size, place = _varint(message, place)
            yield tag >> 3, message[place : place + size]
            place += size
        else:
            raise ValueError(f"wire type {tag & 7} is not understood")


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
