"""What a cluster shows of an application and of the alerts around it: read only, each kind by itself.

A kind that the account may not read hides itself and nothing else. A cluster that cannot be asked at all is an error.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses

from kpbackup import errors
from kpbackup.kubernetes.availability import Seen
from kpbackup.kubernetes.client import Cluster
from kpbackup.kubernetes.kinds import AUTOSCALER, DISRUPTION_BUDGET, INGRESS, SECRET, SERVICE, WORKLOADS, Kind
from kpbackup.kubernetes.objects import Object

AROUND = (AUTOSCALER, DISRUPTION_BUDGET, SERVICE, INGRESS)
_RULE = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule"}


def look(cluster: Cluster, labels: str) -> Seen:
    """The workloads with these labels, and what is around them in the namespace.

    Raises:
        ClusterError: the cluster cannot be asked, or does not accept the account.
    """
    found: dict[str, tuple[Object, ...]] = {}
    hidden: dict[str, str] = {}
    for kind in (*WORKLOADS, *AROUND):
        try:
            found[kind.name] = tuple(cluster.all(kind, labels=labels if kind in WORKLOADS else ""))
        except errors.PrivilegeMissing as exc:
            hidden[kind.name] = exc.message
    certificates: dict[str, bytes | None] = {}
    entries = [entry for one in found.get(INGRESS.name, ()) for entry in one["spec"].get("tls") or ()]
    for name in sorted({str(entry["secretName"]) for entry in entries if entry.get("secretName")}):
        try:
            certificates[name] = _certificate(cluster.find(SECRET, name))
        except errors.PrivilegeMissing as exc:
            hidden[f"{SECRET.name} {name}"] = exc.message
    return Seen(found, hidden, certificates)


def _certificate(secret: Object | None) -> bytes | None:
    """The public half alone; b'' when there is none in it."""
    if secret is None:
        return None
    try:
        return base64.b64decode((secret.get("data") or {}).get("tls.crt", ""))
    except binascii.Error:
        return b""


def rules(cluster: Cluster) -> tuple[list[Object], bool]:
    """The Prometheus operator's rules, and whether those of all namespaces were seen; else those of the cluster's namespace.

    Raises:
        ClusterError: the operator is not there, or the cluster cannot be asked.
        PrivilegeMissing: they may not be read.
    """
    kind = cluster.kind(_RULE)
    try:
        return cluster.all(_everywhere(kind)), True
    except errors.PrivilegeMissing:
        return cluster.all(kind), False


def _everywhere(kind: Kind) -> Kind:
    """The kind as if it lay in no namespace: its list is that of all namespaces."""
    return dataclasses.replace(kind, namespaced=False)
