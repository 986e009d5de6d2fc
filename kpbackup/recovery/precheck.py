"""What can be refused is refused here, before step 1 changes anything in a cluster: a right that a later step needs, a Secret
nobody has, an application that is there already, an Ingress of another release, a clock that is wrong.

Only reads, so it can be repeated; it is, at every resume.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from kpbackup import errors
from kpbackup.kubernetes import client, helm, objects, release
from kpbackup.kubernetes.kinds import CONFIG_MAP, INGRESS, SECRET, SERVICE, SERVICE_ACCOUNT, WORKLOADS, Kind, kind_of
from kpbackup.recovery import environment as environments
from kpbackup.recovery.environment import ApplicationPlan
from kpbackup.recovery.steps import Environment, RecoveryRequest, Step

MAX_CLOCK_SKEW = timedelta(minutes=5)  # as Kerberos and most tokens: beyond it logins and certificates begin to fail


def judge(request: RecoveryRequest, planned: ApplicationPlan, *, begun: bool) -> None:
    """Judges cluster, rights, namespace and bundle before anything is changed; `begun` when this run has changed some already.

    Raises:
        ClusterError, PrivilegeMissing, TargetRefused, StepFailed.
    """
    environment = request.environment
    assert environment is not None
    with environments.connect(environment, planned) as cluster:
        _judge_clock(cluster)
        _judge_rights(cluster, request, planned)
        _judge_bundle(cluster, environment, planned)
        if request.driven_by_kubernetes(Step.DEPLOY) and environment.method == "helm":
            helm.engine()
            if not environment.chart_file:
                release.archive(environments.release_of(planned))
        if not begun and not environment.in_place:
            _judge_namespace(cluster, environment, planned)
        if request.driven_by_kubernetes(Step.SWITCH):
            _judge_switch(cluster, environment, planned)


def _judge_clock(cluster: client.Cluster) -> None:
    skew = cluster.clock_skew()
    if abs(skew) > MAX_CLOCK_SKEW:
        raise errors.ClusterError(
            f"the clock of {cluster.name} is {abs(skew.total_seconds()):.0f} s {'ahead of' if skew > timedelta() else 'behind'}"
            " this machine's: times in the evidence would be wrong, tokens and certificates may not be valid",
            hint="set both clocks right (NTP), then run it again",
        )


def _judge_rights(cluster: client.Cluster, request: RecoveryRequest, planned: ApplicationPlan) -> None:
    missing = [
        f"step {step} needs to {verb} {kind.plural}{f'/{part}' if part else ''}"
        for step, verb, kind, part in _needed(request, planned)
        if not cluster.may(verb, kind, subresource=part)
    ]
    if missing:
        where = f"in namespace {cluster.namespace} of {cluster.name}"
        raise errors.PrivilegeMissing(
            f"the account may not do what the recovery needs {where}: {'; '.join(missing)}",
            hint="give it these rights by a Role and a RoleBinding; nothing was changed",
        )


def _needed(request: RecoveryRequest, planned: ApplicationPlan) -> Iterator[tuple[Step, str, Kind, str]]:
    """(step, verb, kind, subresource) of what the steps will do, each once."""
    environment = request.environment
    assert environment is not None
    if request.driven_by_kubernetes(Step.PREPARE):
        for kind in (SECRET, CONFIG_MAP, SERVICE_ACCOUNT):
            yield from ((Step.PREPARE, verb, kind, "") for verb in ("get", "patch"))
        yield from ((Step.PREPARE, verb, kind, "") for kind in WORKLOADS for verb in ("get", "list", "patch"))
        yield from ((Step.PREPARE, "patch", kind, "scale") for kind in WORKLOADS)
    if request.driven_by_kubernetes(Step.DEPLOY):
        kinds = {kind_of(one["apiVersion"], one["kind"]) for one in planned.bundle.objects} - {None, INGRESS}
        yield from ((Step.DEPLOY, "patch", kind, "") for kind in sorted(filter(None, kinds), key=lambda kind: kind.plural))
        if environment.method == "helm":
            yield from ((Step.DEPLOY, verb, SECRET, "") for verb in ("list", "create", "update", "delete"))
    if request.driven_by_kubernetes(Step.SWITCH):
        for kind, name in ((SERVICE, environment.service), (INGRESS, environment.ingress)):
            verbs = ("get", "patch") if kind is SERVICE else ("get", "patch", "delete")
            yield from ((Step.SWITCH, verb, kind, "") for verb in verbs if name)


def _judge_bundle(cluster: client.Cluster, environment: Environment, planned: ApplicationPlan) -> None:
    """Secrets that objects refer to are in the bundle or in the namespace."""
    if environment.method == "manifests" and planned.is_renamed:
        raise errors.StepFailed(
            f"plain objects cannot be recovered under another name: they refer to each other as {planned.bundle.release}",
            hint="leave recovery.application.release empty and recover into another namespace, or set deploy.method: helm",
        )
    for name, who in objects.secrets_named(planned.bundle.objects).items():
        if planned.bundle.find("Secret", name) is None and cluster.find(SECRET, planned.renamed(name)) is None:
            raise errors.StepFailed(
                f"Secret {name}, which {who} refers to, is neither in application bundle {planned.manifest.name}"
                f" nor in namespace {planned.namespace}",
                hint="create it in the namespace, then run it again; nothing was changed",
            )
    if environment.database and planned.bundle.find("StatefulSet", environment.database) is None:
        raise errors.StepFailed(
            f"application bundle {planned.manifest.name} has no StatefulSet {environment.database}",
            hint="check recovery.prepare.database",
        )


def _judge_namespace(cluster: client.Cluster, environment: Environment, planned: ApplicationPlan) -> None:
    """Nothing of the application may be there, or it would be overwritten."""
    there = [
        objects.identity(one) for kind in WORKLOADS for one in cluster.all(kind)
        if objects.name_of(one) in planned.workloads and objects.name_of(one) != environment.database
    ]
    if planned.release and helm.release_records(cluster, planned.release):
        there.insert(0, f"Helm release {planned.release}")
    if there:
        raise errors.TargetRefused(
            f"namespace {planned.namespace} of {cluster.name} is in use: it has {', '.join(there)}",
            hint="recover into another namespace or release (recovery.application), or set recovery.application.in_place: true",
        )


def _judge_switch(cluster: client.Cluster, environment: Environment, planned: ApplicationPlan) -> None:
    if environment.service and cluster.find(SERVICE, environment.service) is None:
        raise errors.TargetRefused(
            f"namespace {planned.namespace} has no Service {environment.service} to switch",
            hint="check recovery.switch.service: the Service users come by must be there before",
        )
    if not environment.ingress:
        return
    there = cluster.find(INGRESS, environment.ingress)
    if there is None and planned.bundle.find("Ingress", environment.ingress) is None:
        raise errors.TargetRefused(
            f"there is no Ingress {environment.ingress}, neither in namespace {planned.namespace} nor in application bundle"
            f" {planned.manifest.name}",
            hint="check recovery.switch.ingress",
        )
    owner = objects.owner(there) if there is not None else ""
    if owner and owner not in (planned.release, planned.bundle.release):
        raise errors.TargetRefused(
            f"Ingress {environment.ingress} belongs to the Helm release {owner}, not to {planned.release}",
            hint="name the application's own Ingress in recovery.switch.ingress",
        )
