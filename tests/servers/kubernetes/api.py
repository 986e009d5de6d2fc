"""HTTP: paths to verbs, verbs to the store, answers as Kubernetes gives them."""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.servers.kubernetes import protobuf, resources
from tests.servers.kubernetes.access import Access
from tests.servers.kubernetes.resources import Object, Resource
from tests.servers.kubernetes.store import Event, Refused, Store, selected

WATCH_LIMIT_S = 300.0
_PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<part>[^/]+))?/?$"
)
_PATCHES = {
    "application/merge-patch+json": "merge", "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}
VERSION = {
    "major": "1", "minor": "33", "gitVersion": "v1.33.0", "platform": "linux/amd64", "goVersion": "none", "buildDate": "none",
    "gitCommit": "none", "gitTreeState": "clean", "compiler": "none",
}


@dataclass(frozen=True)
class Request:
    """A request for objects, taken apart."""

    resource: Resource
    namespace: str
    name: str
    part: str
    query: dict[str, str]


class ApiServer(ThreadingHTTPServer):
    """`requests` counts what was asked: (verb, plural); `skew_s` is how far its clock is ahead in the Date header."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, store: Store, access: Access, *, certificate: tuple[Path, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        self._tls = context
        self.store, self.access = store, access
        self.requests: list[tuple[str, str, str]] = []
        self.skew_s = 0.0
        self.is_ended = threading.Event()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the thread of the connection, so that a client that says nothing holds up nobody else."""
        try:
            with self._tls.wrap_socket(request, server_side=True) as secured:
                super().finish_request(secured, client_address)
        except (ssl.SSLError, ConnectionError):
            pass  # the client does not trust us, or went away


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ApiServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((timestamp or time.time()) + self.server.skew_s)

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def do_PATCH(self) -> None:
        self._answer("PATCH")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if not self.server.access.is_known(self._token()):
                raise Refused(401, "Unauthorized", "Unauthorized")
            parts = urlsplit(self.path)
            found = _document(parts.path) if method == "GET" else None
            if found is not None:
                self._send(200, found)
                return
            query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
            self._objects(method, _request(parts.path, query), body)
        except Refused as refused:
            self._send(refused.code, _failure(refused))
        except BrokenPipeError:
            pass  # the client went away

    def _token(self) -> str | None:
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        return token if kind == "Bearer" else None

    def _objects(self, method: str, asked: Request, body: bytes) -> None:
        verb = _verb(method, asked)
        what = f"{asked.resource.plural}/{asked.part}" if asked.part else asked.resource.plural
        self.server.requests.append((verb, what, f"{asked.namespace}/{asked.name}"))
        if asked.resource.plural == "selfsubjectaccessreviews":
            self._send(201, self._review(_parsed(body)))
            return
        if not self.server.access.allows(self._token(), verb, what, asked.namespace):
            where = f' in the namespace "{asked.namespace}"' if asked.namespace else ""
            raise Refused(403, "Forbidden", f'{what} is forbidden: the user cannot {verb} resource "{what}"{where}')
        if verb == "watch":
            self._watch(asked)
        elif verb == "list":
            self._send(200, self._list(asked))
        else:
            self._send(201 if verb == "create" else 200, self._one(verb, asked, body))

    def _review(self, review: Object) -> Object:
        wanted = review["spec"].get("resourceAttributes", {})
        what = f"{wanted['resource']}/{wanted['subresource']}" if wanted.get("subresource") else wanted.get("resource", "")
        allowed = self.server.access.allows(self._token(), wanted.get("verb", ""), what, wanted.get("namespace", ""))
        return {**review, "status": {"allowed": allowed}}

    def _one(self, verb: str, asked: Request, body: bytes) -> Object:
        store, place = self.server.store, (asked.resource, asked.namespace, asked.name)
        if asked.part == "scale":
            return self._scale(verb, asked, body)
        if verb == "get":
            return store.get(*place)
        if verb == "delete":
            return store.delete(*place)
        if asked.query.get("dryRun"):
            return _parsed(body)
        if verb == "create":
            return store.create(asked.resource, asked.namespace, _parsed(body))
        if verb == "update":
            return store.replace(*place, _parsed(body), part=asked.part)
        how = _PATCHES.get(self.headers.get("Content-Type", "").split(";")[0])
        if how is None:
            raise Refused(415, "UnsupportedMediaType", "this kind of patch is not supported")
        if how == "apply":
            return store.apply(*place, _parsed(body), manager=asked.query.get("fieldManager", ""))
        return store.patch(*place, _parsed(body), how=how, part=asked.part)

    def _scale(self, verb: str, asked: Request, body: bytes) -> Object:
        store, place = self.server.store, (asked.resource, asked.namespace, asked.name)
        found = store.get(*place)
        if verb != "get":
            found = store.patch(*place, {"spec": {"replicas": _parsed(body)["spec"]["replicas"]}}, how="merge")
        metadata = {name: found["metadata"][name] for name in ("name", "namespace", "uid", "resourceVersion")}
        return {
            "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata,
            "spec": {"replicas": found["spec"].get("replicas", 1)},
            "status": {"replicas": found.get("status", {}).get("replicas", 0)},
        }

    def _list(self, asked: Request) -> Object:
        store = self.server.store
        with store.changed:
            items = store.list(
                asked.resource, asked.namespace,
                labels=asked.query.get("labelSelector", ""), fields=asked.query.get("fieldSelector", ""),
            )
            metadata = {"resourceVersion": str(store.version)}
        kind = f"{asked.resource.kind}List"
        return {"apiVersion": asked.resource.api_version, "kind": kind, "metadata": metadata, "items": items}

    def _watch(self, asked: Request) -> None:
        store = self.server.store
        seen = int(asked.query.get("resourceVersion") or 0)
        limit_s = float(asked.query.get("timeoutSeconds") or WATCH_LIMIT_S)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        streams = asked.query.get("sendInitialEvents") == "true"
        if streams or not seen:  # the watch begins with everything that is there
            listed = self._list(asked)
            seen = int(listed["metadata"]["resourceVersion"])
            for found in listed["items"]:
                self._chunk({"type": "ADDED", "object": found})
        if streams:
            self._chunk({"type": "BOOKMARK", "object": _bookmark(asked.resource, seen)})
        ends = time.monotonic() + limit_s
        while time.monotonic() < ends and not self.server.is_ended.is_set():
            for event in store.since(seen):
                seen = event.version
                if _concerns(event, asked) and selected(
                    event.object, labels=asked.query.get("labelSelector", ""), fields=asked.query.get("fieldSelector", "")
                ):
                    self._chunk({"type": event.kind, "object": event.object})
            with store.changed:
                if store.version == seen:
                    store.changed.wait(0.2)
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, document: Object) -> None:
        line = json.dumps(document).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.flush()

    def _send(self, code: int, document: Object) -> None:
        body = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _document(path: str) -> Object | None:
    """Answers that are no objects: versions and discovery."""
    if path.rstrip("/") in ("/version", "/api", "/apis"):
        return {"/version": VERSION, "/api": resources.versions(), "/apis": resources.groups()}[path.rstrip("/")]
    if path == "/openapi/v3":
        return resources.openapi_index()
    found = re.fullmatch(r"(/openapi/v3)?/(?:api/(v1)|apis/([^/]+)/([^/]+))/?", path)
    if found is None:
        return None
    place = (found[3] or "", found[2] or found[4])
    return resources.openapi(*place) if found[1] else resources.resource_list(*place)


