"""Tells those in `notify` how a one-shot verb ended: a failure always, a recovery or drill also when it ended well.

A verb's own outcome and exit code never depend on it: what cannot be told is logged. The process waits for the last message,
at most WAIT_S. What was only refused (no confirmation, another holder's lease, a wrong option) is not told.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import typer

from kpbackup import errors, logs
from kpbackup.cli import context

if TYPE_CHECKING:
    from kpbackup.service.notify import Notifier

WAIT_S = 30.0
REFUSALS = (errors.UsageError, errors.ConfirmationNeeded, errors.ManualStepWaiting, errors.LeaseHeld)

logger = logging.getLogger(__name__)


def telling(function: Callable[..., Any], kind: str) -> Callable[..., Any]:
    """The verb's function, with its end told."""

    @functools.wraps(function)
    def told(ctx: typer.Context, **options: Any) -> Any:
        try:
            outcome = function(ctx, **options)
        except REFUSALS:
            raise
        except (errors.KpbackupError, OSError) as exc:
            _with_notifier(context.of(ctx), functools.partial(_failed, kind=kind, error=exc))
            raise
        room = context.of(ctx)
        _with_notifier(room, functools.partial(_succeeded, kind=kind, answer=room.printer.answer))
        return outcome

    return told


def _with_notifier(room: context.Context, act: Callable[[Notifier], None]) -> None:
    if "settings" not in vars(room) or not room.settings.notify.is_used:
        return  # the settings themselves were wrong, or nobody is to be told
    from kpbackup.service import notify

    try:
        notifier = notify.notifier(room.settings, _source(room), os.environ)
    except errors.KpbackupError as exc:
        logs.event(logger, "notification_lost", level=logging.ERROR, channel="all", reason=exc.message)
        return
    act(notifier)
    notifier.close(WAIT_S)


def _source(room: context.Context) -> str:
    """What messages are about; a reader has no source, only a repository."""
    settings = room.settings
    if settings.source is not None:
        return settings.source.label
    return settings.repository.url if settings.repository is not None else "kpbackup"


def _failed(notifier: Notifier, *, kind: str, error: BaseException) -> None:
    from kpbackup.service.job_news import told

    occasion = kind if kind in ("recovery", "drill") else "failure"
    notifier.tell(occasion, kind=kind, level="error", title=f"{kind} failed", text=told(error))


def _succeeded(notifier: Notifier, *, kind: str, answer: Mapping[str, object]) -> None:
    if answer.get("dry_run"):
        return
    notifier.succeeded(kind)
    if kind == "recovery" and "run" not in answer:
        return  # a plan was shown, nothing was restored
    if kind in ("recovery", "drill"):
        facts = ("run", "recovered_to", "measured_rto_seconds")
        text = "\n".join(f"{name.replace('_', ' ')}: {logs.plain(answer[name])}" for name in facts if name in answer)
        notifier.tell(kind, kind=kind, level="info", title=f"{kind} ended well", text=text)
