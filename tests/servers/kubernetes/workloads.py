"""What stands for controllers and kubelets: workloads get a status, and their programs are run by whoever sets up the cluster.

A `runner` is called with a workload (Deployment or StatefulSet) and how many pods it should have; it starts or stops what stands
for them and returns the addresses of those that are ready. It is asked again and again, so it must be quick and idempotent.
Jobs are complete at once, or end as `run_job` says. Nothing else is controlled: there are no pods, no endpoints, no volumes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from tests.servers.kubernetes import resources
from tests.servers.kubernetes.resources import Object, Resource
from tests.servers.kubernetes.store import Refused, Store

LOOK_AGAIN_S = 0.1  # how soon a program that became ready is seen
Address = tuple[str, int]
Runner = Callable[[Object, int], list[Address]]

DEPLOYMENT = Resource("apps", "v1", "deployments", "Deployment")
STATEFUL_SET = Resource("apps", "v1", "statefulsets", "StatefulSet")
JOB = Resource("batch", "v1", "jobs", "Job")
SERVICE = Resource("", "v1", "services", "Service")


def always_ready(workload: Object, replicas: int) -> list[Address]:
    """The runner of clusters in which nothing really runs."""
    return [("127.0.0.1", 9)] * replicas


class Workloads:
    """The loop. `run` may be replaced at any time."""

    def __init__(self, store: Store, run: Runner = always_ready) -> None:
        self.store, self.run = store, run
        self.run_job: Callable[[Object], bool] = lambda job: True
        self.failure: Exception | None = None
        self._ready: dict[tuple[str, str, str], list[Address]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="workloads", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join(180)

    def behind(self, namespace: str, service: str) -> list[Address]:
        """The ready addresses a Service selects."""
        try:
            selector = self.store.get(SERVICE, namespace, service).get("spec", {}).get("selector") or {}
        except Refused:
            return []
        found: list[Address] = []
        for resource in (DEPLOYMENT, STATEFUL_SET):
            for workload in self.store.list(resource, namespace):
                labels = workload["spec"]["template"]["metadata"].get("labels", {})
                if selector and selector.items() <= labels.items():
                    found += self._ready.get((resource.plural, namespace, workload["metadata"]["name"]), [])
        return found

    def _loop(self) -> None:
        try:
            while not self._ended.is_set():
                for resource in (DEPLOYMENT, STATEFUL_SET):
                    self._tend(resource)
                for job in self.store.list(JOB):
                    self._complete(job)
                self._ended.wait(LOOK_AGAIN_S)
        except Exception as exc:  # a defect of the test: kept for whoever asks
            self.failure = exc

    def _tend(self, resource: Resource) -> None:
        there = set()
        for workload in self.store.list(resource):
            metadata = workload["metadata"]
            key = (resource.plural, metadata["namespace"], metadata["name"])
            there.add(key)
            replicas = workload["spec"].get("replicas", 1)
            self._ready[key] = self.run(workload, replicas)
            self._status(resource, workload, _status(workload, replicas, len(self._ready[key])))
        for key in [key for key in self._ready if key[0] == resource.plural and key not in there]:
            gone = {"kind": resource.kind, "metadata": {"namespace": key[1], "name": key[2]}, "spec": {}}
            self.run(gone, 0)
            del self._ready[key]

    def _complete(self, job: Object) -> None:
        if job.get("status", {}).get("conditions"):
            return
        is_well = self.run_job(job)
        conditions = [{"type": "Complete" if is_well else "Failed", "status": "True"}]
        counted = "succeeded" if is_well else "failed"
        self._status(JOB, job, {counted: 1, "conditions": conditions, "startTime": job["metadata"]["creationTimestamp"]})

    def _status(self, resource: Resource, found: Object, status: Object) -> None:
        metadata = found["metadata"]
        known = resources.find(resource.group, resource.version, resource.plural)
        assert known is not None
        try:
            self.store.replace(known, metadata["namespace"], metadata["name"], {"status": status}, part="status")
        except Refused:
            pass  # deleted meanwhile


def _status(workload: Object, replicas: int, ready: int) -> Object:
    ready = min(ready, replicas)
    conditions = [
        {"type": "Available", "status": "True" if ready >= replicas else "False", "reason": "MinimumReplicasAvailable"},
        {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
    ]
    status = {
        "observedGeneration": workload["metadata"]["generation"], "replicas": replicas, "updatedReplicas": replicas,
        "readyReplicas": ready, "availableReplicas": ready, "conditions": conditions,
    }
    if workload["kind"] == "StatefulSet":
        revision = f"{workload['metadata']['name']}-1"
        status |= {"currentReplicas": replicas, "currentRevision": revision, "updateRevision": revision}
    return status


def environment(store: Store, workload: Object, *, container: int = 0) -> dict[str, str]:
    """The environment a container would get: plain values and those of Secrets and ConfigMaps.

    Raises:
        Refused: a Secret, ConfigMap or key it names is not there; a kubelet would not start the container.
    """
    namespace = workload["metadata"]["namespace"]
    found = {}
    for entry in workload["spec"]["template"]["spec"]["containers"][container].get("env", ()):
        source = entry.get("valueFrom") or {}
        if "secretKeyRef" in source:
            found[entry["name"]] = _secret_value(store, namespace, source["secretKeyRef"])
        else:
            found[entry["name"]] = str(entry.get("value", ""))
    return found


def _secret_value(store: Store, namespace: str, reference: Object) -> str:
    import base64

    secret = store.get(Resource("", "v1", "secrets", "Secret"), namespace, reference["name"])
    data = secret.get("data") or {}
    if reference["key"] not in data:
        raise Refused(404, "NotFound", f"Secret {reference['name']} has no key {reference['key']}")
    return base64.b64decode(data[reference["key"]]).decode()


def image(workload: Object, *, container: int = 0) -> str:
    return str(workload["spec"]["template"]["spec"]["containers"][container]["image"])


def names(workloads: Iterable[Object]) -> list[str]:
    return [str(one["metadata"]["name"]) for one in workloads]
