"""The alerts, tried with promtool: a healthy week is quiet, each fault fires exactly its alert in its time and clears again.

Their metrics are the program's own, or those of Kubernetes and Prometheus in FOREIGN.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from kpbackup.plan import forecast as forecasts
from kpbackup.service import metrics, notify, trust
from kpbackup.service.http import Latency
from kpbackup.service.status import Drill, Objectives, Recovery, assess
from tests.chart import rendering
from tests.chart.rendering import CRONJOB, DRILL, RULES, base
from tests.servers.prometheus import promtool
from tests.unit.plain_histories import START, Source, catalog, when
from tests.unit.test_status import TIMINGS

# Of Prometheus itself and its client library, kube-state-metrics, the kubelet and ingress-nginx.
FOREIGN = {
    "process_cpu_seconds_total", "process_resident_memory_bytes",
    "up", "ALERTS", "kube_deployment_status_replicas_available", "kube_deployment_spec_replicas", "kube_cronjob_status_active",
    "kube_cronjob_status_last_schedule_time", "kube_cronjob_status_last_successful_time", "container_cpu_usage_seconds_total",
    "container_memory_working_set_bytes", "kube_pod_container_resource_limits", "nginx_ingress_controller_request_duration_seconds_bucket",  # noqa: E501
}  # fmt: skip
RUNBOOK = rendering.ROOT / "docs" / "alerts.md"
MONTH = "kpbackup.month"

Rule = dict[str, Any]


def groups(*more: dict[str, Any]) -> list[dict[str, Any]]:
    rule = rendering.one(rendering.objects(base(RULES, DRILL, *more)), "PrometheusRule")
    found: list[dict[str, Any]] = rule["spec"]["groups"]
    return found


def alerts(*more: dict[str, Any]) -> dict[str, Rule]:
    return {rule["alert"]: rule for group in groups(*more) for rule in group["rules"] if "alert" in rule}


@pytest.fixture(scope="module")
def rules_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without the figure of the month, which takes promtool a minute for each week."""
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [group for group in groups() if group["name"] != MONTH]}), encoding="utf-8")
    return path


