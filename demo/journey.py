"""What a user of the recovered application does: log in and look at the clusters, through the public address."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from typing import Any

from tests.servers.kubepolaris import deployed

TIMEOUT_S = 20.0
LOOK_AGAIN_S = 0.3


def clusters_seen(url: str) -> list[str]:
    """The names of the clusters that are shown to a user who logs in."""
    login = {"username": deployed.USER, "password": deployed.PASSWORD, "auth_type": "local"}
    token = _answer(f"{url}/api/v1/auth/login", json.dumps(login).encode(), {"Content-Type": "application/json"})["token"]
    found = _answer(f"{url}/api/v1/clusters", None, {"Authorization": f"Bearer {token}"})
    return [str(one["name"]) for one in found["items"]]


class Waiting:
    """A user who tries again and again until the public address shows the clusters: `seconds` after the start."""

    def __init__(self, url: str) -> None:
        self.seconds: float | None = None
        self.seen: list[str] = []
        self._url = url
        self._ended = threading.Event()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="user", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Nobody waits any longer."""
        self._ended.set()
        self._thread.join(2 * TIMEOUT_S)

    def _run(self) -> None:
        while not self._ended.wait(LOOK_AGAIN_S):
            try:
                self.seen = clusters_seen(self._url)
            except (OSError, ValueError, KeyError):  # nobody answers yet, or not as the application does
                continue
            self.seconds = time.monotonic() - self._started
            return


def _answer(url: str, body: bytes | None, headers: dict[str, str]) -> dict[str, Any]:
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=TIMEOUT_S) as answer:
        document: dict[str, Any] = json.load(answer)
        return document
