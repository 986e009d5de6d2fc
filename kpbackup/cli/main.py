"""The program `kpbackup`: global options, and one place where every ending becomes text and an exit code.

An error of ours is `kpbackup: MESSAGE` and `hint: HINT` on standard error; with --json also one document on
standard output. SIGTERM and Ctrl-C unwind the stack like an error, so that every `finally` runs. What nobody
foresaw is exit 70 with a request to report; where it arose is shown at log level debug alone.
"""

from __future__ import annotations

import atexit
import errno
import gc
import logging
import os
import resource
import select
import signal
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, NoReturn

import typer
import typer.main

from kpbackup import errors, logs
from kpbackup.cli import completion, context, render, verbs

GC_THRESHOLD = 20_000  # new objects between two looks for cycles; Python's own 700 suits small programs
PROGRAM = "kpbackup"
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_TERMINATED = 143  # 128 + SIGTERM
EXIT_OUTPUT_CLOSED = 141  # 128 + SIGPIPE: the reader of standard output went away

_DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)

logger = logging.getLogger(__name__)


class Terminated(BaseException):
    """SIGTERM arrived; raised in the main thread. Not an Exception: nothing but `finally` and `main` handles it."""


class LogFormat(StrEnum):
    text = "text"
    json = "json"


class LogLevel(StrEnum):
    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


