"""Object Lock, versions, and the three identities, on a real S3 server: what a writer, a pruner and a reader can do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import botocore.exceptions
import pytest

from kpbackup import config
from kpbackup.pipeline import sign
from kpbackup.plan import retention
from kpbackup.repository import binding, catalog, prune
from kpbackup.service import opening
from kpbackup.storage import locks, open_backend
from tests.integration.deployment import until
from tests.integration.scenario import Scene
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.s3 import S3Server

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with mariadb_server(tmp_path_factory.mktemp("lock") / "source", server_id=241) as server:
        server.execute("CREATE DATABASE shop", "CREATE TABLE shop.t (id INT PRIMARY KEY)", "INSERT INTO shop.t VALUES (1)")
        yield server


@pytest.fixture
def locked_bucket(s3: S3Server, s3_bucket: str) -> str:
    """A bucket that was made with Object Lock."""
    return s3.create_bucket(f"{s3_bucket}-lock", object_lock=True)


def scene_on(s3: S3Server, bucket: str, directory: Path, source: Server) -> Scene:
    return Scene(directory, url=f"s3://{bucket}/shop", endpoint_url=s3.endpoint_url, environ=s3.environ(), source=source)


def findings(scene: Scene, *words: str) -> dict[str, str]:
    """What doctor said, and how severe it is."""
    document = scene.run("--json", "doctor", *words).document
    return {one["what"]: one["severity"] for one in document["findings"]}


@pytest.mark.parametrize("mode", ["governance", "compliance"])
def test_what_is_stored_is_locked_until_retention_would_release_it(
    s3: S3Server, locked_bucket: str, tmp_path: Path, source: Server, mode: str
) -> None:
    scene = scene_on(s3, locked_bucket, tmp_path / "scene", source)
    scene.settings["repository"]["lock"] = {"mode": mode}
    scene.settings["retention"] = {"days": 3, "grace_period": "1d"}
    scene.ok("init", "--keys", str(scene.keys))
    scene.ok("backup", "full")
    scene.ok("backup", "incremental")
    client, wanted = s3.client(), datetime.now(UTC) + 4 * DAY
    kinds = set()
    for version in client.list_object_versions(Bucket=locked_bucket)["Versions"]:
        key, where = version["Key"].removeprefix("shop/"), {"Bucket": locked_bucket, "Key": version["Key"]}
        head = client.head_object(**where, VersionId=version["VersionId"])
        kinds.add(key.split("/")[0])
        if key.startswith(("leases/", "probes/")):
            assert "ObjectLockMode" not in head, key
            continue
        assert head["ObjectLockMode"] == mode.upper(), key
        assert abs(head["ObjectLockRetainUntilDate"] - wanted) < timedelta(minutes=10), key
        with pytest.raises(botocore.exceptions.ClientError):
            client.delete_object(**where, VersionId=version["VersionId"])  # the admin itself
    assert {"data", "timelines", "keys", "kpbackup.json", "leases"} <= kinds
    client.close()


def test_prune_knows_what_is_kept_by_lock(s3: S3Server, locked_bucket: str, aws_environment: None) -> None:
    """Left-overs that are due, some locked: those stay, and go when their lock is over."""
    url, key = f"s3://{locked_bucket}/shop", sign.SigningKey.generate()
    repository = binding.create_repository(
        open_backend(url, endpoint_url=s3.endpoint_url), signing_key=key, source="shop", flavour="mariadb",
        created_at=datetime.now(UTC),
    )
    lock = locks.Lock("governance", DAY, ("leases/", "probes/"))
    held = "data/0001/20200101T000000Z-aaaaaa/000000"
    open_backend(url, endpoint_url=s3.endpoint_url, lock=lock).put(held, [b"left over"])
    repository.backend.put("data/0001/20200101T000000Z-bbbbbb/000000", [b"left over"])

    def pruned() -> tuple[int, int]:
        policy = retention.Policy(grace_period=timedelta())
        done = prune.execute(repository, catalog.read_catalog(repository), retention.NOTHING, policy, datetime.now(UTC))
        return done.deleted, done.kept_by_lock

    assert pruned() == (1, 1)
    assert repository.backend.read(held) == b"left over"
    client, over = s3.client(), datetime.now(UTC) + timedelta(seconds=2)
    retention_ = {"Mode": "GOVERNANCE", "RetainUntilDate": over}
    client.put_object_retention(Bucket=locked_bucket, Key=f"shop/{held}", Retention=retention_, BypassGovernanceRetention=True)
    client.close()
    until(lambda: not locks.locked(repository.backend, [held], datetime.now(UTC)), what="the end of the lock")
    assert pruned() == (1, 0)


def test_prune_renews_the_locks_of_what_is_kept_longer(
    s3: S3Server, locked_bucket: str, tmp_path: Path, source: Server, aws_environment: None
) -> None:
    """A set of yesterday whose lock of two days is half over, with the pruner's rights; one that is released is left alone."""
    scene = scene_on(s3, locked_bucket, tmp_path / "scene", source)
    scene.settings["repository"]["lock"] = {"mode": "compliance"}
    scene.settings["retention"] = {"days": 1, "grace_period": "1d"}
    scene.ok("init", "--keys", str(scene.keys))
    scene.ok("backup", "full")
    scene.ok("backup", "full")
    source.execute("INSERT INTO shop.t VALUES (2)")
    scene.ok("backup", "incremental")
    settings, policy = config.load(scene.argv()[4], {}), retention.Policy(days=1, complete_chains=1)
    repository = opening.writing_repository(settings)
    found, store = catalog.read_catalog(repository), repository.backend
    released, kept = found.histories[0].sets
    plan = retention.PrunePlan((), (released,), ())
    later = datetime.now(UTC) + 1.5 * DAY
    assert isinstance(store, locks.LockingBackend)
    assert prune.execute(repository, found, retention.NOTHING, policy, datetime.now(UTC)).renewed_locks == 0, "all are new"

    for name, value in s3.pruner.environ().items():
        os.environ[name] = value  # put back by aws_environment
    pruner = opening.writing_repository(settings)
    done = prune.execute(pruner, catalog.read_catalog(pruner), plan, policy, later)
    own = [kept.head.key, kept.inventory.key, *(one.key for one in (*kept.objects, *kept.definitions)), "kpbackup.json"]
    own += [info.key for info in store.list(f"keys/{kept.sealing.key_id}/")]
    own += [info.key for one in found.histories[0].segments for info in store.list(f"keys/{one.sealing.key_id}/")]
    own += [one.head.key for one in found.histories[0].segments]
    for key in own:
        assert abs((store.locked_until(key) or later) - later - 2 * DAY) < timedelta(minutes=10), key
    assert done.renewed_locks >= len(own)
    for key in (released.inventory.key, *(info.key for info in store.list(f"keys/{released.sealing.key_id}/"))):
        assert (store.locked_until(key) or later) < later + DAY, key
    again = prune.execute(pruner, catalog.read_catalog(pruner), retention.NOTHING, policy, later)
    assert again.renewed_locks == 0


