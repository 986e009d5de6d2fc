"""The chart's rules in a real Prometheus with a real Alertmanager: the archive is stalled, its alert fires alone, and clears."""

from __future__ import annotations

from pathlib import Path

from tests.chart import rendering
from tests.integration.deployment import deploy, order, until
from tests.integration.test_daemon import NEVER, running
from tests.servers.database import Server
from tests.servers.prometheus import monitoring
from tests.servers.s3 import s3_server

QUICK = {
    "metrics": {
        "prometheusRule": {
            "enabled": True, "kubernetes": False, "selector": 'job="kpbackup"', "stalledSeconds": 1,
            "forDuration": {"urgent": "1s", "soon": "10m", "slow": "10m"},
        }
    }
}  # fmt: skip


def test_a_stalled_archive_is_told_and_its_end_too(tmp_path: Path, mariadb: Server) -> None:
    rules = rendering.one(rendering.objects(rendering.base(QUICK)), "PrometheusRule")["spec"]
    with s3_server(tmp_path / "s3") as store:
        store.create_bucket("kpb-stalled")
        place = {"url": "s3://kpb-stalled/shop", "endpoint_url": store.endpoint_url}
        made = deploy(tmp_path / "deployment", mariadb, environ=store.environ(), **place)
        made.json("backup", "full")
        archive = {"continuous": True, "interval": "1s"}
        with (
            running(made, schedule={"full": NEVER, "incremental": NEVER}, archive=archive) as daemon,
            monitoring(tmp_path / "monitoring", rules=rules, target=f"127.0.0.1:{daemon.port}") as watched,
        ):
            until(lambda: daemon.metric("kpbackup_archive_following") == 1, what="the archive to follow")
            until(lambda: watched.targets() == ["up"], what="Prometheus to scrape it")
            until(lambda: watched.query("source:kpbackup_achieved_rpo_seconds:min"), what="a recording rule")
            assert watched.alerts() == set()
            store.kill()
            order(mariadb, "while the store is away")
            until(watched.alerts, what="an alert", timeout_s=120)
            assert watched.alerts() == {"KpbackupArchiveStalled"}
            store.restart()
            until(lambda: not watched.alerts(), what="the alert to clear", timeout_s=120)
            daemon.stop()
