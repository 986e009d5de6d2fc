"""What goes wrong around kpbackup: one clear message, a hint, the documented exit code, and nothing that looks whole but is not.

The repositories are directories, so that a stored object can be cut, flipped, swapped and taken away like any file.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from kpbackup.pipeline import encrypt, sign
from tests.integration import scenario
from tests.integration.scenario import Scene
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.s3 import READER, S3Server

INCREMENTAL = ("backup", "incremental")
FULL = ("backup", "full")
LATEST = ("restore", "database", "--to", "latest", "--yes")


@dataclass
class Place:
    """A source with a backed-up database, an empty target, and the whole repository to damage copies of."""

    scene: Scene
    source: Server
    target: Server


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One set of three objects, then three segments of two runs, the first two of one run."""
    directory = tmp_path_factory.mktemp("bad")
    with (
        mariadb_server(directory / "source", server_id=21) as source,
        mariadb_server(directory / "target", server_id=22) as target,
    ):
        scene = Scene(directory / "scene", source=source, target=target)
        source.execute(
            "CREATE DATABASE shop", "USE shop", "CREATE TABLE t (i INT PRIMARY KEY, v VARCHAR(99))",
            "INSERT INTO shop.t SELECT seq, CONCAT('row ', seq) FROM seq_1_to_500", "CREATE VIEW shop.v AS SELECT * FROM shop.t",
        )
        scene.ok("init", "--keys", str(scene.keys))
        scene.ok(*FULL)
        source.execute("INSERT INTO shop.t VALUES (1001, 'after')", "FLUSH BINARY LOGS", "DELETE FROM shop.t WHERE i < 9")
        scene.ok(*INCREMENTAL)
        source.execute("INSERT INTO shop.t VALUES (1002, 'later')")
        scene.ok(*INCREMENTAL)
        yield Place(scene, source, target)


@pytest.fixture
def copy(place: Place, tmp_path: Path) -> Scene:
    """The place's scene on a copy of its repository and keys, to be damaged; the target is empty."""
    scenario.wipe(place.target)
    scene = Scene(tmp_path / "copy", source=place.source, target=place.target)
    shutil.copytree(place.scene.repository, scene.repository)
    shutil.copytree(place.scene.keys, scene.keys)
    scene.release_leases()
    return scene


@pytest.fixture
def changed(copy: Scene) -> Callable[..., Scene]:
    """The copy with settings changed: `changed("source.port", 1)`."""

    def change(path: str, value: Any) -> Scene:
        group: dict[str, Any] = copy.settings
        *above, last = path.split(".")
        for name in above:
            group = group.setdefault(name, {})
        group[last] = value
        return copy

    return change


# Servers


@pytest.mark.parametrize("words", [FULL, INCREMENTAL])
def test_unreachable_source(changed: Callable[..., Scene], words: tuple[str, ...]) -> None:
    assert "127.0.0.1:1" in changed("source.port", 1).refused(12, *words)


def test_unreachable_target(changed: Callable[..., Scene]) -> None:
    assert "127.0.0.1:1" in changed("recovery.target.port", 1).refused(12, *LATEST)


def test_wrong_password(place: Place, copy: Scene) -> None:
    place.source.execute("CREATE OR REPLACE USER locked@'%' IDENTIFIED BY 'right'")
    copy.settings["source"]["user"] = "locked"
    copy.environ["KPBACKUP_SOURCE__PASSWORD"] = "wrong-secret"
    assert "wrong-secret" not in copy.refused(12, *FULL)


@pytest.mark.parametrize(
    ("option", "named"), [("--skip-log-bin", "binlog is off"), ("--binlog-format=STATEMENT", "binlog_format is STATEMENT")]
)
def test_unfit_source(copy: Scene, tmp_path: Path, option: str, named: str) -> None:
    with mariadb_server(tmp_path / "unfit", server_id=23, options=(option,)) as unfit:
        copy.settings["source"] |= scenario.login(unfit)
        for words in (FULL, INCREMENTAL):
            assert named in copy.refused(14, *words)


