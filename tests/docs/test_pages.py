"""The pages: they build strictly, every command they show exists with its options, every settings block is understood."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from kpbackup import config
from kpbackup.cli import context, main, verbs
from tests.chart import rendering

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *ROOT.glob("README*.md"), ROOT / "chart" / "README.md", ROOT / "docker" / "README.md"])
UNIT = ROOT / "deploy" / "kpbackup.service"
RECIPIENTS = yaml.safe_load(rendering.TWELVE_LINES)["config"]["encryption"]["recipients"]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each `kpbackup` that a block of shell lines runs."""
    for line in "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|;|\||\s#", line):
            found = re.match(r"\s*(?:\S*/)?kpbackup\s+(.*)", part)
            if found and "=" not in line.split()[0]:
                yield shlex.split(found[1].rstrip(" &"))


def parse(words: list[str]) -> str:
    """The verb; whatever does not exist, or lacks an argument, raises. Nothing runs."""
    root = main.program().make_context("kpbackup", list(words), obj=context.Context())
    rest = [*root._protected_args, *root.args]
    path = ""
    while rest and f"{path} {rest[0]}".strip() in {*verbs.VERBS, *verbs.GROUPS}:
        path = f"{path} {rest.pop(0)}".strip()
    verbs.build(path, verbs.VERBS).make_context(path, rest, parent=root)
    return path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_exists(page: Path) -> None:
    for words in commands(page):
        try:
            assert parse(words) in verbs.VERBS, words
        except typer.TyperException as exc:
            pytest.fail(f"kpbackup {shlex.join(words)}: {exc}")


def test_commands_are_found_and_wrong_ones_too() -> None:
    assert ["restore", "database", "--to", "latest"] in list(commands(DOCS / "index.md"))
    assert sum(len(list(commands(page))) for page in PAGES) > 60
    with pytest.raises(typer.TyperException):
        parse(["status", "--nonsense"])


def build(docs: Path, site: Path) -> subprocess.CompletedProcess[str]:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").replace("docs_dir: docs", f"docs_dir: {docs}")
    (site.parent / "mkdocs.yml").write_text(text, encoding="utf-8")
    argv = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(site.parent / "mkdocs.yml")]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run([*argv, "--site-dir", str(site)], env=environ, capture_output=True, text=True, timeout=300)


def test_the_pages_build_strictly(tmp_path: Path) -> None:
    built = build(DOCS, tmp_path / "site")
    assert built.returncode == 0, built.stderr
    written = {page.stem for page in (tmp_path / "site").glob("*.html")} - {"404"}
    assert written == {page.stem for page in DOCS.glob("*.md")}
    copied = tmp_path / "docs"
    shutil.copytree(DOCS, copied)
    (copied / "orphan.md").write_text("[nowhere](nowhere.md)", encoding="utf-8")
    refused = build(copied, tmp_path / "site")
    assert refused.returncode != 0 and "orphan.md" in refused.stderr


def test_the_settings_of_the_quick_start_are_understood(tmp_path: Path) -> None:
    (settings,) = blocks(DOCS / "index.md", "yaml")
    (tmp_path / "kpbackup.yaml").write_text(settings, encoding="utf-8")
    read = config.load(tmp_path / "kpbackup.yaml", {})
    assert read.archive.continuous and read.need_source().host == "db.example.net"


def test_the_values_of_the_install_page_render() -> None:
    first, jobs, cron = (yaml.safe_load(block) for block in blocks(DOCS / "install.md", "yaml"))
    twelve = yaml.safe_load(rendering.TWELVE_LINES)
    assert {**first["config"], "encryption": twelve["config"]["encryption"]} == twelve["config"]
    first["config"]["encryption"]["recipients"] = RECIPIENTS
    names = {f"{one['kind']}/{one['metadata']['name']}" for one in rendered(first, jobs)}
    assert {"Deployment/kpbackup", "CronJob/kpbackup-prune", "PrometheusRule/kpbackup", "ServiceMonitor/kpbackup"} <= names
    names = {f"{one['kind']}/{one['metadata']['name']}" for one in rendered(first, cron)}
    assert {"CronJob/kpbackup-full", "CronJob/kpbackup-incremental", "Deployment/kpbackup"} <= names


def rendered(*values: dict[str, Any]) -> list[dict[str, Any]]:
    return list(rendering.objects(rendering.merged(*values)))


def test_the_chinese_runbook_has_the_commands_of_the_english_one() -> None:
    for language in ("sh", "yaml"):
        english = blocks(DOCS / "runbook.md", language)
        assert english and blocks(DOCS / "runbook.zh.md", language) == english
    headings = [len(re.findall(r"^## ", (DOCS / name).read_text(encoding="utf-8"), re.MULTILINE)) for name in
                ("runbook.md", "runbook.zh.md")]  # fmt: skip
    assert headings[0] == headings[1]


def test_the_chinese_readme_says_what_the_english_one_says() -> None:
    """The same blocks, headings, questions with their commands, links and limits."""
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))
    fences = [re.findall(r"^```.*?^```$", text, re.MULTILINE | re.DOTALL) for text in (english, chinese)]
    assert fences[0] == fences[1] and len(fences[0]) > 4
    for pattern in (r"^\| .* \| .*`.*", r"^## ", r"^- "):
        counts = [len(re.findall(pattern, text, re.MULTILINE)) for text in (english, chinese)]
        assert counts[0] == counts[1] > 2, pattern
    for pattern in (r"`kpbackup [^`]*`", r"\((docs/[^)]*)\)"):
        assert set(re.findall(pattern, english)) <= set(re.findall(pattern, chinese)), pattern


def test_the_unit_of_systemd(tmp_path: Path) -> None:
    text = UNIT.read_text(encoding="utf-8")
    assert blocks(DOCS / "install.md", "ini") == [text]
    (command,) = re.findall(r"^ExecStart=\S+/kpbackup (.*)$", text, re.MULTILINE)
    assert parse(shlex.split(command)) == "daemon"
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd-analyze on this machine")
    own = tmp_path / "kpbackup.service"
    own.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE), encoding="utf-8")
    judged = subprocess.run([analyze, "verify", str(own)], capture_output=True, text=True, timeout=180)
    assert (judged.returncode, [line for line in judged.stderr.splitlines() if "kpbackup.service" in line]) == (0, [])
