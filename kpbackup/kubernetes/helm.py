"""The Helm engine: the `helm` program found on PATH, else the library of the extra `kpbackup[helm]`.

Both are Helm itself, so that what they leave in the cluster is an ordinary release. Values hold secrets: they go by a file in
a directory of our own, or in memory, never in arguments. `upgrade --install` with a pinned chart can be repeated: a run that
was killed leaves the release `pending-...`, which Helm refuses to touch; `unlock` deletes the record of such a revision.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kpbackup import errors
from kpbackup.kubernetes.client import Access, Cluster
from kpbackup.kubernetes.kinds import SECRET
from kpbackup.kubernetes.release import SECRET_TYPE

PENDING = ("pending-install", "pending-upgrade", "pending-rollback")


@dataclass(frozen=True)
class Installation:
    """What is to be installed, and for how long Helm may wait for hooks and, unless `waits` is off, until it is ready."""

    release: str
    namespace: str
    chart: bytes
    values: dict[str, Any]
    timeout_s: float
    description: str = ""
    waits: bool = True


class Engine(Protocol):
    """One way to run Helm."""

    name: str

    def install(self, access: Access, wanted: Installation) -> int:
        """Installs or upgrades, and waits until everything is ready if so wanted; the revision.

        Raises:
            StepFailed: Helm refused, or it was not ready in time.
        """

    def render(self, access: Access, wanted: Installation) -> str:
        """What an installation would make now, hooks left out; the cluster is asked where the chart asks it (`lookup`), and
        not changed. Raises StepFailed.
        """


def engine() -> Engine:
    """The engine of this machine.

    Raises:
        StepFailed: there is none.
    """
    program = shutil.which("helm")
    if program is not None:
        return Program(program)
    try:
        import helm_python  # noqa: F401
    except ImportError:
        raise errors.StepFailed(
            "there is no Helm on this machine: neither a program `helm` nor the library helm-python-sdk",
            hint="install Helm, or the extra: pip install 'kpbackup[helm]'; or set recovery.deploy.method: manifests",
        ) from None
    return Library()


class Program:
    """`helm` on PATH."""

    def __init__(self, path: str) -> None:
        self.name = path
        self._path = path

    def install(self, access: Access, wanted: Installation) -> int:
        waiting = ("--wait",) if wanted.waits else ()
        words = ("--timeout", f"{wanted.timeout_s:.0f}s", "--description", wanted.description)
        return int(self._run(access, wanted, *waiting, *words).get("version", 0))

    def render(self, access: Access, wanted: Installation) -> str:
        return str(self._run(access, wanted, "--dry-run=server").get("manifest", ""))

    def _run(self, access: Access, wanted: Installation, *more: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="kpbackup-helm-") as directory:
            chart, values = Path(directory, "chart.tgz"), Path(directory, "values.json")
            for path, content in ((chart, wanted.chart), (values, json.dumps(wanted.values).encode())):
                path.touch(mode=0o600)
                path.write_bytes(content)
            words = [
                self._path, "upgrade", "--install", wanted.release, str(chart), "--namespace", wanted.namespace,
                "--values", str(values), "--reset-values", "--output", "json", *more,
                *(["--kube-context", access.context] if access.context else []),
            ]
            environment = {**os.environ, **({"KUBECONFIG": access.kubeconfig} if access.kubeconfig else {})}
            done = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise _failed(wanted, done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found


class Library:
    """helm-python-sdk, which is Helm's own engine as a library."""

    name = "the library helm-python-sdk"

    def install(self, access: Access, wanted: Installation) -> int:
        how: dict[str, Any] = {"wait": "watcher"} if wanted.waits else {}
        how |= {"timeout": int(wanted.timeout_s), "description": wanted.description or None}
        return int(self._run(access, wanted, **how)["revision"])

    def render(self, access: Access, wanted: Installation) -> str:
        return str(self._run(access, wanted, dry_run="server").get("manifest", ""))

    def _run(self, access: Access, wanted: Installation, **how: Any) -> dict[str, Any]:
        import helm_python as helm

        config = helm.Config(
            kubeconfig_path=access.kubeconfig or None, kube_context=access.context or None, namespace=wanted.namespace
        )
        how["namespace"] = wanted.namespace
        try:
            with config, helm.Chart.load_archive(wanted.chart) as chart:
                try:
                    config.history(wanted.release)
                except helm.HelmNotFoundError:
                    found: dict[str, Any] = config.install(chart, wanted.release, wanted.values, **how)
                    return found
                found = config.upgrade(chart, wanted.release, wanted.values, reset_values=True, **how)
                return found
        except helm.HelmError as exc:
            raise _failed(wanted, str(exc)) from exc


def _failed(wanted: Installation, why: str) -> errors.StepFailed:
    return errors.StepFailed(
        f"Helm cannot install release {wanted.release} in {wanted.namespace}: {why}",
        hint="`kubectl get pods` shows what is not ready; mend it, then resume",
    )


def release_records(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    """The records of all revisions of a release."""
    found = cluster.all(SECRET, labels=f"owner=helm,name={name}")
    return [one for one in found if one.get("type") == SECRET_TYPE]


def unlock(cluster: Cluster, name: str) -> int:
    """Deletes the record of a revision that a killed Helm left pending, so that the next one can begin; how many there were.

    Helm itself offers nothing else than that; its own record of the revision before stays the newest.
    """
    pending = [
        one for one in release_records(cluster, name) if (one["metadata"].get("labels") or {}).get("status") in PENDING
    ]
    for one in pending:
        cluster.delete(SECRET, one["metadata"]["name"])
    return len(pending)
