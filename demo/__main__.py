"""`python -m demo`: plays the story once.

Environment: SIZE (tiny, small, medium or large; default small), KEEP (any text: leave it all running).

Exit code 0 when everything agreed, 1 when something did not, 130 after Ctrl-C, 143 after SIGTERM.

KEEP: servers must never outlive the process that started them, so it is a child of ours that plays the story and stays, while
we leave with its exit code. `kill` of that child, whose number is printed, takes everything down.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from demo import data, stage
from demo.narrator import DemoFailed, Narrator
from demo.story import Story

PROGRAM = Path(sysconfig.get_path("scripts")) / "kpbackup"
USAGE_CODE = 2


def main() -> int:
    """Plays the demo; returns the exit code."""
    size = os.environ.get("SIZE") or "small"
    if size not in data.SIZES:
        print(f"demo: SIZE={size} is not one of {', '.join(data.SIZES)}", file=sys.stderr)
        return USAGE_CODE
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    if os.environ.get("KEEP"):
        return _in_child(size)
    return _play(size, at_end=lambda played, code: None)


def _play(size: str, *, at_end: Callable[[stage.Stage, int], None]) -> int:
    code = 1
    try:
        started = time.monotonic()
        print(f"Set-up: MariaDB, S3 server and a database of size {size} ...", flush=True)
        with stage.stage(is_large=size not in ("tiny", "small")) as played:
            story = Story(played, Narrator(PROGRAM), size)
            try:
                story.set_up()
                print(f"Set-up took {time.monotonic() - started:.1f} s; it lives in {played.directory}", flush=True)
                code = _told(story)
            finally:
                story.close()
            at_end(played, code)
            print("\nStopping the servers and removing the directory.", flush=True)
    except KeyboardInterrupt:
        print("\ndemo: interrupted; everything is stopped and removed", file=sys.stderr)
        return 128 + signal.SIGINT
    return code


def _told(story: Story) -> int:
    try:
        story.tell()
    except (DemoFailed, RuntimeError) as failure:
        print(f"\nDEMO FAILED: {failure}", file=sys.stderr, flush=True)
        return 1
    return 0


def _in_child(size: str) -> int:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        return _play(size, at_end=lambda played, result: _stay(played, result, writing))
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = _read_through_signals(pipe, child)
    if told:
        return int(told)  # the story is over and the child stays
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _read_through_signals(pipe: BinaryIO, child: int) -> bytes:
    while True:
        try:
            return pipe.read()
        except KeyboardInterrupt:
            continue  # the terminal told the child too, and it is taking everything down
        except SystemExit:
            os.kill(child, signal.SIGTERM)


def _stay(played: stage.Stage, code: int, pipe: int) -> None:
    """Tells how to look around, lets the parent go, and waits for the signal that ends it all."""
    if not played.source.is_running:
        played.source.start()
    print(_guide(played), flush=True)
    os.setsid()
    os.write(pipe, str(code).encode())
    os.close(pipe)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    threading.Event().wait()


def _guide(played: stage.Stage) -> str:
    target, client = played.target, "mariadb --default-character-set=utf8mb4 -uroot -h127.0.0.1"
    restored = f"  the restored database        {client} -P{target.port} {data.DATABASE}\n" if target else ""
    environ = played.recovery.file("environment")
    settings = {name: value for name, value in played.recovery.environ.items() if name.startswith(("AWS_", "KPBACKUP_"))}
    environ.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in settings.items()))
    return (
        f"\nKEEP: all of it keeps running in {played.directory}\n{restored}"
        f"  the source, restarted        {client} -P{played.source.port} {data.DATABASE}\n"
        f"  kpbackup, on that machine    . {shlex.quote(str(environ))}; {shlex.quote(str(PROGRAM))} recoveries\n"
        f"  to end it and remove it all  kill {os.getpid()}"
    )


def _leave(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
