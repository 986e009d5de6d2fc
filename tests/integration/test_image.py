"""The image without an engine: its install steps in an empty folder, and what the compose file does on real servers."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kpbackup import config
from kpbackup.mysql import server
from tests.integration.deployment import PROGRAM
from tests.servers.database import Server
from tests.servers.prometheus import promtool
from tests.servers.s3 import S3Server

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")


def test_hadolint_finds_nothing() -> None:
    program = Path(sys.executable).with_name("hadolint")
    checked = subprocess.run([program, "--failure-threshold", "style", DOCKER / "Dockerfile"], capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "")


def copied() -> list[str]:
    """What the Dockerfile takes from the checkout."""
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    return [word for line in lines for word in line.split()]


def test_the_build_gets_what_it_copies_and_no_more() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(allowed) == sorted(name.removeprefix("./") for name in copied())
    assert DOCKERFILE.count("\nUSER 10001:10001\n") == 1 and DOCKERFILE.rindex("USER") > DOCKERFILE.rindex("FROM")


@pytest.mark.slow
def test_its_install_steps_in_a_folder_with_what_it_copies(tmp_path: Path) -> None:
    source, prefix = tmp_path / "src", tmp_path / "opt"
    source.mkdir()
    for name in copied():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / Path(name).name)
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    made = subprocess.run(["sh", "install.sh", str(prefix)], cwd=source, env=environ, capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stdout + made.stderr
    shutil.rmtree(source)  # nothing of the build may be needed any more
    alone = {"PATH": f"{prefix}/bin:/usr/bin:/bin"}
    for words in (["version"], ["backup", "full", "--help"], ["restore", "--help"]):
        ran = subprocess.run(["kpbackup", *words], cwd="/", env=alone, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, ran.stderr
    imports = "import lightkube, kpbackup.service.daemon, kpbackup.kubernetes.client, kpbackup.repository.reader"
    assert subprocess.run(["python3", "-c", imports], cwd="/", env=alone).returncode == 0
    missing = subprocess.run(["python3", "-c", "import pip"], cwd="/", env=alone, capture_output=True)
    assert missing.returncode == 1
    assert sum(file.stat().st_size for file in prefix.rglob("*") if file.is_file()) < 200 << 20


def test_the_compose_file_names_what_there_is() -> None:
    for name, service in SERVICES.items():
        for needed in service.get("depends_on", {}):
            assert needed in SERVICES, (name, needed)
        assert ":" in service["image"].rsplit("/", 1)[-1] and not service["image"].endswith(":latest")
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (DOCKER / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], (name, volume)
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert not any("identity" in volume for volume in SERVICES["kpbackup"]["volumes"])
    assert SERVICES["kpbackup"]["image"] == f"kpbackup:{yaml.safe_load((ROOT / 'chart/Chart.yaml').read_text())['appVersion']}"


def test_prometheus_takes_its_files() -> None:
    checked = promtool("check", "config", str(DOCKER / "prometheus" / "prometheus.yaml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_first_start_of_the_compose_file(tmp_path: Path, mysql97: Server, s3: S3Server, s3_bucket: str) -> None:
    """Its script, settings and grants, with the addresses of this test; twice, because a later start must change nothing."""
    statements = (DOCKER / "compose" / "database.sql").read_text(encoding="utf-8").split(";\n")
    mysql97.execute(*(one for one in statements if one.strip()))
    with server.connect(server.Endpoint(mysql97.host, mysql97.port, "kpbackup", "kpbackup-demo-only")) as connection:
        assert not {"INSERT", "SUPER", "ALL"} & set(re.findall(r"[A-Z]+", str(connection.rows("SHOW GRANTS"))))
    keys, identity = tmp_path / "keys", tmp_path / "identity"
    identity.mkdir()
    text = (DOCKER / "compose" / "kpbackup.yaml").read_text(encoding="utf-8").replace("/keys/", f"{keys}/")
    (tmp_path / "kpbackup.yaml").write_text(text)
    program = tmp_path / "bin" / "kpbackup"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\ncd {}\nexec {} {} {} \"$@\"\n".format(*map(shlex.quote, map(str, (ROOT, *PROGRAM)))))
    program.chmod(0o755)
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("KPBACKUP_")},
        **SERVICES["first-start"]["environment"], **s3.environ(),
        "PATH": f"{program.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "KEYS": str(keys), "IDENTITY": str(identity), "KPBACKUP_CONFIG": str(tmp_path / "kpbackup.yaml"),
        "KPBACKUP_SOURCE__HOST": mysql97.host, "KPBACKUP_SOURCE__PORT": str(mysql97.port),
        "KPBACKUP_REPOSITORY__URL": f"s3://{s3_bucket}-new/demo", "KPBACKUP_REPOSITORY__ENDPOINT_URL": s3.endpoint_url,
    }  # fmt: skip
    made = []
    for _ in range(2):
        script = ["sh", str(DOCKER / "compose" / "first-start.sh")]
        ran = subprocess.run(script, env=environ, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, ran.stderr
        made.append({path.name: path.read_text() for path in (*keys.iterdir(), *identity.iterdir())})
    assert made[0] == made[1] and set(made[0]) == {"recipients.txt", "signing.key", "signing.pub", "identity.txt"}
    assert not (keys / "identity.txt").exists()

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *words], env={**environ, **more}, capture_output=True, text=True, timeout=300)

    root = {"KPBACKUP_SOURCE__USER": "root", "KPBACKUP_SOURCE__PASSWORD": ""}  # the account itself is judged by doctor, below
    backup = run("backup", "full", **root)
    assert backup.returncode == 0, backup.stderr
    checked = run("check", "--all", KPBACKUP_ENCRYPTION__IDENTITY_FILE=str(identity / "identity.txt"))
    assert checked.returncode == 0, checked.stderr
    doctor = run("doctor")
    assert doctor.returncode == 0 and "missing privilege" not in doctor.stdout, doctor.stdout
    assert config.load(tmp_path / "kpbackup.yaml", environ).archive.continuous
