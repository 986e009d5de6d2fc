"""`kpbackup doctor --checklist` against a release in a cluster: carelessly installed, mended, and seen with few rights."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kpbackup.kubernetes import availability, helm
from kpbackup.kubernetes.client import Access
from tests.integration.deployment import Deployment, deploy
from tests.integration.test_application import HOSTS, packed_chart
from tests.servers.kubernetes.access import rule
from tests.servers.kubernetes.cluster import Cluster, kubernetes_cluster
from tests.servers.kubernetes.resources import RESOURCES
from tests.servers.mariadb import mariadb_server

NAMESPACE = "kubepolaris"
AREAS = {*availability.ITEMS, "backup policy", "alerts"}
VALUES = {
    "mysql": {"internal": {"password": "p", "persistence": {"enabled": False}}}, "security": {"jwtSecret": "j"},
    "ingress": {"enabled": True, "hosts": HOSTS, "tls": [{"secretName": "web-tls", "hosts": ["kp.example.net"]}]},
}
PROBES = {name: {"httpGet": {"path": "/readyz", "port": 8080}} for name in ("readinessProbe", "livenessProbe")}
LABELS = {"app.kubernetes.io/instance": "kubepolaris", "app.kubernetes.io/component": "backend"}
APART = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": LABELS}}
BUDGET = {
    "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "backend"},
    "spec": {"maxUnavailable": 1, "selector": {"matchLabels": LABELS}},
}
RULES = {
    "apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": {"name": "kpbackup"},
    "spec": {"groups": [{"name": "kpbackup", "rules": [{"alert": "KpbackupDown", "expr": "kpbackup_source_up == 0"}]}]},
}
TOKENS = {
    "admin": (rule("*", "*"),),
    "half": (rule("get list", "deployments statefulsets horizontalpodautoscalers services ingresses"),),
    "namespaced": (rule("get list", "*", NAMESPACE),),
    "none": (),
}


def certificate(until: datetime) -> str:
    """A self-signed one, base64 as a Secret holds it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, until - timedelta(days=90), until).sign(key, hashes.SHA256())
    return base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with kubernetes_cluster(tokens=TOKENS) as running:
        running.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        yield running


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Iterator[Deployment]:
    directory = tmp_path_factory.mktemp("checklist")
    config = cluster.write_kubeconfig(directory / "kubeconfig")
    helm.Library().install(
        Access(NAMESPACE, str(config)), helm.Installation("kubepolaris", NAMESPACE, packed_chart(), VALUES, 60)
    )
    with mariadb_server(directory / "mariadb", server_id=62) as source:
        made = deploy(directory / "deployment", source)
        made.settings["application"] = {"kubeconfig": str(config), "namespace": NAMESPACE, "release": "kubepolaris"}
        made.write()
        yield made


def walk(made: Deployment, *options: str, code: int = 0) -> dict[tuple[str, str], list[str]]:
    """(area, severity) -> what was found; every area must have an answer, and every warning a way to mend it."""
    document = made.json(*options, "doctor", "--checklist", code=code)
    found: dict[tuple[str, str], list[str]] = {}
    for one in document["findings"]:
        assert one["severity"] in ("ok", "unknown") or one["mend"], one
        found.setdefault((one["area"], one["severity"]), []).append(one["what"])
    assert {area for area, _ in found} == AREAS
    assert document["healthy"] is (code == 0)
    return found


def state_of(cluster: Cluster) -> set[tuple[str, str, str]]:
    """Every object with its version."""
    stored = [(one.kind, found) for one in RESOURCES if one.is_stored for found in cluster.list(one.kind)]
    return {(kind, found["metadata"]["name"], found["metadata"]["resourceVersion"]) for kind, found in stored}


def test_a_careless_install(made: Deployment, cluster: Cluster) -> None:
    before = state_of(cluster)
    found = walk(made, code=29)
    assert found["replicas", "ok"] == ["Deployment/kubepolaris-backend has 2 replicas ready"]
    assert found["replicas", "warning"] == ["Deployment/kubepolaris-frontend has 1 replica"]
    assert "nothing keeps the pods of Deployment/kubepolaris-backend on different nodes" in found["anti-affinity", "warning"]
    assert found["database", "error"] == ["StatefulSet/kubepolaris-mysql keeps the database in an emptyDir"]
    assert found["database", "warning"] == ["the database StatefulSet/kubepolaris-mysql is one pod"]
    assert found["load balancer", "unknown"] == ["Ingress/kubepolaris leads to it; its address could not be seen"]
    assert found["TLS", "error"] == ["the Secret web-tls, which Ingress/kubepolaris takes its certificate from, is not there"]
    lacking = "Deployment/kubepolaris-backend: backend has no readinessProbe, backend has no livenessProbe"
    assert lacking in found["probes", "warning"]
    assert found["disruption budget", "warning"] == ["no PodDisruptionBudget protects Deployment/kubepolaris-backend"]
    assert "there is one repository alone" in found["backup policy", "warning"]
    assert "no drill has passed yet" in found["backup policy", "warning"]
    assert found["alerts", "warning"] == ["no PrometheusRule has an alert on kpbackup"]
    assert state_of(cluster) == before
    text = made.run("doctor", "--checklist").stdout
    assert "warning  disruption budget: no PodDisruptionBudget" in text and "mend: make one with maxUnavailable: 1" in text


