"""What kpbackup does inside a pod: the signing key as a Secret, waiting for Secrets, a repository made beside
a new database."""

from __future__ import annotations

import base64
import json
import shutil
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kpbackup import errors
from kpbackup.pipeline import sign
from kpbackup.service import cluster, notify, signing_secret
from kpbackup.service.messages import Message
from tests.integration.deployment import Deployment, deploy, until
from tests.integration.test_daemon import running
from tests.servers.database import Server
from tests.servers.kubernetes import validation
from tests.servers.kubernetes.access import EVERYTHING, rule
from tests.servers.kubernetes.cluster import Cluster as FakeCluster
from tests.servers.kubernetes.cluster import kubernetes_cluster

TOKEN = "KPTEST-service-account-token"


@dataclass
class Pod:
    """A pod's view of a cluster, and the cluster itself."""

    kubernetes: FakeCluster
    account: Path

    @property
    def cluster(self) -> cluster.Cluster:
        return cluster.Cluster(self.kubernetes.url, "backups", self.account)

    def secret(self, name: str, data: dict[str, str]) -> None:
        document = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
        self.kubernetes.create(document, namespace="backups")


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    account = tmp_path / "serviceaccount"
    account.mkdir()
    (account / "token").write_text(TOKEN)
    (account / "namespace").write_text("backups")
    with kubernetes_cluster(tokens={TOKEN: EVERYTHING}, check=validation.check) as running:
        shutil.copy(running.ca_file, account / "ca.crt")
        running.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "backups"}})
        yield Pod(running, account)


def test_the_signing_key_is_made_once_and_kept(pod: Pod) -> None:
    made = signing_secret.kept_signing_key(pod.cluster, "kpbackup-signing")
    stored = pod.kubernetes.get("Secret", "backups", "kpbackup-signing")["data"]
    assert sign.SigningKey.parse(base64.b64decode(stored["signing.key"]).decode()).public_key == made.public_key
    assert str(made.public_key) in base64.b64decode(stored["signing.pub"]).decode()
    again = signing_secret.kept_signing_key(pod.cluster, "kpbackup-signing")
    assert again.reveal() == made.reveal() and len(pod.kubernetes.list("Secret", "backups")) == 1


def test_of_two_that_make_it_at_once_both_use_the_first(pod: Pod) -> None:
    """The loser of the race finds the winner's key: its own GET came too early, its POST too late."""
    winner = sign.SigningKey.generate()

    class TooEarly(cluster.Cluster):
        def get(self, path: str) -> cluster.Document | None:
            found = super().get(path)
            if found is None:
                pod.secret("kpbackup-signing", {"signing.key": base64.b64encode(winner.reveal().encode()).decode()})
            return found

    loser = TooEarly(pod.kubernetes.url, "backups", pod.account)
    assert signing_secret.kept_signing_key(loser, "kpbackup-signing").public_key == winner.public_key


@pytest.mark.parametrize("data", [{}, {"signing.key": "eA=="}, {"signing.key": base64.b64encode(b"no key").decode()}])
def test_a_secret_without_a_signing_key_is_refused(pod: Pod, data: dict[str, str]) -> None:
    pod.secret("other", data)
    with pytest.raises(errors.KeyProblem, match="Secret other"):
        signing_secret.kept_signing_key(pod.cluster, "other")


def test_missing_rights_and_a_missing_server_are_told(pod: Pod) -> None:
    pod.kubernetes.access.tokens[TOKEN] = (rule("get", "secrets"),)
    with pytest.raises(errors.PrivilegeMissing, match="the service account may not"):
        signing_secret.kept_signing_key(pod.cluster, "kpbackup-signing")
    (pod.account / "token").write_text("wrong")
    with pytest.raises(errors.PrivilegeMissing, match="401"):
        pod.cluster.get("/api/v1/namespaces/backups/secrets/any")
    nobody = cluster.Cluster("https://127.0.0.1:1", "backups", pod.account)
    with pytest.raises(errors.ServerUnreachable, match="cannot read /api/v1/nodes"):
        nobody.get("/api/v1/nodes")


def test_a_failure_becomes_an_event_of_the_pod(pod: Pod) -> None:
    send = notify.pod_events(pod.cluster, "kpbackup-7d9f-x")
    message = Message("failure", "error", "full", "shop-db", "shop-db: full failed", "x" * 3000, datetime(2026, 5, 1, tzinfo=UTC))
    send(message)
    (event,) = pod.kubernetes.list("Event", "backups")  # judged by Kubernetes' own schema when it was stored
    assert event["involvedObject"] == {"apiVersion": "v1", "kind": "Pod", "name": "kpbackup-7d9f-x", "namespace": "backups"}
    assert (event["type"], event["reason"], len(event["message"])) == ("Warning", "BackupFailed", 1024)
    pod.kubernetes.access.tokens[TOKEN] = (rule("create", "secrets"),)
    with pytest.raises(notify.Refused, match="may not") as caught:
        send(message)
    assert caught.value.final


