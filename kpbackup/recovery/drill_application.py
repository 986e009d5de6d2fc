"""A drill that starts the application: only where the settings say so, and only after nothing gets out was seen.

In the scratch namespace of the drill (`kubernetes/drilled.py`): policies, then probes, then the application, which then
answers step 4 from the drilled database. Every probe must end well before the first object of the application is made; else the
drill fails with the reason.

What a crash leaves: the application, still behind its policies; the next drill that starts one removes it first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from kpbackup import errors
from kpbackup.kubernetes import client, drilled, objects, scratch
from kpbackup.kubernetes.kinds import JOB, NETWORK_POLICY, WORKLOADS
from kpbackup.model.application import Bundle
from kpbackup.recovery import environment
from kpbackup.recovery.planning import RecoveryPlan
from kpbackup.recovery.steps import RecoveryRequest
from kpbackup.repository import applications


@dataclass(frozen=True)
class Wanted:
    """What the settings say: the addresses (`host:port`) that must not be reached, the name by which the application knows its
    database, the Service and port it answers at, with `{fullname}` for the release's, and the `url` it has from here, ''
    for the Service's name."""

    server: scratch.Wanted
    unreachable: Sequence[str]
    database: str
    service: str
    port: int
    url: str = ""


def judge_rights(wanted: Wanted) -> None:
    """Raises PrivilegeMissing naming all that is missing, before anything is made."""
    with client.connect(wanted.server.access) as cluster:
        scratch.judge_rights(cluster, drilled.needed(), what="a drill with the application")


@contextmanager
def around(wanted: Wanted) -> Iterator[Application]:
    """What step 3 of the drill starts; what it made is gone when the block ends.

    The drill's namespace and database must be there already.
    """
    with client.connect(wanted.server.access) as cluster:
        _remove(cluster, wanted.server.timeout_s)
        try:
            yield Application(cluster, wanted)
        finally:
            _remove(cluster, wanted.server.timeout_s)


class Application:
    """One drill's application."""

    def __init__(self, cluster: client.Cluster, wanted: Wanted) -> None:
        self.url = wanted.url
        self._cluster, self._wanted = cluster, wanted

    def start(self, plan: RecoveryPlan, request: RecoveryRequest) -> dict[str, str]:
        """Policies, probes, application; returns when it is ready.

        Raises:
            TargetRefused: egress is not proven to be blocked; nothing of the application was made.
            StepFailed: the bundle does not hold what is needed, or it does not come up.
        """
        bundle, name, service = self._read(plan, request)
        made = drilled.application(bundle.objects, service)
        cluster, wanted = self._cluster, self._wanted
        for one in (*drilled.policies(), drilled.database_service(wanted.database)):
            cluster.create(one)
        drilled.refuse_other_policies(cluster.all(NETWORK_POLICY), cluster.namespace)
        _prove_isolation(cluster, wanted)
        for one in made:
            cluster.create(one)
        for one in made:
            kind = cluster.kind(one)
            if kind in WORKLOADS:
                environment.await_ready(cluster, kind, objects.name_of(one), wanted.server.timeout_s)
        self.url = wanted.url or f"http://{service}.{cluster.namespace}.svc:{wanted.port}"
        return {"bundle": name, "objects_applied": str(len(made)), "addresses_not_reached": str(len(wanted.unreachable))}

    def _read(self, plan: RecoveryPlan, request: RecoveryRequest) -> tuple[Bundle, str, str]:
        """The bundle in force at the drilled point, its name, and the Service the application answers at."""
        found = applications.in_force(applications.all_manifests(request.repository), plan.recovered_to)
        if found is None:
            raise errors.StepFailed(
                "the repository holds no application bundle, so the drill has no application to start",
                hint="set `application` where backups are made, or leave drill.application out",
            )
        bundle = applications.read_bundle(request.repository, found, request.identities)
        planned = environment.ApplicationPlan(found, bundle, bundle.namespace, bundle.release)
        return bundle, found.name, self._wanted.service.replace("{fullname}", planned.fullname)


def _prove_isolation(cluster: client.Cluster, wanted: Wanted) -> None:
    """Raises TargetRefused unless a pod like the application's reaches the database and nothing else."""
    inside = f"{wanted.database}:{scratch.PORT}"
    for number, outside in enumerate(("", *wanted.unreachable)):
        job = drilled.probe(
            number, image=wanted.server.image, user_id=wanted.server.user_id, inside=inside, outside=outside
        )
        cluster.create(job)
        if _ends_well(cluster, objects.name_of(job), wanted.server.timeout_s):
            continue
        if not outside:
            raise errors.TargetRefused(
                f"the application is not started: a probe in namespace {cluster.namespace} does not reach the drill's own"
                f" database at {inside}, so what it cannot reach proves nothing",
                hint="has drill.kubernetes.image bash, timeout and getent, and may pods there ask the cluster's DNS?",
            )
        raise errors.TargetRefused(
            f"the application is not started: egress is not proven to be blocked in namespace {cluster.namespace}: a probe there"
            f" reached {outside}, or could not look up its name",
            hint="does the cluster's network enforce NetworkPolicies from a pod's first moment, and is the address in"
            " drill.application.unreachable right?",
        )


def _ends_well(cluster: client.Cluster, name: str, timeout_s: float) -> bool:
    ended: list[bool] = []

    def has_ended() -> bool:
        result = drilled.has_ended(cluster.get(JOB, name))
        ended.extend([] if result is None else [result])
        return result is not None

    environment.wait_for(has_ended, timeout_s + drilled.PROBE_TIMEOUT_S, what=f"Job {name} in {cluster.namespace} has not ended")
    return ended[0]


def _remove(cluster: client.Cluster, timeout_s: float) -> None:
    """The pods first: until they are gone the policies stay."""
    labels = f"{drilled.LABEL}={drilled.VALUE}"
    running = [(kind, objects.name_of(one)) for kind in WORKLOADS for one in cluster.all(kind, labels=labels)]
    for kind, name in running:
        cluster.scale(kind, name, 0)
    for kind, name in running:
        environment.await_ready(cluster, kind, name, timeout_s)
    for kind in drilled.KINDS:
        for one in cluster.all(kind, labels=labels):
            cluster.delete(kind, objects.name_of(one))
