"""Sealing beside capturing: a thread that compresses and encrypts what the capture hands over, while that receives the next.

Both spend most of their time where Python lets another thread run, so a source that gives enough keeps two processors busy.
What waits between them is bounded: `WAITING_BYTES`, and a piece larger than that is handed over only to be sealed at once.

An error of sealing (no space for the spool, nobody stores any more) is raised in the thread that hands over, at its next call or
when it leaves. A crash leaves nothing: see backlog.py.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType

from kpbackup.backup.backlog import Backlog, Sealed, Spool
from kpbackup.mysql.segmenter import SegmentFacts

WAITING_BYTES = 4 << 20


class Sealer:
    """The thread. Use as a context manager: leaving it seals what was handed over, and raises what went wrong with that."""

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog
        self._waiting: deque[tuple[Spool, bytes | SegmentFacts]] = deque()
        self._waiting_bytes = 0  # with the piece that is being sealed
        self._changed = threading.Condition()
        self._has_ended, self._is_idle = False, True
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="sealing", daemon=True)

    def write(self, spool: Spool, data: bytes) -> None:
        """The next bytes of the segment that goes into `spool`. Raises LocalIOError, Abandoned."""
        size = len(data)
        with self._changed:
            self._changed.wait_for(lambda: self._error or not self._waiting_bytes or self._waiting_bytes + size <= WAITING_BYTES)
            self._hand_over(spool, data, size)
            if size > WAITING_BYTES:
                self._changed.wait_for(lambda: self._error or not self._waiting_bytes)
                self._raise()

    def finish(self, spool: Spool, facts: SegmentFacts) -> None:
        """The segment is complete: once sealed it goes to the backlog. Raises as write."""
        with self._changed:
            self._hand_over(spool, facts, 0)

    @property
    def is_idle(self) -> bool:
        """Whether everything handed over is sealed, and what is complete of it in the backlog."""
        with self._changed:
            return self._is_idle

    def _hand_over(self, spool: Spool, item: bytes | SegmentFacts, size: int) -> None:
        self._raise()
        self._waiting.append((spool, item))
        self._waiting_bytes += size
        self._is_idle = False
        self._changed.notify_all()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        item = None
        try:
            while (item := self._next()) is not None:
                self._seal(*item)
        except BaseException as exc:  # raised again in the thread that hands over
            with self._changed:
                self._error = exc
                for spool, _ in (*self._waiting, *((item,) if item else ())):
                    spool.close()
                self._changed.notify_all()

    def _next(self) -> tuple[Spool, bytes | SegmentFacts] | None:
        with self._changed:
            self._is_idle = not self._waiting
            self._changed.wait_for(lambda: self._waiting or self._has_ended)
            return self._waiting.popleft() if self._waiting else None

    def _seal(self, spool: Spool, item: bytes | SegmentFacts) -> None:
        if isinstance(item, SegmentFacts):
            spool.finish()
            self._backlog.add(Sealed(item, spool))
            return
        spool.write(item)
        with self._changed:
            self._waiting_bytes -= len(item)
            self._changed.notify_all()

    def __enter__(self) -> Sealer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()
        self._thread.join()
        self._raise()