def test_the_three_identities(s3: S3Server, s3_bucket: str, tmp_path: Path, source: Server) -> None:
    """What docs/security.md grants is enough for the work of each, and not for another's."""
    scene = scene_on(s3, s3_bucket, tmp_path / "scene", source)
    scene.environ = s3.writer.environ()
    scene.ok("init", "--keys", str(scene.keys))
    for words in (("backup", "full"), ("backup", "incremental"), ("keys", "canary"), ("pin", "0001-1"), ("check",)):
        scene.ok(*words)
    scene.ok("backup", "full")
    scene.settings["retention"] = {"days": 1, "complete_chains": 1, "grace_period": "0s"}
    scene.ok("unpin", "0001-1")
    client = s3.client(s3.writer)
    (probe, *_) = client.list_objects_v2(Bucket=s3_bucket, Prefix="shop/timelines/")["Contents"]
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
        client.delete_object(Bucket=s3_bucket, Key=probe["Key"])
    client.close()
    scene.environ = s3.pruner.environ()
    scene.ok("prune")
    scene.environ = s3.reader.environ()
    reader = scene.for_restore()
    assert reader.ok("check", "--all")["opened"] is True and reader.ok("list")["sets"]
    assert "access denied" in scene.refused(15, "backup", "full").lower()


def test_the_writer_as_an_attacker(s3: S3Server, s3_bucket: str, locked_bucket: str, tmp_path: Path, source: Server) -> None:
    scene = scene_on(s3, s3_bucket, tmp_path / "plain", source)
    scene.ok("init", "--keys", str(scene.keys))
    scene.ok("backup", "full")
    admin = findings(scene, "--as-attacker")
    assert admin["could decrypt the newest backup with the identity that lies here"] == "error"
    assert admin["could delete a probe for good"] == admin["could overwrite a probe for good"] == "error"
    scene.environ = s3.writer.environ()
    del scene.settings["encryption"]["identity_file"]
    writer = findings(scene, "--as-attacker")
    assert writer["could not decrypt the newest backup: no identity lies here"] == "ok"
    assert writer["could not delete a probe"] == "ok"
    assert writer["could overwrite a probe for good"] == "error", "only versions or locks keep a writer from that"

    locked = scene_on(s3, locked_bucket, tmp_path / "locked", source)
    locked.ok("init", "--keys", str(locked.keys))
    locked.ok("backup", "full")
    locked.environ = s3.writer.environ()
    del locked.settings["encryption"]["identity_file"]
    ended = locked.run("--json", "doctor", "--as-attacker")
    found = {one["what"]: one["severity"] for one in ended.document["findings"]}
    assert ended.code == 0, found
    assert found["could overwrite a probe, but the store keeps the version before"] == "ok"
    assert found["could not delete a locked probe"] == found["could not lift the governance lock of a probe"] == "ok"
