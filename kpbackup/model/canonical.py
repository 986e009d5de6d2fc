"""Canonical JSON, and strict reading of it: the only serialisation kpbackup signs or hashes.

Keys sorted, no spaces, UTF-8, no floats, one line. Times are RFC 3339 in UTC with microseconds and `Z`. Bytes of a server's text
that are no UTF-8, which are lone surrogates in a str, stand as their escapes.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from kpbackup import errors

_NO_TEXT = re.compile("[\udc80-\udcff]")


def dumps(value: object) -> bytes:
    """`value` as one canonical line without a trailing newline.

    Raises:
        ValueError: a float or another type JSON has no exact form for.
    """
    _refuse_floats(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return (text if text.isascii() else _NO_TEXT.sub(lambda one: f"\\u{ord(one[0]):04x}", text)).encode()


def loads(data: bytes, *, what: str) -> dict[str, Any]:
    """The object `data` holds; `what` names it in errors.

    Raises:
        IntegrityError: not JSON in UTF-8, not an object, a key twice, or a float.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique, parse_float=_no_float, parse_constant=_no_float)
    except (ValueError, RecursionError) as exc:
        raise errors.IntegrityError(f"{what} is not valid JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise errors.IntegrityError(f"{what} is not a JSON object")
    return value


def time_text(moment: datetime) -> str:
    """`2024-05-01T10:00:00.000000Z`."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def time_value(text: str) -> datetime:
    """The inverse of time_text.

    Raises:
        ValueError: any other spelling.
    """
    found = datetime.fromisoformat(text)
    if found.tzinfo is None or time_text(found) != text:  # other spellings of the same moment
        raise ValueError(f"not a time with all its digits: {text!r}")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _no_float(text: str) -> Any:
    raise ValueError(f"{text} is not an integer")


def _refuse_floats(value: object) -> None:
    if isinstance(value, float):
        raise ValueError("floats have no canonical form")
    if isinstance(value, dict):
        for item in value.values():
            _refuse_floats(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_floats(item)
