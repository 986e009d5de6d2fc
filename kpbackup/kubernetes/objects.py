"""Objects of an application judged without asking anybody: what they refer to, which images they run, what is the server's own.

Pure: objects in, values out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Object = dict[str, Any]

# what the server writes; never part of what somebody wanted
_OWN_METADATA = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink", "deletionTimestamp")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
INSTANCE = "app.kubernetes.io/instance"  # label: the release, in selectors too
_REFERRING = ("secretName", "serviceName", "serviceAccountName")
_REFERRED = ("secretKeyRef", "configMapKeyRef", "secretRef", "configMapRef", "configMap", "secret", "service")
RELEASE_NAME, RELEASE_NAMESPACE = "meta.helm.sh/release-name", "meta.helm.sh/release-namespace"


def wanted(found: Object) -> Object:
    """The object without what the server wrote into it: fit to be made again, elsewhere too."""
    made = copy.deepcopy(found)
    made.pop("status", None)
    metadata = made.get("metadata", {})
    for name in _OWN_METADATA:
        metadata.pop(name, None)
    (metadata.get("annotations") or {}).pop(_LAST_APPLIED, None)
    if made.get("kind") == "PersistentVolumeClaim":
        made["spec"].pop("volumeName", None)  # the volume stays with the claim that has it
        for name in [name for name in metadata.get("annotations") or {} if "volume" in name and "kubernetes.io/" in name]:
            del metadata["annotations"][name]
    if made.get("kind") == "Service":
        for name in ("clusterIP", "clusterIPs", "healthCheckNodePort"):
            if made["spec"].get(name) != "None":  # a headless Service says so itself
                made["spec"].pop(name, None)
    return made


def referring_to(found: Any, rename: Callable[[str], str], release: tuple[str, str], *, below: str = "") -> Any:
    """The object with other names in the places where it refers to Secrets, ConfigMaps, Services and service accounts, and with
    another release (old, new) in its labels and selectors. Its own name stays."""
    if isinstance(found, list):
        return [referring_to(one, rename, release, below=below) for one in found]
    if not isinstance(found, dict):
        return found
    made = {}
    for key, value in found.items():
        if isinstance(value, str) and (key in _REFERRING or (key == "name" and below in _REFERRED)):
            made[key] = rename(value)
        elif key == INSTANCE and value == release[0]:
            made[key] = release[1]
        else:
            made[key] = referring_to(value, rename, release, below=key)
    return made


def name_of(found: Object) -> str:
    return str(found["metadata"]["name"])


def identity(found: Object) -> str:
    """`Deployment/web`."""
    return f"{found.get('kind')}/{name_of(found)}"


def owner(found: Object) -> str:
    """The Helm release an object belongs to, '' for none."""
    return str((found["metadata"].get("annotations") or {}).get(RELEASE_NAME, ""))


def pod_spec(workload: Object) -> Object:
    """The pods' spec of a workload or pod, {} for anything else."""
    spec = workload.get("spec") or {}
    if workload.get("kind") == "CronJob":
        spec = spec.get("jobTemplate", {}).get("spec", {})
    return dict(spec if workload.get("kind") == "Pod" else (spec.get("template") or {}).get("spec") or {})


def containers(workload: Object) -> list[Object]:
    """All containers, those that only initialise included."""
    spec = pod_spec(workload)
    return [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]


def images(workloads: Iterable[Object]) -> dict[str, str]:
    """`Deployment/web/container` -> image."""
    return {f"{identity(one)}/{c['name']}": str(c.get("image", "")) for one in workloads for c in containers(one)}


def secrets_named(found: Iterable[Object]) -> dict[str, str]:
    """Secrets that objects refer to -> who refers to it first."""
    names: dict[str, str] = {}
    for one in found:
        for name in _secrets_of(one):
            if name:
                names.setdefault(name, identity(one))
    return names


def config_maps_named(found: Iterable[Object]) -> dict[str, str]:
    """ConfigMaps that workloads refer to -> who refers to it first."""
    names: dict[str, str] = {}
    for one in found:
        for name in _config_maps_of(one):
            if name:
                names.setdefault(name, identity(one))
    return names


def _secrets_of(one: Object) -> Iterator[str]:
    if one.get("kind") == "Ingress":
        yield from (str(entry.get("secretName", "")) for entry in one.get("spec", {}).get("tls") or ())
        return
    spec = pod_spec(one)
    yield from (str(entry.get("name", "")) for entry in spec.get("imagePullSecrets") or ())
    for volume in spec.get("volumes") or ():
        yield str((volume.get("secret") or {}).get("secretName", ""))
        for source in (volume.get("projected") or {}).get("sources") or ():
            yield str((source.get("secret") or {}).get("name", ""))
    yield from _from_containers(one, "secretKeyRef", "secretRef")


def _config_maps_of(one: Object) -> Iterator[str]:
    for volume in pod_spec(one).get("volumes") or ():
        yield str((volume.get("configMap") or {}).get("name", ""))
        for source in (volume.get("projected") or {}).get("sources") or ():
            yield str((source.get("configMap") or {}).get("name", ""))
    yield from _from_containers(one, "configMapKeyRef", "configMapRef")


def _from_containers(one: Object, key_reference: str, whole_reference: str) -> Iterator[str]:
    for container in containers(one):
        for entry in container.get("env") or ():
            yield str(((entry.get("valueFrom") or {}).get(key_reference) or {}).get("name", ""))
        for entry in container.get("envFrom") or ():
            yield str((entry.get(whole_reference) or {}).get("name", ""))


def is_ready(workload: Object) -> bool:
    """Whether all pods of a Deployment or StatefulSet are up to date and ready, by a status that has seen the newest spec."""
    status, replicas = workload.get("status") or {}, workload.get("spec", {}).get("replicas", 1)
    if status.get("observedGeneration", 0) < workload["metadata"].get("generation", 0):
        return False
    if replicas == 0:
        return not status.get("replicas") and not status.get("readyReplicas")
    counts = [status.get(name, 0) for name in ("readyReplicas", "updatedReplicas")]
    return all(count == replicas for count in counts)


def loses_its_data(workload: Object) -> bool:
    """Whether a database's workload keeps its data in an emptyDir: deleting the pod deletes the database."""
    spec = pod_spec(workload)
    empty = {volume["name"] for volume in spec.get("volumes") or () if "emptyDir" in volume}
    mounts = [mount for one in spec.get("containers") or () for mount in one.get("volumeMounts") or ()]
    return any(mount["name"] in empty and mount.get("mountPath", "").startswith("/var/lib/mysql") for mount in mounts)
