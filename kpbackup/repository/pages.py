"""Catalogue pages: what 1,024 segments are, in one signed object, so that nobody reads half a million manifests.

Page n of level 0 lists the segments 1,024 (n-1) + 1 to 1,024 n of a timeline, page n of a higher level the pages of the level
below in the same way. Its manifest sums them up as one `Stretch`: enough for `status`, for windows, and to choose what a restore
needs. Its payload is their manifests' own lines, so nothing is lost when the segments' small objects are gone.

A page is written once, create-only, by whoever archives or prunes, and only for segments that are all there and follow one
another without a break: where one is missing or damaged there is no page, ever, and readers read what is left one by one.
A crash leaves a page unwritten; the next run writes it. Two writers write the same bytes but for times and signatures; one wins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from kpbackup import errors
from kpbackup.model import canonical, codec, stretch
from kpbackup.model.catalog import History
from kpbackup.model.manifest import BinlogSegment, Page, Rows
from kpbackup.pipeline import compress, stream
from kpbackup.plan import chain
from kpbackup.repository import layout, objects
from kpbackup.repository.binding import Repository

READERS = 16  # parallel GETs of small objects: enough to hide latency, few enough to stay polite
ROWS_LIMIT_BYTES = 256 << 20
_LEVEL = 3  # of zstd: rows are written once and read for years

T = TypeVar("T")


def read_segments(repository: Repository, page: Page) -> tuple[BinlogSegment, ...]:
    """The segments a page of level 0 lists, from its rows. Raises IntegrityError, StorageError."""
    found = _read_rows(repository, page, BinlogSegment)
    _expect(page, [one.head.seq for one in found], (page.stretch.first_seq, page.stretch.last_seq))
    return found


def read_pages(repository: Repository, page: Page) -> tuple[Page, ...]:
    """The pages of the level below that a page of level 1 or more lists. Raises IntegrityError, StorageError."""
    found = _read_rows(repository, page, Page)
    first = (page.head.seq - 1) * repository.page_rows + 1
    _expect(page, [one.head.seq for one in found], (first, first + repository.page_rows - 1))
    return found


def _expect(page: Page, numbers: Sequence[int], wanted: tuple[int, int]) -> None:
    if list(numbers) != list(range(wanted[0], wanted[1] + 1)):
        raise errors.IntegrityError(f"page {page.head.key} does not list what it is to list", hint="run `kpbackup check`")


def _read_rows(repository: Repository, page: Page, kind: type[T]) -> tuple[T, ...]:
    key = page.head.key
    data = repository.backend.read(key, limit_bytes=objects.MANIFEST_LIMIT_BYTES)
    _, offset = repository.judge(data, key, Page)
    packed = data[offset:]
    tally = stream.Tally((packed,))
    for _ in tally:
        pass
    if (tally.size_bytes, tally.sha256) != (page.rows.bytes, page.rows.sha256):
        raise errors.IntegrityError(f"the rows of page {key} are not those it was signed for", hint="run `kpbackup check`")
    unpack = compress.Decompressor()
    plain = bytearray()
    for piece in unpack.decompress(packed):
        plain += piece
        if len(plain) > ROWS_LIMIT_BYTES:
            raise errors.IntegrityError(f"the rows of page {key} are larger than {ROWS_LIMIT_BYTES} bytes")
    unpack.finish()
    what = f"a row of page {key}"
    return tuple(codec.decode(kind, canonical.loads(line, what=what), what=what) for line in bytes(plain).split(b"\n") if line)


def write_due(repository: Repository, history: History, pages: Sequence[Page]) -> list[Page]:
    """Writes the pages that are due, level by level; `pages` are those there that no higher one lists. What was written.

    Raises:
        StorageError, IntegrityError: a manifest that the history was made from reads differently now.
    """
    made = written = _write_level_0(repository, history)
    level = 1
    while lower := sorted([*(p for p in pages if p.level == level - 1), *made], key=lambda page: page.head.seq):
        made = _write_level(repository, history, level, lower)
        written = written + made
        level += 1
    return written


def are_due(history: History, page_rows: int) -> bool:
    """Whether a page of level 0 is to be written."""
    return len(history.segments) >= page_rows and next(_due_of_level_0(history, page_rows), None) is not None


def _due_of_level_0(history: History, page_rows: int) -> Iterator[tuple[int, list[BinlogSegment]]]:
    by_page: dict[int, list[BinlogSegment]] = {}
    for segment in history.segments:
        by_page.setdefault((segment.head.seq - 1) // page_rows + 1, []).append(segment)
    for number, segments in sorted(by_page.items()):
        if len(segments) == page_rows and _is_unbroken(history, segments):
            yield number, segments


def _write_level_0(repository: Repository, history: History) -> list[Page]:
    due = _due_of_level_0(history, repository.page_rows)
    return [_create(repository, history, 0, number, segments) for number, segments in due]


def _is_unbroken(history: History, segments: Sequence[BinlogSegment]) -> bool:
    alone = replace(history, stretches=(), segments=tuple(segments), anchor=None)
    return len(chain.runs(alone)[0]) == 1


def _write_level(repository: Repository, history: History, level: int, lower: Sequence[Page]) -> list[Page]:
    count = repository.page_rows
    by_page: dict[int, list[Page]] = {}
    for page in lower:
        by_page.setdefault((page.head.seq - 1) // count + 1, []).append(page)
    return [
        _create(repository, history, level, number, pages) for number, pages in sorted(by_page.items()) if len(pages) == count
    ]


def _create(repository: Repository, history: History, level: int, number: int, of: Sequence[Any]) -> Page:
    """Writes one page; another writer's that is there already is as good."""
    kind = Page if level else BinlogSegment
    with ThreadPoolExecutor(READERS) as pool:
        lines = list(pool.map(lambda one: _line(repository, one, kind), of))
    compressor = compress.Compressor(level=_LEVEL)
    packed = compressor.compress(b"\n".join(lines) + b"\n") + compressor.flush()
    tally = stream.Tally((packed,))
    for _ in tally:
        pass
    key = layout.page(history.id, level, number)
    now = max(datetime.now(UTC), of[-1].head.created_at)
    units = [one.stretch for one in of] if level else of
    page = Page(
        head=repository.head("page", key=key, created_at=now, timeline=history.id, seq=number),
        level=level,
        stretch=stretch.summed(units, flavour=history.timeline.flavour),
        rows=Rows(len(lines), tally.size_bytes, tally.sha256),
    )
    try:
        repository.create(page, payload=packed)
    except errors.ObjectExists:
        return repository.read(key, Page)[0]
    return page


def _line(repository: Repository, one: Any, kind: type[Any]) -> bytes:
    """The JSON line of a manifest as it is stored, judged again."""
    data = objects.read_head(repository.backend, one.head.key)
    found, _ = repository.judge(data, one.head.key, kind)
    if found != one:
        raise errors.IntegrityError(f"{one.head.key} reads differently from a moment ago", hint="run `kpbackup check`")
    return objects.line(data)
