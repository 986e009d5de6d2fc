"""All five steps into an empty cluster: what is there afterwards, what the switch leaves alone, and what refuses to begin."""

from __future__ import annotations

import base64
import copy
import json
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kpbackup.kubernetes import release
from tests.integration import five_steps, scenario
from tests.integration.five_steps import ANNOTATIONS, MARKER, NAME, PASSWORD, USER, Recovered
from tests.servers.kubepolaris import network
from tests.servers.kubernetes.access import rule

STEPS = ["prepare", "database", "deploy", "verify", "switch"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recovered]:
    with five_steps.stage(tmp_path_factory.mktemp("five-steps")) as made:
        yield made


@pytest.fixture
def empty(stage: Recovered) -> Iterator[Recovered]:
    """Nothing is recovered yet; settings that a test changes are put back."""
    stage.clear()
    kept = copy.deepcopy(stage.scene.settings)
    yield stage
    stage.scene.settings = kept


def log_in(url: str) -> dict[str, Any]:
    """As a user's browser does."""
    body = json.dumps({"username": USER, "password": PASSWORD, "auth_type": "local"}).encode()
    request = urllib.request.Request(f"{url}/api/v1/auth/login", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def clusters_of(url: str, token: str) -> set[str]:
    """What a user who has logged in sees."""
    request = urllib.request.Request(f"{url}/api/v1/clusters", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return {one["name"] for one in json.load(answer)["items"]}


def without_back_ends(ingress: dict[str, Any]) -> dict[str, Any]:
    """An Ingress without what the server writes and without the names of its Services."""
    kept: dict[str, Any] = json.loads(json.dumps(ingress))
    for name in ("resourceVersion", "generation", "uid", "creationTimestamp"):
        kept["metadata"].pop(name)
    for path in kept["spec"]["rules"][0]["http"]["paths"]:
        path["backend"]["service"]["name"] = ""
    return kept


def changes(stage: Recovered) -> list[str]:
    """What the cluster has in the application's namespace, if anything."""
    return [one["metadata"]["name"] for one in stage.cluster.list("Secret", NAME) + stage.cluster.list("Deployment", NAME)]


@pytest.mark.slow
def test_from_an_empty_cluster_to_users_who_are_served(empty: Recovered) -> None:
    before = scenario.truth(empty.source)
    empty.target.stop()  # step 1 starts it
    answer = empty.scene.ok("restore", "--to", "latest", "--yes")
    assert answer["recovered"]
    entries = empty.scene.ok("recoveries", answer["run"])["entries"]
    assert [one["fields"]["step"] for one in entries if one["event"] == "step_finished"] == STEPS
    there = scenario.truth(empty.target)
    written = {f"{NAME}.users", f"{NAME}.operation_logs"}  # by the logins of verification
    assert {name: sums for name, sums in there.items() if name not in written} == {
        name: sums for name, sums in before.items() if name not in written
    }
    # the chart would have made new passwords: those of the backup are pinned, and the back end logs in with them
    for name in ("kubepolaris-mysql", "kubepolaris-secrets", "kubepolaris-tls"):
        assert empty.cluster.get("Secret", NAME, name)["data"] == empty.origin.get("Secret", NAME, name)["data"]
    backend = empty.cluster.get("Deployment", NAME, "kubepolaris-backend")
    assert backend["spec"]["template"]["spec"]["containers"][0]["image"] == "kubepolaris/backend:v1.0.5"
    assert backend["status"]["readyReplicas"] >= 1
    (record,) = [one for one in empty.cluster.list("Secret", NAME) if one.get("type") == release.SECRET_TYPE]
    deployed = release.read(record)
    assert (deployed.status, deployed.revision, deployed.chart_version) == ("deployed", 1, "1.0.5")
    assert log_in(empty.ingress.url)["user"]["username"] == USER
    made, kept = (cluster.get("Ingress", NAME, NAME) for cluster in (empty.cluster, empty.origin))
    assert made["spec"] == kept["spec"]
    assert ANNOTATIONS.items() <= made["metadata"]["annotations"].items()
    recorded = {path.relative_to("/"): path.read_bytes() for path in empty.recordings.rglob("*") if path.is_file()}
    restored = empty.restored_files
    assert recorded == {path.relative_to(restored): path.read_bytes() for path in restored.rglob("*") if path.is_file()}
    assert len(recorded) == 2
    journal = b"".join(path.read_bytes() for path in (empty.made.repository / "recoveries").rglob("*") if path.is_file())
    assert all(text not in journal for text in (MARKER.encode(), base64.b64encode(MARKER.encode())[:16]))


@pytest.mark.slow
def test_the_essential_tier_serves_before_the_logs_are_back(empty: Recovered) -> None:
    """Killed between the two phases: users are served already, from the essential tables; then the rest comes behind them."""
    empty.settings()["tiers"] = {"profile": True}
    logs = f"SELECT COUNT(*) FROM {NAME}.operation_logs WHERE NOT (username = '{USER}' AND action = 'login')"
    sessions = f"SELECT COUNT(*) FROM {NAME}.terminal_commands"
    with empty.scene.start("restore", "--to", "latest", "--yes") as process:
        while not empty.has_event("second_started"):
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        process.kill()
    empty.made.release_leases()
    served = log_in(empty.ingress.url)
    assert served["user"]["username"] == USER
    assert clusters_of(empty.ingress.url, served["token"]) == {
        name for (name,) in scenario.rows(empty.source, f"SELECT name FROM {NAME}.clusters WHERE deleted_at IS NULL")
    }
    assert scenario.rows(empty.target, sessions) == [(0,)]  # nothing was moved yet
    run = empty.scene.ok("recoveries")["recoveries"][-1]["run"]
    done = empty.scene.ok("restore", "--resume", run)

    assert done["recovered"] and 0 < float(done["details"]["essential_rto_s"]) < done["measured_rto_seconds"]
    entries = empty.scene.ok("recoveries", run)["entries"]
    assert [one["fields"]["step"] for one in entries if one["event"] == "step_finished"] == STEPS
    seen = [one["event"] for one in entries]
    assert seen.index("essential_ready") < seen.index("second_started") < seen.index("second_finished")
    assert seen[-1] == "finished" and entries[seen.index("second_started") - 1]["fields"]["step"] == "switch"
    for table in ("terminal_commands", "terminal_sessions", "clusters", "audit_logs"):
        assert scenario.truth(empty.target)[f"{NAME}.{table}"] == scenario.truth(empty.source)[f"{NAME}.{table}"]
    assert scenario.rows(empty.target, logs) == scenario.rows(empty.source, logs)
    assert scenario.definitions(empty.target) == scenario.definitions(empty.source)
    assert log_in(empty.ingress.url)["token"]


@pytest.mark.slow
def test_each_step_alone_and_again(empty: Recovered) -> None:
    """By the Kubernetes drivers: every step by a command of its own, then every one once more. Nothing is there twice."""
    scene, cluster = empty.scene, empty.cluster
    run = scene.ok("restore", "prepare", "--to", "latest", "--yes")["run"]
    assert cluster.list("Deployment", NAME) == [] and scenario.databases(empty.target) == []
    for step in STEPS[1:]:
        done = scene.ok("restore", step, "--resume", run)
        assert done["recovered"] is (step == "switch")
    entries = scene.ok("recoveries", run)["entries"]
    assert [one["fields"]["step"] for one in entries if one["event"] == "step_finished"] == STEPS
    logins = f"SELECT COUNT(*) FROM {NAME}.operation_logs WHERE NOT (username = '{USER}' AND action = 'login')"
    before = scenario.rows(empty.target, logins)
    for step in STEPS:
        done = scene.ok("restore", step, "--resume", run)
    assert done["recovered"] and scenario.rows(empty.target, logins) == before == scenario.rows(empty.source, logins)
    truth, there = scenario.truth(empty.source), scenario.truth(empty.target)
    assert there[f"{NAME}.clusters"] == truth[f"{NAME}.clusters"]
    (record,) = [one for one in cluster.list("Secret", NAME) if one.get("type") == release.SECRET_TYPE]
    assert release.read(record).status == "deployed"
    for name in ("kubepolaris-backend", "kubepolaris-frontend"):
        assert cluster.get("Deployment", NAME, name)["status"]["readyReplicas"] >= 1
    assert log_in(empty.ingress.url)["token"]


@pytest.mark.slow
def test_in_place_and_by_plain_objects(empty: Recovered) -> None:
    """First without Helm into an empty namespace; then with it over what runs there: held while its database is replaced."""
    recovery, cluster = empty.settings(), empty.cluster
    recovery["deploy"]["method"] = "manifests"
    assert empty.scene.ok("restore", "--to", "latest", "--yes")["recovered"]
    assert [one for one in cluster.list("Secret", NAME) if one.get("type") == release.SECRET_TYPE] == []
    assert log_in(empty.ingress.url)["token"]
    recovery["deploy"]["method"] = "helm"
    recovery["application"]["in_place"] = True
    empty.target.execute(f"DELETE FROM {NAME}.operation_logs", f"UPDATE {NAME}.users SET email = 'x'")
    starts = empty.platform.starts
    answer = empty.scene.ok("restore", "--to", "latest", "--overwrite", NAME, "--yes")
    assert answer["recovered"]
    entries = empty.scene.ok("recoveries", answer["run"])["entries"]
    fields = {one["fields"]["step"]: one["fields"] for one in entries if one["event"] == "step_finished"}
    assert fields["prepare"]["workloads_held"] == "2"
    assert empty.platform.starts > starts
    for name in ("kubepolaris-backend", "kubepolaris-frontend"):
        there = cluster.get("Deployment", NAME, name)
        assert there["status"]["readyReplicas"] == there["spec"].get("replicas", 1) >= 1
        assert "kpbackup.io/replicas" not in there["metadata"]["annotations"]
    assert log_in(empty.ingress.url)["token"]


@pytest.fixture
def beside(empty: Recovered) -> Recovered:
    """An Ingress that still leads to the old release, which the recovered one will stand beside."""
    kept = copy.deepcopy(empty.origin.get("Ingress", NAME, NAME))
    for name in ("resourceVersion", "uid"):
        kept["metadata"].pop(name)
    kept["metadata"]["annotations"]["cert-manager.io/issuer"] = "letsencrypt"
    empty.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME}})
    empty.cluster.create(kept, namespace=NAME)
    alias = {"kind": "Service", "apiVersion": "v1", "metadata": {"name": "public", "annotations": {"lb": "internal"}}}
    spec = {"selector": {"app.kubernetes.io/instance": NAME, "app.kubernetes.io/component": "backend"}, "ports": [{"port": 80}]}
    empty.cluster.create({**alias, "spec": spec}, namespace=NAME)
    recovery = empty.settings()
    recovery["application"]["release"] = "kubepolaris-new"
    recovery["prepare"]["database"] = "kubepolaris-mysql"
    return empty


