"""What a user of the recovered application does: log in and look at the clusters, through the public address."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from tests.servers.kubepolaris import deployed

TIMEOUT_S = 20.0


def clusters_seen(url: str) -> list[str]:
    """The names of the clusters that are shown to a user who logs in."""
    login = {"username": deployed.USER, "password": deployed.PASSWORD, "auth_type": "local"}
    token = _answer(f"{url}/api/v1/auth/login", json.dumps(login).encode(), {"Content-Type": "application/json"})["token"]
    found = _answer(f"{url}/api/v1/clusters", None, {"Authorization": f"Bearer {token}"})
    return [str(one["name"]) for one in found["items"]]


def _answer(url: str, body: bytes | None, headers: dict[str, str]) -> dict[str, Any]:
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=TIMEOUT_S) as answer:
        document: dict[str, Any] = json.load(answer)
        return document
