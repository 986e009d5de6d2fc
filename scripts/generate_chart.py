"""Writes what follows from other files of the chart: its values schema, the table in its README, the plain rules.

    python scripts/generate_chart.py            writes chart/values.schema.json, the table of chart/README.md and the rules
    python scripts/generate_chart.py --check    changes nothing, exits 1 when one is out of date

The schema comes from the defaults in chart/values.yaml and, below `config`, from the program's own settings, so that a misspelt
setting is refused by `helm install` already. The table comes from the `# --` comments of chart/values.yaml.
"""

from __future__ import annotations

import json
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "scripts"))

from generate_docs import renewed  # noqa: E402

from kpbackup import config  # noqa: E402  the checkout's own package, before any installed one
from kpbackup.config import groups, keys  # noqa: E402

CHART = ROOT / "chart"
Schema = dict[str, Any]

SCALAR: Schema = {"type": ["string", "number", "boolean", "null"]}
WHOLE: Schema = {"type": "integer", "minimum": 0}
# What a default alone does not say. A key of the chart's values, dotted -> its schema.
SPECIAL: dict[str, Schema] = {
    "mode": {"enum": ["daemon", "cronjob", "sidecar"]},
    "podAntiAffinity": {"enum": ["required", "preferred", "none"]},
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "image.digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "daemon.replicas": {"type": "integer", "minimum": 1, "maximum": 9},
    "check.readData": {"type": ["string", "null"], "pattern": "^([1-9][0-9]?%|100%)?$"},
    "podDisruptionBudget.maxUnavailable": {"type": ["integer", "string"]},
    "service.type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    "service.port": {"type": "integer", "minimum": 1, "maximum": 65535},
    "metrics.prometheusRule.runbookUrl": {"type": "string", "pattern": "^https?://"},
    "extraObjects": {"type": "array", "items": {"type": ["object", "string"]}},
}
# Objects of Kubernetes, or maps of the user's own keys: what is in them is not the chart's to know.
OPEN = re.compile(
    r"(.*[aA]nnotations|.*[lL]abels|affinity|nodeSelector|resources|exporterResources|podSecurityContext|securityContext|probes\.\w+)"
)


def schema() -> Schema:
    """The whole schema of the values."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    found = _of_value(values, "")
    found["properties"]["config"] = _of_group(config.Settings)
    # set by Helm for subcharts; and what is refused with a sentence by templates/_validate.tpl
    found["properties"] |= {"global": {"type": "object"}, "leases": {}}
    return {"$schema": "http://json-schema.org/draft-07/schema#", **found}


def _of_value(value: object, path: str) -> Schema:
    if path in SPECIAL:
        return SPECIAL[path]
    if isinstance(value, dict):
        if not value or OPEN.fullmatch(path):
            return {"type": "object"}
        below = {name: _of_value(inner, f"{path}.{name}".lstrip(".")) for name, inner in value.items()}
        return {"type": "object", "additionalProperties": False, "properties": below}
    if isinstance(value, list):
        return {"type": "array"}
    if isinstance(value, bool):
        return {"type": "boolean"}
    return WHOLE if isinstance(value, int) else {"type": "string"}


def _of_group(group: type[groups.Group]) -> Schema:
    """Keys are strict, values are not: what a duration or a cron expression is, the program says better."""
    below = {name: _of_setting(info) for name, info in group.model_fields.items()}
    return {"type": ["object", "null"], "additionalProperties": False, "properties": below}


def _of_setting(info: Any) -> Schema:
    inner, element = keys.group_of(info), keys.element_group(info)
    if inner is not None:
        return _of_group(inner)
    if element is not None:
        return {"type": "array", "items": _of_group(element)}
    if any(typing.get_origin(part) is tuple for part in keys.parts(info.annotation)):
        return {"type": "array"}
    if typing.get_origin(info.annotation) is Literal:
        return {"enum": list(typing.get_args(info.annotation))}
    return {"type": "boolean"} if info.annotation is bool else SCALAR


def value_rows() -> Iterator[str]:
    """The table of chart/README.md: every commented key and every value below it that has a default of its own."""
    yield "| value | default | meaning |"
    yield "|---|---|---|"
    stack: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in (CHART / "values.yaml").read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"\s*# (-- )?(.*)", line):
            if match[1]:
                comment = [match[2]]
            elif comment:
                comment.append(match[2])
            continue
        found = re.fullmatch(r"(\s*)([\w-]+):\s?(.*)", line)
        if not found or line.lstrip().startswith("- "):
            comment = []
            continue
        indent, name, default = len(found[1]), found[2], found[3]
        stack = [entry for entry in stack if entry[0] < indent] + [(indent, name)]
        path = ".".join(entry[1] for entry in stack)
        if comment or default:
            shown = f"`{default}`" if default else ""
            yield f"| `{path}` | {shown.replace('|', chr(92) + '|')} | {' '.join(comment).replace('|', chr(92) + '|')} |"
        comment = []


def plain_rules() -> str:
    """The alerts for a Prometheus that reads files: the chart's own, for a scrape job named kpbackup."""
    import helm_python

    values = {
        "config": {
            "source": {"host": "mysql", "user": "kpbackup"},
            "repository": {"url": "s3://backups/mysql"},
            "encryption": {"recipients": ["age1"]},
        },
        "metrics": {"prometheusRule": {"enabled": True, "kubernetes": False, "selector": 'job="kpbackup"'}},
    }
    with helm_python.Chart.load(str(CHART)) as chart:
        files = chart.render(values, name="kpbackup", namespace="default")
    rule = yaml.safe_load(files["kpbackup/templates/prometheusrule.yaml"])
    head = "# Made by scripts/generate_chart.py from the chart. For a scrape job named kpbackup.\n"
    return head + str(yaml.safe_dump(rule["spec"], sort_keys=False, width=200))


def documents() -> Iterator[tuple[Path, str]]:
    """Path and the text it must have, in order: the chart is rendered for the rules when its schema has been written."""
    yield CHART / "values.schema.json", json.dumps(schema(), indent=1) + "\n"
    readme = CHART / "README.md"
    yield readme, renewed(readme.read_text(encoding="utf-8"), "values", value_rows())
    yield ROOT / "docker" / "prometheus" / "rules.yaml", plain_rules()


def main() -> int:
    check = "--check" in sys.argv[1:]
    stale = []
    for path, text in documents():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(str(path.relative_to(ROOT)))
            if check:
                break
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if check and stale:
        print(f"out of date: {', '.join(stale)}; run python scripts/generate_chart.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
