"""The objects: uid, generation, resourceVersion, conflicts, selectors, and the events that watches follow."""

from __future__ import annotations

import base64
import copy
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.servers.kubernetes import patches
from tests.servers.kubernetes.resources import Object, Resource

Key = tuple[str, str, str]  # plural, namespace ('' for cluster-wide kinds), name
Check = Callable[[Object], str]
_SERVERS_OWN = ("uid", "resourceVersion", "creationTimestamp", "generation", "namespace", "name")


class Refused(Exception):
    """An answer that is not 200: HTTP code, Kubernetes' reason, a sentence."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


@dataclass(frozen=True)
class Event:
    """What happened to an object at a resourceVersion: ADDED, MODIFIED or DELETED."""

    version: int
    kind: str
    key: Key
    object: Object


class Store:
    """All objects. `check` says what is wrong with one ('' when nothing is)."""

    def __init__(self, check: Check = lambda found: "") -> None:
        self.changed = threading.Condition()
        self.events: list[Event] = []
        self._objects: dict[Key, Object] = {}
        self._applied: dict[tuple[Key, str], Object] = {}
        self._version = 100
        self._check = check

    @property
    def version(self) -> int:
        return self._version

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """A copy of the object; raises Refused (404)."""
        with self.changed:
            return copy.deepcopy(self._found(resource, namespace, name))

    def list(self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "") -> list[Object]:
        """Copies, by namespace and name; '' is every namespace."""
        with self.changed:
            return [
                copy.deepcopy(found) for (plural, space, _), found in sorted(self._objects.items())
                if plural == resource.plural and namespace in ("", space) and selected(found, labels=labels, fields=fields)
            ]

    def create(self, resource: Resource, namespace: str, wanted: Object) -> Object:
        with self.changed:
            name = self._name_of(wanted)
            if (resource.plural, namespace, name) in self._objects:
                raise Refused(409, "AlreadyExists", f'{resource.plural} "{name}" already exists')
            if namespace and ("namespaces", "", namespace) not in self._objects:
                raise Refused(404, "NotFound", f'namespaces "{namespace}" not found')
            made = copy.deepcopy(wanted)
            made["metadata"] |= {
                "name": name, "uid": str(uuid.uuid4()), "generation": 1, "creationTimestamp": _now(),
                **({"namespace": namespace} if resource.namespaced else {}),
            }
            return self._put(resource, namespace, made, "ADDED")

    def backdate(self, resource: Resource, namespace: str, name: str, made_at: str) -> None:
        """As if the object had been made then."""
        with self.changed:
            self._found(resource, namespace, name)["metadata"]["creationTimestamp"] = made_at

    def replace(self, resource: Resource, namespace: str, name: str, wanted: Object, *, part: str = "") -> Object:
        """PUT; `part` is a subresource. Raises Refused: 404, 409 when the resourceVersion given is not the newest."""
        with self.changed:
            before = self._found(resource, namespace, name)
            given = wanted.get("metadata", {}).get("resourceVersion")
            if given and given != before["metadata"]["resourceVersion"]:
                raise Refused(
                    409, "Conflict", f'Operation cannot be fulfilled on {resource.plural} "{name}": the object has been modified'
                )
            return self._change(resource, namespace, before, wanted, part)

    def patch(self, resource: Resource, namespace: str, name: str, change: Object, *, how: str, part: str = "") -> Object:
        """PATCH, `how` being merge or strategic."""
        with self.changed:
            before = self._found(resource, namespace, name)
            merge = patches.merge if how == "merge" else patches.strategic
            return self.replace(resource, namespace, name, merge(copy.deepcopy(before), change), part=part)

    def apply(self, resource: Resource, namespace: str, name: str, wanted: Object, *, manager: str) -> Object:
        """Server-side apply: creates what is not there; fields the manager applied before and left out now go."""
        with self.changed:
            key = (resource.plural, namespace, name)
            previous = self._applied.get((key, manager), {})
            self._applied[key, manager] = copy.deepcopy(wanted)
            if key not in self._objects:
                return self.create(resource, namespace, wanted)
            merged = patches.apply(copy.deepcopy(self._objects[key]), wanted, previous)
            return self._change(resource, namespace, self._objects[key], merged, "")

    def delete(self, resource: Resource, namespace: str, name: str) -> Object:
        with self.changed:
            gone = self._found(resource, namespace, name)
            del self._objects[resource.plural, namespace, name]
            if resource.plural == "namespaces":
                for key in [key for key in self._objects if key[1] == name]:
                    self._tell("DELETED", key, self._objects.pop(key))
            self._tell("DELETED", (resource.plural, namespace, name), gone)
            return copy.deepcopy(gone)

    def since(self, version: int) -> Iterator[Event]:
        """Events after a version that are there now."""
        with self.changed:
            return iter([event for event in self.events if event.version > version])

    def _found(self, resource: Resource, namespace: str, name: str) -> Object:
        found = self._objects.get((resource.plural, namespace, name))
        if found is None:
            raise Refused(404, "NotFound", f'{resource.plural} "{name}" not found')
        return found

    def _name_of(self, wanted: Object) -> str:
        metadata = wanted.setdefault("metadata", {})
        if not metadata.get("name") and metadata.get("generateName"):
            return f"{metadata['generateName']}{uuid.uuid4().hex[:5]}"
        if not metadata.get("name"):
            raise Refused(422, "Invalid", "metadata.name: Required value")
        return str(metadata["name"])

    def _change(self, resource: Resource, namespace: str, before: Object, wanted: Object, part: str) -> Object:
        after = copy.deepcopy(before if part == "status" else wanted)
        if part == "status":
            after["status"] = copy.deepcopy(wanted.get("status", {}))
        elif "status" in resource.subresources and "status" in before:
            after["status"] = copy.deepcopy(before["status"])
        kept = {name: before["metadata"][name] for name in _SERVERS_OWN if name in before["metadata"]}
        after["metadata"] = {**after.get("metadata", {}), **kept}
        if after.get("spec") != before.get("spec"):
            after["metadata"]["generation"] = before["metadata"]["generation"] + 1
        if after == before:
            return copy.deepcopy(before)
        return self._put(resource, namespace, after, "MODIFIED")

    def _put(self, resource: Resource, namespace: str, made: Object, what: str) -> Object:
        made = {"apiVersion": resource.api_version, "kind": resource.kind, **made}
        if resource.kind == "Secret":
            _encode_strings(made)
        if wrong := self._check(made):
            raise Refused(422, "Invalid", f"{resource.kind} {made['metadata']['name']} is invalid: {wrong}")
        key = (resource.plural, namespace, made["metadata"]["name"])
        self._objects[key] = made
        self._tell(what, key, made)
        return copy.deepcopy(made)

    def _tell(self, what: str, key: Key, found: Object) -> None:
        self._version += 1
        found["metadata"]["resourceVersion"] = str(self._version)
        self.events.append(Event(self._version, what, key, copy.deepcopy(found)))
        self.changed.notify_all()


def selected(found: Object, *, labels: str = "", fields: str = "") -> bool:
    """Whether an object has these labels (`a=b,c!=d,e in (f,g),h,!i`) and fields (`metadata.name=x`)."""
    carried = found["metadata"].get("labels") or {}
    return all(_label(carried, term) for term in _terms(labels)) and all(_field(found, term) for term in _terms(fields))


def _terms(text: str) -> list[str]:
    """Split at commas outside parentheses."""
    terms, depth, term = [], 0, ""
    for char in text:
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char == "," and depth == 0:
            terms.append(term)
            term = ""
        else:
            term += char
    return [one.strip() for one in (*terms, term) if one.strip()]


def _label(carried: dict[str, str], term: str) -> bool:
    if " in (" in term or " notin (" in term:
        name, _, rest = term.partition(" ")
        among = {one.strip() for one in rest.partition("(")[2].rstrip(")").split(",")}
        return (carried.get(name) in among) is not rest.startswith("notin")
    for operator, expected in (("!=", False), ("==", True), ("=", True)):
        if operator in term:
            name, _, value = term.partition(operator)
            return (carried.get(name.strip()) == value.strip()) is expected
    return (term.removeprefix("!") in carried) is not term.startswith("!")


def _field(found: Object, term: str) -> bool:
    name, _, value = term.replace("==", "=").partition("=")
    is_unequal = name.endswith("!")
    place: Any = found
    for step in name.rstrip("!").split("."):
        place = place.get(step, "") if isinstance(place, dict) else ""
    return (str(place) == value) is not is_unequal


def _encode_strings(secret: Object) -> None:
    """stringData goes into data; data that is no base64 is refused."""
    data = dict(secret.get("data") or {})
    for name, text in (secret.pop("stringData", None) or {}).items():
        data[name] = base64.b64encode(text.encode()).decode()
    for name, text in data.items():
        try:
            base64.b64decode(text, validate=True)
        except ValueError as exc:
            raise Refused(400, "BadRequest", f"Secret data {name}: illegal base64 data") from exc
    if data:
        secret["data"] = data
    secret.setdefault("type", "Opaque")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
