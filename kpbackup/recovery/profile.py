"""Verification profiles: what an application must answer before users are sent to it, as a YAML file.

Read strictly: a misspelt key is an error, because a check that is silently left out is worse than none. Profiles that ship with
kpbackup are named (`kubepolaris`, `generic`); a path names one of the user's own. docs/profiles.md describes the keys.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from kpbackup import errors

LARGEST_BYTES = 1 << 20


@dataclass(frozen=True)
class Assertion:
    """A question to the restored database and its right answer, compared as text."""

    query: str
    expect: str | int


@dataclass(frozen=True)
class Unrestored:
    """A question that answers 1 on an installation that was never restored. `why` tells the user; skipped when the backup
    set itself has at most `at_most` rows in `table`, because then the source was as new."""

    query: str
    why: str
    table: str
    at_most: int


@dataclass(frozen=True)
class Count:
    """A number in an answer must be what the restored database says."""

    at: str
    query: str


@dataclass(frozen=True)
class Listing:
    """Values in a list of an answer must be exactly those the restored database says, in any order."""

    at: str
    value: str
    query: str


@dataclass(frozen=True)
class Call:
    """One request. Texts in `body` and `path` may hold `{user}`, `{password}` and what `take` took before.

    `json` must be contained in the answer: keys given must be there with these values; `<text>`, `<number>`, `<list>`,
    `<truth>` and `<anything>` stand for any value of that kind.
    """

    name: str
    path: str
    method: str = "GET"
    body: dict[str, Any] | None = None
    bearer: str = ""
    status: int = 200
    content_type: str = "application/json"
    json: Any = None
    take: dict[str, str] = field(default_factory=dict)
    counts: tuple[Count, ...] = ()
    lists: tuple[Listing, ...] = ()
    timeout_s: int = 15


@dataclass(frozen=True)
class Tables:
    """What may differ from the moment the restore ended: rows the application itself writes when it starts or is asked."""

    compare: bool = True
    volatile_columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    volatile_tables: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profile:
    """An application's profile. `service` and `port` say where it is asked inside the cluster; in them and in `pins`,
    `{fullname}` is the release as its chart names things. `pins` sets values of the chart from Secrets of the bundle
    (`Secret:key`); `withhold` are values that keep users away until the switch. `database` is the default one of queries,
    and holds the tables of `second_tier`, which the application can do without for a while."""

    name: str
    service: str = ""
    port: int = 80
    database: str = ""
    needs_login: bool = False
    pins: dict[str, str] = field(default_factory=dict)
    withhold: dict[str, Any] = field(default_factory=dict)
    unrestored: tuple[Unrestored, ...] = ()
    sql: tuple[Assertion, ...] = ()
    calls: tuple[Call, ...] = ()
    public: tuple[Call, ...] = ()
    tables: Tables = Tables()
    second_tier: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def load(name: str) -> Profile:
    """The profile of that name, or of the file at that path.

    Raises:
        SettingsError: there is none, it cannot be read, or a key is unknown, missing or of the wrong kind.
    """
    return parse(_text(name), what=f"profile {name}")


def shipped() -> list[str]:
    """Names of the profiles that come with kpbackup."""
    folder = resources.files("kpbackup").joinpath("profiles")
    return sorted(one.name.removesuffix(".yaml") for one in folder.iterdir() if one.name.endswith(".yaml"))


def _text(name: str) -> bytes:
    if "/" not in name and not name.endswith((".yaml", ".yml")):
        if name not in shipped():
            raise errors.SettingsError(
                f"there is no verification profile {name!r}", hint=f"those that ship are {', '.join(shipped())}; or name a file"
            )
        return resources.files("kpbackup").joinpath("profiles", f"{name}.yaml").read_bytes()
    try:
        with Path(name).open("rb") as file:
            return file.read(LARGEST_BYTES)
    except OSError as exc:
        raise errors.SettingsError(f"profile {name}: {exc.strerror}", hint="check recovery.verify.profile") from exc


def parse(text: bytes, *, what: str) -> Profile:
    """The profile in a YAML text. Raises SettingsError."""
    import yaml

    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as exc:  # a date that is none, say, or nested too deeply
        raise errors.SettingsError(f"{what}: not valid YAML: {' '.join(str(exc).split())}", hint="docs/profiles.md") from exc
    try:
        profile: Profile = _value(Profile, document, "")
    except ValueError as exc:
        raise errors.SettingsError(f"{what}: {exc}", hint="docs/profiles.md lists the keys") from exc
    return profile


def _value(kind: Any, data: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _group(kind, data, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return data
    if origin in (types.UnionType, typing.Union):
        return _one_of(arguments, data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise ValueError(f"{where} must be a list")
        return tuple(_value(arguments[0], item, f"{where}[{number}]") for number, item in enumerate(data, start=1))
    if origin is dict:
        if not isinstance(data, dict):
            raise ValueError(f"{where} must hold keys and values")
        return {str(name): _value(arguments[1], item, f"{where}.{name}") for name, item in data.items()}
    if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
        named = {str: "text", int: "a whole number", bool: "true or false"}[kind]
        raise ValueError(f"{where} must be {named}")
    return data


def _one_of(kinds: tuple[Any, ...], data: Any, where: str) -> Any:
    if data is None and type(None) in kinds:
        return None
    wrong = ""
    for kind in kinds:
        if kind is not type(None):
            try:
                return _value(kind, data, where)
            except ValueError as exc:
                wrong = str(exc)
    raise ValueError(wrong)


def _group(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{where or 'it'} must hold keys and values")
    hints = typing.get_type_hints(kind)
    for name in data:
        if name not in hints:
            near = difflib.get_close_matches(str(name), hints, n=1)
            suggestion = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(hints)}"
            raise ValueError(f"unknown key {f'{where}.' if where else ''}{name}{suggestion}")
    for one in dataclasses.fields(kind):
        if one.name not in data and one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where or 'it'} lacks the key {one.name}")
    return kind(**{name: _value(hints[name], item, f"{where}.{name}" if where else name) for name, item in data.items()})