def _request(path: str, query: dict[str, str]) -> Request:
    found = _PATH.fullmatch(path)
    resource = resources.find(found["group"] or "", found["core"] or found["version"], found["plural"]) if found else None
    if found is None or resource is None:
        raise Refused(404, "NotFound", "the server could not find the requested resource")
    part = found["part"] or ""
    if part and part not in resource.subresources:
        raise Refused(404, "NotFound", f"{resource.plural} has no subresource {part}")
    if found["name"] and resource.namespaced and not found["namespace"]:
        raise Refused(404, "NotFound", "the server could not find the requested resource")
    return Request(resource, found["namespace"] or "", found["name"] or "", part, query)


def _verb(method: str, asked: Request) -> str:
    if method == "GET" and not asked.name:
        return "watch" if asked.query.get("watch") in ("1", "true") else "list"
    if method == "DELETE" and not asked.name:
        raise Refused(405, "MethodNotAllowed", "delete them one by one")
    return {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[method]


def _parsed(body: bytes) -> Object:
    try:
        if body.startswith(protobuf.MAGIC):
            return protobuf.secret(body)
        found = yaml.safe_load(body)  # JSON is YAML; server-side apply sends either
    except (yaml.YAMLError, ValueError) as exc:
        raise Refused(400, "BadRequest", f"the body is not understood: {exc}") from exc
    if not isinstance(found, dict):
        raise Refused(400, "BadRequest", "the body is no object")
    return found


def _concerns(event: Event, asked: Request) -> bool:
    plural, namespace, name = event.key
    return plural == asked.resource.plural and asked.namespace in ("", namespace) and asked.name in ("", name)


def _bookmark(resource: Resource, version: int) -> Object:
    """Ends the initial events of a streamed list."""
    metadata = {"resourceVersion": str(version), "annotations": {"k8s.io/initial-events-end": "true"}}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}


def _failure(refused: Refused) -> Object:
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": refused.message,
        "reason": refused.reason, "code": refused.code,
    }
