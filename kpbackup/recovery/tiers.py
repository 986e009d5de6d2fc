"""The replay of the essential tables: what is about the second tier's rows alone is left out, everything else is replayed.

Definitions are replayed in both tiers, so that the empty tables of the second one are what the application expects. Decided
when the plan is made: a transaction that changes rows of both tiers cannot be taken apart here and is refused.
"""

from __future__ import annotations

from kpbackup import errors
from kpbackup.model.coordinates import Coordinates
from kpbackup.model.manifest import BackupSet
from kpbackup.mysql.statements import Kind
from kpbackup.mysql.tiering import SecondTier
from kpbackup.mysql.transactions import Transaction, TransactionWalker
from kpbackup.recovery import cut as cuts
from kpbackup.recovery.archived import Archived
from kpbackup.recovery.binlog import SegmentReader
from kpbackup.recovery.selected_replay import Touched


def left_out(reader: SegmentReader, backup_set: BackupSet, cut: cuts.Cut, second: SecondTier) -> frozenset[str]:
    """The GTIDs of the transactions between set and cut that change rows of the second tier alone.

    Raises:
        UnreachableTarget: one cannot be assigned to a tier.
        IntegrityError, KeyProblem, StorageError: a segment cannot be opened.
    """
    found: set[str] = set()
    if cut.last_included is None:
        return frozenset()
    walker, touched = TransactionWalker(), Touched()
    for event in Archived(reader, backup_set.coordinates, cut).behind(backup_set.coordinates):
        touched.feed(event)
        done = walker.feed(event)
        if done is None:
            continue
        if _is_of_second(second, backup_set.coordinates, done, touched):
            found.add(done.gtid)
        touched = Touched()
    return frozenset(found)


def _is_of_second(second: SecondTier, set_at: Coordinates, done: Transaction, touched: Touched) -> bool:
    own = {second.chosen.takes(*name) for name in touched.tables}
    name = done.gtid or f"{done.file}:{done.start}"
    for statement, _ in touched.statements:
        named = any(table.name.lower() in statement.mentions for table in second.tables)
        if statement.kind is Kind.CHANGE and (named or True in own):
            raise _refused(f"transaction {name} changes rows by a statement, {statement.verb}", set_at)
        if statement.verb == "CREATE TABLE" and any(second.chosen.takes(*target) for target in statement.targets):
            raise _refused(f"transaction {name} makes a table of the second tier", set_at)
        if True in own and statement.kind is not Kind.CONTROL:
            raise _refused(f"transaction {name} changes rows of the second tier and is a {statement.verb} too", set_at)
    if own == {True, False}:
        raise _refused(f"transaction {name} changes rows of both tiers", set_at)
    if True not in own:
        return False
    if not done.gtid:
        raise _refused("the source has no GTIDs, so no transaction can be left out", set_at)
    return True


def _refused(why: str, set_at: Coordinates) -> errors.UnreachableTarget:
    return errors.UnreachableTarget(
        f"cannot restore in two phases: {why}",
        hint="restore everything at once with --one-phase, or take the table out of recovery.tiers; to the set's own position"
        f" (--to-position {set_at.file}:{set_at.position}) two phases always work",
    )
