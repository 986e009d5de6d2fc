"""The replay of step 2: the archived events of a plan, up to its cut, into the loaded target.

By the path that step 1 proved (`paths`). Resumable: a replay that was cut off goes on after the last transaction the target
has executed, found by its GTID state, for servers without GTIDs by the channel it still has, on the direct path without kept
GTIDs by the table that is written in the same transactions. What a resumed one must know and nobody else may read
(states of scheduled events, names of accounts) lies in the scratch schema on the target.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from kpbackup import errors
from kpbackup.model import gtid
from kpbackup.model.coordinates import Coordinates
from kpbackup.mysql import accounts, direct, event_states, grouping, gtid_state, load, quoting, replay, replica_channel, server
from kpbackup.mysql import facts as server_facts
from kpbackup.mysql.account_statements import AccountRule
from kpbackup.mysql.events import StreamEvent
from kpbackup.mysql.left_out import LeftOut, Omission
from kpbackup.mysql.serve import Progress
from kpbackup.recovery import cut as cuts
from kpbackup.recovery import durability, paths
from kpbackup.recovery.archived import Archived
from kpbackup.recovery.binlog import SegmentReader
from kpbackup.recovery.journal import Journal
from kpbackup.recovery.paths import Path
from kpbackup.recovery.planning import RecoveryPlan
from kpbackup.recovery.steps import RecoveryRequest, Step

_EVENT_STATES = f"{load.SCRATCH_SCHEMA}.event_states"  # as they were before the replay: a resumed one needs them
_SETTINGS = f"{load.SCRATCH_SCHEMA}.settings"  # what the replay changes: a killed one could not put it back
_ACCOUNT_RULE = f"{load.SCRATCH_SCHEMA}.account_rule"  # which accounts were the target's own before this restore


def run(plan: RecoveryPlan, request: RecoveryRequest, journal: Journal, facts: server_facts.ServerFacts) -> dict[str, str]:
    """Replays up to the cut; returns figures for the journal.

    Raises:
        StepFailed, PrivilegeMissing, TargetRefused, IntegrityError, DatabaseError, ServerUnreachable.
    """
    path = chosen(journal)
    is_wanted = request.replaying.relaxed and path.keeps_gtids and bool(plan.cut.segments)
    with durability.relaxed(request, journal, facts, is_wanted=is_wanted) as is_relaxed:
        figures = _replayed(plan, request, journal, facts, path)
    return figures | {"relaxed": "yes" if is_relaxed else "no"}


def _replayed(
    plan: RecoveryPlan, request: RecoveryRequest, journal: Journal, facts: server_facts.ServerFacts, path: Path
) -> dict[str, str]:
    with server.connect(request.endpoint) as target:
        is_begun = journal.last("replay_started") is not None
        if not is_begun:
            _prepare_scratch(plan, request, target, facts)
        stream = _Stream(plan, SegmentReader(request.repository, request.identities), _left_out(plan, request, target, facts))
        if path.name == paths.DIRECT:
            return _figures(plan, stream, path, *_direct(plan, request, journal, target, facts, path, stream))
        if not is_begun:
            start = _begin(plan, journal, target, facts, path)
            watch = event_states.EventWatch(target)
        else:
            start = _executed(plan, request, journal, target, facts)
            watch = event_states.EventWatch(target, before=str(target.value(f"SELECT content FROM {_EVENT_STATES}")))
            for _ in watch.watch(stream.before(start)):
                pass  # what the interrupted replay executed: it may have touched scheduled events
            # the replay removes the old channel before it makes its own: in between only this entry knows
            journal.write("replay_resumed", {"file": start.file, "position": start.position})
        done = replay.replay(
            target, facts, read_from=stream.read_from, start=start, on_progress=_report(plan, request),
            set_gtid_state=False, keep_channel=True, watch=watch, listening=request.replaying.listening,
            grouped=request.replaying.grouped and not _keeps_history(target),
        )
        if is_begun:
            replay.put_back(target, json.loads(str(target.value(f"SELECT content FROM {_SETTINGS}"))))
    return _figures(plan, stream, path, done.transactions, done.sent_bytes, done.end)


def chosen(journal: Journal) -> Path:
    """The path that step 1 proved; `served` when there was nothing to try it with."""
    prepared = journal.last("step_finished", step=Step.PREPARE)
    return Path.parse(prepared.fields.get("replay_path", paths.SERVED)) if prepared is not None else Path(paths.SERVED)


def _keeps_history(target: server.Connection) -> bool:
    """Whether a table is system-versioned: its history may count transactions."""
    return bool(target.value("SELECT COUNT(*) FROM information_schema.tables WHERE table_type = 'SYSTEM VERSIONED'"))


def _figures(
    plan: RecoveryPlan, stream: _Stream, path: Path, transactions: int, sent_bytes: int, end: Coordinates
) -> dict[str, str]:
    return {
        "transactions": str(transactions),
        "replayed_bytes": str(sent_bytes),
        "replay_path": str(path),
        "gtid": end.gtid,
        "reached": f"{end.file}:{end.position}",
        "skipped": ",".join(sorted(one.gtid for one in plan.skipped)),
        "account_statements_left_out": str(len(stream.left_out.tally.account_statements)),
    }


def _direct(
    plan: RecoveryPlan, request: RecoveryRequest, journal: Journal, target: server.Connection, facts: server_facts.ServerFacts,
    path: Path, stream: _Stream,
) -> tuple[int, int, Coordinates]:
    """(transactions, bytes, end) of a replay over an ordinary connection."""
    with direct.opened(request.endpoint, facts, direct.Manner(path.keeps_gtids)) as applier:
        if journal.last("replay_started") is None:
            applier.begin(plan.backup_set.coordinates)
            start = _begin(plan, journal, target, facts, path)
        else:
            _refuse_non_transactional(target)
            state = direct.executed(target, facts) if path.keeps_gtids else ""
            start = _executed_by_gtid(plan, request, state, facts) if path.keeps_gtids else applier.reached()
            journal.write("replay_resumed", {"file": start.file, "position": start.position})
        report = _report(plan, request)
        if path.keeps_gtids and facts.mariadb and request.replaying.grouped and not _keeps_history(target):
            groups = grouping.Grouped(lambda file, position: stream.from_transaction(Coordinates(file, position)))
            done = applier.run(groups(start.file, start.position), report, weigh=groups.transactions)
        else:
            done = applier.run(stream.from_transaction(start), report)
    if path.keeps_gtids:
        direct.settle_gtids(target, facts, plan.cut.last_included.gtid if plan.cut.last_included else "")
    gtid_now = gtid_state.read_state(target, facts) if path.keeps_gtids else ""
    return done.transactions, done.sent_bytes, Coordinates(done.file or start.file, done.position or start.position, gtid_now)


def _refuse_non_transactional(target: server.Connection) -> None:
    """Raises StepFailed: what a killed replay wrote into such tables was neither committed nor rolled back with the rest."""
    found = target.rows(
        "SELECT table_schema, table_name FROM information_schema.tables WHERE engine <> 'InnoDB' AND table_type = 'BASE TABLE'"
        " AND table_schema NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema', %s) ORDER BY 1, 2 LIMIT 5",
        (load.SCRATCH_SCHEMA,),
    )
    if found:
        names = ", ".join(f"{schema}.{table}" for schema, table in found)
        raise errors.StepFailed(
            f"the replay was interrupted, and tables that have no transactions may hold a part of one: {names}",
            hint="restore again, with --overwrite for the databases that are there",
        )


def _begin(
    plan: RecoveryPlan, journal: Journal, target: server.Connection, facts: server_facts.ServerFacts, path: Path
) -> Coordinates:
    start = plan.backup_set.coordinates
    # set before the entry: a resumed run believes this state, so it must not be one from before this restore
    paths.reset(target, facts, start, path)
    journal.write("replay_started", {"from": start, "to": plan.cut.at})
    return start


def _prepare_scratch(
    plan: RecoveryPlan, request: RecoveryRequest, target: server.Connection, facts: server_facts.ServerFacts
) -> None:
    """On the target and not in the journal, which anybody may read."""
    rule = _account_rule(plan, request, target, facts)
    written = {
        _EVENT_STATES: event_states.states(target),
        _SETTINGS: json.dumps(replay.settings(target, facts)),
        _ACCOUNT_RULE: json.dumps({"kept": sorted(rule.kept), "replaced": sorted(rule.replaced)}),
    }
    with server.connect(target.endpoint) as connection:
        load.prepare_session(connection, write_binlog=False)
        for table, content in written.items():
            connection.execute(f"CREATE TABLE IF NOT EXISTS {table} (content LONGTEXT CHARACTER SET utf8mb4) ENGINE=InnoDB")
            connection.execute(f"DELETE FROM {table}")
            connection.execute(f"INSERT INTO {table} VALUES (%s)", (content,))


def _account_rule(
    plan: RecoveryPlan, request: RecoveryRequest, target: server.Connection, facts: server_facts.ServerFacts
) -> AccountRule:
    """Accounts that are the target's own: there, and not made by the load."""
    user, _, host = str(target.value("SELECT CURRENT_USER()")).rpartition("@")
    own = {quoting.account(user, host)}
    made = {definition.name for definition in plan.inventory.accounts if definition.kind == "account"}
    if not request.replace_users:
        table = target.value(
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema=%s AND table_name='accounts'",
            (load.SCRATCH_SCHEMA,),
        )
        listed = target.rows(f"SELECT name FROM {load.SCRATCH_SCHEMA}.accounts") if table else []
        made = {str(row[0]) for row in listed}
    others = frozenset(accounts.names(target, facts) - made - own)
    return AccountRule(frozenset(own), others) if request.replace_users else AccountRule(frozenset(own | others))


