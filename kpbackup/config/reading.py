"""From layers to checked settings: what the models find wrong is told as file, key, fault and remedy.

No text of the validation library and no value of a setting reaches a user from here, unless the check itself quotes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic

from kpbackup import errors, quantities
from kpbackup.config import layers, settings

_FAULTS = {
    "missing": "is not set, but the group needs it",
    "string_type": "must be text; put it in quotes",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "is far too large",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "tuple_type": "must be a list, such as [a, b]",
    "string_too_short": "must not be empty",
    "string_too_long": "is too long",
}
_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def load(
    path: str | Path | None, environ: Mapping[str, str], *, overrides: Mapping[str, object] | None = None
) -> settings.Settings:
    """All settings: `overrides` (dotted key -> value) beat `environ`, which beats the file.

    Without `path` the file is the one KPBACKUP_CONFIG names, else /etc/kpbackup/kpbackup.yaml if it exists, else none.

    Raises:
        SettingsError: a file that cannot be read, an unknown or half-set key, a value that is not allowed.
    """
    stacked = layers.stack(path, environ, overrides=overrides or {})
    try:
        return settings.Settings.model_validate(stacked.tree)
    except pydantic.ValidationError as exc:
        faults = list(dict.fromkeys(_fault(error, stacked) for error in exc.errors(include_url=False, include_input=False)))
    more = "" if len(faults) == 1 else f"{len(faults)} settings are wrong:\n  "
    # Not chained: the library's own error could print values in a traceback.
    raise errors.SettingsError(more + "\n  ".join(faults), hint=layers.REFERENCE)


def refuse_nothing(path: str | Path | None, environ: Mapping[str, str], found: settings.Settings) -> None:
    """Refuses settings that nobody has written yet (no repository, no source), before a verb asks for the first key it happens to
    need.

    Raises:
        SettingsError: with the places that were looked at.
    """
    if found.repository is not None or found.source is not None:
        return
    file = layers.chosen_file(path, environ)
    if file is not None:
        if not found.model_fields_set:
            raise errors.SettingsError(f"the settings file {file} is empty", hint=layers.REFERENCE)
        return
    here = Path("kpbackup.yaml")
    hint = f"name the file that is here: --config {here}" if here.exists() else (
        "write a kpbackup.yaml that names your source and your bucket (README.md has one of nine lines, "
        f"kpbackup.example.yaml every key), and give it by --config or {layers.PATH_VARIABLE}"
    )
    raise errors.SettingsError(
        f"no settings were found: no --config was given, {layers.PATH_VARIABLE} is not set, there is no {layers.DEFAULT_PATH}, "
        "and no variable KPBACKUP_... names a repository or a source",
        hint=hint,
    )


def _fault(error: Any, stacked: layers.Layers) -> str:
    path = ".".join(str(part + 1) if isinstance(part, int) else str(part) for part in error["loc"])
    if not path:
        return _describe(error)  # about several groups: it names its keys
    return f"{_origin(path, stacked)}{path}: {_describe(error)}"


def _origin(path: str, stacked: layers.Layers) -> str:
    """Who set the key, or the group around it: of a missing key, whoever set its neighbours."""
    while path:
        for known, origin in stacked.origins.items():
            if known == path or known.startswith(f"{path}."):
                return f"{origin}: "
        path = path.rpartition(".")[0]
    return ""


def _describe(error: Any) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"must be one of {context['expected'].replace(chr(39), '')}"
    for name, words in _LIMITS.items():
        if name in context:
            return f"must be {words} {_limit(context[name])}"
    return _FAULTS.get(kind, "is not allowed here")


def _limit(value: object) -> str:
    """Durations come spelt out (`1 hour`); large numbers here are sizes."""
    return f"{value}" if not isinstance(value, int) or value < 1 << 16 else quantities.spell_size(value)
