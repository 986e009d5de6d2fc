"""`kpbackup daemon` and what it shares with `kpbackup exporter`: SIGTERM and Ctrl-C end both in order, with exit code 0."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from kpbackup.cli import context

if TYPE_CHECKING:
    from kpbackup.config import Settings


def daemon(
    ctx: typer.Context,
    init: Annotated[
        bool, typer.Option("--init", help="Create the repository first when there is none; the signing key must be there.")
    ] = False,
) -> None:
    """Run schedules, archive the binlog, serve /metrics and /api/health; until SIGTERM or Ctrl-C.

    A job that is running then is stopped at a safe point within 20 seconds. A second signal ends the process at once.
    """
    serve(context.of(ctx), "run_daemon", init=init)


def serve(room: context.Context, name: str, *, init: bool = False) -> None:
    """Runs `run_daemon` or `run_exporter` when all required files are there, until a signal ends it."""
    room.may_wait = True
    settings = room.settings
    with until_signalled() as stop:
        if settings.missing_files():
            from kpbackup.service.waiting import wait_for_files

            if not wait_for_files(settings, stop):
                return
        from kpbackup.service import daemon, founding

        if init:
            founding.ensure(settings)
        run: Callable[[Settings, threading.Event], bool] = getattr(daemon, name)
        leave(has_ended=run(settings, stop))


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
