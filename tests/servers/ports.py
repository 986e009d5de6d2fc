"""Free TCP ports of 127.0.0.1.

Idea: ports below the kernel's range for outgoing connections, so that no client of ours takes the port of a server which is
down between a kill and a restart. A port is only free at the moment of looking: whoever starts a server tries again on a clash.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Sequence

FIRST_PORT = 12_000
_STRIPE = 2_500  # of each process of a run in several, so that they do not draw the same ports
LAST_PORT = 22_000  # SeaweedFS listens on port + 10,000 too; Linux hands out 32,768 and up by itself

_random = random.SystemRandom()  # two test runs side by side must not draw the same series
_given: set[int] = set()  # within one process no port is given twice, so a killed server finds its own again


def free_port(*, offsets: Sequence[int] = (0,)) -> int:
    """A port for which port + each offset is free and was not given before.

    Raises:
        RuntimeError: 200 draws found none.
    """
    first, last = _range(os.environ.get("PYTEST_XDIST_WORKER", ""))
    for _ in range(200):
        port = _random.randrange(first, last)
        wanted = {port + offset for offset in offsets}
        if not wanted & _given and all(_is_free(number) for number in wanted):
            _given.update(wanted)
            return port
    raise RuntimeError(f"no free port between {FIRST_PORT} and {LAST_PORT} on 127.0.0.1")


def _range(worker: str) -> tuple[int, int]:
    """The ports of a process: all of them for one that is alone, else a part."""
    if not worker:
        return FIRST_PORT, LAST_PORT
    stripes = (LAST_PORT - FIRST_PORT) // _STRIPE
    first = FIRST_PORT + int(worker.removeprefix("gw")) % stripes * _STRIPE
    return first, first + _STRIPE


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
