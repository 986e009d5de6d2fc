"""Every object key of repository format 1. No other module builds one (docs/format.md, 'Layout')."""

from __future__ import annotations

import re
from datetime import datetime

BINDING = "kpbackup.json"
SEQ_DIGITS = 10
TIMELINES = "timelines/"
DATA = "data/"
RECOVERIES = "recoveries/"
LEASES = "leases/"
APPLICATIONS = "applications/"
LOGS = ("sets", "segments", "observations", "anchors", "tombstones")

_LOG_KEY = re.compile(r"^timelines/(\d{4})/(sets|segments|observations|anchors|tombstones)/(\d{4}-\d{2})/(\d{10})$")


def reader(version: str) -> str:
    return f"reader-{version}.py"


def signature(key: str) -> str:
    return key + ".minisig"


def timeline_id(number: int) -> str:
    return f"{number:04d}"


def timeline(timeline: str) -> str:
    return f"{TIMELINES}{timeline}/timeline"


def timeline_prefix(timeline: str) -> str:
    return f"{TIMELINES}{timeline}/"


def log_prefix(timeline: str, log: str) -> str:
    return f"{TIMELINES}{timeline}/{log}/"


def log_entry(timeline: str, log: str, *, month_of: datetime, seq: int) -> str:
    """Key of entry `seq`; `month_of` is the creation time of its *predecessor* (of the timeline for entry 1).

    Were it the entry's own time, two writers on both sides of midnight at a month's end would write the same
    number under two keys and the fence would not hold.
    """
    return f"{log_prefix(timeline, log)}{month_of:%Y-%m}/{seq:0{SEQ_DIGITS}d}"


def parse_log_entry(key: str) -> tuple[str, str, int] | None:
    """(timeline, log, seq) of a log key, None for any other key."""
    found = _LOG_KEY.match(key)
    return (found[1], found[2], int(found[4])) if found else None


def attempt(timeline: str, started_at: datetime, token: str) -> str:
    """Prefix of one attempt's data objects: unique, so that no attempt can touch another's."""
    return f"{DATA}{timeline}/{started_at:%Y%m%dT%H%M%SZ}-{token}/"


def attempt_started(prefix_or_key: str) -> str:
    """`data/0001/20260501T020000Z-ab12/000003` -> `20260501T020000Z`."""
    return prefix_or_key.split("/")[2].split("-")[0]


def data_object(attempt_prefix: str, number: int) -> str:
    return f"{attempt_prefix}{number:06d}"


def named_object(attempt_prefix: str, name: str) -> str:
    return f"{attempt_prefix}{name}"


def key_objects(key_id: str) -> str:
    return f"keys/{key_id}/"


def key_object(key_id: str, number: int) -> str:
    return f"{key_objects(key_id)}{number:0{SEQ_DIGITS}d}.age"


def lease(role: str) -> str:
    return f"{LEASES}{role}"


def recovery(run: str) -> str:
    return f"{RECOVERIES}{run}/"


def recovery_entry(run: str, seq: int) -> str:
    return f"{recovery(run)}{seq:0{SEQ_DIGITS}d}"


def application(seq: int) -> str:
    return f"{APPLICATIONS}{seq:0{SEQ_DIGITS}d}"
