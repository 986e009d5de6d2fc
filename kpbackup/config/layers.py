"""Settings file, environment and command line, laid over one another: options beat environment beats file.

The result is a plain tree with, for every key, where its value came from. Unknown keys stop here, with the
nearest known one named. Passwords are refused in the file and on the command line. Nothing is written.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kpbackup import errors
from kpbackup.config import groups, keys, settings

DEFAULT_PATH = Path("/etc/kpbackup/kpbackup.yaml")
PATH_VARIABLE = "KPBACKUP_CONFIG"
REFERENCE = "docs/settings.md lists every key; kpbackup.example.yaml is complete"
_LARGEST_FILE_BYTES = 1 << 20
# Tests use KPBACKUP_TEST_, command drivers of a recovery are given KPBACKUP_STEP_: neither is a setting.
_FOREIGN_PREFIXES = ("KPBACKUP_TEST_", "KPBACKUP_STEP_")
# Kubernetes puts these into every pod beside a Service named kpbackup or kpbackup-...; they are nobody's typo.
_SERVICE_LINK = re.compile(
    r"KPBACKUP_(?:[A-Z0-9_]+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_SERVICE_LINK_URL = re.compile(r"(?:tcp|udp|sctp)://.*")


@dataclass
class Layers:
    """`tree` is what the models validate; `origins` says for each dotted key who set it."""

    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def put(self, path: str, value: object, *, origin: str) -> None:
        """Sets one key over whatever is there."""
        *parents, last = path.split(".")
        place = self.tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
        self.origins[path] = origin


class _Loader(yaml.SafeLoader):
    """Refuses a key given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else str(key_node)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} is given twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def stack(path: str | Path | None, environ: Mapping[str, str], *, overrides: Mapping[str, object]) -> Layers:
    """File, environment and options as one tree.

    Raises:
        SettingsError: the file cannot be read, a key is unknown, or a password is where it must not be.
    """
    layers = Layers()
    chosen = chosen_file(path, environ)
    if chosen is not None:
        _add_group(layers, _read_file(chosen), group=settings.Settings, prefix="", origin=str(chosen))
    known = {key.path: key for key in keys.all_keys()}
    _add_environment(layers, environ, known)
    for name, value in overrides.items():
        _add_override(layers, name, value, known=known)
    return layers


def chosen_file(path: str | Path | None, environ: Mapping[str, str]) -> Path | None:
    """The settings file that is read; None when none is named and none lies at its usual place."""
    if path is not None:
        return Path(path)
    if environ.get(PATH_VARIABLE):
        return Path(environ[PATH_VARIABLE])
    return DEFAULT_PATH if DEFAULT_PATH.exists() else None


def _read_file(path: Path) -> dict[Any, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE_BYTES + 1)
        if len(content) > _LARGEST_FILE_BYTES:
            raise errors.SettingsError(f"settings file {path}: larger than 1 MiB, so not a settings file", hint=REFERENCE)
        document = yaml.load(content.decode(), Loader=_Loader)  # nosec B506
    except OSError as exc:
        raise errors.SettingsError(f"settings file {path}: {exc.strerror}", hint="check --config and KPBACKUP_CONFIG") from exc
    except UnicodeDecodeError as exc:
        raise errors.SettingsError(f"settings file {path}: not UTF-8 text", hint=REFERENCE) from exc
    except yaml.YAMLError as exc:
        raise errors.SettingsError(f"settings file {path}: {_yaml_reason(exc)}", hint=REFERENCE) from None
    except RecursionError:
        raise errors.SettingsError(f"settings file {path}: nested too deeply", hint=REFERENCE) from None
    except ValueError:  # YAML takes 2026-13-45 for a date, and a number may have any length
        raise errors.SettingsError(f"settings file {path}: holds a date or number that is none", hint=REFERENCE) from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise errors.SettingsError(f"settings file {path}: must hold keys and values, such as `timezone: UTC`", hint=REFERENCE)
    return document


def _yaml_reason(exc: yaml.YAMLError) -> str:
    """Where and what, without the line itself: it may hold a password (that is also why the cause is not chained)."""
    if isinstance(exc, yaml.MarkedYAMLError) and exc.problem_mark is not None:
        return f"line {exc.problem_mark.line + 1}, column {exc.problem_mark.column + 1}: {exc.problem}"
    return "not valid YAML"


def _add_group(layers: Layers, mapping: Mapping[Any, Any], *, group: type[groups.Group], prefix: str, origin: str) -> None:
    for name, value in mapping.items():
        info = group.model_fields.get(name) if isinstance(name, str) else None
        path = f"{prefix}{name}"
        if info is None:
            raise _unknown_key(path, group=group, prefix=prefix, origin=origin)
        inner, element = keys.group_of(info), keys.element_group(info)
        if inner is not None:
            if value is None:
                continue  # `source:` with nothing below it sets nothing
            if not isinstance(value, dict):
                raise errors.SettingsError(f"{origin}: {path}: must hold keys: {', '.join(inner.model_fields)}", hint=REFERENCE)
            _add_group(layers, value, group=inner, prefix=f"{path}.", origin=origin)
            continue
        key = keys.Key(path, group, info)
        if key.is_secret:
            raise errors.SettingsError(
                f"{origin}: {path}: a password must not be in the settings file",
                hint=f"put it into a file of its own and name that in {path}_file, or set the variable {key.variable}",
            )
        if element is not None:
            _check_elements(value, element=element, path=path, origin=origin)
        layers.put(path, value, origin=origin)


