"""The frozen repository of format 1: today's code lists, checks and restores what was stored long ago; the future is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kpbackup import errors
from kpbackup.model import canonical, codec, manifest
from kpbackup.pipeline import sign
from kpbackup.repository import catalog, check, objects
from tests.integration.scenario import Scene, wipe
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.vectors import freeze
from tests.vectors.vector import HOME, Vector


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with mariadb_server(tmp_path_factory.mktemp("vector") / "target", server_id=261) as server:
        yield server


@pytest.fixture
def scene(tmp_path: Path, target: Server) -> Scene:
    """The vector as a user's repository, with its own keys."""
    wipe(target)
    made = Scene(tmp_path / "scene", target=target)
    Vector.thawed(made.repository)
    shutil.copytree(HOME / "keys", made.keys)
    (made.keys / "identity.txt").chmod(0o600)
    return made.for_restore()


def test_it_lists_and_checks(scene: Scene) -> None:
    listed = scene.ok("list")
    assert [(one["set"], one["state"], one["pinned"]) for one in listed["sets"]] == [
        ("0001-1", "stored", True), ("0002-1", "proven", False),
    ]  # fmt: skip
    assert [(one["timeline"], one["segments"]) for one in listed["archive"]] == [("0001", 2), ("0002", 1)]
    assert len(listed["windows"]) == 2 and not listed["damaged"]
    checked = scene.ok("check", "--all")
    assert checked["intact"] and checked["opened"] and checked["objects"] == 13
    assert [one["proven_at"] is not None for one in scene.ok("keys", "list")["recipients"]] == [True]


def test_a_head_kept_outside_shows_what_was_removed(scene: Scene, tmp_path: Path) -> None:
    head = str(tmp_path / "head.json")
    scene.ok("check", "--write-head", head)
    assert scene.ok("check", "--expect-head", head)["intact"]
    newest = [key for key in scene.manifests() if "/0002/segments/" in key][-1]
    (scene.repository / newest).unlink()
    assert scene.ok("check")["intact"], "the store alone shows nothing missing"
    ended = scene.run("--json", "check", "--expect-head", head)
    assert ended.code == 17
    (problem,) = json.loads(ended.out)["problems"]
    assert problem["key"].endswith("0002/segments") and "the recoverable points after" in problem["costs"]
    assert "problems in file://" in scene.refused(17, "check", "--expect-head", head)


def test_it_restores_what_was_in_the_source(scene: Scene, target: Server) -> None:
    expected = Vector(scene.repository).expected
    scene.restore("--to", "latest")
    assert freeze.content(target) == expected["0002"]


def test_it_restores_the_timeline_before(scene: Scene, target: Server) -> None:
    end = max(one["end"] for one in scene.ok("list")["windows"] if one["timeline"] == "0001")
    scene.restore("--to", end)
    assert freeze.content(target) == Vector(scene.repository).expected["0001"]


# -- evolution


def rewritten(vector: Vector, change: Any) -> str:
    """The first set of the vector, changed and signed anew; its key."""
    (path,) = vector.files("timelines/0001/sets/")
    document = json.loads(path.read_bytes().split(b"\n")[4])
    change(document)
    line = canonical.dumps(document) + b"\n"
    head = codec.decode(manifest.Head, document["head"], what="it")
    signature = sign.sign(line, vector.signing_key, trusted_comment=objects.trusted_comment(head))
    path.write_bytes(signature.encode() + line)
    return vector.key_of(path)


def test_a_manifest_that_requires_an_unknown_feature_is_refused_by_name(tmp_path: Path, scene: Scene) -> None:
    vector = Vector(scene.repository)
    key = rewritten(vector, lambda document: document["head"].update(requires=["rows-by-telepathy"]))
    with pytest.raises(errors.RepositoryError, match="rows-by-telepathy, which this version does not know") as told:
        vector.repository().read(key, manifest.BackupSet)
    assert "newer kpbackup" in told.value.hint
    assert "rows-by-telepathy" in scene.refused(16, "list")


def test_another_format_is_refused(tmp_path: Path) -> None:
    vector = Vector.thawed(tmp_path / "r")
    key = rewritten(vector, lambda document: document["head"].update(format=2))
    with pytest.raises(errors.RepositoryError, match="format 2"):
        vector.repository().read(key, manifest.BackupSet)


def test_unknown_optional_fields_are_ignored(tmp_path: Path) -> None:
    vector = Vector.thawed(tmp_path / "r")
    before = catalog.read_catalog(vector.repository()).histories[0].sets

    def add(document: dict[str, Any]) -> None:
        document["weather"] = {"rain": True}
        document["totals"]["triggers"] = 3
        document["head"]["mood"] = "good"

    rewritten(vector, add)
    assert catalog.read_catalog(vector.repository()).histories[0].sets == before
    assert check.check(vector.repository(), read_percent=100, identities=vector.identities).problems == ()
    assert replace(before[0]) == before[0]
