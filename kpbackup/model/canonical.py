"""Canonical JSON, and strict reading of it: the only serialisation kpbackup signs or hashes.

Keys sorted, no spaces, UTF-8, no floats, one line. Times are RFC 3339 in UTC with microseconds and `Z`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from kpbackup import errors


def dumps(value: object) -> bytes:
    """`value` as one canonical line without a trailing newline.

    Raises:
        ValueError: a float or another type JSON has no exact form for.
    """
    _refuse_floats(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def loads(data: bytes, *, what: str) -> dict[str, Any]:
    """The object `data` holds; `what` names it in errors.

    Raises:
        IntegrityError: not JSON, not an object, or a key twice.
    """
    try:
        value = json.loads(data, object_pairs_hook=_unique)
    except (ValueError, UnicodeDecodeError, RecursionError) as exc:
        raise errors.IntegrityError(f"{what} is not valid JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise errors.IntegrityError(f"{what} is not a JSON object")
    return value


def time_text(moment: datetime) -> str:
    """`2024-05-01T10:00:00.000000Z`."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def time_value(text: str) -> datetime:
    """The inverse of time_text.

    Raises:
        ValueError: any other spelling.
    """
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _refuse_floats(value: object) -> None:
    if isinstance(value, float):
        raise ValueError("floats have no canonical form")
    if isinstance(value, dict):
        for item in value.values():
            _refuse_floats(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_floats(item)
