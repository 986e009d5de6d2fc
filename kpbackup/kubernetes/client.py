"""A cluster's API over HTTP: objects in and out as the JSON they are, errors as ours.

lightkube finds the cluster and logs in (kubeconfig, exec plugins, client certificates, a pod's service account with its
rotated token); paths and bodies are ours, because a typed client drops the fields its models do not know, and what is
recorded before a switch must come back byte for byte.

Reads, and writes that may be repeated (apply, patch, delete), are tried again when the server is busy or the connection
breaks; a create is not, since nobody can tell whether it happened: it is answered by AlreadyThere then.
"""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from kpbackup import errors
from kpbackup.kubernetes.kinds import Kind, kind_of

if TYPE_CHECKING:
    import httpx2

Object = dict[str, Any]

FIELD_MANAGER = "kpbackup"
TRIES = 5
PAUSE_S = 0.3  # before the second try, doubled each time
REQUEST_TIMEOUT_S = 20.0
_BUSY = (429, 500, 502, 503, 504)
_MERGE = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"


class AlreadyThere(errors.ClusterError):
    """A create met an object of that name."""


class Conflict(errors.ClusterError):
    """Somebody else changed the object since it was read: read it again and decide anew."""


@dataclass(frozen=True)
class Access:
    """How a cluster is reached, and the namespace that is meant. Without a kubeconfig: inside a pod its service account,
    else the file KUBECONFIG names."""

    namespace: str
    kubeconfig: str = ""
    context: str = ""


