"""What a full backup holds, as values: the content of the sealed inventory.

Names, DDL and hashes of plain rows appear here and nowhere in the plain manifest.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kpbackup.model.codec import LATER
from kpbackup.model.selection import Selection


@dataclass(frozen=True)
class Column:
    """One stored column of a table: generated columns are not listed, invisible ones are.

    `data_type` and `column_type` are information_schema's, lower case ('int', 'int(10) unsigned').
    `charset` and `collation` are None for types without one.
    """

    name: str
    data_type: str
    column_type: str
    charset: str | None = None
    collation: str | None = None


@dataclass(frozen=True)
class Table:
    """A base table as the dump and the load need it.

    `key` names the columns of the primary key in order, () for a keyless table.
    `estimated_rows` and `estimated_bytes` are the server's guesses; nothing depends on their truth.
    `holds_rows` is False where the rows are other tables' or another server's (MERGE, FEDERATED), or all columns are generated
    and cannot be written: they are not dumped.
    `json_types` names the columns whose rows carry the list of their typed JSON values (MySQL).
    `history` names the start and end column of a system-versioned table whose past rows are kept (MariaDB).
    `keys_disabled`: the keys that are not unique are told to leave alone (ALTER TABLE ... DISABLE KEYS).
    `computed`: all columns are generated; `columns` names one of them, whose rows are there to be counted (MariaDB).
    """

    schema: str
    name: str
    engine: str
    create_sql: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    transactional: bool
    estimated_rows: int = 0
    estimated_bytes: int = 0
    holds_rows: bool = True
    json_types: tuple[str, ...] = ()
    history: tuple[str, ...] = ()
    keys_disabled: bool = field(default=False, metadata=LATER)
    computed: bool = field(default=False, metadata=LATER)


@dataclass(frozen=True)
class Definition:
    """One object to create, with the session it must be created in.

    `kind`: database, table, sequence, view, library, function, procedure, package, package body, trigger, event,
    account, grant. `statements` run in order in a session that was given `session` (variable -> value) first;
    its `collation_database` is the default collation the database must have at that moment. `schema` is '' for
    accounts and grants. `optional`: broken on the source already, or a view that may need what was left out, so that failing
    to create it is a warning.
    """

    kind: str
    schema: str
    name: str
    statements: tuple[str, ...]
    session: dict[str, str] = field(default_factory=dict)
    optional: bool = False


Bound = tuple[str, ...]  # the values of the first key columns, as exact text: mysql/ranges.py


@dataclass(frozen=True)
class ChunkBounds:
    """A range of the primary key: lower <= key < upper; None is open. Keyless tables: both None."""

    lower: Bound | None = None
    upper: Bound | None = None


@dataclass(frozen=True)
class ChunkRecord:
    """One chunk of rows, where it lies and what it must read back as.

    `object_key` holds one or more chunks one after the other; `ordinal` is this chunk's place in it.
    `row_bytes` counts the raw row packets, headers included. `sha256` (hex) is over exactly those bytes for a
    table with a primary key; for a keyless table it is the sum modulo 2**256 of the SHA-256 of each row packet's
    payload (after joining split packets), as 64 hex digits, so that row order does not matter.
    """

    schema: str
    table: str
    bounds: ChunkBounds
    object_key: str
    ordinal: int
    rows: int
    row_bytes: int
    sha256: str


@dataclass(frozen=True)
class Inventory:
    """Everything sealed about one backup set, in the order it must be created.

    `selection` is what the set was made of, where that is a part of the source. `tablespaces` are MySQL's general ones that
    tables of the set are in.
    """

    settings: dict[str, str]
    databases: tuple[Definition, ...]
    tables: tuple[Table, ...]
    sequences: tuple[Definition, ...]
    after_rows: tuple[Definition, ...]
    accounts: tuple[Definition, ...]
    chunks: tuple[ChunkRecord, ...] = ()
    warnings: tuple[str, ...] = ()
    selection: Selection = Selection()
    tablespaces: tuple[Definition, ...] = field(default=(), metadata=LATER)
