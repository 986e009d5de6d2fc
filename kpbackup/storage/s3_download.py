"""Reading one object as a stream that survives broken connections.

Idea: what comes is counted; a body that ends early is asked for again from where it broke, by range
and only if the etag is still the same. Pieces that made it through are never fetched twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from kpbackup import errors
from kpbackup.storage import s3_errors
from kpbackup.storage.retry import RetryPolicy

PIECE_BYTES = 256 << 10
PROGRESS_BYTES = 1 << 20  # so much must arrive before a broken connection counts as the first again


class Opener(Protocol):
    """One GetObject, not retried; failures as they come."""

    def __call__(self, **parameters: object) -> dict[str, Any]: ...


class Download:
    """The bytes of a range [offset, end), `end` None for all there is. Iterate once."""

    def __init__(self, opener: Opener, retry: RetryPolicy, *, doing: str, store: str, offset: int, end: int | None) -> None:
        self._open = opener
        self._retry = retry
        self._doing, self._store = doing, store
        self._position, self._end = offset, end
        self._etag = ""

    def __iter__(self) -> Iterator[bytes]:
        pace, counted_from = self._retry.pace(), self._position
        while True:
            last = next(pace)
            try:
                yield from self._answer()
            except s3_errors.FAILURES as exc:
                if self._position - counted_from >= PROGRESS_BYTES:
                    pace, counted_from = self._retry.pace(), self._position
                    next(pace)
                    last = False
                if last or not s3_errors.is_transient(exc):
                    raise self._error(exc) from exc
            else:
                return

    def _answer(self) -> Iterator[bytes]:
        """The pieces of one answer, which may break off."""
        wanted: dict[str, object] = {}
        if self._position or self._end is not None:
            wanted["Range"] = f"bytes={self._position}-" + ("" if self._end is None else str(self._end - 1))
        if self._etag:
            wanted["IfMatch"] = self._etag
        try:
            answer = self._open(**wanted)
        except s3_errors.FAILURES as exc:
            if s3_errors.code_of(exc) in ("InvalidRange", "416"):
                return  # begins at or behind the end: nothing, as a slice
            raise
        self._etag = answer["ETag"]
        body = answer["Body"]
        if "Range" in wanted and answer["ResponseMetadata"]["HTTPStatusCode"] != 206:
            body.close()
            raise errors.NotSupported(f"cannot {self._doing} at {self._store}: the store ignores byte ranges")
        try:
            while piece := body.read(PIECE_BYTES):  # raises IncompleteReadError if less came than was announced
                self._position += len(piece)
                yield piece
        finally:
            body.close()

    def _error(self, exc: Exception) -> errors.StorageError:
        if self._etag and (s3_errors.is_precondition(exc) or s3_errors.is_missing(exc)):
            return errors.StorageError(f"cannot {self._doing} at {self._store}: it was replaced or deleted while it was read")
        error = s3_errors.translate(exc, self._doing, self._store)
        if self._etag:
            error.add_note(f"after {self._position} bytes")
        return error
