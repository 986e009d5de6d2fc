"""`python -m tests.fuzzing [NAME ...]`: a million changed inputs for every parser of bytes from outside; without names for all.

Plain mutations of real bytes (mutation.py), many times quicker than hypothesis, which looks for small counterexamples. Each input
has ten seconds of processor time: more is a hang; a process that would take more than two gigabytes is out of memory.

A failure is one line with the input in hexadecimal, and the next parser goes on. Environment: INPUTS (1,000,000) for each parser,
SEED (1), SECONDS of processor time for each parser (none). With KEEP set to anything, or with all parsers and a million inputs,
the figures are kept as docs/evidence/fuzz.json and in docs/reliability.md. Exit code 1 when a parser failed.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys
import time
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from bench import machine
from soak import pages
from tests.fuzzing.mutation import mutations
from tests.fuzzing.parsers import PARSERS, Parser

INPUTS = 1_000_000
PATIENCE_S = 10.0
MEMORY_BYTES = 2 << 30
SHOWN_BYTES = 400  # of a failing input; the seed gives all of it again


class Hang(BaseException):
    """Not an Exception: no parser may take it for bad input."""


def _on_alarm(number: int, frame: FrameType | None) -> None:
    raise Hang


def fuzz(
    name: str, parser: Parser, *, inputs: int, seed: int, seconds: float, patience_s: float = PATIENCE_S
) -> dict[str, Any]:
    """Feeds one parser; what came of it."""
    signal.signal(signal.SIGVTALRM, _on_alarm)
    began, done, failure = time.process_time(), 0, ""
    for data in mutations(parser.originals, f"{seed}/{name}"):
        if done >= inputs or (done % 256 == 0 and time.process_time() - began > seconds):
            break
        signal.setitimer(signal.ITIMER_VIRTUAL, patience_s)
        try:
            parser.feed(data)
        except (Exception, Hang) as exc:
            failure = f"input {done}: {type(exc).__name__}: {str(exc)[:200]}: {data[:SHOWN_BYTES].hex()}"
            break
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        done += 1
    return {"inputs": done, "cpu_seconds": round(time.process_time() - began, 1), "failure": failure}


def run(names: list[str], *, inputs: int, seed: int, seconds: float) -> dict[str, Any]:
    """All of `names`, in order."""
    found = {}
    for name in names:
        found[name] = fuzz(name, PARSERS[name], inputs=inputs, seed=seed, seconds=seconds)
        print(f"{name}: {found[name]['inputs']:,} inputs, {found[name]['cpu_seconds']} s {found[name]['failure']}", flush=True)
    return found


def main(names: list[str]) -> int:
    if unknown := sorted(set(names) - set(PARSERS)):
        print(f"fuzzing: no parser {', '.join(unknown)}; there are {', '.join(PARSERS)}", file=sys.stderr)
        return 2
    logging.disable()  # a web server writes a line for each request
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    inputs, seed = int(os.environ.get("INPUTS") or INPUTS), int(os.environ.get("SEED") or 1)
    made_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    facts = {"made_at": made_at, **machine.commit(), "seed": seed, "machine": machine.facts()}
    found = run(names or list(PARSERS), inputs=inputs, seed=seed, seconds=float(os.environ.get("SECONDS") or "inf"))
    if any(one["failure"] for one in found.values()):
        return 1
    if os.environ.get("KEEP") or (inputs >= INPUTS and not names):
        kept = json.loads(pages.FUZZING.read_text(encoding="utf-8"))["parsers"] if names and pages.FUZZING.exists() else {}
        every = kept | {name: {**one, "commit": facts["commit"]} for name, one in found.items()}
        document = {**facts, "parsers": {name: every[name] for name in PARSERS if name in every}}
        pages.FUZZING.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        return pages.main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
