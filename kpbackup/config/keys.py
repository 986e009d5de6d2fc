"""The tree of setting keys, walked from the models: what exists, what kind each is, what its variable is called.

The checks of unknown keys, the environment, the example and the documents all come from here, so they cannot differ.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass

import pydantic
from pydantic.fields import FieldInfo

from kpbackup.config import groups, settings

PREFIX = "KPBACKUP_"


@dataclass(frozen=True)
class Key:
    """One setting: `path` is dotted, `group` the class it is in."""

    path: str
    group: type[groups.Group]
    info: FieldInfo

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.path.upper().replace(".", "__")

    @property
    def is_list(self) -> bool:
        return any(typing.get_origin(part) is tuple for part in parts(self.info.annotation))

    @property
    def is_secret(self) -> bool:
        """True for a value that may come from the environment alone."""
        return pydantic.SecretStr in parts(self.info.annotation)

    @property
    def may_be_null(self) -> bool:
        return type(None) in parts(self.info.annotation)


def all_keys() -> Iterator[Key]:
    """Every setting that has a value of its own, in the order of the models."""
    yield from _walk(settings.Settings, "")


def group_paths() -> Iterator[tuple[str, type[groups.Group]]]:
    """Every group with its dotted path, in the order of the models."""
    yield from _groups(settings.Settings, "")


def group_of(info: FieldInfo) -> type[groups.Group] | None:
    """The class of a field that is a group, None for a value."""
    for part in parts(info.annotation):
        if isinstance(part, type) and issubclass(part, groups.Group):
            return part
    return None


def element_group(info: FieldInfo) -> type[groups.Group] | None:
    """The class of the elements of a list of groups, None for any other field."""
    for part in parts(info.annotation):
        if typing.get_origin(part) is tuple:
            element = typing.get_args(part)[0]
            if isinstance(element, type) and issubclass(element, groups.Group):
                return element
    return None


def _walk(group: type[groups.Group], prefix: str) -> Iterator[Key]:
    for name, info in group.model_fields.items():
        inner = group_of(info)
        if inner is None:
            yield Key(prefix + name, group, info)
        else:
            yield from _walk(inner, f"{prefix}{name}.")


def _groups(group: type[groups.Group], prefix: str) -> Iterator[tuple[str, type[groups.Group]]]:
    for name, info in group.model_fields.items():
        inner = group_of(info)
        if inner is not None:
            yield prefix + name, inner
            yield from _groups(inner, f"{prefix}{name}.")


def parts(annotation: object) -> tuple[object, ...]:
    """The members of a union, through Annotated; a plain type alone."""
    if typing.get_origin(annotation) is typing.Annotated:
        return parts(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(part for member in typing.get_args(annotation) for part in parts(member))
    return (annotation,)
