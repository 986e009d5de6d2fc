"""A drill in a cluster: the test-only API server, a real database behind its StatefulSet, Kubernetes' own schemas."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kpbackup.kubernetes import scratch
from kpbackup.kubernetes.client import Access
from tests.integration.scenario import Scene
from tests.servers.database import Server
from tests.servers.kubernetes import validation, workloads
from tests.servers.kubernetes.access import rule
from tests.servers.kubernetes.cluster import Cluster, kubernetes_cluster
from tests.servers.kubernetes.resources import Object
from tests.servers.mariadb import mariadb_server

NAMESPACE = "drills"
MINE = "statefulsets statefulsets/scale services secrets networkpolicies"
TOKENS = {
    "admin": (rule("*", "*"),),
    "reader": (rule("get list create delete patch", MINE, NAMESPACE), rule("create", "selfsubjectaccessreviews")),
    "nobody": (rule("create", "selfsubjectaccessreviews"), rule("get", "statefulsets", NAMESPACE)),
}


class Node:
    """Runs the drill's StatefulSet: a real MariaDB with the pod's own options, as new as its volume. `seen` is what was in the
    namespace when the pod started."""

    def __init__(self, cluster: Cluster, server: Server) -> None:
        self.cluster, self.server = cluster, server
        self.seen: list[Object] = []
        server.stop()
        self._volume = server.data_directory.with_name("new")
        shutil.copytree(server.data_directory, self._volume, symlinks=True)

    def __call__(self, workload: Object, replicas: int) -> list[tuple[str, int]]:
        if not replicas:
            self.end()
            return []
        if not self.server.is_running:
            self.seen = self.cluster.list("NetworkPolicy", NAMESPACE)
            self._start(workload)
        return [("127.0.0.1", self.server.port)]

    def _start(self, workload: Object) -> None:
        password = workloads.environment(self.cluster.store, workload)["MYSQL_ROOT_PASSWORD"]
        shutil.rmtree(self.server.data_directory)
        shutil.copytree(self._volume, self.server.data_directory, symlinks=True)
        self.server.options = tuple(workload["spec"]["template"]["spec"]["containers"][0]["args"])
        self.server.start()
        self.server.execute("SET sql_log_bin = 0", f"ALTER USER root@'127.0.0.1' IDENTIFIED BY '{password}'")

    def end(self) -> None:
        if self.server.is_running:
            self.server.kill()


@dataclass
class Stage:
    scene: Scene
    cluster: Cluster
    node: Node
    directory: Path

    def settings(self, token: str = "reader") -> dict[str, Any]:
        config = self.cluster.write_kubeconfig(self.directory / f"kubeconfig-{token}", token=token)
        return {
            "namespace": NAMESPACE, "image": "mariadb:10.11", "storage": "1Gi", "kubeconfig": str(config), "ready_timeout": "3m",
            "host": "127.0.0.1", "port": self.node.server.port,
        }

    def objects(self) -> list[str]:
        kinds = ("StatefulSet", "Service", "Secret", "NetworkPolicy")
        return [f"{kind}/{one['metadata']['name']}" for kind in kinds for one in self.cluster.list(kind, NAMESPACE)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("drill")
    with (
        mariadb_server(directory / "source", server_id=97) as source,
        mariadb_server(directory / "pod", server_id=98) as pod,
        kubernetes_cluster(tokens=TOKENS, check=validation.check) as cluster,
    ):
        made = backed_up(directory, source)
        node = Node(cluster, pod)
        cluster.workloads.run = node
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        try:
            yield Stage(made, cluster, node, directory)
        finally:
            cluster.workloads.end()
            node.end()


def backed_up(directory: Path, source: Server) -> Scene:
    scene = Scene(directory / "scene", source=source)
    source.execute("CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, note TEXT)")
    source.execute("INSERT INTO shop.orders (note) SELECT REPEAT('x', 100) FROM mysql.help_topic LIMIT 200")
    scene.ok("init", "--keys", str(scene.keys))
    scene.ok("backup", "full")
    source.execute(*["INSERT INTO shop.orders (note) VALUES ('later')"] * 3)
    scene.ok("backup", "incremental")
    return scene


def test_a_drill_with_the_readers_rights(stage: Stage) -> None:
    """Isolated before the pod starts, restored by an ordinary connection, and nothing left of it."""
    stage.scene.settings["drill"] = {"kubernetes": stage.settings()}
    done = stage.scene.ok("drill", "--to", "latest")
    assert done["passed"] and done["details"]["transactions"] == "3" and done["details"]["replay_path"] == "direct"
    (policy,) = stage.node.seen
    assert policy["spec"]["egress"] == [] and "Egress" in policy["spec"]["policyTypes"]
    assert stage.objects() == []
    assert [one["metadata"]["name"] for one in stage.cluster.list("Namespace")] == ["default", NAMESPACE]
    assert stage.scene.ok("recoveries")["recoveries"][-1]["state"] == "passed"


def test_a_policy_that_lets_it_out(stage: Stage) -> None:
    stage.scene.settings["drill"] = {"kubernetes": stage.settings()}
    open_door = {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "open"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]},
    }
    stage.cluster.create(open_door, namespace=NAMESPACE)
    stage.node.seen = []
    told = stage.scene.refused(23, "drill")
    assert "NetworkPolicy open in namespace drills would let the drill's pod out" in told
    stage.cluster.delete("NetworkPolicy", NAMESPACE, "open")
    assert stage.objects() == [] and stage.node.seen == []


def test_missing_rights_are_named_before_anything_is_made(stage: Stage) -> None:
    stage.scene.settings["drill"] = {"kubernetes": stage.settings("nobody")}
    told = stage.scene.refused(13, "drill")
    assert "create statefulsets" in told and "patch statefulsets/scale" in told and "get statefulsets" not in told


def test_what_a_killed_drill_left(stage: Stage) -> None:
    """A young one may be another drill's; an old one is removed. A stranger's object is never touched."""
    stage.scene.settings["drill"] = {"kubernetes": stage.settings()}
    left = stage.cluster.create(scratch.service(), namespace=NAMESPACE)
    assert "another drill is under way in namespace drills" in stage.scene.refused(26, "drill")
    stage.cluster.backdate("Service", NAMESPACE, scratch.NAME, "2020-01-01T00:00:00Z")
    assert stage.scene.ok("drill", "--to", "latest")["passed"]
    left["metadata"] = {"name": scratch.NAME}
    left["spec"].pop("clusterIP", None)
    stage.cluster.create(left, namespace=NAMESPACE)
    assert "that is not kpbackup's" in stage.scene.refused(23, "drill")
    stage.cluster.delete("Service", NAMESPACE, scratch.NAME)


def test_a_namespace_of_its_own(stage: Stage) -> None:
    """Made and deleted where the account may."""
    stage.cluster.delete("Namespace", "", NAMESPACE)
    stage.scene.settings["drill"] = {"kubernetes": stage.settings("admin")}
    assert stage.scene.ok("drill")["passed"]
    assert [one["metadata"]["name"] for one in stage.cluster.list("Namespace")] == ["default"]


def test_the_objects_are_what_kubernetes_takes() -> None:
    """The objects themselves, as Kubernetes judges them."""
    wanted = scratch.Wanted(Access(NAMESPACE), "mariadb:11.8", ("--event-scheduler=OFF",), "40Gi", "fast")
    for made in (scratch.network_policy(), scratch.service(), scratch.stateful_set(wanted)):
        assert validation.check(made) == ""
    pod = scratch.stateful_set(wanted)["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
