"""Step 4: the restored database and the application judged, before any user is sent there.

That every chunk reads back as it was backed up and that definitions are equal was proven in step 2, before the replay changed
them on purpose. Here: nothing but what the application itself writes has changed since (`proof.py`); the installation is
not one that was never restored; the user's and the profile's questions are answered rightly; in a cluster, Secrets,
ConfigMaps and images are those of the bundle; and the application answers what the restored database says.

Only asks, except that a login is written down by the application; it can be repeated.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from kpbackup import errors
from kpbackup.kubernetes import client, objects
from kpbackup.kubernetes.kinds import CONFIG_MAP, SECRET, WORKLOADS
from kpbackup.model import codec
from kpbackup.mysql import load, server
from kpbackup.mysql import schema as schemas
from kpbackup.mysql.quoting import identifier
from kpbackup.recovery import asking, environment, proof
from kpbackup.recovery.environment import ApplicationPlan
from kpbackup.recovery.planning import RecoveryPlan
from kpbackup.recovery.profile import Profile
from kpbackup.recovery.steps import RecoveryRequest, Step, Verification

ASK_AGAIN = 3  # the application may write a log row between its answer and our question to the database
PAUSE_S = 0.5


def run(plan: RecoveryPlan, request: RecoveryRequest, proved: Any) -> dict[str, str]:
    """Judges; returns what was asked, for the journal. `proved` are the sums taken when step 2 ended, None when unknown.

    Raises:
        StepFailed: something is not as it must be; the message says what.
    """
    verification = request.verification
    figures = {"checks": str(len(request.sql_checks))}
    with server.connect(request.endpoint) as connection:
        if plan.second is None:  # else its second tier may be under way
            _refuse_half_restored(connection)
        _judge_answers(connection, request)
        if verification is not None:
            _judge_profile(connection, verification.profile, plan)
    if proved:
        figures["tables_compared"] = str(_compare(request, proved))
    if request.driven_by_kubernetes(Step.DEPLOY) and plan.application is not None:
        figures["objects_compared"] = str(_judge_cluster(request, plan.application))
    if verification is not None and (url := _url(plan, request, verification)):
        figures["calls"] = str(_judge_application(request, verification, url))
    return figures


def _refuse_half_restored(connection: server.Connection) -> None:
    if load.SCRATCH_SCHEMA in schemas.database_names(connection):
        raise errors.StepFailed(
            f"{connection.endpoint.name} still has {load.SCRATCH_SCHEMA}: the database step is not complete",
            hint="resume the restore",
        )


def _judge_answers(connection: server.Connection, request: RecoveryRequest) -> None:
    for check in request.sql_checks:
        found = _answer(connection, check.query)
        if found != check.expect:
            raise _wrong_answer(connection, check.query, found, check.expect)


def _judge_profile(connection: server.Connection, profile: Profile, plan: RecoveryPlan) -> None:
    if profile.database:
        connection.execute(f"USE {identifier(profile.database)}")
    for unrestored in profile.unrestored:
        rows = sum(one.rows for one in plan.inventory.chunks if one.table == unrestored.table)
        if rows > unrestored.at_most and _answer(connection, unrestored.query) == "1":
            raise errors.StepFailed(
                f"{connection.endpoint.name} looks like an installation that was never restored: {unrestored.why}",
                hint="do not switch: the application may have started on an empty database; restore again",
            )
    for assertion in profile.sql:
        found = _answer(connection, assertion.query)
        if found != str(assertion.expect):
            raise _wrong_answer(connection, assertion.query, found, str(assertion.expect))


def _answer(connection: server.Connection, query: str) -> str:
    found = connection.value(query)
    return found.decode(errors="replace") if isinstance(found, bytes) else str(found)


def _wrong_answer(connection: server.Connection, query: str, found: str, expected: str) -> errors.StepFailed:
    return errors.StepFailed(
        f"verification failed on {connection.endpoint.name}: {query!r} answered {found!r}, {expected!r} expected",
        hint="do not switch; look at the restored database, then resume",
    )


def _compare(request: RecoveryRequest, proved: Mapping[str, Any]) -> int:
    """How many tables were compared; none where the application has started and its profile does not say what it writes."""
    verification = request.verification
    tables = verification.profile.tables if verification else None
    if tables is not None and not tables.compare:
        return 0
    driver = request.drivers.get(Step.DEPLOY)
    if verification is None and driver is not None and driver.kind != "none":
        return 0
    sums = {name: codec.decode(proof.TableProof, one, what=f"proof of {name}") for name, one in proved.items()}
    left_out = tables.volatile_tables if tables else ()
    found = proof.differences(request.endpoint, sums, leave_out=left_out, sessions=request.workers)
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise errors.StepFailed(
            f"the database changed since it was restored: {found[0]}{more}",
            hint="do not switch: find out who wrote to it, then restore again; what the application itself writes is named in"
            " the profile (tables.volatile_columns)",
        )
    return len(sums)


def _judge_cluster(request: RecoveryRequest, planned: ApplicationPlan) -> int:
    """Secrets, ConfigMaps and images in the cluster are the bundle's, and every workload is ready; how many were compared."""
    assert request.environment is not None
    with environment.connect(request.environment, planned) as cluster:
        wrong = next(_cluster_problems(cluster, planned), "")
    if wrong:
        raise errors.StepFailed(
            f"verification failed in namespace {planned.namespace}: {wrong}",
            hint="do not switch; put it right, then resume",
        )
    return len(planned.bundle.objects)