@pytest.mark.parametrize("more", [{}, CRONJOB, {"drill": {"enabled": False}}, {"metrics": {"prometheusRule": {"kubernetes": False}}}])  # noqa: E501
def test_prometheus_takes_the_rules(more: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": groups(more)}), encoding="utf-8")
    checked = promtool("check", "rules", "--lint=all", "--lint-fatal", str(path))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    names = [rule.get("alert") or rule["record"] for group in groups(more) for rule in group["rules"]]
    assert len(names) == len(set(names))


def test_the_rules_for_a_prometheus_without_operator_are_taken_too() -> None:
    checked = promtool("check", "rules", "--lint=all", "--lint-fatal", str(rendering.ROOT / "docker/prometheus/rules.yaml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def names_in(expression: str) -> set[str]:
    """The metrics an expression asks for: words outside of quotes, labels and functions."""
    bare = re.sub(r'"(\\.|[^"])*"', '""', expression)
    bare = re.sub(r"\{[^}]*\}|\b(by|on|group_left|group_right)\s*\([^)]*\)|\[[^\]]*\]", " ", bare)
    words = set(re.findall(r"[a-zA-Z_:][\w:]*(?!\s*\(|\w)", bare))
    return words - {"by", "on", "and", "or", "unless", "bool", "group_left", "d", "e"}


def own(name: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", name)


def test_every_metric_of_the_rules_exists_or_is_promised() -> None:
    asked: set[str] = set()
    recorded = {rule["record"] for group in groups() for rule in group["rules"] if "record" in rule}
    for group in groups():
        for rule in group["rules"]:
            asked |= names_in(rule["expr"])
    assert "kpbackup_achieved_rpo_seconds" in asked and "up" in asked
    unknown = {name for name in asked - recorded - FOREIGN if own(name) not in metrics.METRICS}
    assert unknown == set(), "a name is misspelt, or the program does not tell this"
    dashboard = json.loads((rendering.CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))
    shown = {name for panel in panels(dashboard) for target in panel.get("targets", ()) for name in names_in(target["expr"])}
    assert {name for name in shown - recorded - FOREIGN if own(name) not in metrics.METRICS} == set()
    for part in ("recovery_point_timestamp_seconds", "drill_last_success_timestamp_seconds", "check_last_passed", "copy_up",
                 "copy_recovery_point_timestamp_seconds", "cost_per_month", "forecast_rto_seconds", "job_running"):  # fmt: skip
        assert f"kpbackup_{part}" in shown


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def test_the_dashboard_is_a_config_map_that_grafana_finds() -> None:
    found = rendering.one(rendering.objects(base(RULES)), "ConfigMap", "kpbackup-dashboard")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    (text,) = found["data"].values()
    dashboard = json.loads(text)
    ids = [panel["id"] for panel in panels(dashboard)]
    assert len(ids) == len(set(ids)) and dashboard["uid"]
    for panel in panels(dashboard):
        place = panel["gridPos"]
        assert place["x"] >= 0 and place["x"] + place["w"] <= 24, panel["title"]
        assert panel["type"] == "row" or panel.get("description") or panel["title"], panel["id"]
    taken = [
        (column, row)
        for panel in dashboard["panels"]
        for column in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for row in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken)), "two panels lie over one another"


def test_every_alert_has_its_section_in_the_runbook() -> None:
    headings = re.findall(r"^### (Kp?u?b?\w+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(headings) == set(alerts())
    for name, rule in alerts().items():
        assert rule["annotations"]["runbook_url"].endswith(f"#{name.lower()}")
        assert rule["labels"]["severity"] in ("warning", "critical") and rule["for"]


# ---------------------------------------------------------------------------------------------- unit tests of the conditions

OWN = 'namespace="backups",job="kpbackup",source="shop"'
K8S = 'namespace="backups",deployment="kpbackup"'
JOB = 'namespace="backups",cronjob="kpbackup-prune"'
POD = 'namespace="backups",pod="kpbackup-7d9f-x",container="kpbackup"'
DAY = 86_400


def series(name: str, labels: str = OWN, **more: str) -> str:
    extra = "".join(f',{key}="{value}"' for key, value in more.items())
    return f"{name}{{{labels}{extra}}}"


RPO = series("kpbackup_achieved_rpo_seconds")
POINT = series("kpbackup_recovery_point_timestamp_seconds")
UP = series("up", 'namespace="backups",job="kpbackup",instance="a"')
FULL, CHECK = (series("kpbackup_last_success_timestamp_seconds", kind=kind) for kind in ("full", "check"))
CHECK_PASSED, CHECK_ENDED = series("kpbackup_check_last_passed"), series("kpbackup_check_last_end_timestamp_seconds")
COPY_UP, COPY_POINT = (
    series(name, repository="offsite") for name in ("kpbackup_copy_up", "kpbackup_copy_recovery_point_timestamp_seconds")
)
LATENCY = "kpbackup_http_request_duration_seconds_bucket"
CPU = series("container_cpu_usage_seconds_total", POD)
NGINX = 'exported_namespace="kubepolaris",exported_service="kubepolaris-backend"'
BACKEND = 'namespace="kubepolaris",deployment="kubepolaris-backend"'
# Series -> its value while all is well. `a+b` grows by b each minute.
HEALTHY: dict[str, str] = {
    UP: "1",
    series("kpbackup_build_info", version="0.1.0"): "1",
    RPO: "12",
    POINT: "0+60",
    series("kpbackup_objective_rpo_seconds"): "3600",
    series("kpbackup_objective_rto_seconds"): "1800",
    FULL: "0",
    series("kpbackup_chain_intact"): "1",
    series("kpbackup_backup_sets"): "9",
    series("kpbackup_archive_stalled_seconds"): "0",
    series("kpbackup_forecast_rto_seconds"): "700",
    series("kpbackup_head_regressed"): "0",
    series("kpbackup_canary_last_success_timestamp_seconds", recipient="age1abc"): "0",
    series("kpbackup_notification_delivered", channel="slack"): "1",
    series("kpbackup_job_running", kind="incremental"): "1",
    series("kpbackup_measured_rto_seconds", kind="restore"): "600",
    series("kpbackup_drill_last_success_timestamp_seconds"): "0",
    series("kpbackup_source_up"): "1",
    series("kpbackup_store_up"): "1",
    series("kpbackup_state_timestamp_seconds"): "0+60",
    series("kpbackup_job_consecutive_failures", kind="full"): "0",
    series("kpbackup_job_consecutive_failures", kind="incremental"): "0",
    series("kpbackup_job_running", kind="full"): "0",
    series("kpbackup_certificate_expiry_timestamp_seconds", endpoint="db:3306"): str(90 * DAY),
    series("kpbackup_source_clock_skew_seconds"): "0.2",
    series(LATENCY, path="/metrics", le="0.1"): "0+10",
    series(LATENCY, path="/metrics", le="2.5"): "0+10",
    series(LATENCY, path="/metrics", le="+Inf"): "0+10",
    series("kube_deployment_status_replicas_available", K8S): "2",
    series("kube_deployment_spec_replicas", K8S): "2",
    CHECK: "0",
    CHECK_PASSED: "1",
    CHECK_ENDED: "0",
    series("kpbackup_check_max_age_seconds"): "259200",
    COPY_UP: "1",
    COPY_POINT: "0+60",
    series("kpbackup_copy_max_age_seconds", repository="offsite"): "86400",
    series("kpbackup_drill_last_passed"): "1",
    series("kpbackup_drill_max_age_seconds"): "3024000",
    series("kube_cronjob_status_last_schedule_time", JOB): "0",
    series("kube_cronjob_status_last_successful_time", JOB): "30",
    series("kube_cronjob_status_active", JOB): "0",
    CPU: "0+6",
    series("kube_pod_container_resource_limits", POD, resource="cpu"): "1",
    series("kube_pod_container_resource_limits", POD, resource="memory"): "1000",
    series("container_memory_working_set_bytes", POD): "300",
    series("kube_deployment_status_replicas_available", BACKEND): "3",
    series("nginx_ingress_controller_request_duration_seconds_bucket", NGINX, le="0.5"): "0+10",
    series("nginx_ingress_controller_request_duration_seconds_bucket", NGINX, le="5"): "0+10",
    series("nginx_ingress_controller_request_duration_seconds_bucket", NGINX, le="+Inf"): "0+10",
}
GONE = None
# Alert -> what differs while it must fire; more than one way for some.
FAULTS: list[tuple[str, dict[str, str | None]]] = [
    ("KpbackupRpoAtRisk", {RPO: "2000"}),
    ("KpbackupRpoExceeded", {RPO: "4000"}),
    ("KpbackupRecoveryPointUnknown", {RPO: GONE, POINT: GONE}),
    ("KpbackupFullTooOld", {FULL: "-130000"}),
    ("KpbackupChainBroken", {series("kpbackup_chain_intact"): "0"}),
    ("KpbackupArchiveStalled", {series("kpbackup_archive_stalled_seconds"): "400"}),
    ("KpbackupRtoExceeded", {series("kpbackup_measured_rto_seconds", kind="restore"): "2400"}),
    ("KpbackupForecastRtoExceeded", {series("kpbackup_forecast_rto_seconds"): "2400"}),
    ("KpbackupCheckFailed", {CHECK_PASSED: "0"}),
    ("KpbackupCheckFailed", {CHECK_PASSED: "0", CHECK: "-260000"}),
    ("KpbackupCheckTooOld", {CHECK: "-260000"}),
    ("KpbackupCheckMissing", {CHECK: GONE, CHECK_PASSED: GONE, CHECK_ENDED: GONE}),
    ("KpbackupCopyBehind", {COPY_POINT: "-90000"}),
    ("KpbackupCopyUnreachable", {COPY_UP: "0"}),
    ("KpbackupCopyUnreachable", {COPY_UP: "0", COPY_POINT: "-90000"}),
    ("KpbackupDrillFailed", {series("kpbackup_drill_last_passed"): "0"}),
    ("KpbackupDrillTooOld", {series("kpbackup_drill_last_success_timestamp_seconds"): "-3100000"}),
    ("KpbackupDrillMissing", {series("kpbackup_drill_last_success_timestamp_seconds"): GONE}),
    ("KpbackupKeyUnproven", {series("kpbackup_canary_last_success_timestamp_seconds", recipient="age1abc"): "-3500000"}),
    ("KpbackupStoreRegressed", {series("kpbackup_head_regressed"): "1"}),
    ("KpbackupNotificationsLost", {series("kpbackup_notification_delivered", channel="slack"): "0"}),
    ("KpbackupDown", {UP: "0"}),
    ("KpbackupDown", {UP: GONE}),
    ("KpbackupSourceUnreachable", {series("kpbackup_source_up"): "0"}),
    ("KpbackupStoreUnreachable", {series("kpbackup_store_up"): "0"}),
    ("KpbackupStoreUnreachable", {series("kpbackup_state_timestamp_seconds"): "-1"}),
    ("KpbackupJobFailed", {series("kpbackup_job_consecutive_failures", kind="incremental"): "3"}),
    ("KpbackupLeaseWithoutHolder", {series("kpbackup_job_running", kind="incremental"): "0"}),
    ("KpbackupCertificateExpiresSoon", {series("kpbackup_certificate_expiry_timestamp_seconds", endpoint="db:3306"): str(20 * DAY)}),  # noqa: E501
    ("KpbackupClockSkew", {series("kpbackup_source_clock_skew_seconds"): "-45"}),
    ("KpbackupLatencyHigh", {series(LATENCY, path="/metrics", le="0.1"): "290"}),
    ("KpbackupReplicasLow", {series("kube_deployment_status_replicas_available", K8S): "1"}),
    ("KpbackupJobOverdue", {series("kube_cronjob_status_last_successful_time", JOB): "-80000"}),
    ("KpbackupJobOverdue", {series("kube_cronjob_status_last_successful_time", JOB): GONE}),
    ("KpbackupCpuHigh", {CPU: "174+54"}),
    ("KpbackupMemoryHigh", {series("container_memory_working_set_bytes", POD): "900"}),
    ("KubePolarisDown", {series("kube_deployment_status_replicas_available", BACKEND): "0"}),
    ("KubePolarisDown", {series("kube_deployment_status_replicas_available", BACKEND): GONE}),
    ("KubePolarisReplicasLow", {series("kube_deployment_status_replicas_available", BACKEND): "1"}),
    (
        "KubePolarisHighLatency",
        {series("nginx_ingress_controller_request_duration_seconds_bucket", NGINX, le="0.5"): "290"},
    ),
]
BEGIN, FAULTY, AFTER = 15, 60, 20  # minutes: well, wrong, well again


def values(healthy: str, wrong: str | None, *, is_faulty: bool) -> str:
    """One series as promtool writes it: well, wrong, and well again. What grows goes on where it was."""
    start, plus, step = healthy.partition("+")
    if not is_faulty:
        return f"{start}{plus}{step}x{BEGIN + FAULTY + AFTER}" if plus else f"{start}x{BEGIN + FAULTY + AFTER}"
    whole = BEGIN + FAULTY

    def well(first: int, count: int) -> str:
        return f"{float(start) + first * float(step)}+{step}x{count - 1}" if plus else f"{start}x{count - 1}"

    if wrong is GONE:
        middle = f"stale _x{FAULTY - 1}"
    elif "+" in wrong:
        middle = f"{wrong}x{FAULTY - 1}"
    else:
        middle = f"{wrong}x{FAULTY - 1}"
    return f"{well(0, BEGIN)} {middle} {well(whole, AFTER)}"


def firing(at_minutes: int, *names: str) -> dict[str, Any]:
    expected = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in names]
    expression = 'max by (alertname) (ALERTS{alertstate="firing"})'
    return {"expr": expression, "eval_time": f"{at_minutes}m", "exp_samples": expected}


def run(tests: list[dict[str, Any]], rules: Path, directory: Path, *, every: str = "1m") -> None:
    path = directory / "tests.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": every, "tests": tests}), encoding="utf-8")
    ended = promtool("test", "rules", str(path))
    assert ended.returncode == 0, ended.stdout + ended.stderr


