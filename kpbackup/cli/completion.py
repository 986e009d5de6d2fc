"""Completion of verbs and options by the shell: bash, zsh and fish.

The script that `--install-completion` writes (`--show-completion` prints it) calls the program with a variable set; `answer`
then prints what fits and nothing else happens: no settings are read, and only the verb that is being typed is imported.
"""

from __future__ import annotations

import os
from typing import Any

from kpbackup import errors

VARIABLE = "_KPBACKUP_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


def answer(program: Any, name: str, room: object) -> int | None:
    """Prints the completions that the shell asks for, and the exit code; None when it asks for none."""
    asked = os.environ.get(VARIABLE)
    if not asked:
        return None
    from typer._completion_classes import completion_init
    from typer.completion import shell_complete

    completion_init()
    return shell_complete(program, {"obj": room}, name, VARIABLE, asked)


def script(name: str) -> str:
    """What a shell must read to complete; for the shell that runs this."""
    from typer._completion_shared import get_completion_script

    found = _shell()
    return get_completion_script(prog_name=name, complete_var=VARIABLE, shell=found)  # nosec B604: a name, nothing is run by it


def install(name: str) -> tuple[str, str]:
    """Writes the script where the shell looks for it, and a line into its start-up file where it needs one: (shell, file)."""
    from typer._completion_shared import install

    try:
        shell, path = install(shell=_shell(), prog_name=name, complete_var=VARIABLE)  # nosec B604: a name, nothing is run by it
    except OSError as exc:
        hint = f"{name} --show-completion prints the script, to be put where you like"
        raise errors.LocalIOError(f"cannot install completion: {exc}", hint=hint) from exc
    return shell, str(path)


def _shell() -> str:
    """The shell that started us; else the user's.

    Raises:
        UsageError: neither is one we can serve.
    """
    from typer._completion_shared import _get_shell_name

    found = _get_shell_name() or os.path.basename(os.environ.get("SHELL", ""))
    if found not in SHELLS:
        told = f"the shell {found} cannot be served" if found else "cannot tell which shell this is"
        raise errors.UsageError(f"completion: {told}", hint=f"run it from {', '.join(SHELLS[:-1])} or {SHELLS[-1]}")
    return found
