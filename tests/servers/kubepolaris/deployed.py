"""KubePolaris as a Helm release in a fake cluster: its chart, its values, its certificate, and a user for verification.

No database password is among the values: the chart makes a random one, and another one at every upgrade.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pymysql

from kpbackup.kubernetes import helm, release
from kpbackup.kubernetes.client import Access
from tests.servers.kubepolaris import application
from tests.servers.kubernetes.cluster import Cluster

CHART = Path(__file__).resolve().parents[1] / "charts" / "kubepolaris"
NAME = "kubepolaris"  # of namespace, release and database
MARKER = "KPDEMO-SECRET"
USER, PASSWORD = "kp-verify", f"{MARKER}-verification"
HOST = "kp.example.net"
ANNOTATIONS = {
    "nginx.ingress.kubernetes.io/affinity": "cookie", "nginx.ingress.kubernetes.io/session-cookie-name": "kp",
    "nginx.ingress.kubernetes.io/proxy-read-timeout": "3600",
}
PATHS = [{"path": "/", "pathType": "Prefix", "backend": "frontend"}, {"path": "/api", "pathType": "Prefix", "backend": "backend"}]
VALUES: dict[str, Any] = {
    "mysql": {"internal": {"persistence": {"enabled": True}}}, "backend": {"image": {"tag": "v1.0.5"}},
    "frontend": {"image": {"tag": "v1.0.5"}}, "grafana": {"enabled": True},
    "security": {"jwtSecret": f"{MARKER}-jwt"}, "autoscaling": {"backend": {"enabled": True}},
    "ingress": {
        "enabled": True, "annotations": ANNOTATIONS, "hosts": [{"host": HOST, "paths": PATHS}],
        "tls": [{"secretName": "kubepolaris-tls", "hosts": [HOST]}],
    },
}


def install(cluster: Cluster, kubeconfig: str) -> None:
    """The release in a namespace of its own, ready when this returns. The cluster's nodes must run already."""
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME}})
    cluster.create(
        {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kubepolaris-tls"}, "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": f"{MARKER}-crt", "tls.key": f"{MARKER}-key"},
        },
        namespace=NAME,
    )
    files = {str(path.relative_to(CHART)): path.read_bytes() for path in CHART.rglob("*") if path.is_file()}
    chart = release._packed(NAME, files)
    helm.Library().install(Access(NAME, kubeconfig), helm.Installation(NAME, NAME, chart, VALUES, 60))


def add_user(connection: pymysql.Connection[Any]) -> None:
    """The account that verification logs in with."""
    salt = f"kp_{USER}_salt"
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {NAME}.users (username, password_hash, salt, auth_type) VALUES (%s, %s, %s, 'local')",
            (USER, application.hashed(PASSWORD, salt), salt),
        )
    connection.commit()
