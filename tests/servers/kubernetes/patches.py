"""How a change is merged into an object: JSON merge patch, strategic merge patch, server-side apply."""

from __future__ import annotations

import copy
from typing import Any

# lists that are merged by a key and not replaced as a whole
_MERGE_KEYS = {
    "containers": "name", "initContainers": "name", "env": "name", "volumes": "name", "imagePullSecrets": "name",
    "volumeMounts": "mountPath", "conditions": "type", "ownerReferences": "uid", "secrets": "name",
}
_PORT_KEYS = ("containerPort", "port")


def merge(target: Any, change: Any) -> Any:
    """RFC 7386: null deletes, objects merge, everything else replaces."""
    if not isinstance(change, dict):
        return copy.deepcopy(change)
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in change.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def strategic(target: Any, change: Any, *, field: str = "") -> Any:
    """The same, but lists of named things are merged by their names; `$patch: delete` takes one out."""
    if isinstance(change, list):
        key = _key_of(field, change)
        return _merge_lists(target if isinstance(target, list) else [], change, key) if key else copy.deepcopy(change)
    if not isinstance(change, dict):
        return copy.deepcopy(change)
    if change.get("$patch") == "replace":
        return {name: copy.deepcopy(value) for name, value in change.items() if name != "$patch"}
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in change.items():
        if name.startswith("$"):
            continue  # hints about order and kept keys
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = strategic(merged.get(name), value, field=name)
    return merged


def apply(target: Any, wanted: Any, before: Any) -> Any:
    """What `target` becomes when its owner, who applied `before` the last time, applies `wanted`: fields dropped go."""
    return strategic(_without(target, before, wanted), wanted)


def _without(target: Any, before: Any, wanted: Any) -> Any:
    if not (isinstance(target, dict) and isinstance(before, dict) and isinstance(wanted, dict)):
        return target
    kept = {}
    for name, value in target.items():
        if name in before and name not in wanted:
            continue
        kept[name] = _without(value, before.get(name), wanted.get(name))
    return kept


def _key_of(field: str, items: list[Any]) -> str | None:
    if field == "ports":
        return next((key for key in _PORT_KEYS if all(isinstance(item, dict) and key in item for item in items)), None)
    key = _MERGE_KEYS.get(field)
    return key if key and all(isinstance(item, dict) and key in item for item in items) else None


def _merge_lists(target: list[Any], change: list[Any], key: str) -> list[Any]:
    merged = {item.get(key): item for item in target}
    for item in change:
        if item.get("$patch") == "delete":
            merged.pop(item[key], None)
        else:
            merged[item[key]] = strategic(merged.get(item[key]), item)
    return list(merged.values())
