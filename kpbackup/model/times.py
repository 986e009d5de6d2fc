"""Moments as people type and read them: the text of `--to`, and a moment shown in two zones.

Pure: the present is passed in. A local time that a clock change skips or repeats is refused, not
guessed, because a restore an hour off is a wrong restore.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo

from kpbackup import errors, quantities

EXAMPLES = "2024-05-01T10:00, '2024-05-01 10:00:30', 2024-05-01T10:00:30.5Z, 2024-05-01T10:00+02:00, or -15m: 15 minutes ago"

_MOMENT = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})[T ](?P<time>\d{2}:\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"\s?(?P<offset>Z|[+-]\d{2}:?\d{2})?",
    re.IGNORECASE | re.ASCII,
)


def parse_moment(text: str, zone: tzinfo, *, now: datetime) -> datetime:
    """The moment a text names, as aware UTC to the microsecond (further digits are cut off).

    A text without offset is a wall-clock time in `zone`; `-15m` counts back from `now`.

    Raises:
        UsageError: nonsense, a date that does not exist, or a local time that a clock change skips or repeats.
    """
    stripped = text.strip()
    if stripped.startswith("-"):
        return _ago(stripped, now)
    match = _MOMENT.fullmatch(stripped)
    if not match:
        raise _nonsense(text, "it is not a date and time")
    fraction = (match["fraction"] or "").ljust(6, "0")[:6]
    try:
        wall = datetime.fromisoformat(f"{match['date']}T{match['time']}:{match['second'] or '00'}.{fraction}")
        if match["offset"]:
            offset = match["offset"].upper().replace("Z", "+00:00")
            return datetime.fromisoformat(f"{wall.isoformat()}{offset}").astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise _nonsense(text, str(exc)) from exc
    return _from_wall_clock(wall, zone, text=text)


def _ago(text: str, now: datetime) -> datetime:
    try:
        return now.astimezone(UTC) - quantities.parse_duration(text[1:])
    except (ValueError, OverflowError) as exc:
        raise _nonsense(text, "after '-' there must be a duration such as 15m or 1h30m") from exc


def _from_wall_clock(wall: datetime, zone: tzinfo, *, text: str) -> datetime:
    try:
        readings = {wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
        possible = sorted(moment for moment in readings if moment.astimezone(zone).replace(tzinfo=None, fold=0) == wall)
    except OverflowError as exc:
        raise _nonsense(text, "the year is out of range") from exc
    if len(possible) == 1:
        return possible[0]
    happened = "happens twice" if possible else "never happens"
    near = " or ".join(utc_text(moment) for moment in (possible or sorted(readings)))
    raise errors.UsageError(
        f"cannot read {text!r} as a moment: the clock change in {zone} makes that local time one that {happened}",
        hint=f"give it with an offset or in UTC, for example {near}",
    )


def format_moment(moment: datetime, zone: tzinfo) -> str:
    """`2024-05-01T10:00:00Z (12:00:00 Europe/Berlin)`: the date is repeated where it differs; UTC alone when that is the zone."""
    utc, local = (moment.astimezone(place).replace(tzinfo=None) for place in (UTC, zone))
    if str(zone) in ("UTC", "Etc/UTC"):
        return utc_text(moment)
    wall = local.isoformat(sep=" ") if local.date() != utc.date() else local.time().isoformat()
    return f"{utc_text(moment)} ({wall.rstrip('0') if '.' in wall else wall} {zone})"


def utc_text(moment: datetime) -> str:
    """RFC 3339 with Z; seconds always, a fraction only when there is one."""
    shown = moment.astimezone(UTC).replace(tzinfo=None).isoformat()
    return shown.rstrip("0") + "Z" if "." in shown else shown + "Z"


def _nonsense(text: str, why: str) -> errors.UsageError:
    return errors.UsageError(f"cannot read {text!r} as a moment: {why}", hint=f"write {EXAMPLES}")