def _check_elements(value: object, *, element: type[groups.Group], path: str, origin: str) -> None:
    """A list of groups: unknown keys inside are found here, everything else by the models."""
    for number, item in enumerate(value if isinstance(value, list) else (), start=1):
        if not isinstance(item, dict):
            allowed = ", ".join(element.model_fields)
            raise errors.SettingsError(f"{origin}: {path}: entry {number} must hold the keys {allowed}", hint=REFERENCE)
        for name in item:
            if name not in element.model_fields:
                raise _unknown_key(f"{path}.{number}.{name}", group=element, prefix=f"{path}.{number}.", origin=origin)


def _add_environment(layers: Layers, environ: Mapping[str, str], known: Mapping[str, keys.Key]) -> None:
    by_variable = {key.variable: key for key in known.values()}
    for variable in sorted(environ):
        if not variable.startswith(keys.PREFIX) or _is_foreign(variable, environ[variable]):
            continue
        key = by_variable.get(variable)
        if key is None:
            raise _unknown_variable(variable, by_variable)
        if environ[variable] == "":
            continue  # compose files and charts pass unset values on as empty ones
        layers.put(key.path, from_text(key, environ[variable], origin=f"variable {variable}"), origin=f"variable {variable}")


def _is_foreign(variable: str, value: str) -> bool:
    if variable == PATH_VARIABLE or variable.startswith(_FOREIGN_PREFIXES):
        return True
    if "__" in variable:
        return False
    return bool(_SERVICE_LINK.fullmatch(variable) or (variable.endswith("_PORT") and _SERVICE_LINK_URL.fullmatch(value)))


def _add_override(layers: Layers, name: str, value: object, *, known: Mapping[str, keys.Key]) -> None:
    key = known.get(name)
    if key is None:
        raise _unknown_path(name, known, origin="command line")
    if key.is_secret:
        raise errors.SettingsError(
            f"command line: {name}: a password must not be given as an option, every user of the machine could see it",
            hint=f"use {name}_file, or the variable {key.variable}",
        )
    layers.put(name, from_text(key, value, origin="command line") if isinstance(value, str) else value, origin="command line")


def from_text(key: keys.Key, text: str, *, origin: str) -> object:
    """What a variable or option means: a list is YAML or comma-separated, `null` unsets what may be unset, the rest stays text.

    Raises:
        SettingsError: a list that is not valid YAML.
    """
    if key.is_secret:
        return text
    if key.may_be_null and text.strip() == "null":
        return None
    if not key.is_list:
        return text
    if not text.lstrip().startswith(("[", "-")):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        found = yaml.load(text, Loader=_Loader)  # nosec B506
    except (yaml.YAMLError, ValueError, RecursionError):
        raise errors.SettingsError(f"{origin}: {key.path}: not a valid list", hint="write a,b or [a, b]") from None
    element = keys.element_group(key.info)
    if element is not None:
        _check_elements(found, element=element, path=key.path, origin=origin)
    return found


def _unknown_key(path: str, *, group: type[groups.Group], prefix: str, origin: str) -> errors.SettingsError:
    if not group.model_fields:
        hint = f"leave {prefix.rstrip('.')} empty"
        return errors.SettingsError(f"{origin}: {path}: this group comes with a later version", hint=hint)
    name = path.removeprefix(prefix)
    siblings = _nearest(name, group.model_fields)
    anywhere = [key.path for key in keys.all_keys() if key.path.rpartition(".")[2] == name]
    near = f"{prefix}{siblings}" if siblings else (anywhere[0] if anywhere else None)
    hint = f"did you mean {near}?" if near else f"allowed here: {', '.join(group.model_fields)}"
    return errors.SettingsError(f"{origin}: {path}: unknown key", hint=hint)


def _unknown_path(path: str, known: Mapping[str, keys.Key], *, origin: str) -> errors.SettingsError:
    below = [name for name in known if name.startswith(f"{path}.")]
    if below:
        return errors.SettingsError(f"{origin}: {path}: is a group, not a key", hint=f"name one of its keys: {', '.join(below)}")
    near = _nearest(path, known)
    return errors.SettingsError(f"{origin}: {path}: unknown key", hint=f"did you mean {near}?" if near else REFERENCE)


def _unknown_variable(variable: str, by_variable: Mapping[str, keys.Key]) -> errors.SettingsError:
    below = [name for name in by_variable if name.startswith(f"{variable}__")]
    if below:
        return errors.SettingsError(f"variable {variable}: is a group, not a key", hint=f"set one of {', '.join(below)}")
    near = _nearest(variable, by_variable)
    hint = f"did you mean {near}?" if near else f"variables are KPBACKUP_SECTION__KEY with two underscores; {REFERENCE}"
    return errors.SettingsError(f"variable {variable}: no such setting", hint=hint)


def _nearest(name: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)), None)
