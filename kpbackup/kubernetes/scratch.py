"""A database that lives for one drill in a cluster: its objects, and that nothing can get out of its pod.

The policy that blocks egress is made first and deleted last, when the pod is gone. Policies add up: another one in the namespace
that lets the pod out is an error before the pod starts. Whether the cluster's network enforces policies at all cannot be seen
from here.

A crash leaves the objects, all of one name; the next drill removes them once they are `LEFT_OVER_AFTER` old, and refuses before,
because they may be another drill's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from kpbackup import errors
from kpbackup.kubernetes import client
from kpbackup.kubernetes.kinds import NAMESPACE, NETWORK_POLICY, SECRET, SERVICE, STATEFUL_SET, Kind

Object = dict[str, Any]

NAME = "kpbackup-drill"
LABELS = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/managed-by": "kpbackup"}
LEFT_OVER_AFTER = timedelta(hours=6)  # longer than a drill's Job may run
PORT = 3306
_KINDS = (STATEFUL_SET, SERVICE, SECRET, NETWORK_POLICY)  # in the order in which they are deleted


@dataclass(frozen=True)
class Wanted:
    """The database to start. `args` are its server's options; `storage` is a size, '' for a directory on the node; `user_id` is
    whom the image runs as."""

    access: client.Access
    image: str
    args: Sequence[str] = ()
    storage: str = ""
    storage_class: str = ""
    user_id: int = 999
    timeout_s: float = 600.0


def open_namespace(cluster: client.Cluster) -> bool:
    """Judges rights, makes the namespace if it is not there (True then), and removes what a drill that was killed left.

    Raises:
        PrivilegeMissing: what is missing, all of it. StepFailed: another drill is under way.
    """
    judge_rights(cluster, needed(), what="a drill")
    is_made = _make_namespace(cluster)
    for kind in _KINDS:
        there = cluster.find(kind, NAME)
        if there is not None:
            _judge_left_over(cluster, there)
            cluster.delete(kind, NAME)
    return is_made


def judge_rights(cluster: client.Cluster, wanted: Iterable[tuple[str, Kind, str]], *, what: str) -> None:
    """Raises PrivilegeMissing naming all of `wanted` (verb, kind, subresource) that is missing."""
    missing = [
        f"{verb} {kind.plural}{f'/{part}' if part else ''}" for verb, kind, part in wanted
        if not cluster.may(verb, kind, subresource=part)
    ]
    if missing:
        raise errors.PrivilegeMissing(
            f"the account may not do what {what} needs in namespace {cluster.namespace} of {cluster.name}: {', '.join(missing)}",
            hint="give it these rights there by a Role and a RoleBinding; nothing was changed",
        )


def needed() -> Iterator[tuple[str, Kind, str]]:
    """(verb, kind, subresource): the rights in the scratch namespace."""
    for kind in _KINDS:
        yield from ((verb, kind, "") for verb in ("get", "create", "delete"))
    yield "list", NETWORK_POLICY, ""
    yield "patch", STATEFUL_SET, "scale"


def _make_namespace(cluster: client.Cluster) -> bool:
    try:
        if cluster.find(NAMESPACE, cluster.namespace) is not None:
            return False
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": cluster.namespace, "labels": LABELS}})
    except client.AlreadyThere:
        return False
    except errors.PrivilegeMissing:
        return False  # it may not look or make, so somebody else made it; if not, the next request says so
    return True


def _judge_left_over(cluster: client.Cluster, there: Object) -> None:
    made_at = datetime.fromisoformat(there["metadata"]["creationTimestamp"])
    if there["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") != "kpbackup":
        raise errors.TargetRefused(
            f"namespace {cluster.namespace} has a {there['kind']} {NAME} that is not kpbackup's",
            hint="give drills a namespace of their own (drill.kubernetes.namespace)",
        )
    if datetime.now(UTC) - made_at < LEFT_OVER_AFTER:
        raise errors.StepFailed(
            f"another drill is under way in namespace {cluster.namespace}, or was killed there: {there['kind']} {NAME} was made"
            f" at {made_at:%Y-%m-%dT%H:%M:%SZ}",
            hint=f"wait for it; or `kubectl -n {cluster.namespace} delete statefulset,service,secret,networkpolicy {NAME}`",
        )


def start(cluster: client.Cluster, wanted: Wanted, password: str) -> None:
    """Isolation first, then the database; returns when both are made, not when it is ready.

    Raises:
        TargetRefused: another policy lets the pod out.
    """
    cluster.create(network_policy())
    _judge_isolation(cluster)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": _metadata(), "stringData": {"password": password}}
    cluster.create(secret)
    cluster.create(service())
    cluster.create(stateful_set(wanted))


def remove(cluster: client.Cluster, *, with_namespace: bool) -> None:
    """Deletes everything; the database's pod must be gone. What is gone already is no error."""
    for kind in _KINDS:
        cluster.delete(kind, NAME)
    if with_namespace:
        cluster.delete(NAMESPACE, cluster.namespace)


def _judge_isolation(cluster: client.Cluster) -> None:
    for policy in cluster.all(NETWORK_POLICY):
        spec = policy.get("spec") or {}
        selector = spec.get("podSelector") or {}
        selects = not selector.get("matchLabels") or (selector["matchLabels"].items() <= LABELS.items())
        if selects and spec.get("egress"):
            raise errors.TargetRefused(
                f"NetworkPolicy {policy['metadata']['name']} in namespace {cluster.namespace} would let the drill's pod out:"
                " policies add up",
                hint="give drills a namespace of their own (drill.kubernetes.namespace)",
            )


def network_policy() -> Object:
    """Nothing goes out, name resolution included; in comes the database's port alone."""
    spec = {
        "podSelector": {"matchLabels": LABELS}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [{"port": PORT, "protocol": "TCP"}]}], "egress": [],
    }
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": _metadata(), "spec": spec}


def service() -> Object:
    """The name the drill reaches the database by."""
    spec = {"selector": LABELS, "ports": [{"name": "database", "port": PORT, "targetPort": "database"}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": _metadata(), "spec": spec}


def stateful_set(wanted: Wanted) -> Object:
    """One pod of the official images' kind: it takes root's password from the Secret when it first starts."""
    container = {
        "name": "database", "image": wanted.image, "args": list(wanted.args),
        "env": [{"name": "MYSQL_ROOT_PASSWORD", "valueFrom": {"secretKeyRef": {"name": NAME, "key": "password"}}}],
        "ports": [{"name": "database", "containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": "database"}, "periodSeconds": 5, "failureThreshold": 120},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "data", "mountPath": "/var/lib/mysql"}],
    }
    who = {"runAsNonRoot": True, "runAsUser": wanted.user_id, "runAsGroup": wanted.user_id, "fsGroup": wanted.user_id}
    pod = {
        "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 10,
        "securityContext": {**who, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container], "volumes": [_volume(wanted)],
    }
    spec = {
        "serviceName": NAME, "replicas": 1, "selector": {"matchLabels": LABELS},
        "template": {"metadata": {"labels": LABELS}, "spec": pod},
    }
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": _metadata(), "spec": spec}


def _volume(wanted: Wanted) -> Object:
    """A claim that goes with the pod, or a directory of the node."""
    if not wanted.storage:
        return {"name": "data", "emptyDir": {}}
    spec: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": wanted.storage}}}
    if wanted.storage_class:
        spec["storageClassName"] = wanted.storage_class
    return {"name": "data", "ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": LABELS}, "spec": spec}}}


def _metadata() -> Object:
    return {"name": NAME, "labels": LABELS}
