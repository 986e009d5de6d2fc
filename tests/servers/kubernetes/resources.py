"""The kinds this server knows, and the discovery documents made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Resource:
    """One kind. `subresources` can be among `status` and `scale`; a kind with `verbs` ("create",) is asked and never stored."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def is_stored(self) -> bool:
        return "list" in self.verbs


_SCALED = ("status", "scale")
_SHORT = {
    "namespaces": "ns", "configmaps": "cm", "services": "svc", "deployments": "deploy", "statefulsets": "sts", "ingresses": "ing",
}

RESOURCES = (
    Resource("", "v1", "namespaces", "Namespace", namespaced=False, subresources=("status",)),
    Resource("", "v1", "secrets", "Secret"),
    Resource("", "v1", "configmaps", "ConfigMap"),
    Resource("", "v1", "services", "Service", subresources=("status",)),
    Resource("", "v1", "serviceaccounts", "ServiceAccount"),
    Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", subresources=("status",)),
    Resource("", "v1", "pods", "Pod", subresources=("status",)),
    Resource("", "v1", "events", "Event"),
    Resource("apps", "v1", "deployments", "Deployment", subresources=_SCALED),
    Resource("apps", "v1", "statefulsets", "StatefulSet", subresources=_SCALED),
    Resource("apps", "v1", "replicasets", "ReplicaSet", subresources=_SCALED),
    Resource("apps", "v1", "daemonsets", "DaemonSet", subresources=("status",)),
    Resource("batch", "v1", "jobs", "Job", subresources=("status",)),
    Resource("batch", "v1", "cronjobs", "CronJob", subresources=("status",)),
    Resource("networking.k8s.io", "v1", "ingresses", "Ingress", subresources=("status",)),
    Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"),
    Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", subresources=("status",)),
    Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", subresources=("status",)),
    Resource("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False),
    Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    Resource("coordination.k8s.io", "v1", "leases", "Lease"),
    Resource("monitoring.coreos.com", "v1", "prometheusrules", "PrometheusRule"),  # as if the Prometheus operator were installed
    Resource(
        "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False, verbs=("create",)
    ),
)


def find(group: str, version: str, plural: str) -> Resource | None:
    """The resource behind a path, None when this server has none."""
    return next((r for r in RESOURCES if (r.group, r.version, r.plural) == (group, version, plural)), None)


def versions() -> Object:
    """GET /api."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def groups() -> Object:
    """GET /apis."""
    names = list(dict.fromkeys((r.group, r.version) for r in RESOURCES if r.group))
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(*pair) for pair in names]}


def _group(group: str, version: str) -> Object:
    offered = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [offered], "preferredVersion": offered}


def resource_list(group: str, version: str) -> Object | None:
    """GET /api/v1 and /apis/GROUP/VERSION, None for an unknown one."""
    found = [r for r in RESOURCES if (r.group, r.version) == (group, version)]
    if not found:
        return None
    listed = [entry for resource in found for entry in _entries(resource)]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": found[0].api_version, "resources": listed}


def openapi_index() -> Object:
    """GET /openapi/v3."""
    places = [f"apis/{r.api_version}" if r.group else "api/v1" for r in RESOURCES]
    return {"paths": {place: {"serverRelativeURL": f"/openapi/v3/{place}?hash=1"} for place in dict.fromkeys(places)}}


def openapi(group: str, version: str) -> Object:
    """GET /openapi/v3/...: no schemas; it says that this server checks fields itself, so that clients need not."""
    paths = {}
    for resource in (r for r in RESOURCES if (r.group, r.version) == (group, version)):
        kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
        parameters = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string", "uniqueItems": True}}]
        patch = {"x-kubernetes-group-version-kind": kind, "parameters": parameters, "responses": {}}
        paths[f"/{resource.api_version}/{resource.plural}/{{name}}"] = {"patch": patch}
    return {"openapi": "3.0.0", "info": {"title": "test", "version": "1"}, "paths": paths, "components": {"schemas": {}}}


def _entries(resource: Resource) -> list[Object]:
    shared: Object = {"singularName": resource.kind.lower(), "namespaced": resource.namespaced, "kind": resource.kind}
    short = {"shortNames": [_SHORT[resource.plural]]} if resource.plural in _SHORT else {}
    entries = [{"name": resource.plural, "verbs": list(resource.verbs), **shared, **short}]
    for name in resource.subresources:
        of = {"kind": "Scale", "group": "autoscaling", "version": "v1"} if name == "scale" else {}
        entries.append({"name": f"{resource.plural}/{name}", "verbs": ["get", "patch", "update"], **shared, **of})
    return entries
