"""Keys in the hands of a user: passphrase, rotation of recipients and of the signing key, canaries, a lost key, a stolen one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from kpbackup import config
from kpbackup.pipeline import sign
from kpbackup.repository import catalog as catalogs
from kpbackup.repository import objects
from kpbackup.service import opening
from tests.integration import scenario
from tests.integration.scenario import Scene
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server

PASSPHRASE = "correct horse battery staple"
Pair = tuple[Server, Server]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A source with a table of its own for each test to write to, and a target."""
    directory = tmp_path_factory.mktemp("keys")
    with (
        mariadb_server(directory / "source", server_id=201) as source,
        mariadb_server(directory / "target", server_id=202) as target,
    ):
        source.execute("CREATE DATABASE shop", "CREATE TABLE shop.notes (id INT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(100))")
        yield source, target


@pytest.fixture
def scene(tmp_path: Path, pair: Pair) -> Scene:
    source, target = pair
    scenario.wipe(target)
    return Scene(tmp_path / "scene", source=source, target=target)


def note(pair: Pair, text: str) -> None:
    pair[0].execute(f"INSERT INTO shop.notes (note) VALUES ('{text}')")


def restored(scene: Scene, pair: Pair) -> None:
    """A restore to the newest point brings back what the source holds."""
    scenario.wipe(pair[1])
    scene.restore("--to", "latest")
    assert scenario.truth(pair[1]) == scenario.truth(pair[0])


def back_up(scene: Scene, pair: Pair, text: str) -> None:
    scene.ok("backup", "full")
    note(pair, text)
    scene.ok("backup", "incremental")


# -- a passphrase instead of a key file


