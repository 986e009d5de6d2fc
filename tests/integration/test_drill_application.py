"""A drill that starts the application in its namespace: only behind policies that were seen to hold.

The API server is the one made for the tests; the database, the back end and the probe (its very script, run by bash) are real.
Whether there is a way out is the cluster's: here an address that listens, or one that does not.
"""

from __future__ import annotations

import copy
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kpbackup import errors
from kpbackup.kubernetes import drilled, scratch
from tests.integration import five_steps
from tests.integration.five_steps import NAME, PASSWORD, USER
from tests.integration.scenario import Scene
from tests.integration.test_drill_kubernetes import MINE, NAMESPACE, Node
from tests.servers.kubepolaris import network
from tests.servers.kubepolaris.platform import Platform
from tests.servers.kubernetes import validation
from tests.servers.kubernetes.access import rule
from tests.servers.kubernetes.cluster import Cluster, kubernetes_cluster
from tests.servers.kubernetes.resources import Object
from tests.servers.mariadb import mariadb_server

OUTSIDE = "localhost"  # a name that can be looked up, and leads out of the namespace
MORE = "deployments deployments/scale statefulsets statefulsets/scale jobs services configmaps secrets networkpolicies"
TOKENS = {
    "reader": (rule("get list create delete patch", f"{MINE} {MORE}", NAMESPACE), rule("create", "selfsubjectaccessreviews")),
    "half": (rule("get list create delete patch", MINE, NAMESPACE), rule("create", "selfsubjectaccessreviews")),
}


@dataclass
class Nodes:
    """Runs the drill's database, the application's programs, and the probe's script with the database where it really is.
    `seen` is what was in the namespace when the back end started."""

    cluster: Cluster
    database: Node
    platform: Platform
    probed: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def __call__(self, workload: Object, replicas: int) -> list[tuple[str, int]]:
        if workload["metadata"]["name"] == scratch.NAME:
            return self.database(workload, replicas)
        if replicas and not self.seen:
            kinds = ("NetworkPolicy", "Job", "Deployment", "StatefulSet", "Ingress", "HorizontalPodAutoscaler", "Secret")
            self.seen = [f"{kind}/{one['metadata']['name']}" for kind in kinds for one in self.cluster.list(kind, NAMESPACE)]
        return self.platform(workload, replicas)

    def probe(self, job: Object) -> bool:
        container = job["spec"]["template"]["spec"]["containers"][0]
        environ = {one["name"]: one["value"] for one in container["env"]}
        self.probed.append(environ["KPBACKUP_OUTSIDE"])
        assert environ["KPBACKUP_INSIDE"] == "kubepolaris-mysql:3306"
        environ["KPBACKUP_INSIDE"] = f"127.0.0.1:{self.database.server.port}"
        done = subprocess.run(container["command"], env={"PATH": os.environ["PATH"], **environ})
        return done.returncode == 0


@dataclass
class Stage:
    scene: Scene
    origin: Cluster
    cluster: Cluster
    nodes: Nodes
    closed_port: int
    directory: Path

    def left(self) -> list[str]:
        kinds = ("Deployment", "StatefulSet", "Job", "Service", "Secret", "ConfigMap", "NetworkPolicy")
        return [f"{kind}/{one['metadata']['name']}" for kind in kinds for one in self.cluster.list(kind, NAMESPACE)]

    def refused(self, code: int) -> str:
        said = self.scene.refused(code, "drill", "--to", "latest")
        assert self.left() == [] and self.nodes.platform.starts == 0
        assert self.scene.ok("recoveries")["recoveries"][-1]["state"] == "failed"
        return said


@pytest.fixture(scope="module")
def module_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("drilled")
    with (
        mariadb_server(directory / "source", server_id=73) as source,
        mariadb_server(directory / "pod", server_id=74) as pod,
        five_steps.backed_up(directory, source) as (made, origin),
        kubernetes_cluster(tokens=TOKENS, check=validation.check) as cluster,
        ExitStack() as stack,
    ):
        nodes = Nodes(cluster, Node(cluster, pod), Platform(cluster, pod))
        nodes.platform._has_volume = True  # the drill's database makes no account of the application's: it is restored
        cluster.workloads.run, cluster.workloads.run_job = nodes, nodes.probe
        stack.callback(nodes.database.end)
        stack.callback(nodes.platform.end)
        stack.callback(cluster.workloads.end)
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        inside = stack.enter_context(network.service(cluster, NAMESPACE, "kubepolaris-backend"))
        closed = stack.enter_context(socket.socket())
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it, and nobody answers
        password = directory / "verification-password"
        password.write_text(PASSWORD)
        made.settings["recovery"] = {"verify": {"profile": "kubepolaris", "user": USER, "password_file": str(password)}}
        made.settings["drill"] = {
            "kubernetes": {
                "namespace": NAMESPACE, "image": "mariadb:10.11", "host": "127.0.0.1", "port": pod.port, "ready_timeout": "3m",
                "kubeconfig": str(cluster.write_kubeconfig(directory / "kubeconfig-drill", token="reader")),
            },
            "application": {
                "unreachable": [f"{OUTSIDE}:{closed.getsockname()[1]}"], "database": "kubepolaris-mysql", "url": inside.url,
            },
        }
        yield Stage(made, origin, cluster, nodes, int(closed.getsockname()[1]), directory)


