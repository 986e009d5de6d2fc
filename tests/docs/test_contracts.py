"""The contracts that programs read: metrics and JSON documents are written down as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kpbackup.service.metrics import METRICS
from tests.integration.deployment import Deployment, deploy, order
from tests.servers.mariadb import mariadb_server

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    rows = re.findall(
        r"^\| `(kpbackup_\w+)` \| (\w+) \| (.+?) \| (.+?) \|$", (DOCS / "metrics.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    documented = {name: (kind, labels, meaning) for name, kind, labels, meaning in rows}
    assert documented == {
        name: (
            "counter" if metric.counter else "gauge",
            ", ".join(f"`{label}`" for label in ("source", *metric.labels)),
            metric.help,
        )
        for name, metric in METRICS.items()
    }


PROMISED = (
    "recovery_point_timestamp_seconds achieved_rpo_seconds last_success_timestamp_seconds job_failures_total chain_intact "
    "source_up measured_rto_seconds drill_last_success_timestamp_seconds certificate_expiry_timestamp_seconds"
)


@pytest.mark.parametrize("name", PROMISED.split())
def test_promised_names_stay(name: str) -> None:
    assert f"kpbackup_{name}" in METRICS


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    directory = tmp_path_factory.mktemp("contracts")
    with mariadb_server(directory / "mariadb", server_id=81) as source:
        made = deploy(directory / "deployment", source)
        made.json("backup", "full")
        order(source, "one")
        made.json("backup", "incremental")
        yield made


@pytest.mark.parametrize("words", [("status",), ("list",), ("check",), ("prune", "--dry-run"), ("doctor",)])
def test_json_documents_have_the_keys_that_are_documented(stocked: Deployment, words: tuple[str, ...]) -> None:
    section = (DOCS / "json.md").read_text(encoding="utf-8").split(f"\n## {words[0]}\n")[1].split("\n## ")[0]
    table = dict(re.findall(r"^\| (`.+?`) \| (.+) \|$", section, re.MULTILINE))
    documented = {name for names in table for name in re.findall(r"`(\w+)`", names)}
    found = stocked.json(*words)
    assert set(found) == documented
    for name, value in found.items():
        items = value if isinstance(value, list) else [value]
        shape = re.search(r"\{([\w, ]+)\}", next(text for names, text in table.items() if f"`{name}`" in names))
        if shape is None or not items or not isinstance(items[0], dict):
            continue
        assert set(_inner(items[0])) <= set(shape[1].split(", ")), name


def _inner(value: dict[str, Any]) -> list[str]:
    return list(value)