@pytest.mark.slow
def test_a_switch_changes_the_back_ends_and_nothing_else(beside: Recovered) -> None:
    """Beside the old release; the public address answers wrongly at first, so the first switch is taken back."""
    cluster, recovery = beside.cluster, beside.settings()
    before = cluster.get("Ingress", NAME, NAME)
    recovery["verify"]["url"] = ""
    with network.service(cluster, NAME, "kubepolaris-new-backend") as inside:
        recovery["verify"]["url"] = inside.url
        public = recovery["switch"]["public_url"]
        recovery["switch"] |= {"public_url": "http://127.0.0.1:9", "public_timeout": "1s"}
        said = beside.scene.refused(26, "restore", "--to", "latest", "--yes")
        assert "the public address does not answer rightly after the switch, which was reverted" in said
        reverted = cluster.get("Ingress", NAME, NAME)
        assert reverted["spec"] == before["spec"]
        assert reverted["metadata"]["annotations"] == before["metadata"]["annotations"]
        (run,) = [one["run"] for one in beside.scene.ok("recoveries")["recoveries"] if one["run"] in said]
        recovery["switch"] |= {"public_url": public, "public_timeout": "60s"}
        assert beside.scene.ok("restore", "--resume", run, "--yes")["recovered"]
        after = cluster.get("Ingress", NAME, NAME)
        assert without_back_ends(after) == without_back_ends(before)
        names = [path["backend"]["service"]["name"] for path in after["spec"]["rules"][0]["http"]["paths"]]
        assert names == ["kubepolaris-new-frontend", "kubepolaris-new-backend"]
        assert log_in(beside.ingress.url)["token"]
        _is_taken_back_and_made_again(beside, run, before)
        assert cluster.get("Ingress", NAME, NAME)["spec"] == after["spec"]
        # by a Service: its selector, and nothing else of it
        service = cluster.get("Service", NAME, "public")
        recovery["switch"] |= {"ingress": "", "service": "public", "public_url": "http://127.0.0.1:9", "public_timeout": "1s"}
        assert "which was reverted" in beside.scene.refused(26, "restore", "switch", "--resume", run)
        taken_back = cluster.get("Service", NAME, "public")
        assert (taken_back["spec"], taken_back["metadata"]["annotations"]) == (service["spec"], {"lb": "internal"})
        assert cluster.get("Ingress", NAME, NAME)["spec"] == after["spec"]
        recovery["switch"] |= {"public_url": public, "public_timeout": "60s"}
        assert beside.scene.ok("restore", "switch", "--resume", run)["recovered"]
        selector = cluster.get("Service", NAME, "public")["spec"]["selector"]
        assert selector == {**service["spec"]["selector"], "app.kubernetes.io/instance": "kubepolaris-new"}
        _is_taken_back(beside, run, service)


