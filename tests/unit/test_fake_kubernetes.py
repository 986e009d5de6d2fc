"""The test-only API server behaves, where kpbackup leans on it, as Kubernetes does: judged by kubectl where it is installed."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.kubernetes import validation
from tests.servers.kubernetes.access import rule
from tests.servers.kubernetes.cluster import Cluster, kubernetes_cluster
from tests.servers.kubernetes.store import selected

DEPLOYMENT = {
    "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]},
        },
    },
}
TOKENS = {"admin": (rule("*", "*"),), "reader": (rule("get list", "secrets deployments", "default"),)}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with kubernetes_cluster(tokens=TOKENS, check=validation.check) as running:
        yield running


def ask(
    cluster: Cluster, method: str, path: str, body: Any = None, *, token: str = "admin", kind: str = "application/json"
) -> tuple[int, Any]:
    request = urllib.request.Request(
        cluster.url + path, method=method, data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": kind},
    )
    try:
        with urllib.request.urlopen(request, timeout=60, context=ssl.create_default_context(cafile=cluster.ca_file)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


WEB = "/apis/apps/v1/namespaces/default/deployments"


@pytest.fixture
def web(cluster: Cluster) -> Iterator[Any]:
    code, made = ask(cluster, "POST", WEB, DEPLOYMENT)
    assert code == 201
    deadline = time.monotonic() + 180
    while made.get("status", {}).get("readyReplicas") != 2:  # each status that is written makes what was read before stale
        assert time.monotonic() < deadline
        made = ask(cluster, "GET", f"{WEB}/web")[1]
    yield made
    ask(cluster, "DELETE", f"{WEB}/web")


def test_a_stale_write_is_refused(cluster: Cluster, web: Any) -> None:
    web["spec"]["replicas"] = 3
    code, newer = ask(cluster, "PUT", f"{WEB}/web", web)
    assert (code, newer["metadata"]["generation"]) == (200, 2)
    assert int(newer["metadata"]["resourceVersion"]) > int(web["metadata"]["resourceVersion"])
    assert newer["metadata"]["uid"] == web["metadata"]["uid"]
    web["spec"]["replicas"] = 4
    code, refused = ask(cluster, "PUT", f"{WEB}/web", web)
    assert (code, refused["reason"]) == (409, "Conflict")


def test_twice_and_never(cluster: Cluster, web: Any) -> None:
    assert ask(cluster, "POST", WEB, DEPLOYMENT)[1]["reason"] == "AlreadyExists"
    assert ask(cluster, "GET", f"{WEB}/other")[1]["reason"] == "NotFound"
    assert ask(cluster, "POST", "/apis/apps/v1/namespaces/nowhere/deployments", DEPLOYMENT)[0] == 404


def test_a_misspelt_field_is_refused(cluster: Cluster) -> None:
    wrong = json.loads(json.dumps(DEPLOYMENT).replace('"replicas"', '"replicsa"'))
    code, refused = ask(cluster, "POST", WEB, wrong)
    assert (code, refused["reason"]) == (422, "Invalid")


def test_patches(cluster: Cluster, web: Any) -> None:
    image = {"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "b:2"}]}}}}
    _, found = ask(cluster, "PATCH", f"{WEB}/web", image, kind="application/strategic-merge-patch+json")
    assert [one["image"] for one in found["spec"]["template"]["spec"]["containers"]] == ["a:1", "b:2"]
    _, found = ask(cluster, "PATCH", f"{WEB}/web", image, kind="application/merge-patch+json")
    assert [one["image"] for one in found["spec"]["template"]["spec"]["containers"]] == ["b:2"]


def test_what_is_no_longer_applied_goes(cluster: Cluster) -> None:
    path, kind = "/api/v1/namespaces/default/configmaps/c?fieldManager=m", "application/apply-patch+yaml"
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1", "b": "2"}}
    ask(cluster, "PATCH", path, made, kind=kind)
    ask(cluster, "PATCH", path.partition("?")[0], {"data": {"other": "3"}}, kind="application/merge-patch+json")
    _, found = ask(cluster, "PATCH", path, {**made, "data": {"a": "1"}}, kind=kind)
    assert found["data"] == {"a": "1", "other": "3"}


def test_scale_and_readiness(cluster: Cluster, web: Any) -> None:
    code, scale = ask(
        cluster, "PATCH", f"{WEB}/web/scale", {"spec": {"replicas": 0}}, kind="application/merge-patch+json"
    )
    assert (code, scale["kind"], scale["spec"]["replicas"]) == (200, "Scale", 0)
    while cluster.get("Deployment", "default", "web").get("status", {}).get("observedGeneration") != 2:
        assert cluster.workloads.failure is None
    assert cluster.get("Deployment", "default", "web")["status"]["readyReplicas"] == 0


def test_who_may_what(cluster: Cluster, web: Any) -> None:
    assert ask(cluster, "GET", WEB, token="stranger")[0] == 401
    assert ask(cluster, "GET", WEB, token="reader")[0] == 200
    code, refused = ask(cluster, "DELETE", f"{WEB}/web", token="reader")
    assert (code, refused["reason"]) == (403, "Forbidden")
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    answers = []
    for verb in ("get", "patch"):
        asked = {"verb": verb, "resource": "deployments", "namespace": "default"}
        _, found = ask(
            cluster, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            {**review, "spec": {"resourceAttributes": asked}}, token="reader",
        )
        answers.append(found["status"]["allowed"])
    assert answers == [True, False]


def test_secrets_are_base64(cluster: Cluster) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "v"}}
    _, made = ask(cluster, "POST", "/api/v1/namespaces/default/secrets", secret)
    assert (made["data"], made["type"], "stringData" in made) == ({"k": "dg=="}, "Opaque", False)
    wrong = {**secret, "metadata": {"name": "t"}, "stringData": {}, "data": {"k": "no base64!"}}
    assert ask(cluster, "POST", "/api/v1/namespaces/default/secrets", wrong)[0] == 400


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("app=web", True), ("app==web", True), ("app!=web", False), ("app=api", False), ("app in (api,web)", True),
        ("app notin (api, web)", False), ("app,tier", False), ("!tier", True), ("app=web,!tier", True), ("", True),
    ],
)
def test_label_selectors(selector: str, expected: bool) -> None:
    assert selected({"metadata": {"name": "x", "labels": {"app": "web"}}}, labels=selector) is expected


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_reads_and_writes(cluster: Cluster, tmp_path: Path, web: Any) -> None:
    config = cluster.write_kubeconfig(tmp_path / "kubeconfig")

    def kubectl(*words: str) -> str:
        done = subprocess.run(
            ["kubectl", f"--kubeconfig={config}", f"--cache-dir={tmp_path}/cache", *words],
            capture_output=True, text=True, timeout=180,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "web" in kubectl("get", "deploy", "-l", "app=web")
    kubectl("scale", "deploy/web", "--replicas=5")
    kubectl("annotate", "deploy/web", "why=test")
    found = cluster.get("Deployment", "default", "web")
    assert (found["spec"]["replicas"], found["metadata"]["annotations"]["why"]) == (5, "test")
    kubectl("rollout", "status", "deploy/web", "--timeout=120s")
