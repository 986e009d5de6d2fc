"""Whether another server's binlog goes on where the archive ends, and from which place on: by GTIDs alone.

A failover to a replica keeps the transactions and changes the files they lie in. The archive goes on in the new server's files
when there is a place in them with **exactly** what is archived before it: then nothing behind it is archived, and nothing
archived is missing. What the server has executed beside that (an errant transaction), in another order, or not at all leaves
no such place, and a new timeline begins.

Numbers alone prove little after a crash that lost the end of a binlog: its server gives them again, to other transactions. So
the newest archived transactions must also have been committed when the archive says, and a server must not take over from itself
(the caller compares server ids).

MariaDB says how far each domain came, not what it holds: in each the last GTID must be the archived one, server and number, and
any other server that wrote there must stand where it stood on the source, as far as that was seen (`Observation.binlog_state`).
A transaction that a replica skipped without a trace is seen by nobody.

Pure: `Search` is told what a file begins with, then its transactions in order.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from kpbackup.model import gtid
from kpbackup.model.catalog import History
from kpbackup.model.coordinates import Coordinates, takeovers
from kpbackup.model.stretch import Unit

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Archived:
    """What the archive holds: the GTID state at its end, and its newest transactions.

    `floor` is the state before those, `first_commit_at` and `last_commit_at` are their earliest and latest stamps (None: there
    are none yet). `state` is MariaDB's binlog state as it was last seen on the source, '' when it never was.
    """

    flavour: str
    gtid: str
    floor: str
    first_commit_at: datetime | None = None
    last_commit_at: datetime | None = None
    state: str = ""


def archived(history: History, at: Coordinates) -> Archived | None:
    """What is archived up to `at`, the end of the archive; None when GTIDs do not say all of it."""
    flavour = history.timeline.flavour
    if not at.gtid or (flavour == "mysql" and not all(_is_named(unit) for unit in history.units)):
        return None
    newest = next((unit for unit in reversed(history.units) if unit.transactions), None)
    state = _state_seen(history, takeovers(at.file))
    if newest is None:
        return Archived(flavour, at.gtid, at.gtid, state=state)
    return Archived(flavour, at.gtid, newest.start.gtid, newest.first_commit_at, newest.last_commit_at, state)


def _is_named(unit: Unit) -> bool:
    """Whether each transaction has a GTID: anonymous ones cannot be looked for on another server."""
    return gtid.MysqlGtidSet.parse(unit.gtids).count == unit.transactions


def _state_seen(history: History, server: int) -> str:
    """The newest binlog state seen on the source that `server` takeovers came before."""
    seen = [unit.observation for unit in history.units if unit.observation is not None]
    seen += [history.observation.observation] if history.observation is not None else []
    own = [one for one in seen if takeovers(one.position.file) == server and one.binlog_state]
    return max(own, key=lambda one: one.clock).binlog_state if own else ""


def may_begin(archived: Archived, before: str) -> bool:
    """Whether a file that `before` was executed before begins at or before the newest archived transactions."""
    return not _beyond(archived.flavour, before, archived.floor)


def is_purged(archived: Archived, before: str) -> bool:
    """Whether the oldest file of a server, and `before` it, comes after the end of the archive."""
    return _beyond(archived.flavour, before, archived.gtid)


def _beyond(flavour: str, before: str, limit: str) -> bool:
    if flavour == "mysql":
        return not gtid.contains(flavour, limit, before)
    ends = {one.domain: one.seq for one in gtid.MariadbGtidPosition.parse(limit).last}
    return any(one.seq > ends.get(one.domain, 0) for one in _gtids(before))


class Search:
    """Looks for the place in a server's binlog, from the beginning of a file on.

    `before`: what was executed before it. `at_rest`: MariaDB's GTIDs of domains of which the server's binlog knows nothing
    although it has executed them (`gtid_slave_pos` of a replica made from a copy).
    """

    def __init__(self, archived: Archived, before: str, *, at_rest: str = "") -> None:
        self._archived = archived
        self._stamps: list[int] = []
        self._left: _MysqlLeft | _MariadbLeft
        self._left = (
            _MysqlLeft(archived, before) if archived.flavour == "mysql" else _MariadbLeft(archived, before, at_rest)
        )
        self.why = self._left.why

    @property
    def is_there(self) -> bool:
        """Whether exactly what is archived was executed up to here."""
        return not self.why and self._left.is_empty

    def feed(self, name: str, commit_at_us: int) -> bool:
        """One more transaction; False when there is nothing more to look for: it `is_there`, or `why` says why not."""
        if self._left.is_newest(name):
            self._stamps.append(commit_at_us)
        self.why = self._left.take(name)
        return not self.why and not self._left.is_empty

    def verdict(self) -> str:
        """'' when the archive goes on here, else why not."""
        if self.why:
            return self.why
        if not self._left.is_empty:
            return f"it lacks {self._left.told}"
        return self._left.foreign() or self._stamps_differ()

    def _stamps_differ(self) -> str:
        first, last = self._archived.first_commit_at, self._archived.last_commit_at
        if first is None or last is None:
            return ""
        if self._stamps and (_moment(min(self._stamps)), _moment(max(self._stamps))) == (first, last):
            return ""
        return "its newest archived transactions were committed at other times: their numbers were given twice"


class _MysqlLeft:
    """The archived transactions that are still to come."""

    def __init__(self, archived: Archived, before: str) -> None:
        whole = gtid.MysqlGtidSet.parse(archived.gtid)
        floor = gtid.MysqlGtidSet.parse(archived.floor)
        left, self.why = whole.subtract(gtid.MysqlGtidSet.parse(before)), ""
        self._left, self._newest, self._count = dict(left.sources), dict(whole.subtract(floor).sources), left.count
        self._seen = 0

    @property
    def is_empty(self) -> bool:
        return self._seen == self._count

    @property
    def told(self) -> str:
        return f"{self._count - self._seen} archived transactions"

    def is_newest(self, name: str) -> bool:
        return _holds(self._newest, name)

    def take(self, name: str) -> str:
        if not name or not _holds(self._left, name):
            return f"it executed {name or 'a transaction without GTID'}, which is not archived, before {self.told} that are"
        self._seen += 1
        return ""

    def foreign(self) -> str:
        return ""


def _holds(sources: dict[tuple[str, str], gtid.Intervals], name: str) -> bool:
    source, number = gtid.split_mysql_gtid(name) if name else (("", ""), 0)
    intervals = sources.get(source, ())
    place = bisect.bisect_right(intervals, number, key=lambda one: one[0]) - 1
    return place >= 0 and number <= intervals[place][1]


class _MariadbLeft:
    """The domains whose archived end is still to come."""

    def __init__(self, archived: Archived, before: str, at_rest: str) -> None:
        self._ends = {one.domain: one for one in gtid.MariadbGtidPosition.parse(archived.gtid).last}
        self._floor = {one.domain: one.seq for one in gtid.MariadbGtidPosition.parse(archived.floor).last}
        self._known = set(_gtids(archived.state))
        self._state = {(one.domain, one.server_id): one for one in _gtids(before)}
        resting = [one for one in gtid.MariadbGtidPosition.parse(at_rest).last if one.domain in self._ends]
        last = {one.domain: one for one in (*resting, *_gtids(before))}
        self._left = {domain: end for domain, end in self._ends.items() if last.get(domain) != end}
        strange = [str(one) for domain, one in last.items() if domain not in self._ends]
        self.why = f"it executed {strange[0]}, of a domain that is not archived" if strange else ""

    @property
    def is_empty(self) -> bool:
        return not self._left

    @property
    def told(self) -> str:
        return "the archived transactions up to " + ",".join(str(self._left[domain]) for domain in sorted(self._left))

    def is_newest(self, name: str) -> bool:
        one = gtid.MariadbGtid.parse(name)
        return one.seq > self._floor.get(one.domain, 0)

    def take(self, name: str) -> str:
        one = gtid.MariadbGtid.parse(name)
        end = self._left.get(one.domain)
        if end is None or (one.seq >= end.seq and one != end):
            return f"it executed {one}, which is not archived, before {self.told}"
        self._state[one.domain, one.server_id] = one
        if one == end:
            del self._left[one.domain]
        return ""

    def foreign(self) -> str:
        """A GTID of a server that wrote in a domain without being the last to, and was not seen there on the source."""
        strange = [one for one in self._state.values() if one != self._ends.get(one.domain) and one not in self._known]
        return f"it executed {strange[0]}, which the source did not have when it was last looked at" if strange else ""


def _gtids(text: str) -> Sequence[gtid.MariadbGtid]:
    """A binlog state: several GTIDs of one domain, the last one last."""
    return [gtid.MariadbGtid.parse(part) for part in text.split(",") if part.strip()]


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
