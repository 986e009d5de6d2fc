"""A scene for the five steps: a KubePolaris in one cluster that is backed up, and an empty cluster to recover it into.

The database, the back end, the front end and the Ingress really answer; the clusters are the test-only API server.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql

from demo import data
from tests.integration import scenario
from tests.integration.scenario import Scene
from tests.servers.database import Server
from tests.servers.kubepolaris import deployed, network
from tests.servers.kubepolaris.deployed import ANNOTATIONS, MARKER, NAME, PASSWORD, USER
from tests.servers.kubepolaris.platform import Platform
from tests.servers.kubernetes import validation
from tests.servers.kubernetes.access import Rule, rule
from tests.servers.kubernetes.cluster import Cluster, kubernetes_cluster
from tests.servers.mariadb import mariadb_server

__all__ = ["ANNOTATIONS", "MARKER", "NAME", "PASSWORD", "USER", "Recovered", "stage"]
TOKENS: dict[str, tuple[Rule, ...]] = {"admin": (rule("*", "*"),)}


@dataclass
class Recovered:
    """The recovering side: a cluster, its nodes, the target server, and the addresses kpbackup and users come by.

    `made` is the side that is backed up, `origin` its cluster, `source` its server.
    """

    made: Scene
    origin: Cluster
    source: Server
    cluster: Cluster
    platform: Platform
    target: Server
    scene: Scene
    service: network.Proxy
    ingress: network.Proxy

    @property
    def recordings(self) -> Path:
        """A folder of the application's that is in the bundle."""
        return Path(self.made.settings["application"]["files"][0])

    @property
    def restored_files(self) -> Path:
        return Path(self.settings()["deploy"]["files_directory"])

    def clear(self) -> None:
        """An empty cluster and an empty server again."""
        for namespace in ("kubepolaris", "elsewhere"):
            if any(one["metadata"]["name"] == namespace for one in self.cluster.list("Namespace")):
                self.cluster.delete("Namespace", "", namespace)
        self.platform.is_dead.clear()
        self.platform.new_volume()
        if not self.target.is_running:
            self.target.restart()
        scenario.wipe(self.target, users=["'kp_app'@'127.0.0.1'"])

    def has_event(self, event: str) -> bool:
        """Whether the journal of any run has it: read here without kpbackup, which is quicker."""
        return any(f'"{event}"'.encode() in one.read_bytes() for one in (self.made.repository / "recoveries").glob("*/*"))

    def settings(self) -> dict[str, Any]:
        recovery: dict[str, Any] = self.scene.settings["recovery"]
        return recovery


def fill(server: Server) -> None:
    """A tiny KubePolaris database with a user for verification."""
    with pymysql.connect(host=server.host, port=server.port, user="root", autocommit=True, charset="utf8mb4") as connection:
        data.load(connection, data.SIZES["tiny"])
        deployed.add_user(connection)


@contextmanager
def backed_up(directory: Path, source: Server) -> Iterator[tuple[Scene, Cluster]]:
    """A running release on `source`, with one full backup and a few transactions after it in the archive."""
    fill(source)
    with kubernetes_cluster(tokens=TOKENS, check=validation.check) as cluster:
        platform = Platform(cluster, source)
        cluster.workloads.run = platform
        try:
            config = str(cluster.write_kubeconfig(directory / "kubeconfig-source"))
            deployed.install(cluster, config)
            scene = Scene(directory / "scene", source=source)
            recordings = directory / "recordings"
            for name in ("1/shell.cast", "2/shell.cast"):
                (recordings / name).parent.mkdir(parents=True)
                (recordings / name).write_text(f"{MARKER} {name}\n" * 1000)
            scene.settings["application"] = {
                "kubeconfig": config, "namespace": NAME, "release": NAME, "files": [str(recordings)],
            }
            scene.ok("init", "--keys", str(scene.keys))
            scene.ok("backup", "full")
            for number in range(20):
                source.execute(f"INSERT INTO {NAME}.operation_logs (username, action) VALUES ('admin', 'after {number}')")
            scene.ok("backup", "incremental")
            yield scene, cluster
        finally:
            platform.end()


@contextmanager
def recovering(directory: Path, made: Scene, origin: Cluster, source: Server, target: Server) -> Iterator[Recovered]:
    """An empty cluster and an empty target, with settings that drive steps 1, 3 and 5 there."""
    with ExitStack() as stack:
        cluster = stack.enter_context(kubernetes_cluster(tokens=TOKENS, check=validation.check))
        platform = Platform(cluster, target, starts_database=True)
        cluster.workloads.run = platform
        stack.callback(platform.end)
        inside = stack.enter_context(network.service(cluster, NAME, "kubepolaris-backend"))
        public = stack.enter_context(network.ingress(cluster, NAME))
        scene = Scene(directory)
        scene.settings = {name: made.settings[name] for name in ("repository", "encryption", "signing")}
        password = directory / "verification-password"
        password.write_text(PASSWORD)
        scene.settings["recovery"] = {
            "target": scenario.target_login(target),
            "application": {
                "kubeconfig": str(cluster.write_kubeconfig(directory / "kubeconfig-target")), "ready_timeout": "180s",
            },
            "prepare": {"driver": "kubernetes", "database": "kubepolaris-mysql"},
            "deploy": {"driver": "kubernetes", "files_directory": str(directory / "files")},
            "verify": {"profile": "kubepolaris", "url": inside.url, "user": USER, "password_file": str(password)},
            "switch": {"driver": "kubernetes", "ingress": NAME, "public_url": public.url, "public_timeout": "60s"},
        }
        yield Recovered(made, origin, source, cluster, platform, target, scene, inside, public)


@contextmanager
def stage(directory: Path) -> Iterator[Recovered]:
    """Both sides, on two real MariaDB servers."""
    with (
        mariadb_server(directory / "source", server_id=71) as source,
        mariadb_server(directory / "target", server_id=72) as target,
        backed_up(directory, source) as (made, origin),
        recovering(directory, made, origin, source, target) as recovered,
    ):
        yield recovered
