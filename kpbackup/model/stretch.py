"""Summing up: many segments, or stretches of them, as one `Stretch`. Pure; what follows what is judged by plan/chain.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from kpbackup.model import gtid
from kpbackup.model.manifest import BinlogSegment, FileSpan, Observation, Stretch

Unit = BinlogSegment | Stretch  # what a chain is made of: single segments where they are known, else what sums them up


def summed(units: Sequence[Unit], *, flavour: str) -> Stretch:
    """The stretch of all `units`, which follow one another without a break. At least one."""
    first, last = units[0], units[-1]
    spans = joined(span for unit in units for span in unit.spans)
    return Stretch(
        first_seq=first.first_seq,
        last_seq=last.last_seq,
        start=first.start,
        end=last.end,
        spans=spans,
        link_before=first.link_before,
        link=last.link,
        gtids=_contained_gtids(units, flavour),
        writers=tuple(sorted({writer for unit in units for writer in writers_of(unit, flavour)})),
        transactions=sum(unit.transactions for unit in units),
        raw_bytes=sum(unit.raw_bytes for unit in units),
        payload_bytes=sum(unit.payload_bytes for unit in units),
        first_commit_at=min((at for unit in units if (at := unit.first_commit_at)), default=None),
        last_commit_at=max((at for unit in units if (at := unit.last_commit_at)), default=None),
        observation=_newest_observation(units, spans),
        created_at=last.created_at,
        last_key=last.head.key if isinstance(last, BinlogSegment) else last.last_key,
        key_ids=tuple(sorted({key for unit in units for key in key_ids(unit)})),
        data_keys=tuple(key for unit in units for key in data_keys(unit)),
    )


def joined(spans: Iterable[FileSpan]) -> tuple[FileSpan, ...]:
    """The spans with those of one file as one."""
    found: list[FileSpan] = []
    for span in spans:
        if found and found[-1].file == span.file:
            before = found.pop()
            span = FileSpan(span.file, before.identity, before.start, span.end, span.ends_file)
        found.append(span)
    return tuple(found)


def key_ids(unit: Unit) -> tuple[str, ...]:
    """Ids of the data keys that a unit is sealed to."""
    return unit.key_ids if isinstance(unit, Stretch) else (unit.sealing.key_id,)


def data_keys(unit: Unit) -> tuple[str, ...]:
    """Keys of the data objects that hold payloads too large for their manifest's object."""
    if isinstance(unit, Stretch):
        return unit.data_keys
    return (unit.payload.key,) if unit.payload.key is not None else ()


def writers_of(unit: Unit, flavour: str) -> tuple[str, ...]:
    """MariaDB: the pairs domain-server_id at the borders of a unit."""
    if isinstance(unit, Stretch):
        return unit.writers
    if flavour != "mariadb":
        return ()
    ends = (gtid.MariadbGtidPosition.parse(text) for text in (unit.start.gtid, unit.gtids, unit.end.gtid))
    return tuple({f"{one.domain}-{one.server_id}" for position in ends for one in position.last})


def _contained_gtids(units: Sequence[Unit], flavour: str) -> str:
    texts = [unit.gtids for unit in units if unit.gtids]
    if flavour == "mariadb":
        last = {one.domain: one for text in texts for one in gtid.MariadbGtidPosition.parse(text).last}
        return str(gtid.MariadbGtidPosition.of(last.values()))
    found: dict[tuple[str, str], list[gtid.Interval]] = {}
    for text in texts:
        for source, intervals in gtid.MysqlGtidSet.parse(text).sources:
            found.setdefault(source, []).extend(intervals)
    return str(gtid.MysqlGtidSet.of(found))


def _newest_observation(units: Sequence[Unit], spans: Sequence[FileSpan]) -> Observation | None:
    reach = {span.file: span.end for span in spans}
    seen = [one for unit in units if (one := unit.observation) and one.position.position <= reach.get(one.position.file, -1)]
    return max(seen, key=_clock, default=None)


def _clock(observation: Observation) -> datetime:
    return observation.clock
