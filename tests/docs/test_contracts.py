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
            metric.type,
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
    """A deployment with a set and a segment, and an empty server to restore into."""
    directory = tmp_path_factory.mktemp("contracts")
    with (
        mariadb_server(directory / "mariadb", server_id=81) as source,
        mariadb_server(directory / "target", server_id=82) as target,
    ):
        made = deploy(directory / "deployment", source)
        made.json("backup", "full")
        order(source, "one")
        made.json("backup", "incremental")
        made.settings["recovery"] = {"target": {"host": target.host, "port": target.port, "user": "root"}}
        made.settings["encryption"]["identity_file"] = str(made.keys / "identity.txt")
        made.write()
        yield made


RESTORE = ("restore", "database", "--to", "latest")


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("status", ("status",)), ("forecast", ("forecast", "--price-per-gb", "0.02")),
        ("list", ("list",)), ("check", ("check",)), ("prune", ("prune", "--dry-run")),
        ("keys list", ("keys", "list")), ("keys canary", ("keys", "canary")), ("keys rewrap", ("keys", "rewrap")),
        ("pin, unpin", ("pin", "0001-1", "--reason", "audit")),
        ("doctor", ("doctor",)), ("backup full", ("backup", "full")), ("backup incremental", ("backup", "incremental")),
        ("restore (plan)", (*RESTORE, "--dry-run")), ("restore", (*RESTORE, "--yes")), ("recoveries", ("recoveries",)),
        ("find", ("find",)), ("version", ("version",)),
    ],
)  # fmt: skip
def test_json_documents_have_the_keys_that_are_documented(stocked: Deployment, section: str, words: tuple[str, ...]) -> None:
    assert_documented(section, stocked.json(*words))


def test_init_prints_the_document_that_is_documented(stocked: Deployment, tmp_path: Path) -> None:
    fresh = Deployment(tmp_path, {"source": stocked.settings["source"], "repository": {"url": (tmp_path / "repo").as_uri()}})
    fresh.write()
    assert_documented("init", fresh.json("init", "--keys", str(tmp_path / "keys")))


def assert_documented(section: str, found: dict[str, Any]) -> None:
    name, _, is_plan = section.partition(" (")
    text = (DOCS / "json.md").read_text(encoding="utf-8").split(f"\n## {name}\n")[1].split("\n## ")[0]
    plain, _, plan = text.partition("With `--dry-run`: the plan.")
    table = dict(re.findall(r"^\| (`.+?`) \| (.+) \|$", plan if is_plan else plain, re.MULTILINE))
    documented = {name for names in table for name in re.findall(r"`(\w+)`", names)}
    assert set(found) == documented
    for key, value in found.items():
        items = value if isinstance(value, list) else [value]
        shape = re.search(r"\{([\w, ]+)\}", next(text for names, text in table.items() if f"`{key}`" in names))
        if shape is None or not items or not isinstance(items[0], dict):
            continue
        assert set(items[0]) <= set(shape[1].split(", ")), key
