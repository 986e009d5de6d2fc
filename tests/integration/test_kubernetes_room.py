"""The Kubernetes client, Helm's engine and Helm's records, against the test-only API server."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kpbackup import errors
from kpbackup.kubernetes import client, helm, objects, release
from kpbackup.kubernetes.kinds import CONFIG_MAP, DEPLOYMENT, SECRET, Kind
from tests.servers.kubernetes import validation
from tests.servers.kubernetes.access import rule
from tests.servers.kubernetes.cluster import Cluster, kubernetes_cluster
from tests.unit.test_fake_kubernetes import DEPLOYMENT as WEB

CHART = Path(__file__).resolve().parents[1] / "servers" / "charts" / "kubepolaris"
TOKENS = {"admin": (rule("*", "*"),), "reader": (rule("get list", "secrets", "default"),)}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with kubernetes_cluster(tokens=TOKENS, check=validation.check) as running:
        yield running


@pytest.fixture
def access(cluster: Cluster, tmp_path: Path) -> client.Access:
    return client.Access("default", str(cluster.write_kubeconfig(tmp_path / "kubeconfig")))


@pytest.fixture
def connected(access: client.Access) -> Iterator[client.Cluster]:
    with client.connect(access) as connection:
        yield connection


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_objects_come_back_as_they_are(connected: client.Cluster) -> None:
    made = connected.create(config_map("one", a="1"))
    assert connected.find(CONFIG_MAP, "one") == made
    assert connected.find(CONFIG_MAP, "none") is None
    with pytest.raises(client.AlreadyThere):
        connected.create(config_map("one"))
    assert connected.apply(config_map("one", b="2"))["data"] == {"a": "1", "b": "2"}
    stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"c": "3"}}
    with pytest.raises(client.Conflict):
        connected.patch(CONFIG_MAP, "one", stale)
    assert connected.patch(CONFIG_MAP, "one", {"data": {"a": None}})["data"] == {"b": "2"}
    assert [found["metadata"]["name"] for found in connected.all(CONFIG_MAP)] == ["one"]
    connected.delete(CONFIG_MAP, "one")
    connected.delete(CONFIG_MAP, "one")
    assert connected.all(CONFIG_MAP) == []


def test_a_kind_that_is_not_built_in_is_looked_up(connected: client.Cluster) -> None:
    assert connected.kind({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}) == Kind(
        "coordination.k8s.io/v1", "Lease", "leases"
    )
    with pytest.raises(errors.ClusterError, match="does not know the kind Gadget"):
        connected.kind({"apiVersion": "example.org/v1", "kind": "Gadget"})


def test_scaling(connected: client.Cluster) -> None:
    connected.create(WEB)
    connected.scale(DEPLOYMENT, "web", 0)
    assert connected.get(DEPLOYMENT, "web")["spec"]["replicas"] == 0
    connected.delete(DEPLOYMENT, "web")
    with pytest.raises(errors.ClusterError, match="has no Deployment web"):
        connected.scale(DEPLOYMENT, "web", 1)


def test_rights(cluster: Cluster, tmp_path: Path) -> None:
    reader = client.Access("default", str(cluster.write_kubeconfig(tmp_path / "reader", token="reader")))
    with client.connect(reader) as connection:
        assert connection.may("get", SECRET)
        assert not connection.may("create", SECRET)
        with pytest.raises(errors.PrivilegeMissing, match="cannot create"):
            connection.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}})
    stranger = client.Access("default", str(cluster.write_kubeconfig(tmp_path / "stranger", token="stranger")))
    with client.connect(stranger) as connection, pytest.raises(errors.ClusterError, match="Unauthorized"):
        connection.all(SECRET)


def test_a_cluster_that_is_away(cluster: Cluster, tmp_path: Path) -> None:
    text = cluster.write_kubeconfig(tmp_path / "away").read_text()
    (tmp_path / "away").write_text(text.replace(cluster.url, "https://127.0.0.1:9"))
    with (
        client.connect(client.Access("default", str(tmp_path / "away"))) as connection,
        pytest.raises(errors.ClusterError, match="cannot create ConfigMap x on https://127.0.0.1:9"),
    ):
        connection.create(config_map("x"))
    with pytest.raises(errors.ClusterError, match="nowhere"):
        client.connect(client.Access("default", str(tmp_path / "nowhere")))


def test_the_clock_of_the_cluster(cluster: Cluster, connected: client.Cluster) -> None:
    assert abs(connected.clock_skew().total_seconds()) < 30
    cluster.server.skew_s = 3600.0
    try:
        assert 3570 < connected.clock_skew().total_seconds() < 3630
    finally:
        cluster.server.skew_s = 0.0


@pytest.fixture
def packed() -> bytes:
    """The chart as Helm's own packer would give it: by way of a record."""
    files = {str(path.relative_to(CHART)): path.read_bytes() for path in CHART.rglob("*") if path.is_file()}
    return release._packed("kubepolaris", files)


