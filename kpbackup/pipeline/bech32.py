"""Bech32, the checksummed text form of age keys (BIP 173, without its length limit, as the age format asks).

Idea: 5-bit groups over a 32-letter alphabet with a 6-letter BCH checksum over prefix and data.
Limits: only what age keys need: whole bytes in and out, zero padding enforced, no mixed case.
Pure functions: a crash leaves nothing behind.
"""

from __future__ import annotations

_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM_LETTERS = 6


def _polymod(values: list[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATOR):
            if top >> bit & 1:
                checksum ^= generator
    return checksum


def _expand(prefix: str) -> list[int]:
    return [ord(letter) >> 5 for letter in prefix] + [0] + [ord(letter) & 31 for letter in prefix]


def encode(prefix: str, data: bytes) -> str:
    """The lower-case Bech32 string of `data` under the lower-case `prefix`."""
    bits = int.from_bytes(data, "big")
    width = len(data) * 8
    padding = -width % 5
    bits <<= padding
    groups = [bits >> shift & 31 for shift in range(width + padding - 5, -1, -5)]
    checksum = _polymod(_expand(prefix) + groups + [0] * _CHECKSUM_LETTERS) ^ 1
    groups += [checksum >> 5 * (5 - place) & 31 for place in range(_CHECKSUM_LETTERS)]
    return prefix + "1" + "".join(_ALPHABET[group] for group in groups)


def decode(text: str) -> tuple[str, bytes]:
    """The prefix (in the case it was written in) and the bytes of a Bech32 string.

    Raises ValueError, which never quotes the text (it may be a secret key).
    """
    if text.lower() != text and text.upper() != text:
        raise ValueError("it mixes upper and lower case")
    prefix, separator, body = text.rpartition("1")
    if not separator or not prefix or len(body) < _CHECKSUM_LETTERS:
        raise ValueError("it is too short or lacks the separator '1'")
    if any(not 33 <= ord(letter) <= 126 for letter in prefix):
        raise ValueError("its prefix has a character outside printable ASCII")
    try:
        groups = [_VALUES[letter] for letter in body.lower()]
    except KeyError:
        raise ValueError("it has a character outside the Bech32 alphabet") from None
    if _polymod(_expand(prefix.lower()) + groups) != 1:
        raise ValueError("its checksum is wrong (a typing error?)")
    return prefix, _to_bytes(groups[:-_CHECKSUM_LETTERS])


def _to_bytes(groups: list[int]) -> bytes:
    padding = len(groups) * 5 % 8
    bits = 0
    for group in groups:
        bits = bits << 5 | group
    if padding >= 5 or bits & ((1 << padding) - 1):
        raise ValueError("its padding is not canonical")
    return (bits >> padding).to_bytes(len(groups) * 5 // 8, "big")
