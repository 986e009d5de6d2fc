"""Prices of the store, for `kpbackup forecast`."""

from __future__ import annotations

from kpbackup.config import values
from kpbackup.config.groups import Group


class ForecastSettings(Group):
    """What the store takes, in whichever currency; `kpbackup forecast`, the page and the metrics tell the cost from it."""

    price_per_gb: values.Price | None = None
    """Price of a gigabyte (10^9 bytes) for a month. Unset: the cost is not told."""

    price_per_1000_puts: values.Price | None = None
    """Price of a thousand PUT requests. Unset: requests cost nothing, as with most stores of one's own."""