@pytest.fixture
def stage(module_stage: Stage) -> Iterator[Stage]:
    kept = copy.deepcopy(module_stage.scene.settings)
    module_stage.nodes.platform.starts = 0
    module_stage.nodes.seen, module_stage.nodes.probed = [], []
    yield module_stage
    module_stage.scene.settings = kept


@pytest.mark.slow
def test_the_application_answers_behind_closed_doors(stage: Stage) -> None:
    done = stage.scene.ok("drill", "--to", "latest")
    assert done["passed"] and int(done["details"]["calls"]) > 5 and int(done["details"]["tables_compared"]) > 10
    outside = f"{OUTSIDE}:{stage.closed_port}"
    assert stage.nodes.probed == ["", outside]  # before the application: the control, then the way out
    assert stage.nodes.platform.starts == 1
    there = stage.nodes.seen
    assert {"NetworkPolicy/kpbackup-drill", "NetworkPolicy/kpbackup-drill-namespace",
            "NetworkPolicy/kpbackup-drill-application", "Job/kpbackup-drill-probe-1"} <= set(there)  # fmt: skip
    assert [one for one in there if one.startswith(("Deployment", "StatefulSet", "Ingress", "Horizontal"))] == [
        "Deployment/kubepolaris-backend", "StatefulSet/kpbackup-drill",
    ]
    assert stage.left() == []
    entries = stage.scene.ok("recoveries", done["run"])["entries"]
    steps = {one["fields"]["step"]: one["fields"] for one in entries if one["event"] == "step_finished"}
    assert list(steps) == ["prepare", "database", "deploy", "verify"]
    assert done["measured_rto_seconds"] >= sum(float(one["seconds"]) for one in steps.values())
    assert steps["deploy"]["addresses_not_reached"] == "1"


@pytest.mark.slow
def test_a_way_out_is_found_and_nothing_is_started(stage: Stage) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = f"{OUTSIDE}:{listening.getsockname()[1]}"
        stage.scene.settings["drill"]["application"]["unreachable"].append(address)
        said = stage.refused(23)
    assert f"egress is not proven to be blocked in namespace {NAMESPACE}: a probe there reached {address}" in said


