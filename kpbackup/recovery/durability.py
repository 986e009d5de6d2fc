"""A dedicated target that writes its logs once a second, and not at each commit, for the time of a replay.

Half of what a small transaction costs a target is one write of the redo log at its commit, on a real disk with a flush. With
`recovery.replay.relaxed` that is left out while the replay runs; afterwards the settings are put back and everything is flushed,
before anything says that the replay is done.

Meanwhile a crash of the server may take the newest transactions and leave their GTIDs in its binlog, or the other way round. So
a server that was started anew meanwhile is not gone on with: the restore must begin again. The witness is a row in a MEMORY
table of the scratch schema, with a token that the journal knows: it is there exactly as long as the server's process is. It
holds the former settings too, for when it is gone they are those of the configuration again.

What a crash of kpbackup leaves: the relaxed server, and the row. The run that goes on, or another restore into that target,
puts the settings back.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from kpbackup import errors
from kpbackup.mysql import load, server
from kpbackup.mysql.facts import ServerFacts
from kpbackup.mysql.log_flushing import Flushing
from kpbackup.recovery.journal import Journal
from kpbackup.recovery.steps import RecoveryRequest

RELAXED, SETTLED = "durability_relaxed", "durability_settled"

_NAME = "relaxed"
_TABLE = f"{load.SCRATCH_SCHEMA}.{_NAME}"
_NO_SUCH = (1049, 1146)  # database, table


@contextmanager
def relaxed(request: RecoveryRequest, journal: Journal, facts: ServerFacts, *, is_wanted: bool) -> Iterator[bool]:
    """Whether the target is relaxed meanwhile; where its account may not, `request.warn` is told and nothing is changed.

    Raises:
        StepFailed: the server was started anew while it was relaxed, by this run or by the one that this one goes on with.
        DatabaseError, ServerUnreachable, StorageError.
    """
    token = _open_token(journal)
    if token:
        _settle(request, journal, token)  # a killed run left it so
    else:
        with server.connect(request.endpoint) as connection:
            put_back(connection)  # what another run left: the scratch schema, which knows of it, will be dropped
    token = _announce(request, journal, facts) if is_wanted else ""
    try:
        if token:
            with server.connect(request.endpoint) as connection:
                _witness(request, connection, token).relax(connection)
        yield bool(token)
    except BaseException:
        if token:
            with suppress(errors.KpbackupError):  # the error that ended the replay is the one to be told
                _settle(request, journal, token)
        raise
    if token:
        _settle(request, journal, token)


def put_back(connection: server.Connection) -> None:
    """The settings that a restore which was given up left on the target. Repeatable; does nothing where nothing is left."""
    try:
        found = connection.rows(f"SELECT redo, binlog FROM {_TABLE}")
    except errors.DatabaseError as exc:
        if exc.number not in _NO_SUCH:
            raise
        return
    for redo, binlog in found:
        Flushing(int(redo), int(binlog)).apply(connection)


def _open_token(journal: Journal) -> str:
    """Of the time in which the target was relaxed last, if nothing says that it ended well."""
    begun = journal.last(RELAXED)
    if begun is None or journal.last(SETTLED, token=begun.fields["token"]) is not None:
        return ""
    return begun.fields["token"]


def _announce(request: RecoveryRequest, journal: Journal, facts: ServerFacts) -> str:
    """Witness and entry, before anything is changed: the token of the time that begins; '' when it must not."""
    token = secrets.token_hex(8)
    with server.connect(request.endpoint) as connection:
        load.prepare_session(connection, write_binlog=False)
        before = Flushing.read(connection, facts)
        if before.is_relaxed:
            return ""
        try:
            if facts.cluster:
                raise errors.TargetRefused(f"it is a node of {facts.cluster}")
            before.apply(connection)  # changes nothing, but needs the right
            connection.execute(f"DROP TABLE IF EXISTS {_TABLE}")
            connection.execute(f"CREATE TABLE {_TABLE} (token CHAR(16), redo INT, binlog INT UNSIGNED) ENGINE=MEMORY")
            connection.execute(f"INSERT INTO {_TABLE} VALUES (%s, %s, %s)", (token, before.redo, before.binlog))
        except (errors.TargetRefused, errors.PrivilegeMissing, errors.DatabaseError) as exc:
            request.warn(f"recovery.replay.relaxed: {request.endpoint.name} writes its logs as before: {exc.message}")
            return ""
    journal.write(RELAXED, {"token": token})
    return token


def _settle(request: RecoveryRequest, journal: Journal, token: str) -> None:
    """The former settings, everything flushed, and the entry that says so.

    Raises StepFailed: the server is not the one that was relaxed, or was started anew.
    """
    with server.connect(request.endpoint) as connection:
        load.prepare_session(connection, write_binlog=False)
        _witness(request, connection, token).settle(connection)
        _witness(request, connection, token)  # the server that was flushed is the one that was relaxed
        journal.write(SETTLED, {"token": token})
        connection.execute(f"DELETE FROM {_TABLE}")


def _witness(request: RecoveryRequest, connection: server.Connection, token: str) -> Flushing:
    """The former settings."""
    try:
        found = connection.row(f"SELECT redo, binlog FROM {_TABLE} WHERE token = %s", (token,))
    except errors.DatabaseError as exc:
        if exc.number not in _NO_SUCH:
            raise
        found = None
    if found is None:
        raise errors.StepFailed(
            f"{request.endpoint.name} was started anew while it wrote its logs once a second (recovery.replay.relaxed):"
            " what it still has of the replay cannot be known",
            hint="restore again, with --overwrite for the databases that are there",
        )
    return Flushing(int(found[0]), int(found[1]))
