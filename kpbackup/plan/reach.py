"""How far a chain restores: its recovery point, told by the source's clock alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from kpbackup.model.catalog import History
from kpbackup.model.coordinates import Coordinates
from kpbackup.model.manifest import Observation
from kpbackup.plan import chain as chains


def recovery_point(history: History, chain: chains.Chain) -> datetime:
    """The later of the newest archived commit and the newest observation contained in this chain."""
    moments = [chain.backup_set.clock]
    moments += [unit.last_commit_at for unit in chain.units if unit.last_commit_at is not None]
    reached = _reached(chain)
    moments += [seen.clock for seen in _observations(history) if _contained(seen.position, reached)]
    return max(moments)


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
        observations = tuple(_observations(history))
        reached = _reached(longest)
        self._files: dict[str, int] = {}  # file -> the last unit with a part of it
        for place, unit in enumerate(longest.units):
            self._files.update((span.file, place) for span in unit.spans)
        self._commits = _latest_from(unit.last_commit_at for unit in longest.units)
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
