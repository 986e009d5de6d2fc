"""What a verb works with: settings read when first asked for, a printer for its answer, logs set up.

    def status(ctx: typer.Context, json: JsonOption = False) -> int:
        room = context.of(ctx, json=json)
        ... room.settings.need_repository() ...
        room.printer.show(document, table)

Limits: one per process, on the main thread. Nothing is written, so a crash leaves nothing behind.
"""

from __future__ import annotations

import functools
import logging
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kpbackup import errors, logs
from kpbackup.cli import render

if TYPE_CHECKING:
    from kpbackup import config

logger = logging.getLogger(__name__)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


@dataclass
class Context:
    """The global options, and what is made from them. `overrides` are settings given on the command line, dotted key -> value."""

    config_path: str | None = None
    overrides: dict[str, object] = field(default_factory=dict)
    printer: render.Printer = field(default_factory=render.Printer)
    copy: str | None = None  # the copy to work on instead of the repository itself
    may_wait: bool = False  # the verb itself waits for service.required_files

    @functools.cached_property
    def settings(self) -> config.Settings:
        """File, environment and options, read once.

        Raises:
            SettingsError: see `config.load`; there are none; or one of service.required_files is missing, unless `may_wait`.
        """
        from kpbackup import config  # pydantic and yaml: not for --help and version

        settings = config.load(self.config_path, os.environ, overrides=self.overrides)
        config.refuse_nothing(self.config_path, os.environ, settings)
        settings = settings.of_copy(self.copy) if self.copy is not None else settings
        logs.setup(format=settings.log.format, level=settings.log.level)
        missing = settings.missing_files()
        for file in missing:
            logs.event(logger, "file_missing", level=logging.ERROR, origin=file.origin, path=file.path)
        if missing and not self.may_wait:
            told = "; ".join(f"{file.origin} is missing ({file.path})" for file in missing)
            raise errors.SettingsError(told, hint="create it, then run this again (service.required_files)")
        for key, path in settings.exposed_files():
            logs.event(logger, "secret_file_exposed", level=logging.WARNING, setting=key, path=path, remedy=f"chmod o-r {path}")
        return settings

    def override(self, key: str, value: object) -> None:
        """Lets an option of a verb beat environment and file; before `settings` is first used. None changes nothing."""
        if value is not None:
            self.overrides[key] = value


def of(ctx: typer.Context, *, json: bool = False) -> Context:
    """The context of the running verb; `json` is the verb's own --json."""
    room: Any = ctx.find_root().obj
    if json:
        room.printer.json = True
    assert isinstance(room, Context)
    return room
