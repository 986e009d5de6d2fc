"""The application's part of a plan, and step 1 in Kubernetes: namespace, Secrets, the database started, the application held.

Every change can be repeated: namespaces and objects are applied, workloads are held at 0 replicas after their number was
written down on them. A crash leaves some of them made; the next run makes the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from kpbackup import errors
from kpbackup.kubernetes import client, objects, release
from kpbackup.kubernetes.kinds import (
    NAMESPACE,
    STATEFUL_SET,
    WORKLOADS,
    Kind,
)
from kpbackup.model.application import Bundle
from kpbackup.model.manifest import ApplicationManifest
from kpbackup.recovery.steps import Environment, RecoveryRequest, Step
from kpbackup.repository import applications

Object = dict[str, Any]

HELD = "kpbackup.io/replicas"  # annotation: how many replicas a held workload had
RUN = "kpbackup.io/recovery"  # annotation: the run that made or took over an object
POLL_S = 0.3
_MADE_FIRST = ("Secret", "ConfigMap", "ServiceAccount")


@dataclass(frozen=True)
class ApplicationPlan:
    """What the drivers will do, in which namespace, as which release, from which bundle."""

    manifest: ApplicationManifest
    bundle: Bundle
    namespace: str
    release: str
    warnings: tuple[str, ...] = ()

    @property
    def workloads(self) -> list[str]:
        """Names of its Deployments and StatefulSets."""
        return [self.renamed(objects.name_of(one)) for one in self.bundle.objects if one["kind"] in ("Deployment", "StatefulSet")]

    @property
    def is_renamed(self) -> bool:
        return self.release != self.bundle.release

    def renamed(self, name: str) -> str:
        """The name an object of the bundle has in the recovered release."""
        old = self.bundle.release
        is_helms = self.is_renamed and bool(old) and name.startswith(old) and name in self._made_by_helm
        return self.release + name[len(old) :] if is_helms else name

    @property
    def _made_by_helm(self) -> set[str]:
        """Only their names come from the release's; a certificate's or a pull Secret's is what somebody chose."""
        return {objects.name_of(one) for one in self.bundle.objects if objects.owner(one) == self.bundle.release}

    @property
    def fullname(self) -> str:
        """What the chart's names begin with: the release if the chart's name is in it, else release and chart."""
        chart = self.bundle.chart.rpartition("-")[0]
        return self.release if not chart or chart in self.release else f"{self.release}-{chart}"


def plan(request: RecoveryRequest, at: datetime, *, bundle_key: str = "") -> ApplicationPlan | None:
    """The application's plan for a recovery to `at`; None when no step is driven by Kubernetes. Reads the repository alone.

    Raises:
        UnreachableTarget: the repository holds no bundle.
        IntegrityError, KeyProblem: it cannot be opened.
    """
    environment = request.environment
    if environment is None or not any(request.driven_by_kubernetes(step) for step in Step):
        return None
    manifests = applications.all_manifests(request.repository)
    found = next((one for one in manifests if one.head.key == bundle_key), None) or applications.in_force(manifests, at)
    if found is None:
        raise errors.UnreachableTarget(
            f"{request.repository.backend.name} holds no application bundle, so its drivers have nothing to deploy",
            hint="set `application` where backups are made; or recover with the drivers manual or command",
        )
    bundle = applications.read_bundle(request.repository, found, request.identities)
    warnings = []
    if found.taken_at > at:
        warnings.append(f"the oldest application bundle is of {found.taken_at:%Y-%m-%dT%H:%M:%SZ}, after the asked point")
    if environment.database:
        database = bundle.find("StatefulSet", environment.database)
        if database is not None and objects.loses_its_data(database):
            warnings.append(f"StatefulSet/{environment.database} keeps its data in an emptyDir: deleting its pod deletes it")
    return ApplicationPlan(
        found, bundle, environment.access.namespace or bundle.namespace, environment.release or bundle.release, tuple(warnings)
    )


def connect(environment: Environment, planned: ApplicationPlan) -> client.Cluster:
    return client.connect(replace(environment.access, namespace=planned.namespace))


def release_of(planned: ApplicationPlan) -> release.Release:
    """Raises StepFailed when the bundle has no release."""
    if planned.bundle.record is None:
        raise errors.StepFailed(
            f"application bundle {planned.manifest.name} holds no Helm release",
            hint="set recovery.deploy.method: manifests",
        )
    return release.read(planned.bundle.record)


def prepare(request: RecoveryRequest, planned: ApplicationPlan, run: str) -> dict[str, str]:
    """Step 1: namespace, what the application reads when it starts, the application held, the database up.

    Raises:
        ClusterError, PrivilegeMissing, StepFailed.
    """
    environment = request.environment
    assert environment is not None
    with connect(environment, planned) as cluster:
        made = _make_namespace(cluster, run)
        held = _hold(cluster, environment, planned, run)
        first = [one for one in planned.bundle.objects if one["kind"] in _MADE_FIRST]
        for one in first:
            cluster.apply(marked(planned, one, run))
        if environment.database:
            _start_database(cluster, environment, planned, run)
    return {"namespace_created": "yes" if made else "no", "objects_applied": str(len(first)), "workloads_held": str(held)}


