"""A real Prometheus and a real Alertmanager from Debian's packages, as processes on free ports of 127.0.0.1.

Both are written in Go and need this machine's C library alone, so they run from where `fetched.py` unpacked them (136 MB, 5 s
once per machine). Nothing they write outlives the directory they are given.
"""

from __future__ import annotations

import functools
import json
import platform
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.servers import exercised, ports
from tests.servers.fetched import fetched
from tests.servers.process import ServerProcess

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@functools.cache
def programs() -> Path:
    """The folder with prometheus, promtool, prometheus-alertmanager and amtool.

    Raises:
        fetched.FetchFailed.
    """
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    return fetched("prometheus", suite=suite, alone=("prometheus", "prometheus-alertmanager")) / "root/usr/bin"


def promtool(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(programs() / "promtool"), *words], input=stdin, capture_output=True, text=True, timeout=600, check=False
    )


@dataclass
class Monitoring:
    """A Prometheus with its Alertmanager."""

    prometheus_port: int
    alertmanager_port: int

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What an instant query finds."""
        found: list[dict[str, Any]] = self._api("query?" + urllib.parse.urlencode({"query": expression}))["result"]
        return found

    def targets(self) -> list[str]:
        """The health of each target."""
        return [one["health"] for one in self._api("targets")["activeTargets"]]

    def alerts(self) -> set[str]:
        """The names of alerts that Alertmanager has as active."""
        with _opener.open(f"http://127.0.0.1:{self.alertmanager_port}/api/v2/alerts?active=true", timeout=60) as answer:
            return {one["labels"]["alertname"] for one in json.load(answer)}

    def _api(self, path: str) -> Any:
        with _opener.open(f"http://127.0.0.1:{self.prometheus_port}/api/v1/{path}", timeout=60) as answer:
            return json.load(answer)["data"]


@contextmanager
def monitoring(directory: Path, *, rules: dict[str, Any], target: str) -> Iterator[Monitoring]:
    """Prometheus scrapes `target` (host:port, job kpbackup) and judges the rules each second; Alertmanager is told."""
    directory.mkdir()
    found = Monitoring(ports.free_port(), ports.free_port())
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(directory / "rules.yaml")],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{found.alertmanager_port}"]}]}]},
        "scrape_configs": [{"job_name": "kpbackup", "static_configs": [{"targets": [target]}]}],
    }
    (directory / "rules.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    (directory / "prometheus.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    (directory / "alertmanager.yaml").write_text(
        yaml.safe_dump({"route": {"receiver": "nobody", "group_wait": "1s"}, "receivers": [{"name": "nobody"}]}), encoding="utf-8"
    )
    commands = {
        "alertmanager": [
            str(_relative_alertmanager(directory)), f"--config.file={directory}/alertmanager.yaml",
            f"--storage.path={directory}/alertmanager", f"--web.listen-address=127.0.0.1:{found.alertmanager_port}",
            "--cluster.listen-address=",
        ],
        "prometheus": [
            str(programs() / "prometheus"), f"--config.file={directory}/prometheus.yaml",
            f"--storage.tsdb.path={directory}/prometheus", f"--web.listen-address=127.0.0.1:{found.prometheus_port}",
            "--alertmanager.notification-queue-capacity=100", "--rules.alert.resend-delay=1s",
        ],
    }  # fmt: skip
    running = []
    try:
        for name, argv in commands.items():
            process = ServerProcess(argv, log=directory / f"{name}.log", cwd=programs().parents[1])
            running.append(process)
            port = found.prometheus_port if name == "prometheus" else found.alertmanager_port
            process.wait_until(functools.partial(_is_ready, port), what=name)
        exercised.record("Prometheus", _version("prometheus"))
        exercised.record("Alertmanager", _version("prometheus-alertmanager"))
        yield found
    finally:
        for process in running:
            process.kill()


def _relative_alertmanager(directory: Path) -> Path:
    """A copy of the program that looks for its templates below its working directory: Debian's has the path of an installed
    package built in, and nothing is installed here."""
    built_in, relative = b"/usr/share/prometheus/alertmanager", b"usr/share/prometheus//alertmanager"
    content = (programs() / "prometheus-alertmanager").read_bytes()
    assert built_in in content and len(built_in) == len(relative)
    copied = directory / "prometheus-alertmanager"
    copied.write_bytes(content.replace(built_in, relative))
    copied.chmod(0o755)
    return copied


def _is_ready(port: int) -> bool:
    try:
        with _opener.open(f"http://127.0.0.1:{port}/-/ready", timeout=30) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _version(name: str) -> str:
    text = subprocess.run([str(programs() / name), "--version"], capture_output=True, text=True, check=True)
    return (text.stdout + text.stderr).split("version ")[1].split("+")[0].split(" ")[0]