def _left_out(
    plan: RecoveryPlan, request: RecoveryRequest, target: server.Connection, facts: server_facts.ServerFacts
) -> LeftOut:
    found = json.loads(str(target.value(f"SELECT content FROM {_ACCOUNT_RULE}")))
    rule = AccountRule(frozenset(found["kept"]), frozenset(found["replaced"]))

    def drop(name: str) -> None:
        with server.connect(request.endpoint) as connection:
            load.prepare_session(connection, write_binlog=False)
            kind = "USER" if "@" in name.rpartition("`")[0] else "ROLE"
            connection.execute(f"DROP {kind} IF EXISTS {name}")

    skipped = frozenset(one.gtid for one in plan.skipped)
    return LeftOut(Omission(facts.mariadb, skipped | plan.left_out, rule, drop))


def _report(plan: RecoveryPlan, request: RecoveryRequest) -> replay.OnProgress | None:
    if request.progress is None:
        return None
    report = request.progress
    total = sum(segment.transactions for segment in plan.cut.segments)  # a few more than are replayed, at both ends

    def on_progress(progress: Progress) -> None:
        report("replay", progress.transactions, max(total, progress.transactions))

    return on_progress


class _Stream:
    """The archived events of a plan up to its cut, from any place in them, what is left out replaced."""

    def __init__(self, plan: RecoveryPlan, reader: SegmentReader, left_out: LeftOut) -> None:
        self.left_out = left_out
        self._archived = Archived(reader, plan.backup_set.coordinates, plan.cut)

    def read_from(self, file: str, position: int) -> Iterator[StreamEvent]:
        """Whole transactions from (file, position) to the cut; each file begins with its format description."""
        return self.left_out.apply(self._archived.read_from(file, position))

    def from_transaction(self, start: Coordinates) -> Iterator[StreamEvent]:
        """From `start` on, which lies between two transactions, without what comes before it in its segment."""
        return self._archived.behind(start, self.read_from(start.file, start.position))

    def before(self, end: Coordinates) -> Iterator[StreamEvent]:
        """The events from the set to `end`."""
        return self._archived.before(end)


