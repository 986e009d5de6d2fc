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


@dataclass(frozen=True)
class Limits:
    """From which age on `status` complains."""

    canary: timedelta = timedelta(days=40)


@dataclass(frozen=True)
class Canary:
    """What the canaries of one recipient say: its key has opened the one made at `proven_at`; None when never one."""

    recipient: str
    first_at: datetime
    newest_at: datetime
    proven_at: datetime | None


@dataclass(frozen=True)
class Trust:
    """All of it, at one moment."""

    limits: Limits = Limits()
    canaries: tuple[Canary, ...] = ()
    heads: tuple[tuple[str, int], ...] = ()  # ("0001/segments", 120)
    regressed: str = ""


def judge(trust: Trust, now: datetime) -> Iterator[Judgement]:
    """What is not as it should be."""
    if trust.regressed:
        yield (
            "critical",
            f"the store shows less than it did: {trust.regressed}: newest entries were removed, or it serves an older state",
        )
    for one in trust.canaries:
        since = one.proven_at or one.first_at
        if now - since > trust.limits.canary:
            told = f"for {quantities.format_duration(now - since)}" if one.proven_at else "ever"
            yield (
                "warning",
                f"the key of {one.recipient}... has not proven {told} that it opens a canary: "
                "run `kpbackup keys canary --check` where it is",
            )


def samples(trust: Trust) -> Iterator[tuple[str, list[tuple[tuple[str, ...], float]]]]:
    """Metric name -> (labels beside `source`, value)."""
    yield "kpbackup_head_sequence", [((*log.split("/"),), seq) for log, seq in trust.heads]
    yield "kpbackup_head_regressed", [((), float(bool(trust.regressed)))]
    yield (
        "kpbackup_canary_last_success_timestamp_seconds",
        [((one.recipient,), one.proven_at.timestamp()) for one in trust.canaries if one.proven_at is not None],
    )
