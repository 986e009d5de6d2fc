"""Writes the generated parts of docs/settings.md and docs/cli.md from the settings models, the verbs and the error tree.

    python scripts/generate_docs.py            rewrites the parts between `<!-- begin NAME -->` and `<!-- end NAME -->`
    python scripts/generate_docs.py --check    changes nothing, exits 1 when a file is out of date

Everything outside the markers is written by hand and kept.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kpbackup import config, errors, quantities  # noqa: E402  the checkout's own package, before any installed one
from kpbackup.cli import main as cli  # noqa: E402
from kpbackup.cli import verbs  # noqa: E402
from kpbackup.config import groups, keys  # noqa: E402

_TREE_LINE = re.compile(r"^[\s│]*[├└]── (?P<name>\w+)\s+(?P<code>\d+)\s+(?P<meaning>.+)$", re.MULTILINE)
_COMMAND_CODES = (
    (0, "", "done; for `status`: everything is as promised"),
    (1, "", "`status` only: warning"),
    (2, "", "`status` only: critical"),
    (3, "", "`status` only: unknown"),
)
_ENDED_CODES = (
    (cli.EXIT_INTERRUPTED, "`Interrupted`", "interrupted by Ctrl-C; nothing half-done looks whole"),
    (cli.EXIT_OUTPUT_CLOSED, "", "the reader of standard output went away, as in `kpbackup list \\| head`"),
    (cli.EXIT_TERMINATED, "`Terminated`", "stopped by SIGTERM; nothing half-done looks whole"),
)


def field_docs(group: type[groups.Group]) -> dict[str, str]:
    """The text under each field of a class, base classes included."""
    found: dict[str, str] = {}
    for owner in reversed(group.__mro__):
        if not issubclass(owner, groups.Group):
            continue
        (node,) = ast.parse(inspect.getsource(owner)).body
        assert isinstance(node, ast.ClassDef)
        for field, text in zip(node.body, node.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                assert isinstance(text.value, ast.Constant)
                found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def default_text(key: keys.Key) -> str:
    """The default as one would write it; `required` when the group is given, `-` for none."""
    info = key.info
    if info.is_required():
        return "required"
    if info.default_factory is not None:
        return "the host name"
    value: Any = info.default
    if value is None or value == ():
        return "`null`" if value is None and not key.is_secret else ("`[]`" if value == () else "-")
    if isinstance(value, timedelta):
        return f"`{quantities.spell_duration(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(value)}]`"
    if isinstance(value, int):
        return f"`{quantities.spell_size(value) if 'bytes' in key.path else value}`"
    return f"`{value}`" if value else '`""`'


def settings_tables() -> Iterator[str]:
    """One heading, sentence and table per group."""
    yield from _settings_table("", config.Settings)
    for path, group in keys.group_paths():
        yield from _settings_table(path, group)


def _settings_table(path: str, group: type[groups.Group]) -> Iterator[str]:
    docs = field_docs(group)
    yield f"## {'`' + path + '`' if path else 'Top level'}"
    yield ""
    yield " ".join(inspect.getdoc(group).split()) if path else "Keys that stand in no group."  # type: ignore[union-attr]
    yield ""
    rows = [key for key in keys.all_keys() if key.path.rpartition(".")[0] == path]
    if not rows:
        return
    yield "| key | default | meaning | variable |"
    yield "|---|---|---|---|"
    for key in rows:
        name = key.path.rpartition(".")[2]
        yield f"| `{key.path}` | {default_text(key)} | {_cell(docs[name])} | `{key.variable}` |"
        element = keys.element_group(key.info)
        for inner, text in field_docs(element).items() if element else ():
            default = default_text(keys.Key(inner, element, element.model_fields[inner])) if element else ""
            yield f"| `{key.path}[].{inner}` | {default} | {_cell(text)} | |"
    yield ""


def exit_codes() -> Iterator[str]:
    """The table of exit codes; errors.py has the meanings in its drawing."""
    drawn = [(int(match["code"]), match["name"], match["meaning"]) for match in _TREE_LINE.finditer(errors.__doc__ or "")]
    by_code: dict[int, list[tuple[str, str]]] = {}
    for code, name, meaning in drawn:
        by_code.setdefault(code, []).append((name, meaning))
    yield "| exit code | `kind` in JSON | meaning |"
    yield "|---|---|---|"
    rows = [(code, ", ".join(f"`{name}`" for name, _ in found), found[0][1]) for code, found in by_code.items()]
    for code, kind, meaning in (*_COMMAND_CODES, *sorted(rows), *_ENDED_CODES):
        yield f"| {code} | {kind} | {meaning} |"


def commands() -> Iterator[str]:
    """Global options, then every verb with its help and options."""
    root = cli.program()
    yield "### Options before the command"
    yield ""
    yield from _options(root)
    for path in verbs.VERBS:
        command = verbs.build(path, verbs.VERBS)
        yield f"### `kpbackup {path}`"
        yield ""
        yield inspect.cleandoc(command.help or "")
        yield ""
        yield "```sh"
        yield from command.examples
        yield "```"
        yield ""
        yield from _options(command)


def _options(command: Any) -> Iterator[str]:
    rows = [(parameter, getattr(parameter, "help", None) or "") for parameter in command.params]
    if not rows:
        return
    yield "| option | meaning |"
    yield "|---|---|"
    for parameter, text in rows:
        is_option = parameter.param_type_name == "option"
        options = [*parameter.opts, *parameter.secondary_opts] if is_option else [parameter.name.upper()]
        value = f" {parameter.metavar}" if is_option and parameter.metavar else ""
        yield f"| {', '.join(f'`{option}{value}`' for option in options)} | {_cell(text)} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


PARTS: dict[str, tuple[str, Callable[[], Iterator[str]]]] = {
    "settings": ("docs/settings.md", settings_tables),
    "commands": ("docs/cli.md", commands),
    "exit codes": ("docs/cli.md", exit_codes),
}


def renewed(text: str, name: str, lines: Iterator[str]) -> str:
    """The document with one generated part replaced.

    Raises:
        ValueError: it has no such markers.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"no markers {begin} ... {end}")
    body = "\n".join(lines).strip()
    return f"{head}{begin}\n\n{body}\n\n{end}{tail}"


def main() -> int:
    check = "--check" in sys.argv[1:]
    stale = []
    for name, (path, lines) in PARTS.items():
        before = (ROOT / path).read_text(encoding="utf-8")
        after = renewed(before, name, lines())
        if after != before:
            stale.append(f"{path} ({name})")
            if not check:
                (ROOT / path).write_text(after, encoding="utf-8")
    if check and stale:
        print(f"out of date: {', '.join(stale)}; run python scripts/generate_docs.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
