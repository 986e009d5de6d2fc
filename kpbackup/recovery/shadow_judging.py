"""Whether the replay into a shadow can be exact, judged when the plan is made.

Everything between the set and the cut is read once, through the very filter that the replay uses: what cannot be replayed
exactly is refused before anything is changed, all of it in one answer.
"""

from __future__ import annotations

from kpbackup import errors
from kpbackup.model.manifest import BackupSet
from kpbackup.mysql.shadow_filter import REFUSALS_LISTED, ShadowFilter
from kpbackup.mysql.shadowing import Shadow
from kpbackup.recovery import cut as cuts
from kpbackup.recovery.archived import Archived
from kpbackup.recovery.binlog import SegmentReader


def judge(
    reader: SegmentReader, backup_set: BackupSet, cut: cuts.Cut, shadow: Shadow, skipped: frozenset[str]
) -> dict[str, int]:
    """Rows inserted between set and cut, by table of the shadow, if the chosen tables can be replayed exactly.

    Raises:
        UnreachableTarget: they cannot; says which statements are in the way.
        IntegrityError, KeyProblem, StorageError, ServerUnfit: a segment cannot be read.
    """
    if cut.last_included is None:
        return {}
    if shadow.cascades:
        raise _refused(shadow, backup_set, f"a foreign key of {shadow.cascades[0]} lets a table that is left out change its rows,"
                                           " which is in no binlog")  # fmt: skip
    judging = ShadowFilter(shadow, skipped=skipped, lists=True)
    archived = Archived(reader, backup_set.coordinates, cut)
    try:
        for _ in judging.steps(archived.behind(backup_set.coordinates)):
            pass
    except errors.StepFailed as exc:
        raise _refused(shadow, backup_set, exc.message) from exc
    if judging.refusals:
        more = len(judging.refusals) - REFUSALS_LISTED
        listed = "; ".join(judging.refusals[:REFUSALS_LISTED]) + (f"; and {more} more" if more > 0 else "")
        raise _refused(shadow, backup_set, listed)
    return dict(judging.inserted)


def _refused(shadow: Shadow, backup_set: BackupSet, why: str) -> errors.UnreachableTarget:
    at = backup_set.coordinates
    return errors.UnreachableTarget(
        f"cannot replay {shadow.chosen} into {shadow.name} exactly: {why}",
        hint="choose a point before it (--before-gtid, `kpbackup find` prints GTIDs) or what belongs to it too, or restore"
        f" everything into a server of its own; --to-position {at.file}:{at.position} is the set itself, without a replay",
    )
