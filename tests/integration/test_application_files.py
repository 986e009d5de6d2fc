"""Files beside the database: what comes back, what moves while it is read, and that nothing is written anywhere else."""

from __future__ import annotations

import hashlib
import json
import os
import random
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from kpbackup import errors
from kpbackup.backup import files as kept
from kpbackup.backup import writing
from kpbackup.model.application import Bundle
from kpbackup.model.manifest import ApplicationManifest, FileSet
from kpbackup.mysql.server import Endpoint
from kpbackup.pipeline import stream
from kpbackup.plan.retention import NOTHING, Policy
from kpbackup.plan.timeline import Target
from kpbackup.recovery import files
from kpbackup.recovery.steps import RecoveryRequest
from kpbackup.repository import applications, binding, check, copy, keys, prune
from kpbackup.repository import catalog as catalogs
from kpbackup.repository.binding import Repository
from kpbackup.storage import open_backend
from tests.crash.test_ordering import IDENTITY, SIGNING_KEY

NOW = datetime(2026, 5, 1, tzinfo=UTC)
ROOT_NAME = "recordings"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    backend = open_backend((tmp_path / "repository").as_uri())
    return binding.create_repository(backend, signing_key=SIGNING_KEY, source="db", flavour="mariadb", created_at=NOW)


def bundle(repository: Repository, *roots: Path) -> ApplicationManifest:
    stored = kept.store(repository, [str(root) for root in roots], [IDENTITY.recipient], datetime.now(UTC))
    empty = Bundle(NOW, "cluster", "v1", "shop", "shop", "", None, ())
    return applications.store(repository, empty, [IDENTITY.recipient], stored)


def restored(repository: Repository, found: ApplicationManifest, directory: Path) -> tuple[dict[str, str], list[str]]:
    told: list[str] = []
    request = RecoveryRequest(repository, Endpoint("nowhere"), Target(latest=True), [IDENTITY], warn=told.append)
    return files.restore(request, found, str(directory)), told


def picture(root: Path) -> dict[str, tuple[Any, ...]]:
    """Everything below a folder: content, mode and time of files, targets of links."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_file():
            status = path.stat()
            found[name] = (hashlib.sha256(path.read_bytes()).hexdigest(), status.st_mode & 0o777, int(status.st_mtime))
    return found


def filled(root: Path) -> Path:
    dice = random.Random(7)
    for number, size in enumerate((0, 1, 511, 512, 513, 3 << 20)):
        path = root / f"day-{number % 2}" / f"录像 {number}.cast"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dice.randbytes(size))
        path.chmod(0o640)
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
    (root / os.fsdecode(b"latin-\xe9")).write_bytes(b"a name that is not UTF-8")
    (root / "newest").symlink_to("day-1/none")
    (root / "day-0" / "folder").symlink_to("../day-1")
    return root


def test_what_was_kept_comes_back(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several packs, twice over, sealed; a link that leads out and a pipe do not."""
    monkeypatch.setattr(kept, "PACK_FILES", 4)
    root = filled(tmp_path / ROOT_NAME)
    (root / "away").symlink_to("/etc/passwd")
    os.mkfifo(root / "pipe")
    found = bundle(repository, root)
    assert found.files is not None and found.files.count == 10 and found.files.warnings == 1 and len(found.files.objects) == 3
    assert found.head.requires == ("files",)
    out = tmp_path / "out"
    figures, told = restored(repository, found, out)
    assert figures["files_restored"] == "7" and figures["links_left_out"] == "1" and "leads out of the restored files" in told[0]
    (root / "away").unlink()
    there = out / str(root).lstrip("/")
    assert picture(there) == picture(root)
    (there / "newest").unlink()
    (there / "day-0" / "录像 0.cast").write_text("something else")
    restored(repository, found, out)
    assert picture(there) == picture(root)
    assert not [path for path in out.rglob(f"{files.UNFINISHED}*")]
    raw = b"".join(path.read_bytes() for path in (tmp_path / "repository").rglob("*") if path.is_file())
    assert "录像".encode() not in raw and b"newest" not in raw
    report = check.check(repository, read_percent=100, identities=[IDENTITY])
    assert report.problems == () and report.objects == 3
    copy.copy(repository, open_backend((tmp_path / "copy").as_uri()), holder="copier")
    second = binding.open_repository(open_backend((tmp_path / "copy").as_uri()), public_keys=repository.public_keys)
    restored(second, found, tmp_path / "of the copy")
    assert picture(tmp_path / "of the copy" / str(root).lstrip("/")) == picture(root)


