"""The five steps of a recovery and what drives each: the values every step's module takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from kpbackup.mysql import server
from kpbackup.pipeline import encrypt
from kpbackup.plan.timeline import Target
from kpbackup.repository.binding import Repository


class Step(StrEnum):
    """In the order in which they run. Each is idempotent; the journal says which are finished."""

    PREPARE = "prepare"  # resumable: checks only read; dropping a database named with --overwrite is done again
    DATABASE = "database"  # resumable: chunks are marked on the target, the replay goes on where its applier stopped
    DEPLOY = "deploy"  # re-run whole: the driver's command must be idempotent
    VERIFY = "verify"  # re-run whole: only reads
    SWITCH = "switch"  # re-run whole: gated on a finished verify


@dataclass(frozen=True)
class Driver:
    """How a step is driven: `manual` (a person), `command` (a program), `none` (nothing: never 'recovered')."""

    kind: str
    command: tuple[str, ...] = ()
    timeout_s: float = 3600.0


@dataclass(frozen=True)
class SqlCheck:
    """A question to the restored database and its answer, compared as text."""

    query: str
    expect: str


@dataclass(frozen=True)
class RecoveryRequest:
    """What to recover and with what. `ask_manual(step, instructions)` returns when a person has done a manual step;
    None means that nobody is there. `progress(phase, done, total)` is called from threads. `warn` takes what the restored server
    has otherwise than the source; it names objects, so it goes to the user and not into the journal."""

    repository: Repository
    endpoint: server.Endpoint
    target: Target
    identities: Sequence[encrypt.AnyIdentity]
    drivers: dict[Step, Driver] = field(default_factory=dict)
    overwrite: tuple[str, ...] = ()
    replace_users: bool = False
    skip_gtids: tuple[str, ...] = ()
    workers: int = 4
    sql_checks: tuple[SqlCheck, ...] = ()
    ask_manual: Callable[[Step, str], None] | None = None
    progress: Callable[[str, int, int], None] | None = None
    warn: Callable[[str], None] = lambda _: None
