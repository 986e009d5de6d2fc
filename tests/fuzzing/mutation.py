"""Real bytes with something changed: what gets further into a parser than noise does. A seed gives the same inputs again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

Change = Callable[[random.Random, bytearray, Sequence[bytes]], None]

_ODD = (
    *(b"\x00", b"\xff", b"\x7f", b"\x80", b"\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\xff" * 8, b"\xfb", b"\xfe"),
    *(b"-1", b"0", b"18446744073709551616", b"9" * 40, b"9" * 5000, b"\n", b"\r\n", b'"', b"\\", b"\xc3\x28"),
    *(b"%", b":", b"{", b"[" * 20, b"[" * 5000),
)
_NOISE_ONE_IN = 24
_LARGEST = 65_536


def _flip(place: random.Random, data: bytearray, originals: Sequence[bytes]) -> None:
    if data:
        data[place.randrange(len(data))] ^= 1 << place.randrange(8)


def _replace(place: random.Random, data: bytearray, originals: Sequence[bytes]) -> None:
    at = place.randrange(len(data) + 1)
    data[at : at + place.randrange(9)] = place.randbytes(place.randrange(9))


def _odd(place: random.Random, data: bytearray, originals: Sequence[bytes]) -> None:
    odd, at = place.choice(_ODD), place.randrange(len(data) + 1)
    data[at : at + (len(odd) if place.random() < 0.5 else 0)] = odd


def _cut(place: random.Random, data: bytearray, originals: Sequence[bytes]) -> None:
    del data[place.randrange(len(data) + 1) :]


def _leave_out(place: random.Random, data: bytearray, originals: Sequence[bytes]) -> None:
    at = place.randrange(len(data) + 1)
    del data[at : at + 1 + place.randrange(64)]


def _repeat(place: random.Random, data: bytearray, originals: Sequence[bytes]) -> None:
    at = place.randrange(len(data) + 1)
    data[at:at] = data[at : at + 1 + place.randrange(64)] * place.randint(1, 3)


def _join(place: random.Random, data: bytearray, originals: Sequence[bytes]) -> None:
    other = place.choice(originals)
    data[place.randrange(len(data) + 1) :] = other[place.randrange(len(other) + 1) :]


_CHANGES: tuple[Change, ...] = (_flip, _flip, _replace, _odd, _odd, _cut, _leave_out, _repeat, _join)


def mutations(originals: Sequence[bytes], seed: str) -> Iterator[bytes]:
    """Inputs without end: one of the originals with one to four changes; now and then noise, or the original itself."""
    place = random.Random(seed)
    while True:
        if place.randrange(_NOISE_ONE_IN) == 0:
            yield place.randbytes(place.randrange(300))
            continue
        data = bytearray(place.choice(originals))
        for _ in range(place.randrange(5)):
            place.choice(_CHANGES)(place, data, originals)
        yield bytes(data[:_LARGEST])
