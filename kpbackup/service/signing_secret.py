"""The signing key of a release as a Kubernetes Secret: made once, create-only, and never changed.

Idea: two pods that install at the same moment both try to create it; the API server lets one win, and the loser reads the
winner's. A crash before the Secret exists leaves nothing, one after it leaves a key that the next run takes up.
"""

from __future__ import annotations

import base64

from kpbackup import errors
from kpbackup.pipeline import sign
from kpbackup.service.cluster import Cluster

KEY, PUBLIC = "signing.key", "signing.pub"


def kept_signing_key(cluster: Cluster, name: str) -> sign.SigningKey:
    """The key in Secret `name` of the pod's namespace, which is created first if it is not there.

    Raises:
        KeyProblem: the Secret is there and holds no signing key.
        ServerUnreachable, PrivilegeMissing: see Cluster.
    """
    path = f"/api/v1/namespaces/{cluster.namespace}/secrets"
    found = cluster.get(f"{path}/{name}")
    if found is None:
        made = sign.SigningKey.generate()
        if cluster.create(path, _secret(name, made)):
            return made
        found = cluster.get(f"{path}/{name}") or {}
    return _signing_key(name, found.get("data") or {})


def _secret(name: str, key: sign.SigningKey) -> dict[str, object]:
    public = f"untrusted comment: kpbackup signing public key\n{key.public_key}\n"
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "kpbackup"}},
        "type": "Opaque",
        "data": {KEY: _coded(key.reveal()), PUBLIC: _coded(public)},
    }


def _signing_key(name: str, data: dict[str, str]) -> sign.SigningKey:
    try:
        return sign.SigningKey.parse(base64.b64decode(data[KEY]).decode())
    except (KeyError, ValueError) as exc:
        raise errors.KeyProblem(
            f"Secret {name} holds no signing key under {KEY}", hint="put the key of `kpbackup init` into it, or name another"
        ) from exc
    except errors.KpbackupError as exc:
        raise errors.KeyProblem(f"Secret {name}, key {KEY}: {exc.message}", hint=exc.hint) from exc


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
