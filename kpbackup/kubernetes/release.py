"""Helm's own record of a release: a Secret of type helm.sh/release.v1 that holds chart, values and what was rendered.

The chart can be made again from it, so that a recovery needs no chart repository: templates, default values, schema and files
are in the record. Charts it depends on are not: such a release needs the chart itself (recovery.deploy.chart).
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from kpbackup import errors

Object = dict[str, Any]
SECRET_TYPE = "helm.sh/release.v1"
LARGEST_BYTES = 64 << 20


@dataclass(frozen=True)
class Release:
    """A release as it was deployed. `values` are the user's, `manifest` what was rendered, hooks left out."""

    name: str
    namespace: str
    revision: int
    status: str
    chart_name: str
    chart_version: str
    app_version: str
    values: Object
    manifest: str
    chart: Object
    description: str = ""

    @property
    def dependencies(self) -> tuple[str, ...]:
        return tuple(str(one.get("name")) for one in self.chart.get("metadata", {}).get("dependencies") or ())

    def objects(self) -> list[Object]:
        """What was rendered, hooks left out."""
        return [found for found in yaml.safe_load_all(self.manifest) if isinstance(found, dict) and found.get("kind")]


def newest(secrets: Sequence[Object], name: str) -> Object | None:
    """The record of the newest deployed revision of a release; else of its newest revision; None without any."""
    records = [
        one for one in secrets
        if one.get("type") == SECRET_TYPE and (one["metadata"].get("labels") or {}).get("name") == name
    ]
    deployed = [one for one in records if one["metadata"]["labels"].get("status") == "deployed"]
    return max(deployed or records, key=lambda one: int(one["metadata"]["labels"].get("version", "0")), default=None)


def read(secret: Object) -> Release:
    """The release a record holds.

    Raises:
        IntegrityError: it is no record, or cut.
    """
    what = f"Helm's record {secret['metadata']['name']}"
    try:
        packed = base64.b64decode(base64.b64decode(secret["data"]["release"]))
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
            text = stream.read(LARGEST_BYTES + 1)
        document = json.loads(text)
        metadata = document["chart"]["metadata"]
        return Release(
            name=document["name"],
            namespace=document.get("namespace", ""),
            revision=int(document["version"]),
            status=document["info"]["status"],
            chart_name=metadata["name"],
            chart_version=metadata["version"],
            app_version=str(metadata.get("appVersion", "")),
            values=document.get("config") or {},
            manifest=document.get("manifest", ""),
            chart=document["chart"],
            description=str(document["info"].get("description", "")),
        )
    except (KeyError, TypeError, ValueError, OSError, EOFError) as exc:
        hint = "`helm history` shows the release"
        raise errors.IntegrityError(f"{what} cannot be read: {type(exc).__name__}", hint=hint) from exc


def is_by(secret: Object, description: str) -> bool:
    """Whether a record is of a deployed revision with this description."""
    found = read(secret)
    return found.status == "deployed" and found.description == description


def archive(release: Release) -> bytes:
    """The chart as a .tgz that Helm installs.

    Raises:
        StepFailed: it depends on charts that are not in the record.
    """
    if release.dependencies:
        raise errors.StepFailed(
            f"the chart {release.chart_name} {release.chart_version} depends on {', '.join(release.dependencies)}, which Helm's"
            " record does not hold",
            hint="name the chart: recovery.deploy.chart: /path/to/chart.tgz",
        )
    files = {"Chart.yaml": yaml.safe_dump(release.chart["metadata"]).encode()}
    files["values.yaml"] = yaml.safe_dump(release.chart.get("values") or {}).encode()
    if release.chart.get("schema"):
        files["values.schema.json"] = base64.b64decode(release.chart["schema"])
    for entry in [*(release.chart.get("templates") or ()), *(release.chart.get("files") or ())]:
        files[entry["name"]] = base64.b64decode(entry.get("data") or "")
    return _packed(release.chart_name, files)


def _packed(top: str, files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
