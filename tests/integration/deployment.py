"""A small deployment for tests: settings, keys and a repository for one source, and the program run against them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kpbackup import config as configuration
from kpbackup.repository.binding import Repository
from kpbackup.service import opening
from tests.integration import beginning
from tests.servers.database import Server

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-m", "kpbackup"]


@dataclass
class Deployment:
    """`settings` is the tree of the YAML file; `write` stores it anew after a change."""

    directory: Path
    settings: dict[str, Any]
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.directory / "kpbackup.yaml"

    @property
    def keys(self) -> Path:
        return self.directory / "keys"

    @property
    def store(self) -> Path:
        return self.directory / "repository"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KPBACKUP_")}
        return {**kept, **self.environ}

    def write(self) -> None:
        self.config.write_text(yaml.safe_dump(self.settings), encoding="utf-8")

    def run(self, *words: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """The program's end, whatever it is."""
        argv = [*PROGRAM, "--config", str(self.config), *words]
        return subprocess.run(argv, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout_s)

    def json(self, *words: str, code: int = 0, timeout_s: float = 300) -> dict[str, Any]:
        """The JSON document of a command that must end with `code`."""
        ended = self.run(*words, "--json", timeout_s=timeout_s)
        assert ended.returncode == code, ended.stderr + ended.stdout
        found: dict[str, Any] = json.loads(ended.stdout)
        return found

    def start(self, *words: str, log: Path, config: Path | None = None) -> subprocess.Popen[bytes]:
        """The program in the background, its log in a file."""
        argv = [*PROGRAM, "--config", str(config or self.config), *words]
        with log.open("ab") as output:
            return subprocess.Popen(argv, cwd=ROOT, env=self.environment, stdout=output, stderr=output)

    def load(self) -> configuration.Settings:
        return configuration.load(self.config, {})

    def open(self) -> Repository:
        return opening.reading_repository(self.load())


def deploy(
    directory: Path, source: Server, *, url: str | None = None, environ: Mapping[str, str] | None = None, **repository: str
) -> Deployment:
    """Keys and an empty repository (file:// unless `url`) for `source`, which gets a database with a thousand rows."""
    directory.mkdir(exist_ok=True)
    source.execute(
        "CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(100))",
        "INSERT INTO shop.orders (note) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 1000) "
        "SELECT CONCAT('order ', i) FROM n")  # fmt: skip
    settings = {
        "source": {"name": "shop-db", "host": source.host, "port": source.port, "user": "root", "max_connections": 4},
        "repository": {"url": url or (directory / "repository").as_uri(), **repository},
        "service": {"instance": "test-daemon", "listen": "127.0.0.1:0"},
    }
    made = Deployment(directory, settings, environ or {})
    made.write()
    begun = beginning.begin(made.config, made.keys) if not environ else {}
    report = begun or made.json("init", "--keys", str(made.keys))
    made.settings |= {
        "encryption": {"recipients": [report["recipient"]]},
        "signing": {"key_file": report["signing_key_file"], "public_keys": [report["public_key"]]},
    }
    made.write()
    return made


def order(source: Server, note: str) -> None:
    """One more transaction."""
    with source.connect() as connection:
        connection.execute("INSERT INTO shop.orders (note) VALUES (%s)", (note,))


def until(condition: Callable[[], Any], *, what: str, timeout_s: float = 180) -> Any:
    """The first true answer of `condition`, asked again and again."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(0.05)
    return found
