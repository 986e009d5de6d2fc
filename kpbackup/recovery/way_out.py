"""One object that cannot be brought back exactly must not keep all others from coming back: its error says how to go on.

A restore that stopped for one table is begun again without it (`restore database --exclude`), or the set is made without it
(`backup full --exclude`, source.exclude). What is left out is named by whoever leaves it out, never by the restore itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from kpbackup import errors
from kpbackup.model import selection
from kpbackup.model.inventory import Definition

_OF_ONE_OBJECT = (errors.DatabaseError, errors.RestoreMismatch, errors.ServerUnfit)


@contextmanager
def named(schema: str, name: str) -> Iterator[None]:
    """Errors met meanwhile are this object's: their hint says how to leave it out. Names are the source's."""
    try:
        yield
    except _OF_ONE_OBJECT as exc:
        if selection.EXCLUDE not in exc.hint:
            exc.hint = "; ".join(filter(None, (exc.hint, for_restore(schema, name))))
        raise


def for_restore(schema: str, name: str) -> str:
    """The hint; without a name it is about the whole database."""
    return f"everything else comes back in a new restore with {selection.leaving_out(schema, name)}"


def of_definition(one: Definition, sources: Mapping[str, str]) -> str:
    """The hint for an object that cannot be made, '' for what --exclude does not name.

    `sources` gives the source's name of a database that is renamed.
    """
    schema = sources.get(one.schema, one.schema)
    if one.kind in ("table", "view", "sequence"):
        return for_restore(schema, one.name)
    return for_restore(schema, "") if schema and one.kind != "database" else ""


def of_differences(differences: Sequence[str], objects: Iterable[Definition], sources: Mapping[str, str]) -> str:
    """The hint for the first of the objects that one of the sentences of `definitions.compare` is about."""
    for one in objects:
        if any(f"{one.kind} {one.schema}.{one.name} " in f"{sentence} " for sentence in differences):
            return of_definition(one, sources)
    return ""
