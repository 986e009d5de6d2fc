"""Changes of primary as the archive shows them, and whether it went on across the newest one.

Pure. Each archived binlog file says which server wrote it, so a seam lies between two files of different server ids, on one
timeline or between two. The archive went on when one recoverable window holds the last commit of the server before and the first
one of the server after.

Limits: a server that took over with the same server id is not seen (replication forbids it). Commit times are the servers' own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from kpbackup.model.catalog import Catalog, History
from kpbackup.model.manifest import Stretch
from kpbackup.model.stretch import Unit
from kpbackup.plan import timeline


@dataclass(frozen=True)
class Reign:
    """What one server wrote until another one did. `first` is the first unit with a transaction; the times are those of its
    commits, or of the timeline's first set where there are none."""

    timeline: str
    server_id: int
    begins_at: datetime | None
    ends_at: datetime | None
    first: Unit | None = None


@dataclass(frozen=True)
class Seam:
    """The newest change of primary."""

    before: Reign
    after: Reign

    def is_closed(self, windows: tuple[timeline.Window, ...]) -> bool:
        """Whether one window reaches from the server before to the one after."""
        return any(self._is_within(window) for window in windows)

    def _is_within(self, window: timeline.Window) -> bool:
        left, since = self.before.ends_at, self.after.begins_at
        if left is None:
            return False
        begins = window.start
        if window.timeline == self.before.timeline == self.after.timeline and not left.microsecond:
            begins = begins.replace(microsecond=0)  # MariaDB stamps whole seconds, the clock of the first set is finer
        return begins <= left and (left if since is None else since) <= window.end


def newest(catalog: Catalog) -> Seam | None:
    """The newest change of primary, None when one server wrote everything that is archived."""
    reigns = list(_joined(one for history in catalog.histories for one in _reigns(history)))
    return Seam(reigns[-2], reigns[-1]) if len(reigns) > 1 else None


def is_mixed(unit: Unit) -> bool:
    """Whether a seam lies inside a stretch, so that its segments must be known one by one."""
    return isinstance(unit, Stretch) and len({span.identity.server_id for span in unit.spans}) > 1


def _reigns(history: History) -> Iterator[Reign]:
    """One for each unit; one for the first set, which is what a timeline begins with."""
    for one in history.sets[:1]:
        yield Reign(history.id, one.source.server_id, one.clock, one.clock)
    for unit in history.units:
        first = unit if unit.transactions else None
        yield Reign(history.id, unit.spans[-1].identity.server_id, unit.first_commit_at, unit.last_commit_at, first)


def _joined(reigns: Iterator[Reign]) -> Iterator[Reign]:
    held: Reign | None = None
    for one in reigns:
        if held is None or one.server_id != held.server_id:
            if held is not None:
                yield held
            held = one
        else:
            begins, ends = held.begins_at or one.begins_at, one.ends_at or held.ends_at
            held = replace(held, begins_at=begins, ends_at=ends, first=held.first or one.first)
    if held is not None:
        yield held
