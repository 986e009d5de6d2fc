"""A wrong restore is caught: each planted fault makes step 4 fail, and step 5 does not happen.

All share one recovered application. After each fault everything is put right again, and step 4 finds it so at the end: what
it reported was the fault alone.
"""

from __future__ import annotations

import base64
import contextlib
import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from kpbackup import config, errors
from kpbackup.plan.timeline import Target
from kpbackup.recovery import journal as journals
from kpbackup.recovery import planning, run
from kpbackup.recovery.steps import Driver, RecoveryRequest, SqlCheck, Step
from kpbackup.service import opening
from tests.integration import five_steps
from tests.integration.deployment import until
from tests.integration.five_steps import NAME, Recovered
from tests.servers.kubepolaris import network
from tests.servers.kubepolaris.application import Application

BACKEND = "kubepolaris-backend"
Planting = Callable[["Restored"], AbstractContextManager[RecoveryRequest]]


@dataclass
class Restored:
    """A recovery whose first three steps are done."""

    stage: Recovered
    journal: journals.Journal
    plan: planning.RecoveryPlan
    request: RecoveryRequest

    def judge(self, request: RecoveryRequest) -> None:
        """Steps 4 and 5, which raises what step 4 raises."""
        run.carry_out(self.journal, self.plan, request, (Step.VERIFY, Step.SWITCH), again=(Step.VERIFY,))

    def sql(self, *statements: str) -> None:
        self.stage.target.execute("SET foreign_key_checks = 0", *statements, database=NAME)

    def settle(self, replicas: int | None = None) -> None:
        """Waits until the back end runs as it is wanted."""
        def is_settled() -> bool:
            found = self.stage.cluster.get("Deployment", NAME, BACKEND)
            wanted = found["spec"].get("replicas", 1) if replicas is None else replicas
            status = found.get("status", {})
            is_seen = status["observedGeneration"] == found["metadata"]["generation"]
            return bool(is_seen and status.get("readyReplicas", 0) == wanted)

        until(is_settled, what="the back end")


@pytest.fixture(scope="module")
def restored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restored]:
    with five_steps.stage(tmp_path_factory.mktemp("faults")) as stage:
        request = request_of(stage)
        plan = planning.make_plan(request)
        journal = journals.new_journal(request.repository, plan.recovered_to)
        run.begin(journal, plan, request, tuple(Step))
        run.carry_out(journal, plan, request, (Step.PREPARE, Step.DATABASE, Step.DEPLOY))
        yield Restored(stage, journal, run.resume(journal, request), request)


def request_of(stage: Recovered) -> RecoveryRequest:
    """What `kpbackup restore --to latest` makes of the settings."""
    settings = config.load(stage.scene.argv()[4], {})
    drivers = {step: Driver("kubernetes") for step in (Step.PREPARE, Step.DEPLOY, Step.SWITCH)}
    return RecoveryRequest(
        repository=opening.reading_repository(settings), endpoint=opening.target_endpoint(settings), target=Target(latest=True),
        identities=opening.identities(settings), drivers=drivers, environment=opening.environment(settings),
        verification=opening.verification(settings), sql_checks=(SqlCheck("SELECT 1", "1"),),
    )


def asked_at(request: RecoveryRequest, url: str) -> RecoveryRequest:
    assert request.verification is not None
    return replace(request, verification=replace(request.verification, url=url))


def statements(plant: tuple[str, ...], undo: tuple[str, ...]) -> Planting:
    @contextmanager
    def planting(restored: Restored) -> Iterator[RecoveryRequest]:
        restored.sql(*plant)
        try:
            yield restored.request
        finally:
            restored.sql(*undo)

    return planting


def patched(kind: str, name: str, change: dict[str, Any], *, replicas: int | None = None, image: str = "") -> Planting:
    """An object that is not the bundle's; put back as it was."""

    @contextmanager
    def planting(restored: Restored) -> Iterator[RecoveryRequest]:
        cluster = restored.stage.cluster
        before = cluster.get(kind, NAME, name)
        containers = copy.deepcopy(before.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []))
        other = {"spec": {"template": {"spec": {"containers": [{**one, "image": image} for one in containers]}}}}
        cluster.patch(kind, NAME, name, other if image else change)
        restored.settle(replicas)
        try:
            yield restored.request
        finally:
            key = "data" if "data" in before else "spec"
            more = {name: None for name in cluster.get(kind, NAME, name)[key] if name not in before[key]}
            cluster.patch(kind, NAME, name, {key: {**before[key], **more}})
            restored.settle()

    return planting


