"""MariaDB's small transactions joined, several to one commit under one GTID.

What a target's applier spends on a small transaction is mostly its commit. So following transactions of one domain and server
become one that carries the **last** one's GTID: rows in their order, and behind it the same GTID state as with each by itself.
Between, the target stands at the ends of groups alone, and its binlog has no other GTIDs. A replay that was killed goes on from
there; one that ends at a cut ends with the group that ends there.

Left as they are: whatever is no transaction of row events on transactional tables (the source's own flags say so), definitions,
XA, what is large, and everything behind a definition that makes tables keep their history, which a transaction may count.

A replica that lost its connection asks for a place inside a group: the group is then made again from its beginning, and is the
same one, for how it ends depends on nothing before it. Memory: one group, and the places of the newest ones.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator

from kpbackup.mysql import events, row_events
from kpbackup.mysql.events import StreamEvent
from kpbackup.mysql.serve import ReadFrom

GROUP = 20  # more were measured no faster
GROUP_BYTES = 256 << 10
REMEMBERED = 50_000  # groups; what a replica has asked for and not yet received is some megabytes at most

_ADDED = row_events.ROW_EVENTS | {row_events.TABLE_MAP, row_events.ANNOTATE_ROWS}
_QUERIES = frozenset({events.QUERY, events.QUERY_COMPRESSED})
_KEEPS_HISTORY = re.compile(rb"\bVERSIONING\b", re.IGNORECASE)
_STATEMENT_BYTES = 1 << 20  # of a definition that are looked at


class Grouped:
    """`read_from`, and what it gives in groups. One for a whole replay: it remembers where the groups began."""

    def __init__(self, read_from: ReadFrom) -> None:
        self._read_from = read_from
        self._groups: deque[tuple[str, int, int]] = deque(maxlen=REMEMBERED)
        self._counts: dict[tuple[str, int], int] = {}
        self._files: dict[str, int] = {}  # in their order
        self._history_at: tuple[int, int] | None = None  # the definition behind which nothing is joined

    def __call__(self, file: str, position: int) -> Iterator[StreamEvent]:
        """The events from (file, position) on, or from the beginning of the group that it lies in."""
        start = next((at for name, at, end in reversed(self._groups) if name == file and at < position < end), position)
        return self._grouped(_from(self._read_from(file, start), file, start))

    def transactions(self, file: str, end: int) -> int:
        """How many transactions the one that ends at (file, end) stands for."""
        return self._counts.get((file, end), 1)

    def _grouped(self, stream: Iterable[StreamEvent]) -> Iterator[StreamEvent]:
        group: list[list[StreamEvent]] = []
        group_bytes = size = 0
        open_: list[StreamEvent] = []
        for event in stream:
            place = self._files.setdefault(event.file, len(self._files)), event.start
            if open_:
                open_.append(event)
                size += len(event.data)
                if event.type == events.XID:
                    group.append(open_)
                    group_bytes += size
                    if len(group) >= GROUP or group_bytes >= GROUP_BYTES:
                        yield from self._ended(group)
                        group, group_bytes = [], 0
                    open_ = []
                elif event.type not in _ADDED or size > GROUP_BYTES:  # it is passed on as it is, from here on event by event
                    yield from self._ended(group)
                    yield from open_
                    group, group_bytes, open_ = [], 0, []
                continue
            if self._may_join(event, place):
                if group and not _follow(group[-1][0], event):
                    yield from self._ended(group)
                    group, group_bytes = [], 0
                open_, size = [event], len(event.data)
                continue
            if group:
                yield from self._ended(group)
                group, group_bytes = [], 0
            if event.type in _QUERIES and _KEEPS_HISTORY.search(events.query_text(event.data, _STATEMENT_BYTES)):
                self._history_at = min(self._history_at or place, place)
            yield event
        yield from self._ended(group)
        yield from open_

    def _may_join(self, event: StreamEvent, place: tuple[int, int]) -> bool:
        if event.type != events.MARIADB_GTID or (self._history_at is not None and place > self._history_at):
            return False
        return events.mariadb_gtid(event.data).may_be_joined

    def _ended(self, group: list[list[StreamEvent]]) -> Iterator[StreamEvent]:
        """The events of one group, which lie one behind the other although some are left out."""
        if len(group) < 2:
            for transaction in group:
                yield from transaction
            return
        begins, last = group[0][0], group[-1][-1]
        if len(self._groups) == REMEMBERED:
            file, _, end = self._groups[0]
            self._counts.pop((file, end), None)
        self._groups.append((begins.file, begins.start, last.end))
        self._counts[last.file, last.end] = len(group)
        yield begins._replace(data=events.at_place_of(group[-1][0].data, begins.data))
        position = begins.end
        for number, transaction in enumerate(group):
            for event in transaction[1 : None if number == len(group) - 1 else -1]:
                yield event._replace(start=position)
                position = event.end


def _from(stream: Iterable[StreamEvent], file: str, position: int) -> Iterator[StreamEvent]:
    """Without what comes before (file, position): a group must not begin there."""
    for event in stream:
        if event.type == events.FORMAT_DESCRIPTION or event.file != file or event.end > position:
            yield event


def _follow(one: StreamEvent, other: StreamEvent) -> bool:
    """Whether two GTID events are of one file, domain and server."""
    names = [events.mariadb_gtid(event.data).gtid.rpartition("-")[0] for event in (one, other)]
    return one.file == other.file and names[0] == names[1]
