"""`kpbackup exporter`: the web server of the daemon without its jobs, where CronJobs make the backups."""

from __future__ import annotations

import typer

from kpbackup.cli import context
from kpbackup.cli.daemon import serve


def exporter(ctx: typer.Context) -> None:
    """Serve /metrics and /api/health of a repository without running any job; until SIGTERM or Ctrl-C."""
    serve(context.of(ctx), "run_exporter")