def test_a_passphrase_and_the_bucket_are_all_a_restore_needs(scene: Scene, pair: Pair, tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text(PASSPHRASE + "\n", encoding="utf-8")
    secret.chmod(0o600)
    scene.settings["encryption"] = {"passphrase_file": str(secret)}
    made = scene.ok("init", "--keys", str(scene.keys))
    assert made["identity_file"].endswith("identity.age") and not (scene.keys / "identity.txt").exists()
    # the machine that makes backups knows the recipient alone
    scene.settings["encryption"] = {"recipients": made["recipients"]}
    back_up(scene, pair, "sealed by a recipient")
    scene.settings["encryption"] = {"passphrase_file": str(secret)}
    restored(scene.for_restore(), pair)
    scene.settings["encryption"] = {"identity_file": made["identity_file"], "passphrase_file": str(secret)}
    assert scene.ok("check", "--all")["opened"] is True
    secret.write_text("wrong horse battery staple", encoding="utf-8")
    assert "passphrase is wrong" in scene.refused(18, "check")
    scene.settings["encryption"] = {"identity_file": made["identity_file"]}
    assert "encryption.passphrase_file is not set" in scene.refused(11, "check")
    assert PASSPHRASE.encode() not in b"".join(path.read_bytes() for path in scene.repository.rglob("*") if path.is_file())


def test_a_short_passphrase_is_refused_before_anything_is_written(scene: Scene, tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("short", encoding="utf-8")
    scene.settings["encryption"] = {"passphrase_file": str(secret)}
    assert "has 5 characters" in scene.refused(18, "init", "--keys", str(scene.keys))
    assert not scene.repository.exists() or not (scene.repository / "kpbackup.json").exists()


# -- rotation of recipients


def test_a_recipient_is_rotated_without_uploading_data(scene: Scene, pair: Pair, tmp_path: Path) -> None:
    scene.ok("init", "--keys", str(scene.keys))
    back_up(scene, pair, "before the rotation")
    old = (scene.keys / "recipients.txt").read_text(encoding="utf-8").strip()
    data = {path: path.read_bytes() for path in (scene.repository / "data").rglob("*") if path.is_file()}

    fresh = tmp_path / "new-identity.txt"
    added = scene.ok("keys", "add", "--new-identity", str(fresh))
    assert added["added"] in added["recipients"] and len(added["recipients"]) == 2 and fresh.stat().st_mode & 0o077 == 0
    assert "is a recipient already" in scene.refused(10, "keys", "add", old)
    both = tmp_path / "both.txt"
    both.write_bytes((scene.keys / "identity.txt").read_bytes() + fresh.read_bytes())
    scene.settings["encryption"]["identity_file"] = str(both)
    scene.ok("keys", "remove", old)
    assert scene.ok("keys", "rewrap")["written"] == 2
    assert scene.ok("keys", "rewrap") == {"written": 0, "current": 2, "unopened": []}
    note(pair, "after the rotation")
    scene.ok("backup", "incremental")
    assert {path: path.read_bytes() for path in data} == data

    scene.settings["encryption"]["identity_file"] = str(fresh)
    restored(scene.for_restore(), pair)
    listed = scene.ok("keys", "list")
    assert [one["recipient"] for one in listed["recipients"]] == [added["added"]]
    assert listed["data_keys"] == [{"recipients": 1, "data_keys": 3}]
    # removing is not revoking: the old identity still opens the old key objects, and nothing newer
    scene.settings["encryption"]["identity_file"] = str(scene.keys / "identity.txt")
    assert "no identity given opens" in scene.refused(18, "restore", "database", "--to", "latest", "--dry-run")
    assert "last recipient" in scene.refused(10, "keys", "remove", added["added"])


def test_a_rewrap_that_could_lock_everybody_out_is_refused(scene: Scene, pair: Pair, tmp_path: Path) -> None:
    scene.ok("init", "--keys", str(scene.keys))
    back_up(scene, pair, "kept")
    stranger = tmp_path / "stranger.txt"
    added = scene.ok("keys", "add", "--new-identity", str(stranger))
    scene.ok("keys", "remove", next(one for one in added["recipients"] if one != added["added"]))
    assert "none of the identities given belongs to a recipient" in scene.refused(18, "keys", "rewrap")
    assert len(list((scene.repository / "keys").rglob("*.age"))) == 2


def test_a_lost_key(scene: Scene, pair: Pair, tmp_path: Path) -> None:
    """With the other recipient's identity nothing is lost; with a stranger's the error says what to do."""
    scene.ok("init", "--keys", str(scene.keys))
    second = tmp_path / "second.txt"
    scene.ok("keys", "add", "--new-identity", str(second))
    back_up(scene, pair, "two recipients")
    (scene.keys / "identity.txt").unlink()
    scene.settings["encryption"]["identity_file"] = str(second)
    assert scene.for_restore().ok("check", "--all")["opened"] is True
    other = tmp_path / "other.txt"
    scene.settings["encryption"]["recipients_file"] = str(tmp_path / "elsewhere.txt")
    scene.ok("keys", "add", "--new-identity", str(other))
    scene.settings["encryption"]["identity_file"] = str(other)
    assert "docs/keys.md" in scene.refused(18, "restore", "database", "--to", "latest", "--dry-run")


def test_a_post_quantum_recipient(scene: Scene, pair: Pair, tmp_path: Path) -> None:
    identity = tmp_path / "hybrid.txt"
    scene.settings["encryption"] = {"recipients_file": str(tmp_path / "recipients.txt"), "identity_file": str(identity)}
    assert scene.ok("keys", "add", "--new-identity", str(identity), "--hybrid")["added"].startswith("age1pq1")
    scene.ok("init", "--keys", str(scene.keys))
    back_up(scene, pair, "sealed to a hybrid key")
    restored(scene, pair)
    assert scene.ok("check", "--all")["opened"] is True
    headers = [path.read_bytes()[:200] for path in (scene.repository / "data").rglob("*") if path.is_file()]
    assert headers and all(b"\n-> mlkem768x25519 " in one and b"\n-> X25519 " not in one for one in headers)
    x25519 = "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z"
    assert "mixed" in scene.refused(18, "keys", "add", x25519)


# -- canaries


def test_a_canary_is_opened_where_the_identity_is(scene: Scene, pair: Pair) -> None:
    scene.ok("init", "--keys", str(scene.keys))
    back_up(scene, pair, "canaries")
    reader = scene.for_restore()
    assert "has no canary" in reader.refused(18, "keys", "canary", "--check")
    (made,) = scene.ok("keys", "canary")["canaries"]
    assert scene.ok("keys", "list")["recipients"][0]["proven_at"] is None
    assert reader.ok("keys", "canary", "--check") == {"checked": True, "canaries": [made]}
    assert scene.ok("keys", "list")["recipients"][0]["proven_at"] == made["made_at"]
    scene.settings["objectives"] = {"canary": "1ms"}
    reasons = scene.run("status").out
    assert "has not proven" in reasons and "keys canary --check" in reasons
    scene.settings["objectives"] = {"canary": "1d"}
    assert "has not proven" not in scene.run("status").out


# -- the signing key


def test_the_signing_key_is_rotated_with_overlap_then_retired(scene: Scene, pair: Pair, tmp_path: Path) -> None:
    scene.ok("init", "--keys", str(scene.keys))
    back_up(scene, pair, "signed by the old key")
    old = (scene.keys / "signing.pub").read_text(encoding="utf-8").splitlines()[1]
    new = scene.ok("keys", "signing", str(tmp_path / "new.key"))
    assert "is there already" in scene.refused(10, "keys", "signing", str(tmp_path / "new.key"))

    scene.settings["signing"] = {"key_file": str(tmp_path / "new.key"), "public_keys": [old, new["public_key"]]}
    note(pair, "signed by the new key")
    scene.ok("backup", "incremental")
    assert scene.ok("check", "--all")["intact"] is True
    assert "which is none of the trusted keys" in _only(scene, old).run("check").out

    head = tmp_path / "head.json"
    scene.ok("check", "--write-head", str(head))
    scene.settings["signing"] = {
        "key_file": str(tmp_path / "new.key"), "public_keys": [new["public_key"]],
        "retired": [{"public_key": old, "head_file": str(head)}],
    }
    note(pair, "after the retirement")
    scene.ok("backup", "incremental")
    assert scene.ok("check", "--all")["intact"] is True
    restored(scene, pair)
    scene.settings["signing"]["key_file"] = str(scene.keys / "signing.key")
    assert "is retired" in scene.refused(18, "backup", "incremental")


def _only(scene: Scene, public_key: str) -> Scene:
    other = Scene(scene.directory)
    other.settings = {**scene.settings, "signing": {"public_keys": [public_key]}}
    return other


def test_a_stolen_signing_key_forges_the_future_and_never_the_past(scene: Scene, pair: Pair, tmp_path: Path) -> None:
    """The thief replaces what comes next; the key is cut off at the last number known to be good, and backups go on."""
    scene.settings["repository"]["head_file"] = str(tmp_path / "head.json")
    scene.ok("init", "--keys", str(scene.keys))
    back_up(scene, pair, "before the theft")
    good = json.loads((tmp_path / "head.json").read_text(encoding="utf-8"))
    assert good["logs"] == {"timelines/0001/sets": 1, "timelines/0001/segments": 1}
    known = tmp_path / "known-good.json"
    known.write_text(json.dumps({**good, "logs": {**good["logs"], "timelines": 1}}), encoding="utf-8")
    _forge_next_segment(scene)
    assert scene.ok("list")["archive"][0]["segments"] == 2  # signed by a trusted key: nothing tells it from a true one yet

    old = (scene.keys / "signing.pub").read_text(encoding="utf-8").splitlines()[1]
    new = scene.ok("keys", "signing", str(tmp_path / "new.key"))
    scene.settings["signing"] = {
        "key_file": str(tmp_path / "new.key"), "public_keys": [new["public_key"]],
        "retired": [{"public_key": old, "head_file": str(known)}],
    }
    problems = scene.run("--json", "check")
    assert problems.code == 17 and "trusted up to number 1 of timelines/0001/segments" in problems.out
    note(pair, "after the theft")
    assert "cannot be continued" in scene.refused(24, "backup", "incremental")
    back_up(scene, pair, "on a new timeline")
    assert [one["timeline"] for one in scene.ok("list")["archive"]] == ["0001", "0002"]
    restored(scene, pair)


def _forge_next_segment(scene: Scene) -> None:
    repository = _repository(scene)
    history = catalogs.read_catalog(repository).histories[0]
    seq, key = catalogs.next_place(history, "segments")
    last = history.segments[-1]
    head = dataclasses.replace(last.head, seq=seq, key=key, created_at=datetime.now(UTC))
    forged = dataclasses.replace(last, head=head, link_before=last.link)
    thief = sign.SigningKey.parse((scene.keys / "signing.key").read_text(encoding="utf-8"))
    repository.backend.put_if_absent(key, objects.assemble(forged, thief) + b"x" * forged.payload.bytes)


def _repository(scene: Scene) -> Any:
    path = scene.directory / "own.yaml"
    path.write_text(yaml.safe_dump(scene.settings), encoding="utf-8")
    return opening.reading_repository(config.load(path, {}))


@pytest.mark.parametrize("squatted", ["timelines/0002/timeline", "timelines/0001/segments/{month}/0000000002"])
def test_squatted_numbers_do_not_stop_backups(scene: Scene, pair: Pair, squatted: str) -> None:
    """Whoever may put can take the next number with rubbish: it costs a new timeline, not the backups."""
    scene.ok("init", "--keys", str(scene.keys))
    back_up(scene, pair, "before")
    segment = next(iter((scene.repository / "timelines" / "0001" / "segments").glob("*/*")))
    key = scene.repository / squatted.format(month=segment.parent.name)
    key.parent.mkdir(parents=True, exist_ok=True)
    key.write_bytes(b"rubbish")
    if "0002" in squatted:
        pair[0].execute("RESET MASTER")
    note(pair, "squatted")
    assert "cannot be continued" in scene.refused(24, "backup", "incremental")
    back_up(scene, pair, "after")
    checked = scene.run("--json", "check")
    assert checked.code == 17 and squatted.rpartition("/")[2] in checked.out
    assert len(checked.document["windows"]) == 2
