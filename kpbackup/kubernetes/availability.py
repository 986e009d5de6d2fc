"""How available an application is by what the cluster says of it: the list of a high-availability guide, judged.

Pure: what was seen (see sight.py) and the time in, judgements out. What could not be seen is judged `unknown`, never `ok`.

Limits: pods are taken as their workload describes them; where they really run is the scheduler's matter. Whether the load
balancer before the cluster, or the copies of a database behind their Service, are what they should be, no object tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from cryptography import x509

from kpbackup.kubernetes import objects
from kpbackup.kubernetes.objects import Object

CERTIFICATE_LIMIT = timedelta(days=30)
_DATABASES = ("mysql", "mariadb", "percona")


@dataclass(frozen=True)
class Seen:
    """Workloads of the application, and the objects around them by kind. `hidden` tells by kind why it could not be seen;
    `certificates` are those that Ingresses name, None for a Secret that is not there."""

    objects: Mapping[str, tuple[Object, ...]]
    hidden: Mapping[str, str]
    certificates: Mapping[str, bytes | None]

    def of(self, kind: str) -> tuple[Object, ...]:
        return self.objects.get(kind, ())

    @property
    def workloads(self) -> tuple[Object, ...]:
        return (*self.of("Deployment"), *self.of("StatefulSet"))

    @property
    def applications(self) -> list[Object]:
        return [one for one in self.workloads if not is_database(one)]

    def replicas(self, workload: Object) -> int:
        """The least number that is wanted."""
        for scaler in self.of("HorizontalPodAutoscaler"):
            target = scaler["spec"]["scaleTargetRef"]
            if (target.get("kind"), target.get("name")) == (workload["kind"], objects.name_of(workload)):
                return int(scaler["spec"].get("minReplicas", 1))
        return int(workload["spec"].get("replicas", 1))


@dataclass(frozen=True)
class Judgement:
    """One line of the list for one object: what was found, why it matters, how to mend it."""

    area: str
    severity: Literal["ok", "warning", "error", "unknown"]
    what: str
    why: str = ""
    mend: str = ""


def judge(seen: Seen, now: datetime) -> Iterator[Judgement]:
    """Each item of the list at least once, in the guide's order."""
    for area, (needed, item) in ITEMS.items():
        hidden = [seen.hidden[kind] for kind in needed if kind in seen.hidden]
        found = list(item(seen, area, now)) if not hidden else []
        for why in hidden:
            yield Judgement(area, "unknown", f"could not be seen: {why}", mend="give this account a Role with get and list on it")
        yield from found
        if not found and not hidden:
            yield Judgement(
                area, "unknown", "nothing in this namespace could be judged by it",
                mend="are application.namespace and application.release (or selector) the right ones?",
            )


def is_database(workload: Object) -> bool:
    """By image or port, since nothing else tells."""
    for one in objects.pod_spec(workload).get("containers") or ():
        image = str(one.get("image", "")).rsplit("/", 1)[-1]
        if image.startswith(_DATABASES) or any(port.get("containerPort") == 3306 for port in one.get("ports") or ()):
            return True
    return False