def test_a_pod_knows_its_cluster(pod: Pod, tmp_path: Path) -> None:
    port = urllib.parse.urlsplit(pod.kubernetes.url).port
    environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(port)}
    assert cluster.in_cluster(environ, account=pod.account) == pod.cluster
    assert cluster.in_cluster({}, account=pod.account) is None
    assert cluster.in_cluster(environ, account=tmp_path) is None
    assert pod.cluster.get("/api/v1/namespaces/backups/secrets/none") is None


def test_init_makes_no_private_identity_in_a_cluster(tmp_path: Path, mariadb: Server) -> None:
    made = deploy(tmp_path / "deployment", mariadb)
    refused = made.run("init", "--secret", "kpbackup-signing")
    assert refused.returncode == 10 and "--secret works inside a Kubernetes pod" in refused.stderr
    bare = Deployment(tmp_path / "bare", {key: made.settings[key] for key in ("source", "repository")})
    bare.directory.mkdir()
    bare.write()
    refused = bare.run("init", "--secret", "kpbackup-signing")
    assert refused.returncode == 11 and "encryption.recipients is empty" in refused.stderr


def test_init_if_missing_is_content_with_what_is_there_if_the_key_fits(tmp_path: Path, mariadb: Server) -> None:
    made = deploy(tmp_path / "deployment", mariadb)
    assert made.run("init").returncode == 16
    found = made.json("init", "--if-missing")
    assert found["repository"] == made.open().id
    (made.keys / "other.key").write_text(sign.SigningKey.generate().reveal())
    foreign = made.json("--set", f"signing.key_file={made.keys / 'other.key'}", "init", "--if-missing", code=18)
    assert "error" in foreign


def test_a_daemon_waits_for_a_missing_secret_and_names_it(tmp_path: Path, mariadb: Server) -> None:
    made = deploy(tmp_path / "deployment", mariadb)
    mounted = tmp_path / "signing.key"
    origin = "Secret kpbackup-signing, key signing.key,"
    made.settings["signing"]["key_file"] = str(mounted)
    required = [{"path": str(mounted), "origin": origin}]
    with running(made, required_files=required) as daemon:
        first = json.loads(daemon.log.read_text().splitlines()[0])
        assert (first["event"], first["level"], first["origin"]) == ("file_missing", "error", origin)
        status, body = daemon.get("/api/health/ready")
        assert status == 503 and json.loads(body)["ready"] is False
        assert json.loads(body)["reason"] == f"{origin} is missing ({mounted})"
        assert daemon.get("/api/health/live") == (200, '{"alive": true}\n')
        assert origin in daemon.get("/")[1] and daemon.get("/api/health")[0] == 503
        shutil.copy(made.keys / "signing.key", mounted)
        until(lambda: daemon.get("/api/health/ready")[0] == 200, what="the daemon to go on by itself")
        assert daemon.get("/api/health/live")[0] == 200
        daemon.stop()


def test_a_daemon_that_waits_can_be_stopped_and_a_job_does_not_wait(tmp_path: Path, mariadb: Server) -> None:
    made = deploy(tmp_path / "deployment", mariadb)
    required = [{"path": str(tmp_path / "none"), "origin": "Secret kpbackup-source, key password,"}]
    with running(made, required_files=required) as daemon:
        daemon.stop()
    made.settings["service"] = {"required_files": required}
    made.write()
    refused = made.run("backup", "full")
    assert refused.returncode == 11
    assert "file_missing" in refused.stderr.splitlines()[0] and "Secret kpbackup-source" in refused.stderr.splitlines()[0]


def test_a_daemon_beside_a_new_database_makes_the_repository(tmp_path: Path, mariadb: Server) -> None:
    made = deploy(tmp_path / "deployment", mariadb)
    shutil.rmtree(made.store)
    with running(made, options=("--init",)) as daemon:
        until(lambda: daemon.last_success("full"), what="the first full backup")
        assert daemon.events("repository_created")
        daemon.stop()
    with running(made, name="two", options=("--init",)) as daemon:
        until(lambda: daemon.get("/api/health/ready")[0] == 200, what="the second start")
        assert not daemon.events("repository_created")
        daemon.stop()
