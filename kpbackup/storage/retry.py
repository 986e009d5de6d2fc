"""When a call to a store is repeated: the one retry layer of kpbackup.

Waits grow from 0.25 s to 8 s and are jittered, so that many writers do not come back at once.
Which errors are worth it is the caller's knowledge (`s3_errors.is_transient`).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class RetryPolicy:
    """`attempts` includes the first; none begins later than `give_up_after_s` after the first."""

    attempts: int = 6
    first_delay_s: float = 0.25
    longest_delay_s: float = 8.0
    give_up_after_s: float = 180.0

    def pace(self, stop: threading.Event | None = None) -> Iterator[bool]:
        """Yields once per attempt, waiting between them; True says that no other follows.

        Ends early, maybe without a last attempt, when `stop` is set by another thread.
        """
        event = stop or threading.Event()
        begun = time.monotonic()
        for attempt in range(1, self.attempts + 1):
            if event.is_set():
                return
            last = attempt == self.attempts or time.monotonic() - begun > self.give_up_after_s
            yield last
            if last:
                return
            longest = min(self.longest_delay_s, self.first_delay_s * 2 ** (attempt - 1))
            event.wait(longest * random.uniform(0.5, 1.0))  # noqa: S311 - jitter is no secret
