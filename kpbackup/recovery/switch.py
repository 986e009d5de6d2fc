"""Step 5 in Kubernetes: users are sent to the recovered application, and sent back when it does not answer them.

What is replaced is written into the journal first, sealed; then the Service's selector or the Ingress' back ends are changed,
and nothing else of them: annotations and TLS stay byte for byte. Then the public address is asked as the profile says. If
it is not right in time, the change is reverted and the step has failed.

A crash in between leaves the record: the next run goes by it, and never takes what was already switched for what was before.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

from kpbackup import errors
from kpbackup.kubernetes import client
from kpbackup.kubernetes.kinds import INGRESS, SERVICE
from kpbackup.recovery import environment as environments
from kpbackup.recovery.environment import ApplicationPlan
from kpbackup.recovery.steps import Environment, RecoveryRequest

Object = dict[str, Any]
Keep = Callable[[Object], None]
POLL_S = 0.5


def record(cluster: client.Cluster, environment: Environment) -> Object:
    """What the switch will replace."""
    kind, name = _switched(environment)
    return {"kind": kind, "name": name, "before": spec_of(cluster, kind, name)}


def spec_of(cluster: client.Cluster, kind: str, name: str) -> Object | None:
    """What the Service or Ingress is now, None when it is not there."""
    found = cluster.find(SERVICE if kind == SERVICE.name else INGRESS, name)
    return found["spec"] if found is not None else None


def _switched(environment: Environment) -> tuple[str, str]:
    """Kind and name of what is switched: settings may name another one when a run is resumed."""
    return (SERVICE.name, environment.service) if environment.service else (INGRESS.name, environment.ingress)


def run(
    request: RecoveryRequest, planned: ApplicationPlan, name: str, before: Object | None, keep: Keep, left: Keep,
    probe: Callable[[], str],
) -> dict[str, str]:
    """Switches and probes. `before` is what an interrupted try recorded; `keep` writes a new record down, `left` what a good
    switch has made of it. `probe` says what is wrong with the public address, '' when it answers as it must.

    Raises:
        StepFailed: the public address does not answer rightly; everything is as it was before.
    """
    environment = request.environment
    assert environment is not None and request.verification is not None
    with environments.connect(environment, planned) as cluster:
        if before is None or (before["kind"], before["name"]) != _switched(environment):
            before = record(cluster, environment)
            keep(before)
        apply(cluster, environment, planned, name)
        wrong = probed(probe, request.verification.public_timeout_s)
        if wrong:
            revert(cluster, before)
            raise errors.StepFailed(
                f"the public address does not answer rightly after the switch, which was reverted: {wrong}",
                hint="users are where they were before; find out why, then resume",
            )
        left({**before, "after": spec_of(cluster, before["kind"], before["name"])})
    return {"switched": before["kind"], "created": "yes" if before["before"] is None else "no"}


def apply(cluster: client.Cluster, environment: Environment, planned: ApplicationPlan, name: str) -> None:
    """Sends the users to the recovered release."""
    if environment.service:
        selector = _selector(planned, environment.service)
        cluster.patch(SERVICE, environment.service, {"spec": {"selector": selector}})
        return
    there = cluster.find(INGRESS, environment.ingress)
    if there is None:
        kept = planned.bundle.find("Ingress", environment.ingress)
        assert kept is not None  # judged before step 1
        made = environments.marked(planned, kept, name)
        made["metadata"]["name"] = environment.ingress
        made["spec"] = _pointed(made["spec"], planned)
        cluster.apply(made)
        return
    pointed = _pointed(there["spec"], planned)
    if pointed != there["spec"]:
        change = {name: pointed[name] for name in ("rules", "defaultBackend") if name in pointed}
        version = {"resourceVersion": there["metadata"]["resourceVersion"]}
        cluster.patch(INGRESS, environment.ingress, {"metadata": version, "spec": change})


def revert(cluster: client.Cluster, before: Object) -> None:
    """Puts back what `record` found. Twice is fine."""
    name, spec = before["name"], before["before"]
    if before["kind"] == "Service":
        there = cluster.get(SERVICE, name)
        gone = {key: None for key in there["spec"].get("selector") or {} if key not in (spec.get("selector") or {})}
        cluster.patch(SERVICE, name, {"spec": {"selector": {**gone, **(spec.get("selector") or {})}}})
    elif spec is None:
        cluster.delete(INGRESS, name)
    else:
        change = {key: spec.get(key) for key in ("rules", "defaultBackend")}
        cluster.patch(INGRESS, name, {"spec": change})


def _selector(planned: ApplicationPlan, service: str) -> dict[str, str]:
    """The recovered release's labels in the place of the old one's."""
    kept = planned.bundle.find("Service", service)
    labels = (kept or {}).get("spec", {}).get("selector") or {"app.kubernetes.io/instance": planned.bundle.release}
    return {name: planned.release if value == planned.bundle.release else value for name, value in labels.items()}


def _pointed(spec: Object, planned: ApplicationPlan) -> Object:
    """The Ingress' spec with the recovered release's Services behind it."""
    pointed = copy.deepcopy(spec)
    places = [pointed.get("defaultBackend") or {}]
    for rule in pointed.get("rules") or ():
        places += [path.get("backend") or {} for path in (rule.get("http") or {}).get("paths") or ()]
    for place in places:
        if place.get("service"):
            place["service"]["name"] = planned.renamed(place["service"]["name"])
    return pointed


def probed(probe: Callable[[], str], timeout_s: float) -> str:
    """'' once the probe is content; what was wrong last when the time is up."""
    deadline = time.monotonic() + timeout_s
    while wrong := probe():
        if time.monotonic() > deadline:
            return wrong
        time.sleep(POLL_S)
    return ""