ConfigOption = Annotated[
    str | None,
    typer.Option("--config", metavar="FILE", help="Settings file; else KPBACKUP_CONFIG, else /etc/kpbackup/kpbackup.yaml."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set one setting, such as --set retention.days=7; repeatable."),
]
CopyOption = Annotated[
    str | None, typer.Option("--copy", metavar="NAME", help="Read, check, restore from or prune this copy of the repository.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text, errors included.")]
LogFormatOption = Annotated[LogFormat | None, typer.Option("--log-format", help="Form of the log on standard error.")]
LogLevelOption = Annotated[LogLevel | None, typer.Option("--log-level", help="Least level that is logged.")]


def _install_completion(ctx: typer.Context, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        shell, path = completion.install(PROGRAM)
        print(f"completion for {shell} is in {path}; a new {shell} reads it")
        raise typer.Exit


def _show_completion(ctx: typer.Context, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        print(completion.script(PROGRAM))
        raise typer.Exit


def _show_version(ctx: typer.Context, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from kpbackup.cli import version

        print(version.line())
        raise typer.Exit


VersionOption = Annotated[
    bool,
    typer.Option("--version", is_eager=True, callback=_show_version, help="Print what `kpbackup version` does, and exit."),
]
InstallCompletionOption = Annotated[
    bool,
    typer.Option(
        "--install-completion", is_eager=True, callback=_install_completion,
        help="Make this shell (bash, zsh, fish) complete commands and options, and exit.",
    ),
]
ShowCompletionOption = Annotated[
    bool,
    typer.Option(
        "--show-completion", is_eager=True, callback=_show_completion, help="Print the shell's script for that, and exit."
    ),
]


def _options(
    ctx: typer.Context,
    config: ConfigOption = None,
    settings: SetOption = None,
    copy: CopyOption = None,
    json: JsonOption = False,
    log_format: LogFormatOption = None,
    log_level: LogLevelOption = None,
    version: VersionOption = False,
    install_completion: InstallCompletionOption = False,
    show_completion: ShowCompletionOption = False,
) -> None:
    """Back up MySQL and MariaDB, and restore them to the moment before an accident.

    Exit codes are listed in docs/cli.md, settings in docs/settings.md.
    """
    room: context.Context = ctx.obj
    room.config_path = config
    room.copy = copy
    room.printer.json = room.printer.json or json
    for setting in settings or ():
        key, equals, value = setting.partition("=")
        if not equals:
            raise errors.UsageError("--set needs KEY=VALUE", hint="for example --set retention.days=7")
        room.override(key.strip(), value)
    room.override("log.format", log_format.value if log_format else None)
    room.override("log.level", log_level.value if log_level else None)
    logs.setup(format=log_format or "text", level=log_level or "info")


def program() -> Any:
    """The root command; verbs below it are not imported."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.callback()(_options)
    root = typer.main.get_command(app)
    for parameter in root.params:
        verbs.skip_when_absent(parameter)
    return verbs.VerbGroup(
        path="", table=verbs.VERBS, name=PROGRAM, help=root.help, params=root.params, callback=root.callback,
    )


def _collect_seldom() -> None:
    """Imports make many objects and no garbage; looking for some cost a fifth of a second at the start and again at the end."""
    gc.set_threshold(GC_THRESHOLD, 20, 100)
    atexit.register(gc.freeze)


def _leave_no_core() -> None:
    """No core file of this process or its children: passwords and keys are in their memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _load_no_plugins() -> None:
    """Settings are judged by our code alone; to look for others', pydantic would read the metadata of every package installed."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; the console script's entry."""
    words = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    room = context.Context()
    room.printer.json = "--json" in words  # known before parsing, so that a usage error is JSON too
    logs.setup()
    _leave_no_core()
    _collect_seldom()
    _load_no_plugins()
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        return _guarded(words, room)
    except KeyboardInterrupt:
        return _complain(room, "interrupted", kind="Interrupted", code=EXIT_INTERRUPTED)
    except Terminated:
        return _complain(room, "stopped by SIGTERM", kind="Terminated", code=EXIT_TERMINATED)
    finally:
        _let_go_of_output()


def _guarded(words: list[str], room: context.Context) -> int:
    try:
        return _run(words, room)
    except errors.KpbackupError as exc:
        logger.debug("command_failed", exc_info=exc)
        return _complain(room, exc.message, hint=exc.hint, kind=type(exc).__name__, code=exc.exit_code)
    except BrokenPipeError as exc:
        return EXIT_OUTPUT_CLOSED if _output_is_closed() else _defect(room, exc)
    except OSError as exc:
        if exc.errno not in _DISK_ERRNOS:
            return _defect(room, exc)
        told = errors.LocalIOError(f"local disk: {exc}", hint="free space, or mend the file system")
        return _complain(room, told.message, hint=told.hint, kind="LocalIOError", code=told.exit_code)
    except Exception as exc:  # the one place where a defect of ours becomes a sentence and an exit code
        return _defect(room, exc)


def _run(words: list[str], room: context.Context) -> int:
    command = program()
    completed = completion.answer(command, PROGRAM, room)
    if completed is not None:
        return completed
    try:
        with command.make_context(PROGRAM, words, obj=room) as ctx:
            outcome = command.invoke(ctx)
    except typer.Exit as exc:
        return exc.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except typer.TyperException as exc:
        _refuse_usage(exc)
    return outcome if isinstance(outcome, int) else 0


def _refuse_usage(exc: typer.TyperException) -> NoReturn:
    """A usage error of the parser as ours, with a hint that can be typed."""
    ctx = getattr(exc, "ctx", None)
    path = ctx.command_path if ctx is not None else PROGRAM
    option = getattr(exc, "option_name", "")
    text = exc.format_message().strip().removeprefix("Invalid value for : ").replace("Value error, ", "").rstrip(".")
    hint = f"{path} --help lists what it takes"
    if option in _global_options() and path != PROGRAM:
        hint = f"{option} comes before the command: {PROGRAM} {option} ... {path.removeprefix(PROGRAM).strip()}"
    raise errors.UsageError(text[:1].lower() + text[1:], hint=hint) from None


def _global_options() -> set[str]:
    return {option for parameter in program().params for option in parameter.opts}


def _on_sigterm(number: int, frame: object) -> NoReturn:
    # A second one would interrupt the clean-up that the first one started.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def _let_go_of_output() -> None:
    """Flushes; what cannot be written any more is dropped, or Python would complain about it at its end with exit code 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _output_is_closed() -> bool:
    """True when nobody reads standard output any more. A broken pipe to a worker or server is another matter."""
    poller = select.poll()
    poller.register(sys.stdout.fileno(), select.POLLERR)
    return any(happened & select.POLLERR for _, happened in poller.poll(0))


def _defect(room: context.Context, exc: Exception) -> int:
    where = logs.debugging()
    if where:
        logger.debug("defect_met", exc_info=exc)
    hint = "this is a defect of kpbackup: please report it"
    hint += "" if where else f", with the output of the same command run as {PROGRAM} --log-level debug ..."
    told = errors.InternalError(f"internal error: {type(exc).__name__}: {exc}", hint=hint)
    return _complain(room, told.message, hint=told.hint, kind="InternalError", code=told.exit_code)


def _complain(room: context.Context, message: str, *, kind: str, code: int, hint: str = "") -> int:
    """Tells an ending on standard error and, in JSON mode when nothing was answered yet, on standard output. The exit code."""
    print(f"{render.painted(f'{PROGRAM}:', 'error', sys.stderr)} {render.printable(message, lines=True)}", file=sys.stderr)
    if hint:
        print(f"{render.painted('hint:', 'hint', sys.stderr)} {render.printable(hint, lines=True)}", file=sys.stderr)
    if room.printer.json and not room.printer.answered:
        try:
            room.printer.show({"error": {"kind": kind, "message": message, "hint": hint, "exit_code": code}})
        except (BrokenPipeError, errors.LocalIOError):
            pass  # nobody reads; the code and standard error still tell
    return code


if __name__ == "__main__":
    sys.exit(main())