def _executed(
    plan: RecoveryPlan, request: RecoveryRequest, journal: Journal, target: server.Connection, facts: server_facts.ServerFacts
) -> Coordinates:
    """Where a replay that was cut off goes on, so that nothing is replayed twice."""
    channel = replica_channel.executed(target, facts)  # first: it stops the appliers, which outlive a killed run
    last = plan.cut.last_included
    if last is not None and last.gtid:
        return _executed_by_gtid(plan, request, gtid_state.read_state(target, facts), facts)
    if channel is not None:
        return channel
    before = journal.last("replay_resumed")  # no channel: nothing was executed since it was to be made
    return Coordinates(before.fields["file"], int(before.fields["position"])) if before else plan.backup_set.coordinates


def _executed_by_gtid(
    plan: RecoveryPlan, request: RecoveryRequest, state: str, facts: server_facts.ServerFacts
) -> Coordinates:
    """The end of the transactions without a hole that `state` holds; MySQL skips by itself what it executed beyond one.

    MariaDB leaves no hole: by position its parallel appliers commit in the order of the binlog.
    """
    at = replace(plan.backup_set.coordinates, gtid=state)
    reader = SegmentReader(request.repository, request.identities)
    for segment in plan.cut.segments:
        for transaction in cuts.new_transactions(reader, plan.backup_set, segment):
            if not gtid.contains(facts.flavour, state, transaction.gtid):
                return at
            at = Coordinates(transaction.file, transaction.end, state)
    return at
