"""The kinds of objects kpbackup handles by itself, and the order in which an application's objects are made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind and where its objects lie."""

    api_version: str
    name: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    @property
    def root(self) -> str:
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"


NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
SECRET = Kind("v1", "Secret", "secrets")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SERVICE = Kind("v1", "Service", "services")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
POD = Kind("v1", "Pod", "pods")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
STATEFUL_SET = Kind("apps/v1", "StatefulSet", "statefulsets")
DAEMON_SET = Kind("apps/v1", "DaemonSet", "daemonsets")
JOB = Kind("batch/v1", "Job", "jobs")
CRON_JOB = Kind("batch/v1", "CronJob", "cronjobs")
INGRESS = Kind("networking.k8s.io/v1", "Ingress", "ingresses")
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
AUTOSCALER = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
ROLE = Kind("rbac.authorization.k8s.io/v1", "Role", "roles")
ROLE_BINDING = Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")
CLUSTER_ROLE = Kind("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", namespaced=False)
CLUSTER_ROLE_BINDING = Kind("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False)

# In the order in which they are made: what others refer to comes first, what sends users comes last.
KINDS = (
    NAMESPACE, NETWORK_POLICY, SERVICE_ACCOUNT, SECRET, CONFIG_MAP, CLAIM, CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING,
    SERVICE, POD, STATEFUL_SET, DEPLOYMENT, DAEMON_SET, JOB, CRON_JOB, DISRUPTION_BUDGET, AUTOSCALER, INGRESS,
)
WORKLOADS = (DEPLOYMENT, STATEFUL_SET)
_BY_NAME = {(kind.api_version, kind.name): kind for kind in KINDS}
_ORDER = {kind.name: number for number, kind in enumerate(KINDS)}


def kind_of(api_version: str, name: str) -> Kind | None:
    return _BY_NAME.get((api_version, name))


def named(name: str) -> Kind | None:
    """The kind of a bare name such as `StatefulSet`, in any case of letters."""
    return next((kind for kind in KINDS if kind.name.lower() == name.lower()), None)


def order(name: str) -> int:
    """Where objects of a kind stand in the order of making; kinds we do not know come before workloads."""
    return _ORDER.get(name, _ORDER["Service"])
