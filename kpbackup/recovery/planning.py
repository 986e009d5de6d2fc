"""What a restore will do, decided before anything is touched: the set, the segments, the cut, the target as it is.

This is what `--dry-run` prints. It reads the repository, opens the segments around the cut with the identity, and looks
at the target; it writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum

from kpbackup import errors
from kpbackup.model.coordinates import Coordinates
from kpbackup.model.inventory import ChunkRecord, Inventory
from kpbackup.model.manifest import BackupSet
from kpbackup.model.selection import Narrowed, Selection
from kpbackup.mysql import facts as server_facts
from kpbackup.mysql import (
    load,
    needs,
    preflight,
    privileges,
    renaming,
    schema,
    selecting,
    server,
    shadowing,
    tiering,
    versioned,
)
from kpbackup.mysql.transactions import Transaction
from kpbackup.pipeline import encrypt
from kpbackup.plan import timeline
from kpbackup.recovery import cut as cuts
from kpbackup.recovery import environment, holding, journal, loading, paths, precheck, selected_replay, shadow_judging
from kpbackup.recovery import preview as previews
from kpbackup.recovery import tiers as tier_replay
from kpbackup.recovery.binlog import SegmentReader
from kpbackup.recovery.steps import RecoveryRequest, Step
from kpbackup.repository import choosing, keys


class Found(Enum):
    """What a plan expects on the target, by what the journal says is done."""

    FRESH = "fresh"  # nothing of this run: empty, or what was named with --overwrite
    BEGUN = "begun"  # prepared, and some of this run's own work
    RESTORED = "restored"  # the database step is finished: the target is the application's now, and no longer judged


class TargetNotEmpty(errors.TargetRefused):
    """The target has databases that nobody named as overwritable."""


@dataclass(frozen=True)
class TargetState:
    """The target as found: what is there, what would be dropped, what speaks against it."""

    facts: server_facts.ServerFacts | None  # None: not there yet, step 1 starts it
    databases: tuple[str, ...]
    overwritten: tuple[str, ...]
    warnings: tuple[str, ...]
    replay_paths: tuple[str, ...] = ()  # those the account's grants allow; step 1 tries them in this order
    relaxes: bool = False  # its logs are written once a second while the replay runs


@dataclass(frozen=True)
class RecoveryPlan:
    """Everything a run needs. `estimate_s` comes from earlier recoveries of this repository, None without any; `preview`
    is for people, and None when an interrupted run goes on.

    Of a restore of a selection `inventory` holds what is chosen, `notes` say what it may lack, and `left_out` are the GTIDs
    of the transactions that have nothing to do with it; `stored_chunks` are all chunks of the set, and
    `whole_selection` is what it was made of. `renamed` says which databases of the set have another name on the target.

    In two phases `inventory` has rows of the essential tables alone, and `second_starts` are the numbers from which the
    application gives its own to rows of the second tier; it is empty once those are set."""

    backup_set: BackupSet
    cut: cuts.Cut
    skipped: tuple[Transaction, ...]
    preview: previews.Preview | None
    reaches: datetime
    inventory: Inventory
    data_key: encrypt.Identity
    target: TargetState
    estimate_s: float | None
    stored_chunks: tuple[ChunkRecord, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: frozenset[str] = frozenset()
    whole_selection: Selection = Selection()
    application: environment.ApplicationPlan | None = None
    shadow: shadowing.Shadow | None = None
    second: tiering.SecondTier | None = None
    second_starts: Mapping[str, int] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def recovered_to(self) -> datetime:
        """The commit time of the last included transaction, or the set's clock."""
        return cuts.commit_time(self.cut.last_included) if self.cut.last_included else self.backup_set.clock


def make_plan(request: RecoveryRequest) -> RecoveryPlan:
    """Plans a new run.

    Raises:
        UnreachableTarget, TargetRefused, KeyProblem, IntegrityError, ServerUnreachable, StorageError.
    """
    others = sorted(set(request.overwrite) - {request.into})
    if request.into and others:
        raise errors.UsageError(
            f"--overwrite {others[0]}: with --into {request.into} nothing else on the target is touched", hint="leave it out"
        )
    wanted = choosing.plan_restore(request.repository, request.target)
    cut = cuts.find_cut(SegmentReader(request.repository, request.identities), wanted)
    return _with_application(request, _complete(request, wanted, cut, target=Found.FRESH), begun=False)


