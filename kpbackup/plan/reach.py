"""How far a chain restores: its recovery point, told by the source's clock alone.

A stamp is what a transaction says of itself: a session may set the time (MariaDB's stamps follow it), and a clock may jump and be
put right again. So no stamp counts that lies ahead of the source's clock as the newest observation shows it, moved on to the
moment when the newest object was stored: a recovery point out of the future would hide for as long that nothing is archived
any more. Such a transaction is restored like any other, and `--to` still finds its stamp (`newest_stamp`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from kpbackup.model.catalog import History
from kpbackup.model.coordinates import Coordinates
from kpbackup.model.manifest import Observation, Stretch
from kpbackup.model.stretch import Unit
from kpbackup.plan import chain as chains

STAMP_SLACK = timedelta(minutes=5)  # what a stamp may be ahead: an observation is as old as what it was stored with


def recovery_point(history: History, chain: chains.Chain) -> datetime:
    """The later of the newest archived commit and the newest observation contained in this chain, as far as clocks allow."""
    limit = _limit(history)
    reached = _reached(chain)
    moments = [_believed(unit, limit) for unit in chain.units]
    moments += [seen.clock for seen in _observations(history) if seen.clock <= limit and _contained(seen.position, reached)]
    return max([chain.backup_set.clock, *(moment for moment in moments if moment is not None)])


def newest_stamp(chain: chains.Chain) -> datetime:
    """The latest time that the set or a transaction behind it says of itself, believed or not."""
    stamps = [unit.last_commit_at for unit in chain.units if unit.last_commit_at is not None]
    return max([chain.backup_set.clock, *stamps])


def _limit(history: History) -> datetime:
    """How late it can have been on the source, by its own clock, when the newest object of the timeline was stored.

    By the newest look at that clock of which is known when it was; in a stretch that is not, but that its clock was reached.
    """
    singles = [unit for unit in history.units if not isinstance(unit, Stretch)]
    seen = [(unit.created_at, unit.observation.clock) for unit in singles if unit.observation is not None]
    seen += [(one.started_at, one.clock) for one in history.sets]
    if history.observation is not None:
        seen.append((history.observation.head.created_at, history.observation.observation.clock))
    stored = [at for at, _ in seen] + [one.head.created_at for one in history.sets] + [u.created_at for u in history.units[-1:]]
    in_stretches = [u.observation.clock for u in history.units[-1:] if isinstance(u, Stretch) and u.observation is not None]
    at, clock = max(seen)
    return max([clock + (max(stored) - at), *in_stretches]) + STAMP_SLACK


def _believed(unit: Unit, limit: datetime) -> datetime | None:
    """The latest commit of a unit by its stamps; what is known of one that has a stamp from the future is its earliest."""
    for stamp in (unit.last_commit_at, unit.first_commit_at):
        if stamp is not None and stamp <= limit:
            return stamp
    return None


def reaches(history: History) -> tuple[tuple[chains.Chain, datetime], ...]:
    """Each set's chain with its recovery point: what `recovery_point` says, for many chains at once.

    Chains that end together differ only in where they begin, so what lies behind is summed up once for all of them.
    """
    ends: dict[int, _Ends] = {}
    found = []
    for chain in chains.chains(history):
        if not chain.units:
            found.append((chain, recovery_point(history, chain)))
            continue
        key = id(chain.units[-1])
        if key not in ends or len(ends[key].units) < len(chain.units):
            ends[key] = _Ends(history, chain)
        found.append((chain, ends[key].point(chain)))
    return tuple(found)


class _Ends:
    """The recovery points of all chains that end where this longest one ends."""

    def __init__(self, history: History, longest: chains.Chain) -> None:
        self.units = longest.units
        limit = _limit(history)
        observations = tuple(one for one in _observations(history) if one.clock <= limit)
        reached = _reached(longest)
        self._files: dict[str, int] = {}  # file -> the last unit with a part of it
        for place, unit in enumerate(longest.units):
            self._files.update((span.file, place) for span in unit.spans)
        self._commits = _latest_from(_believed(unit, limit) for unit in longest.units)
        seen: list[datetime | None] = [None] * len(longest.units)
        for one in observations:
            if _contained(one.position, reached) and (place_of := self._files.get(one.position.file)) is not None:
                before = seen[place_of]
                seen[place_of] = one.clock if before is None else max(before, one.clock)
        self._seen = _latest_from(seen)
        self._all = observations

    def point(self, chain: chains.Chain) -> datetime:
        first = len(self.units) - len(chain.units)
        moments = [chain.backup_set.clock, self._commits[first], self._seen[first]]
        own = chain.backup_set.coordinates
        if own.file not in self._files:  # the set's own file lies before all units
            moments += [one.clock for one in self._all if one.position.file == own.file and one.position.position <= own.position]
        return max(moment for moment in moments if moment is not None)


def _latest_from(moments: Iterable[datetime | None]) -> list[datetime | None]:
    """For each place the latest moment from there on."""
    found: list[datetime | None] = []
    latest: datetime | None = None
    for moment in reversed(list(moments)):
        latest = moment if latest is None else latest if moment is None else max(latest, moment)
        found.append(latest)
    return found[::-1]


def _observations(history: History) -> Iterator[Observation]:
    """All of the timeline: one before a chain's first segment counts too when it lies at or before the set."""
    yield from (unit.observation for unit in history.units if unit.observation is not None)
    if history.observation is not None:
        yield history.observation.observation


def _reached(chain: chains.Chain) -> dict[str, int]:
    """File -> how far the chain holds it. Everything before an observed position lies in the chain when it reaches that far."""
    own = chain.backup_set.coordinates
    found = {own.file: own.position}
    for unit in chain.units:
        for span in unit.spans:
            found[span.file] = max(found.get(span.file, 0), span.end)
    return found


def _contained(at: Coordinates, reached: dict[str, int]) -> bool:
    return at.position <= reached.get(at.file, -1)
