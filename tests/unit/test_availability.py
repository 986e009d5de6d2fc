"""The high-availability list judged over plain objects: what a fake cluster's one release does not show."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kpbackup.kubernetes.availability import ITEMS, Judgement, Seen, judge, selects

NOW = datetime(2026, 5, 1, tzinfo=UTC)
LABELS = {"app": "shop", "tier": "web"}
KINDS = sorted({kind for needed, _ in ITEMS.values() for kind in needed})


def workload(kind: str, name: str, replicas: int = 1, *, image: str = "shop:1", ready: int | None = None) -> dict[str, Any]:
    pod = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "main", "image": image}]}}
    status = {"readyReplicas": replicas if ready is None else ready}
    return {"kind": kind, "metadata": {"name": name}, "spec": {"replicas": replicas, "template": pod}, "status": status}


def service(type: str, **status: Any) -> dict[str, Any]:
    return {"kind": "Service", "metadata": {"name": "web"}, "spec": {"type": type, "selector": {"app": "shop"}}, "status": status}


def judged(area: str, found: dict[str, list[dict[str, Any]]], hidden: dict[str, str] | None = None) -> list[Judgement]:
    seen = Seen({kind: tuple(all) for kind, all in found.items()}, hidden or {}, {})
    return [one for one in judge(seen, NOW) if one.area == area]


def severities(area: str, **found: list[dict[str, Any]]) -> list[str]:
    return [one.severity for one in judged(area, found)]


def test_replicas() -> None:
    scaler = {"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 9}}
    assert severities("replicas", Deployment=[workload("Deployment", "web", 3)]) == ["ok"]
    assert severities("replicas", Deployment=[workload("Deployment", "web", 3)], HorizontalPodAutoscaler=[scaler]) == ["warning"]
    (few,) = judged("replicas", {"Deployment": [workload("Deployment", "web", 3, ready=1)]})
    assert (few.severity, few.what) == ("warning", "Deployment/web has 1 of 3 replicas ready")


def test_a_database_of_several_pods_is_not_called_safe() -> None:
    database = workload("StatefulSet", "db", 3, image="registry.example.net:5000/percona/percona-server:8.4")
    assert severities("database", StatefulSet=[database]) == ["unknown"]
    assert severities("database", Deployment=[workload("Deployment", "web", 2)]) == ["unknown"]
    assert severities("replicas", StatefulSet=[database]) == ["unknown"]  # nothing but the database is there


def test_what_leads_users_to_it() -> None:
    web = [workload("Deployment", "web", 2)]
    address = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    assert severities("load balancer", Deployment=web, Service=[service("LoadBalancer", **address)]) == ["ok"]
    assert severities("load balancer", Deployment=web, Service=[service("LoadBalancer")]) == ["warning"]
    assert severities("load balancer", Deployment=web, Service=[service("ClusterIP")]) == ["unknown"]
    other = {"kind": "Ingress", "metadata": {"name": "other"}, "spec": {"defaultBackend": {"service": {"name": "elsewhere"}}}}
    assert severities("load balancer", Deployment=web, Service=[service("ClusterIP")], Ingress=[other]) == ["unknown"]


def test_hosts_without_tls() -> None:
    rules = [
        {"host": host, "http": {"paths": [{"backend": {"service": {"name": "web"}}}]}} for host in ("a.example", "b.example")
    ]
    ingress = {"kind": "Ingress", "metadata": {"name": "in"}, "spec": {"rules": rules, "tls": [{"hosts": ["a.example"]}]}}
    web = workload("Deployment", "web")
    found = judged("TLS", {"Deployment": [web], "Service": [service("ClusterIP")], "Ingress": [ingress]})
    assert [(one.severity, one.what.split(" ", 1)[1]) for one in found] == [
        ("warning", "serves b.example without TLS"),
        ("unknown", "certificate of Ingress/in could not be seen: it is the controller's own"),
    ]


def test_disruption_budgets() -> None:
    web = [workload("Deployment", "web", 2)]

    def budget(**spec: Any) -> dict[str, Any]:
        return {"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "shop"}}, **spec}}

    for spec, severity in (
        ({"minAvailable": 1}, "ok"), ({"minAvailable": 2}, "warning"), ({"minAvailable": "100%"}, "warning"),
        ({"maxUnavailable": "0%"}, "warning"), ({"selector": {"matchLabels": {"app": "other"}}, "maxUnavailable": 1}, "warning"),
    ):  # fmt: skip
        assert severities("disruption budget", Deployment=web, PodDisruptionBudget=[budget(**spec)]) == [severity], spec


def test_selectors() -> None:
    def expression(operator: str, *values: str, key: str = "app") -> dict[str, Any]:
        return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}

    assert not selects(None, LABELS) and selects({}, LABELS)
    assert selects(expression("In", "shop"), LABELS) and not selects(expression("In", "x"), LABELS)
    assert selects(expression("NotIn", "x"), LABELS) and not selects(expression("NotIn", "shop"), LABELS)
    assert selects(expression("Exists"), LABELS) and not selects(expression("Exists", key="none"), LABELS)
    assert selects(expression("DoesNotExist", key="none"), LABELS) and not selects(expression("DoesNotExist"), LABELS)


@given(st.sets(st.sampled_from(KINDS)))
def test_what_is_hidden_is_never_called_good_or_bad(hidden: set[str]) -> None:
    shown = {"Deployment": [workload("Deployment", "web", 2)], "Service": [service("LoadBalancer")]}
    for area, (needed, _) in ITEMS.items():
        found = judged(area, shown, {kind: f"{kind} is hidden" for kind in hidden})
        assert found
        if hidden.intersection(needed):
            assert {one.severity for one in found} == {"unknown"}
            assert all("is hidden" in one.what for one in found)