def minutes(duration: str) -> int:
    assert duration.endswith("m")
    return int(duration[:-1])


def fault_test(name: str, faults: dict[str, str | None], hold: int) -> dict[str, Any]:
    given = [
        {"series": one, "values": values(healthy, faults.get(one), is_faulty=one in faults)} for one, healthy in HEALTHY.items()
    ]
    begins = BEGIN + (5 if any("bucket" in one or one == CPU for one in faults) else 0)  # rates over five minutes come later
    quiet = [firing(at) for at in (BEGIN - 1, BEGIN + hold - 1)] if hold > 1 else [firing(BEGIN - 1)]
    whole = BEGIN + FAULTY
    told = [firing(at, name) for at in (begins + hold + 1, BEGIN + FAULTY - 1)]
    return {"name": f"{name} {faults}", "interval": "1m", "input_series": given,
            "promql_expr_test": [*quiet, *told, firing(whole + 8), ever_fired(f"{whole + AFTER}m", name)]}  # fmt: skip


def test_every_fault_fires_exactly_its_alert_and_clears(rules_file: Path, tmp_path: Path) -> None:
    known = alerts()
    assert {name for name, _ in FAULTS} == set(known), "every alert has its fault"
    for _, faults in FAULTS:
        assert set(faults) <= set(HEALTHY)
    run([fault_test(name, faults, minutes(known[name]["for"])) for name, faults in FAULTS], rules_file, tmp_path)


