"""Step 2: the database brought back: load the set, prove it, replay the archived binlog up to the cut.

Resumable: the load goes on where chunks are marked; a replay that was cut off goes on after the last transaction the
target has executed, found by its GTID state, or for servers without GTIDs by the channel it still has.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from kpbackup import errors
from kpbackup.model import gtid
from kpbackup.model.coordinates import Coordinates
from kpbackup.model.manifest import BinlogSegment
from kpbackup.mysql import event_states, gtid_state, load, replay, replica_channel, schema, server
from kpbackup.mysql import facts as server_facts
from kpbackup.mysql.events import StreamEvent
from kpbackup.mysql.serve import Progress
from kpbackup.recovery import cut as cuts
from kpbackup.recovery import loading
from kpbackup.recovery.binlog import SegmentReader
from kpbackup.recovery.journal import Journal
from kpbackup.recovery.planning import RecoveryPlan
from kpbackup.recovery.steps import RecoveryRequest

REPLAY_THREADS = 4
_EVENT_STATES = f"{load.SCRATCH_SCHEMA}.event_states"  # as they were before the replay: a resumed one needs them


def run(plan: RecoveryPlan, request: RecoveryRequest, journal: Journal) -> dict[str, str]:
    """Loads and replays; returns figures for the journal.

    Raises:
        RestoreMismatch, IntegrityError, StepFailed, PrivilegeMissing, TargetRefused, DatabaseError, ServerUnreachable.
    """
    with server.connect(request.endpoint) as connection:
        facts = server_facts.read_facts(connection)
    figures: dict[str, str] = {}
    if journal.last("loaded") is None:
        figures |= _load(plan, request, journal)
    if journal.last("replayed") is None:
        figures |= _replay(plan, request, journal, facts)
    with server.connect(request.endpoint) as connection:
        replica_channel.remove(connection, facts)  # after the entry: while it may be resumed, the channel knows how far it came
    if journal.last("checked") is None:
        _check_end(plan, request, facts)
        journal.write("checked")  # before the scratch schema goes, whose absence would otherwise fail the check of a resumed run
    loading.drop_scratch(request.endpoint)
    return figures


def _load(plan: RecoveryPlan, request: RecoveryRequest, journal: Journal) -> dict[str, str]:
    started = time.monotonic()
    wanted = loading.LoadRequest(
        request.endpoint, workers=request.workers, replace_users=request.replace_users, progress=request.progress
    )
    done = loading.load_set(request.repository, plan.backup_set, plan.inventory, plan.data_key, wanted)
    for warning in done.warnings:
        request.warn(warning)
    figures = {
        "rows": str(done.rows),
        "chunks_read_back": str(done.chunks),
        "load_s": f"{time.monotonic() - started:.3f}",
        "warnings": str(len(done.warnings)),
    } | {f"{phase}_busy_s": f"{seconds:.3f}" for phase, seconds in done.busy_s.items()}
    journal.write("loaded", figures)
    return figures


def _replay(plan: RecoveryPlan, request: RecoveryRequest, journal: Journal, facts: server_facts.ServerFacts) -> dict[str, str]:
    started = time.monotonic()
    stream = _Stream(plan, SegmentReader(request.repository, request.identities))
    with server.connect(request.endpoint) as target:
        if journal.last("replay_started") is None:
            start = _begin_replay(plan, journal, target, facts)
            watch = event_states.EventWatch(target)
        else:
            start = _executed(plan, request, journal, target, facts)
            watch = event_states.EventWatch(target, before=str(target.value(f"SELECT states FROM {_EVENT_STATES}")))
            for _ in watch.watch(stream.before(start)):
                pass  # what the interrupted replay executed: it may have touched scheduled events
            # the replay removes the old channel before it makes its own: in between only this entry knows
            journal.write("replay_resumed", {"file": start.file, "position": start.position})
        done = replay.replay(
            target, facts, read_from=stream.read_from, start=start, workers=REPLAY_THREADS, on_progress=_report(request),
            set_gtid_state=False, keep_channel=True, watch=watch,
        )
    figures = {
        "transactions": str(done.transactions),
        "replayed_bytes": str(done.sent_bytes),
        "replay_s": f"{time.monotonic() - started:.3f}",
        "gtid": done.end.gtid,
    }
    journal.write("replayed", figures)
    return figures


def _begin_replay(
    plan: RecoveryPlan, journal: Journal, target: server.Connection, facts: server_facts.ServerFacts
) -> Coordinates:
    start = plan.backup_set.coordinates
    replica_channel.remove(target, facts)
    # set before the entry: a resumed run believes this state, so it must not be one from before this restore
    gtid_state.set_state(target, facts, start.gtid)
    with server.connect(target.endpoint) as connection:  # on the target and not in the journal, which anybody may read
        load.prepare_session(connection, write_binlog=False)
        connection.execute(f"CREATE TABLE IF NOT EXISTS {_EVENT_STATES} (states LONGTEXT CHARACTER SET utf8mb4) ENGINE=InnoDB")
        connection.execute(f"DELETE FROM {_EVENT_STATES}")
        connection.execute(f"INSERT INTO {_EVENT_STATES} VALUES (%s)", (event_states.states(target),))
    journal.write("replay_started", {"from": start, "to": plan.cut.at})
    return start


def _report(request: RecoveryRequest) -> replay.OnProgress | None:
    if request.progress is None:
        return None
    report = request.progress

    def on_progress(progress: Progress) -> None:
        report("replay", progress.transactions, progress.transactions)

    return on_progress


class _Stream:
    """The archived events of a plan up to its cut, from any place in them."""

    def __init__(self, plan: RecoveryPlan, reader: SegmentReader) -> None:
        self._plan = plan
        self._reader = reader
        self._order = cuts.FileOrder(plan.cut.segments)

    def read_from(self, file: str, position: int) -> Iterator[StreamEvent]:
        """Whole transactions from (file, position) to the cut; each file begins with its format description."""
        described = ""
        for segment in self._from(Coordinates(file, position)):
            for event in cuts.segment_events(self._reader, segment):
                if event.is_repeated_description and described == segment.start.file:
                    continue
                described = segment.start.file
                if self._order.is_at_or_after(event.file, event.start, self._plan.cut.at):
                    return
                yield event

    def before(self, end: Coordinates) -> Iterator[StreamEvent]:
        """The events from the set to `end`."""
        start = self._plan.backup_set.coordinates
        for event in self.read_from(start.file, start.position):
            if self._order.is_at_or_after(event.file, event.start, end):
                return
            if self._order.is_at_or_after(event.file, event.start, start):
                yield event

    def _from(self, at: Coordinates) -> Iterator[BinlogSegment]:
        """The segments that end at or after `at`: the first may have nothing but the format description to give."""
        for segment in self._plan.cut.segments:
            if self._order.is_at_or_after(segment.end.file, segment.end.position, at):
                yield segment


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


def _check_end(plan: RecoveryPlan, request: RecoveryRequest, facts: server_facts.ServerFacts) -> None:
    """The target's GTID state must hold the last included transaction and not the first excluded one."""
    with server.connect(request.endpoint) as target:
        state = gtid_state.read_state(target, facts)
        there = schema.database_names(target)
    last, first = plan.cut.last_included, plan.cut.first_excluded
    if last is not None and last.gtid and not gtid.contains(facts.flavour, state, last.gtid):
        raise errors.RestoreMismatch(
            f"{request.endpoint.name} stands at {state} after the replay, before {last.gtid}",
            hint="the target is not to be used; restore again",
        )
    if first is not None and first.gtid and gtid.contains(facts.flavour, state, first.gtid):
        raise errors.RestoreMismatch(
            f"{request.endpoint.name} executed {first.gtid}, which lies behind the cut",
            hint="the target is not to be used; restore again",
        )
    if load.SCRATCH_SCHEMA not in there:
        raise errors.RestoreMismatch(
            f"{load.SCRATCH_SCHEMA} vanished from {request.endpoint.name} during the replay",
            hint="is somebody else working on the target? restore again",
        )
