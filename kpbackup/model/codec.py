"""Frozen dataclasses to JSON values and back, strictly by their type hints.

Reading ignores keys it does not know (a newer writer may add some; what must not be ignored is
named in `requires`) and refuses a missing key without a default or a value of another type.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from kpbackup import errors
from kpbackup.model import canonical

T = TypeVar("T")


def encode(value: object) -> Any:
    """JSON value (dict, list, str, int, bool, None) of a dataclass, or of what one may hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return canonical.time_text(value)
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    if value is None or isinstance(value, str | int | bool):
        return value
    raise TypeError(f"no JSON form for {type(value).__name__}")


def decode(kind: type[T], data: Any, *, what: str) -> T:
    """The value of type `kind` that encode() made `data` from.

    Raises:
        IntegrityError: `what` lacks a key or holds a value of the wrong type.
    """
    try:
        found: T = _decode(kind, data, what)
    except ValueError as exc:
        raise errors.IntegrityError(f"{what}: {exc}") from exc
    return found


def _decode(kind: Any, data: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, data, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _optional(arguments, data, where)
    if origin is tuple:
        return tuple(_decode(arguments[0], item, where) for item in _expect(list, data, where))
    if origin is dict:
        pairs = _expect(dict, data, where).items()
        return {_decode(arguments[0], k, where): _decode(arguments[1], v, where) for k, v in pairs}
    if kind is datetime:
        return canonical.time_value(_expect(str, data, where))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(_expect(str, data, where))
    if kind is Any:
        return data
    return _expect(kind, data, where)


def _dataclass(kind: Any, data: Any, where: str) -> Any:
    values = _expect(dict, data, where)
    hints = _hints(kind)
    found = {}
    for field in dataclasses.fields(kind):
        if field.name in values:
            found[field.name] = _decode(hints[field.name], values[field.name], f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where} lacks {field.name!r}")
    return kind(**found)


_HINTS: dict[Any, dict[str, Any]] = {}


def _hints(kind: Any) -> dict[str, Any]:
    if kind not in _HINTS:  # resolving hints costs more than reading a manifest
        _HINTS[kind] = typing.get_type_hints(kind)
    return _HINTS[kind]


def _optional(arguments: tuple[Any, ...], data: Any, where: str) -> Any:
    if data is None and type(None) in arguments:
        return None
    (kind,) = [a for a in arguments if a is not type(None)]
    return _decode(kind, data, where)


def _expect(kind: type, data: Any, where: str) -> Any:
    if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
        raise ValueError(f"{where} must be {kind.__name__}, not {type(data).__name__}")
    return data
