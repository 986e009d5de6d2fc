"""What `check` and `prune` leave in the repository of their end: their process is gone when others serve the metrics."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from kpbackup import errors

if TYPE_CHECKING:
    from kpbackup.repository.binding import Repository


def report(repository: Repository, verb: str, *, started_at: datetime, passed: bool, figures: Mapping[str, int]) -> None:
    """Leaves the report. An account that may only read still gets its answer, and is told that nobody else will know of it."""
    from kpbackup.repository import reports

    try:
        reports.leave(repository, verb, started_at=started_at, passed=passed, figures=figures)
    except errors.KpbackupError as exc:
        told = f"status and metrics will not know of this {verb}, its report could not be left: {exc.message}"
        print(f"warning: {told}", file=sys.stderr)
