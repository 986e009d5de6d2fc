"""A bandwidth limit that several processes share: together they pass no more, and what one leaves over another may use.

A small file in memory, which has no name, holds the moment up to which the bytes counted so far fill the line, on the
machine's monotonic clock. Who counts more bytes moves it on under a lock and waits until it is reached. An idle process moves
nothing, so the others have its share; a pause is not saved up for a burst.

Guaranteed: over any stretch of time the processes count at most rate x time, and one piece each (what `count` was told and
is still waiting for). Bytes are counted as they are taken from the socket: what the kernels' buffers hold may be on its way
beside them. A crash leaves nothing: the file is gone with the last process that has it open.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kpbackup import errors

_MOMENT = struct.Struct("<d")


class Pace:
    """One process's view of a shared limit; `path` is the file of `shared`. Not for several threads."""

    def __init__(
        self, path: str, *, bytes_per_second: float, clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = bytes_per_second
        self._clock, self._sleep = clock, sleep
        try:
            self._file = open(path, "r+b", buffering=0)  # noqa: SIM115 - as long as the process
        except OSError as exc:
            raise errors.LocalIOError(f"cannot open {path}, which holds the bandwidth limit: {exc.strerror}") from exc

    def count(self, size_bytes: int) -> None:
        """Waits until so many more bytes fit under the limit."""
        now = self._clock()
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            (filled,) = _MOMENT.unpack(os.pread(self._file.fileno(), _MOMENT.size, 0))
            filled = max(filled, now) + size_bytes / self._rate
            os.pwrite(self._file.fileno(), _MOMENT.pack(filled), 0)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        if filled > now:
            self._sleep(filled - now)

    def close(self) -> None:
        self._file.close()


@contextmanager
def shared() -> Iterator[str]:
    """The path of the file that processes share, for as long as the block runs: this one and those it starts.

    Raises:
        LocalIOError: the system refuses.
    """
    try:
        file = open(os.memfd_create("kpbackup-pace"), "r+b", buffering=0)  # noqa: SIM115 - the block below closes it
        file.write(_MOMENT.pack(0.0))
    except OSError as exc:
        raise errors.LocalIOError(f"cannot make what a bandwidth limit needs: {exc.strerror}", hint="free memory") from exc
    with file:
        # each opens it anew and not by an inherited descriptor: locks go by what was opened
        yield f"/proc/{os.getpid()}/fd/{file.fileno()}"