def selects(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector (an absent one selects nothing) matches."""
    if selector is None:
        return False
    for one in selector.get("matchExpressions") or ():
        value, wanted = labels.get(one["key"]), one.get("values") or ()
        present = value is not None
        matched = {"In": value in wanted, "NotIn": value not in wanted, "Exists": present, "DoesNotExist": not present}
        if not matched.get(one["operator"], False):
            return False
    return all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())


def _labels(workload: Object) -> dict[str, str]:
    return dict(((workload["spec"].get("template") or {}).get("metadata") or {}).get("labels") or {})


def _replicas(seen: Seen, area: str, now: datetime) -> Iterator[Judgement]:
    for one in seen.applications:
        wanted, ready = seen.replicas(one), int((one.get("status") or {}).get("readyReplicas") or 0)
        if wanted < 2:
            yield Judgement(
                area, "warning", f"{objects.identity(one)} has {wanted} replica{'' if wanted == 1 else 's'}",
                "the loss of its node stops it", "set its replicas (or the autoscaler's minReplicas) to 2 or more",
            )
        elif ready < wanted:
            yield Judgement(
                area, "warning", f"{objects.identity(one)} has {ready} of {wanted} replicas ready", "the others serve nobody",
                f"kubectl describe pods of {objects.identity(one)} says what they wait for",
            )
        else:
            yield Judgement(area, "ok", f"{objects.identity(one)} has {ready} replicas ready")


def _anti_affinity(seen: Seen, area: str, now: datetime) -> Iterator[Judgement]:
    for one in seen.workloads:
        spec = objects.pod_spec(one)
        rule = (spec.get("affinity") or {}).get("podAntiAffinity") or {}
        terms = list(rule.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
        terms += [each["podAffinityTerm"] for each in rule.get("preferredDuringSchedulingIgnoredDuringExecution") or ()]
        keys = sorted({str(each.get("topologyKey")) for each in [*terms, *(spec.get("topologySpreadConstraints") or ())]})
        if keys:
            yield Judgement(area, "ok", f"{objects.identity(one)} spreads its pods over {', '.join(keys)}")
        elif seen.replicas(one) > 1 or not is_database(one):
            yield Judgement(
                area, "warning", f"nothing keeps the pods of {objects.identity(one)} on different nodes",
                "all of them may run on one node and go with it",
                "give it affinity.podAntiAffinity or topologySpreadConstraints over kubernetes.io/hostname",
            )


def _database(seen: Seen, area: str, now: datetime) -> Iterator[Judgement]:
    found = [one for one in seen.workloads if is_database(one)]
    if not found:
        yield Judgement(
            area, "unknown", "the database is not in this release; how many copies of it run could not be seen",
            mend="ask its operator; `kpbackup doctor` examines the server itself",
        )
    for one in found:
        name, replicas = objects.identity(one), seen.replicas(one)
        if objects.loses_its_data(one):
            yield Judgement(
                area, "error", f"{name} keeps the database in an emptyDir", "deleting its pod deletes the database",
                "give it a persistent volume (in the chart: mysql.internal.persistence.enabled: true)",
            )
        if replicas < 2:
            yield Judgement(
                area, "warning", f"the database {name} is one pod", "while it is away, nothing works and nothing is backed up",
                "use a database with replicas: an InnoDB Cluster, Galera, or the provider's own",
            )
        else:
            yield Judgement(
                area, "unknown", f"the database {name} has {replicas} pods; whether they hold the same data could not be seen",
                mend="ask the server: performance_schema.replication_group_members, or SHOW STATUS LIKE 'wsrep_cluster%'",
            )


def _leading(seen: Seen) -> tuple[list[Object], list[Object]]:
    """Ingresses, and Services with an address of their own, that lead users to the application."""
    pods = [_labels(one) for one in seen.applications]
    services = [one for one in seen.of("Service") if any(_reaches(one, labels) for labels in pods)]
    names = {objects.name_of(one) for one in services}
    return (
        [one for one in seen.of("Ingress") if names.intersection(_backends(one))],
        [one for one in services if one["spec"].get("type") == "LoadBalancer"],
    )


def _reaches(service: Object, labels: Mapping[str, str]) -> bool:
    wanted = service["spec"].get("selector")
    return bool(wanted) and selects({"matchLabels": wanted}, labels)


def _backends(ingress: Object) -> Iterator[str]:
    spec = ingress["spec"]
    paths = [path for rule in spec.get("rules") or () for path in (rule.get("http") or {}).get("paths") or ()]
    for backend in (spec.get("defaultBackend") or {}, *(path.get("backend") or {} for path in paths)):
        yield str((backend.get("service") or {}).get("name", ""))


def _load_balancer(seen: Seen, area: str, now: datetime) -> Iterator[Judgement]:
    ingresses, services = _leading(seen)
    for one in (*ingresses, *services):
        given = ((one.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        places = [str(each.get("hostname") or each.get("ip")) for each in given]
        if places:
            yield Judgement(area, "ok", f"{objects.identity(one)} leads users to it at {', '.join(places)}")
        elif one in services:
            yield Judgement(
                area, "warning", f"{objects.identity(one)} has no address", "nobody is led to it",
                "does this cluster give load balancers?",
            )
        else:
            yield Judgement(area, "unknown", f"{objects.identity(one)} leads to it; its address could not be seen")
    if not ingresses and not services:
        yield Judgement(
            area, "unknown",
            "no Ingress and no LoadBalancer Service leads to it; a Gateway or a proxy of your own could not be seen",
            mend="see to it that what leads users to it is there twice",
        )


def _tls(seen: Seen, area: str, now: datetime) -> Iterator[Judgement]:
    ingresses, _ = _leading(seen)
    if not ingresses:
        yield Judgement(area, "unknown", "no Ingress leads to it; whether what does so speaks TLS could not be seen")
    for one in ingresses:
        entries = one["spec"].get("tls") or ()
        covered = {host for entry in entries for host in entry.get("hosts") or ()}
        hosts = {str(rule.get("host", "")) for rule in one["spec"].get("rules") or ()} - {""}
        for host in sorted(hosts - covered) if entries or hosts else ("every host",):
            yield Judgement(
                area, "warning", f"{objects.identity(one)} serves {host} without TLS", "passwords and tokens travel in the clear",
                "name the host and a certificate's Secret in spec.tls",
            )
        for name in sorted({str(entry.get("secretName", "")) for entry in entries}):
            yield _certificate(seen, area, objects.identity(one), name, now)


def _certificate(seen: Seen, area: str, ingress: str, name: str, now: datetime) -> Judgement:
    if not name or f"Secret {name}" in seen.hidden:
        why = seen.hidden.get(f"Secret {name}", "it is the controller's own")
        return Judgement(area, "unknown", f"the certificate of {ingress} could not be seen: {why}")
    content = seen.certificates.get(name)
    if content is None:
        return Judgement(
            area, "error", f"the Secret {name}, which {ingress} takes its certificate from, is not there",
            "browsers refuse the controller's stand-in", "create it, or let cert-manager do so",
        )
    try:
        until = x509.load_pem_x509_certificate(content).not_valid_after_utc
    except ValueError:
        return Judgement(area, "error", f"Secret {name} holds no certificate", "browsers refuse it", "renew it")
    told = f"the certificate in Secret {name} is valid until {until:%Y-%m-%d}"
    if until - now > CERTIFICATE_LIMIT:
        return Judgement(area, "ok", told)
    severity: Literal["warning", "error"] = "error" if until <= now else "warning"
    return Judgement(area, severity, told, "afterwards browsers refuse it", "renew it; cert-manager does so by itself")


def _probes(seen: Seen, area: str, now: datetime) -> Iterator[Judgement]:
    for one in seen.workloads:
        containers = objects.pod_spec(one).get("containers") or ()
        lacking = [
            f"{container['name']} has no {probe}" for container in containers
            for probe in ("readinessProbe", "livenessProbe") if not container.get(probe)
        ]
        if lacking:
            yield Judgement(
                area, "warning", f"{objects.identity(one)}: {', '.join(lacking)}",
                "traffic goes to pods that cannot serve, and one that hangs is not restarted", "add them to the pod template",
            )
        else:
            yield Judgement(area, "ok", f"every container of {objects.identity(one)} has its probes")


def _disruption_budget(seen: Seen, area: str, now: datetime) -> Iterator[Judgement]:
    for one in seen.workloads:
        replicas, name = seen.replicas(one), objects.identity(one)
        budgets = [each for each in seen.of("PodDisruptionBudget") if selects(each["spec"].get("selector"), _labels(one))]
        blocking = [objects.name_of(each) for each in budgets if _blocks(each["spec"], replicas)]
        if blocking:
            yield Judgement(
                area, "warning", f"PodDisruptionBudget {', '.join(blocking)} lets no pod of {name} go",
                "its node cannot be drained", "allow one: maxUnavailable: 1",
            )
        elif budgets:
            yield Judgement(area, "ok", f"PodDisruptionBudget {objects.name_of(budgets[0])} protects {name}")
        elif replicas > 1:
            yield Judgement(
                area, "warning", f"no PodDisruptionBudget protects {name}", "draining nodes may stop all its pods at once",
                "make one with maxUnavailable: 1",
            )


def _blocks(spec: Object, replicas: int) -> bool:
    least = spec.get("minAvailable")
    return spec.get("maxUnavailable") in (0, "0%") or least == "100%" or (isinstance(least, int) and least >= replicas)


Item = Callable[[Seen, str, datetime], Iterator[Judgement]]
_WORKLOADS = ("Deployment", "StatefulSet")

# What each item must have seen, and how it is judged.
ITEMS: dict[str, tuple[tuple[str, ...], Item]] = {
    "replicas": (_WORKLOADS, _replicas),
    "anti-affinity": (_WORKLOADS, _anti_affinity),
    "database": (_WORKLOADS, _database),
    "load balancer": ((*_WORKLOADS, "Service", "Ingress"), _load_balancer),
    "TLS": ((*_WORKLOADS, "Service", "Ingress"), _tls),
    "probes": (_WORKLOADS, _probes),
    "disruption budget": ((*_WORKLOADS, "PodDisruptionBudget"), _disruption_budget),
}
