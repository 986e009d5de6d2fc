"""The application bundle: what is found, that it is sealed, and when a new one is made."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kpbackup import errors
from kpbackup.backup.application import run_application
from kpbackup.kubernetes import helm, release
from kpbackup.kubernetes.client import Access
from kpbackup.plan import retention, schedule
from kpbackup.repository import applications
from kpbackup.repository import catalog as catalogs
from kpbackup.service import opening, reading
from tests.integration.deployment import Deployment, deploy, until
from tests.servers.kubernetes import validation
from tests.servers.kubernetes.access import rule
from tests.servers.kubernetes.cluster import Cluster, kubernetes_cluster
from tests.servers.mariadb import mariadb_server

CHART = Path(__file__).resolve().parents[1] / "servers" / "charts" / "kubepolaris"
MARKER = "KPDEMO-SECRET"
HOSTS = [{"host": "kp.example.net", "paths": [{"path": "/", "pathType": "Prefix", "backend": "frontend"}]}]
VALUES = {
    "mysql": {"internal": {"password": f"{MARKER}-db", "persistence": {"enabled": True}}},
    "security": {"jwtSecret": f"{MARKER}-jwt"}, "backend": {"image": {"tag": "v1.0.5"}},
    "global": {"imagePullSecrets": [{"name": "registry"}]},
    "ingress": {
        "enabled": True, "annotations": {"nginx.ingress.kubernetes.io/affinity": "cookie"}, "hosts": HOSTS,
        "tls": [{"secretName": "kubepolaris-tls", "hosts": ["kp.example.net"]}],
    },
}


def packed_chart() -> bytes:
    files = {str(path.relative_to(CHART)): path.read_bytes() for path in CHART.rglob("*") if path.is_file()}
    return release._packed("kubepolaris", files)


def secret(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def tls_secret(name: str) -> dict[str, Any]:
    return {**secret(name, **{"tls.crt": f"{MARKER}-crt", "tls.key": f"{MARKER}-key"}), "type": "kubernetes.io/tls"}


TOKENS = {"admin": (rule("*", "*"),), "blind": (rule("get list", "secrets configmaps"),)}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with a release of the chart in the namespace `kubepolaris`."""
    with kubernetes_cluster(tokens=TOKENS, check=validation.check) as running:
        running.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kubepolaris"}})
        running.create(tls_secret("kubepolaris-tls"), namespace="kubepolaris")
        running.create(secret("unrelated", k="v"), namespace="kubepolaris")
        access = Access("kubepolaris", str(running.write_kubeconfig(tmp_path_factory.mktemp("k") / "kubeconfig")))
        helm.Library().install(access, helm.Installation("kubepolaris", "kubepolaris", packed_chart(), VALUES, 60))
        yield running


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Iterator[Deployment]:
    directory = tmp_path_factory.mktemp("application")
    with mariadb_server(directory / "mariadb", server_id=61) as source:
        made = deploy(directory / "deployment", source)
        config = cluster.write_kubeconfig(directory / "kubeconfig")
        made.settings["application"] = {"kubeconfig": str(config), "namespace": "kubepolaris", "release": "kubepolaris"}
        made.settings["encryption"]["identity_file"] = str(made.keys / "identity.txt")
        made.write()
        yield made


def bundle(made: Deployment) -> Any:
    repository = made.open()
    newest = applications.newest(repository)
    assert newest is not None
    return applications.read_bundle(repository, newest, opening.identities(made.load()))


def test_a_bundle_goes_with_every_full_backup(made: Deployment) -> None:
    before = len(applications.all_manifests(made.open()))
    answers = [made.json("backup", "full")["application"] for _ in range(2)]
    assert answers == [str(before + 1), str(before + 2)]
    found = bundle(made)
    names = {f"{one['kind']}/{one['metadata']['name']}" for one in found.objects}
    assert {
        "Secret/kubepolaris-secrets", "Secret/kubepolaris-mysql", "Secret/kubepolaris-tls",
        "ConfigMap/kubepolaris-frontend-nginx",
        "Deployment/kubepolaris-backend", "StatefulSet/kubepolaris-mysql", "Service/kubepolaris-frontend", "Ingress/kubepolaris",
    } <= names
    assert "Secret/unrelated" not in names
    assert not any(name.startswith("Secret/sh.helm") for name in names)
    (warning,) = found.warnings
    assert warning == "Secret/registry, which Deployment/kubepolaris-backend refers to, is not there"
    assert found.images["Deployment/kubepolaris-backend/backend"] == "kubepolaris/backend:v1.0.5"
    assert (found.chart, found.namespace, found.release) == ("kubepolaris-1.0.5", "kubepolaris", "kubepolaris")
    assert release.read(found.record).values == VALUES
    assert len(found.schema_fingerprint) == 64
    assert all("resourceVersion" not in one["metadata"] and "status" not in one for one in found.objects)


