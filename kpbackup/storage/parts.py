"""How an object is cut into the parts of an S3 multipart upload.

Idea: S3 takes at most 10,000 parts of 5 MiB to 5 GiB, 5 TiB in all, and memory costs two parts. So
parts are as small as the size announced allows. Once more has come than was announced, each part
is just so large that parts growing by that same ratio would reach 5 TiB with the 10,000th: the
limit is never met, whatever the hint said.

Limits: without a hint, parts stay at 5 MiB up to 6 GiB; a stream of 100 GiB ends at 78 MiB, one of
1 TiB at 793 MiB. With the right hint those are 26 MiB and 263 MiB. Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MIB = 1 << 20
SMALLEST_PART = 5 * MIB
LARGEST_PART = 5 << 30
LARGEST_OBJECT = 5 << 40
MOST_PARTS = 10_000
# Of these 10,000 an object as large as announced uses 4,000; with the rest any larger one reaches
# 5 TiB without a part above 5 GiB (with 8,000 it would not).
PARTS_FOR_HINT = 4_000


@dataclass(frozen=True)
class Part:
    """`number` counts from 1; `last` says that nothing follows. An empty object is one empty last part."""

    number: int
    data: bytearray
    last: bool


def part_size(number: int, sent_bytes: int, size_hint: int) -> int:
    """The size in bytes of part `number` (from 1) when `sent_bytes` have gone before it."""
    hinted = max(SMALLEST_PART, _whole_mib(size_hint / PARTS_FOR_HINT))
    if sent_bytes < max(size_hint, SMALLEST_PART):
        return min(hinted, LARGEST_PART)
    left = MOST_PARTS - number + 1
    if left < 1 or sent_bytes >= LARGEST_OBJECT:
        return LARGEST_PART
    ratio = (LARGEST_OBJECT / sent_bytes) ** (1 / left)
    return min(max(SMALLEST_PART, _whole_mib(sent_bytes * (ratio - 1))), LARGEST_PART)


def cut(chunks: Iterable[bytes], size_hint: int) -> Iterator[Part]:
    """Parts of a stream; at least one. Holds one part and one chunk."""
    number, sent, data = 1, 0, bytearray()
    size = part_size(number, sent, size_hint)
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            if len(data) == size:  # only now is it known that something follows
                full, data = data, bytearray()
                number, sent = number + 1, sent + size
                size = part_size(number, sent, size_hint)
                yield Part(number - 1, full, False)
                del full  # or it would stay until the next part is whole
            taken = rest[: size - len(data)]
            data += taken
            rest = rest[len(taken) :]
    yield Part(number, data, True)


def _whole_mib(size: float) -> int:
    return -(-int(size + 1) // MIB) * MIB
