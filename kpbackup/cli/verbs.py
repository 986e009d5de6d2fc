"""The verbs of the command line, in one table, each imported only when it runs.

A line of `VERBS` is `"name": Verb(module, function, help)`; `"backup full"` is the verb `full` of the group `backup`.
A group that is also a verb (`restore` beside `restore database`) runs its own function when no verb of it follows.
The function is an ordinary typer command: its annotated parameters are the options, its docstring the long help,
and what it returns (None or an int) the exit code. `kpbackup --help` reads this table alone and imports no verb.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import typer
import typer.core
import typer.main

from kpbackup.cli.examples import EXAMPLES

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


@dataclass(frozen=True)
class Verb:
    """Where a verb's function is, and the one line `--help` shows for it."""

    module: str
    function: str
    help: str

    def load(self) -> Callable[..., Any]:
        """The function; this import is the start-up cost of the verb."""
        found: Callable[..., Any] = getattr(importlib.import_module(self.module), self.function)
        return found


VERBS: dict[str, Verb] = {
    "init": Verb("kpbackup.cli.init", "init", "Create the keys and an empty repository."),
    "backup full": Verb("kpbackup.cli.backup", "full", "Take a full backup now."),
    "backup incremental": Verb("kpbackup.cli.backup", "incremental", "Archive the binlog up to now."),
    "backup application": Verb("kpbackup.cli.backup", "application", "Keep Secrets, ConfigMaps and release of the application."),
    "daemon": Verb("kpbackup.cli.daemon", "daemon", "Run schedules, archive the binlog, serve metrics and health."),
    "exporter": Verb("kpbackup.cli.exporter", "exporter", "Serve metrics and health without running any job."),
    "list": Verb("kpbackup.cli.list", "list_", "List recoverable windows, backup sets and the archive."),
    "status": Verb("kpbackup.cli.status", "status", "Judge recovery point, chains and schedules against the objectives."),
    "restore": Verb("kpbackup.cli.restore", "restore", "Recover in five steps: prepare, database, deploy, verify, switch."),
    "restore prepare": Verb("kpbackup.cli.restore", "prepare", "Step 1: judge the plan, make the target ready."),
    "restore database": Verb("kpbackup.cli.restore", "database", "Steps 1 and 2: bring the database back and stop."),
    "restore deploy": Verb("kpbackup.cli.restore", "deploy", "Step 3 of a run alone."),
    "restore verify": Verb("kpbackup.cli.restore", "verify", "Step 4 of a run alone."),
    "restore switch": Verb("kpbackup.cli.restore", "switch", "Step 5 of a run alone."),
    "restore revert": Verb("kpbackup.cli.revert", "revert", "Take a finished switch back, byte for byte."),
    "drill": Verb("kpbackup.cli.drill", "drill", "Restore a random point on a scratch server, verify it, record the result."),
    "drill failover": Verb("kpbackup.cli.drill", "failover", "Prove that the archive went on across the last change of primary."),
    "drill scale": Verb("kpbackup.cli.drill", "scale", "Measure the RTO at 2 and 4 times the data."),
    "forecast": Verb("kpbackup.cli.forecast", "forecast", "Tell growth, until when the RTO holds, and the cost."),
    "recoveries": Verb("kpbackup.cli.recoveries", "recoveries", "List recoveries, or show the journal of one."),
    "find": Verb("kpbackup.cli.find", "find", "Search the archive: when was what changed, and how to stop before it."),
    "check": Verb("kpbackup.cli.check", "check", "Audit what is stored: signatures, links, sizes, hashes."),
    "copy": Verb("kpbackup.cli.copy", "copy", "Bring the second copies of the repository up to date."),
    "keys list": Verb("kpbackup.cli.keys", "list_", "List recipients, data keys, canaries and trusted signing keys."),
    "keys add": Verb("kpbackup.cli.recipients", "add", "Add a recipient, or make a new identity."),
    "keys remove": Verb("kpbackup.cli.recipients", "remove", "Remove a recipient from future key objects."),
    "keys rewrap": Verb("kpbackup.cli.keys", "rewrap", "Seal every data key to today's recipients; no data is touched."),
    "keys canary": Verb("kpbackup.cli.keys", "canary", "Make canaries, or prove with --check that a key still opens them."),
    "keys signing": Verb("kpbackup.cli.recipients", "signing", "Make a new signing key, to rotate to."),
    "pin": Verb("kpbackup.cli.pin", "pin", "Hold a backup set against retention."),
    "unpin": Verb("kpbackup.cli.pin", "unpin", "Hold a backup set no longer."),
    "prune": Verb("kpbackup.cli.prune", "prune", "Release and delete what retention no longer needs."),
    "doctor": Verb("kpbackup.cli.doctor", "doctor", "Examine source, store, keys and clock; say how to mend."),
    "version": Verb("kpbackup.cli.version", "version", "Print the version of kpbackup."),
}

