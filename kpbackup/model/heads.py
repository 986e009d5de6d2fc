"""Heads: the newest number of every log, kept outside the store, so that a removed or rolled back end can be seen.

`logs` maps a log's path (`timelines/0001/segments`) to the number of its newest entry; `links` maps a timeline to the link of its
newest segment, which stands for everything before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Heads:
    """What was there when it was written. A log that is not named is not known."""

    repository: str
    logs: dict[str, int] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def covers(self, log: str, seq: int) -> bool:
        """Whether this entry was there then."""
        return seq <= self.logs.get(log, 0)

    def advanced(self, places: Iterable[tuple[str, int]], links: Mapping[str, str] | None = None) -> Heads:
        """With these entries too; numbers only grow. `links` are those of the segments among `places`, by timeline."""
        logs, found = dict(self.logs), dict(self.links)
        for log, seq in places:
            logs[log] = max(seq, logs.get(log, 0))
        for timeline, link in (links or {}).items():
            log = segments_log(timeline)
            if timeline not in found or logs.get(log, 0) > self.logs.get(log, 0):
                found[timeline] = link
        return Heads(self.repository, logs, found)


def segments_log(timeline: str) -> str:
    """The log of a timeline's segments."""
    return f"timelines/{timeline}/segments"
