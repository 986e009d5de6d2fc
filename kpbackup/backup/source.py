"""Which timeline the source is on: whether the archive can go on where it ended, or a new timeline must start.

It goes on in the files it ended in, or in those of another server that GTIDs prove to hold all of it and nothing else
(`plan/takeover.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from kpbackup import errors
from kpbackup.model import manifest
from kpbackup.model.catalog import History
from kpbackup.model.coordinates import Coordinates, after_takeovers, archive_name, order, takeovers
from kpbackup.mysql import continuation, coordinates, follow, preflight, server
from kpbackup.mysql import facts as server_facts
from kpbackup.mysql.facts import GALERA, ServerFacts
from kpbackup.mysql.privileges import Privileges
from kpbackup.plan import takeover
from kpbackup.repository import layout
from kpbackup.repository.binding import Repository

_ONE_SERVER_ID = (
    "or another node of the Galera cluster is found at its address: nodes that share one server_id cannot be told from the same"
    " one put back from an older copy"
)


@dataclass(frozen=True)
class ArchiveHead:
    """Where the archive of a timeline ends, and which file that is."""

    at: Coordinates
    file: manifest.FileIdentity
    seq: int
    link: str
    ends_file: bool


def archive_head(history: History, *, first_link: str) -> ArchiveHead | None:
    """The end of the newest segment, else the oldest set's coordinates: where the archive goes on. None without a set."""
    if history.units:
        last = history.units[-1]
        return ArchiveHead(last.end, last.spans[-1].identity, last.last_seq, last.link, last.ends_file)
    if history.sets:
        first = history.sets[0]
        return ArchiveHead(first.coordinates, first.file, 0, first_link, False)
    return None


def require(facts: ServerFacts, rights: Privileges, *, databases: tuple[str, ...] = ()) -> None:
    """Passes when the source can be backed up; the first finding that rules it out is raised.

    Raises:
        PrivilegeMissing, ServerUnfit.
    """
    for finding in preflight.source_findings(facts, rights, databases=databases):
        if finding.severity == "error":
            kind = errors.PrivilegeMissing if finding.what.startswith("missing privilege") else errors.ServerUnfit
            raise kind(f"{finding.what}: {finding.why}", hint=finding.mend)


@dataclass(frozen=True)
class Seen:
    """What a source is seen at: its clock read first, then where it stands, by its own names (docs/format.md, 'Observation')."""

    facts: ServerFacts
    observed: manifest.Observation
    binlogs: tuple[tuple[str, int], ...]
    at_rest: str

    def after(self, number: int) -> manifest.Observation:
        """The observation as the archive names it, `number` takeovers after its timeline began."""
        return replace(self.observed, position=after_takeovers(self.observed.position, number))


def look(connection: server.Connection, facts: ServerFacts) -> Seen:
    """Raises ServerUnfit, PrivilegeMissing, ServerUnreachable."""
    observed = observe(connection, facts)
    binlogs = tuple(coordinates.list_binlogs(connection))
    return Seen(facts, observed, binlogs, continuation.at_rest(connection, facts))


def observe(connection: server.Connection, facts: ServerFacts) -> manifest.Observation:
    """The clock, then the position, by the server's own names. Raises as `look`."""
    clock = server_facts.clock(connection)
    position = coordinates.read_coordinates(connection, facts)
    return manifest.Observation(clock, position, coordinates.read_binlog_state(connection, facts))


@dataclass(frozen=True)
class Verdict:
    """Whether the archive goes on with this source.

    `reason` is '' when it does, else that of a new timeline, and `why` what GTIDs said against it. `number` is how many takeovers
    came before the source as it is now; `place` is where it goes on when that is another server than the archive's end.
    """

    reason: str
    number: int = 0
    place: Coordinates | None = None
    why: str = ""


def judge(endpoint: server.Endpoint, seen: Seen, history: History, head: ArchiveHead) -> Verdict:
    """Takes one connection of its own at a time.

    Raises:
        ServerUnreachable, ServerUnfit, PrivilegeMissing, IntegrityError.
    """
    number = takeovers(head.at.file)
    binlogs = [(archive_name(name, number), size) for name, size in seen.binlogs]
    reason = broken(endpoint, seen.facts, history, head, binlogs=binlogs)
    is_another = seen.facts.server_id != head.file.server_id and seen.facts.flavour == history.timeline.flavour
    if reason in ("", "damaged") or not is_another:
        is_doubtful = reason in ("reset", "purged") and seen.facts.cluster == GALERA
        return Verdict(reason, number, why=_ONE_SERVER_ID if is_doubtful else "")
    known = takeover.archived(history, head.at)
    if known is None:
        return Verdict("forked", why="not every archived transaction has a GTID")
    found = continuation.find(
        endpoint, seen.facts, known, files=[name for name, _ in seen.binlogs], until=seen.observed.position, at_rest=seen.at_rest
    )
    if found.place is None:
        return Verdict("purged" if found.is_purged else "forked", why=found.why)
    return Verdict("", number + 1, after_takeovers(found.place, number + 1))