def entries(pieces: Iterator[bytes]) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    with tarfile.open(fileobj=BytesIO(b"".join(pieces)), mode="r:") as archive:
        held = {one.name: archive.extractfile(one).read() for one in archive if one.isreg()}  # type: ignore[union-attr]
    return held, [json.loads(line) for line in held.pop(applications.PACK_INVENTORY).splitlines()]


def test_files_that_move_while_they_are_read(tmp_path: Path) -> None:
    """One grows, one shrinks, one vanishes: the first comes back as long as it was, the next as what was left."""
    root = tmp_path / ROOT_NAME
    root.mkdir()
    for name in ("1-grows", "2-shrinks", "3-vanishes", "4-stays"):
        (root / name).write_bytes(name[:1].encode() * (3 << 20))

    def looked_at() -> Iterator[kept.Found]:
        for found in kept.walk(str(root)):
            if found.leaf == "3-vanishes":
                (root / found.leaf).unlink()
            yield found

    pieces = kept._pack(kept._Peekable(looked_at()), kept._Count())
    seen = [next(pieces), next(pieces)]
    with (root / "1-grows").open("ab") as file:
        file.write(b"more")
    seen += [next(pieces) for _ in range(5)]  # the rest of it, its padding, and the beginning of the next
    os.truncate(root / "2-shrinks", 1 << 20)
    held, inventory = entries(iter([*seen, *pieces]))
    told = {entry["path"].rpartition("/")[2]: entry for entry in inventory}
    assert told["1-grows"]["grew"] and told["1-grows"]["size"] == 3 << 20
    assert told["2-shrinks"]["shrank"] and told["2-shrinks"]["size"] < 3 << 20
    assert told["3-vanishes"]["left_out"] == "vanished" and told["4-stays"]["size"] == 3 << 20
    for name, entry in told.items():
        if "left_out" not in entry:
            content = held[str(root / name).lstrip("/")]
            assert hashlib.sha256(content[: entry["size"]]).hexdigest() == entry["sha256"]
    assert held.keys() == {str(root / name).lstrip("/") for name in told if name != "3-vanishes"}


def test_a_file_that_shrank_comes_back_as_what_was_left(repository: Repository, tmp_path: Path) -> None:
    root = tmp_path / ROOT_NAME
    root.mkdir()
    (root / "one").write_bytes(b"x" * (3 << 20))
    (root / "one").chmod(0o400)
    sealing = keys.new_data_key(repository, [IDENTITY.recipient])
    attempt = writing.new_attempt(repository, applications.FILES, sealing, NOW)

    def shrinking() -> Iterator[bytes]:
        pieces = kept._pack(kept._Peekable(kept.walk(str(root))), count)
        yield from (next(pieces), next(pieces))
        os.truncate(root / "one", 1 << 20)
        yield from pieces

    count = kept._Count()
    pack = attempt.seal("000001", shrinking())
    stored = FileSet(NOW, sealing, (pack,), count.files, count.size_bytes, count.warnings)
    empty = Bundle(NOW, "cluster", "v1", "shop", "shop", "", None, ())
    found = applications.store(repository, empty, [IDENTITY.recipient], stored)
    restored(repository, found, tmp_path / "out")
    there = tmp_path / "out" / str(root / "one").lstrip("/")
    assert there.read_bytes() == b"x" * (1 << 20) and there.stat().st_mode & 0o777 == 0o400


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "a/../../escaped", "a//b", "./a"])
def test_no_name_leads_out(name: str, repository: Repository, tmp_path: Path) -> None:
    """Even of a pack that the right key signed."""
    content = BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        header = tarfile.TarInfo(name)
        header.size = 4
        archive.addfile(header, BytesIO(b"data"))
    sealing = keys.new_data_key(repository, [IDENTITY.recipient])
    attempt = writing.new_attempt(repository, applications.FILES, sealing, NOW)
    stored = FileSet(NOW, sealing, (attempt.seal("000001", [content.getvalue()]),), 1, 4)
    empty = Bundle(NOW, "cluster", "v1", "shop", "shop", "", None, ())
    found = applications.store(repository, empty, [IDENTITY.recipient], stored)
    with pytest.raises(errors.IntegrityError, match="leads out of the directory"):
        restored(repository, found, tmp_path / "out" / "below")
    assert not [path for path in tmp_path.rglob("escaped")]


