"""The text of SHOW CREATE TABLE, changed where executing it as printed would give another table.

Pure. Three cases are known: MariaDB prints defaults and members of binary columns as raw bytes, which are no text; MySQL prints
a collation that a column merely took over from its table, and would remember it as spelled out; Aria prints its page checksum
whether it was asked for or not. The result says the same on every server, so that a restored table's text equals its source's.

Limit: the parts are found by their layout; a text that is laid out otherwise is left as it is.
"""

from __future__ import annotations

import re

_STRING = re.compile(r"'((?:[^'\\]|''|\\.)*)'", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)|''", re.DOTALL)
_ESCAPES = {"0": "\0", "n": "\n", "r": "\r", "t": "\t", "Z": "\x1a", "b": "\b"}
_QUOTED = r"'(?:[^'\\]|''|\\.)*'"
_TAKEN_OVER = re.compile(rf"(?P<head>  `(?:[^`]|``)+` \w+(?:\((?:[^()']|{_QUOTED})*\))?) COLLATE (?P<collation>\w+)", re.DOTALL)
_OF_TABLE = re.compile(r" COLLATE=(\w+)")
_BINARY_DEFAULT = re.compile(
    rf"(?P<head>  `(?:[^`]|``)+` (?:var)?binary\(\d+\)[^']* DEFAULT )'(?P<text>{_QUOTED[1:-1]})'", re.DOTALL
)
_INVISIBLE = " INVISIBLE"
_PAGE_CHECKSUM = re.compile(r" PAGE_CHECKSUM=1\b")


def creatable(printed: str, *, flavour: str) -> str:
    """The text to store, to execute and to compare; bytes that are no UTF-8 are in `printed` as lone surrogates."""
    text = printed if printed.isascii() else _STRING.sub(_as_hex, printed)
    return _without_taken_over(text) if flavour == "mysql" else text


def without_page_checksum(text: str) -> str:
    """The text without Aria's PAGE_CHECKSUM=1, for a table that was made without it."""
    begin, mark, options = text.rpartition("\n) ")
    unquoted = options.split("'")[0]
    return begin + mark + _PAGE_CHECKSUM.sub("", unquoted, count=1) + options[len(unquoted) :]


def in_one_order(text: str) -> str:
    """The text as MariaDB 11.8 prints it: INVISIBLE after the default, defaults of binary columns in hex. For comparing only."""
    return "\n".join(_line_in_one_order(line) if line.startswith("  `") else line for line in text.split("\n"))


def _line_in_one_order(line: str) -> str:
    line = _BINARY_DEFAULT.sub(lambda one: f"{one['head']}x'{_bytes_of(one['text']).hex()}'", line, count=1)
    head, mark, tail = line.partition(_INVISIBLE)
    if not mark or "'" in head:  # in a comment
        return line
    comma = "," if tail.endswith(",") else ""
    return head + tail.removesuffix(",") + _INVISIBLE + comma


def _bytes_of(inner: str) -> bytes:
    """The bytes of a string constant, by the text between its quotes."""
    plain = _ESCAPED.sub(lambda one: "'" if one[1] is None else _ESCAPES.get(one[1], one[1]), inner)
    return plain.encode("utf-8", "surrogateescape")


def _as_hex(found: re.Match[str]) -> str:
    """A string constant of bytes that are no text, as a hexadecimal one."""
    inner = found[1]
    if not any("\udc80" <= letter <= "\udcff" for letter in inner):
        return found[0]
    return f"x'{_bytes_of(inner).hex()}'"


def _without_taken_over(text: str) -> str:
    """Without the collation of columns that have their table's and no CHARACTER SET: MySQL prints one that was spelled out."""
    options = text[text.rfind("\n) ") :].split("'")[0]
    own = _OF_TABLE.search(options)
    if own is None:
        return text
    lines = []
    for line in text.split("\n"):
        found = _TAKEN_OVER.match(line)
        lines.append(found["head"] + line[found.end() :] if found and found["collation"] == own[1] else line)
    return "\n".join(lines)
