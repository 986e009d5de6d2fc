"""Where another server's binlog goes on with what is archived: the source of `plan/takeover.py`.

Reads what its files begin with, newest first, until one lies before the newest archived transactions; then that file and those
after it, event by event, until the place is found. That is one file or two, as a failover is seen soon after it happened.
Nothing is changed on the server, nothing is kept here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from kpbackup.model import gtid
from kpbackup.model.coordinates import Coordinates
from kpbackup.mysql import binlog_file, events, follow, server
from kpbackup.mysql.events import StreamEvent
from kpbackup.mysql.facts import ServerFacts
from kpbackup.mysql.transactions import TransactionWalker
from kpbackup.plan import takeover


@dataclass(frozen=True)
class Found:
    """`place`: by the server's own names (0 at a file's beginning), with the archived GTID state. None, and `why`, when there
    is none; `is_purged`: the server threw away what comes next."""

    place: Coordinates | None = None
    why: str = ""
    is_purged: bool = False


def find(
    endpoint: server.Endpoint, facts: ServerFacts, archived: takeover.Archived, *,
    files: Sequence[str], until: Coordinates, at_rest: str = "",
) -> Found:
    """Looks through `files` (oldest first, by the server's own names) up to `until`. One connection at a time.

    Raises: as follow.follow, but for ChainBroken.
    """
    before = ""
    for file in reversed(files):
        before = _gtids_before(endpoint, facts, file)
        if not facts.mariadb:
            before = gtid.add("mysql", before, at_rest)
        if takeover.may_begin(archived, before):
            return _search(endpoint, facts, archived, takeover.Search(archived, before, at_rest=at_rest), file, until)
    if takeover.is_purged(archived, before):
        return Found(why="it purged what was not archived yet", is_purged=True)
    return Found(why="it purged the newest archived transactions, which would prove that it has them")


def _gtids_before(endpoint: server.Endpoint, facts: ServerFacts, file: str) -> str:
    first = follow.first_events(endpoint, flavour=facts.flavour, file=file)
    description = binlog_file.file_head(file, first).description
    crc = events.checksum_algorithm(description) == events.CHECKSUM_CRC32
    return events.gtids_before(first[-1], crc=crc)


def _search(
    endpoint: server.Endpoint, facts: ServerFacts, archived: takeover.Archived, search: takeover.Search, file: str,
    until: Coordinates,
) -> Found:
    at = Coordinates(file, 0, archived.gtid)
    if not search.why and not search.is_there:
        walker = TransactionWalker()
        with contextlib.closing(follow.follow(endpoint, flavour=facts.flavour, start=at, until=until)) as stream:
            for event in stream:
                done = walker.feed(event) if isinstance(event, StreamEvent) else None
                if done is None:
                    continue
                at = Coordinates(done.file, done.end, archived.gtid)
                if not search.feed(done.gtid, done.commit_at_us):
                    break
    why = search.verdict()
    return Found(why=why) if why else Found(at)


def at_rest(connection: server.Connection, facts: ServerFacts) -> str:
    """What was executed and is in no binlog, as on a replica made from a copy. MySQL: the purged set, which the lists at the
    beginning of files leave out as far as it never was in one; MariaDB: the GTIDs of domains of which the binlog says nothing."""
    if not facts.mariadb:
        return "".join(str(connection.value("SELECT @@global.gtid_purged") or "").split())
    executed = gtid.MariadbGtidPosition.parse(str(connection.value("SELECT @@global.gtid_slave_pos") or ""))
    logged = gtid.MariadbGtidPosition.parse(str(connection.value("SELECT @@global.gtid_binlog_pos") or ""))
    return ",".join(str(one) for one in executed.last if logged.get(one.domain) is None)