def test_nothing_of_it_is_readable(made: Deployment, cluster: Cluster) -> None:
    made.json("backup", "application")
    repository = made.open()
    newest = applications.newest(repository)
    assert newest is not None
    data = repository.backend.read(newest.head.key)
    wanted = (MARKER, base64.b64encode(MARKER.encode()).decode()[:16], "kubepolaris-mysql", "kp.example.net")
    assert [text for text in wanted if text.encode() in data] == []


def test_only_changes_are_kept_in_between(made: Deployment, cluster: Cluster) -> None:
    """What the daemon does every few minutes: a restart, a scrape of nothing new, then a changed Secret."""
    request = opening.application_request(made.load())
    assert request is not None
    made.json("backup", "application")
    assert run_application(made.open(), request, unless_unchanged=True) is None
    restless = {"metadata": {"annotations": {"deployment.kubernetes.io/revision": "7"}}}
    cluster.patch("Deployment", "kubepolaris", "kubepolaris-backend", restless)
    assert run_application(made.open(), request, unless_unchanged=True) is None
    changed = base64.b64encode(b"KPDEMO-SECRET-rotated").decode()
    cluster.patch("Secret", "kubepolaris", "kubepolaris-secrets", {"data": {"jwt-secret": changed}})
    kept = run_application(made.open(), request, unless_unchanged=True)
    assert kept is not None
    assert bundle(made).find("Secret", "kubepolaris-secrets")["data"] == {"jwt-secret": changed}
    assert run_application(made.open(), request, unless_unchanged=True) is None
    cluster.patch("ConfigMap", "kubepolaris", "kubepolaris-frontend-nginx", {"data": {"more.conf": "return 200;"}})
    assert run_application(made.open(), request, unless_unchanged=True) is not None
    assert bundle(made).find("ConfigMap", "kubepolaris-frontend-nginx")["data"]["more.conf"] == "return 200;"
    access = Access("kubepolaris", str(made.settings["application"]["kubeconfig"]))
    values = {**VALUES, "backend": {"image": {"tag": "v1.0.6"}}}
    helm.Library().install(access, helm.Installation("kubepolaris", "kubepolaris", packed_chart(), values, 60))
    assert run_application(made.open(), request, unless_unchanged=True) is not None
    assert bundle(made).images["Deployment/kubepolaris-backend/backend"].endswith(":v1.0.6")
    assert run_application(made.open(), request, unless_unchanged=True) is None


def test_the_daemon_looks_every_five_minutes_at_the_latest(made: Deployment) -> None:
    """Between two looks lies what is kept within five minutes; after a failure it looks again no later than that."""
    timing, now = reading.timings(made.load())["application"], datetime(2026, 5, 1, 12, tzinfo=UTC)

    def looks(ago: timedelta, failures: int = 0) -> bool:
        tried = schedule.Attempts(last_started=now - ago, last_ended=now - ago, failures=failures)
        return schedule.due_now("application", timing, tried, now=now, last_success=None) is not None

    assert looks(timedelta(minutes=5)) and not looks(timedelta(minutes=1))
    assert all(looks(timedelta(minutes=5), failures) for failures in (1, 2, 9))


def test_the_bundle_in_force(made: Deployment) -> None:
    manifests = applications.all_manifests(made.open())
    assert len(manifests) > 1
    assert applications.in_force(manifests, datetime.now(UTC)) == manifests[-1]
    assert applications.in_force(manifests, manifests[1].taken_at) == manifests[1]
    assert applications.in_force(manifests, datetime(2001, 1, 1, tzinfo=UTC)) == manifests[0]
    assert applications.in_force([], datetime.now(UTC)) is None


