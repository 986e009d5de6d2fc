"""The runbook is what a tired engineer follows: each of its commands runs here, in its order, with the rights it asks for."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kpbackup.recovery import profile
from tests.integration import five_steps
from tests.integration.five_steps import Recovered
from tests.integration.scenario import Scene
from tests.servers.kubernetes.access import Rule

DOCS = Path(__file__).resolve().parents[2] / "docs"
RUNBOOK = (DOCS / "runbook.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"^```sh\n(.*?)^```", RUNBOOK, re.MULTILINE | re.DOTALL) for line in block.splitlines()]
YAML = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", RUNBOOK, re.MULTILINE | re.DOTALL)]
NAMESPACES = Rule(frozenset({"get", "create"}), frozenset({"namespaces"}))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recovered]:
    with five_steps.stage(tmp_path_factory.mktemp("runbook")) as made:
        yield made


def filled(shown: object, real: object) -> object:
    """The settings as the runbook shows them, with the values of this machine in their places; of the repository all of it,
    because a directory has no endpoint."""
    if isinstance(shown, dict) and isinstance(real, dict) and "endpoint_url" not in shown:
        return {name: filled(value, real.get(name)) for name, value in shown.items()}
    return shown if real is None else real


@pytest.mark.slow
def test_every_command_runs(stage: Recovered, tmp_path: Path) -> None:
    settings, role, drill = YAML
    real = stage.scene.settings
    stage.cluster.access.tokens["runbook"] = (
        NAMESPACES, *(Rule(frozenset(one["verbs"]), frozenset(one["resources"])) for one in role["rules"])
    )
    config = stage.cluster.write_kubeconfig(tmp_path / "kubeconfig", token="runbook")
    real["recovery"]["application"]["kubeconfig"] = str(config)
    written = filled(settings, real)
    assert isinstance(written, dict)
    written["recovery"]["verify"]["url"] = real["recovery"]["verify"]["url"]  # inside a cluster it is the Service
    written["recovery"]["target"].pop("password_file")
    written["recovery"]["target"]["port"] = stage.target.port
    scene = Scene(tmp_path)
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(written))
    (tmp_path / "drill.yaml").write_text(yaml.safe_dump(filled(drill, real)))
    environ = {
        **scene.environment(), "KPBACKUP_CONFIG": str(tmp_path / "settings.yaml"),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
    }
    for command in COMMANDS:
        # after it nobody answers at the public address, which was not there before the switch: found out in a second
        patience = {"KPBACKUP_RECOVERY__SWITCH__PUBLIC_TIMEOUT": "1s"} if " revert " in command else {}
        ended = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environ | patience, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=False,
        )
        assert ended.returncode == 0, f"{command}\n{ended.stderr}{ended.stdout}"
        if command.startswith("kpbackup restore --to latest --yes"):
            environ["RUN"] = re.findall(r"recovery:? +(\S+)", ended.stdout)[-1]
            assert re.search(r"state: +recovered", ended.stdout), ended.stdout
    assert len(COMMANDS) > 8
    assert re.search(r"result: +passed", ended.stdout), ended.stdout


def test_every_key_of_a_profile_is_described() -> None:
    text = (DOCS / "profiles.md").read_text(encoding="utf-8")
    rows = " ".join(re.findall(r"^\| (`.+?) \|", text, re.MULTILINE))
    whole: tuple[Any, ...] = (profile.Profile, profile.Call)
    for kind in whole:
        assert [name for name in kind.__dataclass_fields__ if f"`{name}`" not in rows] == []
    kinds: tuple[Any, ...] = (profile.Tables, profile.Unrestored, profile.Assertion, profile.Count, profile.Listing)
    for kind in kinds:
        assert [name for name in kind.__dataclass_fields__ if not re.search(rf"[{{, ]{name}[}}, ]", text)] == []