def test_the_test_of_the_faults_can_fail(rules_file: Path, tmp_path: Path) -> None:
    wrong = fault_test("KpbackupRpoExceeded", {RPO: "2000"}, 1)
    with pytest.raises(AssertionError, match="KpbackupRpoAtRisk"):
        run([wrong], rules_file, tmp_path)


def ever_fired(time: str, *names: str) -> dict[str, Any]:
    """These alerts, and no others at any moment."""
    return {"expr": f'group by (alertname) (count_over_time(ALERTS{{alertstate="firing"}}[{time}]))', "eval_time": time,
            "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in names]}  # fmt: skip


def pieces(*parts: tuple[str, int], minutes_in_all: int) -> str:
    """A week of one series, written day by day."""
    day = " ".join(f"{value}x{count - 1}" for value, count in parts)
    assert sum(count for _, count in parts) == 1440
    return " ".join([day] * (minutes_in_all // 1440))


def test_a_healthy_week_is_quiet(rules_file: Path, tmp_path: Path) -> None:
    """With what a healthy week has: full backups that use all of the processor, a restart, a job that succeeds at its second
    try, a source and a store that are away for two minutes, an archive that is at times ten minutes late."""
    week = 7 * 1440
    day = {
        RPO: [("12", 600), ("60+60", 10), ("12", 830)],
        UP: [("1", 300), ("0", 2), ("1", 1138)],
        series("kpbackup_job_running", kind="full"): [("0", 120), ("1", 90), ("0", 1230)],
        series("kpbackup_job_consecutive_failures", kind="incremental"): [("0", 700), ("1", 2), ("0", 738)],
        series("kpbackup_source_up"): [("1", 800), ("0", 2), ("1", 638)],
        series("kpbackup_store_up"): [("1", 900), ("0", 2), ("1", 538)],
        series("kube_deployment_status_replicas_available", K8S): [("2", 300), ("1", 4), ("2", 1136)],
        series("kpbackup_backup_sets"): [("9", 1440)],
    }
    given = []
    for one, healthy in HEALTHY.items():
        start, plus, step = healthy.partition("+")
        if one in day:
            text = pieces(*day[one], minutes_in_all=week)
        elif "last_success" in one or "cronjob_status_last" in one:
            text = " ".join(f"{number * DAY}x1439" for number in range(7))
        elif one == CPU:  # a full backup takes a whole processor for an hour and a half
            per_day = [6] * 120 + [60] * 90 + [6] * 1230
            total, texts = 0, []
            for _ in range(7):
                for count, rate in ((120, 6), (90, 60), (1230, 6)):
                    texts.append(f"{total}+{rate}x{count - 1}")
                    total += count * rate
            assert total == 7 * sum(per_day)
            text = " ".join(texts)
        else:
            text = f"{start}{plus}{step}x{week}" if plus else f"{start}x{week}"
        given.append({"series": one, "values": text})
    test = {"interval": "1m", "input_series": given, "promql_expr_test": [ever_fired("7d")]}
    run([test], rules_file, tmp_path, every="5m")  # what is away begins at such a moment; each minute would take long


def test_a_week_of_the_program_s_own_numbers_is_quiet(rules_file: Path, tmp_path: Path) -> None:
    """What the status makes of a week with a full backup each night and the archive each hour, scraped every 15 minutes."""
    step_h, hours = 0.25, 9 * 24
    source = Source()
    found: dict[str, list[str]] = {}
    for quarter in range(int(hours / step_h)):
        hour = quarter * step_h
        if hour == int(hour) and hour >= 2:
            if int(hour) % 24 == 2:
                source.full(int(hour))
            if int(hour) > 2:
                source.archive(int(hour))
        if hour < 48:
            continue  # two nights, so that there is something to look at
        state = assess(
            catalog(source.history()), (), timings=TIMINGS, now=when(hour),
            objectives=Objectives(rpo=timedelta(hours=4), rto=timedelta(minutes=30), drill=timedelta(days=35)),
        )  # fmt: skip
        seen = metrics.Observed("shop", when(hour), state, store_up=True, source_up=True, read_at=when(hour))
        for name, samples in metrics.samples(seen).items():
            for labels, value in samples:
                shown = dict(zip(metrics.METRICS[name].labels, labels, strict=True))
                moved = value - START.timestamp() - 48 * 3600 if name.endswith("timestamp_seconds") else value
                found.setdefault(series(name, **shown), []).append(f"{moved:g}" if abs(moved) < 1e5 else f"{moved:.0f}")
    texts = {UP: " ".join(["1"] * (7 * 96)), **{one: " ".join(numbers) for one, numbers in found.items()}}
    others = {one: text for one, text in HEALTHY.items() if one not in texts}
    given = [{"series": one, "values": text} for one, text in texts.items()]
    given += [{"series": one, "values": f"{text}{'' if '+' in text else '+0'}x{7 * 96}".replace("+60x", "+900x")} for one, text in others.items()]  # noqa: E501
    for one in given:
        if re.search("last_success(_timestamp|ful_time)", one["series"]) and one["series"] not in texts:
            one["values"] = " ".join(f"{number * DAY}x95" for number in range(7))
    test = {"interval": "15m", "input_series": given, "promql_expr_test": [ever_fired("7d")]}
    path = tmp_path / "tests.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [str(rules_file)], "evaluation_interval": "15m", "tests": [test]}), encoding="utf-8")  # noqa: E501
    ended = promtool("test", "rules", str(path))
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_recording_rules_for_service_levels(tmp_path: Path) -> None:
    """An hour of ten over the RPO: kept to nine tenths."""
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [group for group in groups() if group["name"].endswith((".slo", ".month"))]}))
    given = [
        {"series": RPO, "values": "12x539 4000x59"}, {"series": series("kpbackup_objective_rpo_seconds"), "values": "3600x600"},
        {"series": series("kpbackup_objective_rto_seconds"), "values": "1800x600"},
        {"series": series("kpbackup_measured_rto_seconds", kind="restore"), "values": "1900x600"},
    ]  # fmt: skip
    shop = '{source="shop"}'
    expected = [
        ("round(source:kpbackup_rpo_kept:ratio_30d, 0.1)", shop, 0.9), ("source:kpbackup_rto_kept:bool", None, 0),
        ("source:kpbackup_achieved_rpo_seconds:min", None, 4000),
    ]  # fmt: skip
    tests = [
        {"expr": expr, "eval_time": "599m", "exp_samples": [{"labels": labels or f'{expr}{shop}', "value": value}]}
        for expr, labels, value in expected
    ]
    run([{"interval": "1m", "input_series": given, "promql_expr_test": tests}], path, tmp_path)