def broken(
    endpoint: server.Endpoint, facts: ServerFacts, history: History, head: ArchiveHead, *, binlogs: Sequence[tuple[str, int]]
) -> str:
    """Why the archive does not go on in the files it ended in ('' when it does): the `reason` of a new timeline.

    `binlogs` are the source's files, as the archive names them, and their sizes. Takes one connection of its own for a moment.

    'forked': another server, or the same names with other content; 'reset': the file is there but shorter or other, or has
    no border between two events where the archive ends; 'purged': the file is gone although newer ones are there; 'damaged':
    the newest stored segment cannot be read.
    """
    if damaged_end(history):
        return "damaged"
    # the timeline says who the first one was; those that took over are known by their files alone
    uuid = history.timeline.server_uuid if not takeovers(head.at.file) else ""
    if facts.flavour != history.timeline.flavour or (uuid and facts.server_uuid and uuid != facts.server_uuid):
        return "forked"
    stored = dict(binlogs)
    if head.at.file not in stored:
        return _gone(head.at, list(stored))
    if stored[head.at.file] < head.at.position:
        return "reset"
    identity = follow.file_identity(endpoint, flavour=facts.flavour, file=head.at.file)
    if identity != head.file:
        return "forked" if identity.server_id != head.file.server_id else "reset"
    # put back from an older copy of its disk, and grown past this place since
    return "" if follow.has_border(endpoint, flavour=facts.flavour, at=head.at, size=stored[head.at.file]) else "reset"


def _gone(at: Coordinates, stored: Sequence[str]) -> str:
    """What it means that the source has no such file."""
    alike = [name for name in stored if name.rpartition(".")[0] == at.file.rpartition(".")[0]]
    if stored and not alike:
        return "forked"  # a server that names its files otherwise
    return "purged" if any(order(Coordinates(name, 0)) > order(Coordinates(at.file, 0)) for name in alike) else "reset"


def damaged_end(history: History) -> str:
    """Key and fault of the newest segment if it cannot be read ('' if it can): nothing can be linked to it."""
    newest = history.newest.get("segments", (0, None))[0]
    if newest <= (history.units[-1].last_seq if history.units else 0):
        return ""
    return next((f"{one.key}: {one.reason}" for one in history.damaged if one.key.endswith(f"/{newest:010d}")), "")


def start_timeline(
    repository: Repository,
    facts: ServerFacts,
    *,
    number: int,
    reason: str,
    parent: History | None,
    fork: Coordinates | None,
    now: datetime,
) -> manifest.Timeline:
    """Writes the manifest of a new timeline.

    Raises:
        ObjectExists: another process started it just now.
    """
    timeline_id = layout.timeline_id(number)
    head = repository.head("timeline", key=layout.timeline(timeline_id), created_at=now, timeline=timeline_id)
    timeline = manifest.Timeline(
        head=head,
        reason=reason,
        flavour=facts.flavour,
        server_version=facts.version_string,
        server_uuid=facts.server_uuid,
        parent=parent.id if parent else None,
        fork=fork,
    )
    repository.create(timeline)
    return timeline


def chain_broken(verdict: Verdict, history: History, head: ArchiveHead, source: str) -> errors.ChainBroken:
    """The error an incremental backup ends with when the archive cannot go on."""
    against = f" ({verdict.why})" if verdict.why else ""
    causes = {
        "purged": f"{source} has purged {head.at.file}, which was archived only up to {head.at.position}",
        "reset": f"{source} no longer has {head.at.file} as it was archived up to {head.at.position}:"
        " binlogs were reset or the server was restored",
        "damaged": f"its newest segment cannot be read: {damaged_end(history)}",
        "forked": f"{source} is another server, or has another history, than the one archived up to {head.at}",
    }
    return errors.ChainBroken(
        f"the archive cannot be continued: {causes[verdict.reason]}{against}",
        hint="run `kpbackup backup full`: it starts a new timeline; everything archived so far stays restorable",
    )