# Verbs whose end is told to those in `notify`, and the kind of job each is.
TOLD: dict[str, str] = {
    "backup full": "full",
    "backup incremental": "incremental",
    "check": "check",
    "prune": "prune",
    "restore": "recovery",
    "restore database": "recovery",
    "drill": "drill",
    "drill failover": "drill",
    "drill scale": "drill",
}

# The help of a group that is not itself a verb.
GROUPS: dict[str, str] = {
    "backup": "Make a backup now: full, incremental, or of the application.",
    "keys": "Look after the keys: who can open backups, who may write them, and whether the keys still work.",
}


def skip_when_absent(parameter: Any) -> None:
    """Leaves an option that is not given alone: to convert nothing, typer would import pydantic, half of the start-up."""
    if "process_value" not in vars(parameter):
        convert = parameter.process_value
        parameter.process_value = lambda ctx, value: convert(ctx, value) if value else value


def write_examples(examples: Sequence[str], formatter: Any) -> None:
    """A section below the options, each example on a line of its own however narrow the terminal is."""
    if examples:
        with formatter.section("Examples" if len(examples) > 1 else "Example"):
            for example in examples:
                formatter.write(f"  {example}\n")


class VerbCommand(typer.core.TyperCommand):
    """A verb that is no group."""

    examples: Sequence[str] = ()

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        write_examples(self.examples, formatter)

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)
        skip_when_absent(option)
        return option


class VerbGroup(typer.core.TyperGroup):
    """The verbs below one path of the table; '' is the program itself."""

    def __init__(self, *, path: str, table: Mapping[str, Verb], **attributes: Any) -> None:
        super().__init__(rich_markup_mode=None, context_settings=dict(CONTEXT_SETTINGS), **attributes)
        self._prefix = f"{path} " if path else ""
        self._table = table
        below = (name.removeprefix(self._prefix) for name in table if name.startswith(self._prefix))
        self._words = tuple(dict.fromkeys(name.split()[0] for name in below))
        self.examples = EXAMPLES.get(path, ())

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)
        skip_when_absent(option)
        return option

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self._words)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return build(self._prefix + cmd_name, self._table) if cmd_name in self._words else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(word, short_help(self._prefix + word, self._table)) for word in self._words]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        write_examples(self.examples, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Words from the table, so that no verb is imported; then options."""
        from typer._click.shell_completion import CompletionItem

        fitting = [word for word in self._words if word.startswith(incomplete)]
        words = [CompletionItem(word, help=short_help(self._prefix + word, self._table)) for word in fitting]
        return [*words, *super(typer.core.TyperGroup, self).shell_complete(ctx, incomplete)]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self._words and ctx.resilient_parsing:
            return None, None, args  # a shell asks for completions; a wrong word is no error then
        if args[0] not in self._words:
            self._refuse(ctx, args[0])
        if self.callback is not None and self._prefix:
            self._refuse_early_options(ctx, args[0])
            self.callback = None  # a verb of the group follows, so the group's own function does not run
        return super().resolve_command(ctx, args)

    def _refuse(self, ctx: Any, word: str) -> NoReturn:
        near = difflib.get_close_matches(word, self._words, n=1)
        wanted = f"did you mean {near[0]}?" if near else f"commands here: {', '.join(self._words)}"
        if any("--to" in parameter.opts for parameter in self.params) and (word == "latest" or word[:1].isdigit()):
            wanted = "a point is given by --to latest or --to 2024-05-01T10:00, without a space or in quotes"
        raise typer.BadParameter(f"no such command: {ctx.command_path} {word}; {wanted}", ctx=ctx, param_hint=())

    def _refuse_early_options(self, ctx: Any, word: str) -> None:
        for parameter in self.params:
            if getattr(ctx.get_parameter_source(parameter.name), "name", "") == "COMMANDLINE":
                option = parameter.opts[0]
                raise typer.BadParameter(f"{option} must come after {ctx.command_path} {word}", ctx=ctx, param_hint=())


def build(path: str, table: Mapping[str, Verb]) -> Any:
    """The command of a verb or group, importing the verb's module."""
    name = path.split()[-1]
    own = _command(name, _loaded(path, table[path])) if path in table else None
    if own is not None:
        own.examples = EXAMPLES.get(path, ())
    if not any(other.startswith(f"{path} ") for other in table):
        return own
    if own is None:
        return VerbGroup(path=path, table=table, name=name, help=GROUPS[path])
    return VerbGroup(
        path=path, table=table, name=name, help=own.help, params=own.params, callback=own.callback, invoke_without_command=True,
        subcommand_metavar="[COMMAND] [ARGS]...",
    )


def short_help(path: str, table: Mapping[str, Verb]) -> str:
    """The line `--help` shows."""
    return table[path].help if path in table else GROUPS[path]


def _loaded(path: str, verb: Verb) -> Callable[..., Any]:
    found = verb.load()
    if path not in TOLD:
        return found
    from kpbackup.cli import notices

    return notices.telling(found, TOLD[path])


def _command(name: str, function: Callable[..., Any]) -> Any:
    app = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=dict(CONTEXT_SETTINGS))
    app.command(name=name, cls=VerbCommand)(function)
    return typer.main.get_command(app)