def _cluster_problems(cluster: client.Cluster, planned: ApplicationPlan) -> Iterator[str]:
    for kind in (SECRET, CONFIG_MAP):
        for kept in planned.bundle.of_kind(kind.name):
            name = planned.renamed(objects.name_of(kept))
            there = cluster.find(kind, name)
            if there is None:
                yield f"{kind.name} {name} is not there"
            elif other := _other_keys(kept, there, planned):
                yield f"{kind.name} {name} is not that of application bundle {planned.manifest.name}: {', '.join(other)} differ"
    for kind in WORKLOADS:
        for kept in planned.bundle.of_kind(kind.name):
            name = planned.renamed(objects.name_of(kept))
            there = cluster.find(kind, name)
            if there is None:
                yield f"{kind.name} {name} is not there"
                continue
            wanted, found = (sorted(str(c.get("image", "")) for c in objects.containers(one)) for one in (kept, there))
            if wanted != found:
                yield f"{kind.name} {name} runs {', '.join(found)}; {', '.join(wanted)} was backed up"
            if not objects.is_ready(there) or not there["spec"].get("replicas", 1):
                yield f"{kind.name} {name} is not ready"


def _other_keys(kept: Mapping[str, Any], there: Mapping[str, Any], planned: ApplicationPlan) -> list[str]:
    """Keys of a Secret or ConfigMap whose values differ; the values are not told. Keys beside them are not ours."""
    wanted, found = ({**(one.get("data") or {}), **(one.get("binaryData") or {})} for one in (kept, there))
    if planned.is_renamed and kept["kind"] == CONFIG_MAP.name:  # its texts name the release's Services, which are called anew
        found = {key: str(value).replace(planned.release, planned.bundle.release) for key, value in found.items()}
    return sorted(key for key in wanted if found.get(key) != wanted[key])


def _url(plan: RecoveryPlan, request: RecoveryRequest, verification: Verification) -> str:
    """Where the application itself is asked; '' when nobody knows."""
    profile, planned = verification.profile, plan.application
    if request.drilled is not None:
        return request.drilled.url
    if verification.url or planned is None or not profile.service or not request.driven_by_kubernetes(Step.DEPLOY):
        return verification.url
    return f"http://{profile.service.replace('{fullname}', planned.fullname)}.{planned.namespace}.svc:{profile.port}"


def _judge_application(request: RecoveryRequest, verification: Verification, url: str) -> int:
    """How many calls were answered rightly."""
    with server.connect(request.endpoint) as connection:
        asker = _asker(connection, verification, url)
        for call in verification.profile.calls:
            wrong = ""
            for pause_s in (PAUSE_S,) * (ASK_AGAIN - 1) + (0.0,):
                wrong = asker.ask(call)
                if not wrong:
                    break
                time.sleep(pause_s)
            if wrong:
                raise asking.failed(call, wrong, url)
    return len(verification.profile.calls)


def public_problem(request: RecoveryRequest) -> str:
    """What is wrong with the answers at the public address, '' when nothing is or no address is set."""
    verification = request.verification
    if verification is None or not verification.public_url:
        return ""
    with server.connect(request.endpoint) as connection:
        asker = _asker(connection, verification, verification.public_url)
        for call in verification.profile.public:
            if wrong := asker.ask(call):
                return f"{call.name}: {wrong}"
    return ""


def _asker(connection: server.Connection, verification: Verification, url: str) -> asking.Asker:
    if verification.profile.database:
        connection.execute(f"USE {identifier(verification.profile.database)}")

    def column(query: str) -> list[str]:
        return [one.decode(errors="replace") if isinstance(one, bytes) else str(one) for one, *_ in connection.rows(query)]

    return asking.Asker(
        url, {"user": verification.user, "password": verification.password}, column, verification.ca_file,
        (verification.password,),
    )
