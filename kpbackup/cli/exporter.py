"""`kpbackup exporter`: the web server of the daemon without its jobs, where CronJobs make the backups."""

from __future__ import annotations

import typer

from kpbackup.cli import context
from kpbackup.cli.daemon import leave, until_signalled


def exporter(ctx: typer.Context) -> None:
    """Serve /metrics and /api/health of a repository without running any job; until SIGTERM or Ctrl-C."""
    settings = context.of(ctx).settings
    from kpbackup.service.daemon import run_exporter

    with until_signalled() as stop:
        leave(has_ended=run_exporter(settings, stop))