def test_a_link_in_the_way_is_not_followed(repository: Repository, tmp_path: Path) -> None:
    root = filled(tmp_path / ROOT_NAME)
    found = bundle(repository, root)
    away, there = tmp_path / "away", tmp_path / "out" / str(root).lstrip("/")
    away.mkdir()
    there.mkdir(parents=True)
    (there / "day-0").symlink_to(away)
    with pytest.raises(errors.LocalIOError, match="cannot be written"):
        restored(repository, found, tmp_path / "out")
    assert list(away.iterdir()) == []


def test_a_changed_pack_is_refused(repository: Repository, tmp_path: Path) -> None:
    found = bundle(repository, filled(tmp_path / ROOT_NAME))
    assert found.files is not None
    path = tmp_path / "repository" / found.files.objects[0].key
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    with pytest.raises(errors.IntegrityError):
        restored(repository, found, tmp_path / "out")
    assert picture(tmp_path / "out" / str(tmp_path / ROOT_NAME).lstrip("/")).keys() <= {
        name for name in picture(tmp_path / "out" / str(tmp_path / ROOT_NAME).lstrip("/")) if files.UNFINISHED in name
    }
    (problem,) = check.check(repository, read_percent=100).problems
    assert problem.costs == "files of application bundle 1"


def test_packs_go_when_no_bundle_names_them(repository: Repository, tmp_path: Path) -> None:
    """And not before, whichever bundle stored them."""
    first = bundle(repository, filled(tmp_path / ROOT_NAME))
    assert first.files is not None
    empty = Bundle(NOW, "cluster", "v1", "shop", "shop", "", None, ())
    applications.store(repository, empty, [IDENTITY.recipient], first.files)
    policy, late = Policy(days=1, complete_chains=1), datetime(2036, 1, 1, tzinfo=UTC)
    applications.delete(repository, [first])
    assert prune.execute(repository, catalogs.read_catalog(repository), NOTHING, policy, late).deleted == 0
    (second,) = applications.all_manifests(repository)
    restored(repository, second, tmp_path / "out")
    applications.delete(repository, [second])
    packs = [pack.key for pack in first.files.objects]
    assert prune.execute(repository, catalogs.read_catalog(repository), NOTHING, policy, late).deleted == len(packs)
    assert not {info.key for info in repository.backend.list("data/")} & set(packs)


def test_what_may_not_be_read_stops_it(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(errors.LocalIOError, match="no folder that can be read here"):
        bundle(repository, tmp_path / "nowhere")
    assert applications.newest(repository) is None


def test_a_pack_opens_with_public_tools_alone(repository: Repository, tmp_path: Path) -> None:
    """The content of the seal is a plain tar."""
    root = filled(tmp_path / ROOT_NAME)
    found = bundle(repository, root)
    assert found.files is not None
    identity = keys.open_data_key(repository, found.files.sealing, [IDENTITY])
    plain = b"".join(stream.unseal(repository.backend.get(found.files.objects[0].key), (identity,)))
    with tarfile.open(fileobj=BytesIO(plain)) as archive:
        assert applications.PACK_INVENTORY in archive.getnames() and len(archive.getnames()) == 10