def _is_taken_back_and_made_again(beside: Recovered, run: str, before: dict[str, Any]) -> None:
    """Nobody is behind what was there before: that is said."""
    beside.settings()["switch"]["public_timeout"] = "1s"
    back = beside.scene.ok("restore", "revert", "--resume", run)
    assert (back["changed"], back["public_address"], back["kind"]) == (True, "wrong", "Ingress")
    put_back = beside.cluster.get("Ingress", NAME, NAME)
    assert json.dumps(put_back["spec"]) == json.dumps(before["spec"])
    assert put_back["metadata"]["annotations"] == before["metadata"]["annotations"]
    beside.settings()["switch"]["public_timeout"] = "60s"
    assert beside.scene.ok("restore", "switch", "--resume", run)["recovered"]


def _is_taken_back(beside: Recovered, run: str, service: dict[str, Any]) -> None:
    """Not over what somebody changed since, which is named; then once, and a second time nothing."""
    change: dict[str, Any] = {"spec": {"ports": [{"port": 8080}]}}
    beside.cluster.patch("Service", NAME, "public", change)
    said = beside.scene.refused(26, "restore", "revert", "--resume", run)
    assert "Service public was changed after the switch, at spec.ports[0].port: putting it back would undo that" in said
    assert beside.cluster.get("Service", NAME, "public")["spec"]["selector"] != service["spec"]["selector"]
    beside.cluster.patch("Service", NAME, "public", {"spec": {"ports": service["spec"]["ports"]}})
    back = beside.scene.ok("restore", "revert", "--resume", run)
    assert (back["changed"], back["public_address"]) == (True, "right")  # it is the Ingress that users come by here
    assert beside.cluster.get("Service", NAME, "public")["spec"] == service["spec"]
    entries = beside.scene.ok("recoveries", run)["entries"]
    assert not beside.scene.ok("restore", "revert", "--resume", run)["changed"]
    assert beside.scene.ok("recoveries", run)["entries"] == entries and entries[-1]["event"] == "reverted"