def test_purged_binlog(tmp_path: Path) -> None:
    with mariadb_server(tmp_path / "source", server_id=24) as source:
        scene = Scene(tmp_path / "scene", source=source)
        source.execute("CREATE DATABASE shop", "CREATE TABLE shop.t (i INT)")
        scene.ok("init", "--keys", str(scene.keys))
        scene.ok(*FULL)
        source.execute("INSERT INTO shop.t VALUES (1)", "FLUSH BINARY LOGS", "FLUSH BINARY LOGS")
        source.purge_binlogs(before=scenario.position(source).partition(":")[0])
        before = scene.manifests()
        said = scene.refused(24, *INCREMENTAL)
        assert "purged binlog.000001" in said
        assert scene.manifests() == before
        assert scene.ok(*FULL)["set"] == "0002-1"


ENOUGH = ("SELECT", "SHOW VIEW", "TRIGGER", "EVENT", "REPLICATION SLAVE", "BINLOG MONITOR", "RELOAD", "LOCK TABLES")


@pytest.mark.parametrize("missing", ["SHOW VIEW", "TRIGGER", "EVENT", "REPLICATION SLAVE", "BINLOG MONITOR"])
def test_missing_privilege_on_the_source(place: Place, copy: Scene, missing: str) -> None:
    granted = ", ".join(name for name in ENOUGH if name != missing)
    place.source.execute("CREATE OR REPLACE USER weak@'%'", f"GRANT {granted} ON *.* TO weak@'%'")
    copy.settings["source"]["user"] = "weak"
    said = copy.refused(13, *FULL)
    assert {"BINLOG MONITOR": "REPLICATION CLIENT"}.get(missing, missing) in said or missing in said
    assert "GRANT" in said


def test_enough_privileges_are_enough(place: Place, copy: Scene) -> None:
    place.source.execute("CREATE OR REPLACE USER able@'%'", f"GRANT {', '.join(ENOUGH)} ON *.* TO able@'%'")
    copy.settings["source"]["user"] = "able"
    copy.ok(*FULL)
    copy.ok(*INCREMENTAL)


def test_missing_privilege_on_the_target(place: Place, copy: Scene) -> None:
    place.target.execute("CREATE OR REPLACE USER weak@'%'", "GRANT SELECT, INSERT, CREATE ON *.* TO weak@'%'")
    copy.settings["recovery"]["target"]["user"] = "weak"
    said = copy.refused(23, *LATEST)
    assert "missing privilege" in said
    place.target.execute("CREATE OR REPLACE USER weak@'%'", "GRANT ALL ON *.* TO weak@'%'")
    place.target.execute("REVOKE BINLOG ADMIN, REPLICATION SLAVE ADMIN, SUPER ON *.* FROM weak@'%'")
    assert "REPLICATION SLAVE ADMIN" in copy.refused(13, *LATEST)
    assert scenario.databases(place.target) == []


# Keys


def test_missing_identity(changed: Callable[..., Scene]) -> None:
    assert "encryption.identity_file" in changed("encryption.identity_file", None).refused(11, *LATEST)


def test_identity_file_that_is_not_there(changed: Callable[..., Scene]) -> None:
    assert "nowhere.txt" in changed("encryption.identity_file", "/nowhere.txt").refused(18, *LATEST)


def test_wrong_identity(copy: Scene) -> None:
    (copy.keys / "identity.txt").write_text(encrypt.Identity.generate().reveal() + "\n")
    assert "identity" in copy.refused(18, *LATEST)


def test_missing_signing_public_key(copy: Scene) -> None:
    copy.settings["signing"] = {}
    assert "signing.public_keys" in copy.refused(11, *LATEST)


def test_missing_signing_key(copy: Scene) -> None:
    copy.settings["signing"].pop("key_file")
    assert "signing.key_file" in copy.refused(11, *FULL)


@pytest.mark.parametrize("words", [FULL, INCREMENTAL, LATEST])
def test_foreign_signing_key(copy: Scene, words: tuple[str, ...]) -> None:
    """A repository of somebody else is not believed, and not written to."""
    foreign = sign.SigningKey.generate()
    (copy.keys / "signing.key").write_text(foreign.reveal())
    (copy.keys / "signing.pub").write_text(f"untrusted comment: x\n{foreign.public_key}\n")
    before = copy.manifests()
    copy.refused(18, *words)
    assert copy.manifests() == before


def test_a_signing_key_nobody_else_would_believe(copy: Scene) -> None:
    """Public keys name the old key alone: what is written with another one could be restored by nobody."""
    (copy.keys / "signing.key").write_text(sign.SigningKey.generate().reveal())
    before = copy.manifests()
    assert "signing" in copy.refused(18, *FULL)
    assert copy.manifests() == before