@contextmanager
def a_secret_is_gone(restored: Restored) -> Iterator[RecoveryRequest]:
    gone = restored.stage.cluster.delete("Secret", NAME, "kubepolaris-tls")
    try:
        yield restored.request
    finally:
        restored.stage.cluster.create(gone, namespace=NAME)


@contextmanager
def an_empty_install(restored: Restored) -> Iterator[RecoveryRequest]:
    """The application started before the restore: it made an empty database for itself."""
    with restored.stage.target.connect(database=NAME) as connection:
        tables = [str(row[0]) for row in connection.rows("SHOW TABLES")]
    aside = ", ".join(f"{NAME}.`{name}` TO aside.`{name}`" for name in tables)
    restored.sql("CREATE DATABASE aside", f"RENAME TABLE {aside}")
    restart = {"spec": {"template": {"metadata": {"annotations": {"restarted": "once"}}}}}
    starts = restored.stage.platform.starts
    restored.stage.cluster.patch("Deployment", NAME, BACKEND, restart)
    until(lambda: restored.stage.platform.starts > starts, what="a back end on the empty database")
    restored.settle()
    try:
        yield restored.request
    finally:
        back = ", ".join(f"aside.`{name}` TO {NAME}.`{name}`" for name in tables)
        restored.sql(f"DROP DATABASE {NAME}", f"CREATE DATABASE {NAME}", f"RENAME TABLE {back}", "DROP DATABASE aside")


@contextmanager
def a_front_end_before_a_dead_back_end(restored: Restored) -> Iterator[RecoveryRequest]:
    """Every path outside /api answers 200 through it."""
    front = network.front_end(lambda path: [("127.0.0.1", 9)])
    try:
        yield asked_at(restored.request, front.url)
    finally:
        front.end()


@contextmanager
def a_back_end_that_answers_nobody(restored: Restored) -> Iterator[RecoveryRequest]:
    restored.stage.platform.is_dead.add(BACKEND)
    until(lambda: restored.stage.cluster.workloads.behind(NAME, BACKEND)[:1] == [("127.0.0.1", 9)], what="a dead back end")
    try:
        yield restored.request
    finally:
        restored.stage.platform.is_dead.clear()
        until(lambda: restored.stage.cluster.workloads.behind(NAME, BACKEND)[0][1] != 9, what="the back end")


@contextmanager
def a_back_end_on_another_database(restored: Restored) -> Iterator[RecoveryRequest]:
    """It is healthy and lets the user log in; it only is not the restored one."""
    source = restored.stage.source
    source.execute(
        f"INSERT INTO {NAME}.users (username) VALUES ('somebody-new')", "CREATE USER other@'127.0.0.1' IDENTIFIED BY 'x'",
        f"GRANT ALL ON {NAME}.* TO other@'127.0.0.1'",
    )  # fmt: skip
    environ = {"DB_USER": "other", "DB_PASSWORD": "x", "DB_NAME": NAME, "JWT_SECRET": "x"}
    with contextlib.closing(_Ended(Application(environ, (source.host, source.port)))) as other:
        yield asked_at(restored.request, other.url)


class _Ended:
    def __init__(self, application: Application) -> None:
        self._application = application
        self.url = f"http://127.0.0.1:{application.server_address[1]}"

    def close(self) -> None:
        self._application.end()


@contextmanager
def another_password(restored: Restored) -> Iterator[RecoveryRequest]:
    assert restored.request.verification is not None
    yield replace(restored.request, verification=replace(restored.request.verification, password="KubePolaris@2026"))


@contextmanager
def an_assertion_of_the_user(restored: Restored) -> Iterator[RecoveryRequest]:
    yield replace(restored.request, sql_checks=(SqlCheck("SELECT COUNT(*) > 1000 FROM kubepolaris.operation_logs", "1"),))


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


