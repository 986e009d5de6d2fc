"""`kpbackup forecast` and `status` on a repository of weeks: what they draw from it, and that they draw nothing from a day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kpbackup.model import manifest
from kpbackup.pipeline import sign
from kpbackup.recovery import journal
from kpbackup.repository import binding
from kpbackup.storage import open_backend
from tests.archives import Growing
from tests.integration.deployment import Deployment

MB = 1_000_000
DAYS = 20


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """A set each night for twenty days, a hundredth more rows each time, and a recovery of the first one that took 21 minutes."""
    directory = tmp_path_factory.mktemp("forecast")
    key, start = sign.SigningKey.generate(), datetime.now(UTC) - timedelta(days=DAYS)
    made = binding.create_repository(
        open_backend(f"file://{directory}/repository"), signing_key=key, source="shop", flavour="mariadb", created_at=start
    )
    growing = Growing(
        made, start, timedelta(hours=1), totals=lambda seq: manifest.Totals(1, 1, 1, (100 + seq) * MB, (100 + seq) * MB // 10)
    )
    growing.back_up()
    growing.grow(DAYS * 24, sets_every=timedelta(days=1))
    written = journal.Journal(made, "20240501T100000Z-abc123")
    written.write("planned", {"set": "0001-1", "target": "latest"})
    written.write("step_finished", {"step": "database"})
    written.write("finished", {"recovered": "yes", "measured_rto_s": "1250"})
    found = Deployment(
        directory, {"repository": {"url": made.backend.name}, "signing": {"public_keys": [str(key.public_key)]},
                    "archive": {"continuous": True}, "objectives": {"rpo": "2h"}},
    )  # fmt: skip
    found.write()
    return found


def test_it_tells_growth_recovery_time_and_cost(grown: Deployment) -> None:
    found = grown.json("forecast", "--price-per-gb", "0.02", "--price-per-1000-puts", "0.005")
    assert (found["sets"], round(found["days"]), found["unknown"]) == (DAYS + 1, DAYS, [])
    assert found["database"]["growth_bytes_per_day"] == pytest.approx(MB, rel=0.01)
    assert found["database"]["in_30_days_bytes"] == pytest.approx(151 * MB, rel=0.01)
    assert found["binlog"]["raw_bytes_per_day"] == pytest.approx(24_000, rel=0.05)
    rto = found["rto"]
    assert rto["measured"] == {"run": "20240501T100000Z-abc123", "kind": "restore", "seconds": 1250.0, "set": "0001-1"}
    assert rto["in_30_days_seconds"] == pytest.approx(1250 * 151 / 101, rel=0.01)
    exceeded, at = (datetime.fromisoformat(text) for text in (rto["exceeded_at"], found["at"]))
    assert (exceeded - at) / timedelta(days=1) == pytest.approx((1800 - 1250 * 121 / 101) / (1250 / 101), rel=0.05)
    assert found["cost"]["now_per_month"] == pytest.approx(found["repository"]["now_bytes"] / 1e9 * 0.02, abs=0.02)
    text = grown.run("forecast").stdout
    assert "a recovery takes longer than the promised 30m from " in text and "cost" not in text
    assert grown.run("forecast", "--price-per-gb", "cheap").returncode == 11


def test_status_warns_a_month_before_and_not_earlier(grown: Deployment) -> None:
    assert "takes longer than the promised" in "".join(one["text"] for one in grown.json("status", code=1)["reasons"])
    (reason,) = [one for one in grown.json("--set", "objectives.rto=40m", "status", code=1)["reasons"] if one["level"] != "ok"]
    assert "nothing was ever checked" in reason["text"]


def test_too_little_is_said(tmp_path: Path) -> None:
    key, start = sign.SigningKey.generate(), datetime.now(UTC) - timedelta(hours=3)
    made = binding.create_repository(
        open_backend(f"file://{tmp_path}/repository"), signing_key=key, source="shop", flavour="mariadb", created_at=start
    )
    growing = Growing(made, start, timedelta(hours=1))
    growing.back_up()
    growing.grow(2)
    found = Deployment(tmp_path, {"repository": {"url": made.backend.name}, "signing": {"public_keys": [str(key.public_key)]}})
    found.write()
    said = found.json("forecast")
    assert said["database"]["in_30_days_bytes"] is None and said["binlog"] is None and said["rto"] is None
    text = found.run("forecast").stdout
    assert "unknown: growth: 1 backup set over 0s" in text and "unknown: recovery time: none was measured yet" in text
