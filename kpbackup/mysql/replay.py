"""Replay by the target's own appliers: the target is made a replica of `serve.ReplicationSource` until all was executed.

Checked before anything is changed: privileges, GTID modes, other replication, filters. Then the GTID state is set
to the start coordinates, the target gets an unused server id (it would skip events that carry its own), a channel
named 'kpbackup' is configured and started, and when the last transaction sent is executed the channel is removed
and every setting put back, also after an error. A killed run leaves them (channel, server id, worker count): the caller
keeps what `settings` said before, and gives it to `put_back` when the replay is done after all.

The events travel with TLS where `Listening.tls` says so: encrypted, but not verified by the target (`certificate`).

Limit: the target must reach this process over TCP.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from kpbackup import errors
from kpbackup.model.coordinates import Coordinates
from kpbackup.mysql import certificate, event_states, events, grouping, gtid_state, replica_channel, server
from kpbackup.mysql.event_states import EventName
from kpbackup.mysql.facts import ServerFacts
from kpbackup.mysql.privileges import read_privileges
from kpbackup.mysql.replica_session import Persona
from kpbackup.mysql.serve import Progress, ReadFrom, ReplicationSource

POLL_S = 0.1
CONNECT_TIMEOUT_S = 60.0  # a replica retries every second
STALL_TIMEOUT_S = 3600.0  # one transaction may take long; nothing at all for an hour is a hang
MARIADB_SPLIT_SUPER = (11, 0)  # from here on SUPER no longer implies the privileges below
SYSTEM_USER_SINCE = (8, 0, 16)
MOST_WORKERS, FEWEST_WORKERS = 4, 2

_LOOSE_KEYS = "SELECT COUNT(*) FROM information_schema.referential_constraints WHERE unique_constraint_name IS NULL"

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Listening:
    """Where the target reaches us: `host` as it knows us ('' for our own address of the connection to it), `port` (0: any).
    With a host given every address of this machine is listened on, for the name may be that of a gateway."""

    host: str = ""
    port: int = 0
    tls: bool = False


@dataclass(frozen=True)
class ReplayResult:
    """`end` is the end of the last transaction executed (the start when there was none) with the GTID state reached."""

    transactions: int
    sent_bytes: int
    end: Coordinates
    enabled_events: tuple[EventName, ...]


def replay(
    target: server.Connection, facts: ServerFacts, *, read_from: ReadFrom, start: Coordinates, workers: int | None = None,
    set_gtid_state: bool = True, keep_channel: bool = False, watch: event_states.EventWatch | None = None,
    on_progress: OnProgress | None = None, stall_timeout_s: float = STALL_TIMEOUT_S, listening: Listening = Listening(),
    connect_timeout_s: float = CONNECT_TIMEOUT_S, grouped: bool = False,
) -> ReplayResult:
    """Everything `read_from(start.file, start.position)` gives, executed on the target; `start.gtid` is the state before.

    `workers`: how many appliers work side by side; None is `useful_workers`.

    `grouped` (MariaDB): small transactions commit several at a time (`grouping`), one after the other.

    `keep_channel`: the channel is only stopped at the end, so that it can be asked how far it came; also after an error.
    `watch` knows the scheduled events of a replay that goes on after an interruption; None makes one.

    Raises:
        PrivilegeMissing, TargetRefused: before anything was changed.
        StepFailed: an applier stopped (with the server's words), could not connect, or made no progress.
        Also what `read_from` raises, DatabaseError and ServerUnreachable.
    """
    check_privileges(target, facts, set_gtid_state=set_gtid_state)
    replica_channel.refuse_other_replication(target, facts)
    first = _first_transaction_type(read_from, start)
    gtid_mode = "OFF" if first == events.MYSQL_ANONYMOUS_GTID else "ON"
    if not facts.mariadb and facts.gtid_mode == "OFF" and first not in (None, events.MYSQL_ANONYMOUS_GTID):
        raise errors.TargetRefused(
            f"{target.endpoint.name} has gtid_mode=OFF and cannot execute transactions with GTIDs",
            hint="set gtid_mode=ON and enforce_gtid_consistency=ON on the target",
        )
    watch = watch or event_states.EventWatch(target)
    replica_channel.remove(target, facts)
    if set_gtid_state:
        gtid_state.set_state(target, facts, start.gtid)
    if first is None:  # also when an interrupted replay had executed everything
        return ReplayResult(0, 0, start, watch.settle(target))
    watched = _watched(read_from, watch)
    groups = grouping.Grouped(watched) if grouped and facts.mariadb else None
    if workers is None:
        workers = useful_workers(target, facts)
    done = _run(
        target, facts, read_from=groups or watched, weigh=groups.transactions if groups else _as_one, start=start,
        workers=0 if groups else workers, gtid_mode=gtid_mode, keep_channel=keep_channel, listening=listening,
        waiting=_Waiting(on_progress, stall_timeout_s, connect_timeout_s),
    )
    enabled = watch.settle(target)
    end = Coordinates(done.file or start.file, done.position or start.position, gtid_state.read_state(target, facts))
    return ReplayResult(done.transactions, done.sent_bytes, end, enabled)


def _as_one(file: str, end: int) -> int:
    return 1


def _watched(read_from: ReadFrom, watch: event_states.EventWatch) -> ReadFrom:
    return lambda file, position: watch.watch(read_from(file, position))


def check_privileges(target: server.Connection, facts: ServerFacts, *, set_gtid_state: bool = True) -> None:
    """Raises PrivilegeMissing, naming all that is missing on *.* for a replay."""
    found = read_privileges(target)
    is_super = found.has("SUPER") and (not facts.mariadb or facts.version < MARIADB_SPLIT_SUPER)
    if facts.mariadb:
        needed = ["REPLICATION SLAVE ADMIN", "REPLICATION MASTER ADMIN", "BINLOG ADMIN", "SLAVE MONITOR", "SET USER"]
    else:
        needed = ["REPLICATION_SLAVE_ADMIN", "SYSTEM_VARIABLES_ADMIN", "SET_ANY_DEFINER"]
    missing = [] if is_super else [name for name in needed if not found.has(name)]
    if "SET_ANY_DEFINER" in missing and found.has("SET_USER_ID"):  # its name before MySQL 8.2
        missing.remove("SET_ANY_DEFINER")
    plain = ["EVENT", *(["RELOAD"] if set_gtid_state else []), *([] if facts.mariadb else ["REPLICATION CLIENT"])]
    if not facts.mariadb and facts.version >= SYSTEM_USER_SINCE:
        plain.append("SYSTEM_USER")  # to keep a definer that has it, as root does
    missing += [name for name in plain if not found.has(name)]
    if missing:
        raise errors.PrivilegeMissing(
            f"cannot replay on {target.endpoint.name}: the account lacks {', '.join(missing)}",
            hint=f"GRANT {', '.join(missing)} ON *.* TO {found.account}",
        )


@dataclass(frozen=True)
class _Waiting:
    on_progress: OnProgress | None
    stall_timeout_s: float
    connect_timeout_s: float


def _run(
    target: server.Connection, facts: ServerFacts, *, read_from: ReadFrom, weigh: Callable[[str, int], int],
    start: Coordinates, workers: int, gtid_mode: str, keep_channel: bool, waiting: _Waiting, listening: Listening,
) -> Progress:
    """The replay proper, between settings changed and put back."""
    persona = Persona(
        flavour=facts.flavour, version=facts.version_string, server_id=_unused_id(), server_uuid=str(uuid.uuid4()),
        gtid_mode=gtid_mode,
    )
    own = target.raw._sock
    with ExitStack() as undo:
        undo.enter_context(_changed(target, "server_id", str(_unused_id())))
        undo.enter_context(_changed(target, _parallel(facts), str(workers)))
        address = str(own.getsockname()[0])
        source = undo.enter_context(
            ReplicationSource(
                host="" if listening.host else address, family=own.family, persona=persona, read_from=read_from,
                port=listening.port, tls=certificate.server_context() if listening.tls else None, weigh=weigh,
            )
        )
        if not keep_channel:
            undo.callback(replica_channel.remove, target, facts)
        replica_channel.configure(
            target, facts, source, start, assign_gtids=gtid_mode == "OFF" and facts.gtid_mode == "ON",
            host=listening.host or address,
        )
        if keep_channel:
            undo.callback(replica_channel.stop, target, facts)
        replica_channel.refuse_filters(target, facts)
        replica_channel.start(target, facts)
        return _wait(target, facts, source, waiting, f"{listening.host or address}:{source.port}")


def _parallel(facts: ServerFacts) -> str:
    return "slave_parallel_threads" if facts.mariadb else "replica_parallel_workers"


def useful_workers(target: server.Connection, facts: ServerFacts) -> int:
    """As many appliers as the target has processors, within limits. MariaDB's get in one another's way where they are more: four
    on two processors took a fifth longer than two, one by one were slower than both. MySQL does not say how many it has.

    The size of MariaDB's thread pool is the number of processors unless somebody set it, also where the pool is not used
    (MariaDB knowledge base, 'Thread Pool System and Status Variables'). MySQL's appliers do not see that a row needs another
    one by a foreign key to a key that is not unique, and go before it (manual, restrict_fk_on_non_standard_key).
    """
    if not facts.mariadb:
        return 1 if int(target.value(_LOOSE_KEYS) or 0) else MOST_WORKERS
    processors = int(target.value("SELECT @@GLOBAL.thread_pool_size") or 0)
    return min(max(processors, FEWEST_WORKERS), MOST_WORKERS)


def settings(target: server.Connection, facts: ServerFacts) -> dict[str, int]:
    """The global settings that a replay changes, for `put_back`."""
    return {name: int(target.value(f"SELECT @@GLOBAL.{name}") or 0) for name in ("server_id", _parallel(facts))}


def put_back(target: server.Connection, before: Mapping[str, int]) -> None:
    """Gives the settings the values that `settings` told. No replica thread may run."""
    for name, value in before.items():
        if int(target.value(f"SELECT @@GLOBAL.{name}") or 0) != value:
            target.execute(f"SET GLOBAL {name}={value}")


def _wait(
    target: server.Connection, facts: ServerFacts, source: ReplicationSource, waiting: _Waiting, where: str
) -> Progress:
    """Polls until the last transaction sent is executed."""
    seen: object = None
    changed_at = streaming_at = time.monotonic()
    while True:
        progress = source.progress()
        status = replica_channel.Status.read(target, facts)
        failure = source.failure()
        if failure is not None:
            raise failure
        if progress.is_complete and status.has_executed(progress):
            return progress
        status.raise_stopped(target)
        now = time.monotonic()
        if progress.is_streaming:
            streaming_at = now
        if now - streaming_at > waiting.connect_timeout_s:
            raise errors.StepFailed(
                f"{target.endpoint.name} does not connect to {where}: {status.io_error or 'no connection came'}",
                hint="the target must be able to open a TCP connection to where kpbackup runs: set recovery.replay.host and port"
                " to what it can reach, or recovery.replay.path to direct",
            )
        if (progress, status) != seen:
            seen, changed_at = (progress, status), now
            if waiting.on_progress is not None:
                waiting.on_progress(progress)
        if now - changed_at > waiting.stall_timeout_s:
            raise errors.StepFailed(
                f"replay on {target.endpoint.name} stands still at {status.file}:{status.position}",
                hint="is another session holding locks on the target?",
            )
        time.sleep(POLL_S)


@contextmanager
def _changed(target: server.Connection, variable: str, value: str) -> Iterator[None]:
    """A global variable with another value for a while."""
    before = int(target.value(f"SELECT @@GLOBAL.{variable}") or 0)
    target.execute(f"SET GLOBAL {variable}={value}")
    try:
        yield
    finally:
        target.execute(f"SET GLOBAL {variable}={before}")


def _first_transaction_type(read_from: ReadFrom, start: Coordinates) -> int | None:
    """The type of the first event that belongs to a transaction; None when there is nothing to replay."""
    outside = {events.FORMAT_DESCRIPTION, events.ROTATE, events.STOP, events.PREVIOUS_GTIDS, events.MARIADB_GTID_LIST, 161}
    stream = read_from(start.file, start.position)
    found = (event.type for event in stream if event.type not in outside and not _is_before(event, start))
    first = next(found, None)
    if isinstance(stream, Generator):
        stream.close()  # it may hold a download
    return first


def _is_before(event: events.StreamEvent, start: Coordinates) -> bool:
    return event.file == start.file and event.end <= start.position


def _unused_id() -> int:
    return 0x40000000 + secrets.randbelow(0x3FFFFFFF)
