"""`kpbackup forecast`: how database, binlog and repository grow, until when the RTO holds, what a month costs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kpbackup.cli import context, render

if TYPE_CHECKING:
    from kpbackup.plan.forecast import Forecast, Growing, Rto

AHEAD = {"now": timedelta(), "in_30_days": timedelta(days=30), "in_365_days": timedelta(days=365)}

PerGb = Annotated[
    str | None, typer.Option("--price-per-gb", metavar="PRICE", help="Of a gigabyte for a month; else forecast.price_per_gb.")
]
PerPuts = Annotated[
    str | None,
    typer.Option("--price-per-1000-puts", metavar="PRICE", help="Of 1,000 PUT requests; else forecast.price_per_1000_puts."),
]


def forecast(
    ctx: typer.Context, json: context.JsonOption = False, price_per_gb: PerGb = None, price_per_1000_puts: PerPuts = None
) -> None:
    """Tell from what is stored how database, binlog and repository grow, how long a recovery will take, when that passes the
    objective, and what a month costs.

    Growth is drawn from at least three backup sets over at least a week, the binlog from at least a day, the recovery time from
    the newest measured recoveries and drills. What cannot be told is named, with what is missing. Only the repository is read.
    """
    from kpbackup.service import forecast_text, opening, reading

    room = context.of(ctx, json=json)
    room.override("forecast.price_per_gb", price_per_gb)
    room.override("forecast.price_per_1000_puts", price_per_1000_puts)
    state = reading.Reader(opening.reading_repository(room.settings)).read()
    found = reading.forecast(room.settings, state, now=datetime.now(UTC))
    told = forecast_text.told(found, room.settings.zone)
    room.printer.show(
        document(found),
        forecast_text.basis(found) + "\n",
        render.Table(forecast_text.COLUMNS, forecast_text.rows(found), right=frozenset(forecast_text.COLUMNS[1:4])),
        *([f"\n{told}"] if told else []),
        *(f"unknown: {one}" for one in found.unknown),
    )


def document(found: Forecast) -> dict[str, Any]:
    """The JSON document: docs/json.md."""
    binlog, stored, rto = found.binlog, found.repository, found.rto
    return {
        "at": found.at,
        "sets": found.sets,
        "days": round(found.span / timedelta(days=1), 3),
        "database": _growing(found.database) if found.database is not None else None,
        "binlog": {
            "raw_bytes_per_day": round(binlog.raw_per_day),
            "stored_bytes_per_day": round(binlog.stored_per_day),
            "days": round(binlog.days, 3),
        }
        if binlog is not None
        else None,
        "repository": {
            "stored_bytes_per_day": _rounded(stored.stored_per_day),
            **{f"{name}_bytes": _rounded(stored.at(ahead)) for name, ahead in AHEAD.items()},
        },
        "rto": _rto(rto) if rto is not None else None,
        "cost": {
            "price_per_gb": found.prices.per_gb_month,
            "price_per_1000_puts": found.prices.per_1000_puts,
            "puts_per_month": _rounded(found.puts_per_month),
            **{f"{name}_per_month": _rounded(found.cost_per_month(ahead), 2) for name, ahead in AHEAD.items()},
        },
        "unknown": list(found.unknown),
    }


def _growing(size: Growing) -> dict[str, Any]:
    return {
        "growth_bytes_per_day": _rounded(size.per_day),
        **{f"{name}_bytes": _rounded(size.at(ahead)) for name, ahead in AHEAD.items()},
    }


def _rto(rto: Rto) -> dict[str, Any]:
    one = rto.measured
    return {
        "objective_seconds": rto.objective,
        "measured": {"run": one.run, "kind": one.kind, "seconds": one.seconds, "set": one.backup_set},
        **{f"{name}_seconds": _rounded(rto.time.at(ahead), 1) for name, ahead in AHEAD.items()},
        "exceeded_at": rto.exceeded_at,
    }


def _rounded(value: float | None, digits: int | None = None) -> float | None:
    return round(value, digits) if value is not None else None
