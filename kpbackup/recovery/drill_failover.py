"""The drill `failover`: the archive went on across the newest change of primary, and a point just behind it is really restored.

What is restored ends with the first archived transaction of the new primary, so the replay crosses the seam, unless a backup set
was made right there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kpbackup import errors
from kpbackup.model import canonical
from kpbackup.model.catalog import Catalog
from kpbackup.model.coordinates import Coordinates
from kpbackup.model.manifest import BinlogSegment, Stretch
from kpbackup.pipeline import encrypt
from kpbackup.plan import seam as seams
from kpbackup.plan import timeline
from kpbackup.recovery import cut
from kpbackup.recovery.binlog import SegmentReader
from kpbackup.repository import catalog as catalogs
from kpbackup.repository import choosing
from kpbackup.repository.binding import Repository

KIND = "failover"


@dataclass(frozen=True)
class Crossing:
    """The newest change of primary, whether the archive went on across it, and the point to restore."""

    seam: seams.Seam
    is_closed: bool
    target: timeline.Target

    @property
    def figures(self) -> dict[str, str]:
        """For the journal and for people; nothing in it is secret."""
        before, after = self.seam.before, self.seam.after
        moments = {"left_at": before.ends_at, "taken_over_at": after.begins_at}
        return {
            "drill": KIND, "from_server": str(before.server_id), "to_server": str(after.server_id), "timeline": after.timeline,
            **{name: canonical.time_text(moment) for name, moment in moments.items() if moment is not None},
        }

    def refuse_gap(self) -> None:
        """Raises UnreachableTarget when the archive did not go on."""
        if not self.is_closed:
            told = self.figures
            raise errors.UnreachableTarget(
                f"the archive did not go on across the last change of primary (server {told['from_server']} to"
                f" {told['to_server']}): nothing between {told.get('left_at', 'its beginning')} and"
                f" {told.get('taken_over_at', 'now')} can be restored",
                hint="`kpbackup list` shows the windows; why a new timeline began is in its `reason`",
            )


def find(repository: Repository, identities: Sequence[encrypt.AnyIdentity]) -> Crossing | None:
    """The newest crossing; None when one server wrote everything archived.

    Raises:
        IntegrityError, KeyProblem, StorageError.
    """
    catalog, seam = _newest(repository)
    if seam is None:
        return None
    is_closed = seam.is_closed(timeline.windows(catalog))
    target = timeline.Target(latest=True)
    if is_closed and isinstance(seam.after.first, BinlogSegment):
        first = next(cut.transactions(SegmentReader(repository, identities), seam.after.first))
        behind = Coordinates(first.file, first.end)
        target = timeline.Target(gtid=first.gtid) if first.gtid else timeline.Target(position=behind)
    return Crossing(seam, is_closed, target)


def _newest(repository: Repository) -> tuple[Catalog, seams.Seam | None]:
    """With the segments at the seam known one by one."""
    catalog = choosing.detailed_where(repository, catalogs.read_catalog(repository), seams.is_mixed)
    seam = seams.newest(catalog)
    if seam is not None and isinstance(seam.after.first, Stretch):
        first = seam.after.first
        catalog = choosing.detailed_where(repository, catalog, lambda unit: unit == first)
        seam = seams.newest(catalog)
    return catalog, seam
