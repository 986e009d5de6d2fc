"""The chart as Helm's own engine renders it, offline, and each object judged by the schemas of Kubernetes.

python -m tests.chart.rendering     writes the golden files anew
"""

from __future__ import annotations

import copy
import functools
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate  # type: ignore[import-untyped]
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "chart"
EXAMPLE = CHART / "examples" / "mysql-sidecar"
GOLDEN = Path(__file__).with_name("golden")
OLDEST, NEWEST = "1.27", "1.37"  # what Chart.yaml promises, and the newest schemas there are
FOREIGN = ("monitoring.coreos.com/v1",)  # resources of the Prometheus operator have no schema here; promtool judges the rules

Object = dict[str, Any]
Values = dict[str, Any]

TWELVE_LINES = """\
config:
  source:
    host: mysql.kubepolaris.svc
    user: kpbackup
  repository:
    url: s3://backups/kubepolaris
    endpoint_url: https://minio.example.com
  encryption:
    recipients: [age1gwvd97gy7hauuj63aeyt4nyutrlrrj03ff5g5wfpsrlztlatu9gq96u0a6, age16yls50fxmcvl7wwznwkhy7yugvue6eqfhq34mkc20jt3nprnpy9q3swpd2]
secrets:
  source: {name: kpbackup-source}
  store: {name: kpbackup-store}
"""  # noqa: E501

PRUNE: Values = {"prune": {"enabled": True, "secrets": {"store": {"name": "kpbackup-pruner"}}}}
DRILL: Values = {
    "drill": {"enabled": True, "secrets": {"identity": {"name": "kpbackup-identity"}, "target": {"name": "kpbackup-scratch"}}},
    "config": {"recovery": {"target": {"host": "scratch.drills.svc", "user": "drill"}}},
}
SIDECAR: Values = {"mode": "sidecar", "secrets": {"signing": {"name": "kpbackup-own-signing"}}}
CRONJOB: Values = {"mode": "cronjob"}
RULES: Values = {
    "metrics": {"prometheusRule": {"enabled": True, "kubepolaris": {"enabled": True}}, "dashboard": {"enabled": True}}
}
MONITOR: Values = {"metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}}
EVENTS: Values = {"config": {"notify": {"kubernetes_events": True}}}
APPLICATION: Values = {"config": {"application": {"namespace": "kubepolaris", "release": "kubepolaris"}}}
HOOK: Values = {"preUpgradeBackup": {"enabled": True}}
EVERYTHING: Values = {
    "imagePullSecrets": [{"name": "registry"}],
    "image": {"digest": "sha256:" + "0" * 64},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "backups", "operator": "Exists"}],
    "priorityClassName": "high",
    "podAnnotations": {"team": "platform"},
    "podLabels": {"team": "platform"},
    "caBundle": {"configMap": "own-ca"},
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "extraVolumes": [{"name": "spool", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "spool", "mountPath": "/spool"}],
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/writer"}},
    "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]},
    "extraObjects": ["apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-extra'}\n"],
    "drill": {"rbacRules": [{"apiGroups": ["apps"], "resources": ["statefulsets"], "verbs": ["get", "create", "delete"]}]},
}


def merged(*trees: Mapping[str, Any]) -> Values:
    """The trees laid over one another, the last on top."""
    found: Values = {}
    for tree in trees:
        for name, value in tree.items():
            before = found.get(name)
            if isinstance(before, dict) and isinstance(value, dict):
                found[name] = merged(before, value)
            else:
                found[name] = copy.deepcopy(value)
    return found


def base(*more: Mapping[str, Any]) -> Values:
    """The twelve lines of the quick start, and more."""
    return merged(yaml.safe_load(TWELVE_LINES), *more)


@functools.cache
def chart() -> helm_python.Chart:
    return helm_python.Chart.load(str(CHART))


@functools.cache
def example() -> helm_python.Chart:
    """The example with the chart as its dependency, as `helm dependency build` lays it."""
    with tempfile.TemporaryDirectory() as directory:
        copied = Path(directory) / "mysql-sidecar"
        shutil.copytree(EXAMPLE, copied)
        shutil.copytree(CHART, copied / "charts" / "kpbackup", ignore=shutil.ignore_patterns("examples"))
        return helm_python.Chart.load(str(copied))


def files(values: Values, *, upgrade: bool = False) -> dict[str, str]:
    """Template -> text. Raises helm_python.HelmError with what a template or the schema says."""
    chart().validate_schema(values)
    return chart().render(values, name="kpbackup", namespace="backups", is_upgrade=upgrade)


def objects(values: Values) -> list[Object]:
    return list(_objects(files(values)))


def example_objects(values: Values) -> list[Object]:
    return list(_objects(example().render({"kpbackup": values}, name="shop", namespace="shop")))


def _objects(rendered: Mapping[str, str]) -> Iterator[Object]:
    for name in sorted(rendered):
        if not name.endswith(".txt"):
            yield from copy.deepcopy(_parsed(rendered[name]))


@functools.cache
def _parsed(text: str) -> list[Object]:
    """Most templates give the same text in most combinations; libyaml, because Python's own parser takes a second for all."""
    return [found for found in yaml.load_all(text, Loader=yaml.CSafeLoader) if found]


@functools.cache
def _valid(text: str, version: str) -> None:
    kubernetes_validate.validate(json.loads(text), version, strict=True)


def validate(found: Object, version: str = NEWEST) -> None:
    """Raises kubernetes_validate.ValidationError when Kubernetes would not take the object, or drop a misspelt field."""
    if found["apiVersion"] not in FOREIGN:
        _valid(json.dumps(found, sort_keys=True), version)


def one(found: list[Object], kind: str, name: str = "") -> Object:
    """The only object of this kind (and name)."""
    (match,) = [item for item in found if item["kind"] == kind and name in ("", item["metadata"]["name"])]
    return match


def pods(found: list[Object]) -> dict[str, Object]:
    """Name of the workload -> its pod's spec."""
    paths = {
        "Deployment": ("spec", "template", "spec"), "StatefulSet": ("spec", "template", "spec"), "Pod": ("spec",),
        "Job": ("spec", "template", "spec"), "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
    }  # fmt: skip
    return {
        item["metadata"]["name"]: functools.reduce(lambda tree, key: tree[key], paths[item["kind"]], item)
        for item in found
        if item["kind"] in paths
    }


def secrets_of(pod: Object) -> set[str]:
    """The Secrets a pod mounts."""
    return {volume["secret"]["secretName"] for volume in pod.get("volumes", ()) if "secret" in volume}


def golden() -> dict[str, list[Object]]:
    """Name of the golden file -> what it must hold."""
    return {
        "daemon": objects(base()),
        "cronjob": objects(base(CRONJOB)),
        "everything": objects(base(PRUNE, DRILL, RULES, MONITOR, EVENTS, APPLICATION, HOOK, EVERYTHING)),
        "sidecar-example": example_objects(base(SIDECAR)),
    }


def golden_text(found: list[Object]) -> str:
    return str(yaml.safe_dump_all(found, sort_keys=False, width=160))


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for title, rendered in golden().items():
        (GOLDEN / f"{title}.yaml").write_text(golden_text(rendered), encoding="utf-8")
