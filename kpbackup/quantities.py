"""Durations and sizes as people write them: `1h30m`, `16MiB`.

Durations are whole or fractional seconds; sizes are whole bytes. KiB, MiB, GiB, TiB are powers
of 1024; kB, MB, GB, TB powers of 1000. A number without unit is seconds, or bytes. Pure: a crash
leaves nothing behind. Functions raise ValueError with a text fit for a user.
"""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal, InvalidOperation

DURATION_EXAMPLES = "10s, 30m, 1h, 1h30m, 2d, 1w, or plain seconds"
SIZE_EXAMPLES = "512KiB, 16MiB, 1GiB, 50MB, or plain bytes"

_SECONDS = {
    "w": Decimal(604_800), "d": Decimal(86_400), "h": Decimal(3_600), "m": Decimal(60), "s": Decimal(1), "ms": Decimal("0.001"),
}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|w|d|h|m|s)\s*)+", re.ASCII)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|w|d|h|m|s)", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", re.ASCII)
_BYTES = {
    "": 1, "b": 1,
    "k": 1024, "kib": 1024, "m": 1024**2, "mib": 1024**2, "g": 1024**3, "gib": 1024**3, "t": 1024**4, "tib": 1024**4,
    "kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4,
}
_LARGEST_DURATION_S = 100 * 365 * 86_400  # a century: anything longer is a mistyped unit


def parse_duration(text: str) -> timedelta:
    """The duration a text names, to the microsecond.

    Raises:
        ValueError: not a duration, negative, or longer than a century.
    """
    stripped = text.strip().lower()
    try:
        if _DURATION.fullmatch(stripped):
            seconds = sum((Decimal(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(stripped)), Decimal())
        elif re.fullmatch(r"\d+(?:\.\d+)?", stripped, re.ASCII):
            seconds = Decimal(stripped)
        else:
            raise ValueError(f"not a duration; write {DURATION_EXAMPLES}")
    except InvalidOperation as exc:
        raise ValueError(f"not a duration; write {DURATION_EXAMPLES}") from exc
    if seconds > _LARGEST_DURATION_S:
        raise ValueError("longer than a century; check the unit")
    return timedelta(microseconds=int(seconds * 1_000_000))


def format_duration(duration: timedelta) -> str:
    """The two largest units, `1h 30m`; below a minute one decimal, `4.2s`; below a second milliseconds."""
    sign, duration = ("-", -duration) if duration < timedelta() else ("", duration)
    seconds = duration.total_seconds()
    if seconds == 0:
        return "0s"
    if seconds < 0.9995:
        return f"{sign}{max(1, round(seconds * 1000))}ms"
    if seconds < 59.95:
        return f"{sign}{seconds:.1f}".removesuffix(".0") + "s"
    left = round(seconds)
    parts: list[tuple[int, str]] = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or parts:
            parts.append((count, unit))
    return sign + " ".join(f"{count}{unit}" for count, unit in parts[:2] if count)


def count(number: int, noun: str) -> str:
    """`1 set`, `2 sets`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def spell_duration(duration: timedelta) -> str:
    """The exact text `parse_duration` reads back, `1h30m`, `1d`, `0.5s`; for defaults in documents and settings.

    Raises:
        ValueError: negative.
    """
    micros = duration // timedelta(microseconds=1)
    if micros < 0:
        raise ValueError("a duration cannot be negative")
    seconds, micros = divmod(micros, 1_000_000)
    text = ""
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        count, seconds = divmod(seconds, length)
        text += f"{count}{unit}" if count else ""
    if micros:
        return text + f"{seconds}.{micros:06d}".rstrip("0") + "s"
    return text + (f"{seconds}s" if seconds or not text else "")


def parse_size(text: str) -> int:
    """Whole bytes named by a text; a fraction is rounded down.

    Raises:
        ValueError: not a size, negative, or an unknown unit.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match or match[2].lower() not in _BYTES:
        raise ValueError(f"not a size; write {SIZE_EXAMPLES}")
    return int(Decimal(match[1]) * _BYTES[match[2].lower()])


def format_size(size_bytes: int) -> str:
    """Three significant digits in binary units: `999 B`, `1.5 KiB`, `16.0 MiB`."""
    if abs(size_bytes) < 1024:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if abs(value) < 1023.5 or unit == "TiB":
            break
    return f"{value:.1f} {unit}" if abs(value) < 99.95 else f"{value:.0f} {unit}"


def spell_size(size_bytes: int) -> str:
    """The exact text `parse_size` reads back, in the largest unit that divides it: `16MiB`, `1000`."""
    for unit, length in (("TiB", 1024**4), ("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if size_bytes and size_bytes % length == 0:
            return f"{size_bytes // length}{unit}"
    return str(size_bytes)
