"""The chart: every combination is taken by Kubernetes, nothing has more rights than its identity, contradictions are told."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from kpbackup import config
from kpbackup.backup.application import LOOKED_AT
from kpbackup.kubernetes import drilled, scratch
from tests.chart import rendering
from tests.chart.rendering import APPLICATION, CRONJOB, DRILL, EVENTS, EVERYTHING, HOOK, MONITOR, PRUNE, RULES, SIDECAR, base

FEATURES = {"prune": PRUNE, "drill": DRILL, "rules": RULES, "monitor": MONITOR, "events": EVENTS, "hook": HOOK}
MODES = {"daemon": {}, "cronjob": CRONJOB, "sidecar": SIDECAR}


@pytest.mark.parametrize("mode", MODES)
def test_every_combination_is_taken_by_kubernetes(mode: str) -> None:
    for chosen in itertools.product((False, True), repeat=len(FEATURES)):
        picked = [values for values, is_chosen in zip(FEATURES.values(), chosen, strict=True) if is_chosen]
        if mode == "sidecar" and (HOOK in picked or EVENTS in picked):
            continue  # refused, see below
        found = rendering.objects(base(MODES[mode], *picked))
        names = [(item["kind"], item["metadata"]["name"]) for item in found]
        assert len(names) == len(set(names)), "two objects of one name"
        for item in found:
            rendering.validate(item)


@pytest.mark.parametrize("version", [rendering.OLDEST, "1.31"])
@pytest.mark.parametrize("name", ["daemon", "cronjob", "everything", "sidecar-example"])
def test_older_kubernetes_takes_the_main_ones(name: str, version: str) -> None:
    for item in yaml.safe_load_all((rendering.GOLDEN / f"{name}.yaml").read_text(encoding="utf-8")):
        rendering.validate(item, version)


@pytest.mark.parametrize("mode", MODES)
def test_the_image_is_named_by_its_digest(mode: str) -> None:
    """Where a digest is set, nothing runs that a registry calls by the same tag."""
    digest = "sha256:" + "0123456789abcdef" * 4
    found = rendering.objects(base(MODES[mode], {"image": {"digest": digest, "tag": "latest"}}))
    images = re.findall(r"image: (\S*kpbackup\S*)", yaml.safe_dump_all(found, width=1000))
    assert images and all(image.endswith(f"@{digest}") for image in images)


def test_a_misspelt_field_would_be_found() -> None:
    found = rendering.one(rendering.objects(base()), "Deployment")
    found["spec"]["replicsa"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        rendering.validate(found)


@pytest.mark.parametrize("name", ["daemon", "cronjob", "everything", "sidecar-example"])
def test_the_golden_files(name: str) -> None:
    """A change of the chart is seen in what it makes: `python -m tests.chart.rendering` writes them anew."""
    text = (rendering.GOLDEN / f"{name}.yaml").read_text(encoding="utf-8")
    assert rendering.golden_text(rendering.golden()[name]) == text


@pytest.mark.parametrize("more", [{}, CRONJOB, rendering.merged(PRUNE, DRILL, RULES, EVERYTHING)])
def test_helm_lint_finds_nothing(more: dict[str, Any]) -> None:
    report = helm_python.lint(str(rendering.CHART), base(more), strict=True)
    assert report["errors"] == []
    assert [one for one in report["messages"] if one["severity"] > 1] == []


@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_the_sizes(size: str) -> None:
    values = yaml.safe_load((rendering.CHART / f"values-{size}.yaml").read_text(encoding="utf-8"))
    found = rendering.objects(rendering.merged(values, base()))
    for item in found:
        rendering.validate(item)
    daemon = rendering.one(found, "Deployment")
    assert daemon["spec"]["replicas"] == {"small": 2, "medium": 3, "large": 3}[size]
    load(rendering.one(found, "ConfigMap", "kpbackup")["data"]["writer.yaml"])


def test_what_follows_from_other_files_is_up_to_date() -> None:
    script = rendering.ROOT / "scripts" / "generate_chart.py"
    checked = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, timeout=180)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_quick_start_has_twelve_lines() -> None:
    assert len(rendering.TWELVE_LINES.splitlines()) == 12
    readme = (rendering.CHART / "README.md").read_text(encoding="utf-8")
    shown = yaml.safe_load(readme.split("```yaml\n")[1].split("```")[0])
    meant = yaml.safe_load(rendering.TWELVE_LINES)
    meant["config"]["encryption"]["recipients"] = shown["config"]["encryption"]["recipients"]
    assert shown == meant


def load(text: str) -> config.Settings:
    """The settings file of a pod, as the program in it reads it."""
    path = Path(rendering.GOLDEN / "settings.tmp")
    path.write_text(text, encoding="utf-8")
    try:
        return config.load(path, {})
    finally:
        path.unlink()


def test_every_settings_file_is_understood_by_the_program() -> None:
    found = rendering.objects(base(PRUNE, DRILL))
    files = rendering.one(found, "ConfigMap", "kpbackup")["data"] | rendering.one(found, "ConfigMap", "kpbackup-init")["data"]
    settings = {name.removesuffix(".yaml"): load(text) for name, text in files.items()}
    assert set(settings) == {"writer", "exporter", "check", "prune", "drill", "init"}
    writer = settings["writer"]
    assert writer.need_source().password_file == "/var/run/secrets/kpbackup/source/password"
    assert writer.archive.continuous and len(writer.need_recipients()) == 2
    assert [one.origin for one in writer.missing_files()] == [
        "Secret kpbackup-source, key password,",
        "Secret kpbackup-store, key credentials,",
        "Secret kpbackup-signing, key signing.key,",
    ]
    assert settings["drill"].need_target().host == "scratch.drills.svc"
    assert all(settings[role].source is None for role in ("check", "prune", "drill"))
    assert all(settings[role].recovery.target is None for role in ("writer", "exporter", "check", "prune", "init"))


def test_a_cronjob_does_not_archive_all_the_time_and_runs_in_the_configured_zone() -> None:
    found = rendering.objects(base(CRONJOB, {"config": {"timezone": "Asia/Shanghai"}}))
    assert not load(rendering.one(found, "ConfigMap", "kpbackup")["data"]["writer.yaml"]).archive.continuous
    full = rendering.one(found, "CronJob", "kpbackup-full")["spec"]
    assert (full["schedule"], full["timeZone"], full["concurrencyPolicy"]) == ("0 2 * * *", "Asia/Shanghai", "Forbid")
    assert {"startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"} <= set(full)
    assert {"activeDeadlineSeconds", "backoffLimit"} <= set(full["jobTemplate"]["spec"])


@pytest.mark.parametrize("mode", MODES)
def test_each_identity_has_its_own_secrets_and_account(mode: str) -> None:
    """D4: who makes backups can neither open nor delete them."""
    found = rendering.objects(base(MODES[mode], PRUNE, DRILL))
    pods = rendering.pods(found)
    with_identity = {name for name, pod in pods.items() if "kpbackup-identity" in rendering.secrets_of(pod)}
    with_deletion = {name for name, pod in pods.items() if "kpbackup-pruner" in rendering.secrets_of(pod)}
    with_source = {name for name, pod in pods.items() if "kpbackup-source" in rendering.secrets_of(pod)}
    assert with_identity == {"kpbackup-drill"} and with_deletion == {"kpbackup-prune"}
    assert not with_source & {"kpbackup-drill", "kpbackup-prune", "kpbackup-check"}
    assert "kpbackup-store" not in rendering.secrets_of(pods["kpbackup-prune"])
    accounts = {name: pods[f"kpbackup-{name}"]["serviceAccountName"] for name in ("check", "prune", "drill")}
    assert accounts == {name: f"kpbackup-{name}" for name in accounts}
    made = {item["metadata"]["name"] for item in found if item["kind"] == "ServiceAccount"}
    assert {pod["serviceAccountName"] for pod in pods.values() if "serviceAccountName" in pod} <= made


def test_only_what_asks_the_api_gets_a_token_and_a_role() -> None:
    plain = rendering.objects(base(PRUNE, DRILL))
    tokens = {name for name, pod in rendering.pods(plain).items() if pod["automountServiceAccountToken"]}
    assert tokens == {"kpbackup-init"}
    roles = {item["metadata"]["name"]: item["rules"] for item in plain if item["kind"] == "Role"}
    assert set(roles) == {"kpbackup-init"}
    told = rendering.objects(base(PRUNE, DRILL, EVENTS))
    rules = {item["metadata"]["name"]: item["rules"] for item in told if item["kind"] == "Role"}
    assert rules["kpbackup-writer"] == [{"apiGroups": [""], "resources": ["events"], "verbs": ["create"]}]
    given = base({"secrets": {"signing": {"name": "own"}}})
    assert not [item for item in rendering.objects(given) if item["kind"] == "Role"]
    assert not any(pod["automountServiceAccountToken"] for pod in rendering.pods(rendering.objects(given)).values())


def test_the_application_is_read_by_full_backups_alone_and_all_that_a_bundle_looks_at() -> None:
    found = rendering.objects(base(CRONJOB, PRUNE, HOOK, APPLICATION))
    tokens = {name for name, pod in rendering.pods(found).items() if pod.get("automountServiceAccountToken")}
    assert tokens == {"kpbackup-init", "kpbackup-full", "kpbackup-pre-upgrade"}
    role = rendering.one(found, "Role", "kpbackup-application")
    binding = rendering.one(found, "RoleBinding", "kpbackup-application")
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == "kubepolaris"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "kpbackup", "namespace": "backups"}]
    given = {(group, plural) for rule in role["rules"] for group in rule["apiGroups"] for plural in rule["resources"]}
    assert given == {(kind.group, kind.plural) for kind in LOOKED_AT}
    assert all(rule["verbs"] == ["get", "list"] for rule in role["rules"])
    assert {443, 6443} <= egress(found, "kpbackup-full") and 6443 not in egress(found, "kpbackup-incremental")
    assert 6443 in egress(rendering.objects(base(APPLICATION)), "kpbackup-daemon")


def test_every_pod_is_restricted() -> None:
    """The restricted profile of the Pod Security Standards."""
    for name, pod in rendering.pods(rendering.objects(base(CRONJOB, PRUNE, DRILL, HOOK))).items():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False and own["capabilities"]["drop"] == ["ALL"], name
            assert own["readOnlyRootFilesystem"] is True, name
        assert not any("hostPath" in volume for volume in pod.get("volumes", ())), name


def test_the_daemon_is_placed_and_probed_as_the_high_availability_guide_has_it() -> None:
    found = rendering.objects(base())
    deployment = rendering.one(found, "Deployment")["spec"]
    pod = deployment["template"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    (apart,) = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (spread,) = pod["topologySpreadConstraints"]
    assert apart["topologyKey"] == "kubernetes.io/hostname" and spread["topologyKey"] == "topology.kubernetes.io/zone"
    for selector in (apart["labelSelector"], spread["labelSelector"], deployment["selector"]):
        assert selector["matchLabels"].items() <= labels.items()
    assert deployment["strategy"]["rollingUpdate"]["maxSurge"] == 0  # else a third pod would wait for a third node
    (container,) = pod["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/api/health/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/api/health/live"
    budget = rendering.one(found, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1 and budget["selector"]["matchLabels"].items() <= labels.items()
    service = rendering.one(found, "Service")["spec"]
    assert service["selector"].items() <= labels.items()
    assert not [item for item in found if item["kind"] == "HorizontalPodAutoscaler"]


def test_the_placing_can_be_changed() -> None:
    more = {"podAntiAffinity": "preferred", "topologySpreadConstraints": [], "affinity": {"nodeAffinity": {"x": 1}}}
    pod = rendering.pods(rendering.objects(base(more)))["kpbackup"]
    assert "preferredDuringSchedulingIgnoredDuringExecution" in pod["affinity"]["podAntiAffinity"]
    assert pod["affinity"]["nodeAffinity"] == {"x": 1} and "topologySpreadConstraints" not in pod
    alone = rendering.pods(rendering.objects(base({"podAntiAffinity": "none"})))["kpbackup"]
    assert "affinity" not in alone


def egress(found: list[rendering.Object], name: str) -> set[int]:
    policy = rendering.one(found, "NetworkPolicy", name)["spec"]
    return {port["port"] for rule in policy["egress"] for port in rule["ports"]} - {53}


def test_the_network_policies_know_the_ports() -> None:
    more = {"config": {"repository": {"endpoint_url": "http://minio:9000"}, "source": {"port": 3307}}}
    found = rendering.objects(base(more, PRUNE, DRILL, {"config": {"recovery": {"target": {"port": 3310}}}}))
    assert egress(found, "kpbackup-daemon") == {3307, 9000}
    assert egress(found, "kpbackup-prune") == {9000} and egress(found, "kpbackup-drill") == {3310, 9000}
    assert egress(found, "kpbackup-init") == {3307, 9000, 443, 6443}
    assert egress(rendering.objects(base()), "kpbackup-daemon") == {3306, 443}
    plain = {"config": {"repository": {"endpoint_url": "http://minio"}}}
    assert egress(rendering.objects(base(plain)), "kpbackup-daemon") == {3306, 80}
    covered = {
        tuple(sorted(item["spec"]["podSelector"]["matchLabels"].items())) for item in found if item["kind"] == "NetworkPolicy"
    }
    for item in found:
        if item["kind"] == "CronJob":
            labels = item["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
            assert any(dict(selector).items() <= labels.items() for selector in covered), item["metadata"]["name"]


def test_the_sidecar_is_a_container_of_the_database() -> None:
    found = rendering.example_objects(base(SIDECAR))
    for item in found:
        rendering.validate(item)
    pod = rendering.one(found, "StatefulSet")["spec"]["template"]
    database, sidecar = pod["spec"]["containers"]
    assert sidecar["args"] == ["daemon", "--init"] and database["name"] == "mysql"
    mounted = {mount["name"] for mount in sidecar["volumeMounts"]}
    assert mounted <= {volume["name"] for volume in pod["spec"]["volumes"]}
    assert rendering.one(found, "Service", "shop-kpbackup")["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert not [item for item in found if item["kind"] in ("Deployment", "Job")]


def test_the_plain_example_renders_once_recipients_are_given() -> None:
    recipients = yaml.safe_load(rendering.TWELVE_LINES)["config"]["encryption"]
    assert rendering.example_objects({"config": {"encryption": recipients}})
    with pytest.raises(helm_python.HelmError, match="recipients is empty"):
        rendering.example_objects({})


def test_a_drill_may_make_its_server_in_the_scratch_namespace() -> None:
    """It asks the API, and what it asks for is allowed, there and nowhere else."""
    there = {"drill": {"kubernetes": {"namespace": "drills", "image": "mysql:9.7"}}, "recovery": {"target": {"host": None}}}
    found = rendering.objects(base(DRILL, {"config": there}))
    assert rendering.pods(found)["kpbackup-drill"]["automountServiceAccountToken"]
    roles = [item for item in found if item["kind"] == "Role" and item["metadata"].get("namespace") == "drills"]
    allowed = {(verb, one) for role in roles for rule in role["rules"] for one in rule["resources"] for verb in rule["verbs"]}
    needed = {(verb, f"{kind.plural}/{part}" if part else kind.plural) for verb, kind, part in scratch.needed()}
    assert allowed == needed
    binding = rendering.one(found, "RoleBinding", "kpbackup-drill-server")
    assert binding["metadata"]["namespace"] == "drills" and binding["subjects"][0]["name"] == "kpbackup-drill"
    assert {3306, 443, 6443} <= egress(found, "kpbackup-drill")


def test_a_drill_may_start_the_application_there() -> None:
    drill: dict[str, Any] = {"kubernetes": {"namespace": "drills", "image": "mysql:9.7"}}
    drill["application"] = {"unreachable": ["kubernetes.default.svc:443"], "database": "kubepolaris-mysql"}
    verify = {"profile": "kubepolaris", "user": "kp-verify"}
    there = {"drill": drill, "recovery": {"target": {"host": None}, "verify": verify}}
    found = rendering.objects(base(DRILL, {"config": there}))
    roles = [item for item in found if item["kind"] == "Role" and item["metadata"].get("namespace") == "drills"]
    allowed = {(verb, one) for role in roles for rule in role["rules"] for one in rule["resources"] for verb in rule["verbs"]}
    both = {*scratch.needed(), *drilled.needed()}
    assert allowed == {(verb, f"{kind.plural}/{part}" if part else kind.plural) for verb, kind, part in both}
    out = rendering.one(found, "NetworkPolicy", "kpbackup-drill")["spec"]["egress"]
    assert out[-1] == {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "drills"}}}]}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"config": {"encryption": {"recipients": []}}}, "config.encryption.recipients is empty"),
    ({"config": {"source": {"host": ""}}}, "config.source.host and config.source.user must name"),
    ({"config": {"repository": {"url": None}}}, "config.repository.url must say where"),
    (rendering.merged(SIDECAR, APPLICATION), "mode sidecar runs with the account of the database's pod"),
    (rendering.merged(SIDECAR, EVENTS), "which this chart cannot give rights"),
    ({"leases": {"enabled": False}}, "leases cannot be switched off"),
    (rendering.merged(CRONJOB, {"config": {"archive": {"continuous": True}}}), "mode cronjob cannot archive continuously"),
    ({"drill": {"enabled": True}}, "a drill without the private identity"),
    (rendering.merged(DRILL, {"config": {"recovery": {"target": {"host": None}}}}), "a drill needs a scratch server"),
    (
        rendering.merged(DRILL, {"config": {"drill": {"kubernetes": {"namespace": "backups", "image": "mysql"}}}}),
        "must be a namespace with nothing else in it",
    ),
    (rendering.merged(DRILL, {"config": {"recovery": {"target": {"host": "mysql.kubepolaris.svc"}}}}), "into the source itself"),
    (rendering.merged(DRILL, {"drill": {"secrets": {"identity": {"name": "kpbackup-store"}}}}), "in a Secret of its own"),
    (
        rendering.merged(DRILL, {"config": {"drill": {"application": {"unreachable": ["x:1"], "database": "db"}}}}),
        "is started in the drill's namespace alone",
    ),
    ({"prune": {"enabled": True}}, "prune has no credentials that may delete"),
    ({"prune": {"enabled": True, "secrets": {"store": {"name": "kpbackup-store"}}}}, "prune uses the daemon's own Secret"),
    (
        {
            "prune": {"enabled": True, "serviceAccount": {"annotations": {"a": "b"}}},
            "serviceAccount": {"annotations": {"a": "b"}},
        },
        "prune.serviceAccount has the daemon's cloud identity",
    ),
    ({"config": {"source": {"password": "x"}}}, "a password must not be among the values"),
    ({"config": {"encryption": {"identity_file": "/x"}}}, "would give the private identity to what makes backups"),
    ({"config": {"repository": {"url": "file:///srv/backups", "endpoint_url": None}}}, "would be lost with the pod"),
    ({"mode": "sidecar"}, "mode sidecar needs secrets.signing.name"),
    (rendering.merged(SIDECAR, HOOK), "preUpgradeBackup is a Job of its own"),
    (rendering.merged(CRONJOB, MONITOR, {"exporter": {"enabled": False}}), "metrics are switched on but nothing serves them"),
]


@pytest.mark.parametrize(("more", "sentence"), WRONG, ids=[sentence[:30] for _, sentence in WRONG])
def test_contradictions_are_told_in_a_sentence(more: dict[str, Any], sentence: str) -> None:
    with pytest.raises(helm_python.HelmError, match=re.escape(sentence)):
        rendering.files(base(more))


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"replicas": 3}, "replicas"), ({"config": {"retention": {"dayz": 7}}}, "dayz"), ({"mode": "cron"}, "mode"),
        ({"daemon": {"replicas": 0}}, "replicas"), ({"config": {"log": {"format": "xml"}}}, "format"),
        ({"image": {"digest": "latest"}}, "digest"), ({"check": {"readData": "0%"}}, "readData"),
    ],
)  # fmt: skip
def test_misspelt_and_impossible_values_are_refused_by_the_schema(more: dict[str, Any], key: str) -> None:
    with pytest.raises(helm_python.HelmValuesError, match=key):
        rendering.files(base(more))


@pytest.mark.parametrize("mode", MODES)
def test_the_notes_say_the_next_three_commands(mode: str) -> None:
    notes = rendering.files(base(MODES[mode]))["kpbackup/templates/NOTES.txt"]
    assert len(re.findall(r"^  [123]\. .+? (?:kubectl|helm) ", notes, re.MULTILINE)) == 3
    assert "Nothing is ever deleted yet" in notes and "No drill is scheduled" in notes
    assert "is ever checked" not in notes
    assert "is ever checked" in rendering.files(base(MODES[mode], {"check": {"enabled": False}}))["kpbackup/templates/NOTES.txt"]
    quiet = rendering.files(base(MODES[mode], PRUNE, DRILL, RULES, {"secrets": {"signing": {"name": "own"}}}))
    assert quiet["kpbackup/templates/NOTES.txt"].count("\n\n") <= 3


def test_extra_objects_are_rendered() -> None:
    found = rendering.objects(
        base(EVERYTHING, {"extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}]})
    )
    assert rendering.one(found, "ConfigMap", "x")
    assert rendering.one(rendering.objects(base(EVERYTHING)), "ConfigMap", "kpbackup-extra")
