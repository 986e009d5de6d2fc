"""A running cluster: `with kubernetes_cluster() as cluster:` and `cluster.write_kubeconfig(path)` for whoever is to use it."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.servers import exercised
from tests.servers.kubernetes.access import Access, Rule
from tests.servers.kubernetes.api import ApiServer
from tests.servers.kubernetes.resources import RESOURCES, Object, Resource
from tests.servers.kubernetes.store import Check, Store
from tests.servers.kubernetes.tls import write_certificate
from tests.servers.kubernetes.workloads import Runner, Workloads, always_ready


class Cluster:
    """The server and shortcuts to what it holds. Objects are read and made here without HTTP."""

    def __init__(self, server: ApiServer, workloads: Workloads, ca_file: Path) -> None:
        self.server, self.workloads, self.store = server, workloads, server.store
        self.ca_file = ca_file

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server.server_address[1]}"

    @property
    def access(self) -> Access:
        return self.server.access

    def get(self, kind: str, namespace: str, name: str) -> Object:
        return self.store.get(_of(kind), namespace, name)

    def list(self, kind: str, namespace: str = "") -> list[Object]:
        return self.store.list(_of(kind), namespace)

    def create(self, made: Object, *, namespace: str = "") -> Object:
        return self.store.create(_of(made["kind"]), namespace or made["metadata"].get("namespace", ""), made)

    def patch(self, kind: str, namespace: str, name: str, change: Object) -> Object:
        return self.store.patch(_of(kind), namespace, name, change, how="merge")

    def backdate(self, kind: str, namespace: str, name: str, made_at: str) -> None:
        self.store.backdate(_of(kind), namespace, name, made_at)

    def delete(self, kind: str, namespace: str, name: str) -> Object:
        return self.store.delete(_of(kind), namespace, name)

    def write_kubeconfig(self, path: Path, *, token: str = "admin", namespace: str = "default") -> Path:
        """A kubeconfig file for a token."""
        authority = base64.b64encode(self.ca_file.read_bytes()).decode()
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        return path


@contextmanager
def kubernetes_cluster(
    *, run: Runner = always_ready, tokens: Mapping[str, Sequence[Rule]] | None = None, check: Check = lambda found: "",
) -> Iterator[Cluster]:
    """A cluster with the namespace `default`; gone afterwards."""
    store = Store(check)
    directory = Path(tempfile.mkdtemp(prefix="kpb-kubernetes-"))
    certificate = write_certificate(directory)
    server, workloads = ApiServer(store, Access(tokens), certificate=certificate), Workloads(store, run)
    cluster = Cluster(server, workloads, certificate[0])
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="kubernetes", daemon=True)
    thread.start()
    workloads.start()
    exercised.record("a fake Kubernetes API", "of our own")
    try:
        yield cluster
    finally:
        workloads.end()
        server.is_ended.set()
        server.shutdown()
        server.server_close()
        thread.join(180)
        shutil.rmtree(directory, ignore_errors=True)
    if workloads.failure is not None:
        raise workloads.failure


def _of(kind: str) -> Resource:
    return next(resource for resource in RESOURCES if resource.kind == kind)