FAULTS: dict[str, tuple[Planting, str]] = {
    "empty install": (an_empty_install, "looks like an installation that was never restored"),
    "one row missing": (
        statements(
            ("CREATE TABLE lost AS SELECT * FROM operation_logs ORDER BY id LIMIT 1",
             "DELETE FROM operation_logs WHERE id IN (SELECT id FROM lost)"),
            ("INSERT INTO operation_logs SELECT * FROM lost", "DROP TABLE lost"),
        ),
        "table kubepolaris.operation_logs has",
    ),
    "one byte changed": (
        statements(
            ("UPDATE clusters SET kubeconfig_enc = CONCAT(kubeconfig_enc, ' ') ORDER BY id LIMIT 1",),
            ("UPDATE clusters SET kubeconfig_enc = LEFT(kubeconfig_enc, CHAR_LENGTH(kubeconfig_enc) - 1) ORDER BY id LIMIT 1",),
        ),
        "table kubepolaris.clusters: restored rows have changed",
    ),
    "a table gone": (
        statements(("RENAME TABLE ai_configs TO gone",), ("RENAME TABLE gone TO ai_configs",)),
        "table kubepolaris.ai_configs is gone",
    ),
    "a cluster of nobody's": (
        statements(
            ("UPDATE clusters SET created_by = created_by + 100000 ORDER BY id LIMIT 1",),
            ("UPDATE clusters SET created_by = created_by - 100000 WHERE created_by > 100000",),
        ),
        "answered '1', '0' expected",
    ),
    "a restore that did not end": (
        statements(("CREATE DATABASE kpbackup_restore",), ("DROP DATABASE kpbackup_restore",)),
        "the database step is not complete",
    ),
    "stale Secret": (
        patched("Secret", "kubepolaris-secrets", {"data": {"jwt-secret": encoded("another")}}),
        "Secret kubepolaris-secrets is not that of application bundle 1: jwt-secret differ",
    ),
    "a Secret gone": (a_secret_is_gone, "Secret kubepolaris-tls is not there"),
    "another ConfigMap": (
        patched("ConfigMap", "kubepolaris-frontend-nginx", {"data": {"nginx.conf": "return 200;"}}),
        "ConfigMap kubepolaris-frontend-nginx is not that of",
    ),
    "wrong image tag": (
        patched("Deployment", BACKEND, {}, image="kubepolaris/backend:latest"),
        "runs kubepolaris/backend:latest; kubepolaris/backend:v1.0.5 was",
    ),
    "no back end": (patched("Deployment", BACKEND, {"spec": {"replicas": 0}}, replicas=0), "kubepolaris-backend is not ready"),
    "a front end that answers for a dead back end": (
        a_front_end_before_a_dead_back_end, "its body is text/html; charset=utf-8, application/json expected",
    ),
    "a back end that answers nobody": (a_back_end_that_answers_nobody, "the back end lives.*status 502"),
    "a back end on another database": (a_back_end_on_another_database, r"users .*total is \d+, the restored database has \d+"),
    "the password of a new install": (another_password, "log in .*: status 401, 200 expected"),
    "the user's own question": (an_assertion_of_the_user, "answered '0', '1' expected"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_step_4_fails_and_step_5_does_not_happen(restored: Restored, name: str) -> None:
    planting, wrong = FAULTS[name]
    with planting(restored) as request, pytest.raises(errors.StepFailed, match=wrong):
        restored.judge(request)
    with pytest.raises(errors.StepFailed, match="is gated on step verify, which is not finished"):
        run.carry_out(restored.journal, restored.plan, restored.request, (Step.SWITCH,))
    assert restored.journal.last("step_started", step=Step.SWITCH) is None
    assert restored.stage.cluster.list("Ingress", NAME) == []


def test_without_a_fault_it_is_verified_and_switched(restored: Restored) -> None:
    """Last in this module: the faults were all there was."""
    restored.settle()
    restored.judge(restored.request)
    assert [one["metadata"]["name"] for one in restored.stage.cluster.list("Ingress", NAME)] == [NAME]
