"""What a soak does to which job in which round: the seed alone decides."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.servers.faulty_proxy import Fault, refusal

JOBS = {"full": 1, "incremental": 3, "prune": 1, "check": 1}  # how often, beside each other
FAULTS = {
    "kill": 30,  # SIGKILL
    "500": 10, "503": 10,  # refusals, once to four times in a row: a job tries again up to a point
    "cut": 8,  # an answer ends after forty bytes
    "lost answer": 10,  # the store did the work, and the connection ended
    "lie": 10,  # a write is confirmed and was never made
    "delay": 6,  # an answer comes a second late
    "stall": 0.3,  # an answer never ends: a job waits a minute for it
    "source crash": 12,  # kill -9 of the server, which is started again
    "line drops": 8, "line stalls": 3, "line is slow": 4,  # the network between kpbackup and the source
    "our clock jumps": 6, "source's clock jumps": 6,  # seconds to minutes, forwards or back, and back again after the round
    "none": 5,
}
WITHOUT_SOURCE = ("prune", "check")  # these never ask it
_OF_SOURCE = ("source crash", "line drops", "line stalls", "line is slow", "source's clock jumps")
BYTES = {"full": 12_000, "incremental": 800}  # what about comes from the source for one request to the store
REQUESTS = {"full": 26, "incremental": 18, "prune": 45, "check": 45, "restore": 60}  # about how many a job sends
_PASSES = Fault(b"", after_bytes=1 << 40)
_CONFIRMED = b'HTTP/1.1 200 OK\r\nETag: "00000000000000000000000000000000"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'


@dataclass(frozen=True)
class Round:
    number: int
    job: str
    fault: str
    at: int  # the request that is hit
    times: int = 1  # so many requests in a row
    jump_s: int = 0  # of a clock


def rounds(seed: int) -> Iterator[Round]:
    """All rounds of a seed, without end."""
    place = random.Random(seed)
    number = 0
    while True:
        number += 1
        (job,) = place.choices(tuple(JOBS), tuple(JOBS.values()))
        possible = {name: weight for name, weight in FAULTS.items() if name not in _OF_SOURCE or job not in WITHOUT_SOURCE}
        (fault,) = place.choices(tuple(possible), tuple(possible.values()))
        at, times = place.randint(1, REQUESTS[job]), place.randint(1, 4)
        jump_s = place.choice((-1, 1)) * place.choice((2, 60, 600))  # stores refuse requests of a clock that is 15 minutes off
        yield Round(number, job, fault, at, times, jump_s if fault.endswith("clock jumps") else 0)


def answers(one: Round) -> list[Fault]:
    """What the proxy before the store does in a round: one fault a request, and those before the one to hit pass."""
    passing = [_PASSES] * (one.at - 1)
    match one.fault:
        case "500":
            return [*passing, *[Fault(b"", answer=refusal(500, "InternalError"))] * one.times]
        case "503":
            return [*passing, *[Fault(b"", answer=refusal(503, "SlowDown"))] * one.times]
        case "cut":
            return [*passing, Fault(b"", after_bytes=40)]
        case "lost answer":
            return [*passing, Fault(b"")]
        case "stall":
            return [*passing, Fault(b"", after_bytes=40, stalls=True)]
        case "lie":
            return [*passing, Fault(b"PUT ", answer=_CONFIRMED)]
    return []