def marked(planned: ApplicationPlan, found: Object, run: str) -> Object:
    """An object of the bundle as it is to be in the recovered release: its name and namespace, whose it is, and by which run."""
    made = objects.wanted(found)
    if planned.is_renamed and objects.owner(found) == planned.bundle.release:
        made = objects.referring_to(made, planned.renamed, (planned.bundle.release, planned.release))
    metadata = made["metadata"]
    metadata["name"] = planned.renamed(metadata["name"])
    if metadata.get("namespace"):
        metadata["namespace"] = planned.namespace
    annotations = {**(metadata.get("annotations") or {}), RUN: run}
    if objects.owner(found) == planned.bundle.release and planned.release:  # else Helm would refuse to take it over
        annotations |= {objects.RELEASE_NAME: planned.release, objects.RELEASE_NAMESPACE: planned.namespace}
    metadata["annotations"] = annotations
    return made


def _make_namespace(cluster: client.Cluster, run: str) -> bool:
    try:
        if cluster.find(NAMESPACE, cluster.namespace) is not None:
            return False
        metadata = {"name": cluster.namespace, "annotations": {RUN: run}}
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    except client.AlreadyThere:
        return False
    except errors.PrivilegeMissing as exc:
        raise errors.PrivilegeMissing(
            f"namespace {cluster.namespace} of {cluster.name} cannot be looked at or made: {exc.message}",
            hint="make it by hand (`kubectl create namespace`), and let the account get namespaces",
        ) from exc
    return True


def _hold(cluster: client.Cluster, environment: Environment, planned: ApplicationPlan, run: str) -> int:
    """Brings the application's workloads to 0 replicas, the database's excepted, and waits until their pods are gone."""
    databases = {environment.database, *_databases(planned.bundle)}
    held = [
        (kind, one) for kind in WORKLOADS for one in cluster.all(kind)
        if objects.name_of(one) in planned.workloads and objects.name_of(one) not in databases
    ]
    for kind, one in held:
        annotations = one["metadata"].get("annotations") or {}
        if HELD not in annotations:
            note = {HELD: str(one["spec"].get("replicas", 1)), RUN: run}
            cluster.patch(kind, objects.name_of(one), {"metadata": {"annotations": note}})
        cluster.scale(kind, objects.name_of(one), 0)
    for kind, one in held:
        await_ready(cluster, kind, objects.name_of(one), environment.timeout_s)
    return len(held)


def _databases(bundle: Bundle) -> Iterator[str]:
    """StatefulSets that run a database server: restored into, never held."""
    for one in bundle.of_kind("StatefulSet"):
        if any(word in str(c.get("image", "")) for c in objects.containers(one) for word in ("mysql", "mariadb")):
            yield objects.name_of(one)


def _start_database(cluster: client.Cluster, environment: Environment, planned: ApplicationPlan, run: str) -> None:
    """The bundle's StatefulSet and the Services that select its pods, applied and awaited."""
    database = planned.bundle.find("StatefulSet", environment.database)
    assert database is not None
    labels = database["spec"]["template"]["metadata"].get("labels", {})
    for service in planned.bundle.of_kind("Service"):
        selector = service["spec"].get("selector") or {}
        if selector and selector.items() <= labels.items():
            cluster.apply(marked(planned, service, run))
    cluster.apply(marked(planned, database, run))
    await_ready(cluster, STATEFUL_SET, planned.renamed(environment.database), environment.timeout_s)


def release_held(cluster: client.Cluster, timeout_s: float, names: Sequence[str]) -> int:
    """Gives held workloads their replicas back and waits until they are ready; those an autoscaler leaves at 0 too. All first,
    then the waiting: a front end may wait for the back end."""
    held = [
        (kind, one) for kind in WORKLOADS for one in cluster.all(kind)
        if HELD in (one["metadata"].get("annotations") or {}) and objects.name_of(one) in names
    ]
    for kind, one in held:
        replicas = int(one["metadata"]["annotations"][HELD])
        if one["spec"].get("replicas", 1) == 0:
            cluster.scale(kind, objects.name_of(one), replicas)
        cluster.patch(kind, objects.name_of(one), {"metadata": {"annotations": {HELD: None}}})
    for kind, one in held:
        await_ready(cluster, kind, objects.name_of(one), timeout_s)
    return len(held)


def await_ready(cluster: client.Cluster, kind: Kind, name: str, timeout_s: float) -> None:
    """Returns when all pods of a workload are up to date and ready. Raises StepFailed after `timeout_s`."""
    wait_for(
        lambda: objects.is_ready(cluster.get(kind, name)), timeout_s,
        what=f"{kind.name} {name} in {cluster.namespace} is not ready",
    )


def wait_for(condition: Callable[[], bool], timeout_s: float, *, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise errors.StepFailed(
                f"{what} after {timeout_s:.0f} s", hint="`kubectl describe` says why; mend it, then resume"
            )
        time.sleep(POLL_S)


