"""Log events: a past participle and its fields, as text for people or JSON lines for collectors, on standard error.

    event(logger, "segment_archived", object_key=key, size_bytes=n)
    text  2024-05-01T10:00:00.123Z INFO segment_archived object_key=... size_bytes=123
    json  {"time":"2024-05-01T10:00:00.123Z","level":"info","logger":"kpbackup.backup.archiver","event":"segment_archived",...}

Limits: other libraries are heard from `warning` on only, whatever the level, because their debug lines show
request signatures. A traceback is written at level debug alone. Nothing is buffered, so a crash loses no line.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TextIO

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_ROOM = "kpbackup"
_PLAIN = re.compile(r"[\w./:@%+,-]+")
_RESERVED = ("time", "level", "logger", "event", "error", "traceback")


def event(
    logger: logging.Logger, name: str, /, *, level: int = logging.INFO, error: BaseException | None = None, **fields: object
) -> None:
    """Writes one event; `error` adds its class and message, and at level debug where it arose."""
    if logger.isEnabledFor(level):
        logger.log(level, name, extra={"fields": fields}, exc_info=error)


def setup(*, format: str = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Sends everything to `stream` (standard error). May be called again when the settings are known: the last call wins."""
    target = stream or sys.stderr
    handler = logging.StreamHandler(target)
    traceback = level == "debug"
    handler.setFormatter(_JsonLines(traceback) if format == "json" else _TextLines(traceback, terminal=target.isatty()))
    root = logging.getLogger()
    for old in [known for known in root.handlers if getattr(known, "of_kpbackup", False)]:
        root.removeHandler(old)
    handler.of_kpbackup = True  # type: ignore[attr-defined]
    root.addHandler(handler)
    root.setLevel(max(LEVELS[level], logging.WARNING))
    logging.getLogger(_ROOM).setLevel(LEVELS[level])
    logging.captureWarnings(True)


def debugging() -> bool:
    """True when the level is debug."""
    return logging.getLogger(_ROOM).isEnabledFor(logging.DEBUG)


def plain(value: object) -> Any:
    """A value as JSON can hold it: times in RFC 3339 with Z, durations in seconds, everything unknown as its `str`."""
    if isinstance(value, datetime):
        return _stamp(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


class _Lines(logging.Formatter):
    def __init__(self, traceback: bool) -> None:
        super().__init__()
        self._traceback = traceback

    def _parts(self, record: logging.LogRecord) -> dict[str, object]:
        fields = {
            f"{name}_" if name in _RESERVED else name: plain(value) for name, value in getattr(record, "fields", {}).items()
        }
        if record.exc_info and record.exc_info[1] is not None:
            fields["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        return fields

    def _trace(self, record: logging.LogRecord) -> str | None:
        return self.formatException(record.exc_info) if self._traceback and record.exc_info else None


class _TextLines(_Lines):
    def __init__(self, traceback: bool, *, terminal: bool) -> None:
        super().__init__(traceback)
        # A progress bar may stand on the line: return to its start and clear it.
        self._start = "\r\x1b[K" if terminal else ""

    def format(self, record: logging.LogRecord) -> str:
        moment = _stamp(datetime.fromtimestamp(record.created, UTC))
        fields = "".join(f" {name}={_text(value)}" for name, value in self._parts(record).items())
        trace = self._trace(record)
        name = _one_line(record.getMessage())
        return f"{self._start}{moment} {record.levelname} {name}{fields}" + (f"\n{trace}" if trace else "")


class _JsonLines(_Lines):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _stamp(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **self._parts(record),
        }
        trace = self._trace(record)
        if trace:
            line["traceback"] = trace
        return json.dumps(line, ensure_ascii=False)


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if _PLAIN.fullmatch(text) else json.dumps(text if isinstance(value, str) else value, ensure_ascii=True)


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)
