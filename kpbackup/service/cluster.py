"""The Kubernetes API as seen from inside a pod: three requests, the standard library alone.

Idea: creating one Secret, telling an Event and reading a few objects need no client library. The service account that
Kubernetes mounts gives address, token and authority; the token is read for each request, because it is renewed on disk.
Outside of a pod there is no cluster to be had here. Nothing is kept, so a crash leaves nothing behind.
"""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kpbackup import errors

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_S = 10.0

Document = dict[str, Any]


@dataclass(frozen=True)
class Cluster:
    """An API server and the account to ask it with. `namespace` is the pod's own."""

    url: str
    namespace: str
    account: Path

    def get(self, path: str) -> Document | None:
        """The object at `path`; None when there is none.

        Raises:
            ServerUnreachable: the API server does not answer, or not in JSON.
            PrivilegeMissing: the service account may not read it.
        """
        return self._ask("GET", path, None, absent=404)

    def create(self, path: str, document: Document) -> bool:
        """Creates an object in the collection at `path`; False when it was there already.

        Raises: as `get`.
        """
        return self._ask("POST", path, document, absent=409) is not None

    def _ask(self, method: str, path: str, document: Document | None, *, absent: int) -> Document | None:
        body = json.dumps(document).encode() if document is not None else None
        request = urllib.request.Request(self.url + path, data=body, method=method)
        what = f"cannot {'read' if method == 'GET' else 'create'} {path} in Kubernetes"
        try:
            token = (self.account / "token").read_text(encoding="utf-8").strip()
            request.add_header("Authorization", f"Bearer {token}")
            request.add_header("Content-Type", "application/json")
            with self._opener().open(request, timeout=TIMEOUT_S) as answer:
                found: Document = json.load(answer)
                return found
        except urllib.error.HTTPError as refusal:
            with refusal:
                if refusal.code == absent:
                    return None
                if refusal.code in (401, 403):
                    raise errors.PrivilegeMissing(
                        f"{what}: the service account may not ({refusal.code})",
                        hint="give it a Role for this; the chart makes one",
                    ) from refusal
                raise errors.ServerUnreachable(f"{what}: {refusal.code} {refusal.reason}") from refusal
        except (OSError, ValueError) as exc:
            reason = getattr(exc, "reason", None) or exc
            raise errors.ServerUnreachable(f"{what}: {reason}", hint="is the API server reachable from this pod?") from exc

    def _opener(self) -> urllib.request.OpenerDirector:
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if self.url.startswith("https:"):
            context = ssl.create_default_context(cafile=str(self.account / "ca.crt"))
            handlers.append(urllib.request.HTTPSHandler(context=context))
        return urllib.request.build_opener(*handlers)


def in_cluster(environ: Mapping[str, str], *, account: Path = SERVICE_ACCOUNT) -> Cluster | None:
    """The cluster this process runs in; None outside of one, or where no service account is mounted."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (account / "token").exists():
        return None
    try:
        namespace = (account / "namespace").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return Cluster(f"https://{f'[{host}]' if ':' in host else host}:{port}", namespace, account)
