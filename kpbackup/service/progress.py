"""How far a long command is: a bar on a terminal, a log line per interval elsewhere.

    with progress.show("full backup", stream=sys.stderr) as report:
        run(report)        # which calls report(done, total, unit, phase), unit "bytes" or a plural noun, phase '' if there is one

Callbacks may come from any thread and as often as they like: what is drawn is throttled. Rate and ETA are taken over
the last seconds, so that they follow a slow-down. Phases may overlap: each has its own rate and its own log lines, and the
bar stays with one until it is done or silent. Nothing is kept after a crash; a half-drawn bar may stay on the line.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TextIO

from kpbackup import logs, quantities


class Report(Protocol):
    """Takes how far the work is."""

    def __call__(self, done: int, total: int | None, unit: str, phase: str = "") -> None: ...


DRAW_INTERVAL_S = 0.1  # faster is only flicker
LOG_INTERVAL_S = 30.0  # two lines a minute show life without filling a log
RATE_WINDOW_S = 10.0
SILENT_S = 2.0
_BAR_COLUMNS = 24

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """One moment of the work, or of a `phase` of it. `total` is None when nobody knows; `rate` is per second, None until it
    can be told."""

    done: int
    total: int | None
    unit: str
    rate: float | None
    phase: str = ""

    @property
    def eta(self) -> timedelta | None:
        if self.total is None or not self.rate or self.rate <= 0:
            return None
        return timedelta(seconds=max(0, self.total - self.done) / self.rate)

    @property
    def share(self) -> float | None:
        """Between 0 and 1; an estimate that proves too small stays at 1."""
        return min(1.0, self.done / self.total) if self.total else None


@dataclass
class _Phase:
    """What is known of one phase: samples for its rate, when it was last shown, when it last spoke, whether it is done."""

    shown_at: float | None
    samples: deque[tuple[float, int]]
    spoke_at: float = 0.0
    is_done: bool = False

    def sample(self, now: float, done: int) -> None:
        self.spoke_at = now
        if now - self.samples[-1][0] >= DRAW_INTERVAL_S:
            self.samples.append((now, done))
        while len(self.samples) > 2 and now - self.samples[1][0] >= RATE_WINDOW_S:
            self.samples.popleft()

    def rate(self, now: float, done: int) -> float | None:
        then, before = self.samples[0]
        return (done - before) / (now - then) if now > then and done >= before else None


class Progress:
    """Takes reports, draws or logs them. `clock` gives monotonic seconds."""

    def __init__(
        self, label: str, *, stream: TextIO, clock: Callable[[], float] = time.monotonic, log_interval_s: float = LOG_INTERVAL_S
    ) -> None:
        self._label = label
        self._stream = stream
        self._clock = clock
        self._bar = stream.isatty()
        self._interval_s = DRAW_INTERVAL_S if self._bar else log_interval_s
        self._lock = threading.Lock()
        self._began_at = clock()
        self._phases: dict[str, _Phase] = {}
        self._on_bar = ""  # the phase that has the bar
        self._drawn = False

    def report(self, done: int, total: int | None, unit: str, phase: str = "") -> None:
        """`done` of `total` units are done; shown when the interval has passed, or all is done on a terminal."""
        with self._lock:
            now = self._clock()
            one = self._phase(phase, now)
            one.sample(now, done)
            one.is_done = total is not None and done >= total
            if self._bar and not self._takes_bar(phase, now):
                return
            finished = self._bar and one.is_done
            if one.shown_at is not None and now - one.shown_at < self._interval_s and not finished:
                return
            one.shown_at = now
            self._show(State(done, total, unit, one.rate(now, done), phase))

    def _phase(self, name: str, now: float) -> _Phase:
        if name not in self._phases:  # a short job logs no progress at all
            began = now if self._phases else self._began_at
            self._phases[name] = _Phase(None if self._bar else began, deque([(began, 0)]))
        return self._phases[name]

    def _takes_bar(self, phase: str, now: float) -> bool:
        other = self._phases.get(self._on_bar)
        if phase != self._on_bar and other is not None and not other.is_done and now - other.spoke_at < SILENT_S:
            return False
        self._on_bar = phase
        return True

    def close(self) -> None:
        """Removes the bar from the line."""
        with self._lock:
            if self._drawn:
                self._stream.write("\r\x1b[K")
                self._stream.flush()
                self._drawn = False

    def _show(self, state: State) -> None:
        if self._bar:
            columns = shutil.get_terminal_size().columns
            self._stream.write("\r\x1b[K" + bar_line(self._label, state)[: columns - 1])
            self._stream.flush()
            self._drawn = True
            return
        logs.event(logger, "progress_reported", **log_fields(self._label, state))


def bar_line(label: str, state: State) -> str:
    """`full backup  [######------]  50%  512 MiB of 1.0 GiB  64.0 MiB/s  ETA 8s`."""
    parts = [f"{label}: {state.phase}" if state.phase else label]
    if state.share is not None:
        filled = int(state.share * _BAR_COLUMNS)
        parts += [f"[{'#' * filled}{'-' * (_BAR_COLUMNS - filled)}]", f"{int(state.share * 100):3d}%"]
    amount = _amount(state.done, state.unit)
    parts.append(f"{amount} of {_amount(state.total, state.unit)}" if state.total is not None else amount)
    if state.rate is not None:
        parts.append(f"{_amount(int(state.rate), state.unit)}/s")
    if state.eta is not None:
        parts.append(f"ETA {quantities.format_duration(timedelta(seconds=round(state.eta.total_seconds())))}")
    return "  ".join(parts)


def log_fields(label: str, state: State) -> dict[str, Any]:
    """The fields of the log event; names carry the unit."""
    fields: dict[str, Any] = {"work": label, **({"phase": state.phase} if state.phase else {}), f"done_{state.unit}": state.done}
    if state.total is not None:
        fields[f"total_{state.unit}"] = state.total
    if state.rate is not None:
        fields[f"{state.unit}_per_second"] = round(state.rate)
    if state.eta is not None:
        fields["eta_seconds"] = round(state.eta.total_seconds())
    return fields


@contextmanager
def show(label: str, *, stream: TextIO, log_interval_s: float = LOG_INTERVAL_S) -> Iterator[Report]:
    """Gives the callback to report to; the bar is gone when the block ends, however it ends."""
    progress = Progress(label, stream=stream, log_interval_s=log_interval_s)
    try:
        yield progress.report
    finally:
        progress.close()


def _amount(value: int, unit: str) -> str:
    return quantities.format_size(value) if unit == "bytes" else f"{value:,} {unit}"
