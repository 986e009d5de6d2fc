"""An inventory whose databases have other names: every definition rewritten exactly where it names one of them.

A definition is read as the words it consists of. A database's name before a dot is the database; between quotes of a text, in a
comment or in an account it is none. Anything else of that name (a table, column, alias, variable or label, in any place of the
same text) makes it unsure what a name before a dot means, and is refused; so are texts in which a string may be run as a
statement or compared with names of databases. What was rewritten is proven afterwards: the definitions read back from the target
must be these.

Accounts are left out: their grants name databases by patterns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from kpbackup import errors
from kpbackup.model.inventory import Definition, Inventory, Table
from kpbackup.mysql import statements
from kpbackup.mysql.quoting import identifier
from kpbackup.mysql.schema import SYSTEM_DATABASES

_RUN_OR_COMPARED = frozenset({"prepare", "execute", "information_schema", "performance_schema", "mysql", "sys"})
_LONGEST_NAME = 64


def rename(inventory: Inventory, names: Mapping[str, str]) -> Inventory:
    """The inventory with its databases renamed (old -> new); its chunks keep the names under which they are stored.

    Raises:
        UsageError: a name is not there, taken, or none. TargetRefused: a definition cannot be rewritten surely.
    """
    if not names:
        return inventory
    _judge(inventory, names)

    rewriter = Rewriter(names, fold=inventory.settings.get("lower_case_table_names", "0") != "0")
    return replace(
        inventory,
        databases=tuple(_database(one, names) for one in inventory.databases),
        tables=tuple(rewriter.table(one) for one in inventory.tables),
        sequences=tuple(rewriter.definition(one) for one in inventory.sequences),
        after_rows=tuple(rewriter.definition(one) for one in inventory.after_rows),
        accounts=(),
    )


def _judge(inventory: Inventory, names: Mapping[str, str]) -> None:
    there = {one.name for one in inventory.databases}
    for old, new in names.items():
        if old not in there:
            raise errors.UsageError(f"--rename {old}={new}: there is no database {old} to restore", hint=_shown(there))
        packages = {one.name.lower() for one in inventory.after_rows if one.kind.startswith("package")}
        if old.lower() in {"new", "old", *packages}:
            raise _unsure("any text", old, "which before a dot may be the row of a trigger or a package")
        if not new or len(new) > _LONGEST_NAME or new.lower() in SYSTEM_DATABASES or new != new.strip() or "\0" in new:
            raise errors.UsageError(f"--rename {old}={new}: {new!r} cannot be a database's name", hint="choose another name")
    after = [names.get(name, name).lower() for name in there]
    if taken := sorted({name for name in after if after.count(name) > 1}):
        raise errors.UsageError(f"--rename: two databases would be named {taken[0]}", hint="give each its own name")


def _shown(names: set[str]) -> str:
    return f"what is restored has {', '.join(sorted(names)) or 'none'}; names are case-sensitive"


def _database(one: Definition, names: Mapping[str, str]) -> Definition:
    """CREATE and ALTER DATABASE, where the name stands alone."""
    if one.name not in names:
        return one
    old, new = identifier(one.name), identifier(names[one.name])
    return replace(
        one, schema=names[one.name], name=names[one.name], statements=tuple(s.replace(old, new, 1) for s in one.statements)
    )


class Rewriter:
    """Renames databases in texts. `fold`: the server takes names in any case as the same."""

    def __init__(self, names: Mapping[str, str], *, fold: bool) -> None:
        self._names, self._fold = names, fold
        self._known = {self._folded(old): new for old, new in names.items()}

    def table(self, table: Table) -> Table:
        text = self.text(table.create_sql, what=f"table {table.schema}.{table.name}")
        return replace(table, schema=self._names.get(table.schema, table.schema), create_sql=text)

    def definition(self, one: Definition) -> Definition:
        what, mode = f"{one.kind} {one.schema}.{one.name}", statements.mode_of(one.session.get("sql_mode", ""))
        texts = tuple(self.text(text, what=what, sql_mode=mode) for text in one.statements)
        return replace(one, schema=self._names.get(one.schema, one.schema), statements=texts)

    def text(self, text: str, *, what: str, sql_mode: int = 0) -> str:
        """The text with the databases it names renamed.

        Raises:
            TargetRefused: it is not sure what a name in it means.
        """
        words = list(statements.tokens(text, sql_mode))
        parts, at = [], 0
        for number, word in enumerate(words):
            if word.kind == "string":
                self._judge_string(word.value, words, what)
            new = self._known.get(self._folded(word.value)) if word.is_name else None
            before = words[number - 1].value if number else ""
            after = words[number + 1].value if number + 1 < len(words) else ""
            if new is None or "@" in (before, after):  # of an account, or a variable
                continue
            if after != "." or before == ".":
                raise _unsure(what, word.value, "which may also be something else than the database")
            parts += [text[at : word.start], identifier(new)]
            at = word.end
        return "".join([*parts, text[at:]])

    def _judge_string(self, value: str, words: list[statements.Token], what: str) -> None:
        named = [old for old in self._names if re.search(rf"(?<!\w){re.escape(old)}(?!\w)", value, re.IGNORECASE)]
        if named and any(word.is_name and word.value.lower() in _RUN_OR_COMPARED for word in words):
            raise _unsure(what, named[0], "in a string that may be run or compared with names")

    def _folded(self, name: str) -> str:
        return name.lower() if self._fold else name


def _unsure(what: str, name: str, why: str) -> errors.TargetRefused:
    return errors.TargetRefused(
        f"cannot rename in {what} surely: it has the name {name}, {why}",
        hint=f"leave it out (--exclude), or restore under the name {name} and rename by hand",
    )