def remake_plan(request: RecoveryRequest, planned: journal.Entry, *, target: Found) -> RecoveryPlan:
    """The plan an interrupted run was made with, from its journal: the same set and the same cut, whatever came since.

    Raises:
        UnreachableTarget: the set or segments are no longer there.
    """
    fields = planned.fields
    if (there := choosing.chain_of(request.repository, fields["set"])) is not None:
        history, found = there
        at = Coordinates(fields["cut_file"], int(fields["cut_position"]), fields["cut_gtid"])
        wanted = timeline.RestorePlan(
            found.backup_set, found.segments, timeline.Target(position=at), timeline.recovery_point(history, found)
        )
        cut = cuts.find_cut(SegmentReader(request.repository, request.identities), wanted)
        plan = _complete(request, wanted, cut, target=target)
        return _with_application(request, plan, begun=True, bundle_key=fields.get("bundle", ""))
    raise errors.UnreachableTarget(
        f"set {fields['set']} of this recovery is no longer in {request.repository.backend.name}", hint="start a new restore"
    )


def _complete(request: RecoveryRequest, wanted: timeline.RestorePlan, cut: cuts.Cut, *, target: Found) -> RecoveryPlan:
    backup_set = wanted.backup_set
    data_key = keys.open_data_key(request.repository, backup_set.sealing, request.identities)
    whole = loading.read_inventory(request.repository, backup_set, data_key)
    selected = selecting.select(whole, request.selection)
    chosen = Narrowed(whole.selection, request.selection)
    shadow = shadowing.shadow(whole, selected, chosen, request.into) if request.into else None
    inventory = shadow.inventory if shadow else renaming.rename(selected.inventory, dict(request.rename))
    reader = SegmentReader(request.repository, request.identities)
    skipped = previews.find_skipped(reader, backup_set, cut, request.skip_gtids)
    left_out, starts = frozenset[str](), dict[str, int]()
    second = None if request.is_partial or not request.tiers.second else tiering.split(whole, request.tiers)
    inventory = second.essential if second is not None else inventory
    if request.rename and cut.last_included is not None:
        at = backup_set.coordinates
        raise errors.UnreachableTarget(
            "databases cannot be renamed in what is replayed after the backup set: the binlog has their old names",
            hint=f"give --to-position {at.file}:{at.position}, the moment of set {backup_set.name} itself; or restore without"
            " --rename, which reaches every moment",
        )
    if shadow is not None and target is not Found.RESTORED:
        shadow_judging.judge(reader, backup_set, cut, shadow, frozenset(one.gtid for one in skipped))
    elif second is not None and target is not Found.RESTORED:
        left_out = tier_replay.left_out(reader, backup_set, cut, second)
        skips = frozenset(one.gtid for one in skipped)
        starts = second.starts(shadow_judging.judge(reader, backup_set, cut, second.shadow, skips))
    elif target is not Found.RESTORED:
        left_out = selected_replay.left_out(reader, backup_set, cut, chosen, whole=whole, selected=selected)
    state = look_at_target(request, backup_set, inventory, target, may_be_away=starts_target(request))
    preview = previews.look(reader, wanted, cut, skipped) if target is Found.FRESH else None
    return RecoveryPlan(
        backup_set, cut, skipped, preview, wanted.reaches, inventory, data_key, state, _estimate(request),
        stored_chunks=whole.chunks, notes=shadow.notes if shadow else selected.notes, left_out=left_out,
        whole_selection=whole.selection, shadow=shadow, second=second, second_starts=starts,
        renamed=shadow.renamed if shadow else dict(request.rename),
    )  # fmt: skip