def test_what_proves_nothing_is_no_proof(module_stage: Stage) -> None:
    """The probe's script: a name that nobody knows, no way to the database, no address to try."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        there, nobody = f"localhost:{listening.getsockname()[1]}", f"localhost:{module_stage.closed_port}"
        codes = {
            (inside, outside): run_probe(inside, outside).returncode
            for inside in (there, nobody) for outside in ("", there, nobody, "no-such-host.invalid:443")
        }
        assert codes == {
            (there, ""): 0, (there, there): 1, (there, nobody): 0, (there, "no-such-host.invalid:443"): 4,
            **{(nobody, outside): 3 for outside in ("", there, nobody, "no-such-host.invalid:443")},
        }
        assert run_probe(there, nobody, path="/nowhere").returncode != 0  # no tool, no proof


def run_probe(inside: str, outside: str, *, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[bytes]:
    job = drilled.probe(1, image="x", user_id=999, inside=inside, outside=outside)
    container = job["spec"]["template"]["spec"]["containers"][0]
    environ = {one["name"]: one["value"] for one in container["env"]}
    return subprocess.run(["/bin/bash", *container["command"][1:]], env={"PATH": path, **environ}, stderr=subprocess.DEVNULL)


def test_a_policy_of_somebody_else_that_lets_pods_out() -> None:
    spec: Object = {"podSelector": {"matchLabels": {"app": "x"}}, "egress": [{}]}
    other = {"metadata": {"name": "open"}, "spec": spec}
    with pytest.raises(errors.TargetRefused, match="NetworkPolicy open in namespace drills lets pods out"):
        drilled.refuse_other_policies([*drilled.policies(), other], "drills")
    spec["egress"] = []
    drilled.refuse_other_policies([*drilled.policies(), scratch.network_policy(), other], "drills")


def test_settings_and_rights_are_judged_before_anything_is_made(stage: Stage) -> None:
    drill = stage.scene.settings["drill"]
    drill["kubernetes"]["kubeconfig"] = str(stage.cluster.write_kubeconfig(stage.directory / "kubeconfig-half", token="half"))
    said = stage.refused(13)
    assert "create deployments" in said and "create jobs" in said and "create statefulsets" not in said
    drill["application"]["unreachable"] = []
    assert "drill.application.unreachable" in stage.scene.refused(11, "drill")
    drill["application"]["unreachable"] = ["kubernetes.default.svc"]
    assert "is not HOST:PORT" in stage.scene.refused(11, "drill")
    drill["application"]["unreachable"] = ["kubernetes.default.svc:443"]
    verify = stage.scene.settings["recovery"].pop("verify")
    assert "recovery.verify.profile" in stage.scene.refused(11, "drill")
    stage.scene.settings["recovery"]["verify"] = verify
    drill.pop("kubernetes")
    assert "application is set without kubernetes" in stage.scene.refused(11, "drill")


def bundle(origin: Cluster) -> list[Object]:
    return [one for kind in ("Secret", "ConfigMap", "Service", "Deployment") for one in origin.list(kind, NAME)]


def test_a_pod_that_walks_around_policies_is_refused(module_stage: Stage) -> None:
    kept = bundle(module_stage.origin)
    (backend,) = [one for one in kept if one["kind"] == "Deployment" and one["metadata"]["name"].endswith("-backend")]
    spec = backend["spec"]["template"]["spec"]
    ways: list[dict[str, Any]] = [
        {"hostNetwork": True}, {"hostPID": True}, {"volumes": [{"name": "x", "hostPath": {"path": "/run"}}]},
        {"volumes": [{"name": "x", "nfs": {"server": "files.internal", "path": "/recordings"}}]},
        {"containers": [{**spec["containers"][0], "securityContext": {"privileged": True}}]},
    ]
    for way in ways:
        changed = copy.deepcopy(kept)
        (other,) = [one for one in changed if one["kind"] == "Deployment" and one["metadata"]["name"].endswith("-backend")]
        other["spec"]["template"]["spec"] |= way
        with pytest.raises(errors.TargetRefused, match="could get out past any NetworkPolicy"):
            drilled.application(changed, "kubepolaris-backend")
    without = [one for one in kept if one["metadata"]["name"] != "kubepolaris-mysql"]
    with pytest.raises(errors.StepFailed, match="Secret kubepolaris-mysql, which Deployment/kubepolaris-backend refers to"):
        drilled.application(without, "kubepolaris-backend")
    with pytest.raises(errors.StepFailed, match="no workload behind Service nowhere"):
        drilled.application(kept, "nowhere")


def test_the_objects_are_what_kubernetes_takes(module_stage: Stage) -> None:
    kept = bundle(module_stage.origin)
    (backend,) = [one for one in kept if one["kind"] == "Deployment" and one["metadata"]["name"].endswith("-backend")]
    spec = backend["spec"]["template"]["spec"]
    spec |= {"serviceAccountName": "backend", "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}
    (service,) = [one for one in kept if one["kind"] == "Service" and one["metadata"]["name"].endswith("-backend")]
    service["spec"] |= {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
    service["spec"]["ports"][0]["nodePort"] = 30080
    made = drilled.application(kept, "kubepolaris-backend")
    job = drilled.probe(1, image="mysql:9.7", user_id=999, inside="db:3306", outside="x:1")
    for one in (*made, *drilled.policies(), drilled.database_service("db"), job):
        assert validation.check(one) == ""
        assert one["metadata"]["labels"][drilled.LABEL] == drilled.VALUE
    pod = made[-1]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False and "serviceAccountName" not in pod
    assert pod["volumes"] == [{"name": "data", "emptyDir": {}}]
    (ours,) = [one["spec"] for one in made if one["kind"] == "Service"]
    assert "type" not in ours and "externalTrafficPolicy" not in ours and "nodePort" not in ours["ports"][0]
    closed, door = drilled.policies()
    assert closed["spec"] == {"policyTypes": ["Egress"], "podSelector": {}, "egress": []}
    assert [port["port"] for one in door["spec"]["egress"] for port in one["ports"]] == [3306, 53, 53]
    assert made[-1]["spec"]["template"]["metadata"]["labels"].items() >= door["spec"]["podSelector"]["matchLabels"].items()
