"""Sealed segments on their way from the source to the store: a bounded queue whose bytes lie on local disk.

One thread seals and adds, another takes and stores. While the store keeps up nothing touches the disk; what has to wait
does, as sealed bytes in unlinked temporary files, so a crash leaves neither data nor files: the next run fetches what is
missing in the bucket from the source again. When `limit_bytes` wait, the adding side is held up, and with it the source's
connection.

Limits: one transaction is never cut, so a segment may be larger than the limit; it is let through when nothing else waits.
"""

from __future__ import annotations

import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from kpbackup import errors
from kpbackup.mysql.segmenter import SegmentFacts
from kpbackup.pipeline import age_texts, compress, encrypt
from kpbackup.repository.keys import FreshKey

MEMORY_BYTES = 4 << 20  # of the segment that is sealed now and the one that is stored now; those between lie on disk
MOST_WAITING = 256  # files are open as long as they wait
PIECE_BYTES = 1 << 20


class Abandoned(Exception):
    """The storing side has ended: nobody will take what is added."""


class Spool:
    """One segment being sealed: plaintext is written in, sealed bytes come out."""

    def __init__(self, key: FreshKey, backlog: Backlog) -> None:
        self.key = key
        self.size_bytes = 0
        self._backlog = backlog
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115 - closed by close()
        self._compressor = compress.Compressor()
        self._encryptor = encrypt.Encryptor((age_texts.parse_recipient(key.sealing.recipient),))

    def write(self, data: bytes) -> None:
        """Waits while too much waits to be stored. Raises LocalIOError, Abandoned."""
        self._backlog.await_room(self.size_bytes)
        self._put(self._encryptor.encrypt(self._compressor.compress(data)))

    def finish(self) -> None:
        self._put(self._encryptor.encrypt(self._compressor.flush()) + self._encryptor.flush())

    def pieces(self) -> Iterator[bytes]:
        self._file.seek(0)
        while piece := self._file.read(PIECE_BYTES):
            yield piece

    def to_disk(self) -> None:
        try:
            self._file.rollover()  # type: ignore[attr-defined]  # of SpooledTemporaryFile
        except OSError as exc:
            raise _disk_error(exc) from exc

    def close(self) -> None:
        self._file.close()

    def _put(self, data: bytes) -> None:
        self.size_bytes += len(data)
        try:
            self._file.write(data)
        except OSError as exc:
            raise _disk_error(exc) from exc


def _disk_error(exc: OSError) -> errors.LocalIOError:
    return errors.LocalIOError(
        f"cannot spool a binlog segment in {tempfile.gettempdir()}: {exc.strerror}",
        hint="free space there, or set TMPDIR or a smaller archive.spool_bytes; nothing archived so far is lost",
    )


@dataclass(frozen=True)
class Sealed:
    """A finished segment, ready to be stored."""

    facts: SegmentFacts
    spool: Spool


class Backlog:
    """The queue between the two threads."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._waiting: deque[Sealed] = deque()
        self._changed = threading.Condition()
        self._waiting_bytes = 0
        self._has_ended = self._is_abandoned = False
        self._error: BaseException | None = None

    @property
    def waiting(self) -> tuple[int, int]:
        """(segments, bytes) that wait."""
        with self._changed:
            return len(self._waiting), self._waiting_bytes

    # -- the adding side

    def await_room(self, open_bytes: int) -> None:
        """Returns when a segment that has so many bytes already may grow."""
        with self._changed:
            while not self._is_abandoned and self._waiting and self._is_full(open_bytes):
                self._changed.wait()
            if self._is_abandoned:
                raise Abandoned

    def add(self, sealed: Sealed) -> None:
        """Raises LocalIOError when it had to go to disk and could not; Abandoned."""
        with self._changed:
            if self._is_abandoned:
                raise Abandoned
            if self._waiting:
                sealed.spool.to_disk()
            self._waiting.append(sealed)
            self._waiting_bytes += sealed.spool.size_bytes
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more comes, because of `error` or because all is there."""
        with self._changed:
            self._has_ended, self._error = True, error
            self._changed.notify_all()

    # -- the storing side

    def first(self, timeout_s: float | None = None) -> Sealed | None:
        """The segment to store next; it waits on until `drop_first`. None after `timeout_s` without one, or when all is stored.

        Raises: what ended the adding side, once all it added before is stored.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._has_ended, timeout_s)
            if self._waiting:
                return self._waiting[0]
            if self._error is not None:
                raise self._error
            return None

    def drop_first(self) -> None:
        """The first segment is stored."""
        with self._changed:
            sealed = self._waiting.popleft()
            sealed.spool.close()
            self._waiting_bytes -= sealed.spool.size_bytes
            self._changed.notify_all()

    @property
    def is_finished(self) -> bool:
        """Whether everything that will ever come is stored."""
        with self._changed:
            return self._has_ended and not self._waiting

    def abandon(self) -> None:
        """Nothing more is stored; what waits is thrown away."""
        with self._changed:
            self._is_abandoned = True
            for sealed in self._waiting:
                sealed.spool.close()
            self._waiting.clear()
            self._waiting_bytes = 0
            self._changed.notify_all()

    def _is_full(self, open_bytes: int) -> bool:
        return self._waiting_bytes + open_bytes >= self._limit_bytes or len(self._waiting) >= MOST_WAITING
