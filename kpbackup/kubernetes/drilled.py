"""An application that lives for one drill: its objects in the scratch namespace, the policies around it, and the probe.

Only what stands behind one Service is started, with what it refers to: no Ingress, no autoscaler, no Job, no claim, no service
account. Two NetworkPolicies come first and go last: nothing of the namespace gets out, but that the application's pods get to
the drill's database and to the cluster's DNS. What could walk around a policy is refused: pods in the node's network, privileged
containers, and volumes that a node mounts, its own directories as well as NFS and the like, which it reaches by its own network.

The probe is a Job whose pod has the application's labels, and so its policies. It ends well only when it reached the database
(so it can reach at all) and did not reach an address whose name it could look up. A tool that is missing, an image that does not
start and a misspelt name are no proof.

Pure: objects in, objects out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from kpbackup import errors
from kpbackup.kubernetes import objects, scratch
from kpbackup.kubernetes.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    JOB,
    NETWORK_POLICY,
    SECRET,
    SERVICE,
    STATEFUL_SET,
    WORKLOADS,
    Kind,
)

Object = dict[str, Any]

LABEL, VALUE = "kpbackup.io/drill", "application"
LABELS = {LABEL: VALUE}
KINDS = (DEPLOYMENT, STATEFUL_SET, JOB, SERVICE, CONFIG_MAP, SECRET, NETWORK_POLICY)  # in the order in which they are deleted
VOLUMES = frozenset({"configMap", "downwardAPI", "emptyDir", "projected", "secret"})  # those of the pod alone
CLAIMED = frozenset({"persistentVolumeClaim", "ephemeral"})  # an empty directory stands for them
PROBE_TIMEOUT_S = 120
DNS = {"kubernetes.io/metadata.name": "kube-system"}, {"k8s-app": "kube-dns"}  # CoreDNS has this label too

# 0: the database was reached, the address could be looked up and was not reached
_PROBE = """
reach() { timeout 5 bash -c ': <>"/dev/tcp/${0%:*}/${0##*:}"' "$1" 2>/dev/null; }
reach "$KPBACKUP_INSIDE" || exit 3
[ -z "$KPBACKUP_OUTSIDE" ] && exit 0
getent ahosts "${KPBACKUP_OUTSIDE%:*}" >/dev/null || exit 4
reach "$KPBACKUP_OUTSIDE" && exit 1
exit 0
"""


def needed() -> Iterator[tuple[str, Kind, str]]:
    """(verb, kind, subresource): the rights in the scratch namespace."""
    for kind in KINDS:
        yield from ((verb, kind, "") for verb in ("get", "list", "create", "delete"))
    yield from (("patch", kind, "scale") for kind in WORKLOADS)


def policies() -> tuple[Object, ...]:
    """The whole namespace stays in; the application's pods get to the database and to DNS."""
    namespaces, pods = DNS
    dns = {"namespaceSelector": {"matchLabels": namespaces}, "podSelector": {"matchLabels": pods}}
    egress = [
        {"to": [{"podSelector": {"matchLabels": scratch.LABELS}}], "ports": [{"port": scratch.PORT, "protocol": "TCP"}]},
        {"to": [dns], "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]},
    ]
    return (
        _policy(f"{scratch.NAME}-namespace", {"podSelector": {}, "egress": []}),
        _policy(f"{scratch.NAME}-application", {"podSelector": {"matchLabels": LABELS}, "egress": egress}),
    )


def _policy(name: str, spec: Object) -> Object:
    metadata = {"name": name, "labels": LABELS}
    return {
        "apiVersion": NETWORK_POLICY.api_version, "kind": NETWORK_POLICY.name, "metadata": metadata,
        "spec": {"policyTypes": ["Egress"], **spec},
    }


def refuse_other_policies(found: Iterable[Object], namespace: str) -> None:
    """Raises TargetRefused when a policy that is not ours lets any pod out: policies add up."""
    for policy in found:
        metadata = policy["metadata"]
        if (metadata.get("labels") or {}).get(LABEL) != VALUE and (policy.get("spec") or {}).get("egress"):
            raise errors.TargetRefused(
                f"the application is not started: NetworkPolicy {metadata['name']} in namespace {namespace} lets pods out",
                hint="give drills a namespace of their own (drill.kubernetes.namespace)",
            )


def probe(number: int, *, image: str, user_id: int, inside: str, outside: str) -> Object:
    """The Job that tries to get from inside to `outside`, '' for the database alone."""
    container = {
        "name": "probe", "image": image, "command": ["bash", "-c", _PROBE],
        "env": [{"name": "KPBACKUP_INSIDE", "value": inside}, {"name": "KPBACKUP_OUTSIDE", "value": outside}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    who = {"runAsNonRoot": True, "runAsUser": user_id, "runAsGroup": user_id, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = {
        "restartPolicy": "Never", "automountServiceAccountToken": False, "securityContext": who, "containers": [container],
    }
    spec = {
        "backoffLimit": 0, "activeDeadlineSeconds": PROBE_TIMEOUT_S,
        "template": {"metadata": {"labels": LABELS}, "spec": pod},
    }
    metadata = {"name": f"{scratch.NAME}-probe-{number}", "labels": LABELS}
    return {"apiVersion": JOB.api_version, "kind": JOB.name, "metadata": metadata, "spec": spec}


def has_ended(job: Object) -> bool | None:
    """Whether a Job ended well; None: it has not ended."""
    conditions = {one["type"] for one in (job.get("status") or {}).get("conditions") or () if one.get("status") == "True"}
    return True if "Complete" in conditions else False if "Failed" in conditions else None


def database_service(name: str) -> Object:
    """The name by which the application knows its database leads to the drill's."""
    spec = {"selector": scratch.LABELS, "ports": [{"name": "database", "port": scratch.PORT, "targetPort": "database"}]}
    return {"apiVersion": "v1", "kind": SERVICE.name, "metadata": {"name": name, "labels": LABELS}, "spec": spec}


def application(kept: Sequence[Object], service: str) -> list[Object]:
    """What is started of a bundle's objects: the workloads behind `service`, their Services, Secrets and ConfigMaps; in the order
    in which they are made.

    Raises:
        StepFailed: there is nothing behind it, or what it refers to is missing.
        TargetRefused: a pod could get out past the policies.
    """
    workloads = [one for one in kept if one["kind"] in [kind.name for kind in WORKLOADS] and _is_behind(kept, service, one)]
    if not workloads:
        raise errors.StepFailed(
            f"the application bundle has no workload behind Service {service}: there is nothing to start",
            hint="does the profile (recovery.verify.profile) fit the release that was backed up?",
        )
    for one in workloads:
        _refuse_ways_out(one)
    services = [one for one in kept if one["kind"] == SERVICE.name and any(_selects(one, w) for w in workloads)]
    referred = [
        *_referred(kept, SECRET.name, objects.secrets_named(workloads)),
        *_referred(kept, CONFIG_MAP.name, objects.config_maps_named(workloads)),
    ]
    return [*map(_bare, (*referred, *services)), *map(_confined, workloads)]


def _is_behind(kept: Sequence[Object], service: str, workload: Object) -> bool:
    return any(objects.name_of(one) == service and _selects(one, workload) for one in kept if one["kind"] == SERVICE.name)


def _selects(service: Object, workload: Object) -> bool:
    selector = service["spec"].get("selector") or {}
    labels = workload["spec"]["template"]["metadata"].get("labels") or {}
    return bool(selector) and selector.items() <= labels.items()


def _referred(kept: Sequence[Object], kind: str, names: dict[str, str]) -> Iterator[Object]:
    there = {objects.name_of(one): one for one in kept if one["kind"] == kind}
    for name, who in names.items():
        if name not in there:
            raise errors.StepFailed(
                f"{kind} {name}, which {who} refers to, is not in the application bundle",
                hint="put it where backups are made; the next bundle has it",
            )
        yield there[name]


def _refuse_ways_out(workload: Object) -> None:
    spec = objects.pod_spec(workload)
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    found += [f"volume {one['name']}" for one in spec.get("volumes") or () if not one.keys() <= {"name"} | VOLUMES | CLAIMED]
    for one in objects.containers(workload):
        if (one.get("securityContext") or {}).get("privileged"):
            found.append(f"privileged container {one['name']}")
    if found:
        raise errors.TargetRefused(
            f"the application is not started: {objects.identity(workload)} could get out past any NetworkPolicy ({found[0]})",
            hint="leave drill.application out: the drill then verifies the database alone",
        )


def _bare(found: Object) -> Object:
    """An object as ours: without what ties it to Helm or to a server."""
    made = objects.wanted(found)
    metadata = made["metadata"]
    made["metadata"] = {"name": metadata["name"], "labels": {**(metadata.get("labels") or {}), **LABELS}}
    if made["kind"] == SERVICE.name:
        made["spec"].pop("type", None)  # no node port, no load balancer
        for name in [name for name in made["spec"] if name.startswith(("external", "loadBalancer", "allocateLoadBalancer"))]:
            del made["spec"][name]
        for port in made["spec"].get("ports") or ():
            port.pop("nodePort", None)
    return made


def _confined(found: Object) -> Object:
    """A workload with one pod that has the policies' label, no account of the cluster and no volume of its own."""
    made = _bare(found)
    made["spec"]["replicas"] = 1
    made["spec"].pop("volumeClaimTemplates", None)
    template = made["spec"]["template"]
    template["metadata"] = {**template.get("metadata", {})}
    template["metadata"]["labels"] = {**(template["metadata"].get("labels") or {}), **LABELS}
    spec = template["spec"]
    for name in ("serviceAccountName", "serviceAccount", "nodeName"):
        spec.pop(name, None)
    spec["automountServiceAccountToken"] = False
    kept = [_without_claim(one) for one in spec.get("volumes") or ()]
    there = {one["name"] for one in kept}
    claimed = {one["metadata"]["name"] for one in found["spec"].get("volumeClaimTemplates") or ()} - there
    if kept or claimed:
        spec["volumes"] = [*kept, *({"name": name, "emptyDir": {}} for name in sorted(claimed))]
    return made


def _without_claim(volume: Object) -> Object:
    return {"name": volume["name"], "emptyDir": {}} if volume.keys() & CLAIMED else volume