def everything_known() -> metrics.Observed:
    """A daemon that knows all there is to know."""
    source = Source()
    source.full(2)
    source.archive(30)
    state = assess(
        catalog(source.history()), (), timings=TIMINGS, now=when(31), objectives=Objectives(timedelta(hours=1), timedelta(minutes=30), timedelta(days=35))  # noqa: E501
    )
    recovery = Recovery("r1", "0001-1", when(30), True, 600.0)
    canary = trust.Canary("age1abc", when(1), when(2), when(3))
    check = trust.Check(when(30), True, 70_400, 9, 3, 0)
    copied = trust.Copy("offsite", timedelta(days=1), when(30), copied_at=when(30))
    known = trust.Trust(
        canaries=(canary,), heads=(("0001/sets", 2),), certificates=(("source", when(900)),), copies=(copied,), last_check=check
    )
    stored = forecasts.Stored(10**6, 10.0, 3.0, 1.0, 2)
    rto = forecasts.Rto(forecasts.Measured("r1", "restore", 600.0, "0001-1"), forecasts.Growing(600.0, 1.0), 1800.0, when(900))
    growing, binlog, prices = forecasts.Growing(1e6, 10.0), forecasts.Binlog(1.0, 1.0, 3.0), forecasts.Prices(0.02)
    forecast = forecasts.Forecast(when(31), 9, timedelta(days=9), growing, binlog, stored, rto, 100.0, prices)
    drill = Drill("d1", when(30), True, 300.0, 10.0)
    state = replace(
        state, measured_rto={"restore": recovery}, trust=known, last_drill=drill, last_passed_drill=drill,
        forecast=forecast, last_success={**state.last_success, "check": when(30)},
    )  # fmt: skip
    latency = Latency()
    latency.add("/metrics", 0.02)
    return metrics.Observed(
        "shop", when(31), state, store_up=True, source_up=True, clock_skew=timedelta(), read_at=when(31),
        failures={"full": 1}, running={"full": True, "incremental": True}, in_a_row={"full": 1}, latency=latency.read(),
        archive=metrics.ContinuousArchive(True, 0.0, 1, 100, 2), notified={"slack": notify.Counted(3, 1, False)},
    )  # fmt: skip


def test_the_exposition_follows_the_conventions() -> None:
    checked = promtool("check", "metrics", stdin=metrics.exposition(everything_known()).decode())
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_the_program_shows_every_metric_that_the_rules_ask_for() -> None:
    """Not only that it is declared: a rule on a metric that is never shown would be silent for ever."""
    shown = set(re.findall(r"^(kpbackup_\w+)\{", metrics.exposition(everything_known()).decode(), re.MULTILINE))
    asked = {name for group in groups() for rule in group["rules"] for name in names_in(rule["expr"])}
    assert {name for name in asked - shown if name.startswith("kpbackup_")} == set()
