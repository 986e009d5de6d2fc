"""A drill: steps 1, 2 and 4 to a random point of the recoverable window, on a scratch server, recorded as what it is.

The application is not started: a restored one reaches out to what it manages, so step 4 asks the database alone; unless the
settings say so and nothing gets out (`drill_application`). What the drill brought onto a server that was given to it is dropped
again, whether it passed or not. A failed drill is recorded too, even one that could not be planned: only that makes "the last
drill passed" worth something.

A crash leaves a run without the entry `drilled`, and the data on a given server: the next drill is then refused there, because
the target is not empty.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from kpbackup import errors
from kpbackup.mysql import accounts, load, schema, server
from kpbackup.mysql import facts as server_facts
from kpbackup.mysql.quoting import identifier
from kpbackup.plan.timeline import Target, Window
from kpbackup.recovery import durability, loading, planning, run
from kpbackup.recovery import journal as journals
from kpbackup.recovery.scratch_programs import Like
from kpbackup.recovery.steps import RecoveryRequest, Step
from kpbackup.repository import choosing, keys

STEPS = (Step.PREPARE, Step.DATABASE, Step.VERIFY)
EVENT = "drilled"
NOT_EMPTY = (
    "a drill never drops what it did not bring: empty that server, or leave recovery.target out, "
    "so that it starts a server of its own"
)


@dataclass(frozen=True)
class Drilled:
    """How a drill that passed ended. `achieved_rpo_s` is what would have been lost, had the source died when it began."""

    run: str
    backup_set: str
    target: str
    recovered_to: datetime
    measured_rto_s: float
    achieved_rpo_s: float
    figures: dict[str, str]


def choose_point(windows: Sequence[Window], place: float) -> Target:
    """The point at `place` (0 to 1) of all recoverable windows laid end to end, in whole seconds; the newest one where there is
    no room for a choice.

    Raises:
        UnreachableTarget: there is no window.
    """
    if not windows:
        raise errors.UnreachableTarget("there is nothing to drill: no moment can be restored", hint="make a full backup first")
    lengths = [(window.end - window.start).total_seconds() for window in windows]
    left = place * sum(lengths)
    for window, length in zip(windows, lengths, strict=True):
        if left < length:
            after = window.start + timedelta(seconds=math.ceil(left))
            moment = after.replace(microsecond=0) + timedelta(seconds=1 if after.microsecond else 0)
            return Target(time=moment) if moment <= window.end else Target(latest=True)
        left -= length
    return Target(latest=True)


def carry_out(request: RecoveryRequest, figures: Mapping[str, str] | None = None, *, clears: bool = True) -> Drilled:
    """Restores, verifies, and clears the server again (where `clears`). `figures` are recorded beside the result: what kind of
    drill it was.

    Raises:
        What planning and the steps raise; it is recorded as a failed drill.
    """
    journal = journals.new_journal(request.repository, datetime.now(UTC))
    try:
        plan = planning.make_plan(request)
        with server.connect(request.endpoint) as connection:
            before = _accounts(connection)
        steps = tuple(Step)[:-1] if request.drilled is not None else STEPS
        run.begin(journal, plan, request, steps, kind="drill")
        try:
            outcome = run.carry_out(journal, plan, request, steps)
        finally:
            if clears:
                clear(request.endpoint, before)
    except errors.KpbackupError as exc:
        _failed(journal, exc, figures or {})
        if isinstance(exc, planning.TargetNotEmpty):
            raise errors.TargetRefused(exc.message, hint=NOT_EMPTY) from exc
        raise
    achieved_s = (journal.entries[0].at - plan.reaches).total_seconds()
    verified = journal.last("step_finished", step=Step.VERIFY)
    result = Drilled(
        journal.run, plan.backup_set.name, str(request.target), outcome.recovered_to, outcome.measured_rto_s,
        max(achieved_s, 0.0), {**outcome.details, **(verified.fields if verified else {}), **(figures or {})},
    )
    _passed(journal, result, figures or {})
    return result


def record_passed(request: RecoveryRequest, result: Drilled, figures: Mapping[str, str]) -> None:
    """A drill of several restores, the first of which is `result`."""
    _passed(journals.new_journal(request.repository, datetime.now(UTC)), result, figures)


def _passed(journal: journals.Journal, result: Drilled, figures: Mapping[str, str]) -> None:
    measured = {"measured_rto_s": f"{result.measured_rto_s:.3f}", "achieved_rpo_s": f"{result.achieved_rpo_s:.3f}"}
    journal.write(EVENT, {"kind": "drill", "result": "passed", **measured, **figures})


def record_failure(request: RecoveryRequest, exc: errors.KpbackupError, figures: Mapping[str, str]) -> None:
    """A drill that failed before anything could be planned is one too."""
    _failed(journals.new_journal(request.repository, datetime.now(UTC)), exc, figures)


def _failed(journal: journals.Journal, exc: errors.KpbackupError, figures: Mapping[str, str]) -> None:
    failed = {"kind": "drill", "result": "failed", "error": type(exc).__name__, "exit_code": exc.exit_code}
    journal.write(EVENT, {**failed, **figures})


def source_of(request: RecoveryRequest) -> Like:
    """The source by the set that would be restored: a scratch server must be like it.

    Raises:
        UnreachableTarget, IntegrityError, KeyProblem.
    """
    found = choosing.plan_restore(request.repository, request.target).backup_set
    data_key = keys.open_data_key(request.repository, found.sealing, request.identities)
    inventory = loading.read_inventory(request.repository, found, data_key)
    return Like(found.source.flavour, inventory.settings)


def clear(endpoint: server.Endpoint, accounts_before: frozenset[str]) -> None:
    """Drops databases and accounts that the drill brought; the server was empty before."""
    with server.connect(endpoint) as connection:
        load.prepare_session(connection, write_binlog=False)
        durability.put_back(connection)
        for name in (*schema.database_names(connection), load.SCRATCH_SCHEMA):
            connection.execute(f"DROP DATABASE IF EXISTS {identifier(name)}")
        for name in sorted(_accounts(connection) - accounts_before):
            connection.execute(f"DROP {'USER' if '@' in name else 'ROLE'} IF EXISTS {name}")


def _accounts(connection: server.Connection) -> frozenset[str]:
    return accounts.names(connection, server_facts.read_facts(connection))
