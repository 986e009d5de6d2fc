"""Every object key of repository format 1. No other module builds one (docs/format.md, 'Layout')."""

from __future__ import annotations

import re
from datetime import datetime

BINDING = "kpbackup.json"
SEQ_DIGITS = 10
TIMELINES = "timelines/"
DATA = "data/"
KEYS = "keys/"
CANARIES = "canaries/"
IDENTITIES = "identities/"
RECOVERIES = "recoveries/"
LEASES = "leases/"
APPLICATIONS = "applications/"
REPORTS = "reports/"
LOGS = ("sets", "segments", "observations", "anchors", "tombstones", "pins")
PAGE_ROWS = 1024  # of every catalogue page

_PAGE_KEY = re.compile(r"^timelines/(\d{4})/pages/(\d)/(\d{10})$")
_COMPACTED_KEY = re.compile(r"^timelines/(\d{4})/compacted/(\d)/(\d{10})-(\d{10})$")
_LOG_KEY = re.compile(r"^timelines/(\d{4})/(sets|segments|observations|anchors|tombstones|pins)/(\d{4}-\d{2})/(\d{10})$")
_MONTH = re.compile(r"^\d{4}-\d{2}$")


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


def page(timeline: str, level: int, number: int) -> str:
    """Page `number` (from 1) of a level. It lists what PAGE_ROWS ** (level + 1) segments are, each page the same count."""
    return f"{timeline_prefix(timeline)}pages/{level}/{number:0{SEQ_DIGITS}d}"


def parse_page(key: str) -> tuple[int, int] | None:
    """(level, number) of a page's key, None for any other key."""
    found = _PAGE_KEY.match(key)
    return (int(found[2]), int(found[3])) if found else None


def compacted(timeline: str, level: int, first_seq: int, last_seq: int) -> str:
    return f"{timeline_prefix(timeline)}compacted/{level}/{first_seq:0{SEQ_DIGITS}d}-{last_seq:0{SEQ_DIGITS}d}"


def parse_compacted(key: str) -> tuple[int, int, int] | None:
    """(level, first, last) of the key of a compacted object's manifest, None for any other key."""
    found = _COMPACTED_KEY.match(key)
    return (int(found[2]), int(found[3]), int(found[4])) if found else None


def seq_of(key: str) -> int:
    """The number at the end of a log's or page's key."""
    return int(key[-SEQ_DIGITS:])


def place(key: str) -> tuple[str, int] | None:
    """(log, number) of any numbered signed object: its path without month and number. None for the binding.

    A timeline is an entry of the log `timelines`; a name with two numbers (`compacted/0000000001-0000001024`) counts by the last.
    """
    if key == BINDING:
        return None
    *path, name = key.split("/")
    if name == "timeline":
        return path[0], int(path[1])
    number = re.search(r"(\d+)$", name)
    if path and _MONTH.match(path[-1]):
        path.pop()
    return "/".join(path), int(number[1]) if number else 0


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
    return f"{KEYS}{key_id}/"


def key_object(key_id: str, number: int) -> str:
    return f"{key_objects(key_id)}{number:0{SEQ_DIGITS}d}.age"


def key_object_number(key: str) -> int:
    """The number of a key object: its place among the rewraps of one data key."""
    return int(key.rpartition("/")[2].removesuffix(".age"))


def canaries(recipient_id: str) -> str:
    return f"{CANARIES}{recipient_id}/"


def canary(recipient_id: str, seq: int) -> str:
    return f"{canaries(recipient_id)}{seq:0{SEQ_DIGITS}d}"


def canary_proof(canary_key: str) -> str:
    """What the reader leaves beside a canary it has opened."""
    return canary_key + ".opened"


def sealed_identity(number: int) -> str:
    """An identity sealed with a passphrase: `age -d` and the passphrase open it."""
    return f"{IDENTITIES}{number:0{SEQ_DIGITS}d}.age"


def lease(role: str) -> str:
    return f"{LEASES}{role}"


def recovery(run: str) -> str:
    return f"{RECOVERIES}{run}/"


def recovery_entry(run: str, seq: int) -> str:
    return f"{recovery(run)}{seq:0{SEQ_DIGITS}d}"


def application(seq: int) -> str:
    return f"{APPLICATIONS}{seq:0{SEQ_DIGITS}d}"


def reports(verb: str) -> str:
    return f"{REPORTS}{verb}/"


def report(verb: str, seq: int) -> str:
    return f"{reports(verb)}{seq:0{SEQ_DIGITS}d}"
