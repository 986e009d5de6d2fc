"""The application bundle: what the cluster holds of the application beside its database, sealed like the data.

Found by the release's label, by what Helm's record rendered, and by what those objects refer to: a Secret that nobody named
but a pod mounts is part of it. Generated service account tokens and Helm's records of older revisions are not.

Limits: one namespace; of volumes what is mounted here and named (`files.py`). A crash leaves at most a key object and packs that
nothing names.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from kpbackup import errors
from kpbackup.backup import files
from kpbackup.kubernetes import client, helm, objects, release
from kpbackup.kubernetes.kinds import (
    AUTOSCALER,
    CLAIM,
    CONFIG_MAP,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    INGRESS,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
    Kind,
    kind_of,
    order,
)
from kpbackup.model import manifest
from kpbackup.model.application import Bundle, fingerprint
from kpbackup.mysql import facts as server_facts
from kpbackup.mysql import schema, server
from kpbackup.pipeline import encrypt
from kpbackup.repository import applications
from kpbackup.repository.binding import Repository

Object = dict[str, Any]

LOOKED_AT = (
    SERVICE_ACCOUNT, SECRET, CONFIG_MAP, CLAIM, SERVICE, STATEFUL_SET, DEPLOYMENT, DISRUPTION_BUDGET, AUTOSCALER, INGRESS,
)
_MADE_BY_THE_CLUSTER = ("kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token", release.SECRET_TYPE)
_RESTLESS = (
    "control-plane.alpha.kubernetes.io/leader", "deployment.kubernetes.io/revision", "autoscaling.alpha.kubernetes.io/conditions",
)


@dataclass(frozen=True)
class ApplicationRequest:
    """What to keep. `release` is a Helm release, or '' for an application of plain manifests found by `selector`.

    `secrets` and `config_maps` are kept beside what is found, `files` are folders of this machine. `endpoint` is the database
    whose schema goes with it; `turn` is held while it is asked.
    """

    access: client.Access
    recipients: Sequence[encrypt.AnyRecipient]
    release: str = ""
    selector: str = ""
    secrets: tuple[str, ...] = ()
    config_maps: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    endpoint: server.Endpoint | None = None
    databases: tuple[str, ...] = ()
    turn: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)


def run_application(
    repository: Repository, request: ApplicationRequest, *, unless_unchanged: bool = False
) -> manifest.ApplicationManifest | None:
    """Stores a bundle and returns its manifest; None when `unless_unchanged` and the newest one says the same. Files are read
    each time but with `unless_unchanged`: then the bundle names those of the one before.

    Raises:
        ClusterError, PrivilegeMissing, ServerUnreachable, StorageError, IntegrityError.
    """
    with client.connect(request.access) as cluster:
        bundle = collect(cluster, request, datetime.now(UTC))
    newest = applications.newest(repository) if unless_unchanged else None
    if newest is not None and newest.digest == applications.digest(repository, bundle):
        return None
    if request.endpoint is not None:
        with request.turn:
            bundle = _with_schema(bundle, request.endpoint, request.databases)
    kept = newest.files if newest is not None else None
    if request.files and kept is None:
        kept = files.store(repository, request.files, request.recipients, datetime.now(UTC))
    return applications.store(repository, bundle, request.recipients, kept if request.files else None)


def collect(cluster: client.Cluster, request: ApplicationRequest, now: datetime) -> Bundle:
    """The application as it is in the cluster.

    Raises:
        ClusterError: there is nothing of it: neither a release nor an object with its label.
        PrivilegeMissing: the account may not read a kind.
    """
    record, found_release = _release(cluster, request)
    found = {objects.identity(one): one for one in _labelled(cluster, request)}
    warnings: list[str] = []
    if found_release is not None:
        _add_rendered(cluster, found, found_release, warnings)
    if not found:
        what = f"release {request.release}" if request.release else f"an object with {request.selector}"
        raise errors.ClusterError(
            f"there is no {what} in namespace {cluster.namespace} of {cluster.name}",
            hint="check application.namespace, application.release and application.selector",
        )
    _add_named(cluster, found, request, warnings)
    kept = sorted((_kept(one) for one in found.values()), key=lambda one: (order(one["kind"]), objects.name_of(one)))
    return Bundle(
        taken_at=now,
        cluster=cluster.name,
        cluster_version=cluster.version(),
        namespace=cluster.namespace,
        release=request.release,
        chart=f"{found_release.chart_name}-{found_release.chart_version}" if found_release else "",
        record=objects.wanted(record) if record is not None else None,
        objects=tuple(kept),
        images=objects.images(one for one in kept if one["kind"] in ("Deployment", "StatefulSet")),
        warnings=tuple(warnings),
    )


def _release(cluster: client.Cluster, request: ApplicationRequest) -> tuple[Object | None, release.Release | None]:
    if not request.release:
        return None, None
    record = release.newest(helm.release_records(cluster, request.release), request.release)
    return (record, release.read(record)) if record is not None else (None, None)


def _labelled(cluster: client.Cluster, request: ApplicationRequest) -> Iterable[Object]:
    labels = request.selector or f"{objects.INSTANCE}={request.release}"
    for kind in LOOKED_AT:
        yield from (one for one in cluster.all(kind, labels=labels) if one.get("type") not in _MADE_BY_THE_CLUSTER)


def _add_rendered(
    cluster: client.Cluster, found: dict[str, Object], rendered: release.Release, warnings: list[str]
) -> None:
    """What Helm rendered: kinds that people change as they are in the cluster, all others (roles, say) as rendered, because
    reading those would need more rights."""
    for one in rendered.objects():
        kind = kind_of(one["apiVersion"], one["kind"])
        if kind in LOOKED_AT:
            _add(cluster, found, kind, objects.name_of(one), "Helm's record", warnings)
        else:
            found.setdefault(objects.identity(one), one)


def _add_named(cluster: client.Cluster, found: dict[str, Object], request: ApplicationRequest, warnings: list[str]) -> None:
    """What the objects refer to, and what the settings name: the latter must be there."""
    referring = list(found.values())
    for kind, named, asked in (
        (SECRET, objects.secrets_named(referring), request.secrets),
        (CONFIG_MAP, objects.config_maps_named(referring), request.config_maps),
    ):
        for name, who in named.items():
            _add(cluster, found, kind, name, who, warnings)
        for name in asked:
            found[f"{kind.name}/{name}"] = cluster.get(kind, name)


def _add(
    cluster: client.Cluster, found: dict[str, Object], kind: Kind, name: str, who: str, warnings: list[str]
) -> None:
    if f"{kind.name}/{name}" in found:
        return
    there = cluster.find(kind, name)
    if there is None:
        warnings.append(f"{kind.name}/{name}, which {who} refers to, is not there")
    else:
        found[f"{kind.name}/{name}"] = there


def _kept(found: Object) -> Object:
    kept = objects.wanted(found)
    for name in _RESTLESS:  # they change by themselves; a bundle a minute would say nothing
        (kept["metadata"].get("annotations") or {}).pop(name, None)
    return kept


def _with_schema(bundle: Bundle, endpoint: server.Endpoint, databases: tuple[str, ...]) -> Bundle:
    with server.connect(endpoint) as connection:
        inventory = schema.read_inventory(connection, server_facts.read_facts(connection), databases=databases)
    return replace(bundle, schema_fingerprint=fingerprint(inventory))