def values(**more: Any) -> dict[str, Any]:
    passwords = {"password": "KPDEMO-SECRET-db", "rootPassword": "KPDEMO-SECRET-root"}
    return {"mysql": {"internal": passwords}, "security": {"jwtSecret": "KPDEMO-SECRET-jwt"}, **more}


def test_a_release_is_made_again_from_its_own_record(cluster: Cluster, access: client.Access, packed: bytes) -> None:
    """Chart, values and pinned image come out of the record alone, as after the loss of the chart repository."""
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lost"}})
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "found"}})
    engine = helm.engine()
    given = values(backend={"image": {"tag": "v1.2.3"}})
    assert engine.install(access, helm.Installation("kubepolaris", "lost", packed, given, 30)) == 1
    record = release.newest(cluster.list("Secret", "lost"), "kubepolaris")
    assert record is not None
    found = release.read(record)
    assert (found.chart_name, found.chart_version, found.revision, found.status) == ("kubepolaris", "1.0.5", 1, "deployed")
    assert found.values == given
    for revision in (1, 2):  # install, then upgrade
        again = helm.Installation("kubepolaris", "found", release.archive(found), found.values, 30)
        assert engine.install(access, again) == revision
    wanted = [objects.wanted(one)["spec"] for one in cluster.list("Deployment", "lost")]
    assert [objects.wanted(one)["spec"] for one in cluster.list("Deployment", "found")] == wanted
    assert objects.images(cluster.list("Deployment", "found"))["Deployment/kubepolaris-backend/backend"].endswith(":v1.2.3")


def test_a_revision_left_pending_is_unlocked(cluster: Cluster, access: client.Access, packed: bytes) -> None:
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "stuck"}})
    wanted = helm.Installation("kubepolaris", "stuck", packed, values(), 30)
    engine = helm.engine()
    engine.install(access, wanted)
    record = release.newest(cluster.list("Secret", "stuck"), "kubepolaris")
    assert record is not None
    pending = objects.wanted(record)
    pending["metadata"] |= {
        "name": record["metadata"]["name"].replace(".v1", ".v2").replace(".v2.", ".v1."),
        "labels": {**record["metadata"]["labels"], "status": "pending-upgrade", "version": "2"},
    }
    document = gzip.decompress(base64.b64decode(base64.b64decode(record["data"]["release"])))
    document = document.replace(b'"status":"deployed"', b'"status":"pending-upgrade"').replace(b'"version":1,', b'"version":2,')
    pending["data"] = {"release": base64.b64encode(base64.b64encode(gzip.compress(document))).decode()}
    cluster.create(pending, namespace="stuck")
    with pytest.raises(errors.StepFailed, match="another operation"):
        engine.install(access, wanted)
    with client.connect(client.Access("stuck", access.kubeconfig)) as connection:
        assert helm.unlock(connection, "kubepolaris") == 1
        assert helm.unlock(connection, "kubepolaris") == 0
    assert engine.install(access, wanted) == 2


def test_what_does_not_become_ready_fails_in_time(cluster: Cluster, access: client.Access, packed: bytes) -> None:
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "slow"}})
    cluster.workloads.run = lambda workload, replicas: []
    try:
        with pytest.raises(errors.StepFailed, match="kubepolaris-backend"):
            helm.engine().install(access, helm.Installation("kubepolaris", "slow", packed, values(), 2))
    finally:
        cluster.workloads.run = lambda workload, replicas: [("127.0.0.1", 9)] * replicas


def test_references_are_found(cluster: Cluster, access: client.Access, packed: bytes) -> None:
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "named"}})
    ingress = {"enabled": True, "tls": [{"secretName": "kubepolaris-tls", "hosts": ["kp.example.net"]}], "hosts": [
        {"host": "kp.example.net", "paths": [{"path": "/", "pathType": "Prefix", "backend": "frontend"}]}]}
    given = values(ingress=ingress, **{"global": {"imagePullSecrets": [{"name": "registry"}]}})
    helm.engine().install(access, helm.Installation("kubepolaris", "named", packed, given, 30))
    there = [*cluster.list("Deployment", "named"), *cluster.list("StatefulSet", "named"), *cluster.list("Ingress", "named")]
    assert set(objects.secrets_named(there)) == {"kubepolaris-mysql", "kubepolaris-secrets", "registry", "kubepolaris-tls"}
    assert set(objects.config_maps_named(there)) == {"kubepolaris-frontend-nginx"}
    (database,) = cluster.list("StatefulSet", "named")
    assert objects.loses_its_data(database)