# Store and settings


def test_wrong_bucket_and_read_only_keys(place: Place, s3: S3Server, tmp_path: Path) -> None:
    bucket = s3.create_bucket("kpb-bad-input")
    scene = Scene(
        tmp_path / "s3", url=f"s3://{bucket}/x", endpoint_url=s3.endpoint_url, environ=s3.environ(),
        source=place.source, target=place.target,
    )
    scene.ok("init", "--keys", str(scene.keys))
    scene.ok(*FULL)
    reader = Scene(tmp_path / "s3", url=f"s3://{bucket}/x", endpoint_url=s3.endpoint_url, environ=READER.environ())
    reader.settings = scene.settings
    for words in (FULL, INCREMENTAL, ("init", "--keys", str(tmp_path / "other"))):
        assert bucket in reader.refused(15, *words)
    scene.settings["repository"] = {**scene.settings["repository"], "url": f"s3://{bucket}-not-there/x"}
    for command in (FULL, INCREMENTAL, LATEST):
        assert f"{bucket}-not-there" in scene.refused(15, *command)
    scene.settings["repository"]["url"] = f"s3://{bucket}/another"
    assert "no kpbackup repository" in scene.refused(16, *FULL)


def test_init_twice(copy: Scene) -> None:
    before = (copy.repository / "kpbackup.json").read_bytes()
    assert "already" in copy.refused(16, "init", "--keys", str(copy.keys))
    assert (copy.repository / "kpbackup.json").read_bytes() == before


def test_unknown_setting(changed: Callable[..., Scene]) -> None:
    assert "retention.dayz" in changed("retention", {"dayz": 3}).refused(11, *FULL)


@pytest.mark.parametrize("text", ["yesterday-ish", "2024-13-45T00:00", "", "10:61"])
def test_nonsense_to(copy: Scene, text: str) -> None:
    copy.refused(10, "restore", "--to", text, "--yes")


@pytest.mark.parametrize(
    "words",
    [
        ("--to-gtid", "nonsense"), ("--to-position", "binlog.000001"), ("--to-position", "binlog.000001:x"), (),
        ("--to", "latest", "--to-gtid", "1-1-1"), ("--resume", "nothing-of-this-name"), ("--resume", "x", "--to", "latest"),
    ],
)
def test_nonsense_targets(copy: Scene, words: tuple[str, ...]) -> None:
    copy.refused(10, "restore", *words, "--yes")


def test_a_position_inside_a_transaction(place: Place, copy: Scene) -> None:
    newest = scenario.rows(place.source, "SHOW BINLOG EVENTS IN 'binlog.000002'")
    inside = next(row[1] for row in newest if row[2].startswith("Delete_rows"))
    assert "inside a transaction" in copy.refused(22, "restore", "database", "--yes", "--to-position", f"binlog.000002:{inside}")


# Damaged objects