class Cluster:
    """An open connection; close it, or use it in `with`."""

    def __init__(self, http: httpx2.Client, *, name: str, namespace: str) -> None:
        self.name, self.namespace = name, namespace
        self._http = http
        self._discovered: dict[str, list[Object]] = {}

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()

    def find(self, kind: Kind, name: str, *, namespace: str | None = None) -> Object | None:
        """The object, None when there is none."""
        code, found = self._send("GET", self._path(kind, name, namespace), what=f"read {kind.name} {name}")
        return None if code == 404 else found

    def get(self, kind: Kind, name: str, *, namespace: str | None = None) -> Object:
        """The object.

        Raises:
            ClusterError: there is none.
        """
        found = self.find(kind, name, namespace=namespace)
        if found is None:
            raise errors.ClusterError(
                f"{self.name} has no {kind.name} {name} in {namespace or self.namespace}", hint="is the namespace the right one?"
            )
        return found

    def all(self, kind: Kind, *, namespace: str | None = None, labels: str = "") -> list[Object]:
        """All objects of a kind in the namespace, with these labels."""
        params = {"labelSelector": labels} if labels else {}
        found: list[Object] = []
        while True:
            _, page = self._send("GET", self._path(kind, None, namespace), params=params, what=f"list {kind.plural}")
            found += [{"apiVersion": kind.api_version, "kind": kind.name, **item} for item in page.get("items") or ()]
            going_on = (page.get("metadata") or {}).get("continue")
            if not going_on:
                return found
            params = {**params, "continue": going_on}

    def create(self, wanted: Object, *, namespace: str | None = None) -> Object:
        """Raises AlreadyThere when an object of that name exists."""
        kind = self.kind(wanted)
        name = wanted["metadata"]["name"]
        path = self._path(kind, None, namespace)
        return self._send("POST", path, body=wanted, what=f"create {kind.name} {name}", repeat=False)[1]

    def apply(self, wanted: Object, *, namespace: str | None = None) -> Object:
        """Server-side apply: makes the object what is wanted, whatever is there; fields of others stay."""
        kind = self.kind(wanted)
        name = wanted["metadata"]["name"]
        params = {"fieldManager": FIELD_MANAGER, "force": "true"}
        path = self._path(kind, name, namespace)
        return self._send("PATCH", path, body=wanted, params=params, content=_APPLY, what=f"apply {kind.name} {name}")[1]

    def patch(self, kind: Kind, name: str, change: Object, *, namespace: str | None = None) -> Object:
        """Merge patch: what is in `change`, and nothing else, is another afterwards. With a resourceVersion in it, Conflict
        is raised when the object has another one by now."""
        path = self._path(kind, name, namespace)
        code, found = self._send("PATCH", path, body=change, content=_MERGE, what=f"change {kind.name} {name}")
        if code == 404:
            raise errors.ClusterError(f"{self.name} has no {kind.name} {name} to change", hint="was it deleted meanwhile?")
        return found

    def scale(self, kind: Kind, name: str, replicas: int, *, namespace: str | None = None) -> None:
        """By the subresource, as `kubectl scale` does."""
        path = self._path(kind, name, namespace) + "/scale"
        body = {"spec": {"replicas": replicas}}
        if self._send("PATCH", path, body=body, content=_MERGE, what=f"scale {kind.name} {name}")[0] == 404:
            raise errors.ClusterError(f"{self.name} has no {kind.name} {name} to scale", hint="was it deleted meanwhile?")

    def delete(self, kind: Kind, name: str, *, namespace: str | None = None) -> None:
        """What is gone already is no error."""
        body = {"propagationPolicy": "Background"}
        self._send("DELETE", self._path(kind, name, namespace), body=body, what=f"delete {kind.name} {name}")

    def may(self, verb: str, kind: Kind, *, subresource: str = "", namespace: str | None = None) -> bool:
        """Whether this account may do that, asked before anything is tried."""
        attributes = {"verb": verb, "group": kind.group, "resource": kind.plural, "subresource": subresource}
        if kind.namespaced:
            attributes["namespace"] = namespace or self.namespace
        review = {
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = self._send("POST", path, body=review, what="ask for rights")[1]
        return bool(answer.get("status", {}).get("allowed"))

    def version(self) -> str:
        """`v1.33.0`."""
        return str(self._send("GET", "/version", what="read the version")[1].get("gitVersion", "unknown"))

    def clock_skew(self) -> timedelta:
        """The server's clock minus ours, to within a second: its Date header has no more."""
        asked = datetime.now(UTC)
        answer = self._http.get("/version")
        there = answer.headers.get("Date")
        return email.utils.parsedate_to_datetime(there) - asked if there else timedelta()

    def kind(self, wanted: Object) -> Kind:
        """The kind of an object; one that is not built in is looked up on the server.

        Raises:
            ClusterError: this cluster does not know it.
        """
        api_version, name = str(wanted.get("apiVersion", "")), str(wanted.get("kind", ""))
        known = kind_of(api_version, name)
        if known is not None:
            return known
        for offered in self._resources(api_version):
            if offered.get("kind") == name and "/" not in offered["name"]:
                return Kind(api_version, name, offered["name"], bool(offered.get("namespaced")))
        raise errors.ClusterError(
            f"{self.name} does not know the kind {name} of {api_version}", hint="install what defines it, or leave the object out"
        )

    def _resources(self, api_version: str) -> list[Object]:
        if api_version not in self._discovered:
            path = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
            code, found = self._send("GET", path, what=f"look up {api_version}")
            self._discovered[api_version] = [] if code == 404 else list(found.get("resources") or ())
        return self._discovered[api_version]

    def _path(self, kind: Kind, name: str | None, namespace: str | None) -> str:
        place = f"/namespaces/{namespace or self.namespace}" if kind.namespaced else ""
        return f"{kind.root}{place}/{kind.plural}" + (f"/{name}" if name else "")

    def _send(
        self,
        method: str,
        path: str,
        *,
        what: str,
        body: Object | None = None,
        params: Mapping[str, str] | None = None,
        content: str = "application/json",
        repeat: bool = True,
    ) -> tuple[int, Object]:
        """(200 or 404, document)."""
        import httpx2

        text = json.dumps(body).encode() if body is not None else None
        headers = {"Accept": "application/json", **({"Content-Type": content} if text is not None else {})}
        for pause_s in _pauses(repeat):
            try:
                answer = self._http.request(method, path, params=dict(params or {}), content=text, headers=headers)
            except httpx2.HTTPError as exc:
                if pause_s is None or isinstance(exc, httpx2.UnsupportedProtocol):
                    raise self._unreachable(what, exc) from exc
            else:
                if answer.status_code not in _BUSY or pause_s is None:
                    return self._judged(answer, what)
            time.sleep(pause_s)
        raise AssertionError("unreachable")

    def _judged(self, answer: httpx2.Response, what: str) -> tuple[int, Object]:
        try:
            document = answer.json()
        except ValueError:
            document = {}
        if not isinstance(document, dict):
            document = {}
        if answer.is_success:
            return 200, document
        reason = str(document.get("reason", "")) or f"HTTP {answer.status_code}"
        message = f"cannot {what} on {self.name}: {document.get('message') or reason}"
        if answer.status_code == 404 and reason == "NotFound":
            return 404, {}
        if answer.status_code == 409:
            raise (AlreadyThere if reason == "AlreadyExists" else Conflict)(message, hint="read it again, then decide")
        if answer.status_code == 401:
            raise errors.ClusterError(message, hint="log in again: the token or certificate of the kubeconfig is not accepted")
        if answer.status_code == 403:
            raise errors.PrivilegeMissing(message, hint="give the account this right by a Role and a RoleBinding")
        raise errors.ClusterError(message, hint="the cluster's own answer above says why")

    def _unreachable(self, what: str, exc: Exception) -> errors.ClusterError:
        return errors.ClusterError(
            f"cannot {what} on {self.name}: {str(exc) or type(exc).__name__}",
            hint="is the cluster up, and the kubeconfig the right one?",
        )


def connect(access: Access) -> Cluster:
    """A connection; nothing is sent yet.

    Raises:
        ClusterError: lightkube is not installed, or there is no usable kubeconfig.
    """
    try:
        import httpx2
        import lightkube
        from lightkube.config.client_adapter import Client, ConnectionParams
        from lightkube.core.exceptions import ConfigError
    except ImportError as exc:
        raise errors.ClusterError(
            f"Kubernetes cannot be used: {exc.name} is not installed",
            hint="install the extra: pip install 'kpbackup[kubernetes]'",
        ) from exc
    where = access.kubeconfig or "the kubeconfig of this environment"
    try:
        loaded = lightkube.KubeConfig.from_file(access.kubeconfig) if access.kubeconfig else lightkube.KubeConfig.from_env()
        config = loaded.get(context_name=access.context or None)
        if config is None or config.user is None:
            raise ConfigError("it names no user")
        http = Client(config, ConnectionParams(timeout=httpx2.Timeout(REQUEST_TIMEOUT_S)))
    except (ConfigError, OSError, ValueError, KeyError, TypeError) as exc:
        hint = "does `kubectl get namespaces` work with it?"
        raise errors.ClusterError(f"{where} cannot be used: {exc}", hint=hint) from exc
    return Cluster(http, name=config.cluster.server, namespace=access.namespace)


def _pauses(repeat: bool) -> Iterator[float | None]:
    """How long to wait after each try; None after the last."""
    for number in range(TRIES - 1 if repeat else 0):
        yield PAUSE_S * 2**number
    yield None