def test_mended(made: Deployment, cluster: Cluster) -> None:
    backend = {
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [APART]}},
        "containers": [{"name": "backend", "image": "kubepolaris/backend:v1", **PROBES}],
    }
    cluster.patch("Deployment", NAMESPACE, "kubepolaris-backend", {"spec": {"template": {"spec": backend}}})
    volumes = {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}
    cluster.patch("StatefulSet", NAMESPACE, "kubepolaris-mysql", {"spec": {"template": {"spec": volumes}}})
    cluster.create(BUDGET, namespace=NAMESPACE)
    content = {"tls.crt": certificate(datetime.now(UTC) + timedelta(days=60)), "tls.key": ""}
    secret: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "web-tls"}, "data": content}
    cluster.create(secret, namespace=NAMESPACE)
    address = {"status": {"loadBalancer": {"ingress": [{"hostname": "lb.example.net"}]}}}
    cluster.patch("Ingress", NAMESPACE, "kubepolaris", address)
    cluster.create(RULES, namespace="default")
    made.settings["copies"] = [{"name": "offsite", "url": (made.directory / "copy").as_uri()}]
    made.write()
    made.json("backup", "full")
    found = walk(made)
    assert any("backend spreads its pods over kubernetes.io/hostname" in what for what in found["anti-affinity", "ok"])
    assert not any(severity == "error" for _, severity in found)
    assert found["load balancer", "ok"] == ["Ingress/kubepolaris leads users to it at lb.example.net"]
    assert [what.startswith("the certificate in Secret web-tls is valid until ") for what in found["TLS", "ok"]] == [True]
    assert "every container of Deployment/kubepolaris-backend has its probes" in found["probes", "ok"]
    assert found["disruption budget", "ok"] == ["PodDisruptionBudget backend protects Deployment/kubepolaris-backend"]
    assert ("disruption budget", "warning") not in found
    assert found["alerts", "ok"][0].startswith("1 alerts on kpbackup")
    soon = {"data": {"tls.crt": certificate(datetime.now(UTC) + timedelta(days=20))}}
    cluster.patch("Secret", NAMESPACE, "web-tls", soon)
    assert ("TLS", "warning") in walk(made)
    cluster.patch("PodDisruptionBudget", NAMESPACE, "backend", {"spec": {"maxUnavailable": 0}})
    assert walk(made)["disruption budget", "warning"] == [
        "PodDisruptionBudget backend lets no pod of Deployment/kubepolaris-backend go"
    ]


@pytest.mark.parametrize("token", ["half", "namespaced", "none"])
def test_what_may_not_be_read_is_said(made: Deployment, cluster: Cluster, token: str, tmp_path: Path) -> None:
    config = cluster.write_kubeconfig(tmp_path / "kubeconfig", token=token)
    found = walk(made, "--set", f"application.kubeconfig={config}")
    if token == "none":
        hidden = {area for area, severity in found if severity == "unknown"}
        assert hidden >= AREAS - {"backup policy"}
        assert not any(area in availability.ITEMS for area, severity in found if severity != "unknown")
    if token == "half":
        assert found["replicas", "ok"]
        assert ["cannot list poddisruptionbudgets" in what for what in found["disruption budget", "unknown"]] == [True]
        assert "cannot read Secret web-tls" in found["TLS", "unknown"][0]
    if token == "namespaced":
        assert found["alerts", "unknown"] == [
            "the application's namespace has no alert on kpbackup; other namespaces could not be seen"
        ]


def test_without_an_application_or_a_cluster(made: Deployment, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("{}")
    found = walk(made, "--set", f"application.kubeconfig={broken}")
    assert all(area in ("backup policy",) for area, severity in found if severity != "unknown")
    application = made.settings.pop("application")
    made.write()
    try:
        found = walk(made)
        assert found["replicas", "unknown"] == ["could not be seen: the settings name no application"]
        both = made.run("doctor", "--checklist", "--as-attacker")
        assert (both.returncode, "two examinations" in both.stderr) == (10, True)
    finally:
        made.settings["application"] = application
        made.write()