def _flip(path: Path, at: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 0x10
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def _segments(scene: Scene) -> list[Path]:
    return [scene.repository / key for key in scene.manifests() if "/segments/" in key]


def _of_set(scene: Scene, name: str) -> Path:
    return next(path for path in sorted((scene.repository / "data").rglob("*")) if path.is_file() and name in path.name)


def _set(scene: Scene) -> Path:
    return scene.repository / next(key for key in scene.manifests() if "/sets/" in key)


OBJECTS: dict[str, Callable[[Scene], Path]] = {
    "data": lambda scene: _of_set(scene, "0000"),
    "inventory": lambda scene: _of_set(scene, "inventory"),
    "set": _set,
    "first segment": lambda scene: _segments(scene)[0],
    "middle segment": lambda scene: _segments(scene)[1],
    "last segment": lambda scene: _segments(scene)[-1],
}


def _refused_with_the_name(place: Place, scene: Scene, path: Path, codes: tuple[int, ...]) -> None:
    ended = scene.run(*LATEST)
    assert ended.code in codes, ended.err
    scenario.assert_clear(ended.err)
    name = path.name.lstrip("0")
    assert str(path.relative_to(scene.repository)) in ended.err or f"segments {name} to" in ended.err, ended.err
    left = scenario.databases(place.target)
    assert left == [] or "kpbackup_restore" in left  # the sign that it is not whole


@pytest.mark.parametrize("what", list(OBJECTS))
@pytest.mark.parametrize("how", ["flipped", "flipped at the start", "flipped at the end", "truncated"])
def test_damaged_object(place: Place, copy: Scene, what: str, how: str) -> None:
    path = OBJECTS[what](copy)
    # byte 100 is in the signature of a manifest (the line before it is signed by nobody), in the age header of the others
    damage = {"flipped": _flip, "flipped at the start": lambda it: _flip(it, 100), "flipped at the end": lambda it: _flip(it, -3)}
    damage.get(how, _cut)(path)
    _refused_with_the_name(place, copy, path, (17, 18))


@pytest.mark.parametrize("what", ["data", "inventory", "first segment", "middle segment"])
def test_missing_object(place: Place, copy: Scene, what: str) -> None:
    path = OBJECTS[what](copy)
    path.unlink()
    _refused_with_the_name(place, copy, path, (15, 22))


def test_missing_newest_segment_that_an_observation_saw(place: Place, copy: Scene) -> None:
    copy.ok(*INCREMENTAL)  # nothing new, or what other tests wrote
    copy.ok(*INCREMENTAL)
    path = _segments(copy)[-1]
    path.unlink()
    _refused_with_the_name(place, copy, path, (22,))


@pytest.mark.parametrize(("one", "other"), [("first segment", "last segment"), ("data", "inventory")])
def test_swapped_objects(copy: Scene, one: str, other: str) -> None:
    first, second = OBJECTS[one](copy), OBJECTS[other](copy)
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    ended = copy.run(*LATEST)
    assert ended.code == 17, ended.err
    scenario.assert_clear(ended.err)
    assert any(str(path.relative_to(copy.repository)) in ended.err for path in (first, second)), ended.err


def test_swapped_payloads(place: Place, copy: Scene) -> None:
    """Manifests in their places, the sealed bytes behind them exchanged."""
    first, last = _segments(copy)[0], _segments(copy)[-1]
    heads, payloads = zip(*(_split(path.read_bytes()) for path in (first, last)), strict=True)
    first.write_bytes(heads[0] + payloads[1])
    last.write_bytes(heads[1] + payloads[0])
    _refused_with_the_name(place, copy, last, (17,))


def _split(data: bytes) -> tuple[bytes, bytes]:
    lines = data.split(b"\n", 5)
    head = b"\n".join(lines[:5]) + b"\n"
    return head, data[len(head) :]


def test_a_damaged_end_starts_a_new_timeline(place: Place, copy: Scene) -> None:
    path = _segments(copy)[-1]
    _flip(path, 100)
    place.source.execute("INSERT INTO shop.t VALUES (5001, 'behind the damage')")
    assert str(path.relative_to(copy.repository)) in copy.refused(24, *INCREMENTAL)
    assert copy.ok(*FULL)["set"] == "0002-1"
    copy.restore("--to", "latest")
    assert scenario.truth(place.target) == scenario.truth(place.source)


# Full disk


@contextmanager
def _small_disk(directory: Path, size_mib: int) -> Iterator[Path]:
    directory.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(directory)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a small file system needs the right to mount: {made.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def _write_noise(source: Server, mib: int) -> None:
    source.execute("CREATE TABLE IF NOT EXISTS shop.noise (v LONGBLOB)")
    for _ in range(mib):
        noise = "SELECT GROUP_CONCAT(UNHEX(SHA2(RAND(), 512)) SEPARATOR '') FROM seq_1_to_16384"
        source.execute("USE shop", f"INSERT INTO noise {noise}")


def test_full_disk(tmp_path: Path) -> None:
    options = ("--group-concat-max-len=16777216", "--max-allowed-packet=64M")
    with mariadb_server(tmp_path / "source", server_id=25, options=options) as source, _small_disk(tmp_path / "disk", 8) as disk:
        source.execute("CREATE DATABASE shop", "CREATE TABLE shop.t (i INT)")
        scene = Scene(tmp_path / "scene", source=source)
        scene.repository = disk / "repository"
        scene.settings["repository"]["url"] = f"file://{scene.repository}"
        scene.ok("init", "--keys", str(scene.keys))
        scene.ok(*FULL)
        _write_noise(source, 12)
        before = scene.manifests()
        for words in (FULL, INCREMENTAL):
            said = scene.run(*words)
            assert said.code in (15, 27), said.err
            scenario.assert_clear(said.err)
            assert "No space left" in said.err
            assert scene.manifests() == before
            scene.release_leases()


def test_full_spool(tmp_path: Path) -> None:
    options = ("--group-concat-max-len=16777216", "--max-allowed-packet=64M")
    with mariadb_server(tmp_path / "source", server_id=26, options=options) as source, _small_disk(tmp_path / "disk", 3) as disk:
        source.execute("CREATE DATABASE shop", "CREATE TABLE shop.t (i INT)")
        scene = Scene(tmp_path / "scene", source=source)
        scene.ok("init", "--keys", str(scene.keys))
        scene.ok(*FULL)
        _write_noise(source, 10)
        before = scene.manifests()
        scene.environ["TMPDIR"] = str(disk)
        assert str(disk) in scene.refused(27, *INCREMENTAL)
        assert scene.manifests() == before
        del scene.environ["TMPDIR"]
        scene.ok(*INCREMENTAL)


# Ctrl-C


def _interrupt(scene: Scene, when: Callable[[], bool], *words: str, may_be_late: bool = False) -> str:
    """Sends SIGINT to kpbackup once `when()`; what it said. It must have been at work then, or, with `may_be_late`, have ended
    well before it: then ''."""
    process = scene.start(*words)
    while not when() and process.poll() is None:
        time.sleep(0.01)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=180)
    if may_be_late and process.returncode == 0:
        return ""
    assert process.returncode == 130, err
    assert "Traceback" not in err, err
    assert "interrupted" in err
    return err


@pytest.fixture
def large(tmp_path: Path, mariadb_pair: tuple[Server, Server]) -> tuple[Scene, Server, Server]:
    """Enough rows and binlog that a signal finds kpbackup at work."""
    source, target = mariadb_pair
    source.execute(
        "CREATE DATABASE shop", "USE shop", "CREATE TABLE t (i INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(200), KEY (v))",
        "INSERT INTO shop.t (v) SELECT CONCAT(SHA2(seq, 512), SHA2(-seq, 256)) FROM seq_1_to_20000",
    )
    scene = Scene(tmp_path / "scene", source=source, target=target)
    scene.ok("init", "--keys", str(scene.keys))
    return scene, source, target


def test_ctrl_c(large: tuple[Scene, Server, Server]) -> None:
    scene, source, target = large
    scene.settings["source"]["bandwidth_limit"] = "64KiB"  # it cannot end before the signal
    writing = scene.repository / ".kpbackup-tmp"  # an object on its way into the store
    _interrupt(scene, lambda: any(writing.glob("?" * 32)), *FULL)
    del scene.settings["source"]["bandwidth_limit"]
    assert not [key for key in scene.manifests() if "/sets/" in key]
    scene.ok(*FULL)  # at once: the lease was given back
    assert any(_interrupted_pass(scene, source, updates) for updates in (2, 4, 8, 16)), "every signal came too late"
    scene.ok(*INCREMENTAL)
    with target.connect() as holder:  # no row gets into the table: the load cannot end before the signal

        def holds() -> bool:
            if not scenario.is_there(target, "shop", "t"):
                return False
            holder.execute("START TRANSACTION")
            return holder.rows("SELECT i FROM shop.t FOR UPDATE") == []

        said = _interrupt(scene, holds, *LATEST)
    run = said.partition("--resume ")[2].split("`")[0]
    assert run, said
    scene.ok("restore", "--resume", run)
    assert scenario.truth(target) == scenario.truth(source)


def _interrupted_pass(scene: Scene, source: Server, updates: int) -> bool:
    """A pass over so many megabytes and more that gets a signal once it stores something; False when it had ended before."""
    update = "UPDATE shop.t SET v = REVERSE(CONCAT('x', LEFT(v, 190)))"
    source.execute(*[update, "FLUSH BINARY LOGS"] * updates)
    keys = len(list((scene.repository / "keys").iterdir()))

    def is_storing() -> bool:
        return len(list((scene.repository / "keys").iterdir())) > keys

    return bool(_interrupt(scene, is_storing, *INCREMENTAL, may_be_late=True))


def test_settings_are_what_the_scene_says(copy: Scene) -> None:
    """The tests above would prove nothing if an unchanged scene were refused."""
    copy.restore("--to", "latest")
    assert yaml.safe_load(Path(copy.argv("version")[4]).read_text()) == copy.settings
