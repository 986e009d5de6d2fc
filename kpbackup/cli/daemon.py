"""`kpbackup daemon` and what it shares with `kpbackup exporter`: SIGTERM and Ctrl-C end both in order, with exit code 0."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from kpbackup.cli import context


def daemon(ctx: typer.Context) -> None:
    """Run schedules, archive the binlog, serve /metrics and /api/health; until SIGTERM or Ctrl-C.

    A job that is running then is stopped at a safe point within 20 seconds. A second signal ends the process at once.
    """
    room = context.of(ctx)
    settings = room.settings
    from kpbackup.service.daemon import run_daemon

    with until_signalled() as stop:
        leave(has_ended=run_daemon(settings, stop))


def leave(*, has_ended: bool) -> None:
    """Ends the process with 0 when a thread hangs in a network call: the interpreter itself would wait for it."""
    if not has_ended:
        logging.shutdown()
        os._exit(0)


@contextmanager
def until_signalled() -> Iterator[threading.Event]:
    """An event that the first SIGTERM or SIGINT sets; a second one interrupts."""
    stop = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