def test_the_daemon_keeps_it(made: Deployment, cluster: Cluster, tmp_path: Path) -> None:
    made.json("backup", "full")
    before = len(applications.all_manifests(made.open()))
    changed = base64.b64encode(b"KPDEMO-SECRET-again").decode()
    cluster.patch("Secret", "kubepolaris", "kubepolaris-secrets", {"data": {"jwt-secret": changed}})
    daemon = made.start("--log-format", "json", "daemon", log=tmp_path / "log")

    def kept() -> list[str]:
        lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [line["bundle"] for line in lines if line["event"] == "job_finished" and line["kind"] == "application"]

    try:
        until(lambda: len(applications.all_manifests(made.open())) > before, what="a bundle")
        until(kept, what="the end of the job that made it")  # or the signal would come before its last writes
    finally:
        daemon.terminate()
        daemon.wait(120)
    assert MARKER not in (tmp_path / "log").read_text()


def test_what_is_wrong_is_said(made: Deployment, cluster: Cluster, tmp_path: Path) -> None:
    settings = dict(made.settings["application"])

    def refused(code: int, **changed: Any) -> str:
        made.settings["application"] = {**settings, **changed}
        made.write()
        ended = made.run("backup", "application")
        assert ended.returncode == code, ended.stderr
        assert "\nhint: " in ended.stderr
        return ended.stderr

    try:
        assert "there is no release other" in refused(32, release="other")
        assert "has no Secret nowhere in kubepolaris" in refused(32, secrets=["nowhere"])
        blind = cluster.write_kubeconfig(tmp_path / "blind", token="blind")
        assert "serviceaccounts" in refused(13, kubeconfig=str(blind))
        made.settings["application"] = settings
        made.write()
        text = Path(settings["kubeconfig"]).read_text()
        away = tmp_path / "away"
        away.write_text(text.replace(cluster.url, "https://127.0.0.1:9"))
        made.settings["application"] = {**settings, "kubeconfig": str(away)}
        made.write()
        ended = made.run("backup", "full")
        assert ended.returncode == 32
        assert "is stored, but the application beside it could not be kept" in ended.stderr
    finally:
        made.settings["application"] = settings
        made.write()


def test_a_damaged_bundle_is_not_believed(made: Deployment) -> None:
    made.json("backup", "application")
    repository = made.open()
    newest = applications.newest(repository)
    assert newest is not None
    path = made.store / newest.head.key
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    with pytest.raises(errors.IntegrityError, match="is damaged"):
        applications.read_bundle(repository, newest, opening.identities(made.load()))
    assert [one["key"] for one in made.json("check", code=17)["problems"]] == [newest.head.key]
    data[-40] ^= 1
    path.write_bytes(data)
    assert made.json("check")["intact"]


def test_bundles_are_pruned_with_the_sets_they_belong_to(made: Deployment) -> None:
    made.json("backup", "full")
    bundles, catalog = applications.all_manifests(made.open()), catalogs.read_catalog(made.open())
    sets = [one for history in catalog.histories for one in history.sets]
    grace = retention.Policy(grace_period=timedelta())
    keep_all = retention.PrunePlan((), (), ())
    only_last = retention.PrunePlan((), tuple(sets[:-1]), ())
    needed = [one for one in bundles if one.taken_at > sets[0].clock]
    kept = [one for one in bundles if one not in retention.plan_bundles(bundles, catalog, keep_all, grace).release]
    assert kept[-len(needed) :] == needed
    planned = retention.plan_bundles(bundles, catalog, only_last, grace)
    assert list(planned.release) == [one for one in bundles if one.taken_at <= sets[-1].clock][:-1]
    assert len(planned.release) >= 2
    assert applications.delete(made.open(), planned.release) == 2 * len(planned.release)
    assert applications.all_manifests(made.open()) == [one for one in bundles if one not in planned.release]
    assert made.json("check")["intact"]
    assert any("application bundle" in one["what"] for one in made.json("prune", "--dry-run")["decisions"])
