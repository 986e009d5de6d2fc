"""The five steps of a recovery and what drives each: the values every step's module takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol

from kpbackup.kubernetes import client
from kpbackup.model.selection import Selection
from kpbackup.mysql import replay, server
from kpbackup.mysql.tiering import Tiers
from kpbackup.pipeline import encrypt
from kpbackup.plan.timeline import Target
from kpbackup.recovery.profile import Profile
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
    """How a step is driven: `manual` (a person), `command` (a program), `kubernetes` (by us, in a cluster), `none` (nothing:
    never 'recovered')."""

    kind: str
    command: tuple[str, ...] = ()
    timeout_s: float = 3600.0


@dataclass(frozen=True)
class SqlCheck:
    """A question to the restored database and its answer, compared as text."""

    query: str
    expect: str


@dataclass(frozen=True)
class Environment:
    """The cluster the drivers `kubernetes` act in, and what they are to do there.

    `access.namespace` and `release` are '' for those of the bundle. `database` is the bundle's StatefulSet that is the
    target; step 1 starts it. `values` are laid over the bundle's. `service` or `ingress` is what step 5 switches.
    """

    access: client.Access
    release: str = ""
    in_place: bool = False
    database: str = ""
    method: str = "helm"
    chart_file: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    service: str = ""
    ingress: str = ""
    timeout_s: float = 600.0


@dataclass(frozen=True)
class Verification:
    """How step 4 asks the application: at `url` (before users are sent to it) and, in step 5, at `public_url`."""

    profile: Profile
    url: str = ""
    public_url: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""
    public_timeout_s: float = 60.0


@dataclass(frozen=True)
class Objectives:
    """What was promised, for the evidence."""

    rpo_s: float
    rto_s: float


@dataclass(frozen=True)
class Replaying:
    """By which path transactions come into the target: `auto`, `served` or `direct`; where it reaches us for `served`;
    whether small ones come into MariaDB in groups; whether the target writes its logs once a second meanwhile."""

    path: str = "auto"
    listening: replay.Listening = replay.Listening(tls=True)
    grouped: bool = True
    relaxed: bool = False


class Drilled(Protocol):
    """An application that lives for one drill: `start(plan, request)` returns figures for the journal and sets `url`, where it
    is asked."""

    url: str

    def start(self, plan: Any, request: RecoveryRequest) -> dict[str, str]: ...


@dataclass(frozen=True)
class RecoveryRequest:
    """What to recover and with what. `ask_manual(step, instructions)` returns when a person has done a manual step;
    None means that nobody is there. `progress(phase, done, total)` is called from threads. `warn` takes what the restored server
    has otherwise than the source; it names objects, so it goes to the user and not into the journal. `into` names the shadow, a
    new database on a target that goes on serving. `read_only`: the target is held so until the switch."""

    repository: Repository
    endpoint: server.Endpoint
    target: Target
    identities: Sequence[encrypt.AnyIdentity]
    drivers: dict[Step, Driver] = field(default_factory=dict)
    overwrite: tuple[str, ...] = ()
    replace_users: bool = False
    skip_gtids: tuple[str, ...] = ()
    selection: Selection = Selection()
    rename: tuple[tuple[str, str], ...] = ()
    into: str = ""
    tiers: Tiers = Tiers()
    read_only: bool = False
    workers: int = 4
    replaying: Replaying = Replaying()
    sql_checks: tuple[SqlCheck, ...] = ()
    ask_manual: Callable[[Step, str], None] | None = None
    progress: Callable[[str, int, int], None] | None = None
    warn: Callable[[str], None] = lambda _: None
    environment: Environment | None = None
    verification: Verification | None = None
    objectives: Objectives | None = None
    drilled: Drilled | None = None  # of a drill that starts the application: in place of step 3
    files_directory: str = ""  # where step 3 puts the bundle's files; '': nowhere

    @property
    def is_partial(self) -> bool:
        """Whether what is restored is not the backup as it was: a part, or under other names."""
        return not self.selection.is_everything or bool(self.rename or self.into)

    def beside_the_living(self, into: str) -> RecoveryRequest:
        """The request for a shadow of this name: no step is driven, for the application and its environment are in use."""
        return replace(self, into=into, environment=None, drivers=dict.fromkeys(Step, Driver("none")))

    def driven_by_kubernetes(self, step: Step) -> bool:
        driver = self.drivers.get(step)
        return driver is not None and driver.kind == "kubernetes"
