"""The clusters of the story: one in which KubePolaris runs on the source, and an empty one to recover it into.

Both are the test-only API server: no real apiserver can run here. What answers HTTP is real, and so are the database behind it
and the Helm engine that deploys it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.servers.database import Server
from tests.servers.kubepolaris import deployed, network
from tests.servers.kubepolaris.platform import Platform
from tests.servers.kubernetes.cluster import Cluster, kubernetes_cluster


@dataclass
class Clusters:
    """Started when they are needed; `directory` holds their kubeconfigs."""

    directory: Path
    public: network.Proxy | None = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _origin: ExitStack = field(default_factory=ExitStack)

    def deploy(self, source: Server) -> None:
        """KubePolaris in the first cluster, on the source."""
        cluster = self._origin.enter_context(_running(source))
        deployed.install(cluster, str(cluster.write_kubeconfig(self.origin_config)))

    @property
    def origin_config(self) -> Path:
        return self.directory / "kubeconfig-origin"

    def lose_origin(self) -> None:
        """The first cluster is gone, with everything that ran in it."""
        self._origin.close()

    def recovery_settings(self, target: Server, password: Path) -> Mapping[str, Any]:
        """An empty cluster whose database will be `target`, and the settings of the five steps into it."""
        cluster = self._stack.enter_context(_running(target))
        inside = self._stack.enter_context(network.service(cluster, deployed.NAME, f"{deployed.NAME}-backend"))
        self.public = self._stack.enter_context(network.ingress(cluster, deployed.NAME))
        config = cluster.write_kubeconfig(self.directory / "kubeconfig-new")
        password.touch(mode=0o600)
        password.write_text(deployed.PASSWORD)
        return {
            "application": {"kubeconfig": str(config)},
            "tiers": {"profile": True},
            "prepare": {"driver": "kubernetes", "database": f"{deployed.NAME}-mysql"},
            "deploy": {"driver": "kubernetes"},
            "verify": {"profile": "kubepolaris", "url": inside.url, "user": deployed.USER, "password_file": str(password)},
            "switch": {"driver": "kubernetes", "ingress": deployed.NAME, "public_url": self.public.url},
        }

    def lose_new(self) -> None:
        """The second cluster, before its database ends."""
        self.public = None
        self._stack.close()


@contextmanager
def _running(database: Server) -> Iterator[Cluster]:
    with kubernetes_cluster() as cluster:
        platform = Platform(cluster, database)
        cluster.workloads.run = platform
        try:
            yield cluster
        finally:
            platform.end()
