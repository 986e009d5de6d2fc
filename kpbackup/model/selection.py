"""Which tables and databases are meant: patterns `database` or `database.table`, in which `*` and `?` stand for any text and
any one character.

A database is meant as a whole when a pattern names it without a table (`shop`, `shop.*`): then its routines and events belong
to it too. Names are compared as they are stored; the first dot separates, so a database with a dot in its name is named by a
pattern with `?` there.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

EXCLUDE = "--exclude"


@dataclass(frozen=True)
class Selection:
    """What is meant: everything that `only` names (nothing named: everything), without what `exclude` names."""

    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def is_everything(self) -> bool:
        return not self.only and not self.exclude

    def takes(self, schema: str, name: str) -> bool:
        """Whether this table, view or sequence is meant."""
        named = not self.only or any(matches(one, schema, name) for one in self.only)
        return named and not any(matches(one, schema, name) for one in self.exclude)

    def takes_whole(self, schema: str) -> bool:
        """Whether what belongs to the database itself is meant: its routines and events."""
        named = not self.only or any(_names_whole(one, schema) for one in self.only)
        return named and not any(_names_whole(one, schema) for one in self.exclude)

    def takes_all_of(self, schema: str) -> bool:
        """Whether the database is meant with everything in it, whatever is made there."""
        return self.takes_whole(schema) and not any(_like(one.partition(".")[0], schema) for one in self.exclude)

    def may_take_of(self, schema: str) -> bool:
        """Whether something of the database may be meant."""
        named = not self.only or any(_like(one.partition(".")[0], schema) for one in self.only)
        return named and not any(_names_whole(one, schema) for one in self.exclude)

    def __str__(self) -> str:
        parts = [", ".join(self.only), f"without {', '.join(self.exclude)}" if self.exclude else ""]
        return " ".join(filter(None, parts)) or "everything"


EVERYTHING = Selection()


@dataclass(frozen=True)
class Narrowed:
    """What `inner` means of what `outer` means."""

    outer: Selection
    inner: Selection

    @property
    def is_everything(self) -> bool:
        return self.outer.is_everything and self.inner.is_everything

    def takes(self, schema: str, name: str) -> bool:
        return self.outer.takes(schema, name) and self.inner.takes(schema, name)

    def takes_whole(self, schema: str) -> bool:
        return self.outer.takes_whole(schema) and self.inner.takes_whole(schema)

    def takes_all_of(self, schema: str) -> bool:
        return self.outer.takes_all_of(schema) and self.inner.takes_all_of(schema)

    def may_take_of(self, schema: str) -> bool:
        return self.outer.may_take_of(schema) and self.inner.may_take_of(schema)

    def __str__(self) -> str:
        return str(self.outer if self.inner.is_everything else self.inner)


def fault(pattern: str) -> str:
    """What is wrong with a pattern, '' when nothing is."""
    database, dot, table = pattern.partition(".")
    return "" if database and (table or not dot) else "write database or database.table, with * and ? for any text or character"


def leaving_out(schema: str, name: str = "") -> str:
    """What is typed to leave this object out, or its whole database."""
    return f"{EXCLUDE} {shlex.quote(f'{schema}.{name}' if name else schema)}"


def matches(pattern: str, schema: str, name: str) -> bool:
    database, dot, table = pattern.partition(".")
    return _like(database, schema) and (not dot or _like(table, name))


def _names_whole(pattern: str, schema: str) -> bool:
    database, _, table = pattern.partition(".")
    return table in ("", "*") and _like(database, schema)


def _like(pattern: str, text: str) -> bool:
    wild = {"*": ".*", "?": "."}
    return re.fullmatch("".join(wild.get(sign) or re.escape(sign) for sign in pattern), text, re.DOTALL) is not None
