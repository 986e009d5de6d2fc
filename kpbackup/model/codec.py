"""Frozen dataclasses and NamedTuples to JSON values and back, strictly by their type hints.

Reading ignores keys it does not know (a newer writer may add some; what must not be ignored is
named in `requires`) and refuses a missing key without a default or a value of another type.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from kpbackup import errors
from kpbackup.model import canonical

T = TypeVar("T")

LATER = {"later": True}
"""Metadata of a field that came after its kind was first written: written only when it is not the default, so that what was
written before stays what it was, byte for byte."""


def encode(value: object) -> Any:
    """JSON value (dict, list, str, int, bool, None) of a dataclass, or of what one may hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((f, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {f.name: encode(found) for f, found in fields if "later" not in f.metadata or found != f.default}
    if isinstance(value, datetime):
        return canonical.time_text(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: encode(found) for name, found in zip(value._fields, value, strict=True)}
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
        found: T = _decoder(kind)(data)  # type: ignore[arg-type]  # types are hashable
    except _Wrong as exc:
        raise errors.IntegrityError(f"{what}: {what}{exc.path} {exc.text}") from exc
    except ValueError as exc:
        raise errors.IntegrityError(f"{what}: {exc}") from exc
    return found


class _Wrong(Exception):
    """What is wrong, and where: a path of names below the value that is decoded."""

    def __init__(self, text: str, path: str = "") -> None:
        super().__init__(text)
        self.text, self.path = text, path


Decoder = Callable[[Any], Any]


@functools.cache
def _decoder(kind: Any) -> Decoder:
    """The function that reads a type, made once: resolving type hints costs more than reading a manifest."""
    if dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"):
        return _record(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        (inner,) = [a for a in arguments if a is not type(None)]
        read = _decoder(inner)
        return lambda data: None if data is None else read(data)
    if origin is tuple:
        return _tuple(_decoder(arguments[0]))
    if origin is dict:
        return _dict(_decoder(arguments[0]), _decoder(arguments[1]))
    if kind is datetime:
        return lambda data: canonical.time_value(_expect(str, data))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return lambda data: kind(_expect(str, data))
    if kind is Any:
        return lambda data: data
    return functools.partial(_expect, getattr(kind, "__supertype__", kind))


def _record(kind: Any) -> Decoder:
    """Of a dataclass or a NamedTuple."""
    hints = typing.get_type_hints(kind)
    if dataclasses.is_dataclass(kind):
        fields = [
            (f.name, _decoder(hints[f.name]), f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING)
            for f in dataclasses.fields(kind)
        ]
    else:
        fields = [(name, _decoder(hints[name]), name not in kind._field_defaults) for name in kind._fields]

    def read(data: Any) -> Any:
        values = _expect(dict, data)
        found = {}
        for name, decoder, is_needed in fields:
            if name in values:
                try:
                    found[name] = decoder(values[name])
                except _Wrong as exc:
                    raise _Wrong(exc.text, f".{name}{exc.path}") from exc
            elif is_needed:
                raise _Wrong(f"lacks {name!r}")
        return kind(**found)

    return read


def _tuple(read: Decoder) -> Decoder:
    return lambda data: tuple([read(item) for item in _expect(list, data)])


def _dict(read_key: Decoder, read_value: Decoder) -> Decoder:
    return lambda data: {read_key(key): read_value(value) for key, value in _expect(dict, data).items()}


def _expect(kind: type, data: Any) -> Any:
    if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
        raise _Wrong(f"must be {kind.__name__}, not {type(data).__name__}")
    return data
