"""Step 3 in Kubernetes: the release from the bundle, chart and images pinned, or its plain objects.

Helm: the chart is made again from Helm's own record, so that no chart repository is needed; the bundle's values, with what the
profile pins from the bundle's Secrets and the user's values laid over. Before anything is installed Helm renders it, and
every Secret it would make is compared with the bundle's: a chart that makes a new password would lock the application out.

It can be repeated: a release that this run deployed is left alone; a revision a killed Helm left pending is removed first.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from kpbackup import errors
from kpbackup.kubernetes import client, helm, objects, release
from kpbackup.kubernetes.kinds import order
from kpbackup.recovery import environment as environments
from kpbackup.recovery.environment import ApplicationPlan
from kpbackup.recovery.profile import Profile
from kpbackup.recovery.steps import Environment, RecoveryRequest, Step

Object = dict[str, Any]


def run(request: RecoveryRequest, planned: ApplicationPlan, name: str) -> dict[str, str]:
    """Deploys and waits until everything is ready; figures for the journal. `name` is the run.

    Raises:
        StepFailed, ClusterError, PrivilegeMissing.
    """
    environment = request.environment
    assert environment is not None
    with environments.connect(environment, planned) as cluster:
        if environment.method == "helm":
            figures = _by_helm(cluster, request, planned, name)
        else:
            figures = _by_manifests(cluster, environment, planned, name)
        figures["workloads_released"] = str(environments.release_held(cluster, environment.timeout_s, planned.workloads))
        for one in planned.bundle.objects:
            if one["kind"] in ("Deployment", "StatefulSet"):
                name_there = planned.renamed(objects.name_of(one))
                environments.await_ready(cluster, cluster.kind(one), name_there, environment.timeout_s)
    return figures


def _by_helm(cluster: client.Cluster, request: RecoveryRequest, planned: ApplicationPlan, name: str) -> dict[str, str]:
    environment = request.environment
    assert environment is not None
    found = environments.release_of(planned)
    engine = helm.engine()
    wanted = helm.Installation(
        release=planned.release,
        namespace=planned.namespace,
        chart=Path(environment.chart_file).read_bytes() if environment.chart_file else release.archive(found),
        values=values(request, planned, found.values),
        timeout_s=environment.timeout_s,
        description=f"kpbackup recovery {name}",
        waits=False,  # a held workload is released afterwards: where an autoscaler keeps the replicas, Helm leaves it at 0
    )
    helm.unlock(cluster, planned.release)
    before = release.newest(helm.release_records(cluster, planned.release), planned.release)
    if before is not None and release.is_by(before, wanted.description):
        return {"engine": engine.name, "revision": str(release.read(before).revision), "chart": planned.bundle.chart}
    _judge_rendered(engine.render(environment.access, wanted), planned)
    revision = engine.install(environment.access, wanted)
    return {"engine": engine.name, "revision": str(revision), "chart": planned.bundle.chart}


def values(request: RecoveryRequest, planned: ApplicationPlan, recorded: Mapping[str, Any]) -> Object:
    """The bundle's values, with pins and what is withheld until the switch, and the user's own over all of them."""
    environment = request.environment
    assert environment is not None
    profile = request.verification.profile if request.verification else None
    merged: Object = merge(recorded, _pinned(planned, profile) if profile else {})
    if profile is not None and request.driven_by_kubernetes(Step.SWITCH) and environment.ingress:
        merged = merge(merged, profile.withhold)
    return merge(merged, environment.values)


def _pinned(planned: ApplicationPlan, profile: Profile) -> Object:
    """Values of the chart from the bundle's Secrets; a Secret the application does without pins nothing."""
    pinned: Object = {}
    fullname = planned.fullname.replace(planned.release, planned.bundle.release, 1)
    for path, source in profile.pins.items():
        secret, _, key = source.replace("{fullname}", fullname).partition(":")
        found = planned.bundle.find("Secret", secret)
        if found is None or key not in (found.get("data") or {}):
            continue
        place = pinned
        *parents, last = path.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = base64.b64decode(found["data"][key]).decode()
    return pinned


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Object:
    """Values laid over values, as Helm does it: objects merge, everything else replaces."""
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _judge_rendered(manifest: str, planned: ApplicationPlan) -> None:
    """Every Secret and image that Helm would make must be the bundle's."""
    rendered = [one for one in yaml.safe_load_all(manifest) if isinstance(one, dict) and one.get("kind")]
    known = {planned.renamed(objects.name_of(one)): one for one in planned.bundle.of_kind("Secret")}
    for one in rendered:
        if one["kind"] != "Secret" or objects.name_of(one) not in known:
            continue
        kept, made = known[objects.name_of(one)].get("data") or {}, _data(one)
        other = sorted(key for key in made if kept.get(key) != made[key])
        if other:
            raise errors.StepFailed(
                f"the chart would make Secret {objects.name_of(one)} anew: {', '.join(other)} would not be the backed up value",
                hint="pin it in recovery.deploy.values_file (as existingSecret, or the value itself), then resume",
            )


def _data(secret: Object) -> dict[str, str]:
    data = dict(secret.get("data") or {})
    for key, text in (secret.get("stringData") or {}).items():
        data[key] = base64.b64encode(str(text).encode()).decode()
    return data


def _by_manifests(cluster: client.Cluster, environment: Environment, planned: ApplicationPlan, name: str) -> dict[str, str]:
    """The bundle's objects as they are; Ingresses only when it is not the switch that sends the users."""
    made = [one for one in planned.bundle.objects if one["kind"] != "Ingress" or not environment.ingress]
    for one in sorted(made, key=lambda one: order(one["kind"])):
        if objects.name_of(one) != environment.database:
            cluster.apply(environments.marked(planned, one, name))
    return {"engine": "plain objects", "objects_applied": str(len(made))}