def starts_target(request: RecoveryRequest) -> bool:
    """Whether step 1 starts the target itself, so that it need not be there before."""
    return request.driven_by_kubernetes(Step.PREPARE) and request.environment is not None and bool(request.environment.database)


def look_at_target(
    request: RecoveryRequest, backup_set: BackupSet, inventory: Inventory, target: Found, *, may_be_away: bool = False
) -> TargetState:
    """The target judged; when it is not there and `may_be_away`, a state without facts: look again when it is.

    Raises:
        TargetRefused, PrivilegeMissing, ServerUnreachable, DatabaseError.
    """
    try:
        with server.connect(request.endpoint) as connection:
            return _target_state(connection, request, backup_set, inventory, target)
    except errors.ServerUnreachable:
        if not may_be_away:
            raise
        return TargetState(None, (), (), ())


def _with_application(request: RecoveryRequest, plan: RecoveryPlan, *, begun: bool, bundle_key: str = "") -> RecoveryPlan:
    application = environment.plan(request, plan.recovered_to, bundle_key=bundle_key)
    if application is not None:
        precheck.judge(request, application, begun=begun)
    return replace(plan, application=application)


def _target_state(
    connection: server.Connection, request: RecoveryRequest, backup_set: BackupSet, inventory: Inventory, target: Found
) -> TargetState:
    facts = server_facts.read_facts(connection)
    there = tuple(name for name in schema.database_names(connection) if name != load.SCRATCH_SCHEMA)
    if target is Found.RESTORED:
        return TargetState(facts, there, (), ())
    rights = privileges.read_privileges(connection)
    findings = preflight.target_findings(
        facts,
        rights,
        flavour=backup_set.source.flavour,
        version=backup_set.source.version,
        settings=inventory.settings,
        is_live=bool(request.into),
    )
    if not any(finding.severity == "error" for finding in findings):  # else the two servers have nothing in common to compare
        findings += needs.findings(inventory, needs.read_offer(connection, facts))
    findings += versioned.findings(connection, facts, rights, inventory.tables)
    for finding in findings:
        if finding.severity == "error":
            raise errors.TargetRefused(
                f"cannot restore set {backup_set.name} into {request.endpoint.name}: {finding.what}: {finding.why}",
                hint=finding.mend,
            )
    replay_paths = paths.possible(connection, facts, request)
    if request.read_only and not request.into:
        holding.check_privileges(facts, rights)
    if request.tiers.second and not request.is_partial:
        paths.check_direct(connection, facts, rights, makes_routines=False)  # for the second tier
    overwritten: tuple[str, ...] = ()
    if target is Found.FRESH:
        overwritten = tuple(sorted(set(there) & set(request.overwrite)))
        _refuse_others(request, tuple(set(there) & {request.into}) if request.into else there)
    warnings = tuple(f"{f.what}: {f.why}" for f in findings if f.severity == "warning")
    relaxes = request.replaying.relaxed and not request.into
    return TargetState(facts, there, overwritten, warnings, replay_paths, relaxes)


def _refuse_others(request: RecoveryRequest, there: tuple[str, ...]) -> None:
    refused = sorted(set(there) - set(request.overwrite))
    if refused and request.into:
        raise errors.TargetRefused(
            f"the target {request.endpoint.name} has a database {request.into} already",
            hint=f"choose another name, or have it dropped: --overwrite {request.into}",
        )
    if refused:
        names = " ".join(f"--overwrite {name}" for name in refused)
        raise TargetNotEmpty(
            f"the target {request.endpoint.name} is not empty: it has {', '.join(refused)}",
            hint=f"restore into an empty server, or have these dropped: {names}",
        )


def _estimate(request: RecoveryRequest) -> float | None:
    """Measured RTO of the newest finished recovery of this repository."""
    for run in reversed(journal.list_runs(request.repository)):
        try:
            one = journal.open_journal(request.repository, run)
            finished = one.last("finished")
        except errors.IntegrityError:
            continue  # a damaged journal is for `check` to report; it is no base for an estimate
        if finished is not None and "measured_rto_s" in finished.fields and not one.is_of_selection:
            return float(finished.fields["measured_rto_s"])
    return None
