"""What can be said of trust: keys that still open, copies, checks, heads and certificates; judged for `status` and metrics.

Pure: what was read is passed in. A fact that is not known is left out; nothing here is guessed from the process's own memory
except `regressed`, which says that the store shows less than this process has seen before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from kpbackup import quantities

Judgement = tuple[str, str]  # ("warning" or "critical", why)
UNCHECKED_SETS = 7  # so many sets may be stored before somebody must have checked any: a new repository does not warn at once


@dataclass(frozen=True)
class Limits:
    """From which age on `status` complains."""

    canary: timedelta = timedelta(days=40)
    certificate: timedelta = timedelta(days=30)  # before it expires: time for whoever renews by hand
    check: timedelta = timedelta(days=3)  # two daily ones may fail


@dataclass(frozen=True)
class Canary:
    """What the canaries of one recipient say: its key has opened the one made at `proven_at`; None when never one."""

    recipient: str
    first_at: datetime
    newest_at: datetime
    proven_at: datetime | None


@dataclass(frozen=True)
class Copy:
    """What a second copy says of itself; `problem` says why it cannot be read."""

    name: str
    max_age: timedelta
    recovery_point: datetime | None = None
    problem: str = ""
    copied_at: datetime | None = None  # when everything was last carried over, by the report left in it


@dataclass(frozen=True)
class Check:
    """What the newest report of `check` says; `signed` is False when nobody vouches for it."""

    ended_at: datetime
    passed: bool
    read_bytes: int
    objects: int
    read_objects: int
    problems: int
    signed: bool = True


@dataclass(frozen=True)
class Prune:
    """What the newest report of `prune` says; its counts are 0 where it could not finish."""

    ended_at: datetime
    passed: bool
    deleted: int
    kept_by_lock: int
    renewed_locks: int


@dataclass(frozen=True)
class Trust:
    """All of it, at one moment."""

    limits: Limits = Limits()
    canaries: tuple[Canary, ...] = ()
    heads: tuple[tuple[str, int], ...] = ()  # ("0001/segments", 120)
    regressed: str = ""
    copies: tuple[Copy, ...] = ()
    certificates: tuple[tuple[str, datetime], ...] = ()  # endpoint, when it expires
    last_check: Check | None = None
    last_passed_check: Check | None = None
    last_prune: Prune | None = None


def judge(trust: Trust, now: datetime, *, sets: int = 0) -> Iterator[Judgement]:
    """What is not as it should be, in a repository of so many backup sets."""
    if trust.regressed:
        yield (
            "critical",
            f"the store shows less than it did: {trust.regressed}: newest entries were removed, or it serves an older state",
        )
    yield from _judge_checks(trust, now, sets)
    for one in trust.canaries:
        since = one.proven_at or one.first_at
        if now - since > trust.limits.canary:
            told = f"for {quantities.format_duration(now - since)}" if one.proven_at else "ever"
            yield (
                "warning",
                f"the key of {one.recipient}... has not proven {told} that it opens a canary: "
                "run `kpbackup keys canary --check` where it is",
            )
    for copy in trust.copies:
        yield from _judge_copy(copy, now)
    for endpoint, expires in trust.certificates:
        if expires - now < trust.limits.certificate:
            told = f"expires in {quantities.format_duration(expires - now)}" if expires > now else "has expired"
            yield "warning", f"the certificate of the {endpoint} {told} ({expires:%Y-%m-%d})"


def _judge_checks(trust: Trust, now: datetime, sets: int) -> Iterator[Judgement]:
    """One that failed is said, else how long ago the last good one was."""
    newest, passed = trust.last_check, trust.last_passed_check
    if newest is not None and not newest.passed:
        told = f"{newest.problems} problems" if newest.problems else "it could not finish"
        yield "critical", f"the newest check, of {newest.ended_at:%Y-%m-%d %H:%M} UTC, failed: {told}; `kpbackup check` says what"
    elif passed is not None and now - passed.ended_at > trust.limits.check:
        age, allowed = (quantities.format_duration(one) for one in (now - passed.ended_at, trust.limits.check))
        yield "warning", f"the newest check is {age} old, allowed are {allowed} (objectives.check): run `kpbackup check`"
    elif newest is None and sets > UNCHECKED_SETS:
        yield "warning", f"{sets} sets are stored and nothing was ever checked: run `kpbackup check`, every day"


def _judge_copy(copy: Copy, now: datetime) -> Iterator[Judgement]:
    if copy.problem:
        yield "warning", f"the copy {copy.name} cannot be read: {copy.problem}"
    elif copy.recovery_point is None:
        yield "warning", f"the copy {copy.name} holds nothing that can be restored: run `kpbackup copy`"
    elif now - copy.recovery_point > copy.max_age:
        behind, allowed = (quantities.format_duration(one) for one in (now - copy.recovery_point, copy.max_age))
        yield "warning", f"the copy {copy.name} is {behind} behind, allowed are {allowed}: run `kpbackup copy`"


def samples(trust: Trust) -> Iterator[tuple[str, list[tuple[tuple[str, ...], float]]]]:
    """Metric name -> (labels beside `source`, value)."""
    yield "kpbackup_head_sequence", [((*log.split("/"),), seq) for log, seq in trust.heads]
    yield "kpbackup_head_regressed", [((), float(bool(trust.regressed)))]
    yield (
        "kpbackup_canary_last_success_timestamp_seconds",
        [((one.recipient,), one.proven_at.timestamp()) for one in trust.canaries if one.proven_at is not None],
    )
    yield (
        "kpbackup_certificate_expiry_timestamp_seconds",
        [((endpoint,), expires.timestamp()) for endpoint, expires in trust.certificates],
    )
    yield "kpbackup_copy_up", [((one.name,), float(not one.problem)) for one in trust.copies]
    yield (
        "kpbackup_copy_recovery_point_timestamp_seconds",
        [((one.name,), one.recovery_point.timestamp()) for one in trust.copies if one.recovery_point is not None],
    )
    yield "kpbackup_copy_max_age_seconds", [((one.name,), one.max_age.total_seconds()) for one in trust.copies]
    yield (
        "kpbackup_copy_last_success_timestamp_seconds",
        [((one.name,), one.copied_at.timestamp()) for one in trust.copies if one.copied_at is not None],
    )
    yield "kpbackup_check_max_age_seconds", [((), trust.limits.check.total_seconds())]
    if (last := trust.last_check) is not None:
        yield "kpbackup_check_last_end_timestamp_seconds", [((), last.ended_at.timestamp())]
        yield "kpbackup_check_last_passed", [((), float(last.passed))]
        yield "kpbackup_check_problems", [((), last.problems)]
        yield "kpbackup_check_read_bytes", [((), last.read_bytes)]
    if (prune := trust.last_prune) is not None:
        yield "kpbackup_prune_last_end_timestamp_seconds", [((), prune.ended_at.timestamp())]
        yield "kpbackup_prune_last_passed", [((), float(prune.passed))]
        yield "kpbackup_prune_deleted_objects", [((), prune.deleted)]
        yield "kpbackup_prune_kept_by_lock_objects", [((), prune.kept_by_lock)]
        yield "kpbackup_prune_renewed_locks", [((), prune.renewed_locks)]
