"""What a cluster's nodes would run of KubePolaris: the back end and front end for Deployments, a real server for the database.

A database is what its volume holds: the passwords in its pod's environment count only when the volume is new, so that a Secret
made anew locks the application out, as with the real image. A back end whose login fails is not ready and is tried again.
"""

from __future__ import annotations

import threading
import time

from kpbackup.errors import ServerUnreachable
from tests.servers.database import Server
from tests.servers.kubepolaris.application import Application, Unavailable
from tests.servers.kubepolaris.network import Address, Proxy, front_end
from tests.servers.kubernetes import workloads
from tests.servers.kubernetes.cluster import Cluster
from tests.servers.kubernetes.resources import Object
from tests.servers.kubernetes.store import Refused

TRY_AGAIN_S = 0.5
ACCOUNT, DATABASE = "kp_app", "kubepolaris"  # the account the chart logs in with


class Platform:
    """The runner of a cluster's workloads. `database` is the server its StatefulSet stands for, which is started if it is not up
    and `starts_database`; `starts` counts back ends."""

    def __init__(self, cluster: Cluster, database: Server, *, starts_database: bool = False) -> None:
        self.cluster, self.database, self._starts_database = cluster, database, starts_database
        self.starts = 0
        self.is_dead: set[str] = set()  # names of Deployments whose processes answer nobody
        self._has_volume = False
        self._running: dict[tuple[str, str], tuple[object, Application | Proxy]] = {}
        self._failed: dict[tuple[str, str], float] = {}
        self._turn = threading.Lock()  # the cluster's loop and whoever ends this meet here
        self._has_ended = False

    def __call__(self, workload: Object, replicas: int) -> list[Address]:
        with self._turn:
            return [] if self._has_ended else self._tend(workload, replicas)

    def _tend(self, workload: Object, replicas: int) -> list[Address]:
        name = workload["metadata"]["name"]
        if workload["kind"] == "StatefulSet":
            return self._database(workload, replicas)
        if not name.endswith(("-backend", "-frontend")):
            return workloads.always_ready(workload, replicas)
        return self._program(workload, replicas)

    def new_volume(self) -> None:
        """As if the database's claim had been deleted: the next pod sets its passwords."""
        self._has_volume = False

    def end(self) -> None:
        """Every program is stopped, and none is started again."""
        with self._turn:
            self._has_ended = True
            for key in list(self._running):
                self._stop(key)

    def _database(self, workload: Object, replicas: int) -> list[Address]:
        if not replicas or not (self.database.is_running or self._starts_database):
            return []
        if not self.database.is_running:
            self.database.restart()
        if not self._has_volume:
            try:
                password = workloads.environment(self.cluster.store, workload)["MYSQL_PASSWORD"]
                self.database.execute(
                    "SET sql_log_bin = 0",
                    f"CREATE OR REPLACE USER '{ACCOUNT}'@'127.0.0.1' IDENTIFIED BY '{password}'",
                    f"GRANT ALL ON {DATABASE}.* TO '{ACCOUNT}'@'127.0.0.1'",
                )
            except (Refused, ServerUnreachable):
                return []  # asked again
            self._has_volume = True
        return [("127.0.0.1", self.database.port)]

    def _program(self, workload: Object, replicas: int) -> list[Address]:
        metadata = workload["metadata"]
        key = (metadata["namespace"], metadata["name"])
        wanted = workload["spec"].get("template")
        if key in self._running and (not replicas or self._running[key][0] != wanted):
            self._stop(key)
        if replicas and key not in self._running and time.monotonic() > self._failed.get(key, 0.0):
            program = self._front_end(*key) if key[1].endswith("-frontend") else self._back_end(workload)
            if program is None:
                self._failed[key] = time.monotonic() + TRY_AGAIN_S
            else:
                self._running[key] = (wanted, program)
        if key not in self._running or not replicas:
            return []
        if key[1] in self.is_dead:
            return [("127.0.0.1", 9)] * replicas  # its probes are content, and it answers nobody
        return [("127.0.0.1", int(self._running[key][1].server_address[1]))] * replicas

    def _back_end(self, workload: Object) -> Application | None:
        try:
            environ = workloads.environment(self.cluster.store, workload)
            there = self.cluster.workloads.behind(workload["metadata"]["namespace"], environ["DB_HOST"])
            if not there:
                return None
            made = Application(environ, there[0])
        except (Refused, Unavailable):
            return None
        self.starts += 1
        return made

    def _front_end(self, namespace: str, name: str) -> Proxy | None:
        backend = name.replace("-frontend", "-backend")
        if not self.cluster.workloads.behind(namespace, backend):
            return None  # its init container waits
        return front_end(lambda path: self.cluster.workloads.behind(namespace, backend))

    def _stop(self, key: tuple[str, str]) -> None:
        self._running.pop(key)[1].end()
