"""How answers look: one call gives a JSON document or readable text, so that no verb decides it by itself.

    printer.show({"sets": [...]}, "2 backup sets", Table(("SET", "SIZE"), rows))

Text is plain and aligned; on a terminal tables are drawn by rich, and words that judge have a colour unless NO_COLOR is set
(https://no-color.org) or the terminal is a dumb one. The word says the same without its colour. Control characters in names
are shown escaped, because a table may be called anything, an escape sequence included. JSON keys carry their units.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TextIO

from kpbackup import errors, logs, quantities
from kpbackup.model import times


@dataclass(frozen=True)
class Table:
    """`rows` hold text, whole numbers or None; columns of numbers, and those named in `right`, are aligned right. Words in the
    column `judged` have their colour."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    right: frozenset[str] = frozenset()
    empty: str = "none"
    judged: str = ""


@dataclass(frozen=True)
class Fields:
    """Labels and values, one pair a line; a pair whose value is None is left out."""

    pairs: Sequence[tuple[str, object]]


@dataclass(frozen=True)
class Judged:
    """A word that judges, and what it judges, on one line."""

    word: str
    text: str
    width: int = 9


@dataclass(frozen=True)
class Line:
    """A line that is drawn with characters; those in `colours` have the colour of a word that judges."""

    text: str
    colours: Mapping[str, str]


Part = str | Table | Fields | Judged | Line

# The colours every terminal has (SGR codes), by the words that judge.
_COLOURS = {"ok": 32, "warning": 33, "unknown": 36, "critical": 31, "error": 31, "hint": 36}
_RICH = {32: "green", 33: "yellow", 36: "cyan", 31: "red"}


@dataclass
class Printer:
    """Where answers go. `json` switches to one document; `answered` turns true with the first output."""

    json: bool = False
    stream: TextIO = field(default_factory=lambda: sys.stdout)
    answered: bool = False
    answer: Mapping[str, object] = field(default_factory=dict)  # the last document, whatever was printed of it

    def show(self, document: Mapping[str, object], *parts: Part) -> None:
        """Prints the document (JSON mode) or the parts (otherwise). In JSON mode only one call is allowed.

        Raises:
            ValueError: a second document.
            LocalIOError: standard output refuses, a full disk for example.
        """
        if self.json and self.answered:
            raise ValueError("a command prints one JSON document only")
        self.answered, self.answer = True, document or self.answer
        try:
            if self.json:
                self.stream.write(json.dumps(logs.plain(document), ensure_ascii=False, indent=2) + "\n")
            else:
                for part in parts:
                    self._write(part)
            self.stream.flush()
        except BrokenPipeError:
            raise  # `kpbackup list | head` is no error
        except OSError as exc:
            raise errors.LocalIOError(f"cannot write to standard output: {exc.strerror}", hint="is the disk full?") from exc

    def say(self, *parts: Part) -> None:
        """Prints parts that have no place in the JSON document: nothing in JSON mode."""
        if not self.json:
            self.show({}, *parts)

    def _write(self, part: Part) -> None:
        if isinstance(part, str):
            self.stream.write(printable(part, lines=True) + "\n")
        elif isinstance(part, Judged):
            space = " " * max(part.width - len(part.word), 1)
            self.stream.write(f"{painted(part.word, part.word, self.stream)}{space}{printable(part.text)}\n")
        elif isinstance(part, Line):
            runs = ("".join(same) for _, same in itertools.groupby(printable(part.text)))
            self.stream.write("".join(painted(one, part.colours.get(one[0], ""), self.stream) for one in runs) + "\n")
        elif isinstance(part, Fields):
            self.stream.write(fields_text(part))
        elif self.stream.isatty() and part.rows:
            _draw(part, self.stream)
        else:
            self.stream.write(table_text(part))


def table_text(table: Table) -> str:
    """The table as plain aligned lines, two spaces between columns."""
    if not table.rows:
        return table.empty + "\n"
    cells = [[cell(value) for value in row] for row in table.rows]
    widths = [max(len(line[index]) for line in [list(table.columns), *cells]) for index in range(len(table.columns))]
    right = _right(table)
    lines = []
    for line in [list(table.columns), *cells]:
        places = zip(line, widths, right, strict=True)
        aligned = [text.rjust(width) if to_right else text.ljust(width) for text, width, to_right in places]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines) + "\n"


def fields_text(fields: Fields) -> str:
    """The pairs as aligned lines."""
    shown = [(label, cell(value)) for label, value in fields.pairs if value is not None]
    width = max((len(label) for label, _ in shown), default=0)
    return "".join(f"{label + ':':<{width + 1}} {value}\n" for label, value in shown)


def cell(value: object) -> str:
    """A value as text: times in UTC, durations in their two largest units, `-` for nothing."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return times.utc_text(value)
    if isinstance(value, timedelta):
        return quantities.format_duration(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return printable(str(value))


def printable(text: str, *, lines: bool = False) -> str:
    """The text with control characters escaped; `lines` lets line ends and tabs pass."""
    allowed = "\n\t" if lines else ""
    return "".join(char if char.isprintable() or char in allowed else char.encode("unicode_escape").decode() for char in text)


def has_colours(stream: TextIO) -> bool:
    """Whether colours may be written: to a terminal that has them, and whose user did not refuse them."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painted(text: str, word: str, stream: TextIO) -> str:
    """The text in the colour of a word that judges; as it is where there are no colours, or none for the word."""
    colour = _COLOURS.get(word) if has_colours(stream) else None
    return f"\x1b[{colour}m{text}\x1b[0m" if colour else text


def _right(table: Table) -> list[bool]:
    return [
        name in table.right or all(isinstance(row[index], int) and not isinstance(row[index], bool) for row in table.rows)
        for index, name in enumerate(table.columns)
    ]


def _style(value: object) -> str:
    return _RICH.get(_COLOURS.get(str(value), 0), "")


def _draw(table: Table, stream: TextIO) -> None:
    import rich.box
    import rich.console
    import rich.table
    import rich.text

    coloured = has_colours(stream)
    drawn = rich.table.Table(
        box=rich.box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold" if coloured else "none"
    )
    for name, to_right in zip(table.columns, _right(table), strict=True):
        drawn.add_column(name, justify="right" if to_right else "left", overflow="fold")
    for row in table.rows:
        cells = zip(table.columns, row, strict=True)
        drawn.add_row(
            *(rich.text.Text(cell(value), style=_style(value) if name == table.judged else "") for name, value in cells)
        )
    rich.console.Console(file=stream, highlight=False, no_color=not coloured).print(drawn)