MISSING = "the account may not do what the recovery needs"


@pytest.mark.slow
def test_what_refuses_to_begin(empty: Recovered, tmp_path: Path) -> None:
    """Each before anything is changed, with a message of its own."""
    scene, recovery, cluster = empty.scene, empty.settings(), empty.cluster
    good = copy.deepcopy(recovery)

    def refused(code: int, **changed: dict[str, Any]) -> str:
        scene.settings["recovery"] = {name: {**value, **changed.get(name, {})} for name, value in good.items()}
        said = scene.refused(code, "restore", "--to", "latest", "--yes")
        assert changes(empty) == []
        assert scenario.databases(empty.target) == []
        return said

    cluster.access.tokens["no-ingress"] = (rule("*", "namespaces secrets configmaps serviceaccounts services deployments"
        " statefulsets deployments/scale statefulsets/scale jobs horizontalpodautoscalers persistentvolumeclaims"),
        rule("get", "ingresses"))  # fmt: skip
    weak = str(cluster.write_kubeconfig(tmp_path / "weak", token="no-ingress"))
    said = refused(13, application={"kubeconfig": weak})
    assert MISSING in said and "step switch needs to patch ingresses" in said and "step prepare" not in said
    cluster.server.skew_s = 600.0
    ahead = re.search(r"is (\d+) s ahead of this machine's", refused(32))
    assert ahead and 540 <= int(ahead[1]) <= 660  # its stamp is of a whole second, and some time passes on the way
    cluster.server.skew_s = 0.0
    profile = yaml.safe_load((Path(five_steps.__file__).parents[2] / "kpbackup/profiles/kubepolaris.yaml").read_text())
    profile["calls"][0]["jsno"] = profile["calls"][0].pop("json")
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump(profile))
    assert "unknown key calls[1].jsno; did you mean json?" in refused(11, verify={"profile": str(tmp_path / "profile.yaml")})
    assert "has no StatefulSet nowhere" in refused(26, prepare={"database": "nowhere"})
    assert "there is no Ingress other" in refused(23, switch={"ingress": "other"})
    assert "plain objects cannot be recovered under another name" in refused(
        26, deploy={"method": "manifests"}, application={"release": "kubepolaris-new"}
    )
    scene.settings["recovery"] = good
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME}})
    foreign = copy.deepcopy(empty.origin.get("Ingress", NAME, NAME))
    foreign["metadata"] = {"name": NAME, "annotations": {"meta.helm.sh/release-name": "shop"}}
    cluster.create(foreign, namespace=NAME)
    assert "belongs to the Helm release shop, not to kubepolaris" in refused(23)
    cluster.delete("Ingress", NAME, NAME)
    web = copy.deepcopy(empty.origin.get("Deployment", NAME, "kubepolaris-frontend"))
    web["metadata"] = {"name": "kubepolaris-frontend"}
    cluster.create(web, namespace=NAME)
    said = scene.refused(23, "restore", "--to", "latest", "--yes")
    assert "namespace kubepolaris of" in said and "is in use: it has Deployment/kubepolaris-frontend" in said
    assert scenario.databases(empty.target) == []


@pytest.mark.slow
def test_a_secret_that_nobody_has(empty: Recovered) -> None:
    """Of a bundle taken when a pod referred to a Secret that was not there."""
    change: dict[str, Any] = {"spec": {"template": {"spec": {"imagePullSecrets": [{"name": "registry"}]}}}}
    empty.origin.patch("Deployment", NAME, "kubepolaris-backend", change)
    try:
        empty.made.ok("backup", "application")
        scenario.next_second(empty.source)
        empty.source.execute(f"INSERT INTO {NAME}.operation_logs (username) VALUES ('admin')")
        empty.made.ok("backup", "incremental")
        said = empty.scene.refused(26, "restore", "--to", "latest", "--yes")
        assert "Secret registry, which Deployment/kubepolaris-backend refers to, is neither in application bundle" in said
        assert changes(empty) == []
    finally:
        change["spec"]["template"]["spec"]["imagePullSecrets"] = None
        empty.origin.patch("Deployment", NAME, "kubepolaris-backend", change)
