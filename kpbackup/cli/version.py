"""`kpbackup version` and `kpbackup --version`: what runs here, for a report of a defect."""

from __future__ import annotations

import platform

import typer

import kpbackup
from kpbackup.cli import context


def version(ctx: typer.Context, json: context.JsonOption = False) -> None:
    """Print the version of kpbackup, and of Python and the system it runs on."""
    room = context.of(ctx, json=json)
    room.printer.show(_facts(), line())


def line() -> str:
    """All of it in one line."""
    facts = _facts()
    return f"kpbackup {facts['version']} (Python {facts['python']}, {facts['system']})"


def _facts() -> dict[str, str]:
    return {
        "version": kpbackup.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
