"""The arithmetic that keeps every S3 object below 10,000 parts, and the cutting that follows it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpbackup.storage import parts

GIB = 1 << 30
TIB = 1 << 40


def plan(total: int, size_hint: int) -> list[int]:
    """The sizes of the parts of an object of `total` bytes."""
    sizes: list[int] = []
    sent = 0
    while sent < total:
        sizes.append(min(parts.part_size(len(sizes) + 1, sent, size_hint), total - sent))
        sent += sizes[-1]
    return sizes


HINTS = [0, 1, 100 * parts.MIB, GIB, 31 * GIB, 32 * GIB, 33 * GIB, 64 * GIB, 500 * GIB, TIB, 3 * TIB, 5 * TIB - 1, 5 * TIB]


@pytest.mark.parametrize("size_hint", HINTS)
def test_the_largest_object_fits_whatever_the_hint(size_hint: int) -> None:
    sizes = plan(5 * TIB, size_hint)
    assert sum(sizes) == 5 * TIB
    assert len(sizes) <= 10_000
    assert max(sizes) <= 5 * GIB
    assert min(sizes[:-1]) >= 5 * parts.MIB


@given(total=st.integers(1, 5 * TIB), size_hint=st.integers(0, 5 * TIB))
@settings(max_examples=40, deadline=None)
def test_any_object_fits_any_hint(total: int, size_hint: int) -> None:
    sizes = plan(total, size_hint)
    assert len(sizes) <= 10_000 and max(sizes) <= 5 * GIB
    assert all(size >= 5 * parts.MIB for size in sizes[:-1])


@pytest.mark.parametrize("total", [GIB, 10 * GIB, 100 * GIB, TIB])
def test_parts_stay_small_when_the_hint_is_right(total: int) -> None:
    assert max(plan(total, total)) <= max(8 * parts.MIB, total // 4_000 + parts.MIB)


def test_parts_without_a_hint_grow_as_documented() -> None:
    assert max(plan(10 * GIB, 0)) == 8 * parts.MIB
    assert max(plan(100 * GIB, 0)) <= 80 * parts.MIB
    assert max(plan(TIB, 0)) <= 800 * parts.MIB


EDGE = parts.SMALLEST_PART


@pytest.mark.parametrize("total", [0, 1, EDGE - 1, EDGE, EDGE + 1, 2 * EDGE, 2 * EDGE + 5])
@pytest.mark.parametrize("chunk_size", [65_537, EDGE, 3 * EDGE])
def test_cutting_keeps_every_byte_in_order(total: int, chunk_size: int) -> None:
    content = bytes(itertools.islice(itertools.cycle(range(251)), total))
    chunks = (content[start : start + chunk_size] for start in range(0, total, chunk_size))
    cut = list(parts.cut(chunks, 0))
    assert b"".join(part.data for part in cut) == content
    assert [part.number for part in cut] == list(range(1, len(cut) + 1))
    assert [part.last for part in cut] == [False] * (len(cut) - 1) + [True]
    assert len(cut) == max(1, -(-total // EDGE))


def test_empty_chunks_make_no_parts() -> None:
    assert [bytes(part.data) for part in parts.cut([b"", b"a", b""], 0)] == [b"a"]
