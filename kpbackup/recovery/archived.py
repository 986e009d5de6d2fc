"""The archived events between a backup set and a cut, from any place in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kpbackup.model.coordinates import Coordinates
from kpbackup.model.manifest import BinlogSegment
from kpbackup.mysql import events
from kpbackup.mysql.events import StreamEvent
from kpbackup.recovery import cut as cuts
from kpbackup.recovery.binlog import SegmentReader


class Archived:
    """`set_at` are the coordinates of the set. Segments are opened one after the other, as they are read."""

    def __init__(self, reader: SegmentReader, set_at: Coordinates, cut: cuts.Cut) -> None:
        self._reader, self._set_at, self._cut = reader, set_at, cut
        self._order = cuts.FileOrder(cut.segments)

    def read_from(self, file: str, position: int) -> Iterator[StreamEvent]:
        """From the beginning of the segment that holds (file, position) to the cut; each file begins with its description."""
        described = ""
        for segment in self._from(Coordinates(file, position)):
            for event in cuts.segment_events(self._reader, segment):
                if event.is_repeated_description:
                    if described == segment.start.file:
                        continue
                    if segment.start.file != file:  # another server took over: its file begins in the middle
                        event = event._replace(start=segment.start.position, end=segment.start.position)
                described = segment.start.file
                if self._order.is_at_or_after(event.file, event.start, self._cut.at):
                    return
                yield event

    def behind(self, start: Coordinates, stream: Iterable[StreamEvent] | None = None) -> Iterator[StreamEvent]:
        """From `start` on, which lies between two transactions, descriptions apart; of `stream` where it is given."""
        for event in self.read_from(start.file, start.position) if stream is None else stream:
            is_description = event.type == events.FORMAT_DESCRIPTION
            if is_description or self._order.is_at_or_after(event.file, event.start, start):
                yield event

    def before(self, end: Coordinates) -> Iterator[StreamEvent]:
        """From the set to `end`."""
        start = self._set_at
        for event in self.read_from(start.file, start.position):
            if self._order.is_at_or_after(event.file, event.start, end):
                return
            if self._order.is_at_or_after(event.file, event.start, start):
                yield event

    def _from(self, at: Coordinates) -> Iterator[BinlogSegment]:
        """The segments that end at or after `at`: the first may have nothing but the format description to give."""
        for segment in self._cut.segments:
            if self._order.is_at_or_after(segment.end.file, segment.end.position, at):
                yield segment
