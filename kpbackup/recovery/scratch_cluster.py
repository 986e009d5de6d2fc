"""A scratch server for a drill in Kubernetes: a StatefulSet in a scratch namespace, made, awaited, used and removed.

Its pod reaches nobody (`kubernetes/scratch.py`), so what is archived must come over an ordinary connection: the path `direct`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from kpbackup import errors
from kpbackup.kubernetes import client, scratch
from kpbackup.kubernetes.kinds import STATEFUL_SET
from kpbackup.mysql import server
from kpbackup.recovery import environment
from kpbackup.recovery.scratch_programs import Like

POLL_S = 0.3


@contextmanager
def started(wanted: scratch.Wanted, like: Like, *, host: str = "", port: int = 0) -> Iterator[server.Endpoint]:
    """An empty server like the source, removed when the block ends. `host` and `port` are where it is reached from here: its
    Service's name where nothing is given.

    Raises:
        ClusterError, PrivilegeMissing, TargetRefused: before anything of it runs. StepFailed: it does not come up or go.
    """
    password = secrets.token_urlsafe(24)
    with client.connect(wanted.access) as cluster:
        is_made = scratch.open_namespace(cluster)
        try:
            scratch.start(cluster, replace(wanted, args=tuple(like.server_options())), password)
            environment.await_ready(cluster, STATEFUL_SET, scratch.NAME, wanted.timeout_s)
            endpoint = server.Endpoint(host or f"{scratch.NAME}.{cluster.namespace}.svc", port or scratch.PORT, "root", password)
            _await_login(endpoint, wanted.timeout_s)
            yield endpoint
        finally:
            _remove(cluster, wanted.timeout_s, with_namespace=is_made)


def _remove(cluster: client.Cluster, timeout_s: float, *, with_namespace: bool) -> None:
    """The pod first: until it is gone the policy stays."""
    if cluster.find(STATEFUL_SET, scratch.NAME) is not None:
        cluster.scale(STATEFUL_SET, scratch.NAME, 0)
        environment.await_ready(cluster, STATEFUL_SET, scratch.NAME, timeout_s)
    scratch.remove(cluster, with_namespace=with_namespace)


def _await_login(endpoint: server.Endpoint, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            server.connect(endpoint).close()
            return
        except errors.ServerUnreachable as exc:
            if time.monotonic() > deadline:
                message = f"the scratch server of the drill is ready but cannot be reached: {exc.message}"
                hint = "may the drill's pod connect to it? see drill.kubernetes.host and the NetworkPolicies"
                raise errors.StepFailed(message, hint=hint) from exc
        time.sleep(POLL_S)
